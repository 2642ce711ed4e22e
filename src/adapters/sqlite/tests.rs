//! The ledger: what a crash leaves, what a second call does, what is refused and how.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::migrations::{MIGRATIONS, migrate, version};
use super::*;
use crate::adapters::testing::{again_unprivileged, hand_over, role};
use crate::model::condition::{ConditionStatus, ConditionType, Reason};
use crate::model::event::Cause;
use crate::ports::store::Then;

fn id(text: &str) -> ResourceId {
    text.parse().expect(text)
}

fn owned(name: &str, generation: u64) -> Owned {
    Owned {
        id: id(name),
        generation,
        digest: Digest::of(name.as_bytes()),
        document: format!("{{\"name\":\"{name}\"}}"),
        source: "manifests/a.yaml:1:1".into(),
        base: "/srv/manifests".into(),
        record: "{}".into(),
    }
}

fn begin(step: &str, name: &str, claim: Option<Owned>) -> Begin {
    Begin {
        step: StepId(step.into()),
        resource: id(name),
        action: "spawn".into(),
        reason: "Absent".into(),
        source: "manifests/a.yaml:1:1".into(),
        at: Timestamp(1_000),
        claim,
        lasting: true,
    }
}

fn event(name: &str, at: i64) -> Event {
    Event {
        seq: 0,
        at: Timestamp(at),
        resource: id(name),
        reason: Reason::Absent,
        cause: Cause::Intent,
        message: format!("at {at}"),
    }
}

fn finish(step: &str, name: &str, then: Then) -> Finish {
    Finish {
        step: StepId(step.into()),
        outcome: "changed".into(),
        message: "done".into(),
        at: Timestamp(2_000),
        then,
        event: event(name, 2_000),
    }
}

fn condition(status: ConditionStatus) -> Condition {
    Condition {
        kind: ConditionType::Ready,
        status,
        reason: Reason::Running,
        message: "runs".into(),
        last_transition_time: Timestamp(5),
        observed_generation: 1,
    }
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(&dir.join("ledger.db")).expect("opens")
}

/// Everything that a ledger can tell.
fn tell(ledger: &Ledger) -> String {
    let query = EventQuery { limit: 100, ..EventQuery::default() };
    let history = ledger.history(&id("Service/a"), 100).expect("history");
    let all = (ledger.owned(), ledger.open_steps(), ledger.events(&query), ledger.conditions(), history, ledger.key());
    format!("{all:#?}")
}

/// Every file of a folder with its bytes.
fn bytes(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("folder").map(|entry| entry.expect("entry").path());
    entries.map(|path| (path.clone(), fs::read(&path).expect("file"))).collect()
}

/// What the disk of a process that was killed right now would hold.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("folder");
    for (path, bytes) in bytes(dir) {
        // The shared memory file is rebuilt; a copy of it would pretend that the writer lives.
        if !path.to_string_lossy().ends_with("-shm") {
            fs::write(copy.path().join(path.file_name().expect("name")), bytes).expect("copy");
        }
    }
    copy
}

