//! What the storage promises, case by case, with real folders and databases, the real index and the real locks.
//!
//! The cases of the reference contract, and where each is shown. Its manifests and their history do not exist here: what protects an
//! object is that a key of the index leads to it.
//!
//! | case | here |
//! |---|---|
//! | BS-1, BS-2 (resolve by id, helpful error), MG-14, D24 | `a_target_that_is_not_declared_is_a_visible_wait_and_goes_on_when_it_is` |
//! | BS-3 to BS-5 (row's place first, fallback, none), MG-12 | `storage::tests`, and after every step of `storage_sim` |
//! | GC-1, GC-2, GC-12, D19 (referenced never; grace from the last reference) | `an_orphan_is_kept_for_its_grace_and_what_is_referenced_for_ever` |
//! | GC-3, GC-4, GC-7, GC-8 (past grace, within, bytes told, second pass zero), MG-4 | `old_copies_go_after_their_grace_and_are_counted_once` |
//! | GC-5, GC-10 (busy, locked) | `nothing_is_removed_while_somebody_puts`, `while_another_process_moves_nothing_is_touched` |
//! | GC-6 (routed to the row's backend) | `old_copies_go_after_their_grace_and_are_counted_once` |
//! | GC-9 (one failure does not stop the rest) | `one_old_copy_that_cannot_be_removed_does_not_keep_the_others` |
//! | GC-11 (lock released whatever happens) | `while_another_process_moves_nothing_is_touched`, `storage_sim` (every call fails once) |
//! | MG-1 | `a_migration_copies_verifies_flips_rows_and_then_the_active_backend_once` |
//! | MG-2, MG-7, MG-11, D15, D26 | `storage_sim` (killed before and after every call), `a_migration_goes_on_where_it_was_ended` |
//! | MG-3, MG-10, D22 (wrong bytes at the target) | `what_lies_wrong_at_the_target_is_replaced_and_never_trusted` |
//! | MG-5 (same target), MG-8 (idle asks for no lock) | `a_migration_to_where_everything_is_does_nothing`, `an_idle_mover_holds_no_lock_and_starts_no_thread_unasked` |
//! | MG-6, D14 (missing or other source bytes) | `what_is_missing_or_rotten_is_named_and_everything_else_is_moved` |
//! | MG-9 (lock elsewhere: deferred, and retried) | `while_another_process_moves_nothing_is_touched` |
//! | MG-13, D23 (a put racing a migration) | `a_blob_that_is_put_while_the_target_changes_lands_at_the_new_place`, `storage_sim` |
//! | a disk that is not mounted | `a_disk_that_is_not_mounted_is_refused_and_nothing_counts_as_missing` |
//! | D25 (no way back) | `turning_back_half_way_takes_back_what_was_moved` |

use std::collections::BTreeSet;
use std::fs;

use trueup::model::unit::Millis;
use trueup::ports::blobs::{Added, Put};
use trueup::ports::storage::{Finding, Health, Motion, Settings, Status, Storage};
use trueup::storage::mover::Mover;

use crate::storage_stage::{Stage, has, name, spoil, until};

const HOUR: i64 = 3_600_000;

fn hours(count: u64) -> Option<Millis> {
    Some(Millis(count * HOUR.unsigned_abs()))
}

/// A stage with so many blobs at `a`.
fn filled(count: u32) -> (Stage, Vec<trueup::ports::blobs::Object>) {
    let stage = Stage::new();
    stage.index.activate(&name("a"), trueup::model::time::Timestamp(1)).expect("activates");
    let objects = (1..=count).map(|n| stage.put(&n.to_le_bytes().repeat(n as usize * 40)).1).collect();
    (stage, objects)
}

/// What lies at `a` and nobody relies on; a place with nothing has no tally.
fn spares(status: &Status) -> u64 {
    status.standing.tallies.get(&name("a")).map_or(0, |tally| tally.spares)
}

fn migrated(mover: &Mover, to: &str) {
    until(mover, "the migration", |status| {
        status.standing.active == Some(name(to)) && status.standing.target.is_none()
    });
}

