//! Environment variables and secret commands. No text that leaves here holds what a command printed, except as a [`Secret`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::environment::Environment;
use super::files::program::find_program;
use crate::model::secret::Secret;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::Answer;
use crate::ports::clock::Clock;
use crate::ports::files::Program;
use crate::ports::secrets::Secrets;

/// How long a command may take: long enough for a password manager on a slow network, short enough not to look dead.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest secret: two orders above any key; environments are limited to this order of size anyway.
const MAX_BYTES: usize = 64 << 10;
/// How much of standard error is read for its first line.
const MAX_COMPLAINT_BYTES: usize = 4 << 10;
/// How much of that line is shown.
const MAX_COMPLAINT_CHARS: usize = 200;
/// A failure is remembered at most this long, so that an unlocked password manager is noticed soon.
const FAILURE_TTL: Millis = Millis::secs(15);
/// More answers than any tree has secret commands; beyond it the memory starts anew.
const MAX_REMEMBERED: usize = 10_000;

/// A remembered answer, and until when it counts.
type Remembered = (Tick, Result<Secret, String>);

/// Secrets from the environment of this process and from commands.
pub struct ProcessSecrets {
    environment: Rc<Environment>,
    clock: Rc<dyn Clock>,
    ttl: Millis,
    timeout: Duration,
    memory: RefCell<BTreeMap<(PathBuf, Vec<String>), Remembered>>,
}

impl ProcessSecrets {
    /// Answers of commands are remembered for `ttl`; zero asks anew each time.
    pub fn new(environment: Rc<Environment>, clock: Rc<dyn Clock>, ttl: Millis) -> Self {
        Self { environment, clock, ttl, timeout: TIMEOUT, memory: RefCell::default() }
    }

    fn recall(&self, key: &(PathBuf, Vec<String>)) -> Option<Result<Secret, String>> {
        let memory = self.memory.borrow();
        memory.get(key).filter(|(until, _)| self.clock.now() < *until).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, key: (PathBuf, Vec<String>), answer: &Result<Secret, String>) {
        let ttl = if answer.is_ok() { self.ttl } else { self.ttl.min(FAILURE_TTL) };
        let mut memory = self.memory.borrow_mut();
        if memory.len() >= MAX_REMEMBERED {
            memory.clear();
        }
        memory.insert(key, (self.clock.now() + ttl, answer.clone()));
    }

    async fn run(&self, argv: &[String], dir: &Path) -> Result<Secret, String> {
        let word = argv.first().ok_or("the command is empty")?;
        let program = match find_program(word, dir, self.environment.path()) {
            Program::At(path) => path,
            Program::NotFound => return Err(format!("'{word}' was not found")),
            Program::NotExecutable(path) => return Err(format!("'{}' is not executable", path.display())),
        };
        let mut command = Command::new(program);
        command.args(&argv[1..]).current_dir(dir).env_clear().envs(self.environment.all());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(|error| format!("'{word}' could not be started: {error}"))?;
        let mut group = Group::new(child);
        match tokio::time::timeout(self.timeout, group.finish()).await {
            Ok(answer) => answer.map_err(|why| format!("'{word}' {why}")),
            Err(_) => Err(format!("'{word}' did not end within {} s", self.timeout.as_secs_f32())),
        }
    }
}

impl Secrets for ProcessSecrets {
    fn variable(&self, name: &str) -> Option<Secret> {
        self.environment.get(name).map(|value| Secret::new(value.to_owned()))
    }

    fn command<'a>(&'a self, argv: &'a [String], dir: &'a Path) -> Answer<'a, Result<Secret, String>> {
        Box::pin(async move {
            let key = (dir.to_owned(), argv.to_owned());
            if let Some(answer) = self.recall(&key) {
                return answer;
            }
            let answer = self.run(argv, dir).await;
            if self.ttl > Millis(0) {
                self.remember(key, &answer);
            }
            answer
        })
    }
}

/// A command and whatever it started, as one process group that does not outlive this value unless it ended well.
struct Group {
    child: Child,
    /// The group's number while something in it may still be running by our fault.
    number: Option<Pid>,
}

impl Group {
    fn new(child: Child) -> Self {
        let number = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { child, number }
    }

    /// Reads both outputs to their ends and waits for the command.
    async fn finish(&mut self) -> Result<Secret, String> {
        let stdout = self.child.stdout.take().ok_or("has no output")?;
        let stderr = self.child.stderr.take().ok_or("has no output")?;
        let read = async { tokio::try_join!(read_limited(stdout), read_complaint(stderr)) };
        let (output, complaint) = read.await?;
        let status = self.child.wait().await.map_err(|error| format!("could not be waited for: {error}"))?;
        // Reaped: the number may belong to others from now on. What a good command left behind (an agent) is its own affair.
        self.number = None;
        if !status.success() {
            return Err(format!("{}{complaint}", describe(status)));
        }
        secret_of(output)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // The leader is not reaped yet (or it would be `None`), so the number is still this group's.
            let _ = kill_process_group(number, Signal::KILL);
        }
    }
}

fn secret_of(mut output: Vec<u8>) -> Result<Secret, String> {
    if output.last() == Some(&b'\n') {
        output.pop();
    }
    if output.contains(&0) {
        return Err("printed a NUL byte, which no environment variable can hold".into());
    }
    String::from_utf8(output).map(Secret::new).map_err(|_| "printed something that is not UTF-8".into())
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".into(),
    }
}

async fn read_limited(from: impl AsyncRead + Unpin) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut limited = from.take(MAX_BYTES as u64 + 1);
    limited.read_to_end(&mut bytes).await.map_err(|error| format!("could not be read: {error}"))?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("printed more than {} KiB", MAX_BYTES >> 10));
    }
    Ok(bytes)
}

/// The first line of standard error, as the end of a sentence. The rest is read and dropped, so that the command is not
/// stopped by a full pipe.
async fn read_complaint(mut from: impl AsyncRead + Unpin) -> Result<String, String> {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let length = from.read(&mut chunk).await.map_err(|error| format!("could not be read: {error}"))?;
        if length == 0 {
            break;
        }
        let room = MAX_COMPLAINT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..length.min(room)]);
    }
    let text = String::from_utf8_lossy(&kept);
    let plain = |c: &char| !c.is_control();
    let line: String = text.lines().next().unwrap_or("").chars().filter(plain).take(MAX_COMPLAINT_CHARS).collect();
    Ok(if line.trim().is_empty() { String::new() } else { format!(": {}", line.trim()) })
}

#[cfg(test)]
mod tests;
