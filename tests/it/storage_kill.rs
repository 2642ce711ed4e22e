//! A migration that is killed thirty times, with readers all along: real processes, `kill -9`, a real backend. `STORAGE_LARGEST`
//! is the size of the largest blob (65536 is what is promised), `STORAGE_BLOBS` how many there are, `STORAGE_SEED` replays one choice
//! of moments.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trueup::adapters::blobs::index::SqliteIndex;
use trueup::adapters::blobs::latches::FileLatches;
use trueup::adapters::blobs::{self};
use trueup::model::blob::{Integrity, Sha256};
use trueup::model::id::Name;
use trueup::model::time::Timestamp;
use trueup::ports::blobs::{Backend, BackendError, Index, Location, Object, Put, Standing};
use trueup::storage::depot::{Depot, Unwatched};
use trueup::storage::read::fetch;

use crate::faulty::{Fault, Faulty};
use crate::s3::S3;
use crate::stage::{DEADLINE, Own, Stage};

/// So often it is killed.
const KILLS: u64 = 30;
/// Slow enough that nearly every death comes in the middle.
const BANDWIDTH: &str = "32MiB";
/// So many blobs are put and made durable together when the stage is set.
const GROUP: usize = 256;

#[expect(clippy::disallowed_methods, reason = "a test asks its own environment")]
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[expect(clippy::disallowed_methods, reason = "a test measures its own time")]
fn now() -> Instant {
    Instant::now()
}

/// Chance that can be replayed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let largest = number("STORAGE_LARGEST", 8 << 10);
        let length = usize::try_from(largest / 16 + self.roll() % (largest - largest / 16)).expect("small");
        (0..length.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes()).take(length).collect()
    }
}

