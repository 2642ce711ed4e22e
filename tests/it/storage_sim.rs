//! The mover in a pretend world: killed before and after every call it makes, lied to by backends, and interfered with by others. After
//! every single call a good copy of every blob must lie somewhere; once the faults stop everything must be where it belongs, and nowhere
//! else. `SIM_SEEDS=N` widens the sweep, `SIM_SEED=S` replays one life.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use trueup::model::digest::Digest;
use trueup::model::time::Tick;
use trueup::model::unit::Millis;
use trueup::ports::blobs::{Index, Location};
use trueup::ports::storage::{Finding, Intent, Motion, Place, Settings, Storage};
use trueup::storage::mover::{Mover, Parts};
use trueup::storage::turn::{Core, Next};

use crate::storage_stage::name;
use crate::storage_world::{Faults, Side, World};

const HOUR: u64 = 3_600_000;
/// More turns than any life needs to come to rest.
const TURNS: usize = 3_000;

fn scratch() -> tempfile::TempDir {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a temporary folder")
}

fn settings() -> Settings {
    Settings {
        concurrency: Some(1),
        gc_source: Some(Millis(2 * HOUR)),
        orphans: Some(Millis(2 * HOUR)),
        scrub: Some(Millis(48 * HOUR)),
        ..Settings::default()
    }
}

fn intent(settings: Settings) -> Intent {
    let place = |text: &str| {
        let location = Location::Fs { path: text.into() };
        (name(text), Place { location, digest: Digest::of(text.as_bytes()), discard: false })
    };
    Intent { places: ["a", "b", "c"].map(place).into(), settings }
}

/// One process: its mover dies with it.
struct Life {
    world: World,
    mover: Mover,
    core: Core,
}

impl Life {
    fn begin(world: &World, intent: &Intent) -> Self {
        world.reborn();
        let parts = Parts {
            index: world.index(),
            latches: Arc::new(world.clone()),
            open: world.opener(),
            clock: Arc::new(world.clone()),
            dice: Arc::new(Mutex::new(world.clone())),
            bell: Arc::new(|| {}),
        };
        let mover = Mover::start(parts);
        mover.wish(intent);
        let core = mover.core();
        Self { world: world.clone(), mover, core }
    }

    /// Takes a turn, and lets the time pass until the next is due, though never more than this.
    fn turn(&mut self, at_most: u64) -> Next {
        let next = self.core.turn();
        if let Next::At(Tick(due)) = next {
            let now = self.world.time.load(Ordering::SeqCst);
            self.world.time.store(due.clamp(now, now + at_most), Ordering::SeqCst);
        }
        next
    }

    /// Until nothing is to be moved, or the process has died.
    fn migrated(&mut self) -> bool {
        for _ in 0..TURNS {
            self.turn(HOUR);
            if self.world.earth().dead {
                return false;
            }
            let standing = self.world.raw.standing().expect("stands");
            if standing.target.is_none() && standing.troubled() == 0 {
                return true;
            }
        }
        panic!("no end: {:#?}", self.mover.status());
    }

    /// Three days in which nobody does anything.
    fn rest(&mut self) -> bool {
        let until = self.world.time.load(Ordering::SeqCst) + 72 * HOUR;
        for _ in 0..TURNS {
            let next = self.turn(HOUR);
            if self.world.earth().dead {
                return false;
            }
            let now = self.world.time.load(Ordering::SeqCst);
            if next == Next::Told || now > until {
                return true;
            }
        }
        panic!("no rest: {:#?}", self.mover.status());
    }
}

/// What must be true once the faults have stopped and time has passed.
fn arrived(life: &Life, target: &str, when: &str) {
    let world = &life.world;
    let standing = world.raw.standing().expect("stands");
    assert_eq!(standing.active, Some(name(target)), "{when}");
    assert_eq!((standing.target.clone(), standing.troubled()), (None, 0), "{when}: {standing:?}");
    let earth = world.earth();
    let keys: BTreeSet<_> = earth.blobs.keys().cloned().collect();
    let entries = world.raw.entries(None, 1_000).expect("entries");
    assert_eq!(entries.iter().map(|entry| entry.key.clone()).collect::<BTreeSet<_>>(), keys, "{when}");
    for entry in &entries {
        assert_eq!(entry.row.place, name(target), "{when}");
        assert!(earth.stores[target].objects[&entry.row.object.name].1, "{when}: {entry:?}");
    }
    // Nobody keeps what nobody needs.
    let needed: BTreeSet<_> = entries.iter().map(|entry| entry.row.object.name).collect();
    for (place, store) in &earth.stores {
        let left: Vec<_> = store.objects.keys().filter(|name| place != target || !needed.contains(name)).collect();
        assert!(left.is_empty(), "{when}: {place} keeps {left:?}: {standing:?}");
    }
}

