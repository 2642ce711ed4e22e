//! Programs by other people, from PyPI: they judge what we write. Each set of packages has an environment of its own outside the repository,
//! made once and kept.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use trueup::adapters::environment::Environment;

/// What a script said, or `None` on a machine that has no PyPI and says so (`TRUEUP_NO_PYPI=1`). Any other trouble fails the test.
///
/// `packages` name their versions (`name==1.2.3`).
pub fn run(packages: &[&str], script: &str, input: &[u8]) -> Option<String> {
    let python = match interpreter(packages) {
        Ok(python) => python,
        Err(why) if Environment::of_process().get("TRUEUP_NO_PYPI") == Some("1") => {
            let _ = writeln!(std::io::stderr(), "NOT TESTED against {packages:?}: {why}");
            return None;
        }
        Err(why) => panic!("{packages:?} cannot be had (TRUEUP_NO_PYPI=1 passes over it): {why}"),
    };
    let mut child = Command::new(python)
        .args(["-I", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("python ends");
    // A script that does not want its input closes the pipe.
    let _ = writer.join();
    assert!(output.status.success(), "the script failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// The interpreter of an environment with exactly these packages and what they need.
///
/// # Errors
/// What is missing on this machine.
pub fn interpreter(packages: &[&str]) -> Result<PathBuf, String> {
    let own = Environment::of_process();
    let cache = own.get("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(own.home()?.join(".cache"))).ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    let cache = cache.join("trueup-ci/python");
    let digest = Sha256::digest(packages.join("\n").as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    // Tests run at the same time, and so do runs of them; the lock ends with its file.
    let lock = File::create(cache.join(format!("{name}.lock"))).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let (folder, made) = (cache.join(&name), cache.join(&name).join("made"));
    if !made.exists() {
        let _ = fs::remove_dir_all(&folder);
        step(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"];
        step(Command::new(python(&folder)).args(pip).args(packages))?;
        File::create(&made).map_err(|error| error.to_string())?;
    }
    Ok(python(&folder))
}

fn python(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn step(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