#[test]
fn a_migration_copies_verifies_flips_rows_and_then_the_active_backend_once() {
    for (from, to) in [("a", "b"), ("qa", "b"), ("a", "qb")] {
        let stage = Stage::new();
        let mover = stage.mover();
        mover.activate(&name(from)).expect("activates");
        let blobs: Vec<_> = (0..300_u32).map(|n| stage.put(&n.to_le_bytes().repeat(1 + n as usize % 900))).collect();
        mover.tell(&stage.intent(&[from, to], Settings::default()));
        mover.migrate(&name(to)).expect("begins");
        let status = until(&mover, "the migration", |status| status.standing.active == Some(name(to)));
        assert_eq!(status.standing.tallies[&name(to)].objects, 300);
        assert_eq!(status.standing.target, None);
        let target = stage.backend(to);
        assert!(blobs.iter().all(|(_, object)| has(target.as_ref(), object)));
        let told = mover.told().expect("told");
        let ends = told.iter().filter(|told| matches!(told.what, Finding::Migrated { objects: 300, .. })).count();
        assert_eq!(ends, 1, "{told:?}");
        assert!(!mover.told().expect("told").iter().any(|told| matches!(told.what, Finding::Migrated { .. })));
        until(&mover, "rest", |status| status.motion == Motion::Idle);
        // A later process does not tell it again either.
        drop(mover);
        assert_eq!(stage.mover().told().expect("told"), []);
    }
}

#[test]
fn an_idle_mover_holds_no_lock_and_starts_no_thread_unasked() {
    let (stage, _) = filled(2);
    let mover = stage.mover();
    assert_eq!(mover.status().expect("stands").motion, Motion::Asleep);
    mover.tell(&stage.intent(&["a"], Settings::default()));
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    assert!(stage.latches.moving().expect("opens").is_some(), "the lock is free");
}

#[test]
fn a_migration_to_where_everything_is_does_nothing() {
    let (stage, _) = filled(2);
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a"], Settings::default()));
    mover.migrate(&name("a")).expect("is no mistake");
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    assert_eq!(stage.index.migrations(9).expect("a list"), []);
}

#[test]
fn a_target_that_is_not_declared_is_a_visible_wait_and_goes_on_when_it_is() {
    let (stage, _) = filled(3);
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    let waits = |why: &str| why.contains("'b' is not declared");
    until(&mover, "the wait", |status| matches!(&status.motion, Motion::Waiting { why, .. } if waits(why)));
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    migrated(&mover, "b");
}

#[test]
fn a_backend_of_another_storage_is_refused_and_nothing_is_written_there() {
    let (stage, _) = filled(3);
    stage.backend("b").claim("somebody else").expect("claims");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    let refused =
        |health: Option<&Health>| matches!(health, Some(Health::Refused(why)) if why.contains("somebody else"));
    until(&mover, "the refusal", |status| {
        refused(status.health.get(&name("b"))) && matches!(status.motion, Motion::Waiting { .. })
    });
    assert_eq!(stage.backend("b").list(None, 9).expect("lists"), []);
}

#[test]
fn a_disk_that_is_not_mounted_is_refused_and_nothing_counts_as_missing() {
    let (stage, objects) = filled(3);
    let aside = stage.path("aside");
    fs::rename(stage.path("a"), &aside).expect("unmounts");
    fs::create_dir(stage.path("a")).expect("the empty folder that the disk is mounted on");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    let refused = |health: Option<&Health>| matches!(health, Some(Health::Refused(why)) if why.contains("mounted"));
    let status = until(&mover, "the refusal", |status| refused(status.health.get(&name("a"))));
    assert_eq!(status.standing.troubled(), 0);
    until(&mover, "the wait", |status| matches!(status.motion, Motion::Waiting { .. }));
    assert_eq!(mover.status().expect("stands").standing.troubled(), 0, "nothing is lost, only not there");
    drop(mover);
    fs::remove_dir_all(stage.path("a")).expect("unmounts");
    fs::rename(aside, stage.path("a")).expect("mounts");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    migrated(&mover, "b");
    assert!(objects.iter().all(|object| has(stage.backend("b").as_ref(), object)));
}

