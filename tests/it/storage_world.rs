//! A pretend world for the storage: backends in memory that fail and lie by seed, a clock that moves when told, a fate that kills before
//! or after any call on a port, and the real index on a real file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use trueup::adapters::blobs::index::SqliteIndex;
use trueup::model::blob::{Integrity, Sha256};
use trueup::model::id::Name;
use trueup::model::time::{Tick, Timestamp};
use trueup::ports::blobs::{
    Added, Backend, BackendError, Entry, Finish, Index, IndexError, Latch, Latches, Lease, Migration, Object, Placed,
    Put, Row, Spare, SpareOf, Standing, Trouble,
};
use trueup::ports::clock::{Clock, Dice};

/// What may go wrong, in thousandths of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Done or not done, and reported as failed.
    pub fail: u64,
    /// Other bytes are stored than were given, and nothing is said.
    pub write_lies: u64,
    /// Other bytes are given than are stored.
    pub read_lies: u64,
    /// Listings that lack something, have something twice, or show what is gone.
    pub list_lies: u64,
    /// "Deleted", and it is not.
    pub delete_lies: u64,
    /// Somebody else puts, removes or takes over in the middle.
    pub others: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

#[derive(Debug, Default)]
pub struct Store {
    /// Bytes, and whether they are right.
    pub objects: BTreeMap<Sha256, (Vec<u8>, bool)>,
    staged: BTreeMap<Sha256, Vec<u8>>,
    owner: Option<String>,
    /// Visible and safe at once, as on an object store.
    at_once: bool,
    pub down: bool,
    pub full: bool,
}

pub struct Earth {
    pub stores: BTreeMap<String, Store>,
    /// The blobs that were acknowledged and not removed: each must be readable at all times.
    pub blobs: BTreeMap<Integrity, (Object, Vec<u8>)>,
    pub faults: Faults,
    pub calls: u64,
    pub die: Option<(u64, Side)>,
    pub dead: bool,
    /// Objects that were stored where their row says they are, and rightly so.
    pub copied_twice: Vec<Sha256>,
    pub reached: BTreeMap<&'static str, u64>,
    state: u64,
    deleting: bool,
    moving: bool,
    /// In the middle of what another process does.
    inside: bool,
}

#[derive(Clone)]
pub struct World {
    pub earth: Arc<Mutex<Earth>>,
    pub time: Arc<AtomicU64>,
    /// The index as other processes have it.
    pub raw: Arc<SqliteIndex>,
    pub path: PathBuf,
}

/// 2020, in milliseconds.
const EPOCH: i64 = 1_577_836_800_000;

impl Earth {
    pub fn roll(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.roll() % 1_000 < per_mille
    }

    fn good(&self, name: &Sha256) -> bool {
        self.stores.values().any(|store| store.objects.get(name).is_some_and(|(_, good)| *good))
    }

    pub fn copies(&self, name: &Sha256) -> usize {
        self.stores.values().filter(|store| store.objects.get(name).is_some_and(|(_, good)| *good)).count()
    }
}

impl World {
    pub fn new(seed: u64, dir: &tempfile::TempDir) -> Self {
        let stores = ["a", "b", "c"].map(|name| (name.to_owned(), Store { at_once: name == "b", ..Store::default() }));
        let earth = Earth {
            stores: stores.into(),
            blobs: BTreeMap::new(),
            faults: Faults::default(),
            calls: 0,
            die: None,
            dead: false,
            copied_twice: Vec::new(),
            reached: BTreeMap::new(),
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            deleting: false,
            moving: false,
            inside: false,
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = dir.path().join(format!("{}.db", NEXT.fetch_add(1, Ordering::Relaxed)));
        let raw = Arc::new(SqliteIndex::open(&path).expect("the index opens"));
        Self { earth: Arc::new(Mutex::new(earth)), time: Arc::new(AtomicU64::new(1_000)), raw, path }
    }

    pub fn earth(&self) -> MutexGuard<'_, Earth> {
        self.earth.lock().expect("nobody panicked")
    }

