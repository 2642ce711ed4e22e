//! Tests of the database of tokens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Error, ffi};

use super::*;
use crate::model::secret::Secret;
use crate::ports::tokens::Lost;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn key(kid: &str) -> KeyRow {
    KeyRow {
        kid: kid.to_owned(),
        public_pem: format!("public {kid}"),
        private_pem: Some(Secret::new(format!("private {kid}"))),
        created: NOW,
        retired: None,
        keep_until: None,
    }
}

fn token(jti: &str, kid: &str) -> TokenRow {
    TokenRow {
        jti: jti.to_owned(),
        subject: "me".to_owned(),
        client: "c".to_owned(),
        audience: "hub".to_owned(),
        scopes: vec!["a:b".to_owned()],
        vault_scope: Vec::new(),
        permissions: None,
        via: Via::CliMint,
        kid: kid.to_owned(),
        created: NOW,
        expires: Timestamp(NOW.0 + 1_000),
        revoked: None,
    }
}

fn made() -> (tempfile::TempDir, PathBuf, HubDb) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("hub.db");
    let db = HubDb::open(&path, true).expect("a database");
    db.add_key(&key("k1")).expect("a key");
    (dir, path, db)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn a_database_is_made_once_and_never_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("hub.db");
    assert_eq!(HubDb::open(&path, false).expect_err("gone"), Unwell::Lost(Lost::Gone));
    assert!(!path.exists(), "a look makes nothing");
    drop(HubDb::open(&path, true).expect("made"));
    assert_eq!(mode(&path), 0o600);
    HubDb::open(&path, false).expect("there");
    fs::write(&path, "").expect("cut to nothing");
    let Unwell::Fault(fault) = HubDb::open(&path, false).expect_err("empty") else { panic!("a fault") };
    assert_eq!(fault.class, FaultClass::Fatal);
}

#[test]
fn what_is_open_to_others_is_closed_and_told() {
    let (_dir, path, db) = made();
    assert_eq!(db.mode_was(), None);
    drop(db);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
    let db = HubDb::open(&path, false).expect("opened");
    assert_eq!((db.mode_was(), mode(&path)), (Some(0o644), 0o600));
    db.register(&token("t", "k1")).expect("written");
    assert_eq!(mode(&path.with_file_name("hub.db-wal")), 0o600);
}

#[test]
fn a_file_that_went_away_or_was_replaced_is_noticed_and_never_made() {
    let (dir, path, db) = made();
    db.check().expect("well");
    let aside = dir.path().join("aside.db");
    fs::rename(&path, &aside).expect("moved away");
    assert_eq!(db.check(), Err(Unwell::Lost(Lost::Gone)));
    assert_eq!(db.reopen(), Err(Unwell::Lost(Lost::Gone)));
    assert!(!path.exists());
    drop(HubDb::open(&path, true).expect("another"));
    assert_eq!(db.check(), Err(Unwell::Lost(Lost::Replaced)));
    db.reopen().expect("the new file");
    db.check().expect("well");
    assert_eq!(db.keys().expect("read"), [], "the new one is read");
}

#[test]
fn a_file_that_was_damaged_while_it_was_open_shows() {
    let (_dir, path, db) = made();
    rusqlite::Connection::open(&path)
        .expect("opened")
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("all in the file");
    let length = fs::metadata(&path).expect("there").len();
    fs::write(&path, vec![b'x'; usize::try_from(length).expect("small")]).expect("overwritten in place");
    let Err(Unwell::Fault(fault)) = db.check() else { panic!("damage shows") };
    assert_eq!(fault.class, FaultClass::Fatal, "{fault:?}");
    assert!(matches!(db.reopen(), Err(Unwell::Fault(StoreFault { class: FaultClass::Fatal, .. }))));
}

