//! Machines and modules at their limits: what happens is bounded, said, and over when the fault is.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::TcpListener;

use trueup::adapters::keeper::KeeperClient;
use trueup::keeper::{find, marks};

use crate::stage::{Stage, alive, free_port, kill, shell, wait_until};

fn stage() -> Stage {
    let stage = Stage::new();
    stage.hub();
    stage
}

/// The processes of each service: leaders of groups that carry our mark.
fn running(stage: &Stage) -> BTreeMap<String, Vec<u32>> {
    let id = marks::state_id(&fs::canonicalize(stage.path(".trueup")).expect("a state folder"));
    let mut running: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in find::all().into_iter().filter(|(pid, stat)| stat.alive() && stat.group == *pid) {
        let mark = find::mark(pid).unwrap_or_default();
        if let Some((unit, _)) = mark.strip_prefix(&id).and_then(|m| m.strip_prefix('/')?.split_once('/')) {
            running.entry(unit.to_owned()).or_default().push(stat.group);
        }
    }
    running
}

#[test]
fn without_descriptors_nothing_runs_twice_and_the_rest_follows_when_there_are_some() {
    let stage = stage();
    for n in 0..40 {
        stage.write(&format!("s{n}.yaml"), &shell(&format!("s{n}"), "exec sleep 1000", ""));
    }
    let mut command = stage.command(&["reconcile", "--once"]);
    let limited = stage.command(&[]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &format!("ulimit -n 64; exec {} reconcile --once --timeout 20s", env!("CARGO_BIN_EXE_trueup"))]);
    shell.current_dir(stage.dir.path()).env_clear().envs(limited.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let answer = shell.output().expect("it runs");
    assert_eq!(answer.status.code(), Some(7), "{}", String::from_utf8_lossy(&answer.stderr));
    let some = running(&stage);
    assert!(some.len() > 5 && some.len() < 40, "{} run", some.len());
    assert!(some.values().all(|pids| pids.len() == 1), "{some:?}");
    // A keeper with room takes over, and what runs already runs on.
    let keeper = fs::read_to_string(stage.path(".trueup/keeper.lock")).expect("a pid").trim().parse().expect("a pid");
    kill(keeper, "TERM");
    wait_until("the keeper to be gone", || !alive(keeper));
    assert!(command.output().expect("it runs").status.success());
    let all = running(&stage);
    assert_eq!(all.len(), 40);
    assert!(all.values().all(|pids| pids.len() == 1), "{all:?}");
    assert!(some.iter().all(|(unit, pids)| all[unit] == *pids), "what ran was left alone");
}

#[test]
fn a_module_may_close_its_output_and_leave_its_group() {
    let stage = stage();
    stage.write("mute.yaml", &shell("mute", "exec >&- 2>&- <&-; sleep 1000", ""));
    stage.once(&[]).code(0);
    let pid = stage.pid("mute");
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
    kill(pid, "KILL");
    wait_until("it to be back", || !alive(pid) && stage.is_ready("mute"));
    stage.run(&["down"]).code(0);
    assert!(running(&stage).is_empty());
}

#[test]
fn a_module_that_ignores_its_stop_is_killed_after_its_grace() {
    let stage = stage();
    stage.write("deaf.yaml", &shell("deaf", "trap '' TERM; while :; do sleep 1; done", "  stop: { grace: 300ms }\n"));
    stage.once(&[]).code(0);
    let pid = stage.pid("deaf");
    stage.run(&["down", "--timeout", "20s"]).code(0);
    assert!(!alive(pid) && running(&stage).is_empty());
}

#[test]
fn a_module_that_ends_at_once_with_success_is_a_loop_and_no_busy_one() {
    let stage = stage();
    stage.write("brief.yaml", &shell("brief", "exit 0", "  restart: { backoff: { initial: 10ms, max: 1m } }\n"));
    stage.once(&["--timeout", "20s"]).code(7);
    let row = stage.get("brief");
    assert_eq!((row["phase"].as_str(), row["lastExit"].as_str()), (Some("CrashLoop"), Some("exit code 0")));
    assert!(row["restarts"].as_u64().is_some_and(|n| n < 20), "{row}");
}

