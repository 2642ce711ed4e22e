//! The blob index: what each verb promises, what two processes do to one another, and that the tallies are always a recount.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::ports::blobs::{Fault, SpareOf, Tally};

/// Queries are answered from indexes, and with a million objects in time.
mod plans;

fn name(text: &str) -> Name {
    Name::new(text).expect(text)
}

fn at(ms: i64) -> Timestamp {
    Timestamp(ms)
}

fn object(n: u64) -> Object {
    Object { name: Sha256::of(&n.to_le_bytes()), size: n }
}

fn key(n: u64) -> Integrity {
    Integrity::of(&Sha256::of(format!("key {n}").as_bytes()))
}

fn open(dir: &Path) -> SqliteIndex {
    SqliteIndex::open(&dir.join("blobs.db")).expect("opens")
}

/// An index with an active backend `a`, and blobs 1 to `count` there.
fn filled(dir: &Path, count: u64) -> SqliteIndex {
    let index = open(dir);
    index.activate(&name("a"), at(1)).expect("activates");
    for n in 1..=count {
        assert_eq!(index.add(&key(n), &object(n), &name("a"), true, at(10)), Ok(Added::Added));
    }
    index
}

fn trouble(fault: Fault, since: i64) -> Trouble {
    Trouble { fault, detail: "it has 2 bytes instead of 3".into(), since: at(since) }
}

fn tally(objects: u64, bytes: u64, troubled: u64, spares: u64) -> Tally {
    Tally { objects, bytes, troubled, spares }
}

fn spares(index: &SqliteIndex, place: &str) -> Vec<(Sha256, u64, SpareOf, i64)> {
    let of = |why| index.spares(&name(place), why, at(i64::MAX), 100).expect("spares");
    let mut spares = [of(SpareOf::Moved), of(SpareOf::Removed), of(SpareOf::Orphan)].concat();
    spares.sort_by_key(|spare| spare.since);
    spares.into_iter().map(|spare| (spare.name, spare.size, spare.why, spare.since.0)).collect()
}

#[test]
fn a_new_index_is_private_and_marked_and_says_so_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = open(dir.path());
    let standing = index.standing().expect("stands");
    assert_eq!(standing.owner.len(), 32, "{}", standing.owner);
    assert_eq!(standing.place(), None);
    let mode = std::fs::metadata(dir.path().join("blobs.db")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(open(dir.path()).standing().expect("stands").owner, standing.owner);
    let error = index.add(&key(1), &object(1), &name("a"), true, at(1)).expect_err("nothing is active");
    assert!(error.to_string().contains("no backend is the active one"), "{error}");
}

#[test]
fn what_is_not_an_index_or_newer_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("blobs.db");
    let other = Connection::open(&path).expect("opens");
    other.execute_batch("CREATE TABLE t (x)").expect("a table");
    let error = SqliteIndex::open(&path).expect_err("somebody else's");
    assert!(error.to_string().contains("not an index of blobs"), "{error}");
    other.execute_batch("DROP TABLE t").expect("gone");
    drop(SqliteIndex::open(&path).expect("an empty database becomes an index"));
    other.pragma_update(None, "user_version", 99).expect("newer");
    let error = SqliteIndex::open(&path).expect_err("newer");
    assert!(error.to_string().contains("newer trueup"), "{error}");
}

#[test]
fn several_may_make_the_same_index_at_once() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().expect("a folder");
        let owners: BTreeSet<String> = std::thread::scope(|scope| {
            let open = || open(dir.path()).standing().expect("stands").owner;
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().expect("opens")).collect()
        });
        assert_eq!(owners.len(), 1);
    }
}