#[test]
fn damage_in_the_middle_shows_after_the_first_call_that_meets_it() {
    let (_dir, path, db) = made();
    for at in 0..300 {
        db.register(&token(&format!("t{at:03}"), "k1")).expect("written");
    }
    drop(db);
    let root = |name: &str| {
        let own = rusqlite::Connection::open(&path).expect("opened");
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page: u64 = own.query_row(sql, [name], |row| row.get(0)).expect("a page");
        let size: u64 = own.query_row("PRAGMA page_size", [], |row| row.get(0)).expect("a size");
        (page - 1) * size
    };
    let at = root("tokens_of_subject");
    let mut bytes = fs::read(&path).expect("it");
    bytes[usize::try_from(at).expect("small")..][..64].fill(0xa5);
    fs::write(&path, bytes).expect("damaged");
    let db = HubDb::open(&path, false).expect("opened: it does not show yet");
    db.check().expect("it does not show yet");
    let fatal =
        |done: Result<(), Unwell>| matches!(done, Err(Unwell::Fault(fault)) if fault.class == FaultClass::Fatal);
    assert!(db.find("t007").expect("read").is_some(), "some calls go well");
    let of_me = TokenFilter { subject: Some("me".to_owned()), ..TokenFilter::default() };
    assert_eq!(db.list(&of_me, None, 10).expect_err("damaged").class, FaultClass::Fatal);
    assert!(fatal(db.check()) && fatal(db.check()), "every look shows it from now on");
    db.reopen().expect("it can be opened");
    assert!(fatal(db.check()), "and shows again");
    let other = HubDb::open(&path, false).expect("opened");
    assert!(other.check().is_ok() && fatal(other.check_whole()));
}

#[test]
fn the_journal_of_a_database_that_went_away_is_not_played_into_the_next_one() {
    let (dir, path, db) = made();
    let settle = || {
        let own = rusqlite::Connection::open(&path).expect("opened");
        own.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("settled");
    };
    settle();
    let backup = dir.path().join("backup.db");
    fs::copy(&path, &backup).expect("copied");
    db.register(&token("young", "k1")).expect("written");
    let aside = dir.path().join("aside.db");
    fs::rename(&path, &aside).expect("moved away");
    assert_eq!(db.check(), Err(Unwell::Lost(Lost::Gone)));
    assert!(!path.with_file_name("hub.db-wal").exists() && !path.with_file_name("hub.db-shm").exists());
    drop(db);
    // Moved back, nothing is lost.
    fs::rename(&aside, &path).expect("moved back");
    let db = HubDb::open(&path, false).expect("opened");
    assert!(db.find("young").expect("read").is_some());
    // As after a kill: the file is gone, and its journal is there.
    db.register(&token("younger", "k1")).expect("written");
    let journal = fs::read(path.with_file_name("hub.db-wal")).expect("a journal");
    drop(db);
    fs::remove_file(&path).expect("gone");
    fs::write(path.with_file_name("hub.db-wal"), journal).expect("left");
    assert_eq!(HubDb::open(&path, false).expect_err("gone"), Unwell::Lost(Lost::Gone));
    fs::copy(&backup, &path).expect("put back");
    let db = HubDb::open(&path, false).expect("opened");
    db.check_whole().expect("whole");
    assert!(db.find("younger").expect("read").is_none());
}

#[test]
fn a_backup_takes_the_place_of_the_database_with_its_journals() {
    let (dir, path, db) = made();
    db.register(&token("old", "k1")).expect("written");
    let backup = dir.path().join("backup.db");
    let own = rusqlite::Connection::open(&path).expect("opened");
    own.execute("VACUUM INTO ?1", [backup.to_str().expect("text")]).expect("a backup");
    drop(own);
    db.register(&token("young", "k1")).expect("written");
    // What is no good is not put in place, and leaves nothing behind.
    let bad = dir.path().join("bad.db");
    let mut bytes = fs::read(&backup).expect("it");
    let length = bytes.len();
    bytes[length / 2..].fill(0xa5);
    fs::write(&bad, bytes).expect("damaged");
    let text = dir.path().join("text.db");
    fs::write(&text, "no database, and longer than the header of one ".repeat(40)).expect("written");
    let foreign = dir.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).expect("made").execute_batch("CREATE TABLE t (x)").expect("a table");
    let none = dir.path().join("none.db");
    for wrong in [&bad, &text, &foreign, &none, &path] {
        let said = restore::restore(wrong, &path, NOW).expect_err("refused").to_string();
        assert!(!said.contains(".new"), "{said}");
    }
    assert!(!path.with_file_name("hub.db.new").exists());
    db.check().expect("untouched");
    let aside = restore::restore(&backup, &path, NOW).expect("put in place").expect("the old one");
    assert_eq!(db.check(), Err(Unwell::Lost(Lost::Replaced)), "whoever had it open notices");
    db.reopen().expect("the new one");
    assert!(db.find("old").expect("read").is_some() && db.find("young").expect("read").is_none());
    db.register(&token("next", "k1")).expect("written");
    let other = HubDb::open(&path, false).expect("opened");
    other.check_whole().expect("whole");
    assert!(other.find("next").expect("read").is_some(), "both use one journal");
    assert_eq!(mode(&path), 0o600);
    let old = HubDb::open(&aside, false).expect("opened");
    assert!(old.find("young").expect("read").is_some(), "nothing is lost");
}

