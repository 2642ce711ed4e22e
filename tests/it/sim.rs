//! The engine in a pretend world: crashes before and after every port call, failures, broken trees, and seeded lives of random
//! operations. `SIM_SEEDS=N` widens the sweep, `SIM_SEED=S` replays one life. The ledger is the real one, on a real file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use trueup::adapters::sqlite::Ledger;
use trueup::engine::{Mode, Verdict};
use trueup::model::id::Name;
use trueup::model::problem::Code;
use trueup::model::unit::Millis;
use trueup::ports::store::{EventQuery, Store};
use trueup::sim::earth::{Manner, Page};
use trueup::sim::fate::Side;
use trueup::sim::story::{Story, hub, service};

/// In memory where the machine has such a folder: thousands of lives would otherwise wait for the disk.
pub fn scratch() -> tempfile::TempDir {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a temporary folder")
}

fn story(seed: u64, dir: &tempfile::TempDir) -> Story {
    Story::new(seed, ledger(dir.path().join(format!("{:x}.db", fresh()))))
}

/// Opens the ledger anew each time, as a new process does.
pub fn ledger(path: PathBuf) -> Box<dyn Fn() -> Rc<dyn Store>> {
    Box::new(move || Rc::new(Ledger::open(&path).expect("the ledger opens")))
}

pub fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Three services; the third needs the first, the second wants a port chosen.
fn three(story: &Story) {
    story.write("hub.yaml", &hub());
    story.write("a.yaml", &service("a", "well", "2001", 1, None));
    let rights = "  user: ann\n  group: ann\n  resources: { memory: 64MiB, nice: 5 }\n";
    story.write("b.yaml", &(service("b", "slow", "auto", 1, None) + rights));
    story.write("c.yaml", &service("c", "well", "2003", 1, Some("a")));
}

/// A service that goes back when a version does not work, and is told of its file.
fn careful(manner: &str) -> String {
    let more = "  rollback: { after: 30s }\n  files: [ g.conf ]\n  reload: { signal: SIGHUP }\n";
    service("g", manner, "2040", 1, None) + more
}

/// The stages of the crash story: each changes the world, and the engine must follow.
const STAGES: usize = 11;

fn stage(story: &Story, number: usize) {
    match number {
        0 => three(story),
        // One value of one service, and the port of another.
        1 => {
            story.write("a.yaml", &service("a", "well", "2001", 2, None));
            story.write("c.yaml", &service("c", "well", "2013", 1, Some("a")));
        }
        // The world drifts: a row, a process.
        2 => {
            story.earth.borrow_mut().set_row("row-a", 9_999);
            if let Some(pid) = story.pid("b") {
                story.earth.borrow_mut().kill(pid);
            }
        }
        // The keeper dies, and what it kept lives on.
        3 => story.earth.borrow_mut().kill_keeper(),
        // Something that listens elsewhere at first, and something that runs once.
        4 => {
            story.write("d.yaml", &service("d", "elsewhere", "2020", 1, None));
            story.write("e.yaml", &service("e", "once", "2021", 1, None));
        }
        // Something that will hang one day ...
        6 => story.write("f.yaml", &service("f", "hangs", "2031", 1, None)),
        // ... and does.
        7 => drop(story.earth.borrow_mut().advance(Millis(1_000))),
        // Something that can be taken back, and reads a file ...
        8 => {
            story.earth.borrow_mut().other_files.insert("/tree/g.conf".into(), "1".to_owned());
            story.write("g.yaml", &careful("well"));
        }
        // ... whose file changes ...
        9 => drop(story.earth.borrow_mut().other_files.insert("/tree/g.conf".into(), "2".to_owned())),
        // ... and whose next version does not work.
        10 => story.write("g.yaml", &careful("crash")),
        // Two are removed.
        _ => {
            let mut earth = story.earth.borrow_mut();
            let tree = earth.tree.as_mut().expect("the tree is there");
            tree.remove("c.yaml");
            tree.remove("e.yaml");
        }
    }
}

