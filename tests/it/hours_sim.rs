//! What depends on the hour, in the pretend world: schedules, overrides, and crashes at every port call in between.

use std::path::PathBuf;
use std::rc::Rc;

use trueup::adapters::sqlite::Ledger;
use trueup::engine::{Engine, EngineError, Mode, Verdict};
use trueup::model::condition::Reason;
use trueup::model::id::Name;
use trueup::model::output::ResourceLine;
use trueup::model::overriding::{Against, OverrideRequest};
use trueup::model::unit::Millis;
use trueup::ports::store::Store;
use trueup::sim::fate::Side;
use trueup::sim::story::{Story, hub, service};

const HOUR: Millis = Millis(3_600_000);
const MINUTE: Millis = Millis(60_000);
/// From the beginning of the pretend world (01:46:40 UTC) to its first full hour.
const TO_THE_HOUR: Millis = Millis(800_000);
const SOON: Millis = Millis(30_000);

/// In memory where the machine has such a folder: hundreds of lives would otherwise wait for the disk.
fn scratch() -> tempfile::TempDir {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a temporary folder")
}

fn story(dir: &tempfile::TempDir, name: &str) -> Story {
    Story::new(3, ledger(dir.path().join(name)))
}

fn ledger(path: PathBuf) -> Box<dyn Fn() -> Rc<dyn Store>> {
    Box::new(move || Rc::new(Ledger::open(&path).expect("the ledger opens")))
}

/// A service that runs at every full hour.
fn hourly(name: &str, manner: &str, more: &str) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [ sim, {manner} ]\n  \
         schedule: {{ cron: \"0 * * * *\"{more} }}\n"
    )
}

fn line(story: &Story, name: &str) -> ResourceLine {
    let (_, report, _) = story.run(Mode::default(), SOON).expect("it runs");
    report.resources.into_iter().find(|line| line.name.as_str() == name).expect("its line")
}

fn settle(story: &Story) {
    let (verdict, report, _) = story.run(Mode::default(), SOON).expect("it runs");
    assert_eq!(verdict, Verdict::Settled, "{:?}", report.waits);
    story.check().expect("nothing broken");
}

fn reason(line: &ResourceLine) -> (Reason, String) {
    (line.conditions[0].reason, line.conditions[0].message.clone())
}

#[test]
fn a_schedule_runs_at_its_times_and_only_then() {
    let dir = scratch();
    let story = story(&dir, "a.db");
    story.write("hub.yaml", &hub());
    story.write("job.yaml", &hourly("job", "once", ""));
    settle(&story);
    assert_eq!(story.starts("job"), 0, "what is seen for the first time waits for its time");
    let first = line(&story, "job");
    assert_eq!(first.phase, "Scheduled");
    assert_eq!(first.next_run.expect("a next run").to_string(), "2001-09-09T02:00:00.000Z");
    assert_eq!(reason(&first), (Reason::Scheduled, "next run at 2001-09-09 02:00 UTC".to_owned()));
    story.quiet().expect("quiet before its time");
    story.pass(TO_THE_HOUR);
    settle(&story);
    assert_eq!(story.starts("job"), 1);
    story.pass(MINUTE);
    assert!(reason(&line(&story, "job")).1.starts_with("the last run succeeded; next run at"));
    story.quiet().expect("quiet after its time");
    // Its settings change: that is no reason to run.
    story.write("job.yaml", &hourly("job", "crash", ""));
    settle(&story);
    assert_eq!(story.starts("job"), 1);
    story.pass(HOUR);
    settle(&story);
    story.pass(MINUTE);
    let failed = line(&story, "job");
    assert_eq!((story.starts("job"), reason(&failed).0), (2, Reason::LastRunFailed));
    assert!(reason(&failed).1.starts_with("the last run ended with exit code 1; next run at"), "{failed:?}");
    // Another expression begins anew.
    story.write("job.yaml", &hourly("job", "once", ", missed: skip").replace("0 * *", "30 * *"));
    settle(&story);
    assert_eq!(story.starts("job"), 2);
    // A person does not wait.
    let now = |engine: &mut Engine| {
        engine.request_restart([Name::new("job").expect("a name")]);
        Ok(())
    };
    story.ask(&now, Mode::default(), SOON).expect("asked");
    assert_eq!(story.starts("job"), 3);
}