/// Reads every blob as a reader does: where its row says, then anywhere else.
fn readable(world: &World, when: &str) {
    let blobs: Vec<_> = world.earth().blobs.clone().into_iter().collect();
    for (key, (object, bytes)) in blobs {
        let entry = world.raw.find(&key).expect("looks").unwrap_or_else(|| panic!("{when}: {key} is not in the index"));
        assert_eq!(entry.row.object, object, "{when}");
        let earth = world.earth();
        let first = earth.stores[entry.row.place.as_str()].objects.get(&object.name);
        let all = first.into_iter().chain(earth.stores.values().filter_map(|store| store.objects.get(&object.name)));
        let found = all.map(|(found, _)| found).find(|found| **found == bytes);
        assert!(found.is_some(), "{when}: {key} cannot be read");
    }
}

/// A few blobs at `a`, on their way to `b`, and then old copies that go.
fn story(world: &World, life: &mut Life) -> bool {
    let now = world.wall();
    if world.raw.standing().expect("stands").active.is_none() {
        world.raw.activate(&name("a"), now).expect("activates");
        (0..5_usize).for_each(|n| world.put_bytes(vec![n as u8; n * 700]));
    }
    if world.raw.migrations(1).expect("migrations").is_empty() {
        world.raw.begin(&name("b"), now).expect("begins");
    }
    life.migrated() && life.rest()
}

fn killed_at(dir: &tempfile::TempDir, die: Option<(u64, Side)>) -> World {
    let world = World::new(7, dir);
    let mut life = Life::begin(&world, &intent(settings()));
    world.earth().die = die;
    let when = format!("killed {die:?}");
    while !story(&world, &mut life) {
        readable(&world, &when);
        drop(life);
        life = Life::begin(&world, &intent(settings()));
    }
    readable(&world, &when);
    arrived(&life, "b", &when);
    let moved: u64 = world.raw.migrations(9).expect("migrations").iter().map(|migration| migration.moved).sum();
    assert_eq!(moved, 5, "{when}");
    world
}

#[test]
fn a_mover_that_is_killed_before_or_after_any_call_loses_nothing_and_comes_to_the_same_end() {
    let dir = scratch();
    let calls = killed_at(&dir, None).earth().calls;
    assert!(calls > 100, "{calls}");
    // A prime step over both sides in the ordinary run; all of them when asked for.
    let step = if number("SIM_SEEDS").is_some() { 1 } else { 11 };
    for call in (1..=calls).step_by(step) {
        for side in [Side::Before, Side::After] {
            killed_at(&dir, Some((call, side)));
        }
    }
}

fn random_life(seed: u64, dir: &tempfile::TempDir) -> World {
    let world = World::new(seed, dir);
    world.raw.activate(&name("a"), world.wall()).expect("activates");
    (0..6_usize).for_each(|n| world.put_bytes(vec![n as u8 + 1; n * 300]));
    let mut life = Life::begin(&world, &intent(settings()));
    let steps = 40 + world.earth().roll() % 60;
    let mut target = "a";
    for step in 0..steps {
        let when = format!("SIM_SEED={seed}, step {step}");
        {
            let mut earth = world.earth();
            let level = [0, 0, 5, 30][(earth.roll() % 4) as usize];
            let mut some = |most: u64| if earth.roll().is_multiple_of(2) { 0 } else { most.min(level * 10) };
            earth.faults = {
                let (fail, write_lies, read_lies) = (some(60), some(80), some(80));
                let (list_lies, delete_lies, others) = (some(150), some(150), some(60));
                Faults { fail, write_lies, read_lies, list_lies, delete_lies, others }
            };
            if earth.roll().is_multiple_of(4) {
                let call = earth.calls + 1 + earth.roll() % 60;
                let side = if earth.roll().is_multiple_of(2) { Side::Before } else { Side::After };
                earth.die = Some((call, side));
            }
        }
        let roll = world.earth().roll() % 16;
        match roll {
            0 | 1 => {
                target = ["a", "b", "c"][(world.earth().roll() % 3) as usize];
                world.raw.begin(&name(target), world.wall()).expect("begins");
                life.mover.wish(&intent(settings()));
            }
            2..=4 => world.put(),
            5 => world.remove(),
            6 | 7 => world.rot(),
            8 => {
                let mut earth = world.earth();
                let roll = earth.roll();
                let store = earth.stores.values_mut().nth((roll % 3) as usize).expect("three");
                store.down = roll % 5 < 2;
                store.full = roll.is_multiple_of(7);
            }
            9 => drop(world.time.fetch_add(HOUR, Ordering::SeqCst)),
            10 => {
                let suspended = Settings { suspended: true, ..settings() };
                life.mover.wish(&intent(if world.earth().roll().is_multiple_of(2) { suspended } else { settings() }));
            }
            _ => {}
        }
        let turns = 1 + world.earth().roll() % 5;
        for _ in 0..turns {
            life.turn(HOUR / 2);
            world.safe(&when);
        }
        readable(&world, &when);
        if world.earth().dead {
            drop(life);
            life = Life::begin(&world, &intent(settings()));
        }
    }
    // The faults stop.
    {
        let mut earth = world.earth();
        (earth.faults, earth.die) = (Faults::default(), None);
        earth.stores.values_mut().for_each(|store| (store.down, store.full) = (false, false));
    }
    let standing = world.raw.standing().expect("stands");
    let target = standing.target.or(standing.active).map_or(target.to_owned(), |place| place.to_string());
    let mut life = Life::begin(&world, &intent(settings()));
    let when = format!("SIM_SEED={seed}, at the end");
    assert!(life.migrated() && life.rest(), "{when}");
    readable(&world, &when);
    arrived(&life, &target, &when);
    world
}