#[test]
fn what_was_added_is_found_by_key_by_object_and_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 5);
    assert_eq!(index.find(&key(9)), Ok(None));
    let entry = index.find(&key(3)).expect("reads").expect("is there");
    let row = Row { object: object(3), place: name("a"), created: at(10), verified: Some(at(10)), trouble: None };
    assert_eq!(entry, Entry { key: key(3), created: at(10), row: row.clone() });
    assert_eq!(index.row(&object(3).name), Ok(Some(row)));
    assert_eq!(index.keys_of(&object(3).name), Ok(vec![key(3)]));
    let mut keys: Vec<Integrity> = (1..=5).map(key).collect();
    keys.sort();
    let mut seen: Vec<Integrity> = Vec::new();
    while let Some(last) = index.entries(seen.last(), 2).expect("a page").last() {
        seen.extend(index.entries(seen.last(), 2).expect("a page").into_iter().map(|entry| entry.key));
        assert_eq!(seen.last(), Some(&last.key));
    }
    assert_eq!(seen, keys);
    let standing = index.standing().expect("stands");
    assert_eq!((standing.blobs, standing.tallies), (5, BTreeMap::from([(name("a"), tally(5, 15, 0, 0))])));
    assert_eq!(index.relies_on(&object(3).name, &name("a")), Ok(true));
    assert_eq!(index.relies_on(&object(3).name, &name("b")), Ok(false));
}

#[test]
fn a_key_that_is_known_keeps_its_first_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    let first = index.find(&key(1)).expect("reads").expect("is there");
    assert_eq!(index.add(&key(1), &object(1), &name("a"), false, at(20)), Ok(Added::Known(first.clone())));
    assert_eq!(index.add(&key(1), &object(2), &name("a"), true, at(20)), Ok(Added::Known(first.clone())));
    assert_eq!(index.find(&key(1)), Ok(Some(first)));
    assert_eq!(index.row(&object(2).name), Ok(None));
}

#[test]
fn the_place_for_new_blobs_is_looked_at_again_when_one_is_added() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    index.begin(&name("b"), at(20)).expect("begins");
    assert_eq!(index.add(&key(2), &object(2), &name("a"), true, at(21)), Ok(Added::PlaceMoved(name("b"))));
    assert_eq!(index.find(&key(2)), Ok(None));
    assert_eq!(index.add(&key(2), &object(2), &name("b"), true, at(22)), Ok(Added::Added));
    let standing = index.standing().expect("stands");
    assert_eq!(standing.migration.expect("runs").written, 1);
    assert_eq!(standing.tallies[&name("b")], tally(1, 2, 0, 0));
}

#[test]
fn two_keys_share_one_object_until_both_are_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    assert_eq!(index.add(&key(2), &object(1), &name("a"), true, at(20)), Ok(Added::Added));
    let mut keys = vec![key(1), key(2)];
    keys.sort();
    assert_eq!(index.keys_of(&object(1).name), Ok(keys));
    assert_eq!(index.remove(&key(1), at(30)).expect("removes").expect("was there").key, key(1));
    assert_eq!(spares(&index, "a"), []);
    assert_eq!(index.standing().expect("stands").tallies[&name("a")], tally(1, 1, 0, 0));
    assert!(index.remove(&key(2), at(31)).expect("removes").is_some());
    assert_eq!(index.remove(&key(2), at(32)), Ok(None));
    assert_eq!(spares(&index, "a"), [(object(1).name, 1, SpareOf::Removed, 31)]);
    assert_eq!(index.relies_on(&object(1).name, &name("a")), Ok(false));
    // Put again: its bytes are relied on again.
    assert_eq!(index.add(&key(1), &object(1), &name("a"), true, at(33)), Ok(Added::Added));
    assert_eq!(spares(&index, "a"), []);
}

#[test]
fn the_first_backend_is_made_the_active_one_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = open(dir.path());
    index.activate(&name("a"), at(5)).expect("activates");
    index.activate(&name("b"), at(6)).expect("does nothing");
    let standing = index.standing().expect("stands");
    assert_eq!((standing.active, standing.settled, standing.target), (Some(name("a")), Some(at(5)), None));
}

