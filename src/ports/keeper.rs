//! The keeper as the engine sees it: units, not services. A unit is a process that should run, under a name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Answer, PortError};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::{Bytes, Millis};

/// What to run. Two runs with the same digest are the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// The argument vector, `argv[0]` included.
    pub argv: Vec<String>,
    pub dir: PathBuf,
    /// The whole environment; nothing is inherited by accident.
    pub env: BTreeMap<String, Secret>,
    /// As whom and with which rights and limits of its own it runs.
    pub confinement: Confinement,
    /// A socket that the keeper opens and hands on.
    pub listen: Option<SocketAddr>,
    /// Keyed digest of all of the above.
    pub digest: Digest,
}

/// As whom, and within which limits of its own, a program runs. The kernel takes these at a start only, so a change of them
/// needs a restart. What is not given is as the keeper has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Confinement {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// The whole list of supplementary groups.
    pub groups: Option<Vec<u32>>,
    /// -20 (first served) to 19 (last served).
    pub nice: Option<i32>,
    /// Permission bits that new files do not get.
    pub umask: Option<u32>,
    pub rlimits: BTreeMap<Rlimit, Bounds>,
}

impl Confinement {
    /// Nothing is asked for: the program can be started as it is.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What the kernel bounds for each process, by its name in getrlimit(2) in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rlimit {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Rlimit {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Locks,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rss,
        Self::Rtprio,
        Self::Rttime,
        Self::Sigpending,
        Self::Stack,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }
}

/// A soft and a hard limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// What a unit as a whole, with everything it starts, may use. These are settings of its cgroup and change while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ceilings {
    /// Beyond it, and with nothing left to reclaim, the whole unit is killed.
    pub memory: Option<Bytes>,
    /// Thousandths of a core.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// A cgroup even without limits, so that nothing that it starts can leave the unit.
    pub cgroup: bool,
}

impl Ceilings {
    /// Nothing is asked for: no cgroup is needed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The cgroup controllers that are needed for them.
    pub fn controllers(&self) -> Vec<&'static str> {
        let all = [("memory", self.memory.is_some()), ("cpu", self.cpu.is_some()), ("pids", self.pids.is_some())];
        all.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| name).collect()
    }
}

/// How a unit is kept. A change of it needs no restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    pub restart: Restart,
    pub stop_signal: i32,
    pub stop_grace: Millis,
    pub log_max_size: Bytes,
    /// How many rotated files are kept beside the current one.
    pub log_keep: u32,
    /// Output older than this is let go of when there is new output.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_max_age: Option<Millis>,
    /// Set for a unit that speaks `sd_notify(3)`: it gets a NOTIFY_SOCKET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    #[serde(default, skip_serializing_if = "Ceilings::is_none")]
    pub ceilings: Ceilings,
}

/// What a unit must say of itself, and how soon (sd_notify(3)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notify {
    /// `READY=1` must come this soon after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Millis>,
    /// From then on (or from the start, without `start`) `WATCHDOG=1` must come at least this often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartWhen {
    Always,
    OnFailure,
    Never,
}

/// When and how fast a unit that ended is started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    pub when: RestartWhen,
    /// Pause before the second attempt in a row; the first restart after a healthy run has none.
    pub initial: Millis,
    pub max: Millis,
    pub factor: u32,
    /// This many crashes in a row within `window` make a crash loop: from then on one retry every `max`.
    pub limit: u32,
    pub window: Millis,
    /// So long alive (or ready once) makes a run healthy: the count starts anew.
    pub reset_after: Millis,
    /// Exit codes that are a success beside 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<i32>,
    /// Exit codes after which it is not started again, whatever `when` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fatal: Vec<i32>,
}

impl Restart {
    /// Whether it ended as it should.
    pub fn succeeded(&self, exit: &Exit) -> bool {
        matches!(exit, Exit::Code(code) if *code == 0 || self.success.contains(code))
    }

    /// Whether what ended like this is started again.
    pub fn restarts(&self, exit: Option<&Exit>) -> bool {
        if exit.is_some_and(|exit| self.gave_up(exit)) {
            return false;
        }
        match self.when {
            RestartWhen::Always => true,
            RestartWhen::OnFailure => !exit.is_some_and(|exit| self.succeeded(exit)),
            RestartWhen::Never => false,
        }
    }

