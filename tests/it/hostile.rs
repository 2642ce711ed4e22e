//! Stories on a hostile machine: a full disk, a read-only state folder, a service manager that listens.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::stage::{DEADLINE, Own, Stage, free_port, mailbox};

/// Runs a script as root of its own user and mount namespaces, where it may mount a small file system. `None` where the machine
/// does not allow that.
fn in_namespace(stage: &Stage, script: &str) -> Option<String> {
    let possible = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !possible.is_ok_and(|o| o.status.success()) {
        return None;
    }
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_trueup")).parent().expect("a folder");
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let output = Command::new("unshare")
        .args(["-rm", "/bin/sh", "-c", script])
        .current_dir(stage.dir.path())
        .env_clear()
        .env("PATH", path)
        .output()
        .expect("unshare runs");
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// The lines after `== name` up to the next `==`.
fn part<'a>(said: &'a str, name: &str) -> &'a str {
    let begin = said.find(&format!("== {name}\n")).unwrap_or_else(|| panic!("no {name} in\n{said}"));
    let rest = &said[begin + name.len() + 4..];
    rest.split("\n== ").next().unwrap_or(rest)
}

#[test]
fn a_full_disk_stops_nothing_and_is_said() {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("one", free_port(), "  registersAs: row-one\n");
    let changed = mailbox("one", free_port(), "  registersAs: row-one\n");
    fs::write(stage.path("changed.yaml"), changed).expect("written");
    let script = "
        exec 2>&1
        mkdir -p .trueup && mount -t tmpfs -o size=2m none .trueup && chmod 700 .trueup
        trueup reconcile --once -o json >/dev/null; echo \"== first\"; echo \"exit $?\"
        before=$(trueup get Service/one -o json | grep -o '\"pid\":[0-9]*' | head -1)
        dd if=/dev/zero of=.trueup/filler bs=4k 2>/dev/null
        cp changed.yaml manifests/one.yaml
        echo '== full'; trueup reconcile --once --timeout 5s; echo \"exit $?\"
        after=$(trueup get Service/one -o json | grep -o '\"pid\":[0-9]*' | head -1)
        echo '== pids'; [ -n \"$before\" ] && [ \"$before\" = \"$after\" ] && echo same
        rm .trueup/filler
        echo '== mended'; trueup reconcile --once; echo \"exit $?\"
        trueup down >/dev/null; echo '== down'; echo \"exit $?\"
    ";
    let Some(said) = in_namespace(&stage, script) else {
        return;
    };
    assert!(part(&said, "first").contains("exit 0"), "{said}");
    let full = part(&said, "full");
    assert!(full.contains("exit 1") && full.contains("full"), "{said}");
    assert!(part(&said, "pids").contains("same"), "what runs was touched:\n{said}");
    assert!(part(&said, "mended").contains("in sync") && part(&said, "mended").contains("exit 0"), "{said}");
}

#[test]
fn a_read_only_state_folder_is_read_and_never_written() {
    let stage = Stage::new();
    stage.hub();
    stage.mailbox("one", free_port(), "");
    let script = "
        exec 2>&1
        trueup reconcile --once >/dev/null
        mount --bind .trueup .trueup && mount -o remount,ro,bind .trueup
        echo '== get'; trueup get; echo \"exit $?\"
        echo '== plan'; trueup plan; echo \"exit $?\"
        echo '== once'; trueup reconcile --once; echo \"exit $?\"
        umount .trueup; trueup down >/dev/null
    ";
    let Some(said) = in_namespace(&stage, script) else {
        return;
    };
    assert!(part(&said, "get").contains("one") && part(&said, "get").contains("exit 0"), "{said}");
    assert!(part(&said, "plan").contains("planned 0") && part(&said, "plan").contains("exit 0"), "{said}");
    let once = part(&said, "once");
    assert!(once.contains("exit 1") && once.contains("error:") && once.to_lowercase().contains("read-only"), "{said}");
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_and_when_it_ends() {
    let stage = Stage::new();
    stage.hub();
    let socket = UnixDatagram::bind(stage.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut command = stage.command(&["reconcile"]);
    let mut daemon = Own(command.env("NOTIFY_SOCKET", stage.path("notify")).spawn().expect("it starts"));
    let hear = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert!(hear().contains("READY=1"));
    crate::stage::kill(u64::from(daemon.0.id()), "TERM");
    assert!(hear().contains("STOPPING=1"));
    assert_eq!(daemon.0.wait().expect("reaped").code(), Some(0));
}
