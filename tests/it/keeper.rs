//! The keeper with real processes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use trueup::adapters::keeper::KeeperClient;
use trueup::keeper::{find, marks};
use trueup::model::digest::Digest;
use trueup::model::id::Name;
use trueup::model::secret::Secret;
use trueup::model::unit::{Bytes, Millis};
use trueup::ports::PortError;
use trueup::ports::keeper::{Exit, Keeper, Launch, Notify, Phase, Policy, Restart, RestartWhen, Unit};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_trueup");
/// Far beyond what anything here takes on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A state folder with a keeper. Whatever lives in it ends with it.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client: KeeperClient,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let client = KeeperClient::new(&folder.path().join("state"), true).with_program(Path::new(BINARY));
        Self { folder, client }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn ensure(&self, unit: &str, script: &str, policy: &Policy) -> Unit {
        self.client.ensure(&name(unit), &shell(script), policy, false).await.expect("ensured")
    }

    pub(crate) async fn unit(&self, unit: &str) -> Unit {
        let all = self.client.list().await.expect("listed");
        all.into_iter().find(|u| u.name == name(unit)).expect("the unit is listed")
    }

    /// Waits until the unit is as wanted.
    pub(crate) async fn until(&self, unit: &str, what: &str, wanted: impl Fn(&Unit) -> bool) -> Unit {
        let last = Rc::new(Cell::new(None));
        let look = async {
            loop {
                let seen = self.unit(unit).await;
                if wanted(&seen) {
                    return seen;
                }
                last.set(Some(seen));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(seen) => seen,
            Err(_) => panic!("{unit} is not {what}: {:?}\n{}", last.take(), self.diary()),
        }
    }

    pub(crate) fn diary(&self) -> String {
        fs::read_to_string(self.state().join("keeper.log")).unwrap_or_default()
    }

    pub(crate) async fn keeper_pid(&self) -> u32 {
        self.client.version().await.expect("a keeper").pid
    }

    /// Kills the keeper like a crash would, and waits until it is gone.
    pub(crate) async fn kill_keeper(&self) {
        let pid = self.keeper_pid().await;
        kill(pid, Signal::KILL);
        until("the keeper is gone", || !alive(pid)).await;
    }

    /// The log of a unit, all files, oldest first, without stamps; parts are put together, each stream by itself.
    pub(crate) fn log(&self, unit: &str) -> String {
        let folder = self.state().join("logs").join(unit);
        let mut files: Vec<_> = fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        let age = |p: &PathBuf| p.file_stem().and_then(|s| s.to_str()?.parse::<u32>().ok()).unwrap_or(0);
        files.sort_by_key(|p| std::cmp::Reverse(age(p)));
        let (mut text, mut parts) = (String::new(), BTreeMap::<String, String>::new());
        for file in files {
            for line in String::from_utf8_lossy(&fs::read(file).expect("a log")).lines() {
                let fields: Vec<_> = line.splitn(4, ' ').collect();
                let [_, stream, tag, words] = fields[..] else { panic!("no log line: {line}") };
                let line = parts.entry(stream.to_owned()).or_default();
                line.push_str(words);
                if tag == "F" {
                    text.push_str(&std::mem::take(line));
                    text.push('\n');
                }
            }
        }
        text
    }

    pub(crate) async fn end(self) {
        for unit in self.client.list().await.expect("listed") {
            self.client.stop(&unit.name).await.expect("stopped");
            self.client.stop_strays(&unit.name).await.expect("strays stopped");
        }
        let gone = |u: &Unit| u.process.is_none() && u.phase != Phase::Stopping && u.strays.is_empty();
        for unit in self.client.list().await.expect("listed") {
            self.until(unit.name.as_str(), "gone", gone).await;
        }
        self.client.shutdown(false).await.expect("ended");
    }
}

impl Drop for Home {
    /// When a test failed: what it left carries the mark of its folder.
    fn drop(&mut self) {
        if !std::thread::panicking() || !self.state().exists() {
            return;
        }
        if let Some(keeper) = read_pid(&self.state().join("keeper.lock")) {
            kill(keeper, Signal::KILL);
        }
        for pid in marked(self) {
            kill(pid, Signal::KILL);
        }
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

pub(crate) async fn until(what: &str, wanted: impl Fn() -> bool) {
    let look = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("not so: {what}"));
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) fn shell(script: &str) -> Launch {
    let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("SECRET", "hunter2")];
    Launch {
        program: "/bin/sh".into(),
        argv: ["module", "-c", script].map(str::to_owned).to_vec(),
        dir: "/".into(),
        env: env.map(|(key, value)| (key.to_owned(), Secret::new(value.to_owned()))).into(),
        confinement: Default::default(),
        listen: None,
        digest: Digest::of(script.as_bytes()),
    }
}

