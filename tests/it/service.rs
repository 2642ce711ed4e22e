//! Stories of the daemon as a service of systemd: the unit, its life, and what the daemon tells its manager.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::stage::{Answer, DEADLINE, Own, Stage, alive, free_port, kill, wait_until};

/// A stage whose units are written into a folder of its own, on a machine without systemd.
fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.hub();
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let (units, sign) = (text(stage.path("units")), text(stage.path("booted")));
    stage.env.extend([("TRUEUP_UNITS".to_owned(), units), ("TRUEUP_SYSTEMD".to_owned(), sign)]);
    stage
}

/// A systemctl that writes down what it is told, and remembers whether the unit is enabled.
fn pretend_systemd(stage: &mut Stage) {
    let bin = stage.path("bin");
    fs::create_dir(&bin).expect("a folder");
    fs::create_dir(stage.path("booted")).expect("a folder");
    let home = stage.dir.path().display();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*is-enabled*) test -e {home}/up && echo enabled || echo disabled;;\n*is-active*) test -e {home}/up && echo \
         active || echo inactive;;\n*) echo \"$*\" >> {home}/told;;\nesac\ncase \"$*\" in *enable\\ --now*) touch {home}/up;; esac\ncase \"$*\" \
         in *disable*) rm -f {home}/up;; esac\n"
    );
    let path = bin.join("systemctl");
    fs::write(&path, script).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("runs");
    stage.env.push(("PATH".to_owned(), format!("{}:/usr/bin:/bin", bin.display())));
}

fn told(stage: &Stage) -> Vec<String> {
    let text = fs::read_to_string(stage.path("told")).unwrap_or_default();
    let _ = fs::remove_file(stage.path("told"));
    text.lines().map(str::to_owned).collect()
}

fn service(stage: &Stage, words: &[&str]) -> Answer {
    stage.run(&[&["service"], words].concat())
}

#[test]
fn installed_changed_asked_about_and_removed() {
    let mut stage = stage();
    pretend_systemd(&mut stage);
    let file = stage.path("units/trueup.service");
    assert!(service(&stage, &["status", "--system"]).code(0).out.contains("installed  no"));
    service(&stage, &["install", "--system"]).code(0);
    assert_eq!(told(&stage), ["daemon-reload", "enable --now trueup.service"]);
    assert_eq!(fs::metadata(&file).expect("the unit").permissions().mode() & 0o777, 0o644);
    let text = fs::read_to_string(&file).expect("the unit");
    let tree = fs::canonicalize(stage.dir.path()).expect("the stage");
    let flags = format!("-f {0}/manifests --state {0}/.trueup", tree.display());
    assert!(text.contains(&flags), "{text}");

    let again = service(&stage, &["install", "--system"]).code(0);
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    assert_eq!(told(&stage), [""; 0]);
    let status = service(&stage, &["status", "--system", "-o", "json"]).code(0).typed("service").pop().expect("a line");
    assert_eq!((&status["installed"], &status["current"]), (&true.into(), &true.into()));
    assert_eq!((&status["enabled"], &status["active"]), (&"enabled".into(), &"active".into()));

    // What a unit says may change with a version of trueup; the daemon is then replaced.
    fs::write(&file, text.replace("RestartSec=1s", "RestartSec=9s")).expect("written");
    assert!(service(&stage, &["status", "--system"]).code(0).out.contains("would write it anew"));
    service(&stage, &["install", "--system"]).code(0);
    assert_eq!(told(&stage), ["daemon-reload", "restart trueup.service"]);

    service(&stage, &["uninstall", "--system"]).code(0);
    assert_eq!(told(&stage), ["disable --now trueup.service", "daemon-reload"]);
    assert!(!file.exists());
    assert!(service(&stage, &["uninstall", "--system"]).code(0).out.contains("nothing to do"));
    assert_eq!(told(&stage), [""; 0]);
}

#[test]
fn a_dry_run_says_everything_and_does_nothing() {
    let mut stage = stage();
    pretend_systemd(&mut stage);
    let shown = service(&stage, &["install", "--user", "--dry-run", "--name", "lab"]).code(0);
    for part in
        ["trueup-lab.service", "Type=notify", "systemctl --user enable --now trueup-lab.service", "enable-linger"]
    {
        assert!(shown.out.contains(part), "{part} is not in {}", shown.out);
    }
    assert!(!stage.path("units").exists());
    assert_eq!(told(&stage), [""; 0]);
}