#[test]
fn a_probe_that_hangs_is_given_up_and_says_so() {
    let stage = stage();
    // Accepts, and never answers.
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            let _ = stream.read(&mut byte);
            held.push(stream);
        }
    });
    let probe = format!("  readiness: {{ http: {{ path: /, port: {port} }}, timeout: 100ms, period: 100ms }}\n");
    stage.write("stuck.yaml", &shell("stuck", "exec sleep 1000", &probe));
    stage.mailbox("other", free_port(), "");
    stage.once(&["--timeout", "3s"]).code(6);
    let why = stage.condition("stuck", "Ready").expect("a condition")["message"].to_string();
    assert!(why.contains("no answer within 100 ms"), "{why}");
    assert!(stage.is_ready("other"), "nobody else waits for it");
}

#[test]
fn a_program_that_is_swapped_while_it_runs_is_used_at_the_next_start() {
    let stage = stage();
    let program = stage.tree("module.sh");
    let install = |text: &str| {
        let new = stage.path("module.new");
        fs::write(&new, text).expect("written");
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
        fs::rename(new, &program).expect("renamed");
    };
    install("#!/bin/sh\nexec sleep 1001\n");
    let service = |more: &str| {
        let text =
            "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: module }\nspec:\n  command: [./module.sh]\n";
        stage.write("module.yaml", &format!("{text}{more}"));
    };
    service("");
    stage.once(&[]).code(0);
    let first = stage.pid("module");
    let words = |pid: u64| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    install("#!/bin/sh\nexec sleep 1002\n");
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
    assert_eq!(stage.pid("module"), first, "nobody said that the program is watched");
    kill(first, "KILL");
    wait_until("the new program to run", || !alive(first) && stage.is_ready("module"));
    assert_eq!(words(stage.pid("module")), "sleep 1002 ");
    // With `files` it is.
    service("  files: [module.sh]\n");
    stage.once(&[]).code(0);
    install("#!/bin/sh\nexec sleep 1003 # \u{fe}\n");
    let steps = stage.once(&[]).code(0).typed("step");
    assert_eq!((steps[0]["action"].as_str(), steps[0]["detail"].as_str()), (Some("restart"), Some("files.module.sh")));
    wait_until("the newest program to run", || words(stage.pid("module")) == "sleep 1003 ");
}

#[test]
fn an_upgrade_under_a_low_limit_of_descriptors_loses_none() {
    let stage = stage();
    for n in 0..50 {
        let script = "i=0; while :; do i=$((i+1)); echo number $i; sleep 0.05; done";
        stage.write(&format!("s{n}.yaml"), &shell(&format!("s{n}"), script, ""));
    }
    let limited = stage.command(&[]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &format!("ulimit -Sn 64; exec {} reconcile --once --timeout 30s", env!("CARGO_BIN_EXE_trueup"))]);
    shell.current_dir(stage.dir.path()).env_clear().envs(limited.get_envs().filter_map(|(k, v)| Some((k, v?))));
    assert!(shell.output().expect("it runs").status.success());
    let before = running(&stage);
    assert_eq!(before.len(), 50);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client =
            KeeperClient::new(&stage.path(".trueup"), true).with_program(env!("CARGO_BIN_EXE_trueup").as_ref());
        client.upgrade().await.expect("upgraded");
    });
    assert_eq!(running(&stage), before);
    let last = |n: usize| {
        let log = fs::read_to_string(stage.path(&format!(".trueup/logs/s{n}/current.log"))).unwrap_or_default();
        log.lines().count()
    };
    let counts: Vec<usize> = (0..50).map(last).collect();
    wait_until("all of them to be heard again", || (0..50).all(|n| last(n) > counts[n] + 2));
}

#[test]
fn a_silent_service_has_an_empty_log_and_hides_no_other() {
    let stage = stage();
    stage.write("mute.yaml", &shell("mute", "exec sleep 1000", ""));
    stage.write("loud.yaml", &shell("loud", "echo hello; exec sleep 1000", ""));
    stage.once(&[]).code(0);
    wait_until("it to be heard", || stage.run(&["logs", "loud"]).out.contains("hello"));
    let both = stage.run(&["logs", "mute", "loud"]).code(0);
    assert!(both.out.contains("hello"), "{}", both.out);
    assert_eq!(stage.run(&["logs", "mute"]).code(0).out, "");
    stage.run(&["logs", "nobody"]).code(1);
}