#[test]
fn a_step_owns_from_begin_on_and_lets_go_only_when_told() {
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    let both = [begin("1", "Service/a", Some(owned("Service/a", 1))), begin("2", "Service/b", None)];
    ledger.begin(&both).expect("begin");
    assert_eq!(ledger.owned().expect("owned").into_values().collect::<Vec<_>>(), [owned("Service/a", 1)]);
    let open_steps = ledger.open_steps().expect("open");
    assert_eq!(open_steps.iter().map(|line| line.step.0.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(open_steps[0].finished, None);

    let second = finish("2", "Service/b", Then::Own(owned("Service/b", 7)));
    ledger.finish(&[finish("1", "Service/a", Then::Keep), second]).expect("finish");
    assert_eq!(ledger.owned().expect("owned").len(), 2);
    assert_eq!(ledger.open_steps().expect("open"), []);
    let line = &ledger.history(&id("Service/a"), 5).expect("history")[0];
    assert_eq!((line.outcome.as_deref(), line.finished), (Some("changed"), Some(Timestamp(2_000))));

    ledger.begin(&[begin("3", "Service/a", None)]).expect("begin");
    ledger.finish(&[finish("3", "Service/a", Then::Release(id("Service/a")))]).expect("finish");
    assert_eq!(ledger.owned().expect("owned").into_keys().collect::<Vec<_>>(), [id("Service/b")]);
}

#[test]
fn finishing_twice_changes_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    ledger.begin(&[begin("1", "Service/a", Some(owned("Service/a", 1)))]).expect("begin");
    ledger.finish(&[finish("1", "Service/a", Then::Release(id("Service/a")))]).expect("finish");
    let told = tell(&ledger);
    ledger.finish(&[finish("1", "Service/a", Then::Own(owned("Service/a", 9)))]).expect("again");
    assert_eq!(tell(&ledger), told);
    let error = ledger.finish(&[finish("9", "Service/a", Then::Keep)]).expect_err("never begun");
    assert_eq!(error.to_string(), "the ledger: step 9 was never begun");
    assert_eq!(tell(&ledger), told);
}

#[test]
fn a_group_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    ledger.begin(&[begin("1", "Service/a", None)]).expect("begin");
    let told = tell(&ledger);
    let twice = [begin("2", "Service/b", Some(owned("Service/b", 1))), begin("1", "Service/a", None)];
    ledger.begin(&twice).expect_err("step 1 exists");
    ledger
        .finish(&[finish("1", "Service/a", Then::Keep), finish("9", "Service/b", Then::Keep)])
        .expect_err("no step 9");
    assert_eq!(tell(&ledger), told);
}

#[test]
fn what_a_crash_interrupts_was_never_written() {
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    ledger.begin(&[begin("1", "Service/a", Some(owned("Service/a", 1)))]).expect("begin");
    let told = tell(&ledger);
    assert_eq!(tell(&open(killed(dir.path()).path())), told, "what was committed is there after a kill");

    // So much that SQLite spills into its journal before the commit.
    ledger.connection.pragma_update(None, "cache_size", 10).expect("small cache");
    let transaction = Transaction::new_unchecked(&ledger.connection, TransactionBehavior::Immediate).expect("begin");
    for number in 0..2_000 {
        journal::begin(&transaction, &begin(&format!("x{number}"), "Service/a", None)).expect("written");
    }
    assert_eq!(tell(&open(killed(dir.path()).path())), told, "killed in the middle");
    drop(transaction);
    drop(ledger);
    assert_eq!(tell(&open(dir.path())), told, "dropped in the middle");
}

#[test]
fn steps_that_a_crash_left_open_are_closed_by_a_look() {
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    ledger.begin(&[begin("1", "Service/a", None), begin("2", "Service/a", None)]).expect("begin");
    ledger.close_open(&[StepId("1".into()), StepId("none".into())], Timestamp(9)).expect("close");
    assert_eq!(ledger.open_steps().expect("open").len(), 1);
    let closed = &ledger.history(&id("Service/a"), 5).expect("history")[1];
    assert_eq!((closed.finished, closed.outcome.as_deref()), (Some(Timestamp(9)), Some("unsure")));
}

#[test]
fn events_are_the_newest_and_oldest_first() {
    let ledger = Ledger::in_memory().expect("memory");
    let all: Vec<Event> = (1..=6).map(|n| event(if n % 2 == 0 { "Service/b" } else { "Service/a" }, n * 10)).collect();
    ledger.record(&all).expect("record");
    let ask = |query: EventQuery| -> Vec<u64> {
        ledger.events(&query).expect("events").into_iter().map(|event| event.seq).collect()
    };
    let some = |limit| EventQuery { limit, ..EventQuery::default() };
    assert_eq!(ask(some(100)), [1, 2, 3, 4, 5, 6]);
    assert_eq!(ask(some(2)), [5, 6]);
    assert_eq!(ask(some(0)), [0_u64; 0]);
    assert_eq!(ask(EventQuery { after: 4, ..some(100) }), [5, 6]);
    assert_eq!(ask(EventQuery { resource: Some(id("Service/a")), ..some(2) }), [3, 5]);
    assert_eq!(ask(EventQuery { since: Some(Timestamp(50)), ..some(9) }), [5, 6]);
    let first = ledger.events(&EventQuery { limit: 6, ..EventQuery::default() }).expect("events").remove(0);
    assert_eq!(first, Event { seq: 1, ..event("Service/a", 10) });
    ledger.connection.execute("UPDATE event SET reason = 'OfTheFuture', cause = 'x'", []).expect("newer words");
    assert_eq!(ledger.events(&some(1)).expect("still readable")[0].reason, Reason::Unknown);
}

