//! The command line: one file per command. It parses words, calls the engine through [`engine::Control`] and prints lines; it
//! decides nothing about the machine.

pub mod args;
pub mod engine;
pub mod exit;
pub mod interrupt;
pub mod render;

pub mod blob;
pub mod catalog;
mod completions;
mod deliveries;
mod describe;
mod down;
mod events;
mod explain;
mod get;
mod grant;
mod import;
mod init;
pub mod logs;
pub mod names;
mod pass;
mod plan;
mod reconcile;
mod restart;
mod schema;
mod service;
mod stop;
mod storage;
pub mod telling;
#[cfg(test)]
mod tests;
mod token;
mod validate;

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, ValueEnum};
use clap_complete::CompleteEnv;

use self::args::{Cli, Color, Command, Format, Global};
use self::engine::{Place, Wiring};
use self::exit::Failure;
use self::interrupt::{Cancel, Interrupts};
use self::render::screen::Screen;
use self::render::show;
use self::telling::Manner;
use crate::model::exit::Exit;
use crate::model::output::{ErrorLine, Summary};

/// The whole program, on the real streams and signals.
pub fn main(wiring: &dyn Wiring) -> ExitCode {
    names::offer_events(wiring.events());
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
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let parsed = parser().try_get_matches_from(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(wrong) => return not_a_command(&wrong, &words, screen),
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

/// The commands as they are parsed. The flags that all of them have are told once, by `trueup --help`.
fn parser() -> clap::Command {
    let mut whole = Cli::command();
    // Global flags reach the subcommands when the whole is built.
    whole.build();
    whole.mut_subcommands(|command| {
        let long = command.get_after_long_help().map(ToString::to_string);
        let has = command.get_arguments().any(clap::Arg::is_global_set);
        let command = command.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        match long {
            Some(long) if has => command.after_help(GLOBAL_FLAGS).after_long_help(format!("{long}\n\n{GLOBAL_FLAGS}")),
            _ => command,
        }
    })
}

const GLOBAL_FLAGS: &str = "Global options (--manifests, --state, -o, --color, -v): trueup --help";

/// Words that other programs have for what a command of ours does.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["apply", "up", "sync", "deploy", "converge", "run"],
        "'trueup reconcile --once' makes the machine as the files say",
    ),
    (&["status", "ps", "ls", "list", "show", "top"], "'trueup get' lists what there is, and how it is"),
    (&["inspect", "why", "cat"], "'trueup describe NAME' shows everything known of one resource"),
    (&["diff", "preview", "dry-run"], "'trueup plan' shows what would change"),
    (&["check", "lint", "test", "verify"], "'trueup validate' checks the manifests"),
    (&["log", "tail"], "'trueup logs -f NAME' follows what a service writes"),
    (&["watch", "daemon", "serve"], "'trueup reconcile' watches the folder and keeps the machine true to it"),
    (&["kill", "pause"], "'trueup stop NAME' stops a service for a while; 'trueup down' stops everything"),
    (&["resume"], "'trueup start NAME' takes a stop back"),
    (&["reload"], "a saved file is followed by itself; 'trueup restart NAME' restarts a service"),
    (&["delete", "rm", "remove", "destroy"], "take the document out of its file, then 'trueup reconcile --once'"),
    (&["create", "new", "add"], "'trueup init' starts a folder of manifests; a resource is added by writing its file"),
    (&["man", "docs"], "'trueup explain' explains kinds, fields, codes and states"),
];

/// What was probably meant, for a command that we do not have.
fn elsewhere(wrong: &clap::Error) -> Option<&'static str> {
    let word = match wrong.get(ContextKind::InvalidSubcommand)? {
        ContextValue::String(word) => word,
        _ => return None,
    };
    ELSEWHERE.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, advice)| *advice)
}

/// The form of output that was asked for, in a command line that could not be parsed.
fn wished_format(words: &[OsString]) -> Format {
    let mut words = words.iter().filter_map(|word| word.to_str());
    let mut wished = Format::Text;
    while let Some(word) = words.next() {
        let value = match word {
            "-o" | "--output" => words.next(),
            _ => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
        };
        wished = value.and_then(|value| Format::from_str(value.trim_start_matches('='), true).ok()).unwrap_or(wished);
    }
    wished
}