/// A stage in memory where the machine has such a folder: what is killed is a process, not the machine.
fn stage() -> Stage {
    let shm = Path::new("/dev/shm");
    let room = || rustix::fs::statvfs(shm).is_ok_and(|stat| stat.f_bavail * stat.f_frsize > 4 << 30);
    if shm.is_dir() && room() { Stage::within(shm) } else { Stage::new() }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A tree with a folder `local`, and another backend `other` whose spec is given.
fn tree(stage: &Stage, other: &str, active: &str) {
    stage.hub();
    let backend = |name: &str, spec: &str| {
        format!("apiVersion: trueup/v1\nkind: StorageBackend\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n---\n")
    };
    let storage = format!(
        "apiVersion: trueup/v1\nkind: Storage\nmetadata: {{ name: default }}\nspec: {{ activeBackend: {active}, bandwidth: {BANDWIDTH} }}\n"
    );
    let text = backend("local", "fs: { path: ../blobs }") + &backend("other", other) + &storage;
    stage.write("storage.yaml", &text);
}

/// Puts so many blobs on `local`, as many puts of a person would, only faster. Their keys, ascending.
fn fill(stage: &Stage, count: u64, dice: &mut Dice) -> Vec<Integrity> {
    let index = index(stage);
    let backend = blobs::open(&Location::Fs { path: stage.path("blobs") }).expect("a folder");
    let mut keys = Vec::new();
    let mut group = Vec::new();
    for number in 1..=count {
        let bytes = dice.bytes();
        let object = Object { name: Sha256::of(&bytes), size: bytes.len() as u64 };
        backend.put(&object, &mut &bytes[..], Put::Replace).expect("is put");
        group.push(object);
        if group.len() == GROUP || number == count {
            let names: Vec<Sha256> = group.iter().map(|object| object.name).collect();
            backend.settle(&names).expect("is settled");
            for object in group.drain(..) {
                let key = Integrity::of(&object.name);
                index.add(&key, &object, &name("local"), true, Timestamp(0)).expect("is added");
                keys.push(key);
            }
        }
    }
    keys
}

fn index(stage: &Stage) -> SqliteIndex {
    SqliteIndex::open(&stage.path(".trueup/blobs/index.db")).expect("the index")
}

/// What readers are and do: they read blobs at random, as a program with the library would, until told to end.
struct Readers {
    end: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Readers {
    fn start(stage: &Stage, keys: &Arc<Vec<Integrity>>, other: &Location) -> Self {
        let (end, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |seed: u64| {
            let (end, reads, keys) = (end.clone(), reads.clone(), keys.clone());
            let folder = stage.path(".trueup/blobs");
            let places = BTreeMap::from([
                (name("local"), Location::Fs { path: stage.path("blobs") }),
                (name("other"), other.clone()),
            ]);
            thread::spawn(move || read(&folder, &places, &keys, Dice(seed + 77), &end, &reads))
        };
        let threads = (0..2).map(one).collect();
        Self { end, reads, threads }
    }

    /// How often they read; a miss or a wrong byte has made them panic.
    fn end(self) -> u64 {
        self.end.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("no reader met a miss or a wrong byte");
        }
        self.reads.load(Ordering::SeqCst)
    }
}

fn read(
    folder: &Path,
    places: &BTreeMap<Name, Location>,
    keys: &[Integrity],
    mut dice: Dice,
    end: &AtomicBool,
    reads: &AtomicU64,
) {
    let index = SqliteIndex::open(&folder.join("index.db")).expect("the index");
    let latches = FileLatches::new(folder);
    let opened: BTreeMap<Name, Arc<dyn Backend>> =
        places.iter().map(|(name, place)| (name.clone(), blobs::open(place).expect("it opens"))).collect();
    let open = |name: &Name| opened.get(name).cloned().ok_or(BackendError::Missing);
    let depot = Depot {
        index: &index,
        latches: &latches,
        places: places.keys().cloned().collect(),
        open: &open,
        spool: folder.to_owned(),
        now: &|| Timestamp(0),
    };
    while !end.load(Ordering::SeqCst) {
        let key = &keys[usize::try_from(dice.roll() % keys.len() as u64).expect("small")];
        let (_, kept) = fetch(&depot, key, None, &Unwatched).unwrap_or_else(|error| panic!("a miss: {key}: {error}"));
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut kept.reader(), &mut bytes).expect("it was kept");
        assert_eq!(Integrity::of(&Sha256::of(&bytes)), *key, "a wrong byte");
        reads.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a copy is known by: a second copy of the same object has another one.
type Stamp = (u64, i64, i64);

/// The copies of what has flipped.
fn flipped(index: &SqliteIndex, file: &dyn Fn(&Sha256) -> PathBuf) -> BTreeMap<Sha256, Stamp> {
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let page = index.elsewhere(&name("local"), after.as_ref(), 1_000).expect("a page");
        let Some(last) = page.last() else { return all };
        after = Some(last.object.name);
        for row in page {
            let path = file(&row.object.name);
            let stat = fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            all.insert(row.object.name, (stat.ino(), stat.mtime(), stat.mtime_nsec()));
        }
    }
}

fn moved(standing: &Standing) -> u64 {
    standing.tallies.get(&name("other")).map_or(0, |tally| tally.objects)
}

/// Begins a migration, kills it again and again, and sees what must be true all along and at the end.
fn killed_again_and_again(
    stage: &Stage,
    count: u64,
    other: &str,
    location: &Location,
    file: &dyn Fn(&Sha256) -> PathBuf,
) {
    let mut dice = Dice(number("STORAGE_SEED", 0x5eed) | 1);
    tree(stage, other, "local");
    stage.once(&["--timeout", "60s"]).code(0);
    let keys = Arc::new(fill(stage, count, &mut dice));
    let readers = Readers::start(stage, &keys, location);
    tree(stage, other, "other");
    let index = index(stage);
    let mut known = BTreeMap::new();
    let (mut kills, mut in_the_middle) = (0, 0);
    while kills < KILLS {
        let before = moved(&index.standing().expect("a standing"));
        let mut command = stage.command(&["reconcile", "--once", "--timeout", "10m"]);
        let mut child = Own(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
        // Flips come in groups, and there are to be some left at the end: now and then a life sees one, and mostly it dies before.
        let groups = (count - before).div_ceil(GROUP as u64);
        let wanted = before + u64::from(dice.roll() % (2 * (KILLS - kills)) < groups);
        let deadline = now() + DEADLINE;
        while moved(&index.standing().expect("a standing")) < wanted && child.0.try_wait().expect("its state").is_none()
        {
            assert!(now() < deadline, "nothing is moved any more: {:?}", index.standing());
            thread::yield_now();
        }
        let linger = now() + Duration::from_micros(dice.roll() % 100_000);
        while now() < linger {
            thread::yield_now();
        }
        child.0.kill().expect("it is killed");
        child.0.wait().expect("it is dead");
        kills += 1;
        in_the_middle += u64::from(index.standing().expect("a standing").target.is_some());
        let now = flipped(&index, file);
        for (object, stamp) in &known {
            assert_eq!(now.get(object), Some(stamp), "{object} was copied again after its flip");
        }
        known = now;
    }
    let answer = stage.once(&["--timeout", "10m"]);
    assert_eq!(answer.code, 0, "{}\n{}", answer.out, answer.err);
    let reads = readers.end();
    let standing = index.standing().expect("a standing");
    assert_eq!((standing.active, standing.target), (Some(name("other")), None));
    assert_eq!(standing.tallies.get(&name("other")).map(|tally| tally.objects), Some(count));
    let last = flipped(&index, file);
    for (object, stamp) in &known {
        assert_eq!(last.get(object), Some(stamp), "{object} was copied again after its flip");
    }
    let backend = blobs::open(location).expect("it opens");
    for key in keys.iter() {
        let entry = index.find(key).expect("it is asked").expect("it is there");
        let mut bytes = Vec::new();
        let mut reader = backend.open(&entry.row.object.name, None).expect("it is on the target");
        std::io::Read::read_to_end(&mut reader, &mut bytes).expect("it is read");
        assert_eq!(Sha256::of(&bytes), entry.row.object.name);
    }
    assert!(reads > 100, "only {reads} reads");
    assert!(in_the_middle >= KILLS * 2 / 3, "only {in_the_middle} deaths came in the middle");
    assert_eq!(stage.once(&["--timeout", "60s"]).code(0).summary()["planned"], 0, "nothing is left to do");
}

#[test]
fn a_migration_killed_thirty_times_ends_right_and_no_reader_notices() {
    let stage = stage();
    let path = stage.path("other");
    let file = |object: &Sha256| {
        let text = object.to_string();
        path.join(&text[..2]).join(&text[2..])
    };
    let count = number("STORAGE_BLOBS", 20_000);
    killed_again_and_again(&stage, count, "fs: { path: ../other }", &Location::Fs { path: path.clone() }, &file);
}

#[test]
fn the_same_with_a_bucket_behind_a_bad_line() {
    let mut stage = stage();
    let server = S3::start();
    server.create_bucket("blobs");
    let line = Faulty::before(&server.endpoint);
    let faults = [
        Fault::CutBefore,
        Fault::CutRequest(1_000),
        Fault::LoseAnswer,
        Fault::CutAnswer(100),
        Fault::Refuse(500, None),
        Fault::Refuse(503, Some(0)),
        Fault::Slow,
    ];
    line.chance(number("STORAGE_SEED", 0x5eed), 25, &faults);
    stage.env.push(("S3_KEY".to_owned(), server.key.clone()));
    stage.env.push(("S3_SECRET".to_owned(), server.secret.clone()));
    let spec = format!(
        "s3: {{ endpoint: \"{}\", bucket: blobs, prefix: home, accessKeyId: {{ env: S3_KEY }}, \
         secretAccessKey: {{ env: S3_SECRET }} }}",
        line.endpoint
    );
    let location = Location::S3(Box::new(server.bucket("blobs", "home/", &line.endpoint)));
    let folder = server.folder.join("blobs/home");
    let file = |object: &Sha256| {
        let text = object.to_string();
        folder.join(&text[..2]).join(&text[2..])
    };
    let count = number("STORAGE_BLOBS", 20_000) / 10;
    killed_again_and_again(&stage, count, &spec, &location, &file);
    let hit = line.count(|fault| *fault != Fault::None);
    assert!(hit > 100, "only {hit} requests met a fault");
}
