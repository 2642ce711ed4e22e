//! Talks to systemd through its own command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::unit::Scope;
use crate::cli::exit::Failure;
use crate::model::exit::Exit;

pub(super) struct Manager {
    scope: Scope,
    /// A folder that is there when the machine was started by systemd (sd_booted(3)).
    sign: PathBuf,
}

impl Manager {
    pub(super) fn new(scope: Scope, sign: PathBuf) -> Self {
        Self { scope, sign }
    }

    pub(super) fn there(&self) -> bool {
        self.sign.is_dir()
    }

    /// The words of a command to it.
    pub(super) fn command(&self, words: &[&str]) -> Vec<OsString> {
        let user = (self.scope == Scope::User).then_some("--user");
        ["systemctl"].into_iter().chain(user).chain(words.iter().copied()).map(OsString::from).collect()
    }

    /// Runs it.
    pub(super) fn run(&self, command: &[OsString]) -> Result<(), Failure> {
        let output = spawn(command)?;
        if output.status.success() {
            return Ok(());
        }
        let shown = command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let said = String::from_utf8_lossy(&output.stderr);
        let text = format!("'{shown}' failed ({}): {}", output.status, said.trim());
        let user = if self.scope == Scope::User { "--user " } else { "" };
        Err(Failure::new(Exit::Error, text).hint(format!("'journalctl {user}-e' shows what the daemon said")))
    }

    /// One word about a unit. These questions answer with an exit code as well, which is no failure.
    pub(super) fn says(&self, verb: &str, unit: &str) -> Result<String, Failure> {
        let output = spawn(&self.command(&[verb, unit]))?;
        let word = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(if word.is_empty() { "unknown".to_owned() } else { word })
    }
}

fn spawn(command: &[OsString]) -> Result<std::process::Output, Failure> {
    let (program, rest) = command.split_first().expect("a command has a first word");
    Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(Exit::Error, format!("systemctl could not be run: {error}")))
}
