//! Changes that do no harm: told instead of restarted, and taken back when they do not work.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stage::{DEADLINE, Stage, alive, free_port, kill, shell, wait_until};

/// A script that counts in a file how often it is told.
fn told(stage: &Stage, more: &str) {
    let script = format!(
        "trap 'echo told $(cat {0}) >> {1}' HUP; echo started $(cat {0}) >> {1}; while :; do sleep 0.05; done",
        stage.tree("app.conf").display(),
        stage.path("heard").display()
    );
    stage.write("app.conf", "one");
    stage.write("app.yaml", &shell("app", &script, &format!("  files: [app.conf]\n{more}")));
}

fn heard(stage: &Stage) -> String {
    fs::read_to_string(stage.path("heard")).unwrap_or_default()
}

#[test]
fn a_changed_file_restarts_or_is_told() {
    let stage = Stage::new();
    stage.hub();
    told(&stage, "");
    stage.once(&[]).code(0);
    let first = stage.pid("app");
    stage.write("app.conf", "two");
    let steps = stage.once(&[]).code(0).typed("step");
    assert_eq!((steps[0]["action"].as_str(), steps[0]["detail"].as_str()), (Some("restart"), Some("files.app.conf")));
    let second = stage.pid("app");
    assert_ne!(first, second);

    told(&stage, "  reload: { signal: SIGHUP }\n");
    stage.once(&[]).code(0);
    let third = stage.pid("app");
    stage.write("app.conf", "three");
    let steps = stage.once(&[]).code(0).typed("step");
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert_eq!((steps[0]["action"].as_str(), steps[0]["reason"].as_str()), (Some("reload"), Some("FilesChanged")));
    assert_eq!(stage.pid("app"), third, "nothing was restarted");
    wait_until("it to hear", || heard(&stage).ends_with("told three\n"));
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
}

#[test]
fn a_command_may_do_the_telling_and_the_daemon_sees_the_file() {
    let stage = Stage::new();
    stage.hub();
    told(&stage, "  reload: { exec: { command: [/bin/sh, -c, \"kill -HUP $MAINPID\"] } }\n");
    let _daemon = stage.daemon();
    wait_until("it to be ready", || stage.is_ready("app"));
    let pid = stage.pid("app");
    stage.write("app.conf", "four");
    wait_until("it to hear", || heard(&stage).ends_with("told four\n"));
    assert_eq!(stage.pid("app"), pid);
}

#[test]
fn a_missing_file_blocks_only_its_service() {
    let stage = Stage::new();
    stage.hub();
    told(&stage, "");
    fs::remove_file(stage.tree("app.conf")).expect("removed");
    stage.mailbox("other", free_port(), "");
    let answer = stage.run(&["reconcile", "--once"]).code(7);
    assert!(answer.err.contains("E0321") && answer.err.contains("app.yaml:"), "{}", answer.err);
    assert!(stage.is_ready("other"));
}

/// A mailbox whose health is told by the existence of a file; the version stands in its environment.
fn version(stage: &Stage, port: u16, value: &str, flags: &str) {
    stage.write(
        "box.yaml",
        &format!(
            "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: box }}\nspec:\n  command: [trueup, demo, mailbox{flags}]\n  port: \
             {port}\n  readiness: {{ http: {{ path: /mailbox/health }}, period: 200ms }}\n  rollback: {{ after: 1s }}\n  env: {{ LOG_LEVEL: \
             {value} }}\n"
        ),
    );
}

#[test]
fn a_version_that_is_not_ready_in_time_is_taken_back_and_not_tried_again() {
    let stage = Stage::new();
    stage.hub();
    let (port, sick) = (free_port(), stage.path("sick"));
    fs::write(&sick, "").expect("written");
    version(&stage, port, "info", "");
    stage.once(&[]).code(0);
    version(&stage, port, "debug", &format!(", --sick-while, {}", sick.display()));
    let answer = stage.once(&["--timeout", "30s"]).code(7);
    let actions: Vec<String> = answer.typed("step").iter().map(|s| s["action"].to_string()).collect();
    assert_eq!(actions, ["\"restart\"", "\"refuse\"", "\"restart\""]);
    assert!(stage.is_ready("box"), "the version before it runs");
    let why = stage.condition("box", "Stalled").expect("stalled");
    assert_eq!(why["reason"], "RolledBack");
    assert!(why["message"].to_string().contains("not ready within 1s"), "{why}");
    let pid = stage.pid("box");

    let answer = stage.run(&["reconcile", "--once"]).code(7);
    assert!(answer.err.contains("E0320") && answer.err.contains("trueup restart box"), "{}", answer.err);
    assert_eq!(stage.pid("box"), pid, "it is not tried again by itself");

    // Asked for, it is tried once more: still no good, and back again.
    stage.run(&["restart", "box", "--timeout", "30s"]).code(7);
    assert!(stage.is_ready("box"));
    assert!(!alive(pid));
    // A version that works is proven, and nothing is left of the failure.
    fs::remove_file(&sick).expect("removed");
    version(&stage, port, "warn", "");
    stage.once(&[]).code(0);
    assert!(stage.condition("box", "Stalled").is_none());
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
}

