//! Secret commands: bounded, remembered, and silent about what they print.

use std::cell::Cell;
use std::fs;

use super::*;
use crate::adapters::testing::wait_until;
use crate::model::time::Timestamp;

#[derive(Default)]
struct Hand(Cell<u64>);

impl Clock for Hand {
    fn now(&self) -> Tick {
        Tick(self.0.get())
    }
    fn wall(&self) -> Timestamp {
        Timestamp(0)
    }
}

fn ask(secrets: &ProcessSecrets, script: &str, dir: &Path) -> Result<String, String> {
    let argv = ["sh", "-c", script].map(str::to_owned);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let answer = runtime.block_on(secrets.command(&argv, dir));
    answer.map(|secret| secret.reveal().to_owned())
}

fn secrets(ttl: u64) -> (ProcessSecrets, Rc<Hand>) {
    let clock = Rc::new(Hand::default());
    let path = Environment::of_process().path().to_owned();
    let environment = Environment::of([("PATH", path.as_str()), ("API_KEY", "k"), ("EMPTY", "")]);
    (ProcessSecrets::new(Rc::new(environment), clock.clone(), Millis(ttl)), clock)
}

#[test]
fn a_variable_is_a_secret() {
    let (secrets, _) = secrets(0);
    assert_eq!(secrets.variable("API_KEY"), Some(Secret::new("k".into())));
    assert_eq!(secrets.variable("EMPTY"), Some(Secret::new(String::new())));
    assert_eq!(secrets.variable("NONE"), None);
}

#[test]
fn what_a_command_prints_without_one_newline() {
    let dir = tempfile::tempdir().expect("folder");
    let (secrets, _) = secrets(0);
    for (script, wanted) in [
        ("printf 'a b'", "a b"),
        ("printf 'a\\n'", "a"),
        ("printf 'a\\n\\n'", "a\n"),
        ("true", ""),
        ("echo noise >&2; echo $API_KEY", "k"),
        ("basename \"$PWD\" >/dev/null; head -c 65536 /dev/zero | tr '\\0' x", &"x".repeat(65_536)),
    ] {
        assert_eq!(ask(&secrets, script, dir.path()).as_deref(), Ok(wanted), "{script}");
    }
}

#[test]
fn an_error_names_the_cause_and_never_the_output() {
    let dir = tempfile::tempdir().expect("folder");
    let (secrets, _) = secrets(0);
    for (script, wanted) in [
        ("echo hush; exit 3", "'sh' failed with exit code 3"),
        ("echo hush; echo 'not unlocked' >&2; echo more >&2; exit 1", "'sh' failed with exit code 1: not unlocked"),
        ("echo hush; kill -TERM $$", "'sh' was ended by signal 15"),
        ("echo hush; printf '\\377'", "'sh' printed something that is not UTF-8"),
        ("echo hush; printf '\\000'", "'sh' printed a NUL byte, which no environment variable can hold"),
        ("echo hush; head -c 65600 /dev/zero", "'sh' printed more than 64 KiB"),
        ("head -c 200000 /dev/zero >&2; exit 1", "'sh' failed with exit code 1"),
    ] {
        assert_eq!(ask(&secrets, script, dir.path()), Err(wanted.to_owned()), "{script}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    for (argv, wanted) in [
        (vec![], "the command is empty"),
        (vec!["no-such-program-here".to_owned()], "'no-such-program-here' was not found"),
    ] {
        assert_eq!(runtime.block_on(secrets.command(&argv, dir.path())), Err(wanted.to_owned()));
    }
}

#[test]
fn a_command_that_hangs_is_ended_with_all_it_started() {
    let dir = tempfile::tempdir().expect("folder");
    let (mut secrets, _) = secrets(0);
    secrets.timeout = Duration::from_millis(300);
    let script = "sh -c 'echo $$ >child; exec sleep 600' & wait";
    let error = ask(&secrets, script, dir.path()).expect_err("too slow");
    assert!(error.starts_with("'sh' did not end within"), "{error}");
    let pid = fs::read_to_string(dir.path().join("child")).expect("it ran").trim().to_owned();
    let gone = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    wait_until("the grandchild is gone", gone);
}

#[test]
fn answers_are_remembered_as_long_as_told() {
    let dir = tempfile::tempdir().expect("folder");
    let script = "echo x >>count; wc -l <count | tr -d ' '";
    let (remembering, clock) = secrets(60_000);
    for (at, wanted) in [(0, "1"), (59_999, "1"), (60_000, "2"), (61_000, "2")] {
        clock.0.set(at);
        assert_eq!(ask(&remembering, script, dir.path()).as_deref(), Ok(wanted), "at {at}");
    }
    let other = tempfile::tempdir().expect("folder");
    assert_eq!(ask(&remembering, script, other.path()).as_deref(), Ok("1"), "another folder is another question");
    let (forgetful, _) = secrets(0);
    assert_eq!(ask(&forgetful, script, dir.path()).as_deref(), Ok("3"));
    assert_eq!(ask(&forgetful, script, dir.path()).as_deref(), Ok("4"));
}

#[test]
fn a_failure_is_forgotten_sooner() {
    let dir = tempfile::tempdir().expect("folder");
    let (secrets, clock) = secrets(60_000);
    let script = "test -e ready && echo yes";
    assert!(ask(&secrets, script, dir.path()).is_err());
    fs::write(dir.path().join("ready"), "").expect("ready");
    clock.0.set(14_999);
    assert!(ask(&secrets, script, dir.path()).is_err());
    clock.0.set(15_000);
    assert_eq!(ask(&secrets, script, dir.path()).as_deref(), Ok("yes"));
}
