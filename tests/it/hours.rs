//! Suspending, stopping for a while and running by the clock, with real processes, without and with a daemon.

use std::fs;

use crate::stage::{Stage, shell, wait_until};

fn one() -> Stage {
    let stage = Stage::new();
    stage.hub();
    stage.write("one.yaml", &shell("one", "exec sleep 1000", ""));
    stage
}

/// In so many seconds, as a manifest says it.
fn in_seconds(seconds: i64) -> String {
    let at = jiff::Timestamp::now().as_second() + seconds;
    jiff::Timestamp::from_second(at).expect("a moment").to_string()
}

#[test]
fn a_stop_is_said_everywhere_and_taken_back() {
    let stage = one();
    stage.once(&[]).code(0);
    let stopped = stage.run(&["stop", "one", "--reason", "disk swap", "-o", "json"]).code(0);
    assert_eq!(stopped.summary()["overridden"], 1);
    assert!(stage.get("one").get("pid").is_none());
    let table = stage.run(&["get", "one"]).code(0).out;
    assert!(table.contains("Stopped (until ") && table.contains(", by trueup stop: disk swap)"), "{table}");
    let described = stage.run(&["describe", "one"]).code(0).out;
    assert!(described.contains("Overridden") && described.contains("disk swap"), "{described}");
    for command in [&["plan", "-o", "json"][..], &["reconcile", "--once", "-o", "json"][..]] {
        let answer = stage.run(command).code(0);
        let notes = answer.typed("note");
        assert_eq!(notes.len(), 1, "{}", answer.out);
        assert_eq!((&notes[0]["resource"], &notes[0]["reason"]), (&"Service/one".into(), &"Overridden".into()));
        assert_eq!((&answer.summary()["drift"], &answer.summary()["planned"]), (&0.into(), &0.into()));
    }
    let restarted = stage.run(&["restart", "one"]).code(0).out;
    assert!(restarted.contains("not restarted: it is stopped by `trueup stop`"), "{restarted}");
    stage.run(&["start", "one"]).code(0);
    assert!(stage.is_ready("one"));
    let again = stage.run(&["start", "one"]).code(0).out;
    assert!(again.contains("nothing to take back"), "{again}");
    let wrong = stage.run(&["stop", "onne"]).code(1).err;
    assert!(wrong.contains("did you mean 'Service/one'?"), "{wrong}");
    stage.run(&["stop", "one", "--for", "8d"]).code(64);
    stage.run(&["stop", "one", "--for", "0s"]).code(64);
}

#[test]
fn a_daemon_keeps_a_stop_and_ends_it_by_itself() {
    let stage = one();
    let _daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    let first = stage.pid("one");
    stage.run(&["stop", "one", "--for", "2s"]).code(0);
    assert!(!stage.is_ready("one"));
    wait_until("it to run again", || stage.is_ready("one"));
    assert_ne!(stage.pid("one"), first);
    stage.run(&["stop", "one"]).code(0);
    stage.run(&["start", "one"]).code(0);
    assert!(stage.is_ready("one"));
    let events = stage.run(&["events", "one", "-o", "json"]).code(0).out;
    assert!(events.contains("the time of `trueup stop` is over") && events.contains("was taken back"), "{events}");
}

#[test]
fn a_suspended_service_says_why_and_runs_again_at_its_time() {
    let stage = one();
    let suspend = format!("  suspend: {{ reason: disk swap, until: \"{}\" }}\n", in_seconds(4));
    stage.write("two.yaml", &shell("two", "exec sleep 1000", &suspend));
    let _daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    let pid = stage.pid("one");
    let table = stage.run(&["get", "two"]).code(0).out;
    assert!(table.contains("Suspended (until ") && table.contains(": disk swap)"), "{table}");
    wait_until("two to run by itself", || stage.is_ready("two"));
    assert_eq!(stage.pid("one"), pid, "no other is restarted");
}

#[test]
fn a_daemon_wakes_for_a_schedule_and_a_person_does_not_wait() {
    let stage = one();
    let out = stage.path("runs");
    let script = format!("echo run >> {}", out.display());
    stage.write("job.yaml", &shell("job", &script, "  schedule: { cron: \"0 3 * * *\", timeZone: Europe/Berlin }\n"));
    stage.once(&[]).code(0);
    assert!(!out.exists(), "it waits for its time");
    let job = stage.get("job");
    assert_eq!(job["phase"], "Scheduled");
    assert!(job["nextRun"].as_str().is_some_and(|next| next.ends_with(":00:00.000Z")), "{job}");
    let table = stage.run(&["get", "job"]).code(0).out;
    assert!(table.contains("Scheduled (next run in "), "{table}");
    stage.run(&["restart", "job"]).code(0);
    wait_until("the run", || fs::read_to_string(&out).is_ok_and(|text| text.lines().count() == 1));
    wait_until("its end to be told", || {
        let message = stage.condition("job", "Ready").map(|ready| ready["message"].to_string());
        message.is_some_and(|text| text.contains("the last run succeeded; next run at"))
    });
    assert_eq!(stage.once(&["--detailed-exitcode"]).code(0).summary()["inSync"], true);
}
