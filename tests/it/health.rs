//! Startup, readiness and liveness of real modules, asked and spoken.

use std::fs;

use crate::stage::{Own, Stage, alive, free_port, kill, wait_until};

/// A mailbox that is sick while the file `sick` is there.
fn patient(stage: &Stage, name: &str, flags: &str, probes: &str) -> u16 {
    let (port, sick) = (free_port(), stage.path("sick"));
    stage.write(
        &format!("{name}.yaml"),
        &format!(
            "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [trueup, demo, mailbox, --row, \
             row-{name}, --sick-while, {}{flags}]\n  port: {port}\n{probes}",
            sick.display()
        ),
    );
    port
}

fn stage() -> Stage {
    let stage = Stage::new();
    stage.hub();
    stage
}

fn last_exit(stage: &Stage, name: &str) -> String {
    stage.get(name)["lastExit"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_module_that_fails_its_liveness_probe_is_restarted_and_says_why() {
    let stage = stage();
    let probes =
        "  readiness: { tcp: {}, period: 100ms }\n  liveness: { http: { path: /mailbox/health }, period: 100ms }\n";
    patient(&stage, "box", "", probes);
    let _daemon: Own = stage.daemon();
    wait_until("it to be ready", || stage.is_ready("box"));
    let before = stage.pid("box");
    fs::write(stage.path("sick"), "").expect("written");
    wait_until("it to be replaced", || !alive(before));
    fs::remove_file(stage.path("sick")).expect("removed");
    wait_until("it to be well again", || stage.is_ready("box"));
    let why = last_exit(&stage, "box");
    assert!(why.contains("liveness probe failed 3 times: answered 503"), "{why}");
    let events = stage.run(&["events", "box"]).code(0).out;
    assert!(events.contains("Unhealthy"), "{events}");
}

#[test]
fn a_module_that_does_not_start_in_time_is_restarted_and_others_wait() {
    let stage = stage();
    fs::write(stage.path("sick"), "").expect("written");
    let probes = "  startup: { http: { path: /mailbox/health }, period: 100ms, failureThreshold: 5 }\n  readiness: { tcp: {} }\n";
    patient(&stage, "box", "", probes);
    stage.mailbox("after", free_port(), "  dependsOn: [ { service: box } ]\n");
    let _daemon = stage.daemon();
    wait_until("a first attempt to be given up", || last_exit(&stage, "box").contains("did not start within 500ms"));
    assert!(!stage.is_ready("box"), "its port accepts connections, and that is not enough");
    assert!(stage.get("after")["pid"].is_null());
    fs::remove_file(stage.path("sick")).expect("removed");
    wait_until("both to be ready", || stage.is_ready("box") && stage.is_ready("after"));
}

#[test]
fn a_module_that_speaks_for_itself_is_ready_when_it_says_so_and_stays_so_for_the_next_keeper() {
    let stage = stage();
    fs::write(stage.path("sick"), "").expect("written");
    patient(&stage, "box", ", --notify", "  readiness: { notify: {} }\n");
    stage.once(&["--timeout", "1s"]).code(6);
    assert!(!stage.is_ready("box"));
    fs::remove_file(stage.path("sick")).expect("removed");
    stage.once(&[]).code(0);
    let pid = stage.pid("box");
    let says = stage.get("box")["says"].to_string();
    assert!(says.contains("listens on"), "its STATUS is shown: {says}");
    let message = stage.condition("box", "Ready").expect("a condition")["message"].to_string();
    assert!(!message.contains("listens on"), "it is no part of a condition, which is written down: {message}");
    let described = stage.run(&["describe", "box"]).code(0).out;
    assert!(described.contains("says") && described.contains("listens on"), "{described}");
    let keeper: u64 =
        fs::read_to_string(stage.path(".trueup/keeper.lock")).expect("a pid").trim().parse().expect("a pid");
    kill(keeper, "KILL");
    wait_until("the keeper to be gone", || !alive(keeper));
    stage.once(&[]).code(0);
    assert!(stage.is_ready("box"), "what it said once still holds");
    assert_eq!(stage.pid("box"), pid);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a look that waits takes real time")]
fn a_delay_is_over_once_for_a_process_whoever_looks() {
    let stage = stage();
    let exec = "  readiness: { exec: { command: [\"true\"] }, initialDelay: 6s }\n";
    stage.write("web.yaml", &crate::stage::shell("web", "exec sleep 1000", exec));
    stage.once(&[]).code(0);
    assert!(stage.is_ready("web"));
    let history = stage.run(&["events", "web"]).code(0).out;
    let begun = std::time::Instant::now();
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    assert_eq!(stage.run(&["events", "web"]).code(0).out, history, "nothing happened");
}

#[test]
fn silence_is_noticed_by_the_keeper_alone() {
    let stage = stage();
    patient(
        &stage,
        "box",
        ", --notify",
        "  readiness: { notify: {} }\n  liveness: { notify: {}, period: 200ms, failureThreshold: 2 }\n",
    );
    stage.once(&[]).code(0);
    let before = stage.pid("box");
    fs::write(stage.path("sick"), "").expect("written");
    wait_until("it to be replaced without a daemon", || !alive(before));
    fs::remove_file(stage.path("sick")).expect("removed");
    wait_until("it to be back", || stage.is_ready("box"));
    let why = last_exit(&stage, "box");
    assert!(why.contains("did not say WATCHDOG=1 for 400ms"), "{why}");
}

#[test]
fn a_stopped_process_is_noticed_and_replaced() {
    let stage = stage();
    let probes =
        "  liveness: { http: { path: /mailbox/health }, period: 100ms, timeout: 200ms }\n  stop: { grace: 500ms }\n";
    patient(&stage, "box", "", probes);
    let _daemon = stage.daemon();
    wait_until("it to be ready", || stage.is_ready("box"));
    let before = stage.pid("box");
    kill(before, "STOP");
    wait_until("it to be replaced", || !alive(before) && stage.is_ready("box"));
    assert!(last_exit(&stage, "box").contains("liveness"), "{}", last_exit(&stage, "box"));
}
