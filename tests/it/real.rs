//! Stories with the built binary and real processes: converge, change, crash, drift, and what is refused.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use crate::stage::{Own, Stage, alive, free_port, kill, listens, shell, wait_until};

/// Three mailboxes; the third needs the first.
fn three() -> (Stage, [u16; 3]) {
    let stage = Stage::new();
    let ports = [free_port(), free_port(), free_port()];
    stage.hub();
    stage.mailbox("one", ports[0], "  env: { LOG_LEVEL: info }\n");
    stage.mailbox("two", ports[1], "");
    stage.mailbox("three", ports[2], "  dependsOn: [ { service: one } ]\n");
    (stage, ports)
}

#[test]
fn the_first_run_makes_it_so_and_the_second_does_nothing() {
    let (stage, ports) = three();
    let first = stage.once(&["--detailed-exitcode"]).code(2);
    let summary = first.summary();
    assert_eq!((&summary["resources"], &summary["changed"], &summary["inSync"]), (&4.into(), &4.into(), &true.into()));
    assert!(ports.into_iter().all(listens), "every module listens on its port");
    let steps: Vec<String> = first.typed("step").iter().map(|s| s["resource"].to_string()).collect();
    let at = |name: &str| steps.iter().position(|s| s.contains(name)).expect("a step");
    assert!(at("Service/one") < at("Service/three"), "what is needed comes first: {steps:?}");

    let ledger = fs::read(stage.path(".trueup/ledger.db")).expect("the ledger");
    let second = stage.once(&["--detailed-exitcode"]).code(0);
    let summary = second.summary();
    assert_eq!((&summary["planned"], &summary["changed"], &summary["inSync"]), (&0.into(), &0.into(), &true.into()));
    assert!(second.typed("step").is_empty());
    assert_eq!(fs::read(stage.path(".trueup/ledger.db")).expect("the ledger"), ledger, "a quiet run writes nothing");
    let text = stage.run(&["reconcile", "--once"]).code(0);
    assert!(text.out.contains("planned 0, changed 0, in sync"), "{}", text.out);
}

#[test]
fn one_value_changed_restarts_one_module_and_plan_says_so_before() {
    let (stage, _) = three();
    stage.once(&[]).code(0);
    let before = [stage.pid("one"), stage.pid("two"), stage.pid("three")];
    let text = fs::read_to_string(stage.tree("one.yaml")).expect("one.yaml");
    stage.write("one.yaml", &text.replace("LOG_LEVEL: info", "LOG_LEVEL: debug"));

    let plan = stage.run(&["plan", "-o", "json", "--detailed-exitcode"]).code(2);
    let steps = plan.typed("step");
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert_eq!(steps[0]["resource"], "Service/one");
    assert_eq!(steps[0]["action"], "restart");
    assert_eq!(steps[0]["detail"], "env.LOG_LEVEL");
    let line = text.lines().position(|l| l.contains("LOG_LEVEL")).expect("the line") + 1;
    let column = text.lines().nth(line - 1).and_then(|l| l.find("info")).expect("the value") + 1;
    assert_eq!(steps[0]["source"], format!("manifests/one.yaml:{line}:{column}"));
    assert_eq!(stage.pid("one"), before[0], "plan changes nothing");

    let done = stage.once(&[]).code(0);
    assert_eq!(done.summary()["changed"], 1);
    assert_ne!(stage.pid("one"), before[0]);
    assert_eq!([stage.pid("two"), stage.pid("three")], before[1..]);
}

#[test]
fn a_killed_module_is_back_and_ready_without_trueup() {
    let (stage, ports) = three();
    stage.once(&[]).code(0);
    let pid = stage.pid("two");
    kill(pid, "KILL");
    wait_until("the module to be back", || !alive(pid) && listens(ports[1]));
    wait_until("it to be ready", || stage.is_ready("two"));
    assert_ne!(stage.pid("two"), pid);
    assert_eq!(stage.get("two")["restarts"], 1);
    assert_eq!(stage.get("two")["lastExit"], "signal 9");
    assert_eq!(stage.once(&[]).code(0).summary()["changed"], 0);
}