/// Something that goes wrong with the tree, and how.
type Break = (&'static str, Box<dyn Fn(&mut BTreeMap<String, Page>)>);

/// What must be true at the end of a stage, however it was reached.
fn arrived(story: &Story, number: usize) {
    let running: Vec<String> = story.fingerprint().into_keys().collect();
    let wanted: &[&str] = match number {
        0..=3 => &["a", "b", "c"],
        4 => &["a", "b", "c", "d"],
        6 | 7 => &["a", "b", "d", "f"],
        8.. => &["a", "b", "d", "f", "g"],
        _ => &["a", "b", "d"],
    };
    assert_eq!(running, wanted, "stage {number}");
    let earth = story.earth.borrow();
    let port = |row: &str| earth.rows.iter().find(|r| r.name == row).and_then(|r| r.port);
    assert_eq!(port("row-a"), Some(2001), "stage {number}");
    let c = if number == 0 { Some(2003) } else { Some(2013) };
    assert_eq!(port("row-c"), c.filter(|_| number < 5), "stage {number}");
    let told = earth.reloads.values().sum::<u64>();
    assert!(number < 9 || told >= 1, "stage {number}: the changed file was not told");
    for proc in earth.procs.values() {
        assert_ne!(proc.manner, Manner::Crash, "stage {number}: what does not work is taken back");
        let row = format!("row-{}", proc.unit.as_ref().expect("ours"));
        assert_eq!(port(&row), proc.port, "stage {number}: {row} says where it listens");
        assert!(!proc.hangs(earth.now), "stage {number}: what hangs is replaced");
    }
}

fn settle(story: &Story, what: &str) {
    let (verdict, report, _) = story.live(None, 0).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(verdict, Verdict::Settled, "{what}: {:?}", report.waits);
    story.quiet().unwrap_or_else(|e| panic!("{what}: {e}"));
}

#[test]
fn a_user_that_is_gone_stops_nothing_and_starts_nothing() {
    let dir = scratch();
    let story = story(1, &dir);
    three(&story);
    settle(&story, "at first");
    let before = story.fingerprint();
    story.earth.borrow_mut().users.clear();
    let (verdict, report, _) = story.live(None, 0).expect("it lives");
    assert_ne!(verdict, Verdict::Settled);
    assert!(report.problems.iter().any(|problem| problem.code == Code::UnknownUser), "{:?}", report.problems);
    assert_eq!(story.fingerprint(), before);
    story.earth.borrow_mut().users.insert("ann".to_owned(), 1000);
    settle(&story, "with the user back");
    assert_eq!(story.fingerprint(), before);
}

#[test]
fn it_converges_and_then_does_nothing() {
    let dir = scratch();
    let story = story(1, &dir);
    for number in 0..STAGES {
        stage(&story, number);
        settle(&story, &format!("stage {number}"));
        arrived(&story, number);
    }
}

/// In pieces, so that they run side by side.
#[test]
fn a_crash_before_or_after_any_port_call_changes_nothing_in_the_end() {
    assert!(deaths(0..5) > 200);
}

#[test]
fn a_crash_while_things_are_healed_and_told_changes_nothing_in_the_end() {
    assert!(deaths(5..10) > 200);
}

#[test]
fn a_crash_while_a_version_is_taken_back_changes_nothing_in_the_end() {
    assert!(deaths(10..STAGES) > 200);
}

/// Dies before and after every port call of these stages. Says how often.
fn deaths(stages: std::ops::Range<usize>) -> u32 {
    let dir = scratch();
    let mut deaths = 0;
    for number in stages {
        let path = dir.path().join(format!("stage-{number}.db"));
        let before = Story::new(7, ledger(path.clone()));
        (0..number).for_each(|n| {
            stage(&before, n);
            settle(&before, "before");
        });
        let fork = || {
            let copy = dir.path().join(format!("{:x}.db", fresh()));
            if path.exists() {
                std::fs::copy(&path, &copy).expect("the ledger is copied");
            }
            before.fork(ledger(copy))
        };
        // How many calls the stage takes without a crash.
        let plain = fork();
        stage(&plain, number);
        plain.fate.reborn(None, 0, 7);
        plain.run(Mode::default(), Millis(60_000)).expect("a plain run");
        let calls = plain.fate.calls();
        assert!(calls > 5, "stage {number} made {calls} calls");
        for call in 0..calls {
            for side in [Side::Before, Side::After] {
                let story = fork();
                stage(&story, number);
                let what = format!("stage {number}, death {side:?} call {call}");
                let (verdict, report, _) = story.live(Some((call, side)), 0).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(verdict, Verdict::Settled, "{what}: {:?}", report.waits);
                story.quiet().unwrap_or_else(|e| panic!("{what}: {e}"));
                arrived(&story, number);
                deaths += 1;
            }
        }
    }
    deaths
}

#[test]
fn a_change_touches_only_what_changed() {
    let dir = scratch();
    let story = story(3, &dir);
    three(&story);
    settle(&story, "start");
    let before = story.fingerprint();
    story.write("b.yaml", &service("b", "slow", "auto", 2, None));
    settle(&story, "change");
    let after = story.fingerprint();
    assert_eq!(before["a"], after["a"]);
    assert_eq!(before["c"], after["c"]);
    assert_ne!(before["b"], after["b"]);
}

#[test]
fn two_services_may_swap_their_ports() {
    let dir = scratch();
    let story = story(9, &dir);
    three(&story);
    settle(&story, "start");
    story.write("a.yaml", &service("a", "well", "2003", 1, None));
    story.write("c.yaml", &service("c", "well", "2001", 1, Some("a")));
    settle(&story, "swapped");
    let earth = story.earth.borrow();
    let port = |name: &str| {
        earth.procs.values().find(|p| p.unit.as_ref().is_some_and(|u| u.as_str() == name)).and_then(|p| p.port)
    };
    assert_eq!((port("a"), port("c")), (Some(2003), Some(2001)));
    let row = |name: &str| earth.rows.iter().find(|r| r.name == name).and_then(|r| r.port);
    assert_eq!((row("row-a"), row("row-c")), (Some(2003), Some(2001)));
}

#[test]
fn what_breaks_in_the_tree_stops_nothing() {
    let dir = scratch();
    let story = story(4, &dir);
    three(&story);
    settle(&story, "start");
    let before = story.fingerprint();
    let whole = story.earth.borrow().tree.clone();
    let breaks: Vec<Break> = vec![
        ("emptied", Box::new(BTreeMap::clear)),
        ("one file broken", Box::new(|t| drop(t.insert("a.yaml".into(), Page::Text("a: [".into()))))),
        ("one file unreadable", Box::new(|t| drop(t.insert("a.yaml".into(), Page::Unreadable)))),
        (
            "two gone and one broken",
            Box::new(|t| {
                t.remove("b.yaml");
                t.remove("c.yaml");
                t.insert("a.yaml".into(), Page::Text("kind: Servis".into()));
            }),
        ),
        ("the hub gone", Box::new(|t| drop(t.remove("hub.yaml")))),
        ("only the hub left", Box::new(|t| t.retain(|name, _| name == "hub.yaml"))),
    ];
    for (what, damage) in breaks {
        damage(story.earth.borrow_mut().tree.as_mut().expect("the tree is there"));
        // Three owned services may go at once by the default budget, so the last case needs a smaller one.
        if what == "only the hub left" {
            story.write("hub.yaml", &hub().replace("spec: {}", "spec: { prune: { maxCount: 2 } }"));
        }
        let _ = story.run(Mode::default(), Millis(60_000));
        assert_eq!(story.fingerprint(), before, "{what}");
        story.earth.borrow_mut().tree.clone_from(&whole);
        settle(&story, what);
    }
    story.earth.borrow_mut().tree = None;
    let _ = story.run(Mode::default(), Millis(60_000));
    assert_eq!(story.fingerprint(), before, "the folder is gone");
}

#[test]
fn a_removal_beyond_the_budget_needs_its_number() {
    let dir = scratch();
    let story = story(5, &dir);
    story.write("hub.yaml", &hub());
    for i in 0..8 {
        story.write(&format!("s{i}.yaml"), &service(&format!("s{i}"), "well", &format!("{}", 3000 + i), 1, None));
    }
    settle(&story, "start");
    let before = story.fingerprint();
    for i in 0..5 {
        story.earth.borrow_mut().tree.as_mut().expect("the tree").remove(&format!("s{i}.yaml"));
    }
    let (_, report, summary) = story.run(Mode::default(), Millis(60_000)).expect("a run");
    assert_eq!(story.fingerprint(), before);
    let refusal = report.refusal.expect("a refusal");
    assert_eq!(refusal.hint(), "if that is meant, say so with --allow-prune 5");
    assert!(!summary.in_sync && summary.pruned == 0);
    // Any other number is refused too.
    for wrong in [4, 6] {
        story.run(Mode { allow_prune: Some(wrong), ..Mode::default() }, Millis(60_000)).expect("a run");
        assert_eq!(story.fingerprint(), before, "--allow-prune {wrong}");
    }
    let (verdict, _, summary) =
        story.run(Mode { allow_prune: Some(5), ..Mode::default() }, Millis(60_000)).expect("a run");
    assert_eq!((verdict, summary.pruned), (Verdict::Settled, 5));
    assert_eq!(story.fingerprint().len(), 3);
}

#[test]
fn a_stranger_on_the_port_is_named_and_left_alone() {
    let dir = scratch();
    let story = story(6, &dir);
    three(&story);
    let stranger = story.earth.borrow_mut().squat(2001);
    let (verdict, report, _) = story.run(Mode::default(), Millis(60_000)).expect("a run");
    assert_eq!(verdict, Verdict::Doomed);
    let wait = report.waits.iter().find(|w| w.resource.name.as_str() == "a").expect("a waits");
    assert!(wait.message.contains(&format!("pid {stranger}")), "{}", wait.message);
    assert!(story.earth.borrow().procs.contains_key(&stranger));
    assert!(story.pid("b").is_some(), "the others go on");
    story.earth.borrow_mut().procs.remove(&stranger);
    settle(&story, "the stranger left");
}

#[test]
fn down_stops_everything_in_order_and_forgets_nothing() {
    let dir = scratch();
    let story = story(8, &dir);
    three(&story);
    settle(&story, "start");
    let (verdict, _, _) = story.run(Mode { down: true, ..Mode::default() }, Millis(60_000)).expect("down");
    assert_eq!(verdict, Verdict::Settled);
    assert!(story.fingerprint().is_empty());
    settle(&story, "up again");
    assert_eq!(story.fingerprint().len(), 3);
}

/// One life: random operations on a random tree, with failures and deaths on the way.
fn life(seed: u64, dir: &tempfile::TempDir) -> Result<u64, String> {
    let story = story(seed, dir);
    story.write("hub.yaml", &hub());
    let names = ["a", "b", "c", "d", "e"];
    let mut values: BTreeMap<&str, u64> = BTreeMap::new();
    let mut squatter: Option<u32> = None;
    let roll = |n: u64| story.earth.borrow_mut().roll() % n;
    for _ in 0..12 {
        let name = names[roll(5) as usize];
        match roll(12) {
            0..=3 => {
                let value = values.entry(name).or_default();
                *value += 1;
                let manner = ["well", "well", "slow", "stubborn", "elsewhere", "once"][roll(6) as usize];
                let port =
                    if roll(3) == 0 { "auto".to_owned() } else { (4000 + name.as_bytes()[0] as u16).to_string() };
                let needs = if name > "b" && values_contains(&story, "a") && roll(2) == 0 { Some("a") } else { None };
                story.write(&format!("{name}.yaml"), &service(name, manner, &port, *value, needs));
            }
            4 if name != "a" => {
                story.earth.borrow_mut().tree.as_mut().expect("the tree").remove(&format!("{name}.yaml"));
            }
            5 => {
                if let Some(pid) = story.pid(name) {
                    story.earth.borrow_mut().kill(pid);
                }
            }
            6 => story.earth.borrow_mut().kill_keeper(),
            7 => {
                let port = 9_000 + roll(50) as u16;
                story.earth.borrow_mut().set_row(&format!("row-{name}"), port);
            }
            8 => story.write(&format!("{name}.yaml"), "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: [\n"),
            9 if squatter.is_none() => {
                squatter = Some(story.earth.borrow_mut().squat(4000 + u16::from(name.as_bytes()[0])))
            }
            10 => story.earth.borrow_mut().git_busy = true,
            _ => {
                let time = Millis(roll(5_000));
                story.earth.borrow_mut().advance(time);
            }
        }
        let die = (roll(2) == 0).then(|| (roll(60), if roll(2) == 0 { Side::Before } else { Side::After }));
        story.fate.reborn(die, [0, 20, 150][roll(3) as usize], seed);
        let _ = story.run(Mode::default(), Millis(roll(20_000)));
        story.check()?;
        if let Some(pid) = squatter
            && !story.earth.borrow().procs.contains_key(&pid)
        {
            return Err("a stranger was stopped".to_owned());
        }
    }
    // The faults stop: broken files are mended, strangers leave, git is done.
    story.earth.borrow_mut().git_busy = false;
    if let Some(pid) = squatter {
        story.earth.borrow_mut().procs.remove(&pid);
    }
    for name in names {
        // What ran once and was killed has ended for good, and what depends on it waits for ever: both by their own words.
        let broken =
            |page: Option<&Page>| matches!(page, Some(Page::Text(t)) if t.contains("name: [") || t.contains("once"));
        let is = broken(story.earth.borrow().tree.as_ref().and_then(|t| t.get(&format!("{name}.yaml"))));
        if is {
            story.write(
                &format!("{name}.yaml"),
                &service(name, "well", &(4000 + name.as_bytes()[0] as u16).to_string(), 99, None),
            );
        }
    }
    if !values_contains(&story, "a") {
        story.write("a.yaml", &service("a", "well", "4097", 7, None));
    }
    let (verdict, report, _) = story.live(None, 0)?;
    if verdict != Verdict::Settled {
        return Err(format!(
            "{verdict:?}: {:?} {:?}",
            report.waits,
            report.problems.iter().map(|p| &p.message).collect::<Vec<_>>()
        ));
    }
    story.quiet()?;
    for (unit, pids) in names.iter().map(|n| (n, story.earth.borrow().live(&Name::new(n).expect("a name")))) {
        if pids.len() > 1 {
            return Err(format!("{unit} has {} processes", pids.len()));
        }
    }
    Ok(story.earth.borrow().now.0)
}

fn values_contains(story: &Story, name: &str) -> bool {
    story.earth.borrow().tree.as_ref().is_some_and(|t| t.contains_key(&format!("{name}.yaml")))
}

#[test]
fn random_lives_converge_and_break_no_rule() {
    #[expect(clippy::disallowed_methods, reason = "a test may be told its seed")]
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let kept = include_str!("../seeds/lives.txt").lines().filter_map(|l| l.split('#').next()?.trim().parse().ok());
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => kept.chain(1..=number("SIM_SEEDS").unwrap_or(150)).collect(),
    };
    let dir = scratch();
    let failed: Vec<String> = seeds
        .iter()
        .filter_map(|seed| life(*seed, &dir).err().map(|e| format!("SIM_SEED={seed} cargo test random_lives: {e}")))
        .collect();
    assert!(failed.is_empty(), "{} of {} lives failed:\n{}", failed.len(), seeds.len(), failed.join("\n"));
}