#[test]
fn times_that_nobody_saw_run_once_or_not_at_all() {
    let dir = scratch();
    let story = story(&dir, "m.db");
    story.write("hub.yaml", &hub());
    story.write("runs.yaml", &hourly("runs", "once", ""));
    story.write("skips.yaml", &hourly("skips", "once", ", missed: skip"));
    settle(&story);
    story.pass(Millis(HOUR.0 * 5));
    settle(&story);
    assert_eq!((story.starts("runs"), story.starts("skips")), (1, 0));
    story.pass(MINUTE);
    story.quiet().expect("quiet");
    // In time again: both.
    let now = story.earth.borrow().wall().0.unsigned_abs();
    story.pass(Millis(HOUR.0 - now % HOUR.0));
    settle(&story);
    assert_eq!((story.starts("runs"), story.starts("skips")), (2, 1));
}

#[test]
fn a_run_that_still_runs_is_left_alone_or_replaced() {
    let dir = scratch();
    let story = story(&dir, "o.db");
    story.write("hub.yaml", &hub());
    story.write("stays.yaml", &hourly("stays", "well", ""));
    story.write("goes.yaml", &hourly("goes", "well", ", overlap: replace"));
    settle(&story);
    story.pass(TO_THE_HOUR);
    settle(&story);
    let (stays, goes) = (story.pid("stays").expect("runs"), story.pid("goes").expect("runs"));
    story.pass(HOUR);
    settle(&story);
    assert_eq!(story.pid("stays"), Some(stays), "one at a time");
    assert_ne!(story.pid("goes").expect("runs"), goes);
    assert_eq!((story.starts("stays"), story.starts("goes")), (1, 2));
    story.quiet().expect("quiet");
}

#[test]
fn who_waits_for_a_scheduled_run_starts_after_the_first_that_succeeded() {
    let dir = scratch();
    let story = story(&dir, "d.db");
    story.write("hub.yaml", &hub());
    story.write("job.yaml", &hourly("job", "crash", ""));
    let needs = service("web", "well", "2001", 1, None) + "  dependsOn: [ { service: job, condition: completed } ]\n";
    story.write("web.yaml", &needs);
    let (verdict, report, _) = story.run(Mode::default(), SOON).expect("it runs");
    assert_eq!(verdict, Verdict::Doomed, "a pass does not wait for hours: {:?}", report.waits);
    story.pass(TO_THE_HOUR);
    story.run(Mode::default(), SOON).expect("it runs");
    assert_eq!((story.starts("job"), story.starts("web")), (1, 0), "a failed run is not enough");
    story.write("job.yaml", &hourly("job", "once", ""));
    story.pass(HOUR);
    settle(&story);
    assert_eq!((story.starts("job"), story.starts("web")), (2, 1));
    // It stays met while the next one runs or fails.
    story.write("job.yaml", &hourly("job", "crash", ""));
    story.pass(HOUR);
    settle(&story);
    story.earth.borrow_mut().kill_keeper();
    settle(&story);
    assert_eq!((story.starts("job"), story.starts("web")), (3, 1));
}

#[test]
fn a_crash_before_or_after_any_port_call_never_runs_a_time_twice() {
    let dir = scratch();
    let before = story(&dir, "before.db");
    before.write("hub.yaml", &hub());
    before.write("job.yaml", &hourly("job", "once", ""));
    settle(&before);
    before.pass(TO_THE_HOUR);
    let mut lost = 0;
    let mut deaths = 0;
    for side in [Side::Before, Side::After] {
        for call in 0.. {
            let path = dir.path().join(format!("{side:?}-{call}.db"));
            std::fs::copy(dir.path().join("before.db"), &path).expect("copied");
            let story = before.fork(ledger(path));
            story.live(Some((call, side)), 0).expect("it comes back");
            assert!(story.starts("job") <= 1, "twice for one time, after dying {side:?} call {call}");
            lost += 1 - story.starts("job");
            story.pass(HOUR);
            let so_far = story.starts("job");
            settle(&story);
            assert_eq!(story.starts("job"), so_far + 1, "and the next time comes");
            deaths += 1;
            // A life that took fewer calls did not die at this one.
            story.fate.reborn(None, 0, 1);
            if call > 80 {
                break;
            }
        }
    }
    assert!(lost <= 4, "of {deaths} deaths only those between claim and start lose a run, not {lost}");
}

