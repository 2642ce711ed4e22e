//! Users, limits and cgroups of Services, with real processes. What only root can do is skipped for others, and says so.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::stage::{Stage, alive, kill, shell, wait_until};

/// Keeps trueup from making cgroups.
const WITHOUT: (&str, &str) = ("TRUEUP_CGROUPS", "off");

#[expect(clippy::print_stderr, reason = "a part that is left out must be seen")]
fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}");
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped("this test needs root");
    }
    root
}

/// Whether cgroups can be made here.
fn room() -> bool {
    let found = trueup::keeper::cgroup::find(std::process::id());
    if let Err(why) = &found {
        skipped(&format!("no room for cgroups: {why}"));
    }
    found.is_ok()
}

fn stage() -> Stage {
    let stage = Stage::new();
    stage.hub();
    stage
}

fn without_cgroups() -> Stage {
    let mut stage = stage();
    stage.env.push((WITHOUT.0.to_owned(), WITHOUT.1.to_owned()));
    stage
}

fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// One line of `/proc/PID/status`, its words joined by blanks.
fn status(pid: u64, field: &str) -> String {
    let status = read(format!("/proc/{pid}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Soft and hard limit as `/proc/PID/limits` names them.
fn limit(pid: u64, name: &str) -> String {
    let limits = read(format!("/proc/{pid}/limits"));
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// The shell has made way for what it was to become.
fn wait_for_program(pid: u64, name: &str) {
    wait_until(name, || read(format!("/proc/{pid}/comm")).trim() == name);
}

/// The folder of a process's cgroup, if it is one of ours.
fn cgroup(pid: u64) -> Option<std::path::PathBuf> {
    let own = read(format!("/proc/{pid}/cgroup"));
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    let mounts = read(format!("/proc/{pid}/mountinfo"));
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
    path.contains("/trueup-").then(|| Path::new(&mount).join(path.trim_start_matches('/')))
}

/// A user number that nobody else has: limits that count by user must not meet another test's processes.
fn lonely_user(salt: u32) -> u32 {
    1_000_000 + std::process::id() % 100_000 * 16 + salt
}

fn of_user(uid: u32) -> Vec<u64> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    pids.filter(|pid| status(*pid, "Uid").starts_with(&format!("{uid} ")) && alive(*pid)).collect()
}

fn read_pid(file: &Path) -> Option<u64> {
    read(file).trim().parse().ok()
}

#[test]
fn a_program_runs_as_its_user_within_its_limits() {
    if !root() {
        return;
    }
    let stage = stage();
    let more = "  workingDir: /\n  user: nobody\n  supplementaryGroups: [daemon]\n  resources:\n    nice: 5\n    umask: \"027\"\n    \
                rlimits: { nofile: 123, core: 0, nproc: { soft: 100, hard: 200 }, cpu: unlimited }\n";
    // Opened again by name, as many programs do with their output.
    let script = "echo hello > /dev/stdout; id -u; exec sleep 1000";
    stage.write("web.yaml", &shell("web", script, more));
    stage.once(&[]).code(0);
    let pid = stage.pid("web");
    wait_for_program(pid, "sleep");
    let entry = read("/etc/passwd").lines().find(|l| l.starts_with("nobody:")).expect("nobody").to_owned();
    let fields: Vec<&str> = entry.split(':').collect();
    let four = |id: &str| [id; 4].join(" ");
    assert_eq!((status(pid, "Uid"), status(pid, "Gid")), (four(fields[2]), four(fields[3])));
    let group = read("/etc/group").lines().find(|l| l.starts_with("daemon:")).expect("daemon").to_owned();
    assert_eq!(status(pid, "Groups"), group.split(':').nth(2).expect("a number"));
    assert_eq!(status(pid, "Umask"), "0027");
    let stat = read(format!("/proc/{pid}/stat"));
    assert_eq!(stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)), Some("5"), "nice");
    assert_eq!(limit(pid, "Max open files"), "123 123");
    assert_eq!(limit(pid, "Max core file size"), "0 0");
    assert_eq!(limit(pid, "Max processes"), "100 200");
    assert_eq!(limit(pid, "Max cpu time"), "unlimited unlimited");
    let environ = read(format!("/proc/{pid}/environ"));
    assert!(environ.split('\0').any(|v| v == format!("HOME={}", fields[5])), "{environ}");
    assert!(environ.split('\0').any(|v| v == "USER=nobody") && environ.contains("TRUEUP_MARK="), "{environ}");
    let mut open: Vec<_> =
        fs::read_dir(format!("/proc/{pid}/fd")).expect("fds").flatten().map(|e| e.file_name()).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"], "nothing of the way there is left open");
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).expect("a link"), Path::new("/dev/null"));
    let log = stage.run(&["logs", "web"]).code(0).out;
    assert!(log.contains("hello") && log.contains(fields[2]), "{log}");
    assert_eq!(stage.once(&[]).code(0).summary()["planned"], 0);
}