#[test]
fn a_version_that_crashes_is_taken_back_by_the_daemon_without_waiting() {
    let stage = Stage::new();
    stage.hub();
    let port = free_port();
    version(&stage, port, "info", "");
    let _daemon = stage.daemon();
    wait_until("it to be ready and proven", || {
        stage.is_ready("box") && stage.run(&["events", "box"]).out.contains("Proven")
    });
    let text = fs::read_to_string(stage.tree("box.yaml")).expect("read");
    let text = text.replace("after: 1s", "after: 1h").replace("[trueup, demo, mailbox]", "[/bin/sh, -c, exit 3]");
    stage.write("box.yaml", &format!("{text}  restart: {{ backoff: {{ initial: 10ms, max: 1s }} }}\n"));
    wait_until("it to be taken back", || {
        stage.condition("box", "Stalled").is_some_and(|c| c["reason"] == "RolledBack")
    });
    wait_until("the old version to be ready", || stage.is_ready("box"));
    let events = stage.run(&["events", "box"]).code(0).out;
    assert!(events.contains("RolledBack") && events.contains("exit code 3"), "{events}");
}

#[test]
fn a_service_follows_the_restart_of_what_it_cannot_bear_to_lose_and_no_other() {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("base", free_port(), "");
    stage.write("calm.yaml", &shell("calm", "exec sleep 1000", "  dependsOn: [ { service: base } ]\n"));
    stage
        .write("frail.yaml", &shell("frail", "exec sleep 1000", "  dependsOn: [ { service: base, restart: true } ]\n"));
    let _daemon = stage.daemon();
    let ready = || ["base", "calm", "frail"].iter().all(|name| stage.is_ready(name));
    wait_until("all to be ready", ready);
    let before = ["base", "calm", "frail"].map(|name| stage.pid(name));
    kill(before[0], "KILL");
    wait_until("the frail one to be replaced", || !alive(before[2]) && ready());
    assert_eq!(stage.pid("calm"), before[1]);
    assert!(stage.run(&["events", "frail"]).out.contains("DependencyRestarted"));
}

#[test]
fn exit_codes_may_mean_success_or_the_end_of_trying() {
    let stage = Stage::new();
    stage.hub();
    let codes = "  restart: { policy: on-failure, successCodes: [3], fatalCodes: [78] }\n";
    stage.write("fine.yaml", &shell("fine", "exit 3", codes));
    stage.write(
        "after.yaml",
        &shell("after", "exec sleep 1000", "  dependsOn: [ { service: fine, condition: completed } ]\n"),
    );
    stage.write("lost.yaml", &shell("lost", "exit 78", codes));
    stage.once(&[]).code(7);
    assert!(stage.is_ready("after") && stage.is_ready("fine"));
    let lost = stage.get("lost");
    assert_eq!((lost["restarts"].as_u64(), lost["lastExit"].as_str()), (Some(0), Some("exit code 78")));
    let why = stage.condition("lost", "Ready").expect("a condition")["message"].to_string();
    assert!(why.contains("fatalCodes"), "{why}");
}

/// One request on a connection of its own. An error says at which step.
fn ask(port: u16) -> Result<(), String> {
    let failed = |what: &'static str| move |cause: std::io::Error| format!("{what}: {cause}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed("connect"))?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(failed("timeout"))?;
    let request = "GET /mailbox/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).map_err(failed("write"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed("read"))?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("answered {answer:?}")) }
}

