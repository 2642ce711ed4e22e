//! Keepers that were killed at bad moments: what the next one makes of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use trueup::adapters::keeper::KeeperClient;
use trueup::keeper::find;
use trueup::ports::keeper::{Keeper, Phase, Unit};

use crate::keeper::{BINARY, Home, PATIENCE, alive, always, kill, marked, name, pid, read_pid, run, shell, until};

/// Starts a helper in a group of its own, whose parent is gone at once, and writes down its pid.
fn helper(file: &Path) -> String {
    format!(
        "(perl -e 'setpgrp(0,0); exec \"sleep\", \"5555\"' & echo $! > {0}.new; mv {0}.new {0}); exec sleep 1000",
        file.display()
    )
}

#[test]
fn a_helper_of_a_living_unit_is_its_own_business() {
    run(async {
        let home = Home::new();
        let file = home.file("helper");
        let unit = home.ensure("web", &helper(&file), &always()).await;
        until("a helper", || read_pid(&file).is_some()).await;
        let pid_of_helper = read_pid(&file).expect("a pid");
        until("it leads its group", || find::stat(pid_of_helper).is_some_and(|s| s.group == pid_of_helper)).await;
        home.client.upgrade().await.expect("upgraded");
        assert!(home.unit("web").await.strays.is_empty(), "after an upgrade");
        home.kill_keeper().await;
        let seen = home.unit("web").await;
        assert!(seen.strays.is_empty(), "after a kill: {:?}", seen.strays);
        assert_eq!(pid(&seen), pid(&unit));
        assert!(alive(pid_of_helper));
        kill(pid_of_helper, Signal::KILL);
        home.end().await;
    });
}

#[test]
fn what_a_dead_leader_left_is_ended_before_another_is_started_whoever_keeps_it() {
    run(async {
        let home = Home::new();
        let file = home.file("worker");
        let worker = format!(
            "(trap '' TERM; echo $$ >/dev/null; while :; do sleep 1; done) & echo $! > {0}.new; mv {0}.new {0}",
            file.display()
        );
        let first = home.ensure("web", &format!("{worker}; exec sleep 1000"), &always()).await;
        until("a worker", || read_pid(&file).is_some()).await;
        let old = read_pid(&file).expect("a pid");
        kill(pid(&first), Signal::KILL);
        home.until("web", "being cleared", |u| u.phase == Phase::Stopping).await;
        home.kill_keeper().await;
        assert!(alive(old));
        assert_eq!(home.unit("web").await.phase, Phase::Stopping, "the next keeper knows of the rest");
        home.ensure("web", &format!("{worker}; exec sleep 1000"), &always()).await;
        let second = home.until("web", "running again", |u| u.process.is_some() && u.phase == Phase::Running).await;
        assert!(!alive(old) && pid(&second) != pid(&first));
        home.end().await;
    });
}

#[test]
fn a_stop_whose_keeper_was_killed_comes_to_its_end() {
    run(async {
        let home = Home::new();
        let file = home.file("worker");
        let script = format!(
            "trap 'sleep 0.5; exit 0' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $! > {0}.new; mv {0}.new {0}; while :; do sleep 0.1; done",
            file.display()
        );
        let first = home.ensure("web", &script, &always()).await;
        until("a worker", || read_pid(&file).is_some()).await;
        home.client.stop(&name("web")).await.expect("told");
        home.kill_keeper().await;
        until("the leader is gone", || !alive(pid(&first))).await;
        assert!(alive(read_pid(&file).expect("a pid")));
        home.until("web", "stopped", |u| u.phase == Phase::Stopped).await;
        assert!(!alive(read_pid(&file).expect("a pid")));
        home.end().await;
    });
}

#[test]
fn a_worker_in_a_session_of_its_own_does_not_outlive_keeper_and_leader() {
    run(async {
        let home = Home::new();
        let file = home.file("worker");
        let worker = format!("(setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 5556' &)", file.display());
        let first = home.ensure("web", &format!("{worker}; exec sleep 1000"), &always()).await;
        until("a worker", || read_pid(&file).is_some()).await;
        let old = read_pid(&file).expect("a pid");
        home.kill_keeper().await;
        kill(pid(&first), Signal::KILL);
        until("the leader is gone", || !alive(pid(&first))).await;
        let seen = home.until("web", "with a stray", |u| !u.strays.is_empty()).await;
        assert_eq!(seen.strays, [old]);
        home.client.stop_strays(&name("web")).await.expect("stopped");
        home.until("web", "without strays", |u| u.strays.is_empty()).await;
        assert!(!alive(old));
        home.end().await;
    });
}

#[test]
fn a_keeper_whose_folder_was_taken_away_goes_and_leaves_its_units_to_the_next() {
    run(async {
        let mut home = Home::new();
        let first = home.ensure("web", "exec sleep 1000", &always()).await;
        let old = home.keeper_pid().await;
        fs::remove_dir_all(home.state()).expect("removed");
        let anew = KeeperClient::new(&home.state(), true).with_program(Path::new(BINARY));
        let second = anew.ensure(&name("web"), &shell("exec sleep 1001"), &always(), false).await.expect("ensured");
        let running = |u: &Unit| u.phase == Phase::Running && u.process.as_ref().is_some_and(|p| p.pid != pid(&first));
        let mut unit = second;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !running(&unit) {
            assert!(tokio::time::Instant::now() < deadline, "{unit:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
            unit = anew.list().await.expect("listed").remove(0);
        }
        until("the old keeper is gone", || !alive(old)).await;
        assert_eq!(marked(&home).len(), 1, "one process, under one keeper");
        home.client = anew;
        home.end().await;
    });
}