#[test]
fn the_same_seed_is_the_same_life() {
    let dir = scratch();
    for seed in [3, 11, 42] {
        assert_eq!(life(seed, &dir), life(seed, &dir));
    }
}

#[test]
fn a_slow_deletion_is_counted_as_a_whole() {
    let dir = scratch();
    let story = story(12, &dir);
    story.write("hub.yaml", &hub());
    for i in 0..8 {
        story.write(&format!("s{i}.yaml"), &service(&format!("s{i}"), "well", &format!("{}", 3000 + i), 1, None));
    }
    let mut engine = story.engine();
    let mut go = |mode| story.go(&mut engine, mode, Millis(60_000)).expect("a run");
    let remove = |i: u32| drop(story.earth.borrow_mut().tree.as_mut().expect("a tree").remove(&format!("s{i}.yaml")));
    go(Mode::default());
    // One at a time, a minute apart: three are within the budget, the fourth is one too many.
    for i in 0..3 {
        remove(i);
        assert_eq!(go(Mode::default()).2.pruned, 1);
        story.earth.borrow_mut().advance(Millis(60_000));
    }
    remove(3);
    let (_, report, _) = go(Mode::default());
    let refusal = report.refusal.expect("a refusal");
    assert_eq!((refusal.recent, refusal.hint().as_str()), (3, "if that is meant, say so with --allow-prune 1"));
    assert_eq!(story.fingerprint().len(), 5);
    // A number that was given is not counted against the next ones, and later everything counts anew.
    let (_, report, summary) = go(Mode { allow_prune: Some(1), ..Mode::default() });
    assert!(report.refusal.is_none() && summary.pruned == 1, "{summary:?}");
    while story.earth.borrow().now.0 < 735_000 {
        story.earth.borrow_mut().advance(Millis(10_000));
    }
    remove(4);
    assert_eq!(go(Mode::default()).2.pruned, 1);
    // What came back was not lost.
    story.write("s4.yaml", &service("s4", "well", "3004", 1, None));
    go(Mode::default());
    remove(5);
    remove(6);
    remove(7);
    assert_eq!(go(Mode::default()).2.pruned, 3);
}