#[test]
fn a_user_that_is_only_a_number_keeps_no_group_of_the_keeper() {
    if !root() {
        return;
    }
    // The keeper takes its groups on from us: without any there would be none to keep.
    let theirs = rustix::thread::Gid::from_raw(4242);
    // Of this thread only, which starts the command.
    rustix::thread::set_thread_groups(&[theirs]).expect("root may");
    let stage = stage();
    let user = lonely_user(9);
    let exec = "exec sleep 1000";
    stage.write("bare.yaml", &shell("bare", exec, &format!("  workingDir: /\n  user: {user}\n  group: {user}\n")));
    stage.write("group.yaml", &shell("group", exec, &format!("  workingDir: /\n  group: {user}\n")));
    stage.write("ours.yaml", &shell("ours", exec, "  workingDir: /\n"));
    stage.once(&[]).code(0);
    for name in ["bare", "group", "ours"] {
        wait_for_program(stage.pid(name), "sleep");
    }
    assert_eq!(status(stage.pid("ours"), "Groups"), "4242", "those of the keeper");
    for name in ["bare", "group"] {
        assert_eq!(status(stage.pid(name), "Groups"), user.to_string(), "{name}");
    }
}

#[test]
fn a_probe_and_a_reload_have_the_rights_of_their_service_and_no_more() {
    if !root() {
        return;
    }
    let stage = stage();
    let device = fs::metadata("/dev/null").expect("there").uid();
    let user = lonely_user(10);
    let notes = stage.path("notes");
    fs::create_dir(&notes).expect("a folder");
    // The folder of the test is ours alone.
    for open in [stage.path("."), notes.clone()] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o777)).expect("ours");
    }
    fs::write(stage.tree("settings"), "1").expect("written");
    let note = |what: &str| {
        let file = notes.join(what);
        let script =
            format!("(id -u; id -g; id -G; umask; ulimit -n; nice; pwd) > {0}.new; mv {0}.new {0}", file.display());
        format!("{{ exec: {{ command: [/bin/sh, -c, {}] }} }}", serde_json::to_string(&script).expect("a string"))
    };
    let more = format!(
        "  workingDir: /\n  user: {user}\n  group: {user}\n  resources: {{ nice: 3, umask: \"027\", rlimits: {{ nofile: 99 }} }}\n  \
         files: [settings]\n  readiness: {}\n  liveness: {}\n  reload: {}\n",
        note("readiness"),
        note("liveness"),
        note("reload")
    );
    stage.write("web.yaml", &shell("web", "exec sleep 1000", &more));
    stage.once(&[]).code(0);
    let pid = stage.pid("web");
    fs::write(stage.tree("settings"), "2").expect("written");
    stage.once(&[]).code(0);
    assert_eq!(stage.pid("web"), pid, "it was told");
    for what in ["readiness", "liveness", "reload"] {
        wait_until(what, || notes.join(what).exists());
        let wanted = format!("{user}\n{user}\n{user}\n0027\n99\n3\n/\n");
        assert_eq!(read(notes.join(what)), wanted, "{what}");
    }
    assert_eq!(fs::metadata("/dev/null").expect("there").uid(), device, "what everybody uses is left alone");
    // What the user may not run is said with its reason.
    let locked = stage.path("locked");
    fs::write(&locked, "#!/bin/sh\n").expect("written");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).expect("ours");
    let more = format!(
        "  workingDir: /\n  user: {user}\n  group: {user}\n  readiness: {{ exec: {{ command: [{}] }} }}\n",
        locked.display()
    );
    stage.write("web.yaml", &shell("web", "exec sleep 1000", &more));
    stage.once(&["--timeout", "1s"]).code(6);
    let message = stage.condition("web", "Ready").expect("a condition")["message"].to_string();
    assert!(message.contains("Permission denied"), "{message}");
}

