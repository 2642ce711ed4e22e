//! What folders and databases promise beyond the contract: a kill leaves nothing, strangers are passed over, others may work beside us.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use trueup::adapters::blobs::fs::Fs;
use trueup::adapters::blobs::open;
use trueup::adapters::blobs::sqlite::Sqlite;
use trueup::adapters::environment::{Environment, own_binary};
use trueup::model::blob::Sha256;
use trueup::ports::blobs::{Backend, BackendError, Location, Object, Placed, Put};

use crate::backends::{bytes, object, put, read, store};

const MIB: usize = 1 << 20;
/// Tells a test that it is the child that is to be killed, and where.
const FOLDER: &str = "TRUEUP_TEST_PUTS_IN";
/// The same, for one that goes on and on.
const RESTLESS: &str = "TRUEUP_TEST_SETTLES_IN";

fn both(folder: &Path) -> [Box<dyn Backend>; 2] {
    [
        Box::new(Fs::open(&folder.join("fs")).expect("a folder")),
        Box::new(Sqlite::open(&folder.join("blobs.db")).expect("a database")),
    ]
}

/// Puts and does not settle, says so, and waits for its end.
fn child(folder: &Path) -> ! {
    for backend in both(folder) {
        for bytes in [bytes(1, 1_000), bytes(2, 3 * MIB)] {
            put(&*backend, &bytes, Put::Replace).expect("put");
        }
        std::mem::forget(backend);
    }
    io::Write::write_all(&mut io::stderr(), b"put\n").expect("said");
    let _ = io::stdin().read(&mut [0]);
    std::process::abort();
}

/// Puts and settles group after group, and says which groups are settled.
fn restless_child(folder: &Path) -> ! {
    let backends = both(folder);
    for group in 0.. {
        for backend in &backends {
            let bodies = bodies(group);
            let names: Vec<Sha256> = bodies.iter().map(|body| object(body).name).collect();
            for body in &bodies {
                put(&**backend, body, Put::IfAbsent).expect("put");
            }
            backend.settle(&names).expect("settled");
        }
        io::Write::write_all(&mut io::stderr(), format!("settled {group}\n").as_bytes()).expect("said");
    }
    std::process::abort();
}

fn bodies(group: u64) -> Vec<Vec<u8>> {
    (0..8).map(|member| bytes(10_000 + group * 8 + member, 40_000 + usize::from(member == 3) * 2 * MIB)).collect()
}

fn start(test: &str, variable: &str, folder: &Path) -> Child {
    Command::new(own_binary().expect("this binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(variable, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child")
}

fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("gone");
}