#[test]
fn a_migration_flips_what_is_where_it_was_taken_from_and_ends_in_one_move() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 3);
    index.begin(&name("b"), at(20)).expect("begins");
    index.begin(&name("b"), at(21)).expect("does nothing");
    let lease = index.lease().expect("a lease");
    let page = index.elsewhere(&name("b"), None, 10).expect("a page");
    let mut names: Vec<Sha256> = (1..=3).map(|n| object(n).name).collect();
    names.sort();
    assert_eq!(page.iter().map(|row| row.object.name).collect::<Vec<_>>(), names);
    assert_eq!(index.elsewhere(&name("b"), Some(&names[0]), 1).expect("a page")[0].object.name, names[1]);
    let some = [(object(1).name, name("a")), (object(2).name, name("a")), (object(3).name, name("c"))];
    assert_eq!(index.flip(lease, &name("b"), &some, at(22)), Ok(2), "the third is not at c");
    assert_eq!(index.flip(lease, &name("b"), &some[..2], at(23)), Ok(0), "they are there already");
    assert_eq!(index.finish(lease, &name("b"), at(23)), Ok(Finish::Left(1)));
    let row = index.row(&object(1).name).expect("reads").expect("is there");
    assert_eq!((row.place, row.verified), (name("b"), Some(at(22))));
    let moved: BTreeSet<_> = spares(&index, "a").into_iter().collect();
    let gone = |n| (object(n).name, n, SpareOf::Moved, 22);
    assert_eq!(moved, BTreeSet::from([gone(1), gone(2)]));
    assert_eq!(spares(&index, "b"), [(object(3).name, 3, SpareOf::Removed, 22)]);
    assert_eq!(index.flip(lease, &name("b"), &[(object(3).name, name("a"))], at(24)), Ok(1));
    assert_eq!(spares(&index, "b"), []);
    let running = index.standing().expect("stands").migration.expect("runs");
    assert_eq!((running.moved, running.moved_bytes, running.last_flip), (3, 6, Some(at(24))));
    assert_eq!(index.finish(lease, &name("b"), at(25)), Ok(Finish::Done));
    let standing = index.standing().expect("stands");
    assert_eq!((standing.active, standing.target, standing.migration), (Some(name("b")), None, None));
    assert_eq!(standing.settled, Some(at(25)));
    let over = &index.migrations(9).expect("reads")[0];
    assert_eq!((&over.from, &over.to, over.begun, over.ended), (&name("a"), &name("b"), at(20), Some(at(25))));
    assert_eq!((over.outcome.as_str(), over.moved), ("done", 3));
    assert_eq!(index.finish(lease, &name("b"), at(26)), Err(IndexError::Fenced), "there is no migration");
}

#[test]
fn an_older_lease_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    let other = open(dir.path());
    index.begin(&name("b"), at(20)).expect("begins");
    let old = index.lease().expect("a lease");
    let new = other.lease().expect("a lease");
    assert!(new > old);
    let moved = [(object(1).name, name("a"))];
    assert_eq!(index.flip(old, &name("b"), &moved, at(21)), Err(IndexError::Fenced));
    assert_eq!(index.finish(old, &name("b"), at(21)), Err(IndexError::Fenced));
    assert_eq!(index.abandon(old, &BTreeSet::from([key(1)]), at(21)), Err(IndexError::Fenced));
    let wrong = trouble(Fault::Corrupt, 21);
    assert_eq!(index.trouble(old, &object(1).name, &name("a"), &wrong), Err(IndexError::Fenced));
    assert_eq!(index.verified(old, &moved, at(21)), Err(IndexError::Fenced));
    assert_eq!(index.listed(old, &name("a"), &[object(9)], at(21)), Err(IndexError::Fenced));
    assert_eq!(index.forget_spares(old, &name("a"), &[]), Err(IndexError::Fenced));
    assert_eq!(other.row(&object(1).name).expect("reads").expect("there").place, name("a"));
    assert_eq!(index.flip(new, &name("b"), &moved, at(22)), Ok(1));
}

