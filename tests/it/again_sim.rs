//! What happens again and again, and what never happened, in the pretend world: it is noticed, counted once, and not held against
//! anybody.

use std::path::PathBuf;
use std::rc::Rc;

use trueup::adapters::sqlite::Ledger;
use trueup::engine::{Bell, Engine, Mode, Verdict};
use trueup::model::id::Name;
use trueup::model::overriding::{Against, OverrideRequest};
use trueup::model::unit::Millis;
use trueup::sim::block_on;
use trueup::sim::story::{Story, hub, service};

/// In memory where the machine has such a folder.
fn scratch() -> tempfile::TempDir {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a temporary folder")
}

fn story(seed: u64, dir: &tempfile::TempDir) -> Story {
    let path = dir.path().join("ledger.db");
    Story::new(seed, Box::new(move || Rc::new(Ledger::open(&path).expect("the ledger opens"))))
}

/// A service that writes one of the files it is started with.
#[test]
fn what_changes_its_own_file_is_not_restarted_for_ever() {
    let dir = scratch();
    let story = story(11, &dir);
    story.write("hub.yaml", &hub());
    story.earth.borrow_mut().other_files.insert("/tree/own.conf".into(), "0".to_owned());
    story.write("w.yaml", &(service("w", "writes", "2041", 1, None) + "  files: [ own.conf ]\n"));
    let mut engine = story.engine();
    for _ in 0..600 {
        let _ = story.go(&mut engine, Mode::default(), Millis(100));
        story.earth.borrow_mut().advance(Millis(1));
    }
    assert!((3..15).contains(&story.starts("w")), "started {} times in a minute", story.starts("w"));
    let (verdict, report, _) = story.go(&mut engine, Mode::default(), Millis(60_000)).expect("it runs");
    assert_eq!(verdict, Verdict::Doomed, "{:?}", report.waits);
}