#[test]
fn nobody_makes_way_for_what_cannot_move() {
    let dir = scratch();
    let story = story(13, &dir);
    three(&story);
    settle(&story, "start");
    let before = story.fingerprint();
    // The ports are swapped, and the partner's new version has no program: it stays where it is, so nobody can move.
    story.write("a.yaml", &service("a", "well", "2003", 1, None));
    story.write("c.yaml", &service("c", "well", "2001", 1, None).replace("[ sim,", "[ missing,"));
    let (verdict, _, _) = story.run(Mode::default(), Millis(60_000)).expect("a run");
    assert_ne!(verdict, Verdict::Settled);
    assert_eq!(story.fingerprint(), before, "a healthy service was stopped for nothing");
    // Suspended, it lets go, and the other moves.
    let suspended = service("c", "well", "2001", 1, None) + "  suspend: true\n";
    story.write("c.yaml", &suspended);
    settle(&story, "suspended");
    let port = |name: &str| story.pid(name).and_then(|pid| story.earth.borrow().procs[&pid].port);
    assert_eq!((port("a"), port("c")), (Some(2003), None));
    story.write("c.yaml", &service("c", "well", "2001", 1, None));
    settle(&story, "back");
    assert_eq!((port("a"), port("c")), (Some(2003), Some(2001)));
}

