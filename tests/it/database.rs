//! What becomes of the hub's database while a daemon runs, and what the daemon does about it. In every case the modules run on.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::hub_stage::{Reply, get, hub_condition, names, post, staged};
use crate::stage::{Own, Stage, alive, free_port, listens, wait_until};

struct Hub {
    stage: Stage,
    port: u16,
    module: u16,
    pid: u64,
    operator: String,
}

/// A hub with a module that is ready, and its operator token.
fn hub() -> (Hub, Own) {
    let (stage, port) = staged();
    let module = free_port();
    stage.mailbox("one", module, "");
    let daemon = stage.daemon();
    wait_until("the module", || stage.is_ready("one"));
    let path = stage.path(".trueup/home/operator.token");
    wait_until("the operator token", || fs::read_to_string(&path).is_ok_and(|token| !token.is_empty()));
    // From here on its loss is missed after a restart too.
    wait_until("the ledger to know", || hub_condition(&stage, "Ready").is_some_and(|c| c["reason"] == "Serving"));
    let operator = fs::read_to_string(&path).expect("a token").trim().to_owned();
    let pid = stage.pid("one");
    (Hub { stage, port, module, pid, operator }, daemon)
}

impl Hub {
    fn database(&self) -> PathBuf {
        self.stage.path(".trueup/hub.db")
    }

    /// Brings everything into the one file, so that damage to it is damage to the database.
    fn settle(&self) {
        let own = Connection::open(self.database()).expect("opens");
        own.busy_timeout(crate::stage::DEADLINE).expect("set");
        own.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).expect("settled");
    }

    fn health(&self) -> Option<(u16, Value)> {
        get(self.port, "/healthz").ok().map(|answer| (answer.status, answer.json()["db"].clone()))
    }

    fn mint(&self) -> Reply {
        post(self.port, "/api/auth/mint-token", &self.operator, &json!({ "scope": "agent:send" })).expect("an answer")
    }

    /// `None` when nobody answers.
    fn try_mint(&self) -> Option<u16> {
        let reply = post(self.port, "/api/auth/mint-token", &self.operator, &json!({ "scope": "agent:send" }));
        reply.ok().map(|reply| reply.status)
    }

    #[track_caller]
    fn modules_run_on(&self) {
        assert!(alive(self.pid) && listens(self.module), "the module is touched");
    }

    /// The daemon ends with exit code 1, and says this.
    #[track_caller]
    fn ends(&self, mut daemon: Own, said: &str) {
        // Asking for health looks at once; without it the same is noticed within 15 s.
        let _ = self.health();
        wait_until("the daemon's end", || matches!(daemon.0.try_wait(), Ok(Some(_))));
        let status = daemon.0.wait().expect("a status");
        let output = self.stage.daemon_output();
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains(said), "'{said}' in {output}");
        self.modules_run_on();
    }
}

#[test]
fn a_database_that_another_process_holds_is_waited_for_and_that_is_said() {
    let (hub, _daemon) = hub();
    let other = Connection::open(hub.database()).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("held");
    let refused = hub.mint();
    assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("db_unavailable")), "{}", refused.text());
    assert_eq!(hub.health(), Some((200, json!("ok"))), "it can be read");
    other.execute_batch("ROLLBACK").expect("let go");
    assert_eq!(hub.mint().status, 200);
    hub.modules_run_on();
}

#[test]
fn a_deleted_database_ends_the_daemon_and_is_not_made_anew() {
    let (hub, daemon) = hub();
    fs::remove_file(hub.database()).expect("removed");
    let home = fs::metadata(hub.stage.path(".trueup/home")).expect("a folder");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&home) & 0o777, 0o700);
    hub.ends(daemon, "is gone");
    let left = names(&hub.stage.path(".trueup"));
    assert!(!left.iter().any(|name| ["hub.db", "hub.db-wal", "hub.db-shm"].contains(&name.as_str())), "{left:?}");
    // The next one serves what it can, and makes none either.
    let _daemon = hub.stage.daemon();
    wait_until("the loss to be said", || {
        hub_condition(&hub.stage, "Ready").is_some_and(|c| c["reason"] == "DatabaseLost" && c["status"] == "False")
    });
    assert_eq!(hub.health().map(|(status, _)| status), Some(503));
    assert_eq!(hub.mint().status, 503);
    assert!(!hub.database().exists());
    hub.modules_run_on();
}

#[test]
fn a_deleted_state_folder_ends_the_daemon_and_nothing_is_made_anew() {
    let (hub, daemon) = hub();
    let state = hub.stage.path(".trueup");
    // It goes on existing elsewhere, so that the story can be ended.
    fs::rename(&state, hub.stage.path("moved")).expect("moved");
    hub.ends(daemon, "is gone");
    assert!(!state.exists(), "{:?}", names(&state));
    fs::rename(hub.stage.path("moved"), state).expect("moved back");
}