#[test]
fn what_lies_on_a_disk_that_is_gone_for_good_can_be_given_up_by_name() {
    let (stage, objects) = filled(3);
    let key = |object: &trueup::ports::blobs::Object| trueup::model::blob::Integrity::of(&object.name);
    fs::remove_dir_all(stage.path("a")).expect("the disk dies");
    let mover = stage.mover();
    let given_up = Settings { abandon: objects[..2].iter().map(key).collect(), ..Settings::default() };
    mover.tell(&stage.intent(&["a", "b"], given_up));
    mover.migrate(&name("b")).expect("begins");
    until(&mover, "two are given up", |status| status.standing.blobs == 1);
    assert!(mover.status().expect("stands").standing.target.is_some(), "the third was not given up");
    mover.tell(
        &stage.intent(&["a", "b"], Settings { abandon: objects.iter().map(key).collect(), ..Settings::default() }),
    );
    migrated(&mover, "b");
    assert_eq!(mover.status().expect("stands").standing.blobs, 0);
}

#[test]
fn what_lies_wrong_at_the_target_is_replaced_and_never_trusted() {
    let (stage, objects) = filled(6);
    let target = stage.backend("b");
    for object in &objects[..3] {
        stage
            .backend("a")
            .open(&object.name, None)
            .and_then(|mut body| target.put(object, &mut body, Put::IfAbsent))
            .expect("puts");
    }
    target.settle(&objects[..3].iter().map(|object| object.name).collect::<Vec<_>>()).expect("settles");
    // One has other bytes, one is cut off, one is right.
    spoil(&stage.file("b", &objects[0]));
    fs::write(stage.file("b", &objects[1]), b"").expect("writes");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    assert!(objects.iter().all(|object| has(target.as_ref(), object)));
}

#[test]
fn what_is_missing_or_rotten_is_named_and_everything_else_is_moved() {
    let (stage, objects) = filled(8);
    spoil(&stage.file("a", &objects[0]));
    fs::remove_file(stage.file("a", &objects[1])).expect("removes");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    let status = until(&mover, "the wait", |status| matches!(status.motion, Motion::Waiting { .. }));
    assert_eq!(status.standing.active, Some(name("a")));
    assert_eq!(status.standing.tallies[&name("b")].objects, 6);
    let why: Vec<&str> = status.troubled.iter().map(|(_, _, why)| why.split(':').next().unwrap_or_default()).collect();
    assert_eq!(why.iter().collect::<BTreeSet<_>>(), [&"corrupt", &"missing"].into(), "{status:?}");
    assert!(!has(stage.backend("b").as_ref(), &objects[0]), "bad bytes go nowhere");
    // The one is put again, and the other given up.
    stage.put(&1_u32.to_le_bytes().repeat(40));
    let key = stage.index.keys_of(&objects[1].name).expect("keys")[0].clone();
    let settings = Settings { abandon: [key.clone()].into(), ..Settings::default() };
    mover.tell(&stage.intent(&["a", "b"], settings));
    migrated(&mover, "b");
    assert!(mover.told().expect("told").iter().any(|told| told.what == Finding::Abandoned { key: key.clone() }));
    assert_eq!(stage.index.find(&key).expect("looks"), None);
}

#[test]
fn a_bad_source_is_repaired_from_an_old_copy_elsewhere() {
    let (stage, objects) = filled(4);
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b", "c"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    spoil(&stage.file("b", &objects[2]));
    mover.migrate(&name("c")).expect("begins");
    migrated(&mover, "c");
    assert!(has(stage.backend("c").as_ref(), &objects[2]));
    let told = mover.told().expect("told");
    let repaired = |what: &Finding| matches!(what, Finding::Repaired { from, .. } if *from == name("a"));
    assert!(told.iter().any(|told| repaired(&told.what)), "{told:?}");
}

#[test]
fn turning_back_half_way_takes_back_what_was_moved() {
    let (stage, objects) = filled(6);
    fs::remove_file(stage.file("a", &objects[5])).expect("removes");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    until(&mover, "the wait", |status| matches!(status.motion, Motion::Waiting { .. }));
    mover.migrate(&name("a")).expect("turns back");
    let status = until(&mover, "the way back", |status| status.standing.target.is_none());
    assert_eq!(status.standing.tallies[&name("a")].objects, 6);
    let outcomes: Vec<_> = stage.index.migrations(9).expect("a list").into_iter().map(|m| m.outcome).collect();
    assert_eq!(outcomes, ["done", "superseded"]);
}

