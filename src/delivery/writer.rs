//! The thread that writes: whatever has come in since the last transaction goes into the next one, so that many events wait for the disk
//! together.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::courier::News;
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::deliveries::{Accepted, Act, Change, DeliveryStore, Done, Event, NotAccepted};

/// Events that wait to be written; more would only wait longer.
const MOST_JOBS: usize = 4_096;
/// One transaction has no more than this: others wait for the lock.
const MOST_TOGETHER: usize = 512;
const MOST_BYTES_TOGETHER: usize = 32 << 20;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// So often what was settled long ago is forgotten, while there is any.
const SWEEP_EVERY: Millis = Millis(3_600_000);
/// And after so many outcomes.
const SWEEP_AFTER: u64 = 2_000;
/// Delivered and discarded events are remembered so long, so that the same event is known again.
pub(super) const REMEMBERED: Millis = Millis(86_400_000);

/// Who is told of the end of a job.
enum Answer {
    Accept(oneshot::Sender<Result<Accepted, NotAccepted>>),
    Settle(Name),
}

struct Job {
    act: Act,
    answer: Answer,
}

impl Job {
    fn bytes(&self) -> usize {
        match &self.act {
            Act::Accept { event, .. } => event.body.len(),
            _ => 0,
        }
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    ended: bool,
    /// What is wrong with the database.
    broken: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock + Send + Sync>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        store: Arc<dyn DeliveryStore>,
        clock: Arc<dyn Clock + Send + Sync>,
        news: mpsc::UnboundedSender<News>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() });
        let (own, time) = (shared.clone(), clock.clone());
        let hand = move || Hand { shared: own, store, clock: time, news, settled: 0, sweep_at: Some(Tick(0)) }.run();
        let thread = std::thread::Builder::new().name("delivery-writer".to_owned()).spawn(hand)?;
        Ok(Self { shared, clock, thread: Mutex::new(Some(thread)) })
    }

    fn push(&self, job: Job) {
        let mut state = self.shared.state();
        state.jobs.push_back(job);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Takes an event in. The answer comes when it is on the disk.
    pub(super) fn accept(&self, event: Event) -> oneshot::Receiver<Result<Accepted, NotAccepted>> {
        let (answer, answered) = oneshot::channel();
        let state = self.shared.state();
        let refused = match &state.broken {
            Some(why) => Some(NotAccepted::Broken(why.clone())),
            None if state.ended => Some(NotAccepted::Broken("the daemon is about to end".to_owned())),
            None => (state.jobs.len() >= MOST_JOBS).then_some(NotAccepted::Busy),
        };
        drop(state);
        match refused {
            Some(why) => drop(answer.send(Err(why))),
            None => {
                self.push(Job { act: Act::Accept { event, at: self.clock.wall() }, answer: Answer::Accept(answer) })
            }
        }
        answered
    }

    /// Writes what became of an attempt; the courier is told when it is on the disk. There are no more of these than events under way or too
    /// old.
    pub(super) fn settle(&self, connection: Name, seq: u64, change: Change, at: Timestamp) {
        self.push(Job { act: Act::Settle { seq, change, at }, answer: Answer::Settle(connection) });
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.shared.state().broken.clone()
    }

    /// Writes what is left, once, and ends.
    pub(super) fn end(&self) {
        self.shared.state().ended = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It panicked: it has said so itself.
            let _ = thread.join();
        }
    }
}

struct Hand {
    shared: Arc<Shared>,
    store: Arc<dyn DeliveryStore>,
    clock: Arc<dyn Clock + Send + Sync>,
    news: mpsc::UnboundedSender<News>,
    settled: u64,
    sweep_at: Option<Tick>,
}

impl Hand {
    fn run(mut self) {
        loop {
            let (jobs, ended) = self.wait();
            if !jobs.is_empty() {
                let failed = self.write(jobs);
                if ended && failed {
                    return;
                }
            } else if ended {
                return;
            } else if self.shared.state().broken.is_some() {
                let probed = self.store.write(&[Act::Probe]).map(|_| ());
                self.stands(probed.err());
            }
            self.sweep();
        }
    }

