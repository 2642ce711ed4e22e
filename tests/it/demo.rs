//! The demonstration modules as real processes.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// A module that prints without end is given up on after so many lines.
const MOST_LINES: u32 = 3_000_000;

/// A running module; killed when the test is over.
struct Module {
    child: Child,
    lines: Receiver<String>,
    port: u16,
}

impl Drop for Module {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(lines: Lines<BufReader<ChildStdout>>) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    receive
}

impl Module {
    /// Starts a module without waiting for it. Only what is given here is in its environment.
    fn spawn(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trueup"));
        command.arg("demo").args(args).env_clear().env("PATH", "/usr/bin:/bin").envs(env.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("our own binary");
        let lines = forward(BufReader::new(child.stdout.take().expect("a pipe")).lines());
        Self { child, lines, port: 0 }
    }

    /// Starts a module and waits until it listens.
    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut module = Self::spawn(args, env);
        module.until_it_listens();
        module
    }

    fn until_it_listens(&mut self) {
        let line = self.line_with(" listens ");
        self.port = word(&line, "port=").parse().expect("a port");
        assert_eq!(word(&line, "pid="), self.child.id().to_string());
    }

    /// Waits until SIGTERM is caught; before that it would end the process like any other.
    fn until_it_catches_term(&self) {
        let status = format!("/proc/{}/status", self.child.id());
        let bit = 1_u64 << (Signal::TERM.as_raw() - 1);
        let caught = || {
            let text = std::fs::read_to_string(&status).expect("it runs");
            let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim();
            u64::from_str_radix(mask, 16).expect("hexadecimal") & bit != 0
        };
        for _ in 0..1_000_000 {
            if caught() {
                return;
            }
            std::thread::yield_now();
        }
        panic!("SIGTERM is never caught");
    }

    /// The next line with this in it. Lines before it are gone then.
    fn line_with(&self, part: &str) -> String {
        for _ in 0..MOST_LINES {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(part) => return line,
                Ok(_) => {}
                Err(error) => panic!("no line with '{part}': {error}"),
            }
        }
        panic!("no line with '{part}' among so many")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("it is ours and not reaped");
    }

    /// Its exit code, after all its output is read.
    fn ended(&mut self) -> Option<i32> {
        for _ in 0..MOST_LINES {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("our child").code(),
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        panic!("it does not end")
    }

    /// Status and body of a request.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = ask(self.port, method, path, body).expect("an answer");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

fn word<'a>(line: &'a str, key: &str) -> &'a str {
    line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in '{line}'"))
}

fn ask(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

fn services(home: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(home.join("services.json")).expect("a file")).expect("JSON")
}

