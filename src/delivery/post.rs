//! The room as others see it. Nothing is opened, and no thread runs, before there is a durable connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::courier::{Courier, News};
use super::envelope;
use super::writer::Writer;
use crate::model::id::Name;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::clock::{Clock, Dice};
use crate::ports::deliveries::{
    Accepted, Act, Carrier, DeliveryStore, Done, Found, HubSide, Letter, LetterQuery, NotAccepted, OpenStore, Pick,
    Post, Row, Soon, Tally,
};
use crate::ports::hub::Wish;

/// After the database could not be opened.
const AGAIN: Millis = Millis(1_000);
/// Reading a larger body takes longer than others are to wait for it.
const LARGE: usize = 256 << 10;
const ENDING: &str = "the daemon is about to end";
/// What becomes of events whose connection went.
const REMOVED: &str = "the connection was removed";

/// What the room stands on.
#[derive(Clone)]
pub struct Parts {
    pub open: OpenStore,
    pub carrier: Arc<dyn Carrier>,
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub dice: Arc<Mutex<dyn Dice + Send>>,
}

/// The delivery room.
pub struct Room {
    parts: Parts,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    store: Option<Arc<dyn DeliveryStore>>,
    side: Option<HubSide>,
    threads: Option<Threads>,
    /// Why the database could not be opened, and when that was.
    unopened: Option<(String, Tick)>,
    wish: Option<Arc<Wish>>,
    ended: bool,
}

struct Threads {
    writer: Arc<Writer>,
    courier: Courier,
}

impl Room {
    pub fn new(parts: Parts) -> Self {
        Self { parts, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database; `None` when there is none and none is to be made.
    fn store(&self, state: &mut State, make: bool) -> Result<Option<Arc<dyn DeliveryStore>>, String> {
        if let Some(store) = &state.store {
            return Ok(Some(store.clone()));
        }
        let now = self.parts.clock.now();
        if let Some((why, at)) = state.unopened.as_ref().filter(|(_, at)| now - *at < AGAIN) {
            let _ = at;
            return Err(why.clone());
        }
        match (self.parts.open)(make) {
            Ok(store) => {
                state.unopened = None;
                state.store.clone_from(&store);
                Ok(store)
            }
            Err(why) => {
                if state.unopened.as_ref().is_none_or(|(before, _)| *before != why) {
                    tracing::error!(why, "the database of events cannot be opened");
                }
                state.unopened = Some((why.clone(), now));
                Err(why)
            }
        }
    }

    /// Starts the threads, if they are to run.
    fn threads<'a>(&self, state: &'a mut State) -> Result<Option<&'a Threads>, String> {
        let wanted = state.wish.as_ref().is_some_and(|wish| !wish.connections.is_empty()) && !state.ended;
        if state.threads.is_none()
            && wanted
            && let Some(side) = state.side.clone()
        {
            let store = self.store(state, true)?.ok_or("there is no database of events")?;
            let (news, heard) = mpsc::unbounded_channel();
            let none = |error: std::io::Error| error.to_string();
            let writer = Writer::start(store.clone(), self.parts.clock.clone(), news.clone()).map_err(none)?;
            let writer = Arc::new(writer);
            let courier = Courier::start(&self.parts, store, writer.clone(), side, (news, heard)).map_err(none)?;
            if let Some(wish) = &state.wish {
                let _ = courier.news.send(News::Told(wish.clone()));
            }
            state.threads = Some(Threads { writer, courier });
        }
        Ok(state.threads.as_ref())
    }

    /// Writes past the thread that writes, for whoever may wait for it.
    fn write(&self, act: Act, make: bool) -> Result<Option<Done>, String> {
        let store = self.store(&mut self.state(), make)?;
        let Some(store) = store else { return Ok(None) };
        let tell: fn(Vec<Row>) -> News = match &act {
            Act::Replay { .. } => News::Waiting,
            _ => News::Gone,
        };
        let heir = match &act {
            Act::Retire { connection, heir, .. } => heir.clone().filter(|heir| heir != connection),
            _ => None,
        };
        let done = store.write(&[act])?.pop();
        let news = match &done {
            Some(Done::Accepted(row)) => News::Waiting(vec![row.clone()]),
            Some(Done::Changed(rows)) => match heir {
                Some(heir) => News::Inherited { rows: rows.clone(), heir },
                None => tell(rows.clone()),
            },
            _ => return Ok(done),
        };
        if let Some(threads) = &self.state().threads {
            let _ = threads.courier.news.send(news);
        }
        Ok(done)
    }

