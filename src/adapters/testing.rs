//! Tools of the tests in this room: waiting on a predicate, and running a part of a test in another process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::clock::since_boot;
use super::environment::{Environment, own_binary};

/// How long a predicate may take. Generous: it is only spent when something is broken.
const DEADLINE: Duration = Duration::from_secs(20);
/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

/// Waits until the predicate holds, and says what was awaited when it never does.
#[expect(clippy::disallowed_methods, reason = "a pause between two looks at a predicate with a deadline")]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = since_boot();
    while !holds() {
        assert!(since_boot() - start < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A variable that tells a test that it is the child of another.
pub(crate) fn role(name: &str) -> Option<String> {
    Environment::of_process().get(name).map(str::to_owned)
}

/// Runs one test of this binary again as somebody whom permissions bind, which root is not. The folder is given to them.
pub(crate) fn again_unprivileged(test: &str, variable: &str, dir: &Path) {
    let mut command = again(test, variable, dir);
    // The binary may stand below a home that only its owner may enter, so the other user gets a copy.
    let open = tempfile::tempdir().expect("a temporary folder");
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        let copy = open.path().join("test");
        fs::copy(own_binary().expect("the test binary"), &copy).expect("a copy");
        command = Command::new(copy);
        command.args(words(test)).env(variable, dir).uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Gives a path to the user of [`again_unprivileged`], and sets its mode.
pub(crate) fn hand_over(path: &Path, mode: u32) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("owner");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

/// A command that runs one test of this binary again, in a process of its own.
pub(crate) fn again(test: &str, variable: &str, value: &Path) -> Command {
    let mut command = Command::new(own_binary().expect("the test binary"));
    command.args(words(test)).env(variable, value);
    command
}

/// The words that make a test binary run one test.
fn words(test: &str) -> [&str; 4] {
    [test, "--exact", "--nocapture", "--test-threads=1"]
}
