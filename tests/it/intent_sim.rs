//! What the engine does about a Storage in the pretend world: crashes before and after every port call, failures, and files that
//! change in mid-way. The mover there is pretend too; the real one has a simulation of its own.

use std::path::PathBuf;
use std::rc::Rc;

use trueup::adapters::sqlite::Ledger;
use trueup::engine::{Mode, Verdict};
use trueup::model::condition::Reason;
use trueup::model::id::Name;
use trueup::model::unit::Millis;
use trueup::sim::fate::Side;
use trueup::sim::story::{Story, hub};

/// In memory where the machine has such a folder.
fn scratch() -> tempfile::TempDir {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a temporary folder")
}

fn story(seed: u64, dir: &tempfile::TempDir, name: &str) -> Story {
    let path = dir.path().join(format!("{name}.db"));
    let story = Story::new(seed, Box::new(move || Rc::new(Ledger::open(&path).expect("the ledger opens"))));
    story.write("hub.yaml", &hub());
    story
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn backend(name: &str) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: StorageBackend\nmetadata: {{ name: {name} }}\nspec: {{ fs: {{ path: ../{name} }} }}\n"
    )
}

fn storage(active: &str, more: &str) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: Storage\nmetadata: {{ name: default }}\nspec:\n  activeBackend: {active}\n{more}"
    )
}

/// Each look of the pretend mover is a call; after so many they are one and the same.
const MOST_CALLS: u64 = 100;

/// The stages: what people write, and where blobs are to lie then.
const STAGES: usize = 5;

fn stage(story: &Story, number: usize) {
    match number {
        0 => {
            story.write("a.yaml", &backend("a"));
            story.write("b.yaml", &backend("b"));
            story.write("storage.yaml", &storage("a", ""));
        }
        1 => {
            story.earth.borrow_mut().blobs.objects.insert(name("a"), 5);
            story.write("storage.yaml", &storage("b", ""));
        }
        // Back, and on to a third.
        2 => story.write("storage.yaml", &storage("a", "  bandwidth: 1MiB\n")),
        3 => {
            story.write("c.yaml", &backend("c"));
            story.write("storage.yaml", &storage("c", ""));
        }
        // What holds nothing any more is gone from the files.
        _ => {
            let mut earth = story.earth.borrow_mut();
            let tree = earth.tree.as_mut().expect("the tree is there");
            tree.remove("a.yaml");
            tree.remove("b.yaml");
        }
    }
}

fn arrived(story: &Story, number: usize) {
    let earth = story.earth.borrow();
    let place = name(["a", "b", "a", "c", "c"][number]);
    assert_eq!(earth.blobs.active.as_ref(), Some(&place), "stage {number}");
    assert_eq!(earth.blobs.target, None, "stage {number}");
    let there = earth.blobs.objects.get(&place).copied().unwrap_or_default();
    assert_eq!(there, if number == 0 { 0 } else { 5 }, "stage {number}: {:?}", earth.blobs.objects);
}

fn settle(story: &Story, what: &str) {
    let (verdict, report, _) = story.live(None, 0).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(verdict, Verdict::Settled, "{what}: {:?}", report.waits);
    story.quiet().unwrap_or_else(|e| panic!("{what}: {e}"));
}

#[test]
fn one_changed_line_moves_every_blob_and_then_nothing_is_done() {
    let dir = scratch();
    let story = story(1, &dir, "plain");
    for number in 0..STAGES {
        stage(&story, number);
        settle(&story, &format!("stage {number}"));
        arrived(&story, number);
    }
    assert_eq!(story.earth.borrow().blobs.flips, 3, "the active backend changed once for each change of the file");
}