#[test]
fn a_database_that_was_put_back_from_a_copy_is_opened_anew_once() {
    let (hub, mut daemon) = hub();
    let minted = hub.mint();
    hub.settle();
    let copy = hub.stage.path("copy.db");
    fs::copy(hub.database(), &copy).expect("copied");
    // What is written from now on stands in the journal beside the file that goes; it must not be taken for one of the copy.
    let lost = hub.mint();
    fs::rename(&copy, hub.database()).expect("replaced");
    wait_until("health", || hub.health() == Some((200, json!("ok"))));
    assert_eq!(hub.mint().status, 200);
    let list = hub.stage.run(&["token", "list", "-o", "json"]).code(0);
    assert!(list.out.contains(minted.json()["jti"].as_str().expect("an id")), "{}", list.out);
    assert!(!list.out.contains(lost.json()["jti"].as_str().expect("an id")), "{}", list.out);
    let check = Connection::open(hub.database()).expect("opens");
    let verdict: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(verdict, "ok");
    assert!(daemon.0.try_wait().expect("a status").is_none(), "{}", hub.stage.daemon_output());
    hub.modules_run_on();
}

#[test]
fn a_database_that_was_replaced_by_something_else_ends_the_daemon() {
    let (hub, daemon) = hub();
    let other = hub.stage.path("other.db");
    fs::write(&other, "no database at all, but long enough to be looked at as one".repeat(200)).expect("written");
    fs::rename(&other, hub.database()).expect("replaced");
    hub.ends(daemon, "replaced");
    assert!(fs::read(hub.database()).expect("it").starts_with(b"no database"), "left as it is");
}

#[test]
fn a_truncated_database_ends_the_daemon() {
    let (hub, daemon) = hub();
    hub.settle();
    let file = fs::OpenOptions::new().write(true).open(hub.database()).expect("opens");
    file.set_len(0).expect("cut");
    hub.ends(daemon, "");
    assert_eq!(fs::metadata(hub.database()).expect("it").len(), 0, "left as it is");
}

#[test]
fn a_damaged_database_ends_the_daemon() {
    let (hub, daemon) = hub();
    hub.settle();
    let length = usize::try_from(fs::metadata(hub.database()).expect("it").len()).expect("small");
    let mut bytes = fs::read(hub.database()).expect("it");
    bytes[16..length].fill(0xa5);
    let mut file = fs::OpenOptions::new().write(true).open(hub.database()).expect("opens");
    std::io::Write::write_all(&mut file, &bytes).expect("damaged in place");
    hub.ends(daemon, "");
}

#[test]
fn damage_that_only_some_calls_meet_ends_the_daemon_and_can_be_reset() {
    let (hub, daemon) = hub();
    for _ in 0..60 {
        assert_eq!(hub.mint().status, 200);
    }
    hub.settle();
    let own = Connection::open(hub.database()).expect("opens");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'tokens_by_age'";
    let page: usize = own.query_row(sql, [], |row| row.get(0)).expect("a page");
    let size: usize = own.query_row("PRAGMA page_size", [], |row| row.get(0)).expect("a size");
    drop(own);
    let file = fs::OpenOptions::new().write(true).open(hub.database()).expect("opens");
    let at = u64::try_from((page - 1) * size).expect("small");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 256], at).expect("damaged in place");
    // The list goes by the damaged index, in a process that has nothing of it in memory.
    hub.stage.run(&["token", "list"]).code(1);
    wait_until("a call that meets it", || hub.try_mint() != Some(200));
    hub.ends(daemon, "cannot be used");
    let reset = hub.stage.run(&["token", "reset", "-o", "json"]).code(0);
    assert_eq!(reset.typed("reset").len(), 1, "{}", reset.out);
    let listed = hub.stage.run(&["token", "list"]).code(0);
    assert!(!listed.out.contains("cli_mint"), "{}", listed.out);
}

#[test]
fn a_backup_is_put_back_beside_a_daemon_and_after_a_kill() {
    let (hub, mut daemon) = hub();
    let id = |reply: &Reply| reply.json()["jti"].as_str().expect("an id").to_owned();
    let kept = id(&hub.mint());
    let backup = hub.stage.path("backup.db");
    let own = Connection::open(hub.database()).expect("opens");
    own.execute("VACUUM INTO ?1", [backup.to_str().expect("text")]).expect("a backup");
    drop(own);
    let lost = id(&hub.mint());
    let bad = hub.stage.path("bad.db");
    fs::write(&bad, &fs::read(&backup).expect("it")[..8_192]).expect("cut");
    let refused = hub.stage.run(&["token", "restore", "bad.db"]).code(4);
    assert!(refused.err.contains("bad.db") && refused.err.contains("nothing was changed"), "{}", refused.err);
    let restored = hub.stage.run(&["token", "restore", "backup.db", "-o", "json"]).code(0).typed("restored");
    assert!(restored[0]["moved_to"].as_str().is_some_and(|path| fs::exists(path).expect("asked")), "{restored:?}");
    wait_until("health", || hub.health() == Some((200, json!("ok"))));
    let next = id(&hub.mint());
    let listed = hub.stage.run(&["token", "list", "-o", "json"]).code(0).out;
    assert!(listed.contains(&kept) && listed.contains(&next) && !listed.contains(&lost), "{listed}");

    daemon.0.kill().expect("killed");
    daemon.0.wait().expect("ended");
    hub.stage.run(&["token", "restore", "backup.db"]).code(0);
    let _daemon = hub.stage.daemon();
    wait_until("the hub", || hub.try_mint() == Some(200));
    let listed = hub.stage.run(&["token", "list", "-o", "json"]).code(0).out;
    assert!(listed.contains(&kept) && !listed.contains(&next), "{listed}");
    let check = Connection::open(hub.database()).expect("opens");
    let verdict: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(verdict, "ok");
    hub.modules_run_on();
}