    /// Whether it said that another attempt is of no use.
    pub fn gave_up(&self, exit: &Exit) -> bool {
        matches!(exit, Exit::Code(code) if self.fatal.contains(code))
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It ended while nobody was its parent; the kernel told nobody how.
    Unknown,
    /// The kernel killed it because it, or something it started, went beyond this memory limit.
    OutOfMemory {
        limit: Option<Bytes>,
    },
    /// It never ran: the system call that starts it failed with this error.
    NotSpawned(String),
    /// It was stopped because it was not well: a probe failed, or it gave no sign of life.
    Unwell(String),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("exit code unknown"),
            Self::OutOfMemory { limit: Some(limit) } => write!(f, "killed for lack of memory (limit {limit})"),
            Self::OutOfMemory { limit: None } => f.write_str("killed for lack of memory"),
            Self::NotSpawned(why) => write!(f, "could not be started: {why}"),
            Self::Unwell(why) => write!(f, "stopped because {why}"),
        }
    }
}

/// Where a unit is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Running,
    /// Told to stop; its process still lives. A wanted successor starts when it is gone.
    Stopping,
    /// Crashed; starts again at the given time.
    Backoff {
        retry_at: Timestamp,
    },
    /// Crashed too often; one attempt at the given time, and so on.
    Looping {
        retry_at: Timestamp,
    },
    /// Ended, and its policy says not to start it again.
    Ended,
    /// Stopped because it was asked to.
    Stopped,
}

/// A process as the keeper knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`): pid and this together are never reused.
    pub start_ticks: u64,
    /// By the wall clock: for people.
    pub started: Timestamp,
}

/// A clock tick as `/proc` counts them (proc(5), `USER_HZ`: 100 a second on every machine that we run on).
pub const CLOCK_TICK: Millis = Millis(10);

impl Process {
    /// How long it has been up, by the clock that never jumps (time since boot, as its start is counted).
    pub fn uptime(&self, now: Tick) -> Millis {
        now - Tick(self.start_ticks.saturating_mul(CLOCK_TICK.0))
    }
}

/// One unit, as the keeper lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    pub name: Name,
    /// Digest of the launch that runs now (or ran last).
    pub digest: Digest,
    pub policy: Policy,
    pub phase: Phase,
    pub process: Option<Process>,
    /// Other live processes with this unit's mark that are not its own: left by a keeper that was killed at a bad moment.
    pub strays: Vec<u32>,
    /// How often it was started again since it was last healthy or changed.
    pub crashes: u32,
    /// How often it was started again in all since the keeper knows it.
    pub restarts: u32,
    pub last_exit: Option<Exit>,
    pub last_exit_at: Option<Timestamp>,
    /// Told to be ready since its process started.
    pub ready: bool,
    /// It said `READY=1` itself.
    #[serde(default)]
    pub notified: bool,
    /// The keeper that holds its listening socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<u32>,
    /// What it last said of itself (`STATUS=`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Whether the keeper knows its launch. Not so for a unit that a new keeper adopted from a killed one: it watches it, and
    /// cannot start it again until told how.
    pub known: bool,
}

/// The verbs of the keeper. All of them are idempotent, and none waits for a process to end.
pub trait Keeper {
    /// Every unit, sorted by name. An answer without error is complete.
    fn list(&self) -> Answer<'_, Result<Vec<Unit>, PortError>>;
    /// Makes the unit run exactly this: starts it when it does not run, replaces it (stop, then start) when it runs something
    /// else, only takes the policy when it runs this already, and forgets earlier crashes when the launch is new. With `again`
    /// it is replaced even if the digest is the same. The answer is the unit right after.
    fn ensure<'a>(
        &'a self,
        name: &'a Name,
        launch: &'a Launch,
        policy: &'a Policy,
        again: bool,
    ) -> Answer<'a, Result<Unit, PortError>>;
    /// Starts to stop the unit: signal to its group, then SIGKILL after the grace. `Stopped` follows.
    fn stop<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>>;
    /// Tells the keeper that this process answered its probe: what crashes after that is restarted at once.
    fn ready<'a>(&'a self, name: &'a Name, pid: u32) -> Answer<'a, Result<(), PortError>>;
    /// Says that this process is not well, and why: it is stopped, and started again by the same table as after a crash. Another
    /// process than this one is left alone.
    fn unwell<'a>(&'a self, name: &'a Name, pid: u32, why: &'a str) -> Answer<'a, Result<(), PortError>>;
    /// Signals the main process of a unit, if it is this one.
    fn signal<'a>(&'a self, name: &'a Name, pid: u32, signal: i32) -> Answer<'a, Result<(), PortError>>;
    /// Stops the strays of a unit (only processes whose mark is ours).
    fn stop_strays<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>>;
    /// Drops a unit that has no process. Its logs stay.
    fn forget<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>>;
}