#[test]
fn a_module_that_rewrites_its_row_is_not_fought_without_pause() {
    let dir = scratch();
    let story = story(14, &dir);
    three(&story);
    let mut engine = story.engine();
    story.go(&mut engine, Mode::default(), Millis(60_000)).expect("a run");
    let begun = story.earth.borrow().now;
    let (mut put, mut last) = (0, None);
    while (story.earth.borrow().now - begun) < Millis(60_000) {
        story.earth.borrow_mut().set_row("row-a", 9_999);
        let (_, report, summary) = story.go(&mut engine, Mode::default(), Millis(60)).expect("a run");
        put += summary.changed;
        last = Some(report);
        story.earth.borrow_mut().advance(Millis(20));
    }
    assert!((3..10).contains(&put), "{put} times in a minute");
    let last = last.expect("a report");
    let wait = last.waits.iter().find(|w| w.resource.name.as_str() == "a").expect("it is told");
    assert!(wait.doomed && !last.settled, "{wait:?}");
    // When the module gives up, all is well after a while.
    settle(&story, "peace");
}

#[test]
fn a_new_restart_policy_wakes_what_has_ended() {
    let dir = scratch();
    let story = story(15, &dir);
    story.write("hub.yaml", &hub());
    story.write("e.yaml", &service("e", "once", "2021", 1, None));
    settle(&story, "started");
    while story.pid("e").is_some() {
        story.earth.borrow_mut().advance(Millis(10));
    }
    settle(&story, "ended");
    story.write("e.yaml", &service("e", "once", "2021", 1, None).replace("never", "always"));
    let _ = story.run(Mode::default(), Millis(2_000));
    let starts = *story.earth.borrow().starts.get(&Name::new("e").expect("a name")).expect("it was started");
    assert!(starts > 1, "it runs again and again, as asked: {starts}");
    story.write("e.yaml", &service("e", "once", "2021", 1, None));
    let _ = story.run(Mode::default(), Millis(60_000));
    settle(&story, "ended again");
}

