//! Where requests of the hub meet the engine: what changes something goes to the loop as a request of the socket does; what only looks
//! runs the code of the commands, on a thread of its own.

use std::future::Future;
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::{self, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::bell::Ringer;
use super::blobs::{self, Kind, Said as BlobSaid};
use super::build;
use super::control::Local;
use super::serve::Client;
use super::verbs::{Reply, Verb};
use crate::adapters::clock::SystemClock;
use crate::cli::engine::{Blobs, Control, GetTo, Outcome, Place, PlanOptions, PutFrom, ReconcileOptions};
use crate::cli::exit::{self, Failure};
use crate::cli::logs;
use crate::hub::office::{Act, Answer, Conclusion, Fetched, LINES, Office, Piece, Planned, Said, Trouble};
use crate::hub::refusal::sentence;
use crate::model::blob::Integrity;
use crate::model::blob_output::{BlobLine, RemovedLine, StoredLine};
use crate::model::event::Event;
use crate::model::exit::Exit;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::output::{Description, ErrorLine, Line, LogLine};
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::store::EventQuery;

/// So many looks at once; a look holds the tree in memory.
const LOOKS: usize = 8;
/// So many changes are waited for at once.
const ACTS: usize = 32;
/// So many logs are followed at once.
const FOLLOWERS: usize = 32;
/// While following, files are looked at so often.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
/// Lines of output that a description shows.
const LOG_LINES: usize = 10;
/// Whoever finds everything taken may try again after so many seconds.
const AGAIN: u32 = 1;

type Job = Box<dyn FnOnce(Rc<Local>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The office of this daemon.
pub(super) struct Desk {
    place: Place,
    clients: UnboundedSender<Client>,
    ringer: Ringer,
    /// Never longer than the permits that are given out for it.
    jobs: UnboundedSender<Job>,
    looks: Arc<Semaphore>,
    acts: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
}

impl Desk {
    /// Starts its thread, which ends with it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn open(place: &Place, clients: UnboundedSender<Client>, ringer: Ringer) -> Result<Self, Failure> {
        let (jobs, mut queue) = unbounded_channel::<Job>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(anyhow::Error::from)?;
        let here = place.clone();
        let work = move || {
            let local = tokio::task::LocalSet::new();
            let control = Rc::new(Local::new(here));
            local.block_on(&runtime, async {
                while let Some(job) = queue.recv().await {
                    tokio::task::spawn_local(job(control.clone()));
                }
            });
        };
        std::thread::Builder::new().name("office".to_owned()).spawn(work).map_err(anyhow::Error::from)?;
        Ok(Self {
            place: place.clone(),
            clients,
            ringer,
            jobs,
            looks: Arc::new(Semaphore::new(LOOKS)),
            acts: Arc::new(Semaphore::new(ACTS)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            transfers: Arc::new(Semaphore::new(TRANSFERS)),
        })
    }

    /// Has something done on the thread. It is dropped when whoever asked is gone.
    fn look<T: Send + 'static, F>(&self, work: impl FnOnce(Rc<Local>) -> F + Send + 'static) -> Answer<'_, T>
    where
        F: Future<Output = Result<T, Trouble>> + 'static,
    {
        Box::pin(async move {
            let place = permit(&self.looks)?;
            let (mut to, from) = oneshot::channel();
            let job: Job = Box::new(move |control| {
                Box::pin(async move {
                    // Nothing is under way that must not be dropped: it only looks.
                    tokio::select! {
                        () = to.closed() => {}
                        answer = async { work(control).await } => { let _ = to.send(answer); }
                    }
                    drop(place);
                })
            });
            self.jobs.send(job).map_err(|_| Trouble::Ending)?;
            from.await.map_err(|_| Trouble::Ending)?
        })
    }
}

fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Trouble> {
    of.clone().try_acquire_owned().map_err(|_| Trouble::Busy(AGAIN))
}

fn failed(failure: &Failure) -> Trouble {
    Trouble::Failed(failure.line())
}

fn broken(error: impl Into<anyhow::Error>) -> Trouble {
    failed(&Failure::from(error.into()))
}

fn conclusion(outcome: &Outcome) -> Conclusion {
    let (exit, error) = exit::of(outcome, false);
    Conclusion { exit: exit.as_str().to_owned(), error, summary: outcome.summary.clone() }
}

fn verb(act: Act, timeout: Millis) -> Verb {
    match act {
        Act::Reconcile { allow_prune } => {
            Verb::Reconcile { options: ReconcileOptions { allow_prune, timeout, ..ReconcileOptions::default() } }
        }
        Act::Restart { names } => Verb::Restart { names, timeout },
        Act::Override(request) => Verb::Override { request, timeout },
        Act::Renew { connections } => Verb::Renew { connections, timeout },
    }
}

/// So many blobs are moved at once, each on a thread.
const TRANSFERS: usize = 8;
/// So many pieces wait on their way between a thread and a client.
const PIECES: usize = 4;
/// Bytes of a piece that is given out.
const PIECE: usize = 64 * 1024;

/// What is sent, as a thread reads it.
struct Sent {
    from: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.from.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.ended = true,
                // Half of a blob must not be taken for all of it.
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before it was whole")),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// What a thread gives out.
struct Given(mpsc::Sender<Bytes>);

impl Write for Given {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blob_trouble(failure: &Failure) -> Trouble {
    let line = failure.line();
    let said = sentence(&line);
    match failure.error.downcast_ref::<BlobSaid>().map(|said| said.kind) {
        Some(Kind::Unknown) => Trouble::Missing(said),
        Some(Kind::NoPlace) => Trouble::Conflict("no_storage", said),
        Some(Kind::OtherBytes) => Trouble::Conflict("other_bytes", said),
        Some(Kind::Range) => Trouble::Conflict("range", said),
        Some(Kind::Source) => Trouble::Unreadable(said),
        Some(Kind::Passing) => Trouble::Failed(ErrorLine { code: "timedOut".to_owned(), ..line }),
        Some(Kind::Other) | None => Trouble::Failed(line),
    }
}

impl Desk {
    /// Has something done with the blobs, on a thread of the hub that may wait.
    fn blobs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&blobs::Local) -> Result<T, Failure> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let seat = permit(&self.transfers)?;
            let place = self.place.clone();
            let done = tokio::task::spawn_blocking(move || {
                let _seat = seat;
                blobs::Local::open(&place).and_then(|blobs| work(&blobs)).map_err(|f| blob_trouble(&f))
            });
            done.await.map_err(|_| Trouble::Ending)?
        })
    }
}