#[test]
fn a_module_of_another_user_speaks_where_only_it_and_root_can() {
    if !root() {
        return;
    }
    let stage = stage();
    let user = lonely_user(11);
    let more = format!("  workingDir: /\n  user: {user}\n  group: {user}\n  readiness: {{ notify: {{}} }}\n");
    stage.write("web.yaml", &shell("web", "exec sleep 1000", &more));
    stage.once(&["--timeout", "1s"]).code(6);
    let environ = read(format!("/proc/{}/environ", stage.pid("web")));
    let address = environ.split('\0').find_map(|v| v.strip_prefix("NOTIFY_SOCKET=")).expect("an address").to_owned();
    assert!(address.starts_with("/run/trueup-"), "{address}");
    let made = fs::metadata(&address).expect("a socket");
    assert_eq!((made.uid(), made.permissions().mode() & 0o777), (user, 0o600));
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    socket.send_to(b"READY=1", &address).expect("root may");
    wait_until("it to be ready", || stage.is_ready("web"));
    stage.run(&["down"]).code(0);
    wait_until("the socket to be gone", || !Path::new(&address).exists());
}

#[test]
fn a_change_of_rights_restarts_and_says_where_it_stands() {
    let stage = stage();
    stage.write("web.yaml", &shell("web", "exec sleep 1000", "  resources: { nice: 5, rlimits: { nofile: 100 } }\n"));
    stage.once(&[]).code(0);
    let pid = stage.pid("web");
    stage.write("web.yaml", &shell("web", "exec sleep 1000", "  resources: { nice: 5, rlimits: { nofile: 101 } }\n"));
    let changed = stage.once(&[]).code(0);
    let step = changed.typed("step").into_iter().find(|s| s["action"] == "restart").expect("a restart");
    assert_eq!(step["source"], "manifests/web.yaml:6:44", "{step}");
    assert_ne!(stage.pid("web"), pid);
    wait_for_program(stage.pid("web"), "sleep");
    assert_eq!(limit(stage.pid("web"), "Max open files"), "101 101");
}

#[test]
fn what_the_machine_does_not_have_is_said_before_anything_is_started() {
    let stage = without_cgroups();
    stage.write("fine.yaml", &shell("fine", "exec sleep 1000", ""));
    stage.once(&[]).code(0);
    let pid = stage.pid("fine");
    for (more, code, place, words) in [
        ("  user: no-such-user\n", "E0311", (6, 9), "does not exist on this machine"),
        ("  user: 4294967000\n", "E0311", (6, 9), "so its group is not known"),
        ("  group: no-such-group\n", "E0311", (6, 10), "does not exist on this machine"),
        ("  supplementaryGroups: [daemon, no-such]\n", "E0311", (6, 33), "group 'no-such'"),
        ("  resources: { memory: 512MiB }\n", "E0313", (6, 16), "needs a cgroup (v2) with the memory controller"),
        ("  resources: { cpu: 1.5 }\n", "E0313", (6, 16), "the cpu controller"),
        ("  resources: { cgroup: true }\n", "E0313", (6, 16), "cannot make cgroups (v2) here: TRUEUP_CGROUPS=off"),
        ("  resources: { pids: 20 }\n", "E0313", (6, 16), "the pids controller"),
    ] {
        stage.write("fine.yaml", &shell("fine", "exec sleep 1000", more));
        for words_of in [&["plan", "-o", "json"][..], &["reconcile", "--once", "-o", "json"][..]] {
            let run = stage.run(words_of);
            let problem = run.typed("problem").into_iter().next().unwrap_or_else(|| panic!("{more}: {}", run.out));
            assert_eq!(problem["code"], code, "{problem}");
            assert_eq!(
                (problem["line"].as_u64(), problem["column"].as_u64()),
                (Some(place.0), Some(place.1)),
                "{problem}"
            );
            assert!(problem["message"].as_str().expect("words").contains(words), "{problem}");
            assert!(problem["hint"].is_string(), "{problem}");
        }
        assert!(alive(pid) && stage.pid("fine") == pid, "what runs is left as it is");
    }
}