/// Help and version are no mistakes; everything else that clap refuses is.
fn not_a_command(wrong: &clap::Error, words: &[OsString], screen: &mut Screen) -> Exit {
    let text = wrong.render().ansi().to_string();
    if wrong.use_stderr() {
        let advice = elsewhere(wrong);
        screen.configure(wished_format(words), Color::Auto);
        if screen.is_text() {
            screen.err(&text);
            if let Some(advice) = advice {
                screen.err(&format!("\n  help: {advice}\n"));
            }
            return Exit::Usage;
        }
        let plain = wrong.render().to_string();
        let first = plain.lines().next().unwrap_or_default();
        let message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
        let hint = advice.unwrap_or("'trueup --help' lists commands and flags").to_owned();
        let code = Exit::Usage.as_str().to_owned();
        show::error(screen, &ErrorLine { code, message, causes: Vec::new(), hint: Some(hint) }, None);
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
        C::Init(_) | C::Import(_) | C::Logs(_) | C::Events(_) | C::Explain(_) | C::Schema(_) | C::Completions(_) => {
            false
        }
        C::Token(_) | C::Grant(_) | C::Deliveries(_) => false,
        C::Blob(_) | C::Storage(_) | C::Service(_) | C::Keeper(_) | C::Demo(_) => false,
    }
}

/// Commands that need no engine are answered at once; the others get a runtime and the requests to end.
fn command(cli: Cli, wiring: &dyn Wiring, screen: &mut Screen, interrupts: Interrupts) -> Result<Exit, Failure> {
    let place = place(&cli.global)?;
    match cli.command {
        Command::Init(args) => init::run(&args, &cli.global, wiring, screen),
        Command::Import(args) => import::run(&args, &cli.global, screen),
        Command::Explain(args) => explain::run(&args, screen),
        Command::Schema(args) => schema::run(&args, screen),
        Command::Service(args) => service::run(&args, &place, wiring.surroundings(), screen),
        Command::Completions(args) => completions::run(&args, screen),
        Command::Blob(args) => {
            // The blobs are worked on without a runtime, so requests to end are looked at between two pieces.
            let asked = interrupts.watch().context("the signal handlers could not be installed")?;
            blob::run(&args.verb, &*wiring.blobs(&place)?, &asked, wiring.now(), screen)
        }
        Command::Token(words) => token::run(words.verb, &*wiring.tokens(&place)?, wiring.now(), screen),
        Command::Deliveries(words) => deliveries::run(&words.verb, &*wiring.letters(&place)?, wiring.now(), screen),
        Command::Grant(words) => grant::run(&words.verb, &*wiring.tokens(&place)?, wiring.now(), screen),
        Command::Storage(args) => storage::run(&args.verb, &*wiring.blobs(&place)?, wiring.now(), screen),
        Command::Logs(args) if !args.follow => logs::print(&args, &place, wiring.now(), screen),
        Command::Keeper(_) if cli.global.state.is_none() => Err(Failure::new(Exit::Usage, "keeper needs --state DIR")),
        Command::Keeper(args) => wiring.keeper(&place.state, args.take_over),
        Command::Demo(args) => wiring.demo(&args.args),
        other => {
            let Global { verbose, output: format, .. } = cli.global;
            // Only who changes the machine is worth a trace.
            let traces = matches!(other, Command::Reconcile(_)).then(|| wiring.traces()).flatten();
            let (listener, end, trouble) = match traces {
                Some(Ok(traces)) => (Some(traces.listener), Some(traces.end), None),
                Some(Err(trouble)) => (None, None, Some(trouble)),
                None => (None, None, None),
            };
            telling::begin(Manner { verbose, format, colour: screen.paints_errors() }, listener);
            if let Some(why) = trouble {
                tracing::warn!(why, "no traces are sent");
            }
            let result = block_on(async {
                let cancel = interrupts.listen().context("the signal handlers could not be installed")?;
                with_engine(other, Desk { place: &place, wiring, cancel: &cancel }, screen).await
            });
            if let Some(end) = end {
                end();
            }
            result
        }
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