#[test]
fn trueup_may_be_killed_at_any_moment_without_touching_a_module() {
    let (stage, _) = three();
    let mut daemon = stage.daemon();
    wait_until("all to be ready", || ["one", "two", "three"].iter().all(|n| stage.is_ready(n)));
    let pids = [stage.pid("one"), stage.pid("two"), stage.pid("three")];
    daemon.0.kill().expect("killed");
    daemon.0.wait().expect("reaped");
    assert_eq!([stage.pid("one"), stage.pid("two"), stage.pid("three")], pids);
    assert_eq!(stage.once(&[]).code(0).summary()["changed"], 0);
    assert_eq!([stage.pid("one"), stage.pid("two"), stage.pid("three")], pids);
}

#[test]
fn a_run_that_is_killed_in_the_middle_is_finished_by_the_next() {
    for wait_for in [".trueup/ledger.db", ".trueup/keeper.sock", ".trueup/run/one.json"] {
        let (stage, ports) = three();
        let mut run = Own(stage.command(&["reconcile", "--once"]).stdout(Stdio::null()).spawn().expect("it starts"));
        wait_until(wait_for, || stage.path(wait_for).exists());
        run.0.kill().expect("killed");
        run.0.wait().expect("reaped");
        assert!(stage.once(&[]).code(0).summary()["inSync"].as_bool().expect("a bool"), "after {wait_for}");
        assert!(ports.into_iter().all(listens));
        assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0, "after {wait_for}");
    }
}

#[test]
fn a_drifted_row_is_put_back_and_a_contested_one_is_surfaced() {
    let (stage, ports) = three();
    for (name, port) in ["one", "two"].into_iter().zip(ports) {
        stage.mailbox(name, port, &format!("  registersAs: row-{name}\n"));
    }
    stage.once(&[]).code(0);
    assert_eq!(stage.row("row-one").expect("a row")["port"], ports[0]);
    let pid = stage.pid("one");
    let elsewhere = free_port();
    stage.set_row_port("row-one", elsewhere);
    let healed = stage.once(&[]).code(0);
    assert_eq!(healed.typed("step")[0]["reason"], "RowDrifted");
    assert_eq!(healed.summary()["drift"], 1);
    assert_eq!(stage.row("row-one").expect("a row")["port"], ports[0]);
    assert_eq!(stage.pid("one"), pid, "the module listens where it should: nothing is restarted");

    // Another row holds the wanted port: shown, not overwritten.
    stage.set_row_port("row-one", elsewhere);
    stage.set_row_port("row-two", ports[0]);
    stage.mailbox("two", ports[0], "  registersAs: row-two\n");
    let clash = stage.once(&[]).code(3);
    assert!(clash.typed("problem").iter().any(|p| p["code"] == "E0204"), "two services, one port: {}", clash.out);
    stage.mailbox("two", ports[1], "  registersAs: row-two\n");
    stage.once(&[]);
    assert_eq!(stage.row("row-two").expect("a row")["port"], ports[1]);
    assert_eq!(stage.row("row-one").expect("a row")["port"], ports[0]);
}

#[test]
fn a_row_of_somebody_else_on_our_port_is_surfaced_as_drift() {
    let stage = Stage::new();
    let port = free_port();
    stage.hub();
    stage.mailbox("one", port, "  registersAs: row-one\n");
    let home = stage.path(".trueup/home");
    fs::create_dir_all(&home).expect("the home");
    let foreign = format!(
        "{{\"services\":[{{\"name\":\"foreign\",\"port\":{port},\"paths\":[],\"health\":\"/\",\"version\":\"1\",\"extra\":7}}]}}"
    );
    fs::write(home.join("services.json"), foreign).expect("written");
    stage.once(&[]).code(0);
    let drifted = stage.condition("one", "Drifted").expect("a condition");
    assert_eq!(drifted["reason"], "RowConflict");
    assert!(drifted["message"].as_str().expect("text").contains("foreign"));
    let row = stage.row("foreign").expect("the foreign row");
    assert_eq!((&row["port"], &row["extra"]), (&port.into(), &7.into()), "it is left alone");
}