#[test]
fn a_migration_that_turns_fences_the_old_target_and_goes_into_the_history() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 2);
    index.begin(&name("b"), at(20)).expect("begins");
    let lease = index.lease().expect("a lease");
    assert_eq!(index.flip(lease, &name("b"), &[(object(1).name, name("a"))], at(21)), Ok(1));
    index.begin(&name("c"), at(22)).expect("turns");
    assert_eq!(index.flip(lease, &name("b"), &[(object(2).name, name("a"))], at(23)), Err(IndexError::Fenced));
    assert_eq!(index.finish(lease, &name("b"), at(23)), Err(IndexError::Fenced));
    let lease = index.lease().expect("a lease");
    assert_eq!(index.flip(lease, &name("b"), &[(object(2).name, name("a"))], at(23)), Err(IndexError::Fenced));
    assert_eq!(index.elsewhere(&name("c"), None, 9).expect("a page").len(), 2, "from a and from b");
    // And back to where it came from: what went to b comes back, and nothing of what stayed is touched.
    index.begin(&name("a"), at(24)).expect("turns back");
    let lease = index.lease().expect("a lease");
    let left = index.elsewhere(&name("a"), None, 9).expect("a page");
    assert_eq!(left.iter().map(|row| row.object).collect::<Vec<_>>(), [object(1)]);
    assert_eq!(index.finish(lease, &name("a"), at(25)), Ok(Finish::Left(1)));
    assert_eq!(index.flip(lease, &name("a"), &[(object(1).name, name("b"))], at(26)), Ok(1));
    assert_eq!(index.finish(lease, &name("a"), at(27)), Ok(Finish::Done));
    let standing = index.standing().expect("stands");
    assert_eq!((standing.active, standing.target), (Some(name("a")), None));
    let history = index.migrations(9).expect("reads");
    let told: Vec<_> = history.iter().map(|m| (m.from.as_str(), m.to.as_str(), m.outcome.as_str())).collect();
    assert_eq!(told, [("c", "a", "done"), ("a", "c", "superseded"), ("a", "b", "superseded")]);
    index.begin(&name("a"), at(28)).expect("does nothing");
    assert_eq!(index.migrations(9).expect("reads").len(), 3);
}

#[test]
fn what_was_proved_before_a_migration_turned_away_and_back_counts_no_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    index.begin(&name("b"), at(20)).expect("begins");
    let lease = index.lease().expect("a lease");
    // By now its copy at b was proved. The blob is removed, put there, and removed with these bytes; then put at a once more.
    index.remove(&key(1), at(21)).expect("removes");
    assert_eq!(index.add(&key(1), &object(1), &name("b"), true, at(22)), Ok(Added::Added));
    index.remove(&key(1), at(23)).expect("removes");
    index.begin(&name("a"), at(24)).expect("turns back");
    assert_eq!(index.add(&key(1), &object(1), &name("a"), true, at(25)), Ok(Added::Added));
    index.begin(&name("b"), at(26)).expect("turns again");
    let moved = [(object(1).name, name("a"))];
    assert_eq!(index.flip(lease, &name("b"), &moved, at(27)), Err(IndexError::Fenced));
    assert_eq!(index.row(&object(1).name).expect("reads").expect("is there").place, name("a"));
}

#[test]
fn what_was_removed_while_it_moved_becomes_a_spare_of_the_target() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 1);
    index.begin(&name("b"), at(20)).expect("begins");
    let lease = index.lease().expect("a lease");
    index.remove(&key(1), at(21)).expect("removes");
    assert_eq!(index.flip(lease, &name("b"), &[(object(1).name, name("a"))], at(22)), Ok(0));
    assert_eq!(spares(&index, "b"), [(object(1).name, 1, SpareOf::Removed, 22)]);
    assert_eq!(index.row(&object(1).name), Ok(None));
    assert_eq!(index.finish(lease, &name("b"), at(23)), Ok(Finish::Done));
}

