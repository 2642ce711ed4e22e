//! Python packages for tests that want a second opinion: a virtual environment with pinned versions, made once per machine and shared by
//! all tests and processes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A Python with these packages, each pinned as `name==version` with all that they need. `None` only when the machine has none and
/// `TRUEUP_NO_PYPI=1` says that this is known.
pub fn with(packages: &[&str]) -> Option<PathBuf> {
    match venv(packages) {
        Ok(python) => Some(python),
        Err(why) if variable("TRUEUP_NO_PYPI").is_some_and(|set| set == "1") => {
            #[expect(clippy::print_stderr, reason = "whoever runs the tests has to know what was not tested")]
            {
                eprintln!("\nNOT TESTED: there is no Python with {packages:?}: {why}\n");
            }
            None
        }
        Err(why) => {
            panic!("this test needs Python with {packages:?}, and TRUEUP_NO_PYPI=1 passes without: {why}")
        }
    }
}

/// Runs a script: one JSON value in, one out.
pub fn ask(python: &PathBuf, script: &str, input: &Value) -> Value {
    let mut child = Command::new(python)
        .args(["-I", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.to_string().as_bytes()).expect("the script reads");
    drop(stdin);
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[expect(clippy::disallowed_methods, reason = "this is the environment of the test")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn venv(packages: &[&str]) -> Result<PathBuf, String> {
    let said = |error: std::io::Error| error.to_string();
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
    let cache = cache.ok_or("there is no home folder")?.join("trueup-ci");
    fs::create_dir_all(&cache).map_err(said)?;
    let version = run(Command::new("python3").arg("--version"))?;
    let digest = Sha256::digest(format!("{} {}", version.trim(), packages.join(" ")));
    let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = cache.join(format!("python-{name}"));
    // One process makes it; the others wait for the lock, which goes with its holder.
    let lock = File::create(cache.join(format!("python-{name}.lock"))).map_err(said)?;
    lock.lock().map_err(said)?;
    let python = folder.join("bin/python");
    if folder.join("complete").exists() {
        return Ok(python);
    }
    // What a maker that was killed left.
    let _ = fs::remove_dir_all(&folder);
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps"])
        .args(packages))?;
    fs::write(folder.join("complete"), "").map_err(said)?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