#[test]
fn a_migration_goes_on_where_it_was_ended() {
    let (stage, objects) = filled(200);
    let settings = Settings { bandwidth: Some(trueup::model::unit::Bytes(400_000)), ..Settings::default() };
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], settings.clone()));
    mover.migrate(&name("b")).expect("begins");
    until(&mover, "the beginning", |status| status.motion == Motion::Moving);
    let begun = trueup::ports::clock::Clock::now(stage.clock.as_ref());
    drop(mover);
    let took = trueup::ports::clock::Clock::now(stage.clock.as_ref()) - begun;
    assert!(took < Millis(3_000), "it ends soon, and not with the copy: {took}");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], settings.clone()));
    // Without the limit it goes on at once.
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    migrated(&mover, "b");
    assert!(objects.iter().all(|object| has(stage.backend("b").as_ref(), object)));
}

#[test]
fn while_another_process_moves_nothing_is_touched() {
    let (stage, _) = filled(3);
    let held = stage.latches.moving().expect("opens").expect("is free");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    until(&mover, "the other process", |status| status.motion == Motion::Elsewhere);
    assert_eq!(stage.index.standing().expect("stands").tallies[&name("a")].objects, 3);
    drop(held);
    migrated(&mover, "b");
}

#[test]
fn a_suspended_storage_moves_nothing() {
    let (stage, _) = filled(3);
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings { suspended: true, ..Settings::default() }));
    mover.migrate(&name("b")).expect("begins");
    until(&mover, "the pause", |status| status.motion == Motion::Suspended);
    assert_eq!(stage.index.standing().expect("stands").tallies[&name("a")].objects, 3);
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    migrated(&mover, "b");
}

#[test]
fn a_blob_that_is_put_while_the_target_changes_lands_at_the_new_place() {
    let (stage, _) = filled(1);
    let bytes = b"late";
    let object = trueup::ports::blobs::Object { name: trueup::model::blob::Sha256::of(bytes), size: 4 };
    let key = trueup::model::blob::Integrity::of(&object.name);
    // Its writer has looked before the migration began.
    let place = stage.index.standing().expect("stands").place().cloned().expect("a place");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    let added = stage.index.add(&key, &object, &place, true, trueup::model::time::Timestamp(9)).expect("answers");
    assert_eq!(added, Added::PlaceMoved(name("b")));
    stage.put(bytes);
    assert_eq!(stage.index.find(&key).expect("looks").map(|entry| entry.row.place), Some(name("b")));
}

#[test]
fn old_copies_go_after_their_grace_and_are_counted_once() {
    let (stage, objects) = filled(40);
    let settings = Settings { gc_source: hours(3), ..Settings::default() };
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], settings.clone()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    assert!(objects.iter().all(|object| has(stage.backend("a").as_ref(), object)), "within the grace they are kept");
    stage.later(4 * HOUR);
    mover.tell(&stage.intent(&["a", "b"], Settings { concurrency: Some(2), ..settings }));
    until(&mover, "the sweep", |status| spares(status) == 0);
    assert_eq!(stage.backend("a").list(None, 9).expect("lists"), []);
    assert!(objects.iter().all(|object| has(stage.backend("b").as_ref(), object)));
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    let bytes: u64 = objects.iter().map(|object| object.size).sum();
    let told = mover.told().expect("told");
    let swept: Vec<_> =
        told.iter().filter(|told| matches!(told.what, Finding::Swept { .. })).map(|t| &t.what).collect();
    assert_eq!(swept, [&Finding::Swept { place: name("a"), objects: 40, bytes }]);
}

#[test]
fn the_last_good_copy_is_not_removed_but_used_for_repair() {
    let (stage, objects) = filled(5);
    let settings = Settings { gc_source: hours(3), ..Settings::default() };
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], settings.clone()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    spoil(&stage.file("b", &objects[3]));
    stage.later(4 * HOUR);
    mover.tell(&stage.intent(&["a", "b"], Settings { concurrency: Some(2), ..settings }));
    until(&mover, "the sweep", |status| spares(status) == 0);
    assert!(objects.iter().all(|object| has(stage.backend("b").as_ref(), object)));
}