#[test]
fn what_a_killed_process_had_not_settled_is_never_seen_and_cleared_up_later() {
    if let Some(folder) = Environment::of_process().get(FOLDER) {
        child(Path::new(folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    for backend in both(folder.path()) {
        store(&*backend, &bytes(3, 500));
    }
    let test = "near::what_a_killed_process_had_not_settled_is_never_seen_and_cleared_up_later";
    let mut running = start(test, FOLDER, folder.path());
    let mut said = BufReader::new(running.stderr.take().expect("piped")).lines();
    assert!(said.any(|line| line.is_ok_and(|line| line == "put")), "the child has put");
    kill(running);

    let temporary = folder.path().join("fs/tmp");
    let count = || fs::read_dir(&temporary).expect("tmp").count();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let loose = || {
        let database = Connection::open(folder.path().join("blobs.db")).expect("the database");
        let loose: i64 = database.query_row("SELECT count(*) FROM loose", [], |row| row.get(0)).expect("a count");
        let chunks: i64 = database.query_row("SELECT count(*) FROM chunks", [], |row| row.get(0)).expect("a count");
        (loose, chunks)
    };
    for backend in both(folder.path()) {
        assert_eq!(backend.list(None, 10), Ok(vec![object(&bytes(3, 500))]));
        assert_eq!(read(&*backend, &object(&bytes(1, 1_000)).name, None), Err(BackendError::Missing));
        backend.tidy().expect("tidied");
    }
    assert_eq!((count(), loose()), (2, (1, 4)), "what is young stays");
    for entry in fs::read_dir(&temporary).expect("tmp").flatten() {
        File::options().write(true).open(entry.path()).and_then(|file| file.set_modified(old)).expect("aged");
    }
    let database = Connection::open(folder.path().join("blobs.db")).expect("the database");
    database.execute("UPDATE loose SET since = 1", []).expect("aged");
    drop(database);
    for backend in both(folder.path()) {
        backend.tidy().expect("tidied");
        assert_eq!(backend.list(None, 10), Ok(vec![object(&bytes(3, 500))]));
        assert_eq!(put(&*backend, &bytes(1, 1_000), Put::IfAbsent), Ok(Placed::Stored), "and may be put again");
        backend.settle(&[object(&bytes(1, 1_000)).name]).expect("settled");
    }
    assert_eq!((count(), loose()), (0, (0, 2)));
}

#[test]
fn what_was_settled_before_a_kill_is_there_and_nothing_else_is_seen_but_whole() {
    if let Some(folder) = Environment::of_process().get(RESTLESS) {
        restless_child(Path::new(folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let test = "near::what_was_settled_before_a_kill_is_there_and_nothing_else_is_seen_but_whole";
    // Each child begins from the first group and meets what those before it left.
    for groups in [2, 5, 9] {
        let mut running = start(test, RESTLESS, folder.path());
        let mut said = BufReader::new(running.stderr.take().expect("piped")).lines();
        let last = format!("settled {groups}");
        assert!(said.any(|line| line.is_ok_and(|line| line == last)), "the child has settled {groups}");
        kill(running);
        for backend in both(folder.path()) {
            for group in 0..=groups {
                for body in bodies(group) {
                    assert!(read(&*backend, &object(&body).name, None).as_ref() == Ok(&body), "of group {group}");
                }
            }
            for found in backend.list(None, 10_000).expect("a list") {
                let seen = read(&*backend, &found.name, None).expect("what is listed can be read");
                assert_eq!(object(&seen), found);
            }
        }
    }
}

#[test]
fn what_a_live_process_has_put_is_not_cleared_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Fs::open(folder.path()).expect("opened");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    put(&backend, b"staged", Put::Replace).expect("put");
    for entry in fs::read_dir(folder.path().join("tmp")).expect("tmp").flatten() {
        File::options().write(true).open(entry.path()).and_then(|file| file.set_modified(long_ago)).expect("aged");
    }
    backend.tidy().expect("tidied");
    backend.settle(&[object(b"staged").name]).expect("settled");
    assert_eq!(read(&backend, &object(b"staged").name, None).as_deref(), Ok(&b"staged"[..]));
}

#[test]
fn strangers_in_a_folder_are_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Fs::open(folder.path()).expect("opened");
    let ours = store(&backend, &bytes(1, 100));
    let strange = |seed: u64| Sha256::of(&seed.to_le_bytes());
    let path = |name: &Sha256| {
        let text = name.to_string();
        fs::create_dir_all(folder.path().join(&text[..2])).expect("a folder");
        folder.path().join(&text[..2]).join(&text[2..])
    };
    symlink("/etc/passwd", path(&strange(1))).expect("a link");
    symlink("/nowhere", path(&strange(2))).expect("a link to nothing");
    fs::create_dir(path(&strange(3))).expect("a folder by that name");
    fs::write(folder.path().join("README"), "hello").expect("a file");
    fs::create_dir_all(folder.path().join("ab")).expect("a folder");
    fs::write(folder.path().join("ab/short"), "hello").expect("a file");
    fs::write(folder.path().join("ab").join("F".repeat(62)), "hello").expect("a file");
    fs::write(folder.path().join("tmp/notes.txt"), "mine").expect("a file");
    assert_eq!(backend.list(None, 10), Ok(vec![ours]));
    for seed in 1..=3 {
        assert_eq!(backend.size(&strange(seed)), Ok(None));
        assert_eq!(read(&backend, &strange(seed), None), Err(BackendError::Missing));
    }
    backend.tidy().expect("tidied");
    assert!(folder.path().join("tmp/notes.txt").exists());
    fs::remove_dir_all(folder.path().join("cd")).ok();
    fs::write(folder.path().join("cd"), "a file where a folder belongs").expect("a file");
    assert_eq!(backend.list(None, 10), Ok(vec![ours]));
}

#[test]
fn a_disk_that_is_not_mounted_has_lost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("mount/blobs");
    let backend = Fs::open(&root).expect("opened");
    let stored = store(&backend, b"here");
    fs::rename(folder.path().join("mount"), folder.path().join("away")).expect("unmounted");
    fs::create_dir_all(&root).expect("the empty place");
    let gone = |result: Result<(), BackendError>| {
        assert!(matches!(&result, Err(BackendError::Refused(why)) if why.contains("mount")), "{result:?}");
    };
    gone(backend.size(&stored.name).map(|_| ()));
    gone(read(&backend, &stored.name, None).map(|_| ()));
    gone(backend.list(None, 10).map(|_| ()));
    gone(backend.owner().map(|_| ()));
    gone(put(&backend, b"more", Put::Replace).map(|_| ()));
    gone(backend.delete(&stored.name));
    fs::remove_dir_all(folder.path().join("mount")).expect("the empty place");
    fs::rename(folder.path().join("away"), folder.path().join("mount")).expect("mounted");
    assert_eq!(backend.size(&stored.name), Ok(Some(4)));
}

#[test]
fn folders_and_files_are_for_their_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    for backend in both(&folder.path().join("deep")) {
        store(&*backend, b"secret");
    }
    let mode =
        |path: &str| fs::metadata(folder.path().join("deep").join(path)).expect(path).permissions().mode() & 0o777;
    let text = object(b"secret").name.to_string();
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("fs"), 0o700);
    assert_eq!(mode(&format!("fs/{}", &text[..2])), 0o700);
    assert_eq!(mode(&format!("fs/{}/{}", &text[..2], &text[2..])), 0o600);
    assert_eq!(mode("blobs.db"), 0o600);
}

#[test]
fn what_cannot_be_a_place_is_refused_with_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "a text, and no database, but long enough to be looked at ".repeat(20)).expect("a file");
    fs::create_dir(at("folder")).expect("a folder");
    let other = Connection::open(at("other.db")).expect("a database");
    other.execute_batch("CREATE TABLE mine (x)").expect("somebody's");
    Sqlite::open(&at("newer.db")).expect("made");
    let newer = Connection::open(at("newer.db")).expect("a database");
    newer.pragma_update(None, "user_version", 99).expect("written");
    drop((other, newer));
    let cases = [
        Location::Fs { path: at("file") },
        Location::Fs { path: at("file/below") },
        Location::Sqlite { path: at("file") },
        Location::Sqlite { path: at("file/below.db") },
        Location::Sqlite { path: at("folder") },
        Location::Sqlite { path: at("other.db") },
        Location::Sqlite { path: at("newer.db") },
    ];
    for location in cases {
        let opened = open(&location).map(|_| ());
        let Err(BackendError::Refused(why)) = &opened else { panic!("{location:?}: {opened:?}") };
        assert!(why.contains(&folder.path().display().to_string()), "{why}");
    }
}