#[test]
fn other_peoples_databases_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("hub.db");
    rusqlite::Connection::open(&path).expect("made").execute_batch("CREATE TABLE t (x)").expect("a table");
    let Unwell::Fault(fault) = HubDb::open(&path, true).expect_err("refused") else { panic!("a fault") };
    assert!(fault.message.contains("not the one of tokens"), "{fault}");
    let path = dir.path().join("text.db");
    fs::write(&path, "no database, and longer than the header of one ".repeat(40)).expect("written");
    let Unwell::Fault(fault) = HubDb::open(&path, true).expect_err("refused") else { panic!("a fault") };
    assert_eq!(fault.class, FaultClass::Fatal);
}

#[test]
fn faults_are_classed_with_the_transient_ones_first() {
    let of = |code| class(&Error::SqliteFailure(ffi::Error::new(code), None));
    for (wanted, codes) in [
        (
            FaultClass::Transient,
            &[
                ffi::SQLITE_BUSY,
                ffi::SQLITE_BUSY_SNAPSHOT,
                ffi::SQLITE_LOCKED,
                ffi::SQLITE_LOCKED_SHAREDCACHE,
                ffi::SQLITE_IOERR_BLOCKED,
                ffi::SQLITE_IOERR_LOCK,
            ][..],
        ),
        (
            FaultClass::Fatal,
            &[
                ffi::SQLITE_IOERR,
                ffi::SQLITE_IOERR_READ,
                ffi::SQLITE_IOERR_SHORT_READ,
                ffi::SQLITE_IOERR_FSYNC,
                ffi::SQLITE_CORRUPT,
                ffi::SQLITE_CORRUPT_INDEX,
                ffi::SQLITE_NOTADB,
            ],
        ),
        (
            FaultClass::Other,
            &[ffi::SQLITE_READONLY, ffi::SQLITE_FULL, ffi::SQLITE_CANTOPEN, ffi::SQLITE_CONSTRAINT, ffi::SQLITE_ERROR],
        ),
    ] {
        for code in codes {
            assert_eq!(of(*code), wanted, "{code}");
        }
    }
}

#[test]
fn one_key_is_active_and_a_retired_one_cannot_sign() {
    let (_dir, _path, db) = made();
    db.add_key(&key("k2")).expect("there is one");
    assert_eq!(db.keys().expect("keys").len(), 1);
    db.register(&token("t", "k1")).expect("written");
    let done = db.rotate(&key("k2"), false, NOW, NOW).expect("rotated");
    assert_eq!((done.retired, done.tokens.len()), (vec!["k1".to_owned()], 1));
    let keys = db.keys().expect("keys");
    let old = keys.iter().find(|key| key.kid == "k1").expect("kept");
    assert_eq!((&old.private_pem, old.keep_until), (&None, Some(Timestamp(NOW.0 + 1_000))));
    assert_eq!(db.register(&token("u", "k1")).expect("asked"), Registration::KeyRetired);
    assert_eq!(db.find("u").expect("read"), None);
    assert!(db.known("k1", "t", NOW).expect("known").key);
    let later = Timestamp(NOW.0 + 1_000);
    assert!(!db.known("k1", "t", later).expect("known").key, "its last token has ended");
    db.sweep(later, later).expect("swept");
    assert_eq!(db.keys().expect("keys").len(), 2, "a key is remembered as long as its tokens");
    db.sweep(Timestamp(later.0 + 1), later).expect("swept");
    assert_eq!(db.keys().expect("keys").len(), 1);
}