#[test]
fn nothing_is_removed_while_somebody_puts() {
    let (stage, objects) = filled(4);
    let settings = Settings { gc_source: Some(Millis(0)), ..Settings::default() };
    let putting = stage.latches.putting().expect("nobody deletes");
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], settings.clone()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    assert!(objects.iter().all(|object| has(stage.backend("a").as_ref(), object)));
    drop(putting);
    mover.tell(&stage.intent(&["a", "b"], Settings { concurrency: Some(2), ..settings }));
    until(&mover, "the sweep", |status| spares(status) == 0);
}

#[test]
fn one_old_copy_that_cannot_be_removed_does_not_keep_the_others() {
    let (stage, objects) = filled(5);
    let settings = Settings { gc_source: hours(1), ..Settings::default() };
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a", "b"], settings.clone()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    // A folder that is not empty, where the file was, can be removed by nobody who removes a file.
    let stuck = stage.file("a", &objects[2]);
    fs::remove_file(&stuck).expect("removes");
    fs::create_dir_all(stuck.join("inside")).expect("makes");
    stage.later(2 * HOUR);
    mover.tell(&stage.intent(&["a", "b"], Settings { concurrency: Some(2), ..settings }));
    until(&mover, "the sweep", |status| spares(status) <= 1);
    assert_eq!(stage.backend("a").list(None, 9).expect("lists"), []);
}

#[test]
fn an_orphan_is_kept_for_its_grace_and_what_is_referenced_for_ever() {
    let (stage, objects) = filled(4);
    let bytes = b"nobody knows me";
    let orphan = trueup::ports::blobs::Object { name: trueup::model::blob::Sha256::of(bytes), size: 15 };
    let backend = stage.backend("a");
    backend.put(&orphan, &mut &bytes[..], Put::IfAbsent).expect("puts");
    backend.settle(&[orphan.name]).expect("settles");
    let settings = Settings { orphans: hours(5), gc_source: hours(5), ..Settings::default() };
    let mover = stage.mover();
    mover.tell(&stage.intent(&["a"], settings.clone()));
    until(&mover, "the listing", |status| spares(status) == 1);
    let told = mover.told().expect("told");
    assert!(told.iter().any(|told| told.what == Finding::Orphans { place: name("a"), objects: 1 }), "{told:?}");
    stage.later(4 * HOUR);
    mover.tell(&stage.intent(&["a"], Settings { concurrency: Some(2), ..settings.clone() }));
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    assert!(has(backend.as_ref(), &orphan), "its grace counts from when it was found");
    stage.later(2 * HOUR);
    mover.tell(&stage.intent(&["a"], Settings { concurrency: Some(3), ..settings }));
    until(&mover, "the sweep", |status| spares(status) == 0);
    assert!(!has(backend.as_ref(), &orphan));
    assert!(objects.iter().all(|object| has(backend.as_ref(), object)));
}

#[test]
fn a_scrub_finds_rot_and_repairs_it_or_says_so() {
    let (stage, objects) = filled(6);
    let mover = stage.mover();
    let settings = Settings { scrub: hours(100), ..Settings::default() };
    mover.tell(&stage.intent(&["a", "b"], settings.clone()));
    mover.migrate(&name("b")).expect("begins");
    migrated(&mover, "b");
    until(&mover, "rest", |status| status.motion == Motion::Idle);
    spoil(&stage.file("b", &objects[0]));
    spoil(&stage.file("b", &objects[1]));
    fs::remove_file(stage.file("a", &objects[1])).expect("removes");
    stage.later(101 * HOUR);
    mover.tell(&stage.intent(&["a", "b"], Settings { concurrency: Some(2), ..settings }));
    until(&mover, "the scrub", |status| status.standing.troubled() == 1 && status.motion == Motion::Idle);
    assert!(has(stage.backend("b").as_ref(), &objects[0]), "there was a good copy at the other place");
    let told = mover.told().expect("told");
    assert!(told.iter().any(|told| matches!(told.what, Finding::Repaired { .. })), "{told:?}");
    assert!(told.iter().any(|told| matches!(told.what, Finding::Quarantined { .. })), "{told:?}");
}