#[test]
fn a_program_that_cannot_be_become_was_never_started() {
    if !root() {
        return;
    }
    let stage = stage();
    fs::create_dir(stage.path("closed")).expect("a folder");
    fs::set_permissions(stage.path("closed"), fs::Permissions::from_mode(0o700)).expect("closed for others");
    let more =
        format!("  workingDir: {}\n  user: nobody\n  restart: {{ policy: never }}\n", stage.path("closed").display());
    stage.write("web.yaml", &shell("web", "exec sleep 1000", &more));
    stage.run(&["reconcile", "--once", "--timeout", "3s"]);
    wait_until("it has ended", || stage.get("web")["lastExit"].is_string());
    let exit = stage.get("web")["lastExit"].as_str().expect("words").to_owned();
    assert!(exit.starts_with("could not be started: working directory"), "{exit}");
    assert!(exit.contains("(as user 65534)") && exit.contains("Permission denied"), "{exit}");
}

#[test]
fn a_fork_bomb_meets_its_limit_and_ends_with_its_unit() {
    if !root() {
        return;
    }
    for cgroup in [true, false] {
        if cgroup && !room() {
            continue;
        }
        let stage = stage();
        let uid = lonely_user(u32::from(cgroup));
        let more = format!(
            "  workingDir: /\n  user: {uid}\n  group: {uid}\n  restart: {{ policy: never }}\n  stop: {{ grace: 500ms }}\n  \
             resources: {{ cgroup: {cgroup}, rlimits: {{ nproc: 30 }} }}\n"
        );
        // At most 2^7 - 1 of them, should nothing stop it; the first one forks once, before all others, and so stays.
        let script = "f() { if [ $1 -lt 6 ]; then (f $(($1+1))) & (f $(($1+1))) & fi; exec sleep 1000; }; (f 0) & exec sleep 1000";
        stage.write("bomb.yaml", &shell("bomb", script, &more));
        stage.once(&[]).code(0);
        wait_until("the limit is met", || stage.run(&["logs", "bomb"]).out.contains("fork"));
        let all = of_user(uid).len();
        assert!((10..=30).contains(&all), "{all} processes");
        stage.run(&["down"]).code(0);
        assert_eq!(of_user(uid), Vec::<u64>::new());
    }
}

/// A program in the background, in a session of its own, that does not care for SIGTERM; and the one that stays.
fn daemonizes(file: &Path, before: &str) -> String {
    let file = file.display();
    format!(
        "({before} setsid sh -c 'trap \"\" TERM; echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000' &) ; exec sleep 1000"
    )
}

#[test]
fn what_goes_into_the_background_ends_with_the_unit() {
    for cgroup in [true, false] {
        let (stage, more) = (stage(), format!("  stop: {{ grace: 300ms }}\n  resources: {{ cgroup: {cgroup} }}\n"));
        if cgroup && !room() {
            continue;
        }
        let file = stage.path("background");
        stage.write("web.yaml", &shell("web", &daemonizes(&file, ""), &more));
        stage.once(&[]).code(0);
        wait_until("the one in the background", || read_pid(&file).is_some());
        let (leader, background) = (stage.pid("web"), read_pid(&file).expect("a pid"));
        assert!(alive(background) && leader != background);
        // The leader crashes: its successor starts only when nothing of it is left.
        fs::remove_file(&file).expect("removed");
        kill(leader, "KILL");
        wait_until("another one in the background", || read_pid(&file).is_some());
        assert!(!alive(background), "both at once, cgroup: {cgroup}");
        let background = read_pid(&file).expect("a pid");
        stage.run(&["down"]).code(0);
        assert!(!alive(background), "left behind, cgroup: {cgroup}");
    }
}