#[test]
fn failing_calls_never_run_a_time_twice() {
    for seed in 0..60 {
        let dir = scratch();
        let story = Story::new(seed, ledger(dir.path().join("f.db")));
        story.write("hub.yaml", &hub());
        story.write("job.yaml", &hourly("job", "once", ""));
        settle(&story);
        for hour in 1..4 {
            story.pass(if hour == 1 { TO_THE_HOUR } else { HOUR });
            let result = story.live(None, 200);
            assert!(result.is_ok(), "{result:?}");
            assert!(story.starts("job") <= hour, "seed {seed}: {} runs in {hour} hours", story.starts("job"));
        }
    }
}

fn request(wish: Against, span: Millis) -> impl Fn(&mut Engine) -> Result<(), EngineError> {
    let names = vec![Name::new("a").expect("a name")];
    let request = OverrideRequest { names, wish, span, reason: "disk swap".to_owned() };
    move |engine| engine.override_services(&request)
}

#[test]
fn a_stop_lasts_its_time_or_until_it_is_taken_back() {
    let dir = scratch();
    let story = story(&dir, "s.db");
    story.write("hub.yaml", &hub());
    story.write("a.yaml", &service("a", "well", "2001", 1, None));
    story.write("b.yaml", &service("b", "well", "2002", 1, None));
    settle(&story);
    let b = story.pid("b");
    let (verdict, report, summary) = story.ask(&request(Against::Stop, HOUR), Mode::default(), SOON).expect("it stops");
    assert_eq!((verdict, story.pid("a"), summary.drift, summary.overridden), (Verdict::Settled, None, 0, 1));
    assert!(report.notes[0].message.contains("kept stopped by `trueup stop` until"), "{:?}", report.notes);
    story.quiet().expect("a stopped service is quiet");
    let stopped = line(&story, "a");
    assert_eq!((stopped.phase.as_str(), reason(&stopped).0), ("Stopped", Reason::Overridden));
    // Asking for a restart says why nothing happens, and is forgotten.
    let restart = |engine: &mut Engine| {
        engine.request_restart([Name::new("a").expect("a name")]);
        Ok(())
    };
    let (_, report, _) = story.ask(&restart, Mode::default(), SOON).expect("asked");
    assert!(report.notes[0].message.starts_with("not restarted: it is stopped by `trueup stop`"), "{:?}", report.notes);
    story.pass(Millis(HOUR.0 - MINUTE.0 * 2));
    settle(&story);
    assert_eq!(story.pid("a"), None);
    story.pass(Millis(MINUTE.0 * 2));
    settle(&story);
    assert!(story.pid("a").is_some() && story.pid("b") == b, "it runs again, and no other is touched");
    story.quiet().expect("quiet");
    // Taken back before its time.
    story.ask(&request(Against::Stop, HOUR), Mode::default(), SOON).expect("it stops");
    assert_eq!(story.pid("a"), None);
    story.ask(&request(Against::Start, HOUR), Mode::default(), SOON).expect("it starts");
    assert!(story.pid("a").is_some());
    // What is removed takes its override with it.
    story.ask(&request(Against::Stop, HOUR), Mode::default(), SOON).expect("it stops");
    story.earth.borrow_mut().tree.as_mut().expect("a tree").remove("a.yaml");
    settle(&story);
    story.write("a.yaml", &service("a", "well", "2001", 1, None));
    settle(&story);
    assert!(story.pid("a").is_some());
}

#[test]
fn a_suspended_service_runs_for_a_while_and_after_its_time() {
    let dir = scratch();
    let story = story(&dir, "u.db");
    story.write("hub.yaml", &hub());
    let until = "  suspend: { reason: disk swap, until: 2001-09-09T02:00:00Z }\n";
    story.write("a.yaml", &(service("a", "well", "2001", 1, None) + until));
    story.write("b.yaml", &service("b", "well", "2002", 1, None));
    settle(&story);
    let b = story.pid("b");
    assert_eq!(story.pid("a"), None);
    let held = line(&story, "a");
    let text = "suspended until 2001-09-09T02:00:00.000Z: disk swap".to_owned();
    assert_eq!(reason(&held), (Reason::Suspended, text));
    story.quiet().expect("quiet");
    story.ask(&request(Against::Start, MINUTE), Mode::default(), SOON).expect("it starts");
    assert!(story.pid("a").is_some());
    story.pass(MINUTE);
    settle(&story);
    assert_eq!(story.pid("a"), None, "its while is over");
    story.pass(TO_THE_HOUR);
    settle(&story);
    assert!(story.pid("a").is_some() && story.pid("b") == b);
    story.quiet().expect("quiet");
}

