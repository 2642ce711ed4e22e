//! The thread that delivers: it does what the queue says, and tells it what came of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::params::with_params;
use super::post;
use super::queue::{Now, Queue, Sending};
use super::writer::Writer;
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::deliveries::{Arrival, Change, DeliveryStore, Errand, HubSide, Row, Seen, event_id};
use crate::ports::hub::{Wiring, Wish};

/// Rows that are read at once.
const PAGE: usize = 2_000;
/// A token lives for a minute, and is used for half of it.
const TOKEN_USED: Millis = Millis(30_000);
/// Tokens that are kept; more than there are sinks.
const MOST_TOKENS: usize = 64;
/// While something is due some time, the clock is looked at so often: a timer does not count the time that a machine sleeps.
const SLICE: Millis = Millis(60_000);
/// After the database could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// What happened.
pub(super) enum News {
    Told(Arc<Wish>),
    /// Somebody may have written, or certainly has.
    Look {
        certain: bool,
    },
    Accepted(Vec<Row>),
    Written(Vec<(Name, u64)>),
    Arrived {
        sent: Sending,
        arrival: Arrival,
        accepted: Timestamp,
    },
    /// Nothing is begun any more.
    End,
}

/// The handle of the thread.
pub(super) struct Courier {
    pub news: mpsc::UnboundedSender<News>,
    /// What sinks said last, by connection.
    pub troubles: Arc<Mutex<BTreeMap<Name, String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl Courier {
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        parts: &post::Parts,
        store: Arc<dyn DeliveryStore>,
        writer: Arc<Writer>,
        side: HubSide,
        (news, heard): (mpsc::UnboundedSender<News>, mpsc::UnboundedReceiver<News>),
    ) -> io::Result<Self> {
        let troubles = Arc::new(Mutex::new(BTreeMap::new()));
        let (over, ended) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let desk = Desk {
            parts: parts.clone(),
            store,
            writer,
            side,
            news: news.clone(),
            queue: Queue::default(),
            tokens: BTreeMap::new(),
            version: None,
            stale: true,
            ending: false,
            troubles: troubles.clone(),
        };
        let thread = std::thread::Builder::new().name("delivery".to_owned()).spawn(move || {
            runtime.block_on(desk.run(heard));
            runtime.shutdown_background();
            let _ = over.send(());
        })?;
        Ok(Self { news, troubles, thread: Mutex::new(Some(thread)), ended })
    }

    /// Gives what is under way so long. What is cut off then is delivered again.
    pub(super) fn end(&self, grace: Duration) {
        let _ = self.news.send(News::End);
        let over = self.ended.recv_timeout(grace.max(Duration::from_millis(1)));
        if !matches!(over, Err(std::sync::mpsc::RecvTimeoutError::Timeout))
            && let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let _ = thread.join();
        }
    }
}

struct Desk {
    parts: post::Parts,
    store: Arc<dyn DeliveryStore>,
    writer: Arc<Writer>,
    side: HubSide,
    news: mpsc::UnboundedSender<News>,
    queue: Queue,
    /// By scope and audience.
    tokens: BTreeMap<(String, String), (Secret, Tick)>,
    /// Of the database, when it was read last.
    version: Option<i64>,
    /// The database is to be read.
    stale: bool,
    ending: bool,
    troubles: Arc<Mutex<BTreeMap<Name, String>>>,
}

impl Desk {
    fn now(&self) -> Now {
        let roll = self.parts.dice.lock().unwrap_or_else(PoisonError::into_inner).roll();
        Now { tick: self.parts.clock.now(), wall: self.parts.clock.wall(), roll }
    }

    async fn run(mut self, mut heard: mpsc::UnboundedReceiver<News>) {
        loop {
            if self.stale {
                self.read();
            }
            let pause = self.work();
            if self.ending && self.queue.flying() == 0 {
                return;
            }
            // Both arms are cancel-safe.
            let news = match pause {
                None => heard.recv().await,
                Some(pause) => tokio::select! {
                    biased;
                    news = heard.recv() => news,
                    () = tokio::time::sleep(pause) => continue,
                },
            };
            let Some(news) = news else { return };
            self.hear(news);
            while let Ok(news) = heard.try_recv() {
                self.hear(news);
            }
            self.say_troubles();
        }
    }