/// Every crash on the way from one tree to another ends in the same place.
fn sweep(dir: &tempfile::TempDir, begin: impl Fn(&Story), change: impl Fn(&Story), arrived: impl Fn(&Story, &str)) {
    let path = dir.path().join("sweep.db");
    let before = Story::new(7, ledger(path.clone()));
    begin(&before);
    settle(&before, "before");
    let fork = || {
        let copy = dir.path().join(format!("{:x}.db", fresh()));
        std::fs::copy(&path, &copy).expect("the ledger is copied");
        let story = before.fork(ledger(copy));
        change(&story);
        story
    };
    let plain = fork();
    plain.fate.reborn(None, 0, 7);
    plain.run(Mode::default(), Millis(60_000)).expect("a plain run");
    arrived(&plain, "without a crash");
    for call in 0..plain.fate.calls() {
        for side in [Side::Before, Side::After] {
            let (story, what) = (fork(), format!("death {side:?} call {call}"));
            let (verdict, report, _) = story.live(Some((call, side)), 0).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(verdict, Verdict::Settled, "{what}: {:?}", report.waits);
            story.quiet().unwrap_or_else(|e| panic!("{what}: {e}"));
            arrived(&story, &what);
        }
    }
}

/// The rows of services.json, sorted.
fn rows(story: &Story) -> Vec<(String, Option<u16>)> {
    let mut rows: Vec<_> = story.earth.borrow().rows.iter().map(|r| (r.name.clone(), r.port)).collect();
    rows.sort();
    rows
}