#[test]
fn a_database_that_does_not_know_the_operator_token_gets_a_new_one_at_once() {
    let (hub, mut daemon) = hub();
    hub.settle();
    let other = hub.stage.path("other.db");
    fs::copy(hub.database(), &other).expect("copied");
    Connection::open(&other).expect("opens").execute("DELETE FROM tokens", []).expect("forgotten");
    fs::rename(&other, hub.database()).expect("replaced");
    wait_until("health", || hub.health() == Some((200, json!("ok"))));
    let path = hub.stage.path(".trueup/home/operator.token");
    // Without being woken it would take a minute, which is longer than is waited for here.
    wait_until("a new token", || fs::read_to_string(&path).is_ok_and(|token| token.trim() != hub.operator));
    let operator = fs::read_to_string(&path).expect("a token");
    let reply = post(hub.port, "/api/auth/mint-token", operator.trim(), &json!({ "scope": "agent:send" }));
    assert_eq!(reply.expect("an answer").status, 200);
    assert!(daemon.0.try_wait().expect("a status").is_none(), "{}", hub.stage.daemon_output());
}

/// A daemon in namespaces of its own, where the script may mount. `None` where the machine does not allow that.
fn daemon_after(stage: &Stage, script: &str) -> Option<Own> {
    let possible = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !possible.is_ok_and(|o| o.status.success()) {
        return None;
    }
    let log = fs::File::create(stage.path("daemon.out")).expect("a log");
    let script = format!("{script}\nexec \"$TRUEUP\" reconcile -o json");
    let child: Child = Command::new("unshare")
        .args(["-rm", "/bin/sh", "-c", &script])
        .current_dir(stage.dir.path())
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TRUEUP", env!("CARGO_BIN_EXE_trueup"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("unshare runs");
    Some(Own(child))
}

#[test]
fn a_read_only_database_is_said_and_the_rest_goes_on() {
    let (hub, daemon) = hub();
    drop(daemon);
    hub.settle();
    let script = "mount --bind .trueup/hub.db .trueup/hub.db && mount -o remount,ro,bind .trueup/hub.db || exit 9";
    let Some(mut daemon) = daemon_after(&hub.stage, script) else { return };
    wait_until("the hub", || get(hub.port, "/readyz").is_ok_and(|answer| answer.status == 200));
    wait_until("health", || hub.health().is_some());
    assert_eq!(hub.mint().status, 503);
    assert!(daemon.0.try_wait().expect("a status").is_none(), "{}", hub.stage.daemon_output());
    hub.modules_run_on();
}

#[test]
fn a_full_disk_refuses_tokens_and_nothing_else() {
    let (stage, port) = staged();
    let module = free_port();
    stage.mailbox("one", module, "");
    // The folder outside shows what is mounted inside through the process's own root.
    let script = "mkdir -p .trueup && mount -t tmpfs -o size=2m none .trueup && chmod 700 .trueup || exit 9";
    let Some(mut daemon) = daemon_after(&stage, script) else { return };
    wait_until("the module", || listens(module));
    let inside = PathBuf::from(format!("/proc/{}/root{}", daemon.0.id(), stage.path(".trueup").display()));
    let token = inside.join("home/operator.token");
    wait_until("the operator token", || fs::read_to_string(&token).is_ok_and(|token| !token.is_empty()));
    let operator = fs::read_to_string(&token).expect("a token").trim().to_owned();
    let mint = || post(port, "/api/auth/mint-token", &operator, &json!({ "scope": "agent:send" })).expect("an answer");
    wait_until("a first token", || mint().status == 200);
    let filler = inside.join("filler");
    let mut file = fs::File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    // The journal of the database has some room left over.
    wait_until("the disk to be full", || mint().status == 503);
    let refused = mint();
    assert!(
        refused.json()["error_description"].as_str().is_some_and(|text| text.contains("full")),
        "{}",
        refused.text()
    );
    assert_eq!(get(port, "/healthz").map(|answer| answer.status), Ok(200), "it can be read");
    assert!(daemon.0.try_wait().expect("a status").is_none() && listens(module));
    drop(file);
    fs::remove_file(&filler).expect("room");
    wait_until("tokens again", || mint().status == 200);
    // What lives in the namespace is stopped from inside.
    let down = format!("cd '{}' && exec '{}' down", stage.dir.path().display(), env!("CARGO_BIN_EXE_trueup"));
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &daemon.0.id().to_string(), "--user", "--mount", "--preserve-credentials"]);
    let status = inside.args(["--", "/bin/sh", "-c", &down]).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "down");
    wait_until("its end", || matches!(daemon.0.try_wait(), Ok(Some(_))));
}