    fn hear(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Told(wish) => {
                self.queue.tell(wish, now.tick);
                self.look(false);
            }
            News::Look { certain } => self.look(certain),
            News::Accepted(rows) => self.queue.load(&rows, now),
            News::Written(written) => {
                written.iter().for_each(|(connection, seq)| self.queue.written(connection, *seq));
            }
            News::Arrived { sent, arrival, accepted } => self.arrived(&sent, &arrival, accepted, now),
            News::End => self.ending = true,
        }
    }

    fn look(&mut self, certain: bool) {
        let version = self.store.version().ok();
        self.stale |= certain || version.is_none() || version != self.version;
    }

    /// Everything that waits, without bodies.
    fn read(&mut self) {
        // Before the rows: what is written meanwhile is read again.
        let version = self.store.version().ok();
        let mut rows: Vec<Row> = Vec::new();
        loop {
            match self.store.waiting(rows.last().map_or(0, |row| row.seq), PAGE) {
                Ok(page) if page.is_empty() => break,
                Ok(page) => rows.extend(page),
                Err(why) => {
                    tracing::warn!(why, "events that wait cannot be read");
                    return;
                }
            }
        }
        let now = self.now();
        self.queue.reload(&rows, now);
        (self.version, self.stale) = (version, version.is_none());
    }

    /// Sends what is due; how long until something is due again.
    fn work(&mut self) -> Option<Duration> {
        let now = self.now();
        for (seq, connection, change) in self.queue.expired(now.tick) {
            self.settle(connection, seq, change, now, None);
        }
        if !self.ending {
            for sending in self.queue.next(now.tick) {
                self.send(sending, now);
            }
        }
        if self.stale {
            return Some(AGAIN);
        }
        if self.ending {
            return None;
        }
        let wake = self.queue.wake(self.parts.clock.now())?;
        Some(Duration::from(wake.clamp(Millis(1), SLICE)))
    }

    fn send(&mut self, sending: Sending, now: Now) {
        let parcel = match self.store.parcel(sending.seq) {
            Ok(Some(parcel)) => parcel,
            Ok(None) => return self.queue.unsent(&sending, true, now.tick),
            Err(why) => {
                tracing::warn!(why, "an event cannot be read");
                return self.queue.unsent(&sending, false, now.tick);
            }
        };
        let (news, accepted) = (self.news.clone(), parcel.accepted);
        let token = match self.token(&sending.wiring, now.tick) {
            Ok(token) => token,
            Err(why) => {
                let arrival = Arrival::Unreached(format!("no token could be made: {why}"));
                drop(news.send(News::Arrived { sent: sending, arrival, accepted }));
                return;
            }
        };
        let errand = Errand {
            port: sending.port,
            path: sending.wiring.path.clone(),
            token,
            key: parcel.key,
            connection: sending.connection.clone(),
            attempt: sending.attempt,
            content_type: parcel.content_type,
            body: with_params(&parcel.body, &sending.wiring.params),
            timeout: sending.timeout(),
        };
        let carrying = self.parts.carrier.carry(errand);
        tokio::spawn(async move {
            let arrival = carrying.await;
            let _ = news.send(News::Arrived { sent: sending, arrival, accepted });
        });
    }

    fn token(&mut self, wiring: &Wiring, now: Tick) -> Result<Secret, String> {
        let key = (wiring.scope.clone(), wiring.audience.clone());
        if let Some((token, made)) = self.tokens.get(&key)
            && now - *made < TOKEN_USED
        {
            return Ok(token.clone());
        }
        let token = (self.side.mint)(wiring)?;
        if self.tokens.len() >= MOST_TOKENS {
            self.tokens.clear();
        }
        self.tokens.insert(key, (token.clone(), now));
        Ok(token)
    }

    fn arrived(&mut self, sent: &Sending, arrival: &Arrival, accepted: Timestamp, now: Now) {
        if matches!(arrival, Arrival::Answered { status: 401 | 403, .. }) {
            // Perhaps its key was replaced.
            self.tokens.remove(&(sent.wiring.scope.clone(), sent.wiring.audience.clone()));
        }
        if let Some(change) = self.queue.arrived(sent, arrival, now) {
            self.settle(sent.connection.clone(), sent.seq, change, now, Some(accepted));
        }
    }

    fn settle(&mut self, connection: Name, seq: u64, change: Change, now: Now, accepted: Option<Timestamp>) {
        let seen = match &change {
            Change::Delivered { .. } => {
                let took = accepted.map_or(0, |accepted| now.wall.0.saturating_sub(accepted.0));
                Seen::Delivered(Millis(u64::try_from(took).unwrap_or(0)))
            }
            Change::Again { .. } => Seen::Failed,
            Change::Dead { attempts, status, .. } => {
                // What the sink said is in the database: it may be about the event.
                let (event, connection) = (event_id(seq), connection.as_str());
                tracing::warn!(event, connection, attempts, status, "an event was given up; it is a dead letter now");
                Seen::Dead
            }
        };
        (self.side.seen)(&connection, seen);
        self.writer.settle(connection, seq, change, now.wall);
    }

    fn say_troubles(&self) {
        let now = self.queue.troubles();
        let mut said = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != now {
            *said = now;
        }
    }
}
