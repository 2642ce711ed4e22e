//! One holder at a time; the kernel frees the lock of the dead.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use super::*;
use crate::adapters::testing::{again, again_unprivileged, hand_over, role};

const CHILD: &str = "TRUEUP_TEST_LOCK_CHILD";
const READ_ONLY_CHILD: &str = "TRUEUP_TEST_LOCK_READ_ONLY";
const NOW: Timestamp = Timestamp(1_795_000_000_000);

#[test]
fn the_second_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().expect("folder");
    let state = dir.path().join("a/.trueup");
    let lock = StateLock::acquire(&state, "trueup reconcile", NOW).expect("free");
    assert_eq!(fs::metadata(&state).expect("state").permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(state.join("lock")).expect("lock").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(state.join(".gitignore")).expect("ignore"), "*\n");
    let me = Held { pid: Some(std::process::id()), command: Some("trueup reconcile".into()), since: Some(NOW) };
    match StateLock::acquire(&state, "trueup plan", NOW) {
        Err(LockError::Held(held)) => assert_eq!(held, me),
        other => panic!("{other:?}"),
    }
    drop(lock);
    StateLock::acquire(&state, "again", NOW).expect("free again");
}

#[test]
fn what_a_longer_or_foreign_text_leaves_is_overwritten() {
    let dir = tempfile::tempdir().expect("folder");
    fs::write(dir.path().join("lock"), "x".repeat(5_000)).expect("old text");
    let lock = StateLock::acquire(dir.path(), "new", NOW).expect("free");
    let held: Held = serde_json::from_slice(&fs::read(dir.path().join("lock")).expect("text")).expect("JSON");
    assert_eq!(held.command.as_deref(), Some("new"));
    drop(lock);
    assert!(!dir.path().join(".gitignore").exists(), "a folder with something in it is left as it is");
}

#[test]
fn a_state_folder_that_cannot_be_is_said_so() {
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("file");
    for state in [file.clone(), file.join("below")] {
        match StateLock::acquire(&state, "x", NOW) {
            Err(error @ LockError::Folder { .. }) => assert!(error.to_string().ends_with("is not a folder"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    let error = folder_error(dir.path(), "", io::ErrorKind::ReadOnlyFilesystem.into());
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn a_name_locks_where_files_do_not() {
    let dir = tempfile::tempdir().expect("folder");
    let socket = lock_by_name(dir.path()).expect("free");
    assert_eq!(lock_by_name(dir.path()).expect_err("held").kind(), io::ErrorKind::AddrInUse);
    drop(socket);
    lock_by_name(dir.path()).expect("free again");
    assert!(has_no_locks(&io::Error::from_raw_os_error(rustix::io::Errno::NOLCK.raw_os_error())));
}

/// The other process of the next test: holds the lock until it is killed.
#[test]
fn child_that_holds() {
    let Some(state) = role(CHILD) else { return };
    let _lock = StateLock::acquire(Path::new(&state), "child", NOW).expect("free");
    io::stdout().write_all(b"\nheld\n").expect("parent listens");
    io::stdin().read_to_end(&mut Vec::new()).expect("parent lives");
}

#[test]
fn the_lock_of_a_killed_holder_is_free() {
    let dir = tempfile::tempdir().expect("folder");
    let mut child = again("adapters::lock::tests::child_that_holds", CHILD, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    assert!(output.lines().map_while(Result::ok).any(|line| line == "held"));
    match StateLock::acquire(dir.path(), "x", NOW) {
        Err(LockError::Held(held)) => assert_eq!(held.pid, Some(child.id())),
        other => panic!("{other:?}"),
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("reaped");
    StateLock::acquire(dir.path(), "x", NOW).expect("freed by the kernel");
}

/// Run by the next test as a user whom permissions bind.
#[test]
fn child_with_a_read_only_folder() {
    let Some(dir) = role(READ_ONLY_CHILD) else { return };
    let dir = Path::new(&dir);
    for state in [dir.to_owned(), dir.join("below"), dir.join("used")] {
        match StateLock::acquire(&state, "x", NOW) {
            Err(error @ LockError::Folder { .. }) => {
                assert!(error.to_string().contains("may not be written by this user"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_read_only_state_folder_is_said_so() {
    let dir = tempfile::tempdir().expect("folder");
    let used = dir.path().join("used");
    drop(StateLock::acquire(&used, "x", NOW).expect("free"));
    for (path, mode) in [(used.join("lock"), 0o400), (used, 0o500), (dir.path().to_owned(), 0o500)] {
        hand_over(&path, mode);
    }
    again_unprivileged("adapters::lock::tests::child_with_a_read_only_folder", READ_ONLY_CHILD, dir.path());
    hand_over(dir.path(), 0o700);
    hand_over(&dir.path().join("used"), 0o700);
}
