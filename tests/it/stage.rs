//! A stage for stories with real processes: a folder with a tree and a state, the built binary, and a clean end.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a story fails. Generous: two busy cores.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Stage {
    pub dir: tempfile::TempDir,
    /// Given to every command, beside a clean environment.
    pub env: Vec<(String, String)>,
}

/// What a command answered.
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}\n{}", self.err))).collect()
    }

    /// The JSON lines of one type.
    pub fn typed(&self, kind: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|l| l["type"] == kind).collect()
    }

    pub fn summary(&self) -> Value {
        let last = self.lines().pop().unwrap_or_else(|| panic!("no output; {}", self.err));
        assert_eq!(last["type"], "summary", "the last line is the summary: {last}");
        last
    }

    #[track_caller]
    pub fn code(self, wanted: i32) -> Self {
        assert_eq!(self.code, wanted, "exit code\n--- stdout\n{}\n--- stderr\n{}", self.out, self.err);
        self
    }
}

/// A process that the story started itself; it is ended with the story.
pub struct Own(pub Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    pub fn within(folder: &Path) -> Self {
        let dir = tempfile::tempdir_in(folder).expect("a temporary folder");
        fs::create_dir(dir.path().join("manifests")).expect("the tree");
        Self { dir, env: Vec::new() }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn tree(&self, file: &str) -> PathBuf {
        self.path("manifests").join(file)
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.tree(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("a manifest");
    }

    pub fn hub(&self) {
        self.write("hub.yaml", "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: { listen: none }\n");
    }

    /// A demo mailbox with further lines of its spec.
    pub fn mailbox(&self, name: &str, port: u16, more: &str) {
        self.write(&format!("{name}.yaml"), &mailbox(name, port, more));
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trueup"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.dir.path())
            .envs(self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Answer {
        Answer::of(self.command(args).output().expect("the binary runs"))
    }

    /// `reconcile --once -o json`.
    pub fn once(&self, more: &[&str]) -> Answer {
        let mut args = vec!["reconcile", "--once", "-o", "json"];
        args.extend(more);
        self.run(&args)
    }

    /// Starts the continuous mode and waits until its first pass is over.
    pub fn daemon(&self) -> Own {
        self.daemon_with(&[])
    }

    pub fn daemon_with(&self, more: &[&str]) -> Own {
        let log = fs::File::create(self.path("daemon.out")).expect("a log");
        let child = self
            .command(&[&["reconcile", "-o", "json"][..], more].concat())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        let own = Own(child);
        wait_until("the daemon's socket", || self.path(".trueup/trueup.sock").exists());
        own
    }

    pub fn daemon_output(&self) -> String {
        fs::read_to_string(self.path("daemon.out")).unwrap_or_default()
    }

    /// One row of `get`.
    pub fn get(&self, name: &str) -> Value {
        let answer = self.run(&["get", &format!("Service/{name}"), "-o", "json"]).code(0);
        answer.typed("resource").pop().unwrap_or_else(|| panic!("no {name} in {}", answer.out))
    }

    pub fn pid(&self, name: &str) -> u64 {
        self.get(name)["pid"].as_u64().unwrap_or_else(|| panic!("{name} has no process: {}", self.get(name)))
    }

    pub fn condition(&self, name: &str, kind: &str) -> Option<Value> {
        let row = self.get(name);
        row["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
    }

    pub fn is_ready(&self, name: &str) -> bool {
        self.condition(name, "Ready").is_some_and(|c| c["status"] == "True")
    }

    pub fn services_json(&self) -> PathBuf {
        self.path(".trueup/home/services.json")
    }

    pub fn row(&self, name: &str) -> Option<Value> {
        let file: Value = serde_json::from_str(&fs::read_to_string(self.services_json()).ok()?).ok()?;
        file["services"].as_array()?.iter().find(|r| r["name"] == name).cloned()
    }

    /// Edits a row as an unlocked module would.
    pub fn set_row_port(&self, name: &str, port: u16) {
        let text = fs::read_to_string(self.services_json()).expect("services.json");
        let mut file: Value = serde_json::from_str(&text).expect("JSON");
        let rows = file["services"].as_array_mut().expect("rows");
        let row = rows.iter_mut().find(|r| r["name"] == name).expect("the row");
        row["port"] = port.into();
        let temporary = self.path("services.tmp");
        fs::write(&temporary, file.to_string()).expect("written");
        fs::rename(temporary, self.services_json()).expect("renamed");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Whatever the story did, nothing of it stays: the tree's own way first, then by the pids the keeper wrote down.
        let _ = self.command(&["down", "--timeout", "20s"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        for entry in fs::read_dir(self.path(".trueup/run")).into_iter().flatten().flatten() {
            // The other files in there are FIFOs; reading one would wait for ever.
            if entry.path().extension().is_none_or(|e| e != "json") {
                continue;
            }
            let mark = fs::read_to_string(entry.path()).ok().and_then(|t| serde_json::from_str::<Value>(&t).ok());
            if let Some(pid) = mark.as_ref().and_then(find_pid) {
                kill(pid, "KILL");
            }
        }
    }
}

/// The first `pid` in a mark, wherever it stands.
fn find_pid(value: &Value) -> Option<u64> {
    match value {
        Value::Object(map) => map.get("pid").and_then(Value::as_u64).or_else(|| map.values().find_map(find_pid)),
        _ => None,
    }
}

pub fn mailbox(name: &str, port: u16, more: &str) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [trueup, demo, mailbox, --row, row-{name}]\n  \
         port: {port}\n  readiness: {{ http: {{ path: /mailbox/health }}, period: 200ms }}\n{more}"
    )
}

/// A service that runs a shell script.
pub fn shell(name: &str, script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [/bin/sh, -c, {script}]\n{more}"
    )
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port()
}

pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a story waits in real time")]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Sends a signal to one process of the story.
pub fn kill(pid: u64, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).stderr(Stdio::null()).status();
    status.expect("kill runs");
}

pub fn alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']) && !rest.is_empty())
}
