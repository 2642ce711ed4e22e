//! Every example's session is replayed with the built binary and real processes. What differs from run to run is masked, and
//! `UPDATE=1` writes the sessions anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Pids, ports, times, durations and paths become words; columns of blanks become one.
fn mask(text: &str, dir: &Path) -> String {
    let text = text.replace(&*dir.to_string_lossy(), "DIR");
    let rules = [
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"until (\d{4}-\d\d-\d\d )?\d\d:\d\d", "until TIME"),
        (r"next run in [0-9dhms]+", "next run in T"),
        (r"next run at \d{4}-\d\d-\d\d", "next run at DAY"),
        (r"pid \d+", "pid N"),
        (r"port \d+", "port N"),
        (r"\b(\d+m)?\d+(\.\d+)?m?s\b", "T"),
        (r"(?m)^(Service\s.*?\s)\d{4,5}(\s+)\d+(\s+)", "${1}PORT${2}PID${3}"),
        (r"(?m)^(Service\s.*\s-\s+)\d+(\s+)", "${1}PID${2}"),
        (r"(?m)^… .*\n", ""),
        (r" {2,}", "  "),
        (r"(?m) +$", ""),
    ];
    rules
        .iter()
        .fold(text, |text, (rule, word)| Regex::new(rule).expect("a rule").replace_all(&text, *word).into_owned())
}

fn run(command: &str, dir: &Path) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_trueup")).parent().expect("a folder");
    let output = Command::new("/bin/sh")
        .args(["-c", &format!("{command} 2>&1")])
        .current_dir(dir)
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
        .env("TRUEUP_STATE", dir.join("state"))
        .stdin(Stdio::null())
        .output()
        .expect("a shell runs");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => {}
        code => text.push_str(&format!("[exit {}]\n", code.unwrap_or(-1))),
    }
    mask(&text, dir)
}

fn replay(name: &str) -> (String, String) {
    let source = examples().join(name);
    let dir = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(&source).expect("the example").flatten() {
        fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
    }
    // The session itself is no manifest, and neither is the state.
    let session = fs::read_to_string(source.join("session.txt")).expect("a session");
    let mut said = String::new();
    for command in session.lines().filter_map(|l| l.strip_prefix("$ ")) {
        said.push_str(&format!("$ {command}\n{}\n", run(command, dir.path())));
    }
    // Whatever happened, nothing stays.
    run("trueup -f . down", dir.path());
    (session, format!("{}\n", said.trim_end()))
}

#[test]
fn every_session_is_as_its_example_shows() {
    let mut names: Vec<String> = fs::read_dir(examples())
        .expect("the examples")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    #[expect(clippy::disallowed_methods, reason = "a test may be told to rewrite its goldens")]
    let update = std::env::var("UPDATE").is_ok();
    for name in names {
        assert!(examples().join(&name).join("README.md").exists(), "{name} has a README");
        let (shown, said) = replay(&name);
        if update {
            fs::write(examples().join(&name).join("session.txt"), said).expect("written");
        } else {
            assert_eq!(said, shown, "examples/{name}/session.txt (UPDATE=1 rewrites it)");
        }
    }
}
