//! What a daemon does with requests whose client is answered, gone, or outlived.

use std::process::Stdio;
use std::time::Instant;

use crate::stage::{DEADLINE, Own, Stage, alive, free_port, kill, listens, shell, wait_until};

/// A mailbox, and a service that does not stop when asked to, within its grace.
fn stubborn(grace: &str) -> (Stage, u16, Own) {
    let stage = Stage::new();
    let port = free_port();
    stage.hub();
    stage.mailbox("one", port, "");
    let script = "trap '' TERM; while :; do sleep 0.2; done";
    stage.write("deaf.yaml", &shell("deaf", script, &format!("  stop: {{ grace: {grace} }}\n")));
    let daemon = stage.daemon();
    wait_until("both to be ready", || stage.is_ready("one") && stage.is_ready("deaf"));
    (stage, port, daemon)
}

#[test]
fn a_down_that_ran_out_of_time_goes_on_and_ends_the_daemon() {
    let (stage, port, mut daemon) = stubborn("3s");
    let pid = stage.pid("deaf");
    let late = stage.run(&["down", "--timeout", "300ms"]).code(6);
    assert!(late.err.contains("stopping goes on"), "{}", late.err);
    assert!(alive(pid));
    wait_until("the daemon to end", || daemon.0.try_wait().expect("its status").is_some());
    assert!(!alive(pid) && !listens(port), "everything is stopped, and nothing was started again");
    let summaries = stage.daemon_output().lines().filter(|l| l.contains("\"type\":\"summary\"")).count();
    assert_eq!(summaries, 2, "one for the start, one for the end: {}", stage.daemon_output());
}

#[test]
fn a_down_that_is_called_off_starts_again_what_has_stopped() {
    let (stage, port, _daemon) = stubborn("25s");
    let mut down = Own(stage.command(&["down", "--timeout", "25s"]).stdout(Stdio::null()).spawn().expect("it starts"));
    wait_until("the first to be stopped", || !listens(port));
    kill(u64::from(down.0.id()), "INT");
    assert_eq!(down.0.wait().expect("it ends").code(), Some(8));
    wait_until("the first to be back", || listens(port));
    kill(stage.pid("deaf"), "KILL");
}

#[test]
fn who_waits_while_everything_is_stopped_is_told() {
    let stage = Stage::new();
    stage.hub();
    let port = free_port();
    stage.write("never.yaml", &shell("never", "exec sleep 1000", &format!("  port: {port}\n")));
    let _daemon = stage.daemon();
    wait_until("it to run", || stage.get("never")["pid"].is_u64());
    let words = ["restart", "never", "--timeout", "25s"];
    let waits = stage.command(&words).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    wait_until("the request to be there", || stage.daemon_output().contains("\"Requested\""));
    stage.run(&["down"]).code(0);
    let told = waits.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(text.contains("everything was stopped by 'trueup down'"), "{text}");
}

#[test]
fn a_removal_beyond_the_budget_is_told_by_the_daemon_and_shown() {
    let stage = Stage::new();
    stage.write(
        "hub.yaml",
        "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: { listen: none, prune: { maxCount: 1, maxShare: 0% } }\n",
    );
    for name in ["a", "b", "c", "d", "e"] {
        stage.write(&format!("{name}.yaml"), &shell(name, "exec sleep 1000", ""));
    }
    let _daemon = stage.daemon_with(&["--allow-prune", "2"]);
    wait_until("all to be ready", || ["a", "b", "c", "d", "e"].iter().all(|name| stage.is_ready(name)));
    let remove = |names: [&str; 2]| {
        // Moved away in one go, so that no look sees one of them alone.
        let apart = stage.path(&format!("apart-{}", names[0]));
        std::fs::create_dir(&apart).expect("a folder");
        for name in names {
            std::fs::rename(stage.tree(&format!("{name}.yaml")), apart.join(name)).expect("moved");
        }
    };
    remove(["a", "b"]);
    let there = |name: &str| stage.run(&["get", "-o", "json"]).out.contains(&format!("\"name\":\"{name}\""));
    wait_until("the number to be used", || !there("a") && !there("b"));
    remove(["c", "d"]);
    wait_until("the refusal to be told", || stage.daemon_output().contains("--allow-prune 2"));
    let line = stage.get("c");
    assert_eq!(line["phase"], "Ready,PruneBudget");
    assert!(line["uptimeMs"].as_u64().is_some_and(|ms| ms > 0), "{line}");
    assert!(stage.is_ready("c"), "it runs on, and is told to be well");
    let stalled = stage.condition("c", "Stalled").expect("a condition");
    assert!(stalled["message"].as_str().is_some_and(|m| m.contains("--allow-prune 2")), "{stalled}");
    let told = stage.run(&["describe", "c"]).code(0).out;
    assert!(told.contains("PruneBudget") && told.contains("--allow-prune 2"), "{told}");
    stage.once(&["--allow-prune", "2"]).code(0);
    assert!(!there("c") && there("e"));
}

#[test]
fn a_death_is_told_by_the_daemon_and_in_the_events() {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("one", free_port(), "");
    let _daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    kill(stage.pid("one"), "KILL");
    wait_until("the death to be told", || stage.daemon_output().contains("died (signal 9)"));
    let events = stage.run(&["events", "one"]).code(0).out;
    assert_eq!(events.matches("died (signal 9)").count(), 1, "{events}");
}