    pub fn wall(&self) -> Timestamp {
        Timestamp(EPOCH + i64::try_from(self.time.load(Ordering::SeqCst)).expect("small"))
    }

    /// The machine starts again: what was not settled is gone.
    pub fn reborn(&self) {
        let mut earth = self.earth();
        earth.stores.values_mut().for_each(|store| store.staged.clear());
        (earth.dead, earth.die, earth.moving, earth.deleting) = (false, None, false, false);
    }

    /// Whether a call is made, and whether its answer arrives.
    fn lot(&self, verb: &'static str) -> (bool, bool) {
        let mut earth = self.earth();
        if earth.dead {
            return (false, false);
        }
        earth.calls += 1;
        *earth.reached.entry(verb).or_default() += 1;
        if let Some((_, side)) = earth.die.filter(|(call, _)| *call == earth.calls) {
            earth.dead = true;
            return (side == Side::After, false);
        }
        let fail = earth.faults.fail;
        if earth.chance(fail) {
            return (earth.roll().is_multiple_of(2), false);
        }
        let others = earth.faults.others;
        if !earth.inside && earth.chance(others) {
            earth.inside = true;
            drop(earth);
            self.somebody_else();
            self.earth().inside = false;
        }
        (true, true)
    }

    fn somebody_else(&self) {
        let roll = self.earth().roll() % 10;
        match roll {
            0 => drop(self.raw.lease().expect("a lease")),
            1 => {
                let to = ["a", "b", "c"][(self.earth().roll() % 3) as usize];
                self.raw.begin(&Name::new(to).expect("a name"), self.wall()).expect("begins");
            }
            2..=4 => self.remove(),
            _ => self.put(),
        }
    }

    /// A careful writer. It does not write while somebody deletes.
    pub fn put(&self) {
        let mut earth = self.earth();
        if earth.deleting || earth.blobs.len() > 24 {
            return;
        }
        // Sometimes one that was there before: its bytes may be about to be removed.
        let pick = earth.roll() % 40;
        let size = (pick * 97 % 3_000) as usize;
        let bytes: Vec<u8> = (0..size).map(|n| (n as u64 * (pick + 3) / 7) as u8).collect();
        drop(earth);
        self.put_bytes(bytes);
    }

    pub fn put_bytes(&self, bytes: Vec<u8>) {
        let object = Object { name: Sha256::of(&bytes), size: bytes.len() as u64 };
        let key = Integrity::of(&object.name);
        let mut place = self.raw.standing().expect("stands").place().cloned().expect("a place");
        for _ in 0..3 {
            {
                let mut earth = self.earth();
                let store = earth.stores.get_mut(place.as_str()).expect("a store");
                if store.down || store.full {
                    return;
                }
                // Nothing is put where the mover has not been before.
                store.owner.get_or_insert_with(|| self.raw.standing().expect("stands").owner);
                store.staged.remove(&object.name);
                store.objects.insert(object.name, (bytes.clone(), true));
            }
            match self.raw.add(&key, &object, &place, false, self.wall()).expect("adds") {
                Added::PlaceMoved(now) => place = now,
                Added::Added | Added::Known(_) => {
                    self.earth().blobs.insert(key, (object, bytes));
                    return;
                }
            }
        }
    }

    pub fn remove(&self) {
        let mut earth = self.earth();
        if earth.blobs.len() < 3 {
            return;
        }
        let at = (earth.roll() as usize) % earth.blobs.len();
        let key = earth.blobs.keys().nth(at).cloned().expect("in range");
        earth.blobs.remove(&key);
        drop(earth);
        self.raw.remove(&key, self.wall()).expect("removes");
    }