#[test]
fn many_may_make_and_use_one_database_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("blobs.db");
    std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            let path = &path;
            scope.spawn(move || {
                let backend = Sqlite::open(path).expect("made by whoever was first");
                for round in 0..5 {
                    let own = [bytes(thread * 100 + round, 5_000), bytes(thread * 100 + round + 50, 2 * MIB)];
                    for bytes in &own {
                        put(&backend, bytes, Put::IfAbsent).expect("put");
                        put(&backend, &self::bytes(7_777, 2 * MIB), Put::Replace).expect("the same for all");
                    }
                    let names = [object(&own[0]).name, object(&own[1]).name, object(&bytes(7_777, 2 * MIB)).name];
                    backend.settle(&names).expect("settled");
                    assert!(read(&backend, &names[1], None).as_ref() == Ok(&own[1]));
                }
            });
        }
    });
    let backend = Sqlite::open(&path).expect("opened");
    let found = backend.list(None, 1_000).expect("a list");
    assert_eq!(found.len(), 61);
    for object in found {
        assert_eq!(read(&backend, &object.name, None).map(|bytes| Sha256::of(&bytes)), Ok(object.name));
    }
    let database = Connection::open(&path).expect("the database");
    let chunks: i64 = database.query_row("SELECT count(*) FROM chunks", [], |row| row.get(0)).expect("a count");
    assert_eq!(chunks, 30 + 2 * 31, "what was replaced left nothing");
    let fine: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(fine, "ok");
}