#[test]
fn trimming_keeps_the_newest_and_whatever_is_open() {
    let ledger = Ledger::in_memory().expect("memory");
    for number in 1..=5 {
        ledger.begin(&[begin(&number.to_string(), "Service/a", None)]).expect("begin");
        if number != 1 {
            ledger.finish(&[finish(&number.to_string(), "Service/a", Then::Keep)]).expect("finish");
        }
    }
    ledger.trim(2, 3).expect("trim");
    let steps: Vec<String> =
        ledger.history(&id("Service/a"), 9).expect("history").into_iter().map(|line| line.step.0).collect();
    assert_eq!(steps, ["5", "4", "1"]);
    let query = EventQuery { limit: 9, ..EventQuery::default() };
    assert_eq!(ledger.events(&query).expect("events").len(), 3);
    ledger.trim(0, 0).expect("trim");
    ledger.record(&[event("Service/a", 1)]).expect("record");
    assert_eq!(ledger.events(&query).expect("events")[0].seq, 5, "numbers are never used again");
}

#[test]
fn conditions_and_settings_are_replaced_and_removed() {
    let ledger = Ledger::in_memory().expect("memory");
    let (yes, no) = (vec![condition(ConditionStatus::True)], vec![condition(ConditionStatus::False)]);
    ledger.set_conditions(&[(id("Service/a"), yes.clone()), (id("Service/b"), yes)], &[]).expect("set");
    ledger.set_conditions(&[(id("Service/a"), no.clone()), (id("Service/b"), vec![])], &[]).expect("set");
    assert_eq!(ledger.conditions().expect("read"), BTreeMap::from([(id("Service/a"), no)]));
    assert_eq!(ledger.get("tree").expect("get"), None);
    ledger.set("tree", "1").expect("set");
    ledger.set("tree", "2").expect("set");
    assert_eq!(ledger.get("tree").expect("get").as_deref(), Some("2"));
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    let conditions = vec![(id("Service/a"), vec![condition(ConditionStatus::True)])];
    ledger.begin(&[begin("1", "Service/a", Some(owned("Service/a", 1)))]).expect("begin");
    ledger.finish(&[finish("1", "Service/a", Then::Keep)]).expect("finish");
    ledger.set_conditions(&conditions, &[]).expect("set");
    ledger.set("a", "b").expect("set");
    let without_shm = |mut files: BTreeMap<PathBuf, Vec<u8>>| {
        // Readers mark their place in the shared memory file, which is never on its way to the disk.
        files.retain(|path, _| !path.to_string_lossy().ends_with("-shm"));
        files
    };
    let before = without_shm(bytes(dir.path()));
    assert!(before.keys().any(|path| path.to_string_lossy().ends_with("-wal")), "{:?}", before.keys());
    tell(&ledger);
    ledger.get("a").expect("get");
    ledger.set("a", "b").expect("same");
    ledger.set_conditions(&conditions, &[]).expect("same");
    ledger.begin(&[]).expect("none");
    ledger.finish(&[]).expect("none");
    ledger.record(&[]).expect("none");
    ledger.close_open(&[], Timestamp(1)).expect("none");
    ledger.trim(100, 100).expect("none to trim");
    tell(&Ledger::open(&dir.path().join("ledger.db")).expect("opened again"));
    tell(&Ledger::open_read_only(&dir.path().join("ledger.db")).expect("looked at"));
    assert!(without_shm(bytes(dir.path())) == before, "some file changed");
}