    /// One copy of an object rots, but never the last good one.
    pub fn rot(&self) {
        let mut earth = self.earth();
        let roll = earth.roll() as usize;
        let mut copies: Vec<(String, Sha256)> = Vec::new();
        for (place, store) in &earth.stores {
            copies.extend(store.objects.keys().map(|name| (place.clone(), *name)));
        }
        copies.retain(|(_, name)| earth.copies(name) > 1);
        if copies.is_empty() {
            return;
        }
        let (place, name) = copies[roll % copies.len()].clone();
        let store = earth.stores.get_mut(&place).expect("a store");
        if roll.is_multiple_of(3) {
            store.objects.remove(&name);
        } else if let Some((bytes, good)) = store.objects.get_mut(&name) {
            match bytes.first_mut() {
                Some(first) => *first ^= 4,
                None => bytes.push(0),
            }
            // What rots twice may be right again.
            *good = Sha256::of(bytes) == name;
        }
    }

    /// What must hold at any moment: a good copy of every blob lies somewhere.
    pub fn safe(&self, when: &str) {
        let earth = self.earth();
        for (key, (object, _)) in &earth.blobs {
            assert!(earth.good(&object.name), "{when}: no good copy of {key} ({})", object.name);
        }
        assert!(earth.copied_twice.is_empty(), "{when}: copied again: {:?}", earth.copied_twice);
    }

    pub fn opener(&self) -> Arc<trueup::storage::mover::Open> {
        let world = self.clone();
        Arc::new(move |location| {
            let trueup::ports::blobs::Location::Fs { path } = location else { panic!("only pretend folders") };
            Ok(Arc::new(Pretend { world: world.clone(), place: path.display().to_string() }))
        })
    }

    /// The index as a new process opens it.
    pub fn index(&self) -> Arc<dyn Index> {
        Arc::new(Fated { world: self.clone(), inner: SqliteIndex::open(&self.path).expect("the index opens") })
    }
}

impl Clock for World {
    fn now(&self) -> Tick {
        Tick(self.time.load(Ordering::SeqCst))
    }
    fn wall(&self) -> Timestamp {
        World::wall(self)
    }
}

impl Dice for World {
    fn roll(&self) -> u64 {
        self.earth().roll()
    }
}

struct Release(World, bool);

impl Latch for Release {}

impl Drop for Release {
    fn drop(&mut self) {
        // Also while a failed assertion unwinds.
        let mut earth = self.0.earth.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.1 { earth.deleting = false } else { earth.moving = false }
    }
}

impl Latches for World {
    fn moving(&self) -> Result<Option<Box<dyn Latch>>, IndexError> {
        let taken = std::mem::replace(&mut self.earth().moving, true);
        Ok((!taken).then(|| Box::new(Release(self.clone(), false)) as Box<dyn Latch>))
    }
    fn putting(&self) -> Result<Box<dyn Latch>, IndexError> {
        Err(IndexError::Broken("the mover does not put blobs".to_owned()))
    }
    fn deleting(&self) -> Result<Option<Box<dyn Latch>>, IndexError> {
        let taken = std::mem::replace(&mut self.earth().deleting, true);
        Ok((!taken).then(|| Box::new(Release(self.clone(), true)) as Box<dyn Latch>))
    }
}

struct Pretend {
    world: World,
    place: String,
}

fn lost<T>() -> Result<T, BackendError> {
    Err(BackendError::Transient("no answer".to_owned()))
}

impl Pretend {
    fn call<T>(
        &self,
        verb: &'static str,
        act: impl FnOnce(&mut Earth, &str) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (made, heard) = self.world.lot(verb);
        let answer = made.then(|| {
            let mut earth = self.world.earth();
            if earth.stores[&self.place].down { lost() } else { act(&mut earth, &self.place) }
        });
        // Whatever the mover does: a good copy of every blob is somewhere, after each single call.
        self.world.safe(verb);
        answer.filter(|_| heard).unwrap_or_else(lost)
    }
}

fn store<'a>(earth: &'a mut Earth, place: &str) -> &'a mut Store {
    earth.stores.get_mut(place).expect("a store")
}

