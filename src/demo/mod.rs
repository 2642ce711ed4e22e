//! Four small HTTP modules, run by `trueup demo vault|mailbox|clerk|echo`: something to supervise in examples, tests and first
//! steps. They keep the module conventions (PORT, services.json, health, `.parachute/info`) and can misbehave on request.

mod args;
mod clerk;
mod cut;
mod echo;
mod fetch;
mod guard;
mod mailbox;
mod registration;
mod server;
mod vault;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use self::args::{Args, Which};
use crate::model::exit::Exit;

/// How long requests in flight may take after SIGTERM.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// What is fixed about each module.
struct Identity {
    /// Its short name, and the name of its folder below the home.
    short: &'static str,
    /// The name of its row in services.json.
    row: &'static str,
    port: u16,
    mount: &'static str,
    health: &'static str,
    display_name: &'static str,
    tagline: &'static str,
}

/// Runs a demonstration module until it is told to stop. `args` is what follows `trueup demo`.
/// Returns the exit code it was told to end with.
pub fn run(args: &[String]) -> u8 {
    let words = std::iter::once("trueup demo".to_owned()).chain(args.iter().cloned());
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(help) => {
            // Nobody is left to tell if this fails.
            let _ = help.print();
            return if help.use_stderr() { Exit::Usage as u8 } else { Exit::Done as u8 };
        }
    };
    let done = match args.verb {
        Some(verb) if args.module == Which::Vault => vault::follow(&args, verb).map(|()| Exit::Done as u8),
        Some(_) => Err("only the vault knows create, remove and list".to_owned()),
        None => start(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) if args.verb.is_some() => {
            // A command's complaint; nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr().lock(), "error: {error}");
            Exit::Error as u8
        }
        Err(error) => {
            say(&error);
            Exit::Error as u8
        }
    }
}

fn start(args: &Args) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    if args.fork_child {
        fork_child()?;
    }
    // The thread ends when the sender is dropped at the end of this function, or with the process.
    let (_stop, stopped) = std::sync::mpsc::channel::<()>();
    if let Some(pause) = args.print_forever {
        std::thread::spawn(move || print_forever(Duration::from_millis(pause), &stopped));
    }
    runtime.block_on(life(args))
}

/// From the first to the last moment: serves until the time is over or a signal comes.
async fn life(args: &Args) -> Result<u8, String> {
    let failed = |error: std::io::Error| format!("signals cannot be caught: {error}");
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (stop, stopped) = oneshot::channel();
    let serving = serve(args, stopped);
    tokio::pin!(serving);
    let over = async {
        match args.exit_after {
            Some(after) => tokio::time::sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = &mut serving => return ended.map(|()| args.exit_code),
        () = over => return Ok(args.exit_code),
        () = told_to_stop(args, &mut term, &mut interrupt) => {}
    }
    // The receiver is gone only if the server has ended, which is what we want.
    let _ = stop.send(());
    // Connections that are still open then are cut.
    let _ = tokio::time::timeout(LAST_WORDS, serving).await;
    say(&format!("{} stopped", args.module.identity().short));
    Ok(args.exit_code)
}

async fn told_to_stop(args: &Args, term: &mut Signal, interrupt: &mut Signal) {
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        if !args.ignore_term {
            return;
        }
        say(&format!("{} was told to stop and does not", args.module.identity().short));
    }
}

async fn serve(args: &Args, stopped: oneshot::Receiver<()>) -> Result<(), String> {
    if let Some(after) = args.listen_after {
        tokio::time::sleep(Duration::from_millis(after)).await;
    }
    let mut identity = args.module.identity();
    if let Some(row) = &args.row {
        // Once in the life of the process, which is the module.
        identity.row = row.clone().leak();
    }
    if args.module == Which::Vault && args.vault.first() != "default" {
        identity.mount = format!("/vault/{}", args.vault.first()).leak();
        identity.health = format!("{}/health", identity.mount).leak();
    }
    let home = args.home.as_deref();
    let mut paths = vec![identity.mount.to_owned()];
    let routes = match args.module {
        Which::Vault => {
            let served = vault::served(args, &identity)?;
            paths = served.paths;
            served.routes
        }
        Which::Mailbox => mailbox::routes(args, &identity)?,
        Which::Clerk => clerk::routes(home, &args.vault_row),
        Which::Echo => echo::routes(),
    };
    server::serve(args, &identity, routes, &paths, stopped).await
}

/// Where a module keeps its things. Another one of the same kind has a row, and a folder, of its own.
fn own_folder(home: &Path, usual: &Identity, row: &str) -> PathBuf {
    home.join(if row == usual.row { usual.short } else { row })
}

/// Leaves a grandchild behind that outlives a careless stop; it ends by itself within the hour.
fn fork_child() -> Result<(), String> {
    let child = Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn();
    let child = child.map_err(|error| format!("no child process: {error}"))?;
    say(&format!("child pid={}", child.id()));
    Ok(())
}

/// Prints numbered lines until the other end of the channel is dropped.
fn print_forever(pause: Duration, stopped: &Receiver<()>) {
    for line in 1_u64.. {
        say(&format!("line {line}: all is well, and this sentence is here to fill the log with something"));
        if stopped.recv_timeout(pause) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// One line on standard output, which is a module's log. A log that cannot be written stops no module.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