    /// As [`crate::ports::deliveries::Deliveries::take_in`].
    ///
    /// # Errors
    /// In words.
    pub fn take_in(&self, connection: &Name, found: &Found) -> Result<bool, String> {
        let body = Bytes::copy_from_slice(found.body.reveal().as_bytes());
        let event = envelope::read(connection, "application/json", body)?;
        match self.write(Act::Accept { event, at: self.parts.clock.wall() }, true)? {
            Some(Done::Accepted(_)) => Ok(true),
            Some(Done::Known(_)) => Ok(false),
            Some(Done::Full(why)) => Err(why),
            _ => Err("it was not written".to_owned()),
        }
    }

    /// As [`crate::ports::deliveries::Deliveries::retire`].
    ///
    /// # Errors
    /// In words.
    pub fn retire(&self, connection: &Name, heir: Option<&Name>) -> Result<u64, String> {
        let at = self.parts.clock.wall();
        let (connection, heir) = (connection.clone(), heir.cloned());
        let act = Act::Retire { connection, heir, trouble: REMOVED.to_owned(), at };
        match self.write(act, false)? {
            Some(Done::Changed(rows)) => Ok(rows.len() as u64),
            _ => Ok(0),
        }
    }
}

impl Post for Room {
    fn begin(&self, side: HubSide) {
        self.state().side = Some(side);
    }

    fn tell(&self, wish: &Arc<Wish>) {
        let mut state = self.state();
        let news = state.wish.as_ref().is_none_or(|before| !Arc::ptr_eq(before, wish));
        state.wish = Some(wish.clone());
        let running = state.threads.is_some();
        // What is wrong is said by `standing`.
        let Ok(Some(threads)) = self.threads(&mut state) else { return };
        if running {
            let news = if news { News::Told(wish.clone()) } else { News::Look };
            let _ = threads.courier.news.send(news);
        }
    }

    fn accept(&self, connection: Name, content_type: String, body: Bytes) -> Soon<Result<Accepted, NotAccepted>> {
        let mut state = self.state();
        let writer = match self.threads(&mut state) {
            Ok(Some(threads)) => Ok(threads.writer.clone()),
            Ok(None) => Err(NotAccepted::Broken(ENDING.to_owned())),
            Err(why) => Err(NotAccepted::Broken(why)),
        };
        drop(state);
        Box::pin(async move {
            let writer = writer?;
            let large = body.len() > LARGE;
            let read = move || envelope::read(&connection, &content_type, body);
            let event = match large {
                false => read(),
                true => tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err("it was not read".to_owned())),
            };
            let accepted = writer.accept(event.map_err(NotAccepted::Unreadable)?);
            accepted.await.unwrap_or_else(|_| Err(NotAccepted::Broken(ENDING.to_owned())))
        })
    }

    fn standing(&self) -> Result<(), String> {
        let mut state = self.state();
        if state.wish.as_ref().is_none_or(|wish| wish.connections.is_empty()) || state.side.is_none() {
            return Ok(());
        }
        match self.threads(&mut state)? {
            Some(threads) => threads.writer.broken().map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, String> {
        let (store, said) = {
            let mut state = self.state();
            let Some(store) = self.store(&mut state, false)? else { return Ok(BTreeMap::new()) };
            let said = state.threads.as_ref().map(|threads| threads.courier.troubles.clone());
            (store, said)
        };
        let mut tallies = store.tallies()?;
        if let Some(said) = said {
            for (connection, trouble) in &*said.lock().unwrap_or_else(PoisonError::into_inner) {
                if let Some(tally) = tallies.get_mut(connection).filter(|tally| tally.waiting > 0) {
                    tally.trouble = Some(trouble.clone());
                }
            }
        }
        Ok(tallies)
    }

    fn list(&self, query: &LetterQuery) -> Result<Vec<Letter>, String> {
        let store = self.store(&mut self.state(), false)?;
        match store {
            Some(store) => store.list(query),
            None => Ok(Vec::new()),
        }
    }

    fn find(&self, seq: u64) -> Result<Option<(Letter, Option<Bytes>)>, String> {
        let store = self.store(&mut self.state(), false)?;
        match store {
            Some(store) => store.find(seq),
            None => Ok(None),
        }
    }

    fn change(&self, seq: u64, discard: bool) -> Result<bool, String> {
        let (pick, at) = (Pick::Seqs(vec![seq]), self.parts.clock.wall());
        let act = if discard { Act::Discard { pick, at } } else { Act::Replay { pick, at } };
        Ok(matches!(self.write(act, false)?, Some(Done::Changed(changed)) if !changed.is_empty()))
    }

    fn end(&self, grace: Duration) {
        let threads = {
            let mut state = self.state();
            state.ended = true;
            state.threads.take()
        };
        if let Some(threads) = threads {
            threads.courier.end(grace);
            threads.writer.end();
        }
    }
}
