//! A new binary in the place of the old one: the keeper becomes it, and no module notices.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::stage::{Stage, alive, free_port, kill, wait_until};

/// Puts a fresh copy of the binary there in one step, as a package manager does.
fn install(at: &Path) {
    let new = at.with_extension("new");
    fs::copy(env!("CARGO_BIN_EXE_trueup"), &new).expect("copied");
    fs::rename(new, at).expect("renamed");
}

fn once(stage: &Stage, binary: &Path) {
    let mut command = Command::new(binary);
    command.args(["reconcile", "--once"]).current_dir(stage.dir.path()).env_clear().env("PATH", "/usr/bin:/bin");
    assert!(command.output().expect("it runs").status.success());
}

#[test]
fn a_replaced_binary_takes_over_the_keeper_and_no_module_notices() {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("one", free_port(), "");
    stage.mailbox("two", free_port(), "");
    let binary = stage.path("trueup");
    install(&binary);
    once(&stage, &binary);
    let before = [stage.pid("one"), stage.pid("two")];
    let keeper: u64 =
        fs::read_to_string(stage.path(".trueup/keeper.lock")).expect("a pid").trim().parse().expect("a pid");
    let program = || fs::read_link(format!("/proc/{keeper}/exe")).expect("a program").to_string_lossy().into_owned();
    install(&binary);
    assert!(program().ends_with("(deleted)"), "{}", program());
    once(&stage, &binary);
    wait_until("the keeper to be the new one", || !program().ends_with("(deleted)"));
    assert_eq!([stage.pid("one"), stage.pid("two")], before);
    let log = fs::read_to_string(stage.path(".trueup/keeper.log")).expect("a log");
    assert_eq!(log.matches("took over").count(), 1, "{log}");
    // The same binary again changes nothing.
    once(&stage, &binary);
    assert_eq!(fs::read_to_string(stage.path(".trueup/keeper.log")).expect("a log"), log);
    kill(before[0], "KILL");
    wait_until("it to be kept as before", || !alive(before[0]) && stage.get("one")["lastExit"] == "signal 9");
}
