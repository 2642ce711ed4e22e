//! A state folder belongs to one tree: neighbours, slips of the keyboard, moved folders.

use std::fs;

use crate::stage::{Stage, alive, free_port, mailbox};

const HUB: &str = "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: { listen: none }\n";

fn one() -> (Stage, u64) {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("one", free_port(), "");
    stage.once(&[]).code(0);
    let pid = stage.pid("one");
    (stage, pid)
}

#[test]
fn a_second_tree_beside_the_first_is_refused_and_says_what_to_do() {
    let (stage, pid) = one();
    let init = stage.run(&["init", "home"]).code(0);
    assert!(
        init.err.contains("belongs to the tree") && init.out.contains("--state .trueup-home"),
        "{}{}",
        init.out,
        init.err
    );
    fs::write(stage.path("home/other.yaml"), mailbox("other", free_port(), "")).expect("written");
    let ledger = fs::read(stage.path(".trueup/ledger.db")).expect("the ledger");
    for words in
        [&["reconcile", "--once"][..], &["reconcile"], &["plan"], &["get"], &["describe", "one"], &["restart", "one"]]
    {
        let refused = stage.run(&[words, &["-f", "home"]].concat()).code(4);
        assert!(refused.err.contains("manifests, not to") && refused.err.contains("--state"), "{}", refused.err);
    }
    assert_eq!(fs::read(stage.path(".trueup/ledger.db")).expect("the ledger"), ledger, "nothing was written");
    let pids = [stage.pid("one"), pid];
    assert!(alive(pid) && pids[0] == pid);
    // With a state of its own it runs beside the first.
    let own = ["-f", "home", "--state", ".trueup-home"];
    stage.run(&[&["reconcile", "--once"][..], &own].concat()).code(0);
    assert_eq!(stage.run(&["plan", "--detailed-exitcode"]).code, 0);
    stage.run(&[&["down"][..], &own].concat()).code(0);
    assert!(alive(pid));
    // Stopping is always possible, and stops what the state holds.
    stage.run(&["down", "-f", "home"]).code(0);
    assert!(!alive(pid));
}

#[test]
fn a_daemon_is_not_asked_to_do_another_tree() {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("one", free_port(), "");
    let _daemon = stage.daemon();
    crate::stage::wait_until("one to be ready", || stage.is_ready("one"));
    fs::create_dir(stage.path("home")).expect("a folder");
    fs::write(stage.path("home/hub.yaml"), HUB).expect("written");
    stage.run(&["reconcile", "--once", "-f", "home"]).code(4);
    let refused = stage.run(&["reconcile", "--once", "-f", "home", "--adopt-state"]).code(4);
    assert!(refused.err.contains("a daemon is running"), "{}", refused.err);
    stage.once(&[]).code(0);
}

#[test]
fn a_slip_of_the_keyboard_writes_nothing() {
    let (stage, pid) = one();
    let events = stage.run(&["events", "-o", "json"]).out;
    let refused = stage.run(&["reconcile", "-f", "nowhere", "--once"]).code(4);
    assert!(refused.err.contains("does not exist"), "{}", refused.err);
    assert_eq!(stage.run(&["events", "-o", "json"]).out, events);
    assert!(alive(pid));
    // Where there is no state yet, none is made.
    fs::create_dir(stage.path("deep")).expect("a folder");
    for words in [&["reconcile", "--once"][..], &["reconcile"]] {
        let refused = stage.run(&[words, &["-f", "deep/nowhere"]].concat()).code(3);
        assert!(refused.err.contains("does not exist"), "{}", refused.err);
        assert!(!stage.path("deep/.trueup").exists());
    }
}

#[test]
fn a_tree_that_was_moved_is_adopted_when_a_person_says_so() {
    let (stage, _) = one();
    fs::rename(stage.path("manifests"), stage.path("conf")).expect("moved");
    let refused = stage.run(&["reconcile", "--once", "-f", "conf"]).code(4);
    assert!(refused.err.contains("if the tree was moved") && refused.err.contains("Hub/home"), "{}", refused.err);
    stage.run(&["plan", "-f", "conf", "--adopt-state"]).code(0);
    stage.run(&["reconcile", "--once", "-f", "conf", "--adopt-state"]).code(0);
    stage.run(&["reconcile", "--once", "-f", "conf"]).code(0);
    // The old name is now the slip.
    stage.run(&["reconcile", "--once"]).code(4);
    assert!(stage.run(&["get", "-f", "conf"]).code(0).out.contains("Service  one"));
}