#[test]
fn a_finding_holds_the_end_up_until_it_is_over_or_given_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 3);
    index.begin(&name("b"), at(20)).expect("begins");
    let lease = index.lease().expect("a lease");
    let (one, two) = (object(1).name, object(2).name);
    assert_eq!(index.trouble(lease, &one, &name("b"), &trouble(Fault::Missing, 21)), Ok(false), "it is not there");
    assert_eq!(index.trouble(lease, &one, &name("a"), &trouble(Fault::Missing, 21)), Ok(true));
    assert_eq!(index.trouble(lease, &two, &name("a"), &trouble(Fault::Corrupt, 22)), Ok(true));
    let rows = index.troubled(None, 9).expect("a page");
    assert_eq!(rows.iter().map(|row| row.object.name).collect::<BTreeSet<_>>(), BTreeSet::from([one, two]));
    assert_eq!(index.troubled(Some(&rows[1].object.name), 9), Ok(vec![]));
    assert_eq!(index.elsewhere(&name("b"), None, 9).expect("a page").len(), 1);
    assert_eq!(index.standing().expect("stands").tallies[&name("a")], tally(3, 6, 2, 0));
    assert_eq!(index.flip(lease, &name("b"), &[(object(3).name, name("a"))], at(23)), Ok(1));
    assert_eq!(index.finish(lease, &name("b"), at(23)), Ok(Finish::Left(2)));
    // One was found right after all; of the other, its blob is given up, and one that has no finding is not.
    index.verified(lease, &[(two, name("a"))], at(24)).expect("verified");
    assert_eq!(index.row(&two).expect("reads").expect("there").trouble, None);
    let gone = index.abandon(lease, &BTreeSet::from([key(1), key(2), key(7)]), at(25)).expect("gives up");
    assert_eq!(gone.iter().map(|entry| &entry.key).collect::<Vec<_>>(), [&key(1)]);
    assert_eq!(index.find(&key(1)), Ok(None));
    assert_eq!(index.standing().expect("stands").migration.expect("runs").abandoned, 1);
    let kept: (String, String) = index.read(|on| Ok(one_row(on, "SELECT key, detail FROM abandoned"))).expect("reads");
    assert_eq!(kept, (key(1).to_string(), "it has 2 bytes instead of 3".into()));
    assert!(spares(&index, "a").contains(&(one, 1, SpareOf::Orphan, 25)), "what is left of it is kept");
    assert_eq!(index.flip(lease, &name("b"), &[(two, name("a"))], at(26)), Ok(1));
    assert_eq!(index.finish(lease, &name("b"), at(27)), Ok(Finish::Done));
}

fn one_row(on: &Connection, sql: &str) -> (String, String) {
    on.query_row(sql, [], |line| Ok((line.get(0)?, line.get(1)?))).expect("one row")
}

#[test]
fn bytes_that_are_put_again_end_a_finding() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 2);
    let lease = index.lease().expect("a lease");
    let lost = object(1);
    index.trouble(lease, &lost.name, &name("a"), &trouble(Fault::Missing, 21)).expect("written");
    let Ok(Added::Known(healed)) = index.add(&key(1), &lost, &name("a"), true, at(22)) else { panic!("is known") };
    assert_eq!((healed.row.trouble, healed.row.verified), (None, Some(at(22))));
    // During a migration they lie at the target; under another key as well.
    index.begin(&name("b"), at(23)).expect("begins");
    let lease = index.lease().expect("a lease");
    index.trouble(lease, &lost.name, &name("a"), &trouble(Fault::Corrupt, 24)).expect("written");
    assert_eq!(index.add(&key(3), &lost, &name("a"), true, at(25)), Ok(Added::PlaceMoved(name("b"))));
    assert_eq!(index.add(&key(3), &lost, &name("b"), true, at(25)), Ok(Added::Added));
    let row = index.row(&lost.name).expect("reads").expect("there");
    assert_eq!((row.place, row.trouble), (name("b"), None));
    assert_eq!(spares(&index, "a"), [(lost.name, 1, SpareOf::Moved, 25)]);
    // Without a finding the row stays where it is: the bytes there were verified.
    assert_eq!(index.add(&key(4), &object(2), &name("b"), true, at(26)), Ok(Added::Added));
    assert_eq!(index.row(&object(2).name).expect("reads").expect("there").place, name("a"));
}