#[test]
fn a_row_follows_its_new_name_and_leaves_none_behind() {
    let begin = |story: &Story| three(story);
    let change = |story: &Story| {
        let text = service("a", "well", "2001", 1, None).replace("registersAs: row-a", "registersAs: row-new");
        story.write("a.yaml", &text);
    };
    let arrived = |story: &Story, what: &str| {
        let names: Vec<String> = rows(story).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["row-b", "row-c", "row-new"], "{what}");
    };
    sweep(&scratch(), begin, change, arrived);
}

#[test]
fn a_renamed_service_keeps_its_row() {
    let begin = |story: &Story| three(story);
    let change = |story: &Story| {
        story.earth.borrow_mut().tree.as_mut().expect("a tree").remove("c.yaml");
        let text = service("new", "well", "2003", 1, None).replace("registersAs: row-new", "registersAs: row-c");
        story.write("new.yaml", &text);
        let mut earth = story.earth.borrow_mut();
        let row = earth.rows.iter_mut().find(|r| r.name == "row-c").expect("the row");
        row.rest.insert("theirs".to_owned(), true.into());
    };
    let arrived = |story: &Story, what: &str| {
        let earth = story.earth.borrow();
        let row = earth.rows.iter().find(|r| r.name == "row-c").unwrap_or_else(|| panic!("no row: {what}"));
        assert_eq!((row.port, row.rest.contains_key("theirs")), (Some(2003), true), "{what}");
    };
    sweep(&scratch(), begin, change, arrived);
}

#[test]
fn a_range_without_a_free_port_is_a_mistake_and_starts_nothing() {
    let dir = scratch();
    let story = story(17, &dir);
    story.write("hub.yaml", &hub().replace("spec: {}", "spec: { portRange: { from: 2000, to: 2001 } }"));
    for name in ["a", "b", "c"] {
        story.write(&format!("{name}.yaml"), &service(name, "well", "auto", 1, None));
    }
    let (verdict, report, _) = story.run(Mode::default(), Millis(60_000)).expect("a run");
    assert_eq!((verdict, story.pid("c")), (Verdict::Doomed, None));
    let problem = report.problems.iter().find(|p| p.code.as_str() == "E0309").expect("a problem");
    assert_eq!(problem.labels[0].span.to_string(), "c.yaml:6:9", "it points to the port");
    story.write("hub.yaml", &hub());
    settle(&story, "a wider range");
}

#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    let dir = scratch();
    let story = story(16, &dir);
    three(&story);
    // Without a port and a probe, running for a while is all there is to being ready.
    story.write("d.yaml", &service("d", "well", "2009", 1, None).replace("  port: 2009\n  registersAs: row-d\n", ""));
    settle(&story, "start");
    for moved in [-3_600_000, 3_600_000, 86_400_000] {
        story.earth.borrow_mut().wall_moved = moved;
        story.quiet().unwrap_or_else(|e| panic!("moved by {moved}: {e}"));
    }
    // A process that starts after the jump is as young as it is.
    let pid = story.pid("d").expect("it runs");
    story.earth.borrow_mut().kill(pid);
    settle(&story, "restarted");
}