#[test]
fn a_squatted_port_is_named_and_the_squatter_lives() {
    let (stage, ports) = three();
    let squatter = TcpListener::bind(("127.0.0.1", ports[1])).expect("the port");
    let run = stage.once(&[]).code(7);
    let problem = run.typed("problem").into_iter().find(|p| p["code"] == "E0307").expect("a problem");
    let message = problem["message"].as_str().expect("text");
    assert!(message.contains(&format!("port {}", ports[1])), "{message}");
    assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
    assert!(message.contains("of user "), "{message}");
    assert_eq!(problem["file"], "manifests/two.yaml");
    assert!(stage.is_ready("one") && stage.is_ready("three"), "the others go on");
    drop(squatter);
    assert!(stage.once(&[]).code(0).summary()["inSync"].as_bool().expect("a bool"));
}

#[test]
fn a_module_that_listens_elsewhere_is_brought_back() {
    let stage = Stage::new();
    let (port, elsewhere) = (free_port(), free_port());
    stage.hub();
    // Listens where a file says, and where it is told when there is none: as a module whose own configuration drifted.
    let script = "p=$(cat drifted 2>/dev/null || echo $PORT); rm -f drifted; exec python3 -c \"import socket,time;s=socket.create_server(('127.0.0.1',$p));time.sleep(1000)\"";
    stage.write("web.yaml", &shell("web", script, &format!("  port: {port}\n")));
    fs::write(stage.tree("drifted"), elsewhere.to_string()).expect("written");
    let run = stage.once(&[]).code(0);
    let restart = run.typed("step").into_iter().find(|s| s["reason"] == "ListensElsewhere").expect("a step");
    assert_eq!(restart["cause"], "drift");
    let detail = restart["detail"].as_str().expect("text");
    assert!(detail.starts_with(&format!("listens on {elsewhere} instead of {port}")), "{detail}");
    assert!(listens(port) && !listens(elsewhere));
}

#[test]
fn a_broken_file_holds_its_module_and_the_others_move() {
    let (stage, _) = three();
    stage.once(&[]).code(0);
    let pids = [stage.pid("one"), stage.pid("two")];
    stage.write("one.yaml", "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: one }\nspec:\n  comand: [x]\n");
    let text = fs::read_to_string(stage.tree("two.yaml")).expect("two.yaml");
    stage.write("two.yaml", &format!("{text}  env: {{ NEW: value }}\n"));
    let run = stage.once(&[]).code(3);
    let problem = run.typed("problem").into_iter().find(|p| p["code"] == "E0102").expect("a problem");
    assert_eq!(
        (&problem["file"], &problem["line"], &problem["column"]),
        (&"manifests/one.yaml".into(), &5.into(), &3.into())
    );
    assert!(problem["hint"].as_str().expect("a hint").contains("command"), "{problem}");
    assert_eq!(stage.pid("one"), pids[0], "held");
    assert_ne!(stage.pid("two"), pids[1], "the other one moved");
    assert_eq!(run.summary()["held"], 1);
    assert!(stage.get("one")["phase"].as_str().expect("text").contains("Held"));
    // Held is not abandoned: a crash is still healed.
    kill(pids[0], "KILL");
    wait_until("the held module to be back", || stage.is_ready("one"));
}