#[test]
fn a_listing_finds_orphans_once_and_their_time_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 2);
    let lease = index.lease().expect("a lease");
    index.remove(&key(2), at(20)).expect("removes");
    let found = [object(1), object(2), object(3)];
    assert_eq!(index.listed(lease, &name("a"), &found, at(30)), Ok(1));
    assert_eq!(index.listed(lease, &name("a"), &found, at(40)), Ok(0));
    let expected = [(object(2).name, 2, SpareOf::Removed, 20), (object(3).name, 3, SpareOf::Orphan, 30)];
    assert_eq!(spares(&index, "a"), expected);
    assert_eq!(index.listed(lease, &name("b"), &found[..1], at(41)), Ok(1), "the index relies on a, and not on b");
    assert_eq!(index.spares(&name("a"), SpareOf::Orphan, at(30), 9).expect("a page").len(), 0, "not before its time");
    assert_eq!(index.spares(&name("a"), SpareOf::Removed, at(21), 1).expect("a page").len(), 1);
    assert_eq!(index.standing().expect("stands").tallies[&name("a")], tally(1, 1, 0, 2));
    // Referenced again, it is no spare; unreferenced again, its time starts anew.
    index.add(&key(3), &object(3), &name("a"), true, at(50)).expect("adds");
    assert_eq!(spares(&index, "a").len(), 1);
    index.remove(&key(3), at(60)).expect("removes");
    assert_eq!(spares(&index, "a")[1], (object(3).name, 3, SpareOf::Removed, 60));
    index.forget_spares(lease, &name("a"), &[object(2).name, object(3).name]).expect("forgets");
    assert_eq!(spares(&index, "a"), []);
}

#[test]
fn what_was_verified_longest_ago_comes_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 2);
    index.add(&key(3), &object(3), &name("a"), false, at(10)).expect("adds");
    let lease = index.lease().expect("a lease");
    index.verified(lease, &[(object(1).name, name("a")), (object(2).name, name("x"))], at(90)).expect("verified");
    let stale = |before, limit| {
        let rows = index.stale(&name("a"), at(before), limit).expect("a page");
        rows.into_iter().map(|row| row.object.size).collect::<Vec<_>>()
    };
    assert_eq!(stale(100, 9), [3, 2, 1]);
    assert_eq!(stale(100, 2), [3, 2]);
    assert_eq!(stale(90, 9), [3, 2]);
    assert_eq!(stale(10, 9), [3]);
    assert_eq!(index.stale(&name("b"), at(100), 9), Ok(vec![]));
}

#[test]
fn notes_and_fallbacks_are_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = open(dir.path());
    assert_eq!(index.note("listed a"), Ok(None));
    index.set_note("listed a", "1").expect("notes");
    index.set_note("listed a", "2").expect("notes");
    index.fell_back().expect("counts");
    let other = open(dir.path());
    assert_eq!(other.note("listed a"), Ok(Some("2".into())));
    assert_eq!(other.standing().expect("stands").fallbacks, 1);
}

#[test]
fn a_change_that_dies_in_the_middle_was_never_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 2);
    let before = index.standing().expect("stands");
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        index.write(|tx| -> Result<(), IndexError> {
            blobs::remove(tx, &key(1), at(50))?;
            panic!("power is gone")
        })
    }));
    assert!(died.is_err());
    assert_eq!(index.standing().expect("stands"), before);
    assert!(index.remove(&key(1), at(51)).expect("goes on").is_some());
}

#[test]
fn who_reads_does_not_wait_for_who_writes() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 2);
    let other = open(dir.path());
    index
        .write(|tx| {
            blobs::remove(tx, &key(1), at(50))?;
            // Seen from this process and from another one: the state before, at once.
            assert!(index.find(&key(1)).expect("reads").is_some());
            assert_eq!(other.standing().expect("stands").blobs, 2);
            Ok(())
        })
        .expect("writes");
    assert_eq!(other.standing().expect("stands").blobs, 1);
}

#[test]
fn many_writers_wait_for_one_another_and_lose_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let index = filled(dir.path(), 0);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let own = open(dir);
                for n in 0..25 {
                    let n = 1 + writer * 25 + n;
                    assert_eq!(own.add(&key(n), &object(n), &name("a"), true, at(10)), Ok(Added::Added));
                }
            });
        }
    });
    let standing = index.standing().expect("stands");
    assert_eq!((standing.blobs, standing.tallies[&name("a")]), (100, tally(100, 5050, 0, 0)));
}

/// What a random life does to an index.
#[derive(Clone, Debug)]
enum Verb {
    Add(u64, u64, u8),
    Remove(u64),
    Begin(u8),
    Flip(u64, u8, u8),
    Finish(u8),
    Trouble(u64, u8),
    Verified(u64, u8),
    Abandon(u64),
    Listed(u64, u8),
    Forget(u64, u8),
}