#[expect(clippy::disallowed_methods, reason = "a test may be told its seed")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|value| value.parse().ok())
}

/// From the first seed to before the last.
fn seeds() -> (u64, u64) {
    match (number("SIM_SEED"), number("SIM_SEEDS")) {
        (Some(seed), _) => (seed, seed + 1),
        (None, many) => (1, 1 + many.unwrap_or(24)),
    }
}

#[test]
fn random_lives_of_the_storage_keep_every_blob_and_come_to_rest() {
    let (from, to) = seeds();
    let dir = scratch();
    let mut reached = BTreeSet::new();
    for seed in from..to {
        let world = std::panic::catch_unwind(|| random_life(seed, &dir));
        let world = world.unwrap_or_else(|_| panic!("replay with SIM_SEED={seed}"));
        reached.extend(world.earth().reached.keys().copied());
    }
    // A sweep that never came to some verb proves nothing of it.
    if to - from > 20 {
        for verb in ["flip", "forget_spares", "verified", "delete", "listed", "finish", "relies_on"] {
            assert!(reached.contains(verb), "{verb} was never called: {reached:?}");
        }
    }
    // Few lives come to this one; it has a story of its own below.
    assert!(to - from < 80 || reached.contains("trouble"), "nothing was ever without a good copy: {reached:?}");
}

#[test]
fn what_has_no_good_copy_is_quarantined_told_once_and_given_up_only_by_name() {
    let dir = scratch();
    let world = World::new(3, &dir);
    world.raw.activate(&name("a"), world.wall()).expect("activates");
    (1..5_usize).for_each(|n| world.put_bytes(vec![n as u8; n * 300]));
    let (key, (object, _)) = world.earth().blobs.first_key_value().map(|(k, v)| (k.clone(), v.clone())).expect("some");
    world.earth().blobs.remove(&key);
    world.earth().stores.get_mut("a").expect("a").objects.insert(object.name, (b"rotten".to_vec(), false));
    let mut life = Life::begin(&world, &intent(settings()));
    world.raw.begin(&name("b"), world.wall()).expect("begins");
    (0..20).for_each(|_| _ = life.turn(HOUR));
    let status = life.mover.status().expect("stands");
    assert!(matches!(&status.motion, Motion::Waiting { why, .. } if why.contains("abandon")), "{status:?}");
    assert_eq!(status.standing.active, Some(name("a")), "the active backend waits");
    assert_eq!(status.standing.tallies[&name("b")].objects, 3, "everything else is moved");
    assert_eq!(status.troubled.len(), 1);
    assert_eq!(status.troubled[0].0, key);
    let told = life.mover.told().expect("told");
    assert_eq!(told.iter().filter(|told| matches!(told.what, Finding::Quarantined { .. })).count(), 1, "{told:?}");
    // Some other name gives up nothing.
    let mut wish = settings();
    wish.abandon = [world.earth().blobs.keys().next().cloned().expect("some")].into();
    life.mover.wish(&intent(wish.clone()));
    (0..20).for_each(|_| _ = life.turn(HOUR));
    assert_eq!(world.raw.standing().expect("stands").active, Some(name("a")));
    wish.abandon.insert(key);
    life.mover.wish(&intent(wish));
    assert!(life.migrated() && life.rest());
    arrived(&life, "b", "given up");
    let told = life.mover.told().expect("told");
    assert!(told.iter().any(|told| matches!(told.what, Finding::Abandoned { .. })), "{told:?}");
}
