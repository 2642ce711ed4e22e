//! The command line of the demonstration modules.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::{Identity, clerk, echo, mailbox, vault};

/// Small HTTP modules to try trueup with.
///
/// Each listens on 127.0.0.1, keeps the module conventions (services.json, health path, .parachute/info), and stops within
/// 100 ms after SIGTERM. It takes its port from the first of: its row in $PARACHUTE_HOME/services.json, --port, $PORT, its own
/// default. The flags under "Faults" make it misbehave.
#[derive(Clone, Debug, Parser)]
#[command(name = "trueup demo", bin_name = "trueup demo", disable_help_subcommand = true)]
pub(super) struct Args {
    /// Which module.
    #[arg(value_enum)]
    pub(super) module: Which,
    /// The port to listen on, unless services.json has one; 0 for a free one (it is printed).
    #[arg(long, env = "PORT")]
    pub(super) port: Option<u16>,
    /// The folder with services.json, and with the vault's notes. Without it nothing is registered or kept.
    #[arg(long, env = "PARACHUTE_HOME", value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// Registers under this name, so that several of the same module can live side by side.
    #[arg(long, value_name = "NAME")]
    pub(super) row: Option<String>,
    /// With `debug` every request is printed.
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub(super) log_level: String,
    /// The row of services.json in which the clerk looks for the vault.
    #[arg(long, env = "VAULT_ROW", value_name = "NAME", default_value = "parachute-vault")]
    pub(super) vault_row: String,
    /// Speaks for itself by `sd_notify(3)`: says when it is ready, and that it lives.
    #[arg(long)]
    pub(super) notify: bool,
    /// Is unwell while this file exists: its health answers 503, and it does not say that it is ready or lives.
    #[arg(long, value_name = "FILE", help_heading = "Faults")]
    pub(super) sick_while: Option<PathBuf>,
    /// Ends by itself after so many milliseconds.
    #[arg(long, value_name = "MS", help_heading = "Faults")]
    pub(super) exit_after: Option<u64>,
    /// The exit code of --exit-after and of a stop.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Faults")]
    pub(super) exit_code: u8,
    /// Listens only after so many milliseconds.
    #[arg(long, value_name = "MS", help_heading = "Faults")]
    pub(super) listen_after: Option<u64>,
    /// Listens on this port, whatever it is told.
    #[arg(long, value_name = "PORT", help_heading = "Faults")]
    pub(super) listen_on: Option<u16>,
    /// Does not stop at SIGTERM and SIGINT.
    #[arg(long, help_heading = "Faults")]
    pub(super) ignore_term: bool,
    /// Starts a child process that sleeps for an hour, and leaves it behind.
    #[arg(long, help_heading = "Faults")]
    pub(super) fork_child: bool,
    /// Prints lines without end, with a pause of so many milliseconds between them.
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "0", help_heading = "Faults")]
    pub(super) print_forever: Option<u64>,
}

/// The demonstration modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// Keeps notes (port 1940).
    Vault,
    /// Receives messages (port 1941).
    Mailbox,
    /// Counts the vault's notes, and so needs the vault (port 1942).
    Clerk,
    /// Says what it was asked, and misbehaves on request (port 1943).
    Echo,
}

impl Which {
    pub(super) fn identity(self) -> Identity {
        match self {
            Self::Vault => vault::IDENTITY,
            Self::Mailbox => mailbox::IDENTITY,
            Self::Clerk => clerk::IDENTITY,
            Self::Echo => echo::IDENTITY,
        }
    }
}