#[test]
fn a_crash_around_any_port_call_of_a_migration_changes_nothing_in_the_end() {
    let dir = scratch();
    let mut deaths = 0;
    for number in 0..STAGES {
        let before = story(7, &dir, &format!("before-{number}"));
        (0..number).for_each(|earlier| {
            stage(&before, earlier);
            settle(&before, "before");
        });
        for side in [Side::Before, Side::After] {
            for call in 0..MOST_CALLS {
                let copy = dir.path().join(format!("{number}-{side:?}-{call}.db"));
                let ledger = dir.path().join(format!("before-{number}.db"));
                if ledger.exists() {
                    std::fs::copy(&ledger, &copy).expect("the ledger is copied");
                }
                let story = before.fork(Box::new(move || Rc::new(Ledger::open(&copy).expect("the ledger opens"))));
                stage(&story, number);
                story.fate.reborn(Some((call, side)), 0, 7);
                let _ = story.run(Mode::default(), Millis(30_000));
                if !story.fate.dead() {
                    break;
                }
                deaths += 1;
                settle(&story, &format!("stage {number}, death {side:?} call {call}"));
                arrived(&story, number);
            }
        }
    }
    assert!(deaths > 150, "{deaths} deaths");
}

#[test]
fn failing_ports_delay_a_migration_and_do_not_lose_it() {
    let dir = scratch();
    for seed in 1..40 {
        let story = story(seed, &dir, &format!("failing-{seed}"));
        for number in 0..STAGES {
            stage(&story, number);
            let (verdict, report, _) = story.live(None, 60).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_eq!(verdict, Verdict::Settled, "seed {seed}, stage {number}: {:?}", report.waits);
            arrived(&story, number);
        }
    }
}

#[test]
fn a_backend_that_refuses_is_one_condition_and_moves_nothing() {
    let dir = scratch();
    let story = story(3, &dir, "refusing");
    stage(&story, 0);
    settle(&story, "at first");
    story.earth.borrow_mut().blobs.objects.insert(name("a"), 5);
    story.earth.borrow_mut().blobs.refusing.insert(name("b"), "the bucket is not there".to_owned());
    story.write("storage.yaml", &storage("b", ""));
    let (verdict, report, _) = story.live(None, 0).expect("it lives");
    assert_eq!(verdict, Verdict::Doomed);
    let reasons: Vec<(String, Reason)> = report.waits.iter().map(|w| (w.resource.to_string(), w.reason)).collect();
    let wanted = [("Storage/default", Reason::DependencyNotReady), ("StorageBackend/b", Reason::BackendRefused)];
    assert_eq!(reasons, wanted.map(|(id, reason)| (id.to_owned(), reason)), "{:?}", report.waits);
    assert_eq!(story.earth.borrow().blobs.target, None, "nothing was begun");
    story.earth.borrow_mut().blobs.refusing.clear();
    settle(&story, "with the bucket there");
    arrived(&story, 1);
}

#[test]
fn the_old_backend_may_go_from_the_files_in_the_same_change() {
    let dir = scratch();
    let story = story(4, &dir, "same-change");
    stage(&story, 0);
    settle(&story, "at first");
    story.earth.borrow_mut().blobs.objects.insert(name("a"), 5);
    story.write("storage.yaml", &storage("b", ""));
    story.earth.borrow_mut().tree.as_mut().expect("the tree").remove("a.yaml");
    settle(&story, "moved and let go of");
    arrived(&story, 1);
    let (_, report, _) = story.run(Mode::default(), Millis(1_000)).expect("it runs");
    assert!(report.resources.iter().all(|line| line.name.as_str() != "a"), "nothing of it is left");
}

#[test]
fn a_storage_that_vanished_from_the_files_is_kept_with_its_blobs() {
    let dir = scratch();
    let story = story(5, &dir, "vanished");
    stage(&story, 0);
    settle(&story, "at first");
    story.earth.borrow_mut().blobs.objects.insert(name("a"), 5);
    story.earth.borrow_mut().tree.as_mut().expect("the tree").remove("storage.yaml");
    let (verdict, report, _) = story.live(None, 0).expect("it lives");
    assert_eq!(verdict, Verdict::Doomed, "{:?}", report.waits);
    assert!(report.waits.iter().any(|wait| wait.reason == Reason::StillNeeded), "{:?}", report.waits);
    assert_eq!(story.earth.borrow().blobs.active, Some(name("a")));
    story.write("storage.yaml", &storage("a", ""));
    settle(&story, "declared again");
}
