//! The lines of `-o json`: a contract (field names are camelCase and stable). Text output renders the same lines, and
//! `reconcile --once` beside a live daemon receives them over its socket, so there is one shape for all three.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::condition::{Condition, Reason};
use super::event::{Cause, Event};
use super::id::{KindName, Name, ResourceId};
use super::problem::{Problem, Severity};
use super::time::Timestamp;

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Line {
    Problem(ProblemLine),
    Step(StepLine),
    Wait(WaitLine),
    /// Everything that is waited for now. A pass that waits sends it whenever it differs from the one before; an empty one
    /// ends the waiting.
    Waiting(Waiting),
    /// How far blobs have been moved. Sent now and then while they are.
    Progress(ProgressLine),
    Resource(ResourceLine),
    Description(Box<Description>),
    Event(Event),
    Log(LogLine),
    Error(ErrorLine),
    /// Something to know that is no mistake and no change.
    Note(NoteLine),
    /// What became of the work as a whole.
    Notice(NoticeLine),
    Summary(Summary),
}

/// Something a person should know: an override in force, a request that could not be followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NoteLine {
    pub resource: ResourceId,
    pub reason: Reason,
    pub message: String,
}

/// Something to know about the tree as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NoticeLine {
    pub about: About,
    pub message: String,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// The first pass is over; from now on the tree is watched.
    Watching,
    /// A file that had mistakes has none any more.
    Repaired,
    /// The hub listens from now on.
    Serving,
}

/// Who keeps a service from being what it would be otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// `suspend` in its file.
    File,
    /// `trueup stop`.
    Stop,
    /// `trueup start`.
    Start,
}

/// A service is stopped, or runs, for a while only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    pub by: By,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
}

impl Pause {
    /// `suspended until 2026-12-01T08:00:00.000Z: disk swap`.
    pub fn sentence(&self) -> String {
        let until = self.until.map(|until| format!(" until {until}")).unwrap_or_default();
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        let what = match self.by {
            By::File => "suspended",
            By::Stop => "stopped by `trueup stop`",
            By::Start => "kept running by `trueup start`",
        };
        format!("{what}{until}{reason}")
    }

    /// Whether there is more to say than that it is so.
    pub fn by_more_than_a_word(&self) -> bool {
        self.by != By::File || self.until.is_some() || !self.reason.is_empty()
    }
}

/// A problem, flattened for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemLine {
    pub code: String,
    pub severity: Severity,
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The other places involved, such as the first declaration of a duplicate.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub related: Vec<Related>,
    /// The problem as a person sees it, with the source line and a caret. Filled by whoever still has the source text,
    /// so that a client of the daemon shows the same thing.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub rendered: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Related {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
}

impl From<&Problem> for ProblemLine {
    fn from(problem: &Problem) -> Self {
        let at = problem.span();
        let related = problem.labels[1..].iter().map(|label| Related {
            file: label.span.file.to_string(),
            line: label.span.line,
            column: label.span.column,
            message: label.text.clone(),
        });
        Self {
            code: problem.code.to_string(),
            severity: problem.severity,
            file: at.file.to_string(),
            line: at.line,
            column: at.column,
            message: problem.message.clone(),
            hint: problem.hint.clone(),
            related: related.collect(),
            rendered: String::new(),
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeWord {
    /// Planned, not done (output of `plan`).
    Planned,
    Changed,
    Already,
    Retry,
    Failed,
    Unsure,
}

impl OutcomeWord {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Changed => "changed",
            Self::Already => "already",
            Self::Retry => "retry",
            Self::Failed => "failed",
            Self::Unsure => "unsure",
        }
    }
}

/// A step: planned by `plan`, or done by `reconcile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepLine {
    pub resource: ResourceId,
    /// `spawn`, `restart`, `stop`, ...
    pub action: String,
    pub reason: Reason,
    pub cause: Cause,
    /// What exactly, for people: `env.LOG_LEVEL`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
    /// `file:line:column` of what asks for it.
    pub source: String,
    pub outcome: OutcomeWord,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
    pub duration_ms: u64,
}

/// Why nothing is done for a resource that is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitLine {
    pub resource: ResourceId,
    pub reason: Reason,
    pub message: String,
    pub source: String,
    /// Whether waiting longer can help.
    pub doomed: bool,
}

/// The whole set of what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub waits: Vec<WaitLine>,
}

/// How far something long is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressLine {
    pub resource: ResourceId,
    /// Where blobs are moved to.
    pub to: Name,
    /// Objects there, and how many there are in all.
    pub done: u64,
    pub total: u64,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Over the last seconds; zero while nothing is known.
    pub objects_per_second: u64,
    pub bytes_per_second: u64,
    /// Milliseconds that are left at this rate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta_ms: Option<u64>,
}

/// One resource, for `get` and `describe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLine {
    pub kind: KindName,
    pub name: Name,
    pub source: String,
    pub generation: u64,
    pub conditions: Vec<Condition>,
    /// One word for the table: `Ready`, `NotReady`, `CrashLoop`, `Held`, ...
    pub phase: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restarts: Option<u32>,
    /// Milliseconds since the process started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uptime_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<String>,
    /// What it says of itself now (`STATUS=` of sd_notify(3)).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub says: Option<String>,
    /// It is stopped, or runs, for a while only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pause: Option<Pause>,
    /// When it runs next by its schedule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_run: Option<Timestamp>,
}

/// Everything known of one resource, for `describe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    pub resource: ResourceLine,
    /// The spec as the file gives it; secrets appear as the references they are in the file.
    pub spec: serde_json::Value,
    pub depends_on: Vec<DependencyLine>,
    /// Who depends on it.
    pub required_by: Vec<ResourceId>,
    /// Oldest first.
    pub events: Vec<Event>,
    /// The last lines of its output, oldest first.
    pub log: Vec<LogLine>,
}

/// One dependency and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DependencyLine {
    pub resource: ResourceId,
    /// `started`, `ready` or `completed`.
    pub condition: String,
    pub met: bool,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
}

/// One line of a unit's output, its parts joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    pub unit: String,
    /// RFC 3339, as the keeper wrote it.
    pub at: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Bytes that are no UTF-8 are written as `\xNN`.
    pub text: String,
}

/// Why a command ended with another exit code than 0 or 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorLine {
    /// The exit code as a word: `error`, `invalid`, `refused`, `locked`, `timedOut`, `partial`, `cancelled`, `usage`.
    pub code: String,
    pub message: String,
    /// What led to it, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

/// The last line of every command that looks at the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub resources: usize,
    pub planned: usize,
    pub changed: usize,
    pub drift: usize,
    pub failed: usize,
    pub waiting: usize,
    pub held: usize,
    pub pruned: usize,
    /// Services that a person keeps from being what their files say; not there when there are none.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub overridden: usize,
    pub in_sync: bool,
    pub duration_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