fn policy(when: RestartWhen) -> Policy {
    Policy {
        restart: Restart {
            when,
            initial: Millis(20),
            max: Millis(60_000),
            factor: 2,
            limit: 5,
            window: Millis(60_000),
            reset_after: Millis(60_000),
            success: Vec::new(),
            fatal: Vec::new(),
        },
        stop_signal: 15,
        stop_grace: Millis(5_000),
        log_max_size: Bytes(10 << 20),
        log_keep: 3,
        log_max_age: None,
        notify: None,
        ceilings: Default::default(),
    }
}

pub(crate) fn always() -> Policy {
    policy(RestartWhen::Always)
}

pub(crate) fn pid(unit: &Unit) -> u32 {
    unit.process.as_ref().expect("it has a process").pid
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid");
    let _ = rustix::process::kill_process(pid, signal);
}

pub(crate) fn alive(pid: u32) -> bool {
    find::stat(pid).is_some_and(|stat| stat.alive())
}

pub(crate) fn read_pid(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Processes that carry a mark of this state folder.
pub(crate) fn marked(home: &Home) -> Vec<u32> {
    let id = marks::state_id(&fs::canonicalize(home.state()).expect("a state folder"));
    let ours = |pid: &u32| find::mark(*pid).is_some_and(|mark| mark.starts_with(&id));
    find::all().into_iter().filter(|(_, stat)| stat.alive()).map(|(pid, _)| pid).filter(ours).collect()
}

#[test]
fn nothing_is_started_to_look() {
    run(async {
        let home = Home::new();
        assert_eq!(home.client.list().await, Ok(Vec::new()));
        home.client.stop(&name("web")).await.expect("nothing to stop");
        assert!(!home.state().exists());
    });
}

#[test]
fn exits_are_told_as_they_are() {
    run(async {
        let home = Home::new();
        let never = policy(RestartWhen::Never);
        home.ensure("code", "exit 7", &never).await;
        home.ensure("signal", "kill -KILL $$", &never).await;
        home.ensure("fine", "exit 0", &policy(RestartWhen::OnFailure)).await;
        let absent = Launch { program: "/no/such/program".into(), ..shell("") };
        let unit = home.client.ensure(&name("absent"), &absent, &never, false).await.expect("an answer");
        assert!(matches!(unit.last_exit, Some(Exit::NotSpawned(why)) if why.contains("/no/such/program")));
        let nowhere = Launch { dir: "/no/such/folder".into(), ..shell("") };
        let unit = home.client.ensure(&name("nowhere"), &nowhere, &never, false).await.expect("an answer");
        assert!(matches!(unit.last_exit, Some(Exit::NotSpawned(why)) if why.contains("/no/such/folder")));
        for (unit, exit) in [("code", Exit::Code(7)), ("signal", Exit::Signal(9)), ("fine", Exit::Code(0))] {
            let seen = home.until(unit, "ended", |u| u.phase == Phase::Ended).await;
            assert_eq!(seen.last_exit, Some(exit));
        }
        // Asked for the same again, what has ended stays ended; asked with more than that, it runs again.
        home.ensure("code", "exit 7", &never).await;
        assert_eq!(home.unit("code").await.phase, Phase::Ended);
        home.client.ensure(&name("code"), &shell("exit 7"), &never, true).await.expect("ensured");
        home.until("code", "ended again", |u| u.phase == Phase::Ended).await;
        home.end().await;
    });
}

#[test]
fn a_process_gets_what_its_launch_says_and_no_more() {
    run(async {
        let home = Home::new();
        let script = r#"echo "$0|$PWD|$SECRET|$HOME|$(ulimit -Sn)"; ls -l /proc/self/fd/0; sleep 1000"#;
        let unit = home.ensure("web", script, &always()).await;
        until("it printed", || home.log("web").lines().count() >= 2).await;
        let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map_or(0, |n| n);
        let log = home.log("web");
        assert!(log.starts_with(&format!("module|/|hunter2||{soft}\n")), "{log}");
        assert!(log.contains("/dev/null"), "{log}");
        assert_eq!(find::stat(pid(&unit)).expect("it lives").group, pid(&unit));
        let mark = find::mark(pid(&unit)).expect("a mark");
        assert!(mark.contains(&format!("/web/{}/", unit.digest)), "{mark}");
        // No secret in what the keeper writes.
        for file in [home.state().join("keeper.log"), home.state().join("run/web.json")] {
            assert!(!fs::read_to_string(file).expect("read").contains("hunter2"));
        }
        home.end().await;
    });
}

#[test]
fn a_healthy_crash_restarts_at_once_and_an_early_one_backs_off() {
    run(async {
        let home = Home::new();
        let slow = Policy { restart: Restart { initial: Millis(60_000), ..always().restart }, ..always() };
        let first = home.ensure("web", "exec sleep 1000", &slow).await;
        home.client.ready(&name("web"), pid(&first)).await.expect("told");
        assert!(home.unit("web").await.ready);
        kill(pid(&first), Signal::KILL);
        let second = home.until("web", "restarted", |u| u.process.is_some() && pid(u) != pid(&first)).await;
        assert_eq!((second.restarts, second.crashes, second.ready), (1, 1, false));
        assert_eq!(second.last_exit, Some(Exit::Signal(9)));
        kill(pid(&second), Signal::KILL);
        let third = home.until("web", "backing off", |u| matches!(u.phase, Phase::Backoff { .. })).await;
        assert_eq!(third.crashes, 2);
        // A new launch does not wait for it.
        let fourth = home.ensure("web", "exec sleep 1001", &slow).await;
        assert_eq!((fourth.phase, fourth.crashes), (Phase::Running, 0));
        home.end().await;
    });
}

#[test]
fn a_crash_loop_is_shown_and_can_be_stopped() {
    run(async {
        let home = Home::new();
        home.ensure("web", "exit 1", &always()).await;
        let unit = home.until("web", "looping", |u| matches!(u.phase, Phase::Looping { .. })).await;
        assert_eq!((unit.crashes, unit.restarts, unit.last_exit), (5, 4, Some(Exit::Code(1))));
        home.client.stop(&name("web")).await.expect("stopped");
        assert_eq!(home.unit("web").await.phase, Phase::Stopped);
        home.client.forget(&name("web")).await.expect("forgotten");
        assert_eq!(home.client.list().await, Ok(Vec::new()));
        home.end().await;
    });
}

#[test]
fn what_ignores_its_signal_is_killed_with_its_group() {
    run(async {
        let home = Home::new();
        let file = home.file("grandchild");
        let script = format!(
            "trap '' TERM; (trap '' TERM; exec sleep 1000) & echo $! > {0}.new; mv {0}.new {0}; while :; do wait; done",
            file.display()
        );
        let stubborn = Policy { stop_grace: Millis(200), ..always() };
        let unit = home.ensure("web", &script, &stubborn).await;
        until("a grandchild", || read_pid(&file).is_some()).await;
        let grandchild = read_pid(&file).expect("a pid");
        home.client.stop(&name("web")).await.expect("asked to stop");
        assert_eq!(home.unit("web").await.phase, Phase::Stopping);
        let stopped = home.until("web", "stopped", |u| u.phase == Phase::Stopped).await;
        assert_eq!(stopped.last_exit, Some(Exit::Signal(9)));
        assert!(!alive(pid(&unit)) && !alive(grandchild));
        home.end().await;
    });
}

#[test]
fn a_replacement_waits_for_the_last_of_the_old_group() {
    run(async {
        let home = Home::new();
        let file = home.file("left");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; sleep 1000", file.display());
        let first = home.ensure("web", &script, &always()).await;
        until("a grandchild", || read_pid(&file).is_some()).await;
        let left = read_pid(&file).expect("a pid");
        home.client.ready(&name("web"), pid(&first)).await.expect("told");
        kill(pid(&first), Signal::KILL);
        home.until("web", "restarted", |u| u.process.is_some() && pid(u) != pid(&first)).await;
        assert!(!alive(left), "the replacement started beside what the old one left");
        let second = home.unit("web").await;
        let replaced = home.ensure("web", "exec sleep 1002", &always()).await;
        assert_eq!((replaced.phase, &replaced.digest), (Phase::Stopping, &second.digest));
        let third = home.until("web", "replaced", |u| u.phase == Phase::Running).await;
        assert_eq!(third.digest, Digest::of(b"exec sleep 1002"));
        assert!(!alive(pid(&second)));
        home.end().await;
    });
}

#[test]
fn a_killed_keeper_harms_nothing_and_the_next_one_goes_on() {
    run(async {
        let home = Home::new();
        let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done";
        let first = home.ensure("web", script, &always()).await;
        home.ensure("job", "exit 0", &policy(RestartWhen::Never)).await;
        home.until("job", "ended", |u| u.phase == Phase::Ended).await;
        until("some output", || home.log("web").lines().count() > 5).await;
        home.kill_keeper().await;
        assert!(alive(pid(&first)));
        let before = home.log("web").lines().count();

        // Without a keeper: looking starts none.
        let looker = KeeperClient::new(&home.state(), false);
        let seen = looker.list().await.expect("marks");
        assert_eq!(seen.iter().map(|u| u.phase.clone()).collect::<Vec<_>>(), [Phase::Ended, Phase::Running]);
        assert!(looker.version().await.is_err());

        let adopted = home.unit("web").await;
        assert_eq!((adopted.process.clone(), adopted.known), (first.process.clone(), false));
        assert_eq!(home.unit("job").await.phase, Phase::Ended);
        let same = home.ensure("web", script, &always()).await;
        assert_eq!((&same.process, same.known, same.restarts), (&first.process, true, 0));
        until("more output", || home.log("web").lines().count() > before + 20).await;
        let lines: Vec<_> = home.log("web").lines().map(str::to_owned).collect();
        let expected: Vec<_> = (1..=lines.len()).map(|n| format!("line {n}")).collect();
        // A piece may be there twice when the keeper died right in the middle; nothing may be missing.
        let mut once = lines.clone();
        once.dedup();
        assert!(once.iter().zip(&expected).all(|(a, b)| a == b), "{lines:?}");

        home.client.ready(&name("web"), pid(&same)).await.expect("told");
        kill(pid(&first), Signal::KILL);
        let second = home.until("web", "restarted", |u| u.process.is_some() && pid(u) != pid(&first)).await;
        assert_eq!(second.last_exit, Some(Exit::Unknown));
        assert_eq!(second.restarts, 1);
        home.end().await;
    });
}

#[test]
fn a_unit_that_died_without_a_keeper_waits_for_its_launch() {
    run(async {
        let home = Home::new();
        let first = home.ensure("web", "exec sleep 1000", &always()).await;
        home.kill_keeper().await;
        kill(pid(&first), Signal::KILL);
        until("it is gone", || !alive(pid(&first))).await;
        let seen = home.unit("web").await;
        assert!(matches!(seen.phase, Phase::Backoff { .. }), "{seen:?}");
        assert_eq!((seen.last_exit, seen.known, seen.process), (Some(Exit::Unknown), false, None));
        let second = home.ensure("web", "exec sleep 1000", &always()).await;
        assert_eq!((second.phase.clone(), second.known, second.restarts), (Phase::Running, true, 1));
        home.end().await;
    });
}

#[test]
fn a_process_without_a_mark_file_is_found_by_its_environment() {
    run(async {
        let home = Home::new();
        let first = home.ensure("web", "exec sleep 1000", &always()).await;
        home.ensure("other", "exec sleep 1000", &always()).await;
        home.kill_keeper().await;
        fs::remove_file(home.state().join("run/web.json")).expect("removed");
        let found = home.unit("web").await;
        assert_eq!(
            found.process.as_ref().map(|p| (p.pid, p.start_ticks)),
            first.process.as_ref().map(|p| (p.pid, p.start_ticks))
        );
        let drift =
            found.process.as_ref().expect("a process").started.0 - first.process.as_ref().expect("a process").started.0;
        assert!(drift.abs() < 2_000, "started {drift} ms apart");
        assert_eq!((found.digest, found.known), (first.digest.clone(), false));
        let same = home.ensure("web", "exec sleep 1000", &always()).await;
        assert_eq!(pid(&same), pid(&first));
        assert_eq!(marked(&home).len(), 2);
        home.end().await;
    });
}

#[test]
fn a_second_process_with_a_units_mark_is_a_stray_and_can_be_stopped() {
    run(async {
        let home = Home::new();
        let first = home.ensure("web", "exec sleep 1000", &always()).await;
        // From another start than the one that is known.
        let mark = format!("{}0", find::mark(pid(&first)).expect("a mark"));
        home.kill_keeper().await;
        let mut stray = started_by_hand(&mark);
        let until_stray = home.until("web", "with a stray", |u| !u.strays.is_empty()).await;
        assert_eq!(until_stray.strays, [stray.id()]);
        assert_eq!(until_stray.process, first.process);
        home.client.stop_strays(&name("web")).await.expect("stopped");
        let status = stray.wait().expect("it ends");
        assert!(!status.success());
        home.until("web", "without strays", |u| u.strays.is_empty()).await;
        assert!(alive(pid(&first)));
        home.end().await;
    });
}

fn started_by_hand(mark: &str) -> Child {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sleep");
    command.arg("1000").env_clear().env(find::MARK, mark).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
}

#[test]
fn a_folder_has_one_keeper() {
    run(async {
        let home = Home::new();
        home.ensure("web", "exec sleep 1000", &always()).await;
        let status = Command::new(BINARY).arg("keeper").arg("--state").arg(home.state()).status().expect("run");
        assert_eq!(status.code(), Some(5));
        // Not even when many want to be the first.
        let empty = Home::new();
        let clients: Vec<_> =
            (0..4).map(|_| KeeperClient::new(&empty.state(), true).with_program(Path::new(BINARY))).collect();
        let (web, launch, policy) = (name("web"), shell("exec sleep 1000"), always());
        let (a, b, c, d) = tokio::join!(
            clients[0].ensure(&web, &launch, &policy, false),
            clients[1].ensure(&web, &launch, &policy, false),
            clients[2].ensure(&web, &launch, &policy, false),
            clients[3].ensure(&web, &launch, &policy, false),
        );
        let pids: Vec<_> = [a, b, c, d].into_iter().map(|unit| pid(&unit.expect("ensured"))).collect();
        assert!(pids.iter().all(|p| *p == pids[0]), "{pids:?}");
        assert_eq!(marked(&empty).len(), 1);
        empty.end().await;
        home.end().await;
    });
}

#[test]
fn last_words_are_kept_and_lines_of_any_kind_survive() {
    run(async {
        let home = Home::new();
        let never = policy(RestartWhen::Never);
        home.ensure("burst", "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo number $i; done; printf end", &never)
            .await;
        home.ensure("long", "head -c 200000 /dev/zero | tr '\\0' x; echo; echo after >&2", &never).await;
        home.ensure("binary", "printf 'a\\000b\\377c\\r\\n'; head -c 100000 /dev/urandom", &never).await;
        for unit in ["burst", "long", "binary"] {
            home.until(unit, "ended", |u| u.phase == Phase::Ended).await;
        }
        let mut expected: String = (1..=1000).map(|n| format!("number {n}\n")).collect();
        expected.push_str("end\n");
        assert_eq!(home.log("burst"), expected);
        assert!(home.log("long").lines().any(|line| line.len() == 200_000));
        let raw = fs::read(home.state().join("logs/long/current.log")).expect("a log");
        assert!(raw.split(|b| *b == b'\n').all(|line| line.len() < (16 << 10) + 64));
        let raw = fs::read(home.state().join("logs/binary/current.log")).expect("a log");
        assert!(raw.windows(7).any(|w| w == b"a\0b\xffc\r\n"));
        home.end().await;
    });
}

#[test]
fn a_flood_is_bounded_on_disk_and_starves_nobody() {
    run(async {
        let home = Home::new();
        let small = Policy { log_max_size: Bytes(100_000), log_keep: 2, ..always() };
        home.ensure("flood", "exec yes 'this is printed as fast as can be'", &small).await;
        let size = || {
            let files = fs::read_dir(home.state().join("logs/flood")).into_iter().flatten().flatten();
            files.filter_map(|e| e.metadata().ok()).map(|m| m.len()).collect::<Vec<_>>()
        };
        until("three files", || size().len() == 3).await;
        home.ensure("calm", "while :; do echo tick; sleep 0.01; done", &always()).await;
        until("the calm one is heard", || home.log("calm").lines().count() > 50).await;
        let sizes = size();
        assert!(sizes.len() <= 3 && sizes.iter().all(|s| *s < 200_000), "{sizes:?}");
        home.end().await;
    });
}

#[test]
fn what_processes_leave_behind_is_reaped() {
    run(async {
        let home = Home::new();
        let file = home.file("orphan");
        // The orphan leaves the group, outlives its parent and ends: the keeper is its parent then.
        let orphan = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 0.1", file.display());
        home.ensure("web", &format!("(setsid sh -c '{orphan}' &); exec sleep 1000"), &always()).await;
        until("an orphan", || read_pid(&file).is_some()).await;
        let orphan = read_pid(&file).expect("a pid");
        until("reaped", || find::stat(orphan).is_none()).await;
        home.end().await;
    });
}

#[test]
fn a_terminated_keeper_leaves_everything_running() {
    run(async {
        let home = Home::new();
        let first = home.ensure("web", "exec sleep 1000", &always()).await;
        let keeper = home.keeper_pid().await;
        kill(keeper, Signal::INT);
        kill(keeper, Signal::HUP);
        kill(keeper, Signal::TERM);
        until("the keeper is gone", || !alive(keeper)).await;
        assert!(!home.state().join("keeper.sock").exists());
        assert_eq!(home.unit("web").await.process, first.process);
        assert_ne!(home.keeper_pid().await, keeper);
        assert!(matches!(home.client.shutdown(false).await, Err(PortError::Retry(_))));
        home.client.shutdown(true).await.expect("forced");
        assert!(alive(pid(&first)));
        assert_eq!(home.unit("web").await.process, first.process);
        home.end().await;
    });
}

#[test]
fn a_deep_state_folder_and_a_watcher() {
    run(async {
        let mut home = Home::new();
        let deep = home.file(&format!("{}/{}", "d".repeat(120), "e".repeat(120)));
        home.client = KeeperClient::new(&deep, true).with_program(Path::new(BINARY));
        let wakes = Cell::new(0);
        let watched = async {
            let unit = home.ensure("web", "exec sleep 1000", &always()).await;
            let before = wakes.get();
            home.client.ready(&name("web"), pid(&unit)).await.expect("told");
            let woken = async {
                while wakes.get() == before {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(PATIENCE, woken).await.expect("woken");
            let before = wakes.get();
            home.kill_keeper().await;
            let woken = async {
                while wakes.get() == before {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(PATIENCE, woken).await.expect("woken when the keeper is lost");
            home.unit("web").await;
            let before = wakes.get();
            kill(pid(&unit), Signal::KILL);
            let woken = async {
                while wakes.get() == before {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(PATIENCE, woken).await.expect("woken by the next keeper");
        };
        tokio::select! {
            () = home.client.watch(|| wakes.set(wakes.get() + 1)) => {}
            () = watched => {}
        }
        home.end().await;
    });
}

#[test]
fn what_a_unit_says_of_itself_is_listed_and_wakes_nobody() {
    run(async {
        let home = Home::new();
        let speaks = Policy { notify: Some(Notify::default()), ..always() };
        home.ensure("web", "echo $NOTIFY_SOCKET; exec sleep 1000", &speaks).await;
        until("its address", || home.log("web").contains("notify")).await;
        let address = home.log("web").trim().to_owned();
        let wakes = Cell::new(0);
        let said = async {
            let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
            let before = wakes.get();
            for n in 1..=30 {
                let status = format!("busy {n}");
                socket.send_to(format!("STATUS={status}").as_bytes(), &address).expect("sent");
                home.until("web", "what it said", |u| u.status.as_ref() == Some(&status)).await;
            }
            // What is told to watchers is told in order: this comes after all that was to be told of the others.
            socket.send_to(b"READY=1", &address).expect("sent");
            home.until("web", "ready", |u| u.notified).await;
            until("a wake for what matters", || wakes.get() > before).await;
            assert!(wakes.get() < before + 10, "woken {} times", wakes.get() - before);
        };
        tokio::select! {
            () = home.client.watch(|| wakes.set(wakes.get() + 1)) => {}
            () = said => {}
        }
        home.end().await;
    });
}

#[test]
fn many_start_at_once_and_all_stop() {
    run(async {
        let home = Home::new();
        let names: Vec<_> = (0..50).map(|n| name(&format!("unit-{n}"))).collect();
        let (launch, policy) = (shell("exec sleep 1000"), always());
        let mut units = BTreeMap::new();
        for unit in &names {
            units.insert(unit.clone(), home.client.ensure(unit, &launch, &policy, false).await.expect("ensured"));
        }
        assert_eq!(marked(&home).len(), 50);
        home.kill_keeper().await;
        for unit in home.client.list().await.expect("listed") {
            assert_eq!(unit.process, units[&unit.name].process);
        }
        assert_eq!(marked(&home).len(), 50);
        let state = home.state();
        home.end().await;
        drop(state);
    });
}

#[test]
fn a_keeper_that_nobody_calls_goes() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut keeper = Command::new(BINARY)
            .arg("keeper")
            .arg("--state")
            .arg(folder.path().join("state"))
            .spawn()
            .expect("started");
        let ended = async {
            loop {
                if let Some(status) = keeper.try_wait().expect("our child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, ended).await.expect("it ends").success());
    });
}

#[test]
fn a_hundred_upgrades_end_no_unit_and_lose_no_line() {
    run(async {
        let home = Home::new();
        let first = home.ensure("web", "exec sleep 1000", &always()).await;
        let count = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo line $i; [ $((i % 50)) = 0 ] && sleep 0.01; done; sleep 1000";
        let loud = home.ensure("loud", count, &always()).await;
        let speaks = Policy { notify: Some(Notify::default()), ..always() };
        home.ensure("speaks", "echo $NOTIFY_SOCKET; exec sleep 1000", &speaks).await;
        let slow = Policy { restart: Restart { initial: Millis(60_000), ..always().restart }, ..always() };
        home.ensure("waits", "exit 7", &slow).await;
        home.until("waits", "waiting", |u| matches!(u.phase, Phase::Backoff { .. })).await;
        let keeper = home.keeper_pid().await;
        for n in 1..=100 {
            let now = home.client.upgrade().await.expect("upgraded");
            assert_eq!((now.pid, now.handovers), (keeper, n));
        }
        let units = home.client.list().await.expect("listed");
        assert_eq!(units.len(), 4);
        for unit in &units {
            assert!(unit.known, "{unit:?}");
            assert_eq!(unit.restarts, 0, "{unit:?}");
        }
        assert_eq!(home.unit("web").await.process, first.process);
        assert_eq!(home.unit("loud").await.process, loud.process);
        assert!(matches!(home.unit("waits").await.phase, Phase::Backoff { .. }));
        assert_eq!(home.unit("waits").await.last_exit, Some(Exit::Code(7)));
        // Still its parent: how it ends is known.
        kill(pid(&first), Signal::KILL);
        let again = home.until("web", "back", |u| u.restarts == 1).await;
        assert_eq!(again.last_exit, Some(Exit::Signal(9)));
        kill(pid(&loud), Signal::STOP);
        // Give what is in the FIFO its way into the log: two looks at it that are the same.
        let before = std::cell::RefCell::new(String::new());
        until("a quiet log", || {
            let now = home.log("loud");
            let last = before.replace(now.clone());
            now == last && !now.is_empty()
        })
        .await;
        let before = before.into_inner();
        let lines: Vec<_> = before.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("line {}", n + 1));
        }
        assert!(lines.len() > 100, "{} lines", lines.len());
        let open = fs::read_dir(format!("/proc/{keeper}/fd")).expect("its files").count();
        assert!(open < 40, "{open} open files after a hundred upgrades");
        home.end().await;
    });
}

#[test]
fn a_program_that_cannot_take_over_leaves_the_old_one_in_charge() {
    run(async {
        let mut home = Home::new();
        let first = home.ensure("web", "exec sleep 1000", &always()).await;
        let keeper = home.keeper_pid().await;
        let bad = KeeperClient::new(&home.state(), true).with_program(Path::new("/nonexistent/trueup"));
        let good = std::mem::replace(&mut home.client, bad);
        assert!(matches!(home.client.upgrade().await, Err(PortError::Never(_))));
        assert_eq!(home.keeper_pid().await, keeper);
        assert_eq!(home.unit("web").await.process, first.process);
        home.client = good;
        // And limits are as they were: a new unit gets what the first one got.
        let limits = |pid: u32| fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        home.client.upgrade().await.expect("upgraded");
        let second = home.ensure("late", "exec sleep 1000", &always()).await;
        assert_eq!(limits(pid(&first)), limits(pid(&second)));
        home.end().await;
    });
}