#[test]
fn a_crash_before_or_after_any_port_call_leaves_a_stop_or_none() {
    let dir = scratch();
    let before = story(&dir, "before.db");
    before.write("hub.yaml", &hub());
    before.write("a.yaml", &service("a", "well", "2001", 1, None));
    settle(&before);
    for side in [Side::Before, Side::After] {
        for call in 0..60 {
            let path = dir.path().join(format!("{side:?}-{call}.db"));
            std::fs::copy(dir.path().join("before.db"), &path).expect("copied");
            let story = before.fork(ledger(path));
            story.fate.reborn(Some((call, side)), 0, 1);
            let asked = story.ask(&request(Against::Stop, HOUR), Mode::default(), SOON);
            story.fate.reborn(None, 0, 1);
            settle(&story);
            let stopped = line(&story, "a").pause.is_some();
            assert_eq!(story.pid("a").is_none(), stopped, "dying {side:?} call {call}");
            assert!(asked.is_err() || stopped, "dying {side:?} call {call}: what was answered holds");
            story.pass(HOUR);
            settle(&story);
            assert!(story.pid("a").is_some(), "dying {side:?} call {call}: it ends");
            story.quiet().expect("quiet");
        }
    }
}

#[test]
fn a_clock_that_is_set_neither_stretches_a_stop_nor_runs_a_time_twice() {
    let dir = scratch();
    let story = story(&dir, "c.db");
    story.write("hub.yaml", &hub());
    story.write("a.yaml", &service("a", "well", "2001", 1, None));
    story.write("job.yaml", &hourly("job", "once", ""));
    settle(&story);
    story.pass(TO_THE_HOUR);
    story.ask(&request(Against::Stop, HOUR), Mode::default(), SOON).expect("it stops");
    assert_eq!((story.pid("a"), story.starts("job")), (None, 1));
    // A small correction changes nothing; one to before its beginning ends it.
    story.earth.borrow_mut().wall_moved = -2_000;
    settle(&story);
    assert_eq!(story.pid("a"), None);
    story.earth.borrow_mut().wall_moved = -600_000;
    settle(&story);
    assert!(story.pid("a").is_some());
    // The same full hour comes once more, and is not run once more.
    story.pass(Millis(600_000));
    settle(&story);
    assert_eq!(story.starts("job"), 1);
    // A clock set forward ends it early.
    story.ask(&request(Against::Stop, HOUR), Mode::default(), SOON).expect("it stops");
    assert_eq!(story.pid("a"), None);
    story.earth.borrow_mut().wall_moved = 3 * 3_600_000;
    settle(&story);
    assert!(story.pid("a").is_some());
    assert_eq!(story.starts("job"), 2, "three hours went by for whoever looks at the clock: one run");
}

#[test]
fn a_service_that_loses_its_schedule_runs_all_the_time() {
    let dir = scratch();
    let story = story(&dir, "l.db");
    story.write("hub.yaml", &hub());
    story.write("job.yaml", &hourly("job", "well", ""));
    settle(&story);
    story.pass(TO_THE_HOUR);
    settle(&story);
    let pid = story.pid("job").expect("it runs");
    story.earth.borrow_mut().kill(pid);
    settle(&story);
    assert_eq!(story.pid("job"), None, "what ended waits for its next time");
    let text = hourly("job", "well", "");
    let plain: Vec<&str> = text.lines().filter(|line| !line.contains("schedule")).collect();
    story.write("job.yaml", &plain.join("\n"));
    settle(&story);
    assert!(story.pid("job").is_some());
    story.quiet().expect("quiet");
}

