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

/// The time of a version on trial is the time that it runs.
#[test]
fn a_version_that_never_ran_is_not_taken_back() {
    let dir = scratch();
    let story = story(12, &dir);
    story.write("hub.yaml", &hub());
    story.write("a.yaml", &service("a", "well", "2001", 1, None));
    let version = |value: u64, more: &str| {
        let text = service("g", "well", "2042", value, Some("a")) + "  rollback: { after: 30s }\n" + more;
        story.write("g.yaml", &text);
    };
    version(1, "");
    let mut engine = story.engine();
    let settle = |engine: &mut _| {
        let (verdict, report, _) = story.go(engine, Mode::default(), Millis(20_000)).expect("it runs");
        assert_eq!((verdict, report.rolled_back), (Verdict::Settled, 0), "{:?}", report.waits);
    };
    settle(&mut engine);
    // Suspended for longer than its trial may take, and then started.
    version(2, "  suspend: true\n");
    settle(&mut engine);
    story.pass(Millis(60_000));
    settle(&mut engine);
    version(2, "");
    settle(&mut engine);
    // The same with a stop by a person, and with a dependency that does not come.
    let over = |wish| OverrideRequest {
        wish,
        names: vec![Name::new("g").expect("a name")],
        span: Millis(3_600_000),
        reason: String::new(),
    };
    engine.0.override_services(&over(Against::Stop)).expect("asked");
    settle(&mut engine);
    version(3, "");
    settle(&mut engine);
    story.pass(Millis(60_000));
    settle(&mut engine);
    engine.0.override_services(&over(Against::Start)).expect("asked");
    settle(&mut engine);
    assert!(story.pid("g").is_some());
    assert_eq!(story.starts("g"), 3, "each version was started once, and none taken back");
}

#[test]
fn a_death_is_told_once_although_its_document_was_away_for_a_moment() {
    let dir = scratch();
    let story = story(13, &dir);
    story.write("hub.yaml", &hub());
    story.write("a.yaml", &service("a", "well", "2001", 1, None));
    story.write("b.yaml", &service("b", "well", "2002", 1, None));
    let mut engine = story.engine();
    let deaths = |engine: &mut (Engine, Rc<dyn Bell>)| {
        let report = block_on(engine.0.tick(Mode::default(), &mut |_| {})).expect("a tick");
        report.deaths.iter().filter(|event| event.resource.name.as_str() == "a").count()
    };
    story.go(&mut engine, Mode::default(), Millis(30_000)).expect("it runs");
    let pid = story.pid("a").expect("it runs");
    story.earth.borrow_mut().kill(pid);
    assert_eq!(deaths(&mut engine), 1);
    story.pass(Millis(10_000));
    assert_eq!(deaths(&mut engine), 0);
    let page = story.earth.borrow_mut().tree.as_mut().and_then(|tree| tree.remove("a.yaml")).expect("its file");
    assert_eq!(deaths(&mut engine), 0);
    story.earth.borrow_mut().tree.as_mut().expect("the tree").insert("a.yaml".to_owned(), page);
    story.pass(Millis(10_000));
    assert_eq!(deaths(&mut engine), 0, "it is told again");
}
