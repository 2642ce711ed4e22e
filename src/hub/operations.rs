//! What was begun by requests, for whoever asks later: in memory, the newest only, and each with a time by which it is over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::office::{Act, Conclusion, Office, Said, Trouble};
use crate::model::id::Name;
use crate::model::output::{ErrorLine, Line};
use crate::model::overriding::Against;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::clock::Clock;

/// So many are remembered.
const KEPT: usize = 1_000;
/// So many lines of each; the newest.
const LINES: usize = 1_000;
/// The engine answers by its own time; who has heard nothing for longer than this beyond it never will.
const GRACE: Millis = Millis(30_000);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    Reconcile,
    Restart,
    Stop,
    Start,
    /// By a client of the older hub; what is declared runs already.
    Install,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    Running,
    Succeeded,
    Failed,
}

/// Something that was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    pub id: String,
    pub verb: Verb,
    /// The services that it is about; none when it is about everything.
    pub names: Vec<Name>,
    pub status: Status,
    pub started_at: Timestamp,
    /// By then it is over, one way or the other.
    pub deadline: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub conclusion: Option<Conclusion>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorLine>,
    /// What was said, as the command prints it with `-o json`; the newest thousand.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lines: Vec<Line>,
    /// So many lines before them are not kept.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub lines_left_out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn error(why: &str) -> ErrorLine {
    ErrorLine { code: "error".to_owned(), message: why.to_owned(), causes: Vec::new(), hint: None }
}

struct Kept {
    head: Operation,
    lines: VecDeque<Line>,
    /// Closed when it is over.
    over: watch::Receiver<()>,
}

/// The book of operations.
pub struct Operations {
    /// Begins every id, so that an id of another process is not mistaken for one of ours.
    prefix: String,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    next: u64,
    kept: VecDeque<Kept>,
    /// As clients of the older hub have set it. Nothing is installed by a call, so nothing comes of it.
    channel: Option<String>,
}