/// One life of random hours: people stop, start, suspend and edit, the keeper dies, we die, calls fail.
fn life(seed: u64) -> Result<(), String> {
    let dir = scratch();
    let story = Story::new(seed, ledger(dir.path().join("life.db")));
    story.write("hub.yaml", &hub());
    story.write("job.yaml", &hourly("job", "once", ""));
    story.write("a.yaml", &service("a", "well", "2001", 0, None));
    let roll = |n: u64| story.earth.borrow_mut().roll() % n;
    for round in 0..14 {
        let mut wish = None;
        match roll(8) {
            0 => wish = Some(request(Against::Stop, Millis(1_000 + roll(HOUR.0 * 3)))),
            1 => wish = Some(request(Against::Start, Millis(1_000 + roll(HOUR.0 * 3)))),
            2 => {
                let later = roll(HOUR.0 * 4);
                let until = Millis(story.earth.borrow().wall().0.unsigned_abs() + later);
                let until = trueup::model::time::Timestamp(i64::try_from(until.0).expect("a moment"));
                let hold = format!("  suspend: {{ reason: seed, until: \"{until}\" }}\n");
                story.write("a.yaml", &(service("a", "well", "2001", round, None) + &hold));
            }
            3 => story.write("a.yaml", &service("a", "well", "2001", round, None)),
            4 => {
                let more = [", missed: skip", ", overlap: replace", ""][usize::try_from(roll(3)).expect("small")];
                story.write("job.yaml", &hourly("job", "once", more));
            }
            5 if story.pid("job").is_none() => story.earth.borrow_mut().kill_keeper(),
            _ => story.pass(Millis(roll(HOUR.0 * 3))),
        }
        let die = (roll(2) == 0).then(|| (roll(40), if roll(2) == 0 { Side::Before } else { Side::After }));
        story.fate.reborn(die, [0, 20, 150][usize::try_from(roll(3)).expect("small")], seed);
        let _ = match &wish {
            Some(wish) => story.ask(wish, Mode::default(), Millis(roll(20_000))),
            None => story.run(Mode::default(), Millis(roll(20_000))),
        };
        story.check()?;
        let hours = (story.earth.borrow().now.0 + HOUR.0 - TO_THE_HOUR.0) / HOUR.0;
        if story.starts("job") > hours {
            return Err(format!("{} runs in {hours} full hours", story.starts("job")));
        }
    }
    // Everything that was for a while is over after a day.
    story.pass(Millis(HOUR.0 * 24));
    // Far from the next time, which would be something to do.
    let into = story.earth.borrow().wall().0.unsigned_abs() % HOUR.0;
    story.pass(Millis((HOUR.0 * 3 / 2 - into) % HOUR.0));
    let (verdict, report, summary) = story.live(None, 0)?;
    story.pass(MINUTE);
    story.quiet()?;
    match (verdict, story.pid("a"), summary.overridden) {
        (Verdict::Settled, Some(_), 0) => Ok(()),
        other => Err(format!("{other:?} {:?}", report.waits)),
    }
}

#[test]
fn random_hours_end_as_the_files_say_and_run_no_time_twice() {
    let failed: Vec<String> = (1..=100).filter_map(|seed| life(seed).err().map(|e| format!("{seed}: {e}"))).collect();
    assert!(failed.is_empty(), "{} lives failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn a_clock_that_was_far_ahead_does_not_silence_a_schedule() {
    let dir = scratch();
    let story = story(&dir, "f.db");
    story.write("hub.yaml", &hub());
    story.write("job.yaml", &hourly("job", "once", ""));
    settle(&story);
    // A year ahead: it looks as if many times were missed, and one run makes up for them.
    story.earth.borrow_mut().wall_moved = 365 * 24 * 3_600_000;
    settle(&story);
    assert_eq!(story.starts("job"), 1);
    story.pass(MINUTE);
    story.earth.borrow_mut().wall_moved = 0;
    let (_, report, _) = story.run(Mode::default(), Millis(0)).expect("it runs");
    assert!(report.notes.iter().any(|note| note.message.contains("the clock was ahead")), "{:?}", report.notes);
    settle(&story);
    story.quiet().expect("quiet until its time");
    assert_eq!(story.starts("job"), 1, "it begins anew, and waits for its time");
    story.pass(TO_THE_HOUR);
    settle(&story);
    assert_eq!(story.starts("job"), 2);
}