#[test]
fn a_restart_with_a_passed_socket_refuses_no_connection() {
    let stage = Stage::new();
    stage.hub();
    let port = free_port();
    let level =
        |level: &str| stage.mailbox("box", port, &format!("  passSocket: true\n  env: {{ LOG_LEVEL: {level} }}\n"));
    level("info");
    stage.once(&[]).code(0);
    let done = AtomicBool::new(false);
    let (asked, lost) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut asked, mut lost) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                asked += 1;
                lost.extend(ask(port).err());
            }
            (asked, lost)
        });
        for value in ["warn", "error", "info", "warn", "error"] {
            let before = stage.pid("box");
            level(value);
            stage.once(&[]).code(0);
            assert_ne!(stage.pid("box"), before);
        }
        // A crash is no reason to refuse anybody either.
        let before = stage.pid("box");
        kill(before, "KILL");
        wait_until("it to be back", || !alive(before) && stage.is_ready("box"));
        done.store(true, Ordering::Relaxed);
        client.join().expect("the client")
    });
    assert!(asked > 50, "only {asked} requests were made");
    let refused: Vec<_> = lost.iter().filter(|why| why.starts_with("connect")).collect();
    assert!(refused.is_empty(), "{refused:?} of {asked}");
    // What the killed process had accepted already is lost with it; everything else is answered.
    assert!(lost.len() <= 6, "{lost:?} of {asked}");
    // Stopped for good, it refuses at once, and its port is free.
    stage.run(&["down"]).code(0);
    assert!(ask(port).is_err_and(|why| why.starts_with("connect")));
}

#[test]
fn a_passed_socket_survives_the_keeper() {
    let stage = Stage::new();
    stage.hub();
    let port = free_port();
    stage.mailbox("box", port, "  passSocket: true\n");
    stage.once(&[]).code(0);
    let (pid, inode) = (stage.pid("box"), |pid: u64| fs::read_link(format!("/proc/{pid}/fd/3")).expect("a socket"));
    let before = inode(pid);
    let keeper: u64 =
        fs::read_to_string(stage.path(".trueup/keeper.lock")).expect("a pid").trim().parse().expect("a pid");
    kill(keeper, "KILL");
    wait_until("the keeper to be gone", || !alive(keeper));
    assert_eq!(stage.once(&[]).code(0).summary()["inSync"], true);
    assert_eq!(stage.pid("box"), pid);
    kill(pid, "KILL");
    wait_until("it to be back", || !alive(pid) && stage.is_ready("box"));
    assert_eq!(inode(stage.pid("box")), before, "the same socket, taken back from the process that had it");
}

#[test]
fn services_that_pass_their_sockets_swap_their_ports() {
    let stage = Stage::new();
    stage.hub();
    let (one, two) = (free_port(), free_port());
    let ports = |a: u16, b: u16| {
        stage.mailbox("a", a, "  passSocket: true\n");
        stage.mailbox("b", b, "  passSocket: true\n");
    };
    ports(one, two);
    stage.once(&[]).code(0);
    ports(two, one);
    let answer = stage.once(&["--timeout", "20s"]).code(0);
    assert!(!answer.err.contains("kill "), "{}", answer.err);
    for (name, port) in [("a", two), ("b", one)] {
        assert_eq!(stage.get(name)["port"], port);
        assert!(stage.is_ready(name));
    }
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
}

#[test]
fn a_reload_that_never_succeeds_ends_a_run_and_says_why() {
    let stage = Stage::new();
    stage.hub();
    let more = "  files: [app.conf]\n  reload: { exec: { command: [sh, -c, exit 3] } }\n";
    fs::write(stage.tree("app.conf"), "1").expect("written");
    stage.write("app.yaml", &shell("app", "exec sleep 1000", more));
    stage.once(&[]).code(0);
    fs::write(stage.tree("app.conf"), "2").expect("written");
    let answer = stage.once(&["--timeout", "25s"]).code(7);
    assert_eq!(answer.summary()["failed"], 1);
    let waiting = answer.typed("waiting");
    let last = waiting.iter().rev().find_map(|line| line["waits"].get(0)).expect("a wait");
    assert_eq!((last["reason"].as_str(), last["doomed"].as_bool()), (Some("StepFailed"), Some(true)), "{last}");
    assert!(last["message"].as_str().is_some_and(|why| why.contains('3')), "{last}");
    assert!(stage.is_ready("app"), "it runs on");
}
