//! What a daemon does with requests whose client is answered, gone, or outlived.

use std::process::Stdio;

use crate::stage::{Own, Stage, alive, free_port, kill, listens, shell, wait_until};

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
        "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: { prune: { maxCount: 1, maxShare: 0% } }\n",
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