#[test]
fn a_new_ledger_is_private_durable_and_has_one_key() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("ledger.db");
    fs::write(&path, "").expect("an empty file, as a crash can leave it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    let ledger = open(dir.path());
    for file in bytes(dir.path()).keys() {
        assert_eq!(fs::metadata(file).expect("file").permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let pragma = |name: &str| -> String {
        let sql = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        ledger.connection.query_row(&sql, [], |row| row.get(0)).expect(name)
    };
    assert_eq!([pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")], ["wal", "1", "1"]);
    let key = ledger.key().expect("key");
    assert_ne!(key, [0; 32]);
    drop(ledger);
    assert_eq!(open(dir.path()).key().expect("key"), key);
    assert_ne!(Ledger::in_memory().expect("memory").key().expect("key"), key);
}

#[test]
fn looking_needs_no_ledger_and_makes_none() {
    let dir = tempfile::tempdir().expect("folder");
    for path in [dir.path().join("none/ledger.db"), dir.path().join("ledger.db")] {
        let ledger = Ledger::open_read_only(&path).expect("empty");
        assert_eq!(ledger.owned().expect("owned"), BTreeMap::new());
        ledger.key().expect("a key for the length of the look");
    }
    assert_eq!(bytes(dir.path()), BTreeMap::new());
}

#[test]
fn looking_works_beside_a_writer_and_cannot_write() {
    let dir = tempfile::tempdir().expect("folder with a ? and a %41 in its name");
    let dir = dir.path().join("a?b#c%41 d");
    fs::create_dir(&dir).expect("folder");
    let writer = open(&dir);
    writer.begin(&[begin("1", "Service/a", Some(owned("Service/a", 1)))]).expect("begin");
    let reader = Ledger::open_read_only(&dir.join("ledger.db")).expect("opens");
    assert_eq!(tell(&reader), tell(&writer));
    writer.finish(&[finish("1", "Service/a", Then::Keep)]).expect("finish");
    assert_eq!(tell(&reader), tell(&writer));
    let open_write = Transaction::new_unchecked(&writer.connection, TransactionBehavior::Immediate).expect("begin");
    journal::begin(&open_write, &begin("2", "Service/a", None)).expect("in the middle");
    assert_eq!(reader.history(&id("Service/a"), 9).expect("reads").len(), 1);
    drop(open_write);
    let error = reader.set("a", "b").expect_err("read-only");
    assert!(error.to_string().contains("may not be written"), "{error}");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("ledger.db");
    let both = |wanted: &str| {
        for (how, answer) in [("open", Ledger::open(&path)), ("look", Ledger::open_read_only(&path))] {
            let error = answer.expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{how}: {error}");
        }
    };
    fs::write(&path, "not a database at all, but long enough to be looked at".repeat(100)).expect("file");
    both("is not a database");
    fs::remove_file(&path).expect("gone");
    Connection::open(&path).expect("other").execute_batch("CREATE TABLE theirs (x)").expect("other");
    both("is a database, but not one of trueup");
    fs::remove_file(&path).expect("gone");
    let newer = open(dir.path());
    newer.connection.pragma_update(None, "user_version", number(MIGRATIONS.len() + 1)).expect("newer");
    drop(newer);
    both(&format!("newer trueup (schema {}", MIGRATIONS.len() + 1));
    fs::remove_file(&path).expect("gone");
    fs::create_dir(&path).expect("folder in its place");
    let error = Ledger::open(&path).expect_err("folder").to_string();
    assert!(error.contains("is not a file"), "{error}");
    let error = Ledger::open(&dir.path().join("none/ledger.db")).expect_err("no folder").to_string();
    assert!(error.contains("cannot be opened"), "{error}");
}

#[test]
fn a_full_disk_is_said_so_and_nothing_was_written() {
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    let told = tell(&ledger);
    let pages: i64 = ledger.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("pages");
    let limit = format!("PRAGMA max_page_count = {pages}");
    ledger.connection.query_row(&limit, [], |row| row.get::<_, i64>(0)).expect("limit");
    let many: Vec<Event> = (0..5_000).map(|at| event("Service/a", at)).collect();
    let error = ledger.record(&many).expect_err("full").to_string();
    assert!(error.contains("the disk is full; nothing was written"), "{error}");
    assert_eq!(tell(&ledger), told);
}

/// Writes what [`frozen_ledgers_of_every_age_open_and_keep_what_they_held`] reads.
fn freeze(path: &Path) {
    let ledger = Ledger::open(path).expect("new");
    ledger.set(KEY_SETTING, &format!("a35c017e{}", "07".repeat(28))).expect("a known key");
    ledger.begin(&[begin("s-1", "Service/vault", Some(owned("Service/vault", 3)))]).expect("begin");
    ledger.finish(&[finish("s-1", "Service/vault", Then::Keep)]).expect("finish");
    ledger.begin(&[begin("s-2", "Service/vault", None)]).expect("begin");
    ledger.record(&[event("Hub/home", 5)]).expect("record");
    ledger.set_conditions(&[(id("Service/vault"), vec![condition(ConditionStatus::True)])], &[]).expect("set");
    ledger.connection.execute_batch("VACUUM").expect("small");
}

/// Every released schema has a ledger in `tests/state/` that was written by it and is never written again. `UPDATE=1` makes
/// the one of a schema that has none yet.
#[test]
fn frozen_ledgers_of_every_age_open_and_keep_what_they_held() {
    for released in 1..=MIGRATIONS.len() {
        let frozen = format!("{}/tests/state/ledger-v{released}.db", env!("CARGO_MANIFEST_DIR"));
        if released == MIGRATIONS.len() && !Path::new(&frozen).exists() && role("UPDATE").is_some() {
            freeze(Path::new(&frozen));
        }
        let dir = tempfile::tempdir().expect("folder");
        fs::copy(&frozen, dir.path().join("ledger.db")).expect(&frozen);
        for look_first in [true, false] {
            let ledger = match look_first {
                true => Ledger::open_read_only(&dir.path().join("ledger.db")).expect("looked at"),
                false => open(dir.path()),
            };
            assert_eq!(ledger.owned().expect("owned")[&id("Service/vault")].generation, 3);
            assert_eq!(ledger.open_steps().expect("open").len(), 1);
            assert_eq!(ledger.conditions().expect("conditions").len(), 1);
            assert_eq!(ledger.events(&EventQuery { limit: 9, ..EventQuery::default() }).expect("events").len(), 2);
            assert_eq!(ledger.key().expect("key")[..4], [0xa3, 0x5c, 0x01, 0x7e]);
            assert_eq!(version(&ledger.connection).expect("version"), MIGRATIONS.len());
        }
    }
}

#[test]
fn looking_at_an_older_ledger_brings_a_copy_up_to_date() {
    let dir = tempfile::tempdir().expect("folder");
    let old = Connection::open(dir.path().join("old.db")).expect("old");
    migrate(&old, &["CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT)"]).expect("older schema");
    old.execute("INSERT INTO setting VALUES ('a', 'b')", []).expect("row");
    let copy = tempfile::tempdir().expect("folder");
    let target = copy.path().join("copy.db");
    fs::write(&target, "").expect("an empty file is there first");
    old.execute("VACUUM INTO ?1", [target.to_str().expect("UTF-8")]).expect("copied");
    let copy = Connection::open(&target).expect("copy");
    assert_eq!(version(&copy).expect("version"), 1, "the copy knows its schema");
    migrate(&copy, &["", "ALTER TABLE setting ADD COLUMN more TEXT"]).expect("only the second ran");
    assert_eq!(version(&old).expect("version"), 1);
}

#[test]
fn a_key_is_64_hex_characters() {
    assert_eq!(open::parse_key(&"0f".repeat(32)), Some([0x0f; 32]));
    for text in ["", "0f", &"0g".repeat(32), &"ä".repeat(32)] {
        assert_eq!(open::parse_key(text), None, "{text}");
    }
}

const CHILD: &str = "TRUEUP_TEST_READ_ONLY_LEDGER";

/// Run by the next test as a user whom permissions bind.
#[test]
fn child_that_may_only_look() {
    let Some(dir) = role(CHILD) else { return };
    let dir = Path::new(&dir);
    for state in ["closed", "killed", "killed-shm"] {
        let ledger = Ledger::open_read_only(&dir.join(state).join("ledger.db"));
        if state == "killed" {
            // Its journal cannot be read without a file that cannot be made here.
            let error = ledger.expect_err("a journal without its index").to_string();
            assert!(error.contains("was not closed cleanly"), "{error}");
            continue;
        }
        let ledger = ledger.expect(state);
        assert_eq!(ledger.open_steps().expect("read").len(), 1, "{state}");
        assert_eq!(ledger.owned().expect("read").len(), 1, "{state}");
        ledger.key().expect(state);
        ledger.set("a", "b").expect_err(state);
        let error = Ledger::open(&dir.join(state).join("ledger.db")).expect_err(state).to_string();
        assert!(error.contains("may not be opened by this user"), "{error}");
    }
}

#[test]
fn looking_works_in_a_read_only_folder() {
    let dir = tempfile::tempdir().expect("folder");
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).expect("folder");
    let ledger = open(&closed);
    ledger.begin(&[begin("1", "Service/a", Some(owned("Service/a", 1)))]).expect("begin");
    for (name, with_shm) in [("killed", false), ("killed-shm", true)] {
        let copy = dir.path().join(name);
        fs::create_dir(&copy).expect("folder");
        for (path, bytes) in bytes(&closed) {
            if with_shm || !path.to_string_lossy().ends_with("-shm") {
                fs::write(copy.join(path.file_name().expect("name")), bytes).expect("copy");
            }
        }
    }
    drop(ledger);
    assert_eq!(bytes(&closed).len(), 1, "a clean end leaves one file");
    let folders = ["closed", "killed", "killed-shm"].map(|name| dir.path().join(name));
    for folder in &folders {
        bytes(folder).keys().for_each(|path| hand_over(path, 0o400));
        hand_over(folder, 0o500);
    }
    hand_over(dir.path(), 0o500);
    again_unprivileged("adapters::sqlite::tests::child_that_may_only_look", CHILD, dir.path());
    folders.iter().for_each(|folder| hand_over(folder, 0o700));
    hand_over(dir.path(), 0o700);
}

#[test]
fn an_override_is_one_for_each_resource_and_goes_with_it() {
    use crate::model::overriding::{Against, Override};
    let dir = tempfile::tempdir().expect("folder");
    let ledger = open(dir.path());
    let over = |wish, until| Override {
        resource: id("Service/a"),
        wish,
        reason: "disk swap".into(),
        since: Timestamp(5),
        until: Timestamp(until),
    };
    ledger.put_override(&over(Against::Stop, 10)).expect("put");
    ledger.put_override(&over(Against::Start, 20)).expect("put again");
    let looking = Ledger::open_read_only(&dir.path().join("ledger.db")).expect("looked at");
    assert_eq!(looking.overrides().expect("read"), [over(Against::Start, 20)]);
    ledger.drop_overrides(&[id("Service/b")]).expect("another's");
    ledger.begin(&[begin("1", "Service/a", Some(owned("Service/a", 1)))]).expect("begin");
    ledger.finish(&[finish("1", "Service/a", Then::Release(id("Service/a")))]).expect("finish");
    assert_eq!(ledger.overrides().expect("read"), [], "released, and its override with it");
    ledger.put_override(&over(Against::Stop, 10)).expect("put");
    ledger.drop_overrides(&[id("Service/a")]).expect("dropped");
    assert_eq!(ledger.overrides().expect("read"), []);
}
