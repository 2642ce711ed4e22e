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
const ENDING: &str = "the daemon is about to end";
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

    /// Takes an event in. The answer comes when it is on the disk.
    pub(super) fn accept(&self, event: Event) -> oneshot::Receiver<Result<Accepted, NotAccepted>> {
        let (answer, answered) = oneshot::channel();
        let act = Act::Accept { event, at: self.clock.wall() };
        let mut state = self.shared.state();
        let refused = match &state.broken {
            Some(why) => Some(NotAccepted::Broken(why.clone())),
            None if state.ended => Some(NotAccepted::Broken(ENDING.to_owned())),
            None => (state.jobs.len() >= MOST_JOBS).then_some(NotAccepted::Busy),
        };
        match refused {
            Some(why) => {
                drop(state);
                drop(answer.send(Err(why)));
            }
            None => {
                // Under the same lock: after the end nobody would answer it.
                state.jobs.push_back(Job { act, answer: Answer::Accept(answer) });
                drop(state);
                self.shared.wake.notify_one();
            }
        }
        answered
    }

    /// Writes what became of an attempt; the courier is told when it is on the disk. There are no more of these than events under way or too
    /// old.
    pub(super) fn settle(&self, connection: Name, seq: u64, change: Change, at: Timestamp) {
        let job = Job { act: Act::Settle { seq, change, at }, answer: Answer::Settle(connection) };
        self.shared.state().jobs.push_back(job);
        self.shared.wake.notify_one();
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

impl Drop for Hand {
    /// However the thread ends: whoever waits is told.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        for job in std::mem::take(&mut state.jobs) {
            if let Answer::Accept(answer) = job.answer {
                drop(answer.send(Err(NotAccepted::Broken(ENDING.to_owned()))));
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::ports::deliveries::{Letter, LetterQuery, Parcel, Row, Tally};

    /// A database whose disk is full, and which takes its time once.
    struct Full {
        held: Mutex<bool>,
        freed: Condvar,
    }

    impl DeliveryStore for Full {
        fn write(&self, _: &[Act]) -> Result<Vec<Done>, String> {
            let held = self.held.lock().expect("a lock");
            drop(self.freed.wait_while(held, |held| *held).expect("a lock"));
            Err("the disk is full".to_owned())
        }
        fn waiting(&self, _: u64, _: usize) -> Result<Vec<Row>, String> {
            Ok(Vec::new())
        }
        fn parcel(&self, _: u64) -> Result<Option<Parcel>, String> {
            Ok(None)
        }
        fn tallies(&self) -> Result<BTreeMap<Name, Tally>, String> {
            Ok(BTreeMap::new())
        }
        fn list(&self, _: &LetterQuery) -> Result<Vec<Letter>, String> {
            Ok(Vec::new())
        }
        fn find(&self, _: u64) -> Result<Option<(Letter, Option<Bytes>)>, String> {
            Ok(None)
        }
        fn version(&self) -> Result<i64, String> {
            Ok(0)
        }
    }

    /// A clock that ends the writer when it is asked for the time, once.
    #[derive(Default)]
    struct Ending {
        writer: OnceLock<Arc<Writer>>,
        done: AtomicBool,
    }

    impl Clock for Ending {
        fn now(&self) -> Tick {
            Tick(0)
        }
        fn wall(&self) -> Timestamp {
            if let Some(writer) = self.writer.get()
                && !self.done.swap(true, Ordering::SeqCst)
            {
                writer.end();
            }
            Timestamp(0)
        }
    }

    fn event(number: usize) -> Event {
        Event {
            connection: Name::new("box").expect("a name"),
            key: number.to_string(),
            note: None,
            what: None,
            content_type: "application/json".to_owned(),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn writer(held: bool, clock: Arc<Ending>) -> (Arc<Writer>, Arc<Full>) {
        let store = Arc::new(Full { held: Mutex::new(held), freed: Condvar::new() });
        let (news, _) = mpsc::unbounded_channel();
        let writer = Writer::start(store.clone(), clock, news).expect("a thread");
        (Arc::new(writer), store)
    }

    #[test]
    fn an_event_that_comes_while_the_writer_ends_is_refused() {
        let clock = Arc::new(Ending::default());
        let (writer, _) = writer(false, clock.clone());
        assert!(clock.writer.set(writer.clone()).is_ok());
        let mut answered = writer.accept(event(1));
        assert!(matches!(answered.try_recv(), Ok(Err(NotAccepted::Broken(_)))));
    }

    #[test]
    fn what_waits_when_the_writer_ends_is_answered() {
        let (writer, store) = writer(true, Arc::default());
        let mut answered: Vec<_> = (0..3 * MOST_TOGETHER).map(|number| writer.accept(event(number))).collect();
        writer.shared.state().ended = true;
        *store.held.lock().expect("a lock") = false;
        store.freed.notify_all();
        writer.end();
        for answer in &mut answered {
            assert!(matches!(answer.try_recv(), Ok(Err(NotAccepted::Broken(_)))));
        }
    }
}