/// While it is read, it writes to the same database by another way.
struct Meddling<'a> {
    bytes: &'a [u8],
    other: &'a Sqlite,
    round: u64,
}

impl Read for Meddling<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.round += 1;
        store(self.other, &bytes(self.round, 200));
        let count = buffer.len().min(100 << 10);
        self.bytes.read(&mut buffer[..count])
    }
}

#[test]
fn a_slow_body_holds_up_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("blobs.db");
    let backend = Sqlite::open(&path).expect("opened");
    let other = Sqlite::open(&path).expect("opened");
    for size in [300 << 10, 3 * MIB] {
        let large = bytes(9, size);
        put(&backend, b"staged before", Put::Replace).expect("put");
        let placed =
            backend.put(&object(&large), &mut Meddling { bytes: &large, other: &other, round: 0 }, Put::Replace);
        assert_eq!(placed, Ok(Placed::Stored));
        backend.settle(&[object(&large).name, object(b"staged before").name]).expect("settled");
        assert!(read(&other, &object(&large).name, None) == Ok(large));
    }
}

#[test]
fn more_may_be_staged_than_is_held_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("blobs.db");
    let backend = Sqlite::open(&path).expect("opened");
    let bodies: Vec<Vec<u8>> = (0..40).map(|seed| bytes(seed, MIB)).collect();
    for body in &bodies {
        put(&backend, body, Put::Replace).expect("put");
    }
    assert_eq!(backend.list(None, 10), Ok(vec![]));
    let names: Vec<Sha256> = bodies.iter().map(|body| object(body).name).collect();
    backend.settle(&names).expect("settled");
    for body in &bodies {
        assert!(read(&backend, &object(body).name, None).as_ref() == Ok(body));
    }
    let journal = || fs::metadata(folder.path().join("blobs.db-wal")).map_or(0, |found| found.len());
    assert!(journal() < 160 << 20, "{} bytes of journal", journal());
}

#[test]
fn what_is_replaced_or_removed_while_it_is_read_is_never_mixed_with_something_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Sqlite::open(&folder.path().join("blobs.db")).expect("opened");
    let first = bytes(1, 3 * MIB);
    let name = object(&first).name;
    let begin = || {
        store(&backend, &first);
        let mut reader = backend.open(&name, None).expect("opened");
        let mut begun = vec![0; MIB / 2];
        reader.read_exact(&mut begun).expect("read");
        assert!(begun == first[..MIB / 2]);
        reader
    };
    let rest = |mut reader: Box<dyn Read + Send>| {
        let error = reader.read_to_end(&mut Vec::new()).expect_err("it is another one by now");
        BackendError::from_io(&error)
    };
    let reader = begin();
    let other = bytes(2, 3 * MIB);
    backend.put(&Object { name, size: 3 << 20 }, &mut &other[..], Put::Replace).expect("put");
    backend.settle(&[name]).expect("settled");
    assert!(matches!(rest(reader), BackendError::Transient(_)));
    let reader = begin();
    backend.delete(&name).expect("deleted");
    store(&backend, &bytes(3, 3 * MIB));
    assert_eq!(rest(reader), BackendError::Missing);
}

#[test]
fn a_database_gives_space_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("blobs.db");
    let backend = Sqlite::open(&path).expect("opened");
    let mut stored = vec![store(&backend, &bytes(1, 100 * MIB))];
    stored.extend((0..20).map(|seed| store(&backend, &bytes(50 + seed, MIB))));
    for object in &stored {
        backend.delete(&object.name).expect("deleted");
    }
    backend.tidy().expect("tidied");
    // The next commit checks the journal in, and cuts the file.
    store(&backend, &bytes(2, 20 * MIB));
    backend.tidy().expect("tidied");
    drop(backend);
    let size = fs::metadata(&path).expect("the file").len();
    assert!(size < 40 << 20, "{size} bytes");
    let again = Sqlite::open(&path).expect("opened");
    assert!(read(&again, &object(&bytes(2, 20 * MIB)).name, None) == Ok(bytes(2, 20 * MIB)));
}