#[test]
fn a_tree_that_vanishes_stops_nothing() {
    let (stage, _) = three();
    stage.once(&[]).code(0);
    let pids = [stage.pid("one"), stage.pid("two"), stage.pid("three")];
    let kept = stage.path("kept");
    fs::rename(stage.path("manifests"), &kept).expect("moved away");
    let gone = stage.once(&[]).code(3);
    assert!(gone.typed("problem").iter().any(|p| p["code"] == "E0005"), "{}", gone.out);
    fs::create_dir(stage.path("manifests")).expect("an empty folder");
    stage.once(&[]).code(3);
    // Only the Hub is left: three of three services would go, within the default budget of three, so the budget is made smaller.
    stage.write(
        "hub.yaml",
        "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: { listen: none, prune: { maxCount: 1 } }\n",
    );
    let refused = stage.once(&[]).code(4);
    assert!(
        refused.out.contains("--allow-prune 3") || refused.err.contains("--allow-prune 3"),
        "{}{}",
        refused.out,
        refused.err
    );
    fs::remove_dir_all(stage.path("manifests")).expect("removed");
    fs::rename(kept, stage.path("manifests")).expect("moved back");
    assert_eq!([stage.pid("one"), stage.pid("two"), stage.pid("three")], pids);
    let back = stage.once(&[]).code(0);
    assert!(
        back.typed("step").iter().all(|s| s["resource"] == "Hub/home"),
        "only the budget is what it was: {}",
        back.out
    );
    assert_eq!([stage.pid("one"), stage.pid("two"), stage.pid("three")], pids);
}

#[test]
fn what_is_removed_from_the_tree_is_stopped_and_let_go() {
    let (stage, ports) = three();
    stage.mailbox("two", ports[1], "  registersAs: row-two\n");
    stage.once(&[]).code(0);
    let pid = stage.pid("two");
    fs::remove_file(stage.tree("two.yaml")).expect("removed");
    let plan = stage.run(&["plan", "-o", "json"]).code(0);
    assert_eq!(plan.typed("step")[0]["action"], "stop");
    let run = stage.once(&[]).code(0);
    assert_eq!(run.summary()["pruned"], 1);
    assert!(!alive(pid) && !listens(ports[1]));
    assert!(stage.row("row-two").is_none(), "its row is gone");
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
}

#[test]
fn commands_that_cannot_run_say_why_and_where() {
    let stage = Stage::new();
    stage.hub();
    let service = |name: &str, rest: &str| {
        stage.write(
            &format!("{name}.yaml"),
            &format!("apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n{rest}"),
        );
    };
    service("missing", "  command: [no-such-program-here]\n");
    fs::write(stage.tree("plain.txt"), "x").expect("written");
    service("plain", "  command: [./plain.txt]\n");
    service("nowhere", "  command: [sh]\n  workingDir: no-such-folder\n");
    service("unset", "  command: [sh]\n  secretEnv: { KEY: { env: NO_SUCH_VARIABLE } }\n");
    service("noenv", "  command: [sh]\n  envFile: [missing.env]\n");
    let run = stage.once(&[]).code(7);
    let code = |name: &str| {
        let problems = run.typed("problem");
        let of = problems.iter().find(|p| p["file"] == format!("manifests/{name}.yaml"));
        of.unwrap_or_else(|| panic!("no problem for {name}: {}", run.out)).clone()
    };
    for (name, wanted, line) in [
        ("missing", "E0304", 5),
        ("plain", "E0305", 5),
        ("nowhere", "E0306", 6),
        ("unset", "E0303", 6),
        ("noenv", "E0302", 6),
    ] {
        assert_eq!((&code(name)["code"], &code(name)["line"]), (&wanted.into(), &line.into()), "{name}");
        assert!(code(name)["hint"].is_string(), "{name} has a hint");
    }
}

#[test]
fn what_exits_at_once_is_a_crash_loop_with_its_last_exit() {
    let stage = Stage::new();
    stage.hub();
    let fast = "  restart: { backoff: { initial: 10ms }, limit: { count: 3 } }\n";
    stage.write("brief.yaml", &shell("brief", "echo something is wrong >&2; exit 3", fast));
    let run = stage.once(&[]).code(7);
    assert_eq!(run.summary()["failed"], 1);
    let row = stage.get("brief");
    assert_eq!((&row["phase"], &row["lastExit"]), (&"CrashLoop".into(), &"exit code 3".into()));
    let stalled = stage.condition("brief", "Stalled").expect("a condition");
    assert_eq!((&stalled["status"], &stalled["reason"]), (&"True".into(), &"CrashLoop".into()));
    let logs = stage.run(&["logs", "brief"]).code(0);
    assert!(logs.out.contains("something is wrong"), "{}", logs.out);
    // A person who runs it again does not wait five minutes for the next attempt.
    let again = stage.once(&[]).code(7);
    assert_eq!(again.typed("step")[0]["reason"], "CrashLoop");
}