impl Operations {
    pub fn new(instance: &str) -> Self {
        Self { prefix: instance.chars().take(8).collect(), book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a change, and remembers what comes of it. It goes on when nobody waits for it. Its id.
    ///
    /// # Errors
    /// When the engine takes nothing more.
    pub fn begin(
        self: &Arc<Self>,
        office: &dyn Office,
        clock: &Arc<dyn Clock + Send + Sync>,
        act: Act,
        timeout: Millis,
    ) -> Result<String, Trouble> {
        let (verb, names) = match &act {
            Act::Reconcile { .. } => (Verb::Reconcile, Vec::new()),
            Act::Restart { names } => (Verb::Restart, names.clone()),
            Act::Renew { connections } => (Verb::Reconcile, connections.clone()),
            Act::Override(request) => match request.wish {
                Against::Stop => (Verb::Stop, request.names.clone()),
                Against::Start => (Verb::Start, request.names.clone()),
            },
        };
        let mut said = office.act(act, timeout)?;
        let (over, id) = self.enter(verb, names, clock.wall(), Millis(timeout.0.saturating_add(GRACE.0)));
        let (book, number, clock) = (self.clone(), id.clone(), clock.clone());
        let lease = std::time::Duration::from(timeout).saturating_add(GRACE.into());
        tokio::spawn(async move {
            let listening = async {
                while let Some(said) = said.recv().await {
                    if book.hear(&number, said, clock.wall()) {
                        return;
                    }
                }
                book.fail(&number, "the daemon ended before it was done", clock.wall());
            };
            if tokio::time::timeout(lease, listening).await.is_err() {
                book.fail(&number, "the engine does not answer; what was begun may go on", clock.wall());
            }
            drop(over);
        });
        Ok(id)
    }

    /// Remembers one that needs nothing to be done.
    pub fn enter_done(&self, verb: Verb, names: Vec<Name>, message: Line, now: Timestamp) -> String {
        let (_, id) = self.enter(verb, names, now, Millis(0));
        self.hear(&id, Said::Line(message), now);
        let conclusion = Conclusion { exit: "done".to_owned(), ..Conclusion::default() };
        self.hear(&id, Said::Done(conclusion), now);
        id
    }

    fn enter(&self, verb: Verb, names: Vec<Name>, now: Timestamp, lease: Millis) -> (watch::Sender<()>, String) {
        let (sender, over) = watch::channel(());
        let mut book = self.book();
        book.next += 1;
        let id = format!("{}-{}", self.prefix, book.next);
        let head = Operation {
            id: id.clone(),
            verb,
            names,
            status: Status::Running,
            started_at: now,
            deadline: Timestamp(now.0.saturating_add_unsigned(lease.0)),
            finished_at: None,
            conclusion: None,
            error: None,
            lines: Vec::new(),
            lines_left_out: 0,
        };
        book.kept.push_back(Kept { head, lines: VecDeque::new(), over });
        while book.kept.len() > KEPT {
            book.kept.pop_front();
        }
        (sender, id)
    }

    fn with<T>(&self, id: &str, work: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        self.book().kept.iter_mut().rev().find(|kept| kept.head.id == id).map(work)
    }

    /// Whether that was the last word.
    fn hear(&self, id: &str, said: Said, now: Timestamp) -> bool {
        let last = !matches!(said, Said::Line(_));
        self.with(id, |kept| match said {
            _ if kept.head.status != Status::Running => {}
            Said::Line(line) => {
                kept.lines.push_back(line);
                if kept.lines.len() > LINES {
                    kept.lines.pop_front();
                    kept.head.lines_left_out += 1;
                }
            }
            Said::Done(conclusion) => {
                let fine = conclusion.exit == "done";
                kept.head.status = if fine { Status::Succeeded } else { Status::Failed };
                kept.head.error.clone_from(&conclusion.error);
                kept.head.conclusion = Some(conclusion);
                kept.head.finished_at = Some(now);
            }
            Said::Failed(error) => {
                kept.head.status = Status::Failed;
                kept.head.error = Some(error);
                kept.head.finished_at = Some(now);
            }
        });
        last
    }

    fn fail(&self, id: &str, why: &str, now: Timestamp) {
        self.hear(id, Said::Failed(error(why)), now);
    }

    /// The channel that modules would be installed from.
    pub fn channel(&self) -> String {
        self.book().channel.clone().unwrap_or_else(|| "latest".to_owned())
    }

    pub fn set_channel(&self, channel: &str) {
        self.book().channel = Some(channel.to_owned());
    }

    /// One of them, with what was said.
    pub fn get(&self, id: &str, now: Timestamp) -> Option<Operation> {
        self.lapse(now);
        self.with(id, |kept| Operation { lines: kept.lines.iter().cloned().collect(), ..kept.head.clone() })
    }

    /// Whatever has become of whoever did it: what is not over by its time has failed.
    fn lapse(&self, now: Timestamp) {
        for kept in &mut self.book().kept {
            if kept.head.status == Status::Running && kept.head.deadline < now {
                kept.head.status = Status::Failed;
                kept.head.error = Some(error("nothing was heard of it in time; what was begun may go on"));
                kept.head.finished_at = Some(now);
            }
        }
    }

    /// All of them, the newest first, without what was said.
    pub fn list(&self, limit: usize, now: Timestamp) -> Vec<Operation> {
        self.lapse(now);
        self.book().kept.iter().rev().take(limit).map(|kept| kept.head.clone()).collect()
    }

    /// Waits until it is over, at most so long.
    pub async fn wait(&self, id: &str, at_most: Millis) {
        let Some(mut over) = self.with(id, |kept| kept.over.clone()) else { return };
        // Cancel-safe. It says nothing before it is closed.
        let _ = tokio::time::timeout(at_most.into(), async { while over.changed().await.is_ok() {} }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept_and_none_runs_for_ever() {
        let book = Operations::new("instance-of-this-process");
        let now = Timestamp(1_000_000);
        let begin = |lease| book.enter(Verb::Restart, Vec::new(), now, Millis(lease)).1;
        let (first, second) = (begin(5_000), begin(60_000));
        let status = |id: &str, now| book.get(id, now).map(|operation| operation.status);
        assert_eq!(status(&first, Timestamp(1_005_000)), Some(Status::Running));
        assert_eq!(status(&first, Timestamp(1_005_001)), Some(Status::Failed));
        book.hear(&first, Said::Done(Conclusion { exit: "done".to_owned(), ..Conclusion::default() }), now);
        assert_eq!(status(&first, now), Some(Status::Failed), "what was told stays");
        assert_eq!(status(&second, Timestamp(1_005_001)), Some(Status::Running));
        for _ in 0..KEPT {
            begin(60_000);
        }
        assert_eq!((status(&first, now), book.list(usize::MAX, now).len()), (None, KEPT));
    }

    #[test]
    fn of_what_was_said_the_newest_lines_are_kept() {
        let book = Operations::new("one");
        let now = Timestamp(0);
        let (_over, id) = book.enter(Verb::Reconcile, Vec::new(), now, Millis(1));
        for _ in 0..LINES + 7 {
            book.hear(&id, Said::Line(Line::Error(error("a line"))), now);
        }
        let operation = book.get(&id, now).expect("it is kept");
        assert_eq!((operation.lines.len(), operation.lines_left_out), (LINES, 7));
    }
}
