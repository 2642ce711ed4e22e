//! Where requests ask the engine: the verbs of the command line, for many threads at once. The daemon stands behind it; what changes
//! something takes the very way that its socket takes, and what only looks runs the code of the commands.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::model::blob::Integrity;
use crate::model::blob_output::{BlobLine, RemovedLine, StoredLine};
use crate::model::event::Event;
use crate::model::id::{Name, ResourceId};
use crate::model::output::{Description, ErrorLine, Line, LogLine, Summary};
use crate::model::overriding::OverrideRequest;
use crate::model::unit::Millis;
use crate::ports::store::EventQuery;

/// An answer that may take a moment.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + Send + 'a>>;

/// So many lines wait for whoever reads them, before the one who says them waits.
pub const LINES: usize = 256;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Too much is asked at once. Try again after so many seconds.
    Busy(u32),
    /// The daemon is about to end.
    Ending,
    /// It is not there.
    Missing(String),
    /// What is there stands against it: a word for programs, and why.
    Conflict(&'static str, String),
    /// What was sent cannot be read.
    Unreadable(String),
    /// It cannot be done, as the command says it: `code` is the word of its exit code.
    Failed(ErrorLine),
}

/// What changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Look now, and work until everything is settled. `allow_prune` lets exactly so many removals pass the budget.
    Reconcile {
        allow_prune: Option<u32>,
    },
    Restart {
        names: Vec<Name>,
    },
    /// Other tokens for these connections.
    Renew {
        connections: Vec<Name>,
    },
    /// Stop or start against the files, for a while.
    Override(OverrideRequest),
}

/// How a piece of work ended, in the words of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conclusion {
    /// The word of the exit code that the command would have: `done`, `invalid`, `refused`, `timedOut`, `partial`, `cancelled`, `error`.
    pub exit: String,
    /// Why it is not `done`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorLine>,
    pub summary: Summary,
}

/// What is heard of a piece of work. `Done` or `Failed` is the last.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Line(Line),
    Done(Conclusion),
    Failed(ErrorLine),
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Problems, steps (outcome `planned`), waits and notes, as `trueup plan -o json` prints them.
    pub lines: Vec<Line>,
    pub conclusion: Conclusion,
}

/// A piece of a blob that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Bytes(Bytes),
    End,
}

/// A blob that is read.
#[derive(Debug)]
pub struct Fetched {
    /// The first bytes; none of an empty blob.
    pub first: Option<Bytes>,
    /// The others.
    pub rest: mpsc::Receiver<Bytes>,
}

/// The verbs of the engine for requests. None blocks its thread.
pub trait Office: Send + Sync {
    /// What would be done. Looks at everything, and changes nothing.
    fn plan(&self, allow_prune: Option<u32>) -> Answer<'_, Planned>;
    /// Everything known of one resource.
    fn describe(&self, id: ResourceId) -> Answer<'_, Description>;
    /// Begins a change. It is given up when the receiver is dropped; what was done by then stays.
    ///
    /// # Errors
    /// When too much is under way, or the daemon ends.
    fn act(&self, act: Act, timeout: Millis) -> Result<mpsc::Receiver<Said>, Trouble>;
    /// Events, oldest first.
    fn events(&self, query: EventQuery) -> Answer<'_, Vec<Event>>;
    /// The last lines that a unit wrote, oldest first.
    fn logs(&self, unit: Name, lines: usize) -> Answer<'_, Vec<LogLine>>;
    /// The same, and goes on with new ones until the receiver is dropped.
    fn follow_logs(&self, unit: Name, lines: usize) -> Answer<'_, mpsc::Receiver<LogLine>>;
    /// Stores a blob. Whoever sends it ends with [`Piece::End`]; without that nothing is stored.
    fn put_blob(&self, key: Integrity, from: mpsc::Receiver<Piece>) -> Answer<'_, StoredLine>;
    /// Reads a blob, or bytes of it. What is given is proved right as a whole before the first byte.
    fn get_blob(&self, key: Integrity, range: Option<Range<u64>>) -> Answer<'_, Fetched>;
    /// What is known of a blob.
    fn stat_blob(&self, key: Integrity) -> Answer<'_, BlobLine>;
    /// Blobs in the order of their keys.
    fn list_blobs(&self, after: Option<Integrity>, limit: usize) -> Answer<'_, Vec<BlobLine>>;
    /// Removes a blob.
    fn remove_blob(&self, key: Integrity) -> Answer<'_, RemovedLine>;
}