    /// The next jobs, and whether these are the last ones; none when something else is to be looked at.
    fn wait(&self) -> (Vec<Job>, bool) {
        let mut state = self.shared.state();
        let due = self.sweep_at.map(|at| Duration::from(at - self.clock.now()));
        if state.broken.is_some() && !state.ended {
            // What cannot be written is not tried all the time.
            let waited = self.shared.wake.wait_timeout_while(state, AGAIN, |state| !state.ended);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            let idle = |state: &mut State| state.jobs.is_empty() && !state.ended;
            state = match due {
                Some(due) => {
                    let waited = self.shared.wake.wait_timeout_while(state, due, idle);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.wake.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let (mut count, mut bytes) = (0, 0);
        for job in state.jobs.iter().take(MOST_TOGETHER) {
            bytes += job.bytes();
            if count > 0 && bytes > MOST_BYTES_TOGETHER {
                break;
            }
            count += 1;
        }
        (state.jobs.drain(..count).collect(), state.ended)
    }

    /// Whether it failed.
    fn write(&mut self, jobs: Vec<Job>) -> bool {
        let (acts, answers): (Vec<Act>, Vec<Answer>) = jobs.into_iter().map(|job| (job.act, job.answer)).unzip();
        match self.store.write(&acts) {
            Ok(done) => {
                // Outcomes can be written even where nothing new can.
                if acts.iter().any(|act| !matches!(act, Act::Settle { .. })) {
                    self.stands(None);
                }
                self.tell(acts, answers, done);
                false
            }
            Err(why) => {
                let mut kept = VecDeque::new();
                for (act, answer) in acts.into_iter().zip(answers) {
                    match answer {
                        Answer::Accept(answer) => drop(answer.send(Err(NotAccepted::Broken(why.clone())))),
                        // What a sink has said is not forgotten as long as we live.
                        answer @ Answer::Settle(_) => kept.push_back(Job { act, answer }),
                    }
                }
                let mut state = self.shared.state();
                kept.append(&mut state.jobs);
                state.jobs = kept;
                drop(state);
                self.stands(Some(why));
                true
            }
        }
    }

    fn tell(&mut self, acts: Vec<Act>, answers: Vec<Answer>, done: Vec<Done>) {
        let (mut rows, mut written) = (Vec::new(), Vec::new());
        for ((act, answer), done) in acts.into_iter().zip(answers).zip(done) {
            match (answer, done) {
                (Answer::Accept(answer), done) => {
                    let said = match done {
                        Done::Accepted(row) => {
                            let accepted = Accepted { seq: row.seq, known: false };
                            rows.push(row);
                            Ok(accepted)
                        }
                        Done::Known(seq) => Ok(Accepted { seq, known: true }),
                        Done::Full(why) => Err(NotAccepted::Full(why)),
                        Done::Changed(_) | Done::Count(_) => Err(NotAccepted::Broken("it was not written".to_owned())),
                    };
                    // Whoever does not wait any more has lost nothing by it.
                    let _ = answer.send(said);
                }
                (Answer::Settle(connection), _) => {
                    if let Act::Settle { seq, .. } = act {
                        written.push((connection, seq));
                    }
                }
            }
        }
        self.settled += written.len() as u64;
        if !written.is_empty() {
            self.sweep_at.get_or_insert(self.clock.now() + SWEEP_EVERY);
            let _ = self.news.send(News::Written(written));
        }
        if !rows.is_empty() {
            let _ = self.news.send(News::Accepted(rows));
        }
    }

    fn stands(&self, now: Option<String>) {
        let mut state = self.shared.state();
        if state.broken == now {
            return;
        }
        match &now {
            Some(why) => tracing::error!(why, "events cannot be written down, and none is accepted"),
            None => tracing::info!("events are written down again"),
        }
        state.broken = now;
    }

    fn sweep(&mut self) {
        let now = self.clock.now();
        let due = self.sweep_at.is_some_and(|at| at <= now);
        if !due && self.settled < SWEEP_AFTER {
            return;
        }
        let before = Timestamp(self.clock.wall().0.saturating_sub(i64::try_from(REMEMBERED.0).unwrap_or(i64::MAX)));
        let swept = self.store.write(&[Act::Sweep { before }]);
        self.settled = 0;
        let more = matches!(swept.as_deref(), Ok([Done::Count(count)]) if *count > 0);
        let any = self.store.tallies().is_ok_and(|tallies| tallies.values().any(|tally| tally.delivered > 0));
        // A backlog goes in small steps.
        self.sweep_at = match (more, any) {
            (true, _) => Some(now + Millis(1_000)),
            (false, true) => Some(now + SWEEP_EVERY),
            (false, false) => None,
        };
    }
}
