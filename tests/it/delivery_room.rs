//! The delivery room on a real database: what a person or the engine changes reaches the queue without everything being read again, and
//! the events of a connection that was given another name are delivered under that.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use trueup::adapters::clock::{SystemClock, SystemDice};
use trueup::adapters::deliveries::Delivered;
use trueup::delivery::{Parts, Room};
use trueup::model::id::Name;
use trueup::model::secret::Secret;
use trueup::ports::clock::Clock;
use trueup::ports::deliveries::{
    Act, Arrival, Bounds, Carrier, DeliveryStore, Done, Errand, Event, HubSide, Letter, LetterQuery, Parcel, Pick,
    Post, Row, Soon, Stage, Tally,
};
use trueup::ports::hub::{State, Wish};

use crate::delivery_stage::{event, name, wiring};
use crate::proxy_stage::upstream;
use crate::stage::wait_until;

/// The database, and how often everything that waits was read from it.
struct Counted {
    store: Delivered,
    reads: Arc<AtomicUsize>,
}

impl DeliveryStore for Counted {
    fn write(&self, acts: &[Act]) -> Result<Vec<Done>, String> {
        self.store.write(acts)
    }
    fn waiting(&self, after: u64, limit: usize) -> Result<Vec<Row>, String> {
        if after == 0 && limit > 1 {
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
        self.store.waiting(after, limit)
    }
    fn parcel(&self, seq: u64) -> Result<Option<Parcel>, String> {
        self.store.parcel(seq)
    }
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, String> {
        self.store.tallies()
    }
    fn list(&self, query: &LetterQuery) -> Result<Vec<Letter>, String> {
        self.store.list(query)
    }
    fn find(&self, seq: u64) -> Result<Option<(Letter, Option<Bytes>)>, String> {
        self.store.find(seq)
    }
    fn version(&self) -> Result<i64, String> {
        self.store.version()
    }
}

/// A sink that says one thing, and waits for a permit before.
struct Plays {
    status: AtomicU16,
    permits: Arc<Semaphore>,
    heard: Mutex<Vec<(Name, String)>>,
}

/// The sink as the room gets it.
struct Player(Arc<Plays>);

impl Carrier for Player {
    fn carry(&self, errand: Errand) -> Soon<Arrival> {
        self.0.heard.lock().expect("a lock").push((errand.connection, errand.key));
        let (status, permits) = (self.0.status.load(Ordering::SeqCst), self.0.permits.clone());
        Box::pin(async move {
            permits.acquire_owned().await.expect("open").forget();
            Arrival::Answered { status, retry_after: None, text: String::new() }
        })
    }
}

struct Story {
    room: Room,
    plays: Arc<Plays>,
    reads: Arc<AtomicUsize>,
    runtime: tokio::runtime::Runtime,
}

impl Story {
    fn new(folder: &Path, status: u16, permits: usize) -> Self {
        let reads = Arc::new(AtomicUsize::new(0));
        let plays = Arc::new(Plays {
            status: AtomicU16::new(status),
            permits: Arc::new(Semaphore::new(permits)),
            heard: Mutex::default(),
        });
        let (path, counter) = (folder.join("deliveries.db"), reads.clone());
        let room = Room::new(Parts {
            open: Arc::new(move |_| {
                let store = Delivered::open(&path, Bounds::default())?;
                Ok(Some(Arc::new(Counted { store, reads: counter.clone() }) as Arc<dyn DeliveryStore>))
            }),
            carrier: Arc::new(Player(plays.clone())),
            clock: Arc::new(SystemClock),
            dice: Arc::new(Mutex::new(SystemDice::new())),
        });
        room.begin(HubSide { mint: Arc::new(|_| Ok(Secret::new("token".to_owned()))), seen: Arc::new(|_, _| ()) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { room, plays, reads, runtime }
    }

    fn tell(&self, connections: &[&str]) {
        let mut wish = Wish::default();
        wish.upstreams.insert(name("agent"), Arc::new(upstream("agent", 1, State::Ready)));
        for connection in connections {
            wish.connections.insert(name(connection), Arc::new(wiring("agent")));
        }
        self.room.tell(&Arc::new(wish));
    }

    fn accept(&self, connection: &str, note: &str, number: u64) -> u64 {
        let body = Bytes::from(event(note, number).to_string());
        let accepted = self.room.accept(name(connection), "application/json".to_owned(), body);
        self.runtime.block_on(accepted).expect("taken in").seq
    }

    fn heard(&self) -> Vec<(Name, String)> {
        self.plays.heard.lock().expect("a lock").clone()
    }

    fn tally(&self, connection: &str) -> Tally {
        self.room.tallies().expect("tallies").remove(&name(connection)).unwrap_or_default()
    }

    fn letters(&self) -> Vec<Letter> {
        self.room.list(&LetterQuery { limit: 100, ..LetterQuery::default() }).expect("letters")
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        self.plays.permits.close();
        self.room.end(Duration::from_millis(1));
    }
}

#[test]
fn what_is_replayed_discarded_or_retired_is_not_looked_for_among_all_that_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let story = Story::new(folder.path(), 422, 1_000);
    story.tell(&["box"]);
    let seqs: Vec<u64> = (1..=3).map(|number| story.accept("box", &format!("n{number}"), number)).collect();
    wait_until("dead letters", || story.tally("box").dead == 3);
    let reads = story.reads.load(Ordering::SeqCst);
    for seq in &seqs {
        assert!(story.room.change(*seq, false).expect("replayed"));
    }
    wait_until("all of them again", || story.heard().len() == 6 && story.tally("box").dead == 3);
    story.plays.status.store(500, Ordering::SeqCst);
    assert!(story.room.change(seqs[0], false).expect("replayed"));
    wait_until("one that is tried again later", || story.heard().len() == 7);
    assert!(story.room.change(seqs[0], true).expect("discarded"));
    assert_eq!(story.room.retire(&name("box"), None), Ok(0));
    story.plays.status.store(200, Ordering::SeqCst);
    assert!(story.room.change(seqs[1], false).expect("replayed"));
    wait_until("a delivery", || story.tally("box").delivered == 1);
    assert_eq!(story.reads.load(Ordering::SeqCst), reads, "everything was read again");
}

#[test]
fn the_events_of_a_renamed_connection_are_delivered_under_its_new_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let story = Story::new(folder.path(), 422, 1);
    story.tell(&["old"]);
    let dead = story.accept("old", "n0", 1);
    wait_until("a dead letter", || story.tally("old").dead == 1);
    story.plays.status.store(200, Ordering::SeqCst);
    // The first is under way and is not answered; the second waits for it, for they are of one note.
    let seqs = [story.accept("old", "n1", 2), story.accept("old", "n1", 3)];
    wait_until("one under way", || story.heard().len() == 2);
    let before: Vec<(u64, String)> = story.letters().into_iter().map(|letter| (letter.seq, letter.key)).collect();
    assert_eq!(story.room.retire(&name("old"), Some(&name("new"))), Ok(2));
    assert_eq!(story.room.retire(&name("old"), Some(&name("new"))), Ok(0), "again does nothing");
    story.tell(&["new"]);
    assert_eq!((story.tally("new").waiting, story.tally("new").dead), (2, 1));
    assert_eq!(story.tally("old"), Tally::default());
    story.plays.permits.add_permits(100);
    wait_until("both", || story.tally("new").delivered == 2);
    let after: Vec<(u64, String)> = story.letters().into_iter().map(|letter| (letter.seq, letter.key)).collect();
    assert_eq!(after, before, "numbers and keys stay");
    let heard = story.heard();
    assert_eq!(heard.len(), 3, "what was under way is not sent again");
    assert_eq!((heard[2].0.as_str(), &heard[2].1), ("new", &key(&before, seqs[1])));
    // A dead letter can be replayed under the new name.
    assert!(story.room.change(dead, false).expect("replayed"));
    wait_until("the dead one", || story.tally("new").delivered == 3);
}

fn key(letters: &[(u64, String)], seq: u64) -> String {
    letters.iter().find(|(this, _)| *this == seq).map(|(_, key)| key.clone()).expect("a letter")
}

#[test]
fn an_heir_does_not_get_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Delivered::open(&folder.path().join("deliveries.db"), Bounds::default()).expect("a database");
    let at = SystemClock.wall();
    let accept = |connection: &str, key: &str| {
        let (content_type, body) = ("application/json".to_owned(), Bytes::from_static(b"{}"));
        let event =
            Event { connection: name(connection), key: key.to_owned(), note: None, what: None, content_type, body };
        match store.write(&[Act::Accept { event, at }]).expect("written").remove(0) {
            Done::Accepted(row) => row.seq,
            other => panic!("{other:?}"),
        }
    };
    let (both, own) = (accept("old", "k1"), accept("old", "k2"));
    accept("new", "k1");
    let (connection, heir, trouble) = (name("old"), Some(name("new")), "gone".to_owned());
    store.write(&[Act::Retire { connection, heir, trouble, at }]).expect("written");
    let stage = |seq| store.find(seq).expect("read").map(|(letter, _)| (letter.connection, letter.stage));
    assert_eq!(stage(both), Some((name("old"), Stage::Discarded)));
    assert_eq!(stage(own), Some((name("new"), Stage::Waiting)));
    assert_eq!(store.tallies().expect("tallies")[&name("new")].waiting, 2);
    // The tally is what everybody relies on: it still counts right.
    store.write(&[Act::Discard { pick: Pick::Seqs(vec![own]), at }]).expect("written");
    assert_eq!(store.tallies().expect("tallies")[&name("new")].waiting, 1);
}

#[test]
fn what_was_taken_while_it_was_given_up_is_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    let story = Story::new(folder.path(), 200, 0);
    story.tell(&["box"]);
    story.accept("box", "n1", 1);
    wait_until("it under way", || story.heard().len() == 1);
    assert_eq!(story.room.retire(&name("box"), None), Ok(1));
    assert_eq!(story.tally("box").dead, 1);
    story.plays.permits.add_permits(1);
    wait_until("the answer", || story.tally("box").delivered == 1);
    assert_eq!(story.tally("box").dead, 0);
}
