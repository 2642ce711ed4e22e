//! Wiring: builds the real world, puts the engine behind the commands, and runs the continuous mode.

mod bearers;
mod bell;
mod blobs;
mod build;
mod control;
mod database;
mod deliveries;
mod emit;
mod hub;
mod instance;
mod letters;
mod office;
mod pulse;
mod serve;
mod socket;
mod storage;
mod tokens;
mod tree;
mod verbs;
mod witness;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::adapters::clock::SystemClock;
use crate::adapters::environment::{self, Environment};
use crate::cli::engine::{Answer, Blobs, Control, Letters, Offer, Place, Surroundings, Tokens, Wiring};
use crate::cli::exit::Failure;
use crate::demo as modules;
use crate::keeper::{self, KeeperError};
use crate::model::exit::Exit;
use crate::model::time::Timestamp;
use crate::ports::clock::Clock;

/// The real thing.
pub struct Real;

/// Whatever the shell, a CI runner or a service manager left open beside the three standard streams stays with us: a module that
/// holds a pipe of our caller would keep that caller waiting for as long as it runs.
pub fn keep_descriptors_to_ourselves() {
    close_fds::set_fds_cloexec(3, &[]);
}

/// Is a demonstration module until it is told to stop; returns the exit code it shall end with.
pub fn demo(args: &[OsString]) -> u8 {
    let args: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    modules::run(&args)
}

/// The hidden command by which the keeper starts a program with rights and limits of its own.
pub const BECOME: &str = keeper::becoming::WORD;

/// Becomes that program; returns only when that failed, with the exit code to end with.
pub fn become_program(words: &[OsString]) -> u8 {
    keeper::becoming::run(words)
}

impl Wiring for Real {
    #[cfg(feature = "otlp")]
    fn traces(&self) -> Option<Result<crate::cli::engine::Traces, String>> {
        let begun = crate::adapters::traces::begin(&Environment::of_process())?;
        let whole = |(listener, sending): (_, crate::adapters::traces::Sending)| crate::cli::engine::Traces {
            listener,
            end: Box::new(move || sending.end()),
        };
        Some(begun.map(whole))
    }

    fn blobs(&self, place: &Place) -> Result<Box<dyn Blobs>, Failure> {
        Ok(Box::new(blobs::Local::open(place)?))
    }

    fn tokens(&self, place: &Place) -> Result<Box<dyn Tokens>, Failure> {
        Ok(Box::new(tokens::Local::new(place)))
    }

    fn letters(&self, place: &Place) -> Result<Box<dyn Letters>, Failure> {
        Ok(Box::new(letters::Local::new(place)))
    }

    fn events(&self) -> Offer {
        letters::offered
    }

    fn now(&self) -> Timestamp {
        SystemClock.wall()
    }

    fn control<'a>(&'a self, place: &'a Place) -> Answer<'a, Box<dyn Control + 'a>> {
        Box::pin(async move {
            let control: Box<dyn Control + 'a> = Box::new(control::Local::new(place.clone()));
            Ok(control)
        })
    }

    fn surroundings(&self) -> Result<Surroundings, Failure> {
        let own = Environment::of_process();
        let place = own.place(std::path::PathBuf::new());
        let folder = |name: &str| own.get(name).map(std::path::PathBuf::from);
        Ok(Surroundings {
            binary: environment::own_binary().map_err(anyhow::Error::from)?,
            config_home: own.config_home(),
            units: folder("TRUEUP_UNITS"),
            systemd: folder("TRUEUP_SYSTEMD").unwrap_or_else(|| "/run/systemd/system".into()),
            environment: std::iter::once(("PATH".to_owned(), place.path)).chain(place.inherited).collect(),
            unset: own.unset().map(str::to_owned).collect(),
        })
    }

    fn keeper(&self, state: &Path, take_over: bool) -> Result<Exit, Failure> {
        match keeper::run(state, take_over) {
            Ok(()) => Ok(Exit::Done),
            Err(error) => {
                let exit = if matches!(error, KeeperError::Locked(_)) { Exit::Locked } else { Exit::Error };
                Err(Failure { exit, error: error.into(), hint: None })
            }
        }
    }

    fn tree_of(&self, state: &Path) -> Option<PathBuf> {
        tree::recorded(&*build::read_ledger(state).ok()?).ok()?
    }

    fn demo(&self, args: &[OsString]) -> Result<Exit, Failure> {
        match demo(args) {
            0 => Ok(Exit::Done),
            _ => Ok(Exit::Error),
        }
    }
}