#[test]
fn what_ended_long_ago_is_forgotten() {
    let (_dir, _path, db) = made();
    for at in 0..3 {
        let row = TokenRow { expires: Timestamp(NOW.0 + at * 1_000), ..token(&format!("t{at}"), "k1") };
        db.register(&row).expect("written");
    }
    assert_eq!(db.sweep(Timestamp(NOW.0 + 1_500), NOW).expect("swept"), 2);
    assert_eq!(db.find("t0").expect("read"), None);
    assert!(db.find("t2").expect("read").is_some());
}

#[test]
fn lists_are_served_by_an_index() {
    let (_dir, path, _db) = made();
    let connection = rusqlite::Connection::open(&path).expect("opened");
    let plan = |condition: &str| {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT jti FROM tokens {condition} ORDER BY created_at DESC, jti DESC LIMIT 51"
        );
        let mut statement = connection.prepare(&sql).expect("a statement");
        let lines = statement.query_map([], |row| row.get::<_, String>(3)).expect("a plan");
        lines.map(|line| line.expect("a line")).collect::<Vec<_>>().join("; ")
    };
    for condition in [
        "",
        "WHERE subject = 'a'",
        "WHERE (created_at, jti) < (1, 'a')",
        "WHERE subject = 'a' AND (created_at, jti) < (1, 'a')",
    ] {
        let plan = plan(condition);
        assert!(plan.contains("INDEX") && !plan.contains("TEMP B-TREE"), "{condition}: {plan}");
    }
}

#[test]
fn many_threads_register_revoke_and_look_at_once() {
    let (_dir, _path, db) = made();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for at in 0..25 {
                    let jti = format!("{thread}-{at}");
                    assert_eq!(db.register(&token(&jti, "k1")).expect("written"), Registration::Written);
                    assert!(db.known("k1", &jti, NOW).expect("known").row.is_some_and(|row| row.revoked.is_none()));
                    db.revoke(&jti, NOW).expect("revoked");
                    assert!(db.known("k1", &jti, NOW).expect("known").row.is_some_and(|row| row.revoked.is_some()));
                }
            });
        }
    });
    assert_eq!(db.revoked(NOW).expect("a list").len(), 100);
}

#[test]
fn a_clock_that_leaps_makes_nothing_forgotten() {
    const DAY: i64 = 86_400_000;
    let (_dir, path, db) = made();
    db.register(&token("t", "k1")).expect("written");
    db.revoke("t", NOW).expect("revoked");
    db.rotate(&key("k2"), false, NOW, NOW).expect("rotated");
    // Four years ahead, as after a start without a battery behind the clock.
    let wrong = Timestamp(NOW.0 + 4 * 365 * DAY);
    let sweep = |db: &HubDb, now: Timestamp| db.sweep(Timestamp(now.0 - 30 * DAY), now).expect("asked");
    assert_eq!(sweep(&db, wrong), 0);
    // Nor by somebody who looks again and again, before and after a restart.
    assert_eq!(sweep(&db, wrong), 0);
    drop(db);
    let db = HubDb::open(&path, false).expect("opened");
    assert_eq!(sweep(&db, wrong), 0);
    assert!(db.find("t").expect("read").is_some() && db.keys().expect("keys").len() == 2);
    // Set right, the clock is believed, and so is the time that passes.
    assert_eq!(sweep(&db, NOW), 0);
    let looks = (1..=40).map(|day| sweep(&db, Timestamp(NOW.0 + day * DAY))).sum::<u64>();
    assert_eq!((looks, db.find("t").expect("read")), (1, None));
    assert_eq!(db.keys().expect("keys").len(), 1);
}

#[test]
fn a_machine_that_was_off_for_long_forgets_after_a_while() {
    const DAY: i64 = 86_400_000;
    let (_dir, _path, db) = made();
    db.register(&token("t", "k1")).expect("written");
    let now = Timestamp(NOW.0 + 100 * DAY);
    let looks = (0..200).position(|_| db.sweep(Timestamp(now.0 - 30 * DAY), now).expect("asked") == 1);
    assert_eq!(looks, Some(99), "a day for each look");
}