#[test]
fn deaths_are_told_once_and_not_too_often() {
    let dir = scratch();
    let path = dir.path().join("deaths.db");
    let story = Story::new(18, ledger(path.clone()));
    three(&story);
    settle(&story, "start");
    let events = || {
        let query = EventQuery { limit: 1_000, ..EventQuery::default() };
        let all = Ledger::open(&path).expect("the ledger").events(&query).expect("events");
        all.into_iter().map(|e| e.message).filter(|m| m.starts_with("died")).collect::<Vec<_>>()
    };
    let kill = || {
        let pid = story.pid("a").expect("it runs");
        story.earth.borrow_mut().kill(pid);
    };
    kill();
    settle(&story, "killed once");
    let pid = story.pid("a").expect("it runs");
    assert_eq!(events(), [format!("died (signal 9), restarted, pid {pid}")]);
    // Nobody looked: how often it died is known all the same.
    for _ in 0..3 {
        kill();
        while story.pid("a").is_none() {
            story.earth.borrow_mut().advance(Millis(100));
        }
    }
    settle(&story, "killed thrice");
    assert!(events()[1].starts_with("died 3 times (last: signal 9)"), "{:?}", events());
    // A loop is told of line by line, in bounds; the keeper's own death is not the module's.
    story.write("d.yaml", &service("d", "crash", "2009", 1, None));
    let mut engine = story.engine();
    let begun = story.earth.borrow().now;
    while (story.earth.borrow().now - begun) < Millis(60_000) {
        story.go(&mut engine, Mode::default(), Millis(1_000)).expect("a run");
        story.earth.borrow_mut().advance(Millis(1_000));
    }
    let told = events().len() - 2;
    assert!((3..40).contains(&told), "{told} lines: {:?}", events());
    story.earth.borrow_mut().tree.as_mut().expect("a tree").remove("d.yaml");
    settle(&story, "without it");
    let before = events().len();
    story.earth.borrow_mut().kill_keeper();
    settle(&story, "another keeper");
    assert_eq!(events().len(), before);
}

#[test]
fn a_change_of_many_replaces_a_few_at_a_time() {
    let dir = scratch();
    let story = story(21, &dir);
    let write = |value: u64| {
        for n in 0..9 {
            story.write(
                &format!("s{n}.yaml"),
                &service(&format!("s{n}"), "well", &format!("{}", 2100 + n), value, None),
            );
        }
    };
    story.write("hub.yaml", &hub().replace("spec: {}", "spec: { maxUnavailable: 2 }"));
    write(1);
    settle(&story, "start");
    write(2);
    // After each tick: how many of the nine listen. A started one listens 20 ms later, so the clock must move in between.
    let mut engine = story.engine();
    let mut fewest = usize::MAX;
    for _ in 0..200 {
        let _ = story.go(&mut engine, Mode::default(), Millis(0));
        {
            let earth = story.earth.borrow();
            fewest = fewest.min(earth.procs.values().filter(|p| p.ready_at <= earth.now && p.ends.is_none()).count());
        }
        story.earth.borrow_mut().advance(Millis(5));
    }
    assert_eq!(fewest, 7, "two at a time");
    settle(&story, "changed");
    let all = story.earth.borrow().procs.len();
    assert_eq!(all, 9);
    let stops = story.earth.borrow().stops.values().sum::<u64>();
    assert_eq!(stops, 9, "each was replaced once");
}

#[test]
fn a_change_that_breaks_all_does_not_wait_for_ever() {
    let dir = scratch();
    let story = story(22, &dir);
    let write = |manner: &str, value: u64| {
        for n in 0..5 {
            story.write(
                &format!("s{n}.yaml"),
                &service(&format!("s{n}"), manner, &format!("{}", 2100 + n), value, None),
            );
        }
    };
    story.write("hub.yaml", &hub().replace("spec: {}", "spec: { maxUnavailable: 1 }"));
    write("well", 1);
    settle(&story, "start");
    write("crash", 2);
    let (verdict, report, _) = story.live(None, 0).expect("it ends");
    assert_eq!(verdict, Verdict::Doomed, "{:?}", report.waits);
    assert!(report.later.is_empty(), "all were replaced in the end: {:?}", report.later);
}
