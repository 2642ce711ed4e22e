//! Stories of the continuous mode: a saved file is live, a broken one holds, and the daemon comes and goes without harm.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::stage::{Stage, alive, free_port, kill, listens, wait_until};

fn one() -> (Stage, u16) {
    let stage = Stage::new();
    let port = free_port();
    stage.hub();
    stage.mailbox("one", port, "");
    (stage, port)
}

#[test]
fn a_saved_file_is_live_and_a_broken_one_holds() {
    let (stage, port) = one();
    let _daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    let other = free_port();
    stage.mailbox("two", other, "");
    wait_until("the new file to be live", || listens(other));
    let pid = stage.pid("one");
    // As editors save: a new file is moved over the old one.
    let saved = stage.path("saved.tmp");
    fs::write(&saved, crate::stage::mailbox("one", port, "  env: { NEW: value }\n")).expect("written");
    fs::rename(&saved, stage.tree("one.yaml")).expect("renamed");
    wait_until("the change to be live", || stage.is_ready("one") && stage.pid("one") != pid);
    let pid = stage.pid("one");
    stage.write("one.yaml", "kind: [");
    wait_until("the problem to be told", || stage.daemon_output().contains("\"E0101\""));
    wait_until("it to be held", || stage.get("one")["phase"].as_str().is_some_and(|p| p.contains("Held")));
    assert_eq!(stage.pid("one"), pid);
    stage.mailbox("one", port, "  env: { NEW: value }\n");
    wait_until("it to be let go", || stage.get("one")["phase"] == "Ready");
    assert_eq!(stage.pid("one"), pid, "the mended file asks for what runs");
}

#[test]
fn a_vanished_folder_and_a_swapped_one_stop_nothing() {
    let (stage, _) = one();
    let versions = stage.path("versions");
    fs::create_dir(&versions).expect("versions");
    fs::rename(stage.path("manifests"), versions.join("1")).expect("moved");
    symlink(versions.join("1"), stage.path("manifests")).expect("linked");
    let _daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    let pid = stage.pid("one");
    fs::remove_file(stage.path("manifests")).expect("unlinked");
    wait_until("the loss to be told", || stage.daemon_output().contains("\"E0005\""));
    assert!(alive(pid));
    // The new version of the whole folder has a second service.
    let port = free_port();
    fs::create_dir(versions.join("2")).expect("version 2");
    for file in ["hub.yaml", "one.yaml"] {
        fs::copy(versions.join("1").join(file), versions.join("2").join(file)).expect("copied");
    }
    fs::write(versions.join("2/two.yaml"), crate::stage::mailbox("two", port, "")).expect("written");
    symlink(versions.join("2"), stage.path("next")).expect("linked");
    fs::rename(stage.path("next"), stage.path("manifests")).expect("swapped");
    wait_until("the second service", || listens(port));
    assert!(alive(pid) || stage.is_ready("one"));
}

#[test]
fn a_run_beside_the_daemon_is_done_by_the_daemon() {
    let (stage, port) = one();
    let daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    assert_eq!(stage.once(&["--detailed-exitcode"]).code(0).summary()["planned"], 0);
    let pid = stage.pid("one");
    stage.mailbox("one", port, "  env: { NEW: value }\n");
    let run = stage.once(&[]).code(0);
    assert_eq!(run.summary()["inSync"], true);
    assert_ne!(stage.pid("one"), pid);
    let pid = stage.pid("one");
    stage.run(&["restart", "one"]).code(0);
    assert_ne!(stage.pid("one"), pid);
    // A second daemon is refused.
    let second = stage.run(&["reconcile"]).code(5);
    assert!(second.err.contains("daemon"), "{}", second.err);
    drop(daemon);
}

#[test]
fn sigterm_ends_the_daemon_cleanly_and_leaves_the_modules() {
    let (stage, port) = one();
    let mut daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    let pid = stage.pid("one");
    kill(u64::from(daemon.0.id()), "TERM");
    let status = daemon.0.wait().expect("reaped");
    assert_eq!(status.code(), Some(0), "{}", stage.daemon_output());
    assert!(alive(pid) && listens(port));
    assert!(!stage.path(".trueup/trueup.sock").exists());
    let mut daemon = stage.daemon();
    kill(u64::from(daemon.0.id()), "INT");
    assert_eq!(daemon.0.wait().expect("reaped").code(), Some(8));
    assert!(alive(pid));
}

#[test]
fn down_ends_the_daemon_too() {
    let (stage, port) = one();
    let mut daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    stage.run(&["down"]).code(0);
    assert_eq!(daemon.0.wait().expect("reaped").code(), Some(0), "{}", stage.daemon_output());
    assert!(!listens(port));
}

#[test]
fn the_daemon_heals_a_row_and_a_module_that_followed_it() {
    let (stage, port) = one();
    stage.write("one.yaml", &crate::stage::mailbox("one", port, "  registersAs: row-one\n"));
    let _daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    wait_until("its row", || stage.row("row-one").is_some());
    stage.set_row_port("row-one", free_port());
    wait_until("the row to be put back", || stage.row("row-one").is_some_and(|r| r["port"] == port));
    wait_until("quiet", || stage.is_ready("one"));
}

#[test]
fn a_tree_in_the_middle_of_a_merge_is_left_alone_until_it_is_over() {
    let (stage, port) = one();
    let git = |args: &[&str]| {
        let status = Command::new("git").args(args).current_dir(stage.dir.path()).output().expect("git runs").status;
        assert!(status.success(), "git {args:?}");
    };
    git(&["init", "-q"]);
    let _daemon = stage.daemon();
    wait_until("one to be ready", || stage.is_ready("one"));
    let pid = stage.pid("one");
    fs::write(stage.path(".git/MERGE_HEAD"), "x\n").expect("a merge begins");
    stage.mailbox("one", port, "  env: { HALF: way }\n");
    let plan = stage.run(&["plan", "-o", "json"]).code(0);
    assert_eq!(plan.typed("step").len(), 1, "plan shows it all the same");
    let waited = stage.once(&["--timeout", "500ms"]).code(6);
    assert!(waited.typed("step").is_empty());
    assert_eq!(stage.pid("one"), pid);
    fs::remove_file(stage.path(".git/MERGE_HEAD")).expect("the merge is over");
    wait_until("the change to be live", || stage.is_ready("one") && stage.pid("one") != pid);
}
