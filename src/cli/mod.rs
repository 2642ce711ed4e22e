//! The command line: one file per command. It parses words, calls the engine through [`engine::Control`] and prints lines; it
//! decides nothing about the machine.

pub mod args;
pub mod engine;
pub mod exit;
pub mod interrupt;
pub mod render;

mod completions;
mod describe;
mod down;
mod events;
mod explain;
mod get;
mod init;
mod logs;
pub mod names;
mod pass;
mod plan;
mod reconcile;
mod restart;
mod schema;
mod service;
mod stop;
#[cfg(test)]
mod tests;
mod validate;

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;

use self::args::{Cli, Command, Global};
use self::engine::{Place, Wiring};
use self::exit::Failure;
use self::interrupt::{Cancel, Interrupts};
use self::render::screen::Screen;
use self::render::show;
use crate::model::exit::Exit;
use crate::model::output::Summary;

/// The whole program, on the real streams and signals.
pub fn main(wiring: &dyn Wiring) -> ExitCode {
    // A shell that wants completions calls this binary with COMPLETE set; nothing else may be printed then.
    match CompleteEnv::with_factory(Cli::command).try_complete(std::env::args_os(), None) {
        Ok(false) => {}
        Ok(true) => return Exit::Done.into(),
        Err(_) => return Exit::Error.into(),
    }
    run(std::env::args_os(), wiring, &mut Screen::real(), Interrupts::Signals).into()
}

/// One command, from its words to its exit code.
pub fn run<W: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = W>,
    wiring: &dyn Wiring,
    screen: &mut Screen,
    interrupts: Interrupts,
) -> Exit {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(wrong) => return not_a_command(&wrong, screen),
    };
    screen.configure(cli.global.output, cli.global.color);
    let looks_at_tree = looks_at_tree(&cli.command);
    let result = command(cli, wiring, screen, interrupts);
    screen.flush();
    let exit = match result {
        Ok(exit) => exit,
        Err(failure) => {
            let summary = looks_at_tree.then(Summary::default);
            show::error(screen, &failure.line(), summary.as_ref());
            failure.exit
        }
    };
    match screen.take_failure() {
        Some(error) if exit == Exit::Done => {
            screen.err(&format!("error: the output could not be written\n  caused by: {error}\n"));
            Exit::Error
        }
        _ => exit,
    }
}

/// Help and version are no mistakes; everything else that clap refuses is.
fn not_a_command(wrong: &clap::Error, screen: &mut Screen) -> Exit {
    let text = wrong.render().ansi().to_string();
    if wrong.use_stderr() {
        screen.err(&text);
        Exit::Usage
    } else {
        screen.out(&text);
        screen.flush();
        Exit::Done
    }
}

fn looks_at_tree(command: &Command) -> bool {
    use Command as C;
    match command {
        C::Validate(_) | C::Plan(_) | C::Reconcile(_) | C::Get(_) | C::Describe(_) | C::Restart(_) | C::Down(_) => true,
        C::Stop(_) | C::Start(_) => true,
        C::Init(_) | C::Logs(_) | C::Events(_) | C::Explain(_) | C::Schema(_) | C::Completions(_) => false,
        C::Service(_) | C::Keeper(_) | C::Demo(_) => false,
    }
}

/// Commands that need no engine are answered at once; the others get a runtime and the requests to end.
fn command(cli: Cli, wiring: &dyn Wiring, screen: &mut Screen, interrupts: Interrupts) -> Result<Exit, Failure> {
    let place = place(&cli.global)?;
    match cli.command {
        Command::Init(args) => init::run(&args, &cli.global, wiring, screen),
        Command::Explain(args) => explain::run(&args, screen),
        Command::Schema(args) => schema::run(&args, screen),
        Command::Service(args) => service::run(&args, &place, wiring.surroundings(), screen),
        Command::Completions(args) => completions::run(&args, screen),
        Command::Logs(args) if !args.follow => logs::print(&args, &place, wiring.now(), screen),
        Command::Keeper(_) if cli.global.state.is_none() => Err(Failure::new(Exit::Usage, "keeper needs --state DIR")),
        Command::Keeper(args) => wiring.keeper(&place.state, args.take_over),
        Command::Demo(args) => wiring.demo(&args.args),
        other => block_on(async {
            tell_what_is_done(cli.global.verbose);
            let cancel = interrupts.listen().context("the signal handlers could not be installed")?;
            with_engine(other, Desk { place: &place, wiring, cancel: &cancel }, screen).await
        }),
    }
}

/// What every command that waits has at hand.
#[derive(Clone, Copy)]
struct Desk<'a> {
    place: &'a Place,
    wiring: &'a dyn Wiring,
    cancel: &'a Cancel,
}

async fn with_engine(command: Command, desk: Desk<'_>, screen: &mut Screen) -> Result<Exit, Failure> {
    if let Command::Logs(args) = &command {
        return logs::follow(args, desk, screen).await;
    }
    let control = unless_cancelled(desk.cancel, desk.wiring.control(desk.place)).await?;
    let control = &*control;
    match command {
        Command::Validate(_) => validate::run(control, desk, screen).await,
        Command::Plan(args) => plan::run(&args, control, desk, screen).await,
        Command::Reconcile(args) => reconcile::run(&args, control, desk, screen).await,
        Command::Get(args) => get::run(&args, control, desk, screen).await,
        Command::Describe(args) => describe::run(&args, control, desk, screen).await,
        Command::Events(args) => events::run(&args, control, desk, screen).await,
        Command::Restart(args) => restart::run(&args, control, desk, screen).await,
        Command::Stop(args) => stop::stop(&args, control, desk, screen).await,
        Command::Start(args) => stop::start(&args, control, desk, screen).await,
        Command::Down(args) => down::run(&args, control, desk, screen).await,
        _ => unreachable!("the other commands were answered without the engine"),
    }
}

/// Work that changes nothing, dropped as soon as the user wants to leave.
async fn unless_cancelled<T>(cancel: &Cancel, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // Dropping the work is safe because it only looks.
    tokio::select! {
        done = work => done,
        _ = cancel.wait() => Err(Failure::cancelled()),
    }
}

/// One thread for everything: the engine and its ports live on it.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the runtime could not be built")?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Sends what the rooms log to the standard error: warnings always, more with each `-v`.
fn tell_what_is_done(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    // Fails only when there is a subscriber already, as in tests.
    let _ = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).try_init();
}

/// Where the tree and its state are.
fn place(global: &Global) -> Result<Place, Failure> {
    place_of(&global.manifests, global.state.as_deref())
}

fn place_of(manifests: &Path, state: Option<&Path>) -> Result<Place, Failure> {
    let manifests = manifests.to_owned();
    let state = match state {
        Some(state) => std::path::absolute(state),
        None => beside(&manifests),
    };
    let state = state.with_context(|| format!("the state folder beside {} cannot be named", manifests.display()))?;
    Ok(Place { manifests, state })
}

/// A state folder for this tree alone, for a tree whose neighbour has the usual one.
pub fn own_state(manifests: &Path) -> PathBuf {
    let name = manifests.file_name().unwrap_or_default().to_string_lossy();
    manifests.with_file_name(format!(".trueup-{name}"))
}

/// `.trueup` beside the folder. A symbolic link is taken as it stands: what it points to may be replaced, the link stays.
fn beside(manifests: &Path) -> std::io::Result<PathBuf> {
    let mut folder = std::path::absolute(manifests)?;
    if folder.file_name().is_none() {
        folder = std::fs::canonicalize(folder)?;
    }
    Ok(folder.parent().unwrap_or(&folder).join(".trueup"))
}
