//! `completions`: the script that makes a shell ask this binary what can be completed.

use anyhow::Context;
use clap_complete::env::Shells;

use super::args;
use super::exit::Failure;
use super::render::screen::Screen;
use crate::model::exit::Exit;

pub fn run(args: &args::Completions, screen: &mut Screen) -> Result<Exit, Failure> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).with_context(|| format!("'{}' is not a known shell", args.shell))?;
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "trueup", "trueup", "trueup", &mut script)
        .context("the script could not be written")?;
    screen.out(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