#[test]
fn what_never_listens_ends_in_a_timeout_and_is_named() {
    let stage = Stage::new();
    stage.hub();
    stage.write("deaf.yaml", &shell("deaf", "exec sleep 1000", &format!("  port: {}\n", free_port())));
    let run = stage.once(&["--timeout", "700ms"]).code(6);
    assert_eq!(run.summary()["waiting"], 1);
    let waits = run.typed("waiting").into_iter().rev().find(|w| !w["waits"].as_array().expect("a list").is_empty());
    let wait = &waits.expect("a wait")["waits"][0];
    assert_eq!((&wait["resource"], &wait["reason"]), (&"Service/deaf".into(), &"NotReady".into()));
    assert!(run.err.contains("timed out") || run.out.contains("timed out"), "{}{}", run.out, run.err);
}

#[test]
fn what_ignores_sigterm_is_killed_with_its_whole_group() {
    let stage = Stage::new();
    stage.hub();
    let script = "trap '' TERM; sleep 1000 & echo $! > child; wait; wait; sleep 1000";
    stage.write("deaf.yaml", &shell("deaf", script, "  stop: { grace: 200ms }\n"));
    stage.once(&[]).code(0);
    let pid = stage.pid("deaf");
    wait_until("the grandchild", || fs::read_to_string(stage.tree("child")).is_ok_and(|t| t.ends_with('\n')));
    let child: u64 = fs::read_to_string(stage.tree("child")).expect("child").trim().parse().expect("a pid");
    assert!(alive(pid) && alive(child));
    stage.run(&["down"]).code(0);
    assert!(!alive(pid) && !alive(child));
}

#[test]
fn down_stops_dependants_first_and_the_keeper_last() {
    let (stage, ports) = three();
    stage.once(&[]).code(0);
    let keeper: u64 =
        fs::read_to_string(stage.path(".trueup/keeper.lock")).expect("its pid").trim().parse().expect("a pid");
    let down = stage.run(&["down", "-o", "json"]).code(0);
    let order: Vec<String> =
        down.typed("step").iter().map(|s| s["resource"].as_str().expect("text").to_owned()).collect();
    let at = |name: &str| order.iter().position(|n| n == name).expect("a step");
    assert!(at("Service/three") < at("Service/one"), "{order:?}");
    assert!(!ports.into_iter().any(listens));
    assert!(!alive(keeper));
    assert_eq!(stage.once(&[]).code(0).summary()["drift"], 0, "starting again is what was asked for");
}

#[test]
fn a_suspended_service_is_stopped_and_kept() {
    let (stage, ports) = three();
    stage.once(&[]).code(0);
    stage.mailbox("two", ports[1], "  suspend: true\n");
    let run = stage.once(&[]).code(0);
    assert_eq!((&run.summary()["changed"], &run.summary()["inSync"]), (&1.into(), &true.into()));
    assert!(!listens(ports[1]));
    assert_eq!(stage.get("two")["phase"], "Suspended");
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
    stage.mailbox("two", ports[1], "");
    stage.once(&[]).code(0);
    assert!(listens(ports[1]));
}