#[test]
fn vault_and_clerk_find_each_other_through_services_json() {
    let home = tempfile::tempdir().expect("a folder");
    let env = [("PARACHUTE_HOME", home.path().to_str().expect("a path"))];
    let clerk = Module::start(&["clerk", "--port", "0"], &env);
    assert_eq!(clerk.ask("GET", "/clerk/health", "").0, 200);
    let (status, body) = clerk.ask("GET", "/clerk/count", "");
    assert_eq!((status, &body["error"]), (503, &json!("vault_unavailable")));

    let mut vault = Module::start(&["vault", "--port", "0"], &env);
    let notes = "/vault/default/api/notes";
    let (status, note) = vault.ask("POST", notes, r#"{"content":"one","tags":["a"],"path":"x/y","metadata":{"k":1}}"#);
    assert_eq!((status, &note["id"], &note["metadata"]["k"]), (201, &json!("note-1"), &json!(1)));
    vault.ask("POST", notes, r#"{"content":"two"}"#);
    assert_eq!(vault.ask("GET", &format!("{notes}?tag=a"), "").1.as_array().map(Vec::len), Some(1));
    assert_eq!(vault.ask("GET", &format!("{notes}/note-2"), "").1["content"], "two");
    assert_eq!(vault.ask("GET", &format!("{notes}/note-9"), "").0, 404);
    assert_eq!(vault.ask("POST", notes, "{}").0, 422);
    assert_eq!(clerk.ask("GET", "/clerk/count", ""), (200, json!({ "vault": "parachute-vault", "notes": 2 })));
    assert_eq!(vault.ask("DELETE", &format!("{notes}/note-1"), "").0, 200);

    let info = vault.ask("GET", "/vault/default/.parachute/info", "").1;
    assert_eq!((&info["name"], &info["manifestName"]), (&json!("vault"), &json!("parachute-vault")));
    assert_eq!(vault.ask("GET", "/elsewhere", "").1["error"], "not_found");

    // It ends at SIGTERM, and comes back to the port of its row with its notes.
    vault.signal(Signal::TERM);
    assert_eq!(vault.ended(), Some(0));
    assert_eq!(clerk.ask("GET", "/clerk/count", "").0, 503);
    let again = Module::start(&["vault"], &env);
    assert_eq!(again.port, vault.port);
    assert_eq!(clerk.ask("GET", "/clerk/count", "").1["notes"], 1);
    assert_eq!(services(home.path())["services"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_mailbox_takes_messages_and_prints_requests_when_asked() {
    let mailbox = Module::start(&["mailbox"], &[("PORT", "0"), ("LOG_LEVEL", "debug")]);
    let (status, message) = mailbox.ask("POST", "/mailbox/api/messages", r#"{"channel":"main","content":"hello"}"#);
    assert_eq!((status, message), (201, json!({ "id": 1, "channel": "main", "content": "hello" })));
    assert_eq!(mailbox.ask("GET", "/mailbox/api/messages", "").1[0]["content"], "hello");
    mailbox.line_with("POST /mailbox/api/messages 201");
}

#[test]
fn a_wrong_row_makes_a_module_drift() {
    let home = tempfile::tempdir().expect("a folder");
    let free = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        listener.local_addr().expect("bound").port()
    };
    let row = json!({ "name": "mailbox", "port": free, "installDir": "/opt/mailbox" });
    std::fs::write(home.path().join("services.json"), json!({ "services": [row] }).to_string()).expect("a file");
    let env = [("PARACHUTE_HOME", home.path().to_str().expect("a path")), ("PORT", "1941")];
    let mailbox = Module::start(&["mailbox"], &env);
    assert_eq!(mailbox.port, free);
    assert_eq!(services(home.path())["services"][0]["installDir"], "/opt/mailbox");
    let elsewhere = Module::start(&["vault", "--listen-on", "0"], &[("PORT", "1")]);
    assert_ne!(elsewhere.port, 1);
}

#[test]
fn a_child_is_left_behind_when_asked_for() {
    let mut parent = Module::spawn(&["vault", "--port", "0", "--fork-child"], &[]);
    let line = parent.line_with("child pid=");
    let child = Pid::from_raw(word(&line, "pid=").parse().expect("a pid")).expect("a pid");
    parent.until_it_listens();
    parent.signal(Signal::TERM);
    assert_eq!(parent.child.wait().expect("our child").code(), Some(0));
    // It is still there, and ours to end.
    kill_process(child, Signal::KILL).expect("it outlived its parent");
}

#[test]
fn faults_do_what_they_say() {
    let mut ends = Module::spawn(&["vault", "--port", "0", "--exit-after", "20", "--exit-code", "7"], &[]);
    assert_eq!(ends.ended(), Some(7));

    let mut late = Module::spawn(&["vault", "--port", "0", "--listen-after", "3600000"], &[]);
    late.until_it_catches_term();
    late.signal(Signal::TERM);
    assert_eq!(late.ended(), Some(0), "it also stops while it is not listening yet");

    let stubborn = Module::start(&["vault", "--port", "0", "--ignore-term"], &[]);
    stubborn.signal(Signal::TERM);
    stubborn.line_with("does not");
    assert_eq!(stubborn.ask("GET", "/vault/default/health", "").0, 200);

    let mut loud = Module::start(&["vault", "--port", "0", "--print-forever"], &[]);
    loud.line_with("line ");
    loud.signal(Signal::TERM);
    assert_eq!(loud.ended(), Some(0));

    let taken = Module::start(&["vault", "--port", "0"], &[]);
    let mut second = Module::spawn(&["vault", "--port", &taken.port.to_string()], &[]);
    assert!(second.line_with("cannot listen").contains(&taken.port.to_string()));
    assert_eq!(second.ended(), Some(1));

    assert_eq!(Module::spawn(&["vault"], &[("PORT", "many")]).ended(), Some(64));
    assert_eq!(Module::spawn(&["nobody"], &[]).ended(), Some(64));
    assert_eq!(Module::spawn(&["vault", "--help"], &[]).ended(), Some(0));
}