fn verb() -> impl Strategy<Value = Verb> {
    let (n, p) = (1u64..7, 0u8..3);
    prop_oneof![
        4 => (n.clone(), n.clone(), p.clone()).prop_map(|(k, n, p)| Verb::Add(k, n, p)),
        2 => n.clone().prop_map(Verb::Remove),
        1 => p.clone().prop_map(Verb::Begin),
        4 => (n.clone(), p.clone(), p.clone()).prop_map(|(n, p, q)| Verb::Flip(n, p, q)),
        1 => p.clone().prop_map(Verb::Finish),
        2 => (n.clone(), p.clone()).prop_map(|(n, p)| Verb::Trouble(n, p)),
        1 => (n.clone(), p.clone()).prop_map(|(n, p)| Verb::Verified(n, p)),
        1 => n.clone().prop_map(Verb::Abandon),
        2 => (n.clone(), p.clone()).prop_map(|(n, p)| Verb::Listed(n, p)),
        1 => (n, p).prop_map(|(n, p)| Verb::Forget(n, p)),
    ]
}

fn place(p: u8) -> Name {
    name(["a", "b", "c"][usize::from(p)])
}

fn act(index: &SqliteIndex, lease: Lease, verb: &Verb, now: Timestamp) -> Result<(), IndexError> {
    match verb {
        Verb::Add(k, n, p) => index.add(&key(*k), &object(*n), &place(*p), n % 2 == 0, now).map(drop),
        Verb::Remove(k) => index.remove(&key(*k), now).map(drop),
        Verb::Begin(p) => index.begin(&place(*p), now),
        Verb::Flip(n, p, q) => index.flip(lease, &place(*q), &[(object(*n).name, place(*p))], now).map(drop),
        Verb::Finish(p) => index.finish(lease, &place(*p), now).map(drop),
        Verb::Trouble(n, p) => {
            index.trouble(lease, &object(*n).name, &place(*p), &trouble(Fault::Missing, now.0)).map(drop)
        }
        Verb::Verified(n, p) => index.verified(lease, &[(object(*n).name, place(*p))], now),
        Verb::Abandon(k) => index.abandon(lease, &BTreeSet::from([key(*k)]), now).map(drop),
        Verb::Listed(n, p) => index.listed(lease, &place(*p), &[object(*n), object(n + 1)], now).map(drop),
        Verb::Forget(n, p) => index.forget_spares(lease, &place(*p), &[object(*n).name]),
    }
}

/// Each of these must find nothing.
const CONTRADICTIONS: [(&str, &str); 5] = [
    (
        "a tally is not a recount",
        "SELECT 1 FROM place p WHERE (objects, bytes, troubled, spares) IS NOT
            (SELECT count(*), coalesce(sum(size), 0), count(fault),
            (SELECT count(*) FROM spare s WHERE s.place = p.id) FROM object o WHERE o.place = p.id)",
    ),
    ("the blobs are counted wrongly", "SELECT 1 FROM book WHERE blobs <> (SELECT count(*) FROM blob)"),
    ("an object without a blob", "SELECT 1 FROM object WHERE id NOT IN (SELECT object FROM blob)"),
    ("a spare that a row relies on", "SELECT 1 FROM spare s JOIN object o ON o.name = s.name AND o.place = s.place"),
    (
        "after a migration something is elsewhere",
        "SELECT 1 FROM book JOIN object o ON book.target IS NULL AND o.place <> book.active",
    ),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_tallies_are_a_recount_after_any_life(verbs in proptest::collection::vec(verb(), 1..60)) {
        let dir = tempfile::tempdir().expect("a folder");
        let index = filled(dir.path(), 2);
        for (step, verb) in verbs.iter().enumerate() {
            let lease = index.lease().expect("a lease");
            let done = act(&index, lease, verb, at(100 + number(step)));
            prop_assert!(matches!(done, Ok(()) | Err(IndexError::Fenced)), "{verb:?}: {done:?}");
            for (what, sql) in CONTRADICTIONS {
                let found = index.read(|on| one(on, sql, [], |line| line.get::<_, i64>(0)));
                prop_assert_eq!(found, Ok(None), "{} after {:?}", what, verb);
            }
        }
    }
}