#[test]
fn a_cgroup_holds_even_what_hides_and_goes_with_the_unit() {
    if !room() {
        return;
    }
    let stage = stage();
    let file = stage.path("background");
    // Without its environment nothing but the cgroup tells whose it is.
    stage.write(
        "web.yaml",
        &shell(
            "web",
            &daemonizes(&file, "env -i PATH=/usr/bin:/bin"),
            "  stop: { grace: 300ms }\n  resources: { cgroup: true }\n",
        ),
    );
    stage.once(&[]).code(0);
    wait_until("the one in the background", || read_pid(&file).is_some());
    let (leader, background) = (stage.pid("web"), read_pid(&file).expect("a pid"));
    let folder = cgroup(leader).expect("a cgroup");
    assert!(folder.ends_with("web"), "{}", folder.display());
    assert_eq!(cgroup(background).as_ref(), Some(&folder));
    // A keeper that is killed, a leader that ends meanwhile: the next keeper still knows where to look.
    let keeper = read_pid(&stage.path(".trueup/keeper.lock")).expect("a keeper");
    kill(keeper, "KILL");
    wait_until("the keeper is gone", || !alive(keeper));
    kill(leader, "KILL");
    wait_until("the leader is gone", || !alive(leader));
    fs::remove_file(&file).expect("removed");
    stage.once(&[]).code(0);
    wait_until("the one that hid is gone", || !alive(background));
    wait_until("its successor", || read_pid(&file).is_some());
    let background = read_pid(&file).expect("a pid");
    stage.run(&["down"]).code(0);
    assert!(!alive(background));
    wait_until("the cgroups are gone", || !folder.parent().expect("ours").exists());
}

#[test]
fn a_running_unit_is_put_into_a_cgroup_without_a_restart() {
    if !room() {
        return;
    }
    let stage = stage();
    stage.write("web.yaml", &shell("web", "sleep 1000 & exec sleep 1001", ""));
    stage.once(&[]).code(0);
    let pid = stage.pid("web");
    assert_eq!(cgroup(pid), None, "it was not asked for");
    stage.write("web.yaml", &shell("web", "sleep 1000 & exec sleep 1001", "  resources: { cgroup: true }\n"));
    let changed = stage.once(&[]).code(0);
    assert_eq!(changed.typed("step")[0]["action"], "update");
    assert_eq!(stage.pid("web"), pid);
    let folder = cgroup(pid).expect("a cgroup");
    assert_eq!(read(folder.join("cgroup.procs")).lines().count(), 2, "its group came with it");
    stage.run(&["down"]).code(0);
    wait_until("the cgroups are gone", || !folder.parent().expect("ours").exists());
}

#[test]
fn by_hand_the_way_into_a_program_says_what_it_is() {
    let answer = stage().run(&["become", "/bin/true", "true"]).code(64);
    assert!(answer.err.contains("started by the keeper"), "{}", answer.err);
}

#[test]
fn what_the_loader_reads_reaches_the_program_and_not_the_binary_that_becomes_it() {
    let stage = Stage::new();
    stage.hub();
    let out = stage.path("seen");
    let script = format!("env > {0}.new; mv {0}.new {0}; exec sleep 1000", out.display());
    let more =
        "  env: { LD_PRELOAD: /nonexistent/evil.so, LD_LIBRARY_PATH: /nonexistent }\n  resources: { umask: \"022\" }\n";
    stage.write("web.yaml", &shell("web", &script, more));
    stage.once(&[]).code(0);
    wait_until("the program to tell", || out.exists());
    let env = std::fs::read_to_string(&out).expect("read");
    assert!(env.contains("LD_PRELOAD=/nonexistent/evil.so\n") && !env.contains("TRUEUP_HELD_"), "{env}");
    // The loader complains for every program that it loads with it: once for sh, and not for trueup.
    let log = stage.run(&["logs", "web"]).out;
    assert!(!log.contains("trueup"), "{log}");
}