#[test]
fn files_of_others_are_refused() {
    let stage = stage();
    let file = stage.path("units/trueup.service");
    fs::create_dir(stage.path("units")).expect("a folder");
    fs::write(&file, "[Service]\nExecStart=/bin/true\n").expect("written");
    for verb in ["install", "uninstall"] {
        let refused = service(&stage, &[verb, "--system"]).code(4);
        assert!(refused.err.contains("was not written by trueup") && refused.err.contains("--name"), "{}", refused.err);
    }
    assert!(service(&stage, &["status", "--system"]).code(0).out.contains("not by trueup"));
    // Another tree of ours needs another name.
    fs::remove_file(&file).expect("removed");
    service(&stage, &["install", "--system"]).code(1);
    fs::create_dir(stage.path("second")).expect("a folder");
    let second = ["-f", "manifests", "--state", "second/.trueup"];
    let refused = service(&stage, &[&["install", "--system"], &second[..]].concat()).code(4);
    assert!(refused.err.contains("belongs to the tree"), "{}", refused.err);
    service(&stage, &[&["install", "--system", "--name", "second"], &second[..]].concat()).code(1);
    assert!(stage.path("units/trueup-second.service").exists());
    service(&stage, &["install", "--system", "--name", "No"]).code(64);
}

#[test]
fn without_systemd_it_says_what_it_wrote_and_what_it_cannot() {
    let stage = stage();
    let tried = service(&stage, &["install", "--system"]).code(1);
    assert!(tried.out.contains("wrote ") && tried.err.contains("no systemd here"), "{} {}", tried.out, tried.err);
    assert!(service(&stage, &["status", "--system"]).code(0).out.contains("installed  yes"));
    assert!(service(&stage, &["uninstall", "--system"]).code(0).out.contains("removed "));
    let nowhere = service(&stage, &["install", "--system", "-f", "nowhere"]).code(1);
    assert!(nowhere.err.contains("there is no folder"), "{}", nowhere.err);
}

/// The unit folder of a user, as systemd looks for it.
#[test]
fn a_user_has_units_below_the_settings() {
    let mut stage = stage();
    stage.env.retain(|(name, _)| name != "TRUEUP_UNITS");
    stage.env.push(("XDG_CONFIG_HOME".to_owned(), stage.path("settings").to_string_lossy().into_owned()));
    service(&stage, &["install", "--user"]).code(1);
    assert!(stage.path("settings/systemd/user/trueup.service").exists());
}

#[test]
fn systemd_itself_accepts_the_unit() {
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let mut stage = stage();
    let odd = stage.path("a 100% \"odd\" $HOME\\folder");
    fs::create_dir_all(odd.join("manifests")).expect("folders");
    stage.env.push(("TZ".to_owned(), "Europe/Berlin %n".to_owned()));
    for scope in ["--system", "--user"] {
        let tree = odd.join("manifests");
        service(&stage, &["install", scope, "-f", &tree.to_string_lossy()]).code(1);
        let file = stage.path("units/trueup.service");
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no", scope]).arg(&file);
        let verify = verify.env("XDG_RUNTIME_DIR", stage.dir.path()).output().expect("systemd-analyze runs");
        let said = String::from_utf8_lossy(&verify.stderr);
        // Other units of this machine are not our business.
        let ours: Vec<&str> = said.lines().filter(|l| l.contains("trueup")).collect();
        assert!(ours.is_empty(), "{ours:?}");
        fs::remove_file(file).expect("removed");
    }
}

fn hear(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).expect("a message in time");
    String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
}

/// A daemon that tells a socket of ours what it would tell systemd.
fn told_daemon(stage: &mut Stage, watchdog: Option<u64>) -> (UnixDatagram, Own) {
    let path = stage.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a limit");
    let mut command = stage.command(&["reconcile"]);
    command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(micros) = watchdog {
        command.env("WATCHDOG_USEC", micros.to_string());
    }
    (socket, Own(command.spawn().expect("the daemon starts")))
}

#[test]
fn the_manager_hears_ready_alive_and_stopping() {
    let mut stage = stage();
    stage.mailbox("one", free_port(), "");
    let (socket, mut daemon) = told_daemon(&mut stage, Some(100_000));
    assert_eq!(hear(&socket), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(&socket), "WATCHDOG=1");
    }
    wait_until("one to be ready", || stage.is_ready("one"));
    let pid = stage.pid("one");
    kill(u64::from(daemon.0.id()), "TERM");
    let last = std::iter::repeat_with(|| hear(&socket)).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(daemon.0.wait().expect("reaped").code(), Some(0));
    assert!(alive(pid), "the module outlives the daemon");
}

#[test]
fn a_daemon_that_hangs_says_nothing() {
    let mut stage = stage();
    let (socket, daemon) = told_daemon(&mut stage, Some(100_000));
    assert_eq!(hear(&socket), "READY=1");
    assert_eq!(hear(&socket), "WATCHDOG=1");
    kill(u64::from(daemon.0.id()), "STOP");
    socket.set_read_timeout(Some(Duration::from_millis(400))).expect("a limit");
    let mut bytes = [0; 64];
    // What was sent before it was stopped is still there.
    let silent = (0..8).any(|_| socket.recv(&mut bytes).is_err());
    assert!(silent);
}

#[test]
fn without_a_watchdog_nothing_is_sent_and_nobody_wakes() {
    let mut stage = stage();
    let (socket, _daemon) = told_daemon(&mut stage, None);
    assert_eq!(hear(&socket), "READY=1");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
    assert!(socket.recv(&mut [0; 64]).is_err());
}