impl Backend for Pretend {
    fn put(&self, object: &Object, body: &mut dyn Read, how: Put) -> Result<Placed, BackendError> {
        let there = |earth: &mut Earth, place: &str| {
            let store = store(earth, place);
            if store.full {
                return Err(BackendError::Full("no room".to_owned()));
            }
            Ok(store.staged.contains_key(&object.name) || store.objects.contains_key(&object.name))
        };
        if self.call("put", there)? && how == Put::IfAbsent {
            return Ok(Placed::Present);
        }
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map_err(|error| BackendError::Body(error.to_string()))?;
        if bytes.len() as u64 != object.size {
            return Err(BackendError::Body("another size".to_owned()));
        }
        let row = self.world.raw.row(&object.name).expect("a row");
        self.call("store", |earth, place| {
            let lies = earth.faults.write_lies + earth.faults.read_lies > 0;
            let right = store(earth, place).objects.get(&object.name).is_some_and(|(_, good)| *good);
            if !lies && right && row.is_some_and(|row| row.place.as_str() == place) {
                earth.copied_twice.push(object.name);
            }
            let lie = earth.faults.write_lies;
            if earth.chance(lie) {
                if bytes.len() > 1 && earth.roll().is_multiple_of(2) {
                    bytes.truncate(object.size as usize / 2);
                } else {
                    match bytes.last_mut() {
                        Some(last) => *last ^= 1,
                        None => bytes.push(0),
                    }
                }
            }
            let good = Sha256::of(&bytes) == object.name;
            let store = store(earth, place);
            if store.at_once {
                store.objects.insert(object.name, (bytes, good));
            } else {
                store.staged.insert(object.name, bytes);
            }
            Ok(Placed::Stored)
        })
    }

    fn settle(&self, names: &[Sha256]) -> Result<(), BackendError> {
        self.call("settle", |earth, place| {
            let store = store(earth, place);
            for name in names {
                match store.staged.remove(name) {
                    Some(bytes) => drop(store.objects.insert(*name, (bytes.clone(), Sha256::of(&bytes) == *name))),
                    None if store.objects.contains_key(name) => {}
                    None => return Err(BackendError::Transient("it was not put".to_owned())),
                }
            }
            Ok(())
        })
    }

