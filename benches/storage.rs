//! What moving blobs costs: the mover between two folders, beside a bare loop, both in this process.

#[path = "storage/bare.rs"]
mod bare;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use trueup::adapters::blobs::fs::Fs;
use trueup::adapters::blobs::index::SqliteIndex;
use trueup::adapters::blobs::latches::FileLatches;
use trueup::adapters::clock::{SystemClock, SystemDice};
use trueup::model::blob::{Integrity, Sha256};
use trueup::model::digest::Digest;
use trueup::model::id::Name;
use trueup::ports::blobs::{Backend, BackendError, Index, Location, Object, Put};
use trueup::ports::clock::Clock;
use trueup::ports::storage::{Intent, Place, Settings, Storage};
use trueup::storage::mover::{Mover, Parts};

use self::bare::GROUP;

/// Each figure is the best of so many runs: the others were disturbed by something else.
const RUNS: usize = 3;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Bytes that do not repeat, quickly.
fn fill(state: &mut u64, size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}

fn open(location: &Location) -> Result<Arc<dyn Backend>, BackendError> {
    let Location::Fs { path } = location else { return Err(BackendError::Refused("folders only".to_owned())) };
    Ok(Arc::new(Fs::open(path)?))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn moved(dir: &Path, index: &Arc<SqliteIndex>, from: &str, to: &str, concurrency: Option<u32>) -> Duration {
    let rung = Arc::new((Mutex::new(()), Condvar::new()));
    let ring = rung.clone();
    let mover = Mover::start(Parts {
        index: index.clone(),
        latches: Arc::new(FileLatches::new(dir)),
        open: Arc::new(open),
        clock: Arc::new(SystemClock),
        dice: Arc::new(Mutex::new(SystemDice::new())),
        bell: Arc::new(move || ring.1.notify_all()),
    });
    let place = |place: &str| {
        let location = Location::Fs { path: dir.join(place) };
        (name(place), Place { location, digest: Digest::of(place.as_bytes()), discard: false })
    };
    let places: BTreeMap<_, _> = [from, to].map(place).into();
    let settings = Settings { concurrency, ..Settings::default() };
    let begun = Instant::now();
    mover.tell(&Intent { places, settings });
    mover.migrate(&name(to)).expect("begins");
    loop {
        if mover.status().expect("stands").standing.active == Some(name(to)) {
            return begun.elapsed();
        }
        let guard = rung.0.lock().expect("nobody panics");
        let _ = rung.1.wait_timeout(guard, Duration::from_millis(10));
    }
}

fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().replace("VmHWM:", "").trim().to_owned()
}

#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench reads the clock, and is read on the screen"
)]
fn measure(what: &str, sizes: impl Iterator<Item = usize>) {
    let dir = tempfile::tempdir_in(std::env::current_dir().expect("a folder")).expect("a folder");
    let dir = dir.path();
    let index = Arc::new(SqliteIndex::open(&dir.join("blobs.db")).expect("an index"));
    index.activate(&name("a"), SystemClock.wall()).expect("activates");
    let source = Fs::open(&dir.join("a")).expect("a folder");
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let mut objects = Vec::new();
    for size in sizes {
        let bytes = fill(&mut state, size);
        let object = Object { name: Sha256::of(&bytes), size: size as u64 };
        source.put(&object, &mut &bytes[..], Put::IfAbsent).expect("puts");
        objects.push(object);
        if objects.len().is_multiple_of(GROUP) {
            source
                .settle(&objects[objects.len() - GROUP..].iter().map(|o| o.name).collect::<Vec<_>>())
                .expect("settles");
        }
    }
    source.settle(&objects.iter().map(|object| object.name).collect::<Vec<_>>()).expect("settles");
    for object in &objects {
        let key = Integrity::of(&object.name);
        index.add(&key, object, &name("a"), true, SystemClock.wall()).expect("adds");
    }
    objects.sort();
    let bytes: u64 = objects.iter().map(|object| object.size).sum();
    let best = |mut run: Box<dyn FnMut(usize) -> Duration + '_>| (0..RUNS).map(|n| run(n)).min().unwrap_or_default();
    let show = |who: &str, took: Duration| {
        let seconds = took.as_secs_f64();
        println!(
            "{what}: {who}: {seconds:.2} s, {:.0} MiB/s, {:.0} objects/s, peak {}",
            bytes as f64 / seconds / f64::from(1 << 20),
            objects.len() as f64 / seconds,
            peak()
        );
    };
    // The places of one run are those of the next turned round, so each run moves everything, and its target is made empty before.
    for threads in [1, 2] {
        let bare = best(Box::new(|n| {
            let to = dir.join(format!("bare{n}"));
            fs::create_dir_all(&to).expect("a folder");
            let begun = Instant::now();
            let from = dir.join("a");
            bare::copy(&objects, threads, || |group, buffer| bare::to_folder(&from, &to, group, buffer));
            let took = begun.elapsed();
            fs::remove_dir_all(to).expect("removes");
            took
        }));
        show(&format!("bare loop, {threads} threads"), bare);
    }
    for concurrency in [Some(1), Some(2), None] {
        let mut from = index.standing_place();
        let took = best(Box::new(|n| {
            let to = format!("m{}x{n}", concurrency.unwrap_or(0));
            let took = moved(dir, &index, &from, &to, concurrency);
            fs::remove_dir_all(dir.join(&from)).expect("removes");
            // The bare loop reads from `a`, and has been measured by then.
            from = to;
            took
        }));
        show(&format!("mover, concurrency {concurrency:?}"), took);
    }
}

trait Standing {
    fn standing_place(&self) -> String;
}

impl Standing for SqliteIndex {
    fn standing_place(&self) -> String {
        self.standing().expect("stands").active.expect("a place").to_string()
    }
}

fn main() {
    measure("20,000 objects of 4 to 64 KiB", (0..20_000_usize).map(|n| (4 << 10) + (n * 7_919) % (60 << 10)));
    measure("64 objects of 16 MiB", std::iter::repeat_n(16 << 20, 64));
}