#[test]
fn a_list_asks_no_secret_command_and_shows_what_is_broken() {
    let stage = Stage::new();
    stage.hub();
    let asked = stage.path("asked");
    let command = format!("echo x >> {}; echo secret", asked.display());
    let more = format!("  secretEnv: {{ KEY: {{ command: [sh, -c, \"{command}\"] }} }}\n");
    stage.write(
        "sleeper.yaml",
        &format!(
            "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: sleeper }}\nspec:\n  command: [sleep, '600']\n{more}"
        ),
    );
    stage.once(&[]).code(0);
    let before = std::fs::read(&asked).expect("it was asked for the start");
    stage.write("new.yaml", "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: new }\nspec: { comand: [x] }\n");
    let list = stage.run(&["get", "-o", "json"]).code(0);
    let phase = |name: &str| {
        let rows = list.typed("resource");
        rows.iter().find(|row| row["name"] == name).map(|row| row["phase"].clone()).unwrap_or_default()
    };
    assert_eq!((phase("sleeper"), phase("new")), ("Ready".into(), "Invalid".into()), "{}", list.out);
    assert_eq!(list.typed("problem").len(), 1);
    stage.run(&["describe", "sleeper"]).code(0);
    stage.run(&["describe", "new"]).code(0);
    assert_eq!(std::fs::read(&asked).expect("still there"), before, "nobody asked again");
    std::fs::rename(stage.path("manifests"), stage.path("elsewhere")).expect("moved");
    assert!(stage.run(&["get"]).code(3).out.contains("sleeper"), "what runs is listed all the same");
    std::fs::rename(stage.path("elsewhere"), stage.path("manifests")).expect("moved back");
    stage.run(&["down"]).code(0);
}

#[test]
fn a_restart_answers_for_what_it_named() {
    let stage = Stage::new();
    stage.hub();
    let service = |name: &str, spec: &str| {
        stage.write(
            &format!("{name}.yaml"),
            &format!("apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {spec}\n"),
        );
    };
    service("well", "{ command: [sleep, '600'] }");
    service("lost", "{ command: [no-such-program] }");
    service("job", "{ command: ['true'], restart: { policy: never } }");
    stage.once(&[]).code(7);
    for beside_a_daemon in [false, true] {
        let _daemon = beside_a_daemon.then(|| stage.daemon());
        let before = stage.pid("well");
        let answer = stage.run(&["restart", "well", "-o", "json"]).code(0);
        assert_ne!(stage.pid("well"), before);
        assert_eq!(
            (answer.summary()["failed"].clone(), answer.typed("problem").len()),
            (0.into(), 0),
            "{}",
            answer.out
        );
        let job = stage.run(&["restart", "job", "-o", "json"]).code(0);
        let step = job.typed("step").into_iter().find(|step| step["resource"] == "Service/job").expect("it ran again");
        assert_eq!(step["reason"], "Requested");
        assert!(step["message"].as_str().unwrap_or_default().contains("pid "), "{step}");
        stage.run(&["restart", "lost"]).code(7);
    }
    stage.run(&["down"]).code(0);
}

#[test]
fn a_daemon_says_when_it_watches_and_when_a_mistake_is_mended() {
    let stage = Stage::new();
    stage.hub();
    let _daemon = stage.daemon();
    wait_until("the first pass", || stage.daemon_output().contains("watching manifests: 1 resource, in sync"));
    stage.write("new.yaml", "kind: [\n");
    wait_until("the mistake", || stage.daemon_output().contains("E0101"));
    stage.write("new.yaml", "# nothing yet\n");
    wait_until("the repair", || stage.daemon_output().contains("new.yaml: repaired"));
    stage.run(&["down"]).code(0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a story in real time")]
fn a_down_ends_in_time_while_the_ledger_cannot_be_written_and_goes_on_after_that() {
    let (stage, port, mut daemon) = stubborn("300ms");
    let ledger = rusqlite::Connection::open(stage.path(".trueup/ledger.db")).expect("the ledger");
    ledger.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    let begun = Instant::now();
    let late = stage.run(&["down", "--timeout", "2s"]).code(6);
    assert!(begun.elapsed() < DEADLINE && listens(port), "nothing is stopped that cannot be written down");
    assert!(late.err.contains("stopping goes on"), "{}", late.err);
    ledger.execute_batch("ROLLBACK").expect("let go");
    wait_until("the daemon to end", || daemon.0.try_wait().expect("its status").is_some());
    assert!(!listens(port));
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for_for_ever_and_does_not_do_later_what_was_given_up() {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("one", free_port(), "");
    let daemon = stage.daemon();
    wait_until("it to be ready", || stage.is_ready("one"));
    let pid = stage.pid("one");
    kill(u64::from(daemon.0.id()), "STOP");
    let late = stage.run(&["restart", "one", "--timeout", "1s"]).code(6);
    assert!(late.err.contains("does not answer"), "{}", late.err);
    kill(u64::from(daemon.0.id()), "CONT");
    stage.run(&["reconcile", "--once"]).code(0);
    assert_eq!(stage.pid("one"), pid, "what was given up is not done later");
    drop(daemon);
}
