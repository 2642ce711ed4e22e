//! Every page is read from an index and none by scanning or sorting; and how long that takes with a million objects.

use std::time::Instant;

use super::*;

/// What SQLite would do for a query.
fn plan(index: &SqliteIndex, sql: &str) -> String {
    let explained = format!("EXPLAIN QUERY PLAN {sql}");
    index
        .read(|on| {
            let mut statement = on.prepare(&explained).map_err(broken)?;
            let count = statement.parameter_count();
            let values = rusqlite::params_from_iter(vec![1i64; count]);
            let lines = statement.query_map(values, |line| line.get::<_, String>(3)).map_err(broken)?;
            Ok(lines.collect::<rusqlite::Result<Vec<_>>>().map_err(broken)?.join("; "))
        })
        .expect("a plan")
}

#[test]
fn every_page_comes_from_an_index() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    for (sql, with) in [
        (look::FIND, "SEARCH b USING PRIMARY KEY (key=?)"),
        (look::ENTRIES, "SEARCH b USING PRIMARY KEY (key>?)"),
        (look::ROW, "(name=?)"),
        (look::KEYS_OF, "blob_of_object (object=?)"),
        (look::AT, "object_at (place=? AND name>?)"),
        (look::TROUBLED, "object_troubled (name>?)"),
        (look::NEVER_VERIFIED, "object_verified (place=? AND verified=?)"),
        (look::STALE, "object_verified (place=? AND verified<?)"),
        (spares::SINCE_BEFORE, "spare_since (place=? AND why=? AND since<?)"),
        (moves::ANY_ELSEWHERE, "object_verified (place>?)"),
    ] {
        let plan = plan(&index, sql);
        assert!(plan.contains(with), "{sql}\n{plan}");
        assert!(!plan.contains("SCAN o") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}

/// The median of some runs, in microseconds.
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn micros(runs: usize, mut what: impl FnMut(usize)) -> u128 {
    let mut times: Vec<u128> = (0..runs)
        .map(|run| {
            let begun = Instant::now();
            what(run);
            begun.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement: a million objects; run it with --release --nocapture"]
#[allow(clippy::print_stderr, reason = "it is for whoever measures")]
fn a_million_objects_cost_no_more_to_look_at_than_one() {
    const COUNT: u64 = 1_000_000;
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 0);
    let a = name("a");
    for batch in 0..COUNT / 10_000 {
        let some = (batch * 10_000..(batch + 1) * 10_000).map(|n| (Integrity::of(&object(n).name), object(n)));
        let all = |tx: &rusqlite::Transaction<'_>| {
            for (key, object) in some {
                blobs::add(tx, &key, &object, &a, true, at(1_780_000_000_000))?;
            }
            Ok(())
        };
        index.write(all).expect("adds");
    }
    index.write(|_| Ok(())).expect("writes");
    let checkpoint = Connection::open(dir.path().join("blobs.db")).expect("opens");
    checkpoint.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoints");
    let bytes = std::fs::metadata(dir.path().join("blobs.db")).expect("there").len();
    eprintln!("file: {bytes} bytes, {} per object", bytes / COUNT);
    index.begin(&name("b"), at(1_780_000_000_001)).expect("begins");
    let lease = index.lease().expect("a lease");
    let mut rows = Vec::new();
    let standing = micros(101, |_| drop(index.standing().expect("stands")));
    let page = micros(21, |_| rows = index.elsewhere(&name("b"), None, 256).expect("a page"));
    eprintln!("standing: {standing} us; elsewhere(256): {page} us");
    let flip = micros(41, |_| {
        let rows = index.elsewhere(&name("b"), None, 256).expect("a page");
        let moved: Vec<_> = rows.into_iter().map(|row| (row.object.name, row.place)).collect();
        assert_eq!(index.flip(lease, &name("b"), &moved, at(1_780_000_000_002)), Ok(256));
    });
    eprintln!("elsewhere(256) and flip(256): {flip} us");
    let stale = micros(21, |_| drop(index.stale(&a, at(i64::MAX), 256).expect("a page")));
    let spare = micros(21, |_| drop(index.spares(&a, SpareOf::Moved, at(i64::MAX), 256).expect("a page")));
    let troubled = micros(21, |_| drop(index.troubled(None, 256).expect("a page")));
    let entries = micros(21, |_| drop(index.entries(None, 256).expect("a page")));
    eprintln!(
        "stale(256): {stale} us; spares(256): {spare} us; troubled(none): {troubled} us; entries(256): {entries} us"
    );
    let finish = micros(5, |_| assert!(index.finish(lease, &name("b"), at(3)).is_ok()));
    let find = micros(101, |run| drop(index.find(&Integrity::of(&object(run as u64).name)).expect("finds")));
    let add = micros(101, |run| {
        drop(index.add(&key(run as u64), &object(run as u64 + COUNT), &name("b"), true, at(4)).expect("adds"));
    });
    eprintln!("finish(left): {finish} us; find: {find} us; add: {add} us");
    assert!(standing < 1_000, "standing() took {standing} us");
}