impl Office for Desk {
    fn plan(&self, allow_prune: Option<u32>) -> Answer<'_, Planned> {
        self.look(move |control| async move {
            let begun = SystemClock.now();
            let mut lines = Vec::new();
            let mut sink = |line: Line| lines.push(line);
            let options = PlanOptions { allow_prune, adopt_state: false };
            let mut outcome = control.plan(&options, &mut sink).await.map_err(|f| failed(&f))?;
            outcome.summary.duration_ms = (SystemClock.now() - begun).0;
            Ok(Planned { lines, conclusion: conclusion(&outcome) })
        })
    }

    fn describe(&self, id: ResourceId) -> Answer<'_, Description> {
        let place = self.place.clone();
        self.look(move |control| async move {
            let mut description = control.describe(&id).await.map_err(|f| failed(&f))?;
            if id.kind == KindName::Service {
                // The output is an extra: a resource without any, or with an unreadable one, is described all the same.
                description.log = logs::last(&place, id.name.as_str(), LOG_LINES).unwrap_or_default();
            }
            Ok(description)
        })
    }

    fn act(&self, act: Act, timeout: Millis) -> Result<mpsc::Receiver<Said>, Trouble> {
        let place = permit(&self.acts)?;
        let (reply, mut replies) = unbounded_channel();
        self.clients.send(Client { verb: verb(act, timeout), reply }).map_err(|_| Trouble::Ending)?;
        self.ringer.ring();
        let ringer = self.ringer.clone();
        let (to, from) = mpsc::channel(LINES);
        tokio::spawn(async move {
            loop {
                // Both arms are cancel-safe.
                let reply = tokio::select! {
                    reply = replies.recv() => reply,
                    () = to.closed() => None,
                };
                let Some(reply) = reply else { break };
                let (said, last) = match reply {
                    Reply::Line { line } => (Said::Line(line), false),
                    Reply::Done { outcome } => (Said::Done(conclusion(&outcome)), true),
                    Reply::Failed { message } => (Said::Failed(Failure::new(Exit::Error, message).line()), true),
                };
                if to.send(said).await.is_err() || last {
                    break;
                }
            }
            // The loop drops the request when it looks.
            drop(replies);
            ringer.ring();
            drop(place);
        });
        Ok(from)
    }

    fn events(&self, query: EventQuery) -> Answer<'_, Vec<Event>> {
        let state = self.place.state.clone();
        self.look(move |_| async move {
            let store = build::read_ledger(&state).map_err(|f| failed(&f))?;
            store.events(&query).map_err(broken)
        })
    }

    fn logs(&self, unit: Name, lines: usize) -> Answer<'_, Vec<LogLine>> {
        let place = self.place.clone();
        self.look(move |_| async move {
            if !logs::known(&place, unit.as_str()) {
                return Err(Trouble::Missing(format!("there is no output of '{unit}'")));
            }
            logs::last(&place, unit.as_str(), lines).map_err(broken)
        })
    }

    fn follow_logs(&self, unit: Name, lines: usize) -> Answer<'_, mpsc::Receiver<LogLine>> {
        let (place, followers) = (self.place.clone(), self.followers.clone());
        self.look(move |_| async move {
            let seat = permit(&followers)?;
            if !logs::known(&place, unit.as_str()) {
                return Err(Trouble::Missing(format!("there is no output of '{unit}'")));
            }
            let mut tail = logs::Tail::open(&place, unit.as_str(), lines).map_err(|f| failed(&f))?;
            let (to, from) = mpsc::channel(LINES);
            tokio::task::spawn_local(async move {
                let _seat = seat;
                loop {
                    // What cannot be read any more ends the stream.
                    let Ok(lines) = tail.more() else { return };
                    for line in lines {
                        if to.send(line).await.is_err() {
                            return;
                        }
                    }
                    // Both arms lose nothing.
                    tokio::select! {
                        () = to.closed() => return,
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
            });
            Ok(from)
        })
    }

    fn put_blob(&self, key: Integrity, from: mpsc::Receiver<Piece>) -> Answer<'_, StoredLine> {
        self.blobs(move |blobs| {
            let mut sent = Sent { from, piece: Bytes::new(), ended: false };
            blobs.put(PutFrom::Stream(&mut sent), Some(&key), &|_, _| true)
        })
    }

    fn get_blob(&self, key: Integrity, range: Option<Range<u64>>) -> Answer<'_, Fetched> {
        Box::pin(async move {
            let (to, mut rest) = mpsc::channel(PIECES);
            let mut work = self.blobs(move |blobs| {
                let wanted = to.clone();
                let mut out = BufWriter::with_capacity(PIECE, Given(to));
                blobs.get(&key, range, GetTo::Stream(&mut out), &|_, _| !wanted.is_closed())
            });
            // Both arms are cancel-safe: the thread goes on by itself, and what it gives is kept.
            tokio::select! {
                biased;
                Some(first) = rest.recv() => Ok(Fetched { first: Some(first), rest }),
                done = &mut work => done.map(|_| Fetched { first: None, rest }),
            }
        })
    }

    fn stat_blob(&self, key: Integrity) -> Answer<'_, BlobLine> {
        self.blobs(move |blobs| blobs.stat(&key))
    }

    fn list_blobs(&self, after: Option<Integrity>, limit: usize) -> Answer<'_, Vec<BlobLine>> {
        self.blobs(move |blobs| {
            let mut lines = Vec::new();
            blobs.list(after.as_ref(), &mut |line| {
                lines.push(line);
                lines.len() < limit
            })?;
            Ok(lines)
        })
    }

    fn remove_blob(&self, key: Integrity) -> Answer<'_, RemovedLine> {
        self.blobs(move |blobs| blobs.remove(&key))
    }
}
