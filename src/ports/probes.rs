//! Probes of modules. They run beside the engine; looking at one never waits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Answer;
use super::keeper::Confinement;
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::unit::Millis;

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// GET; an answer of 200 to 399 is good (as in Kubernetes).
    Http { port: u16, path: String, headers: BTreeMap<String, String> },
    /// A connection can be opened.
    Tcp { port: u16 },
    /// The command exits with 0. It runs with no more rights than the service itself.
    Exec {
        program: PathBuf,
        argv: Vec<String>,
        dir: PathBuf,
        env: BTreeMap<String, Secret>,
        confinement: Box<Confinement>,
    },
}

/// What a probe decides (the three of Kubernetes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Whether it has started. Not asked again once it has.
    Startup,
    /// Whether it can be used now.
    Readiness,
    /// Whether it lives.
    Liveness,
}

/// A probe on one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub role: Role,
    pub ask: Ask,
    /// Before the first attempt, from the process's start.
    pub delay: Millis,
    /// Between attempts once it has succeeded; while it has not, attempts are dense (see the adapter).
    pub period: Millis,
    pub timeout: Millis,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    /// For how long a startup probe may fail, from the process's start.
    pub patience: Millis,
}

/// What a probe knows now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No answer yet, good or bad.
    Pending,
    Good,
    /// What went wrong last.
    Bad(String),
}

/// Probes by unit and role. A probe belongs to one process: another pid starts it anew.
pub trait Probes {
    /// Makes this the unit's probe of its role on this process, and says what it knows. The same probe on the same process goes on.
    /// `age` is how long the process has been up: whoever comes later does not begin to count anew.
    fn watch(&self, name: &Name, pid: u32, age: Millis, probe: &Probe) -> Verdict;
    /// Whether the failures of this probe count: so many in a row as its threshold says, or for a startup probe as long as its
    /// patience lasts.
    fn exhausted(&self, name: &Name, role: Role) -> bool;
    /// Asks once, beside all probes. Says what went wrong.
    fn run<'a>(&'a self, ask: &'a Ask, at_most: Millis) -> Answer<'a, Result<(), String>>;
    /// Ends the unit's probes, if it has any.
    fn drop_probe(&self, name: &Name);
    /// Ends when every probe has had one answer, or the time is over: for commands that look once.
    fn settle(&self, at_most: Millis) -> Answer<'_, ()>;
}
