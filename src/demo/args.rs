//! The command line of the demonstration modules.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, ValueEnum};
use serde_json::Value;

use super::guard::Hub;
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
    /// Of the vault only: makes or removes a vault, or lists them, instead of serving them. A server that runs notices.
    #[arg(value_enum)]
    pub(super) verb: Option<Verb>,
    /// Which vault.
    #[arg(value_name = "NAME", requires = "verb")]
    pub(super) name: Option<String>,
    /// Answers a verb with one line of JSON.
    #[arg(long, requires = "verb")]
    pub(super) json: bool,
    /// Without it `remove` removes nothing.
    #[arg(long, requires = "verb")]
    pub(super) yes: bool,
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
    #[command(flatten)]
    pub(super) hub: Hub,
    #[command(flatten)]
    pub(super) vault: VaultArgs,
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
    #[command(flatten)]
    pub(super) vault_faults: VaultFaults,
    #[command(flatten)]
    pub(super) mailbox_faults: MailboxFaults,
}

/// What only the vault asks.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Vault")]
pub(super) struct VaultArgs {
    /// The vault that is there from the start.
    #[arg(long, env = "PARACHUTE_VAULT_NAME", value_name = "NAME", default_value = "default")]
    vault_name: String,
    /// So many deliveries of triggers go on at once.
    #[arg(long, env = "HOOK_CONCURRENCY", value_name = "N", default_value = "2")]
    hook_concurrency: String,
    /// Notes are for those with a token of the hub; triggers always are.
    #[arg(long)]
    pub(super) require_token: bool,
    /// A token that may do everything in every vault.
    #[arg(long, env = "VAULT_AUTH_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(super) auth_token: Option<String>,
}

impl VaultArgs {
    /// The name of the first vault; an empty one is none.
    pub(super) fn first(&self) -> &str {
        if self.vault_name.trim().is_empty() { "default" } else { self.vault_name.trim() }
    }

    /// What is no number counts as nothing said.
    pub(super) fn hook_concurrency(&self) -> usize {
        self.hook_concurrency.trim().parse().ok().filter(|number| *number > 0).unwrap_or(2)
    }
}

/// How the vault misbehaves.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Faults")]
pub(super) struct VaultFaults {
    /// Answers every call of the triggers API with this status.
    #[arg(long, value_name = "CODE")]
    pub(super) triggers_fail: Option<u16>,
    /// Does what a call that changes triggers asks, and loses the answer; the first N times, or always.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "18446744073709551615")]
    pub(super) lose_answers: Option<u64>,
    /// Answers the API so many milliseconds late.
    #[arg(long, value_name = "MS")]
    pub(super) slow_api: Option<u64>,
    /// Behaves as if it had no triggers while this file exists.
    #[arg(long, value_name = "FILE")]
    pub(super) forget_triggers_while: Option<PathBuf>,
}

/// How the mailbox misbehaves.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Faults")]
pub(super) struct MailboxFaults {
    /// Answers deliveries with this status and stores nothing; the first N of them, or all.
    #[arg(long, value_name = "CODE[:N]")]
    pub(super) fail_deliver: Option<FailFirst>,
    /// Takes deliveries so many milliseconds late.
    #[arg(long, value_name = "MS")]
    pub(super) deliver_delay: Option<u64>,
    /// Stores the first N deliveries, and loses the answers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) lose_deliver_answers: u64,
    /// Answers deliveries that it takes with this, as a module does that has something to say to the vault.
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(super) deliver_answer: Option<Value>,
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

/// A status, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailFirst {
    pub(super) status: u16,
    pub(super) times: u64,
}

impl FromStr for FailFirst {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (status, times) = text.split_once(':').map_or((text, None), |(status, times)| (status, Some(times)));
        let wrong = |_| format!("'{text}' is not CODE or CODE:N");
        let status = status.parse().map_err(wrong)?;
        Ok(Self { status, times: times.map_or(Ok(u64::MAX), str::parse).map_err(wrong)? })
    }
}

/// What can be done with vaults besides serving them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Verb {
    /// Makes a vault. One that exists is left as it is.
    Create,
    /// Removes a vault with all that is in it.
    Remove,
    /// Says which vaults there are.
    List,
}

/// The demonstration modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// Keeps notes, and sends them where triggers say (port 1940).
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