#[test]
fn two_runs_at_once_are_one_run_and_one_refusal_or_a_wait() {
    let (stage, _) = three();
    stage.write("slow.yaml", &shell("slow", "exec sleep 1000", &format!("  port: {}\n", free_port())));
    let mut first = Own(stage
        .command(&["reconcile", "--once", "--timeout", "3s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts"));
    wait_until("the first to hold the lock", || {
        fs::read_to_string(stage.path(".trueup/lock")).is_ok_and(|t| !t.is_empty())
    });
    let second = stage.once(&[]).code(5);
    assert!(
        second.err.contains(&format!("pid {}", first.0.id())) || second.out.contains(&format!("pid {}", first.0.id())),
        "{}{}",
        second.out,
        second.err
    );
    fs::remove_file(stage.tree("slow.yaml")).expect("removed");
    let third = stage.once(&["--lock-timeout", "30s"]).code(0);
    assert_eq!(third.summary()["inSync"], true);
    first.0.wait().expect("reaped");
}

#[test]
fn a_restart_on_request_replaces_one_process() {
    let (stage, _) = three();
    stage.once(&[]).code(0);
    let pids = [stage.pid("one"), stage.pid("two")];
    stage.run(&["restart", "one"]).code(0);
    assert_ne!(stage.pid("one"), pids[0]);
    assert_eq!(stage.pid("two"), pids[1]);
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
}

#[test]
fn a_secret_reaches_the_module_and_nothing_else() {
    let stage = Stage::new();
    stage.hub();
    fs::write(stage.tree("secret.txt"), "canary-7f3a\n").expect("written");
    let spec = "  secretEnv: { KEY: { file: secret.txt } }\n";
    stage.write("keyed.yaml", &shell("keyed", "[ ${#KEY} = 11 ] && touch told; exec sleep 1000", spec));
    let run = stage.once(&["-v"]).code(0);
    wait_until("the module to have it", || stage.tree("told").exists());
    fs::write(stage.tree("secret.txt"), "canary-changed\n").expect("written");
    let plan = stage.run(&["plan", "-o", "json"]).code(0);
    assert_eq!(plan.typed("step")[0]["detail"], "secretEnv.KEY");
    let more = [stage.run(&["describe", "keyed"]), stage.run(&["events"]), stage.run(&["get", "-o", "yaml"])];
    let mut all: Vec<Vec<u8>> =
        [&run, &plan].into_iter().chain(&more).flat_map(|a| [a.out.clone().into(), a.err.clone().into()]).collect();
    let mut folders = vec![stage.path(".trueup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("ours").flatten() {
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                all.push(fs::read(entry.path()).expect("ours"));
            }
        }
    }
    let leaks = all.iter().filter(|bytes| bytes.windows(6).any(|w| w == b"canary")).count();
    assert_eq!(leaks, 0, "a secret was written somewhere");
}

#[test]
fn a_state_folder_that_cannot_be_written_is_said_plainly() {
    let (stage, _) = three();
    fs::write(stage.path("file"), "x").expect("written");
    let run = stage.run(&["reconcile", "--once", "--state", "file"]).code(1);
    assert!(run.err.contains("file"), "{}", run.err);
    let run = stage.run(&["reconcile", "--once", "--state", "/proc/trueup-state"]).code(1);
    assert!(run.err.contains("/proc/trueup-state"), "{}", run.err);
}

#[test]
fn a_missing_input_leaves_a_running_module_ready_and_says_why_it_is_stalled() {
    let (stage, _) = three();
    stage.write("one.env", "A=1\n");
    stage.mailbox("one", free_port(), "  envFile: [one.env]\n");
    stage.once(&[]).code(0);
    let pid = stage.pid("one");
    fs::remove_file(stage.tree("one.env")).expect("removed");
    let run = stage.once(&[]).code(7);
    assert!(run.typed("problem").iter().any(|p| p["code"] == "E0302"), "{}", run.out);
    assert_eq!((stage.pid("one"), &stage.get("one")["phase"]), (pid, &"Ready,BadInput".into()));
    assert!(stage.is_ready("one"));
    let stalled = stage.condition("one", "Stalled").expect("a condition");
    assert!(stalled["message"].as_str().is_some_and(|m| m.contains("one.env")), "{stalled}");
    assert_eq!(stage.once(&[]).code(7).summary()["changed"], 0);
    stage.write("one.env", "A=1\n");
    stage.once(&[]).code(0);
    assert_eq!((stage.pid("one"), &stage.get("one")["phase"]), (pid, &"Ready".into()));
}