    fn open(&self, name: &Sha256, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, BackendError> {
        assert!(range.is_none(), "the mover reads whole objects");
        let (mut bytes, cut) = self.call("open", |earth, place| {
            let lie = earth.faults.read_lies;
            let (flip, cut) = (earth.chance(lie), earth.chance(lie));
            let (mut bytes, _) = store(earth, place).objects.get(name).cloned().ok_or(BackendError::Missing)?;
            if let Some(first) = bytes.first_mut().filter(|_| flip) {
                *first ^= 128;
            }
            Ok((bytes, cut))
        })?;
        if cut {
            bytes.truncate(bytes.len() / 2);
            return Ok(Box::new(io::Cursor::new(bytes).chain(Cut)));
        }
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn size(&self, name: &Sha256) -> Result<Option<u64>, BackendError> {
        self.call("size", |earth, place| Ok(store(earth, place).objects.get(name).map(|(bytes, _)| bytes.len() as u64)))
    }

    fn delete(&self, name: &Sha256) -> Result<(), BackendError> {
        self.call("delete", |earth, place| {
            let lie = earth.faults.delete_lies;
            if !earth.chance(lie) {
                store(earth, place).objects.remove(name);
            }
            Ok(())
        })
    }

    fn list(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Object>, BackendError> {
        self.call("list", |earth, place| {
            let lie = earth.faults.list_lies;
            let (short, twice, ghost) = (earth.chance(lie), earth.chance(lie), earth.chance(lie));
            let objects = &store(earth, place).objects;
            let behind = objects.iter().filter(|(name, _)| after.is_none_or(|after| *name > after));
            let found = behind.map(|(name, (bytes, _))| Object { name: *name, size: bytes.len() as u64 });
            let mut out: Vec<Object> = found.take(limit).collect();
            if short {
                out.pop();
            }
            if ghost && out.len() < limit {
                out.push(Object { name: Sha256([255; 32]), size: 3 });
            }
            if let Some(first) = out.first().copied().filter(|_| twice && out.len() < limit) {
                out.insert(0, first);
            }
            Ok(out)
        })
    }

    fn tidy(&self) -> Result<(), BackendError> {
        self.call("tidy", |_, _| Ok(()))
    }
    fn owner(&self) -> Result<Option<String>, BackendError> {
        self.call("owner", |earth, place| Ok(store(earth, place).owner.clone()))
    }
    fn claim(&self, owner: &str) -> Result<(), BackendError> {
        self.call("claim", |earth, place| {
            store(earth, place).owner = Some(owner.to_owned());
            Ok(())
        })
    }
}

/// A connection that breaks.
struct Cut;

impl Read for Cut {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(BackendError::Transient("the connection broke".to_owned()).into_io())
    }
}

struct Fated {
    world: World,
    inner: SqliteIndex,
}

macro_rules! fated {
    ($($verb:ident($($arg:ident: $type:ty),*) -> $out:ty;)* => $($more:tt)*) => {
        impl Index for Fated {
            $($more)*
            $(fn $verb(&self, $($arg: $type),*) -> Result<$out, IndexError> {
                let (made, heard) = self.world.lot(stringify!($verb));
                let answer = made.then(|| self.inner.$verb($($arg),*));
                self.world.safe(stringify!($verb));
                answer.filter(|_| heard).unwrap_or_else(|| Err(IndexError::Broken("no answer".to_owned())))
            })*
        }
    };
}

fated! {
    standing() -> Standing;
    find(key: &Integrity) -> Option<Entry>;
    entries(after: Option<&Integrity>, limit: usize) -> Vec<Entry>;
    row(name: &Sha256) -> Option<Row>;
    keys_of(name: &Sha256) -> Vec<Integrity>;
    add(key: &Integrity, object: &Object, place: &Name, verified: bool, at: Timestamp) -> Added;
    remove(key: &Integrity, at: Timestamp) -> Option<Entry>;
    fell_back() -> ();
    activate(place: &Name, at: Timestamp) -> ();
    begin(target: &Name, at: Timestamp) -> ();
    lease() -> Lease;
    elsewhere(place: &Name, after: Option<&Sha256>, limit: usize) -> Vec<Row>;
    finish(lease: Lease, target: &Name, at: Timestamp) -> Finish;
    abandon(lease: Lease, keys: &BTreeSet<Integrity>, at: Timestamp) -> Vec<Entry>;
    trouble(lease: Lease, name: &Sha256, place: &Name, trouble: &Trouble) -> bool;
    verified(lease: Lease, names: &[(Sha256, Name)], at: Timestamp) -> ();
    troubled(after: Option<&Sha256>, limit: usize) -> Vec<Row>;
    stale(place: &Name, before: Timestamp, limit: usize) -> Vec<Row>;
    spares(place: &Name, why: SpareOf, before: Timestamp, limit: usize) -> Vec<Spare>;
    listed(lease: Lease, place: &Name, found: &[Object], at: Timestamp) -> usize;
    relies_on(name: &Sha256, place: &Name) -> bool;
    forget_spares(lease: Lease, place: &Name, names: &[Sha256]) -> ();
    migrations(limit: usize) -> Vec<Migration>;
    note(name: &str) -> Option<String>;
    notes(beginning: &str) -> Vec<(String, String)>;
    set_note(name: &str, value: &str) -> ();
    =>
    fn flip(&self, lease: Lease, target: &Name, moved: &[(Sha256, Name)], at: Timestamp) -> Result<usize, IndexError> {
        // Nothing is said to be somewhere before it is there, and right.
        for (name, _) in moved {
            let earth = self.world.earth();
            let good = earth.stores[target.as_str()].objects.get(name).is_some_and(|(_, good)| *good);
            assert!(good || earth.dead, "{name} is flipped to {target} and is not there");
        }
        let (made, heard) = self.world.lot("flip");
        let answer = made.then(|| self.inner.flip(lease, target, moved, at));
        self.world.safe("flip");
        answer.filter(|_| heard).unwrap_or_else(|| Err(IndexError::Broken("no answer".to_owned())))
    }
}
