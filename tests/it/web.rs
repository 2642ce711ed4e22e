//! A small HTTP client that is not ours: one request a connection, over a plain socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::hub_stage::hub_at;
use crate::stage::{DEADLINE, Own, Stage, free_port, wait_until};

/// What was answered.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answered {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn status(self, wanted: u16) -> Self {
        assert_eq!(self.status, wanted, "{:?}\n{}", self.headers, self.text());
        self
    }
}

/// A request; its body comes with its length.
pub struct Call<'a> {
    pub port: u16,
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: Option<&'a [u8]>,
}

impl Call<'_> {
    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the hub listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut head = format!("{} {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", self.method, self.path, self.port);
        for (name, value) in self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("Connection: close\r\n\r\n");
        let mut writer = &stream;
        writer.write_all(head.as_bytes()).expect("it takes the head");
        // Who refuses a body may not read it.
        let _ = writer.write_all(self.body.unwrap_or_default());
        stream
    }

    /// The whole answer.
    pub fn send(&self) -> Answered {
        let mut reader = BufReader::new(self.open());
        let (status, headers) = head(&mut reader);
        let mut body = Vec::new();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        if chunked {
            while let Some(chunk) = chunk(&mut reader) {
                body.extend(chunk);
            }
        } else {
            reader.read_to_end(&mut body).expect("the body");
        }
        Answered { status, headers, body }
    }

    /// An answer that goes on.
    pub fn stream(&self) -> Stream {
        let mut reader = BufReader::new(self.open());
        let (status, headers) = head(&mut reader);
        Stream { status, headers, reader, text: Vec::new() }
    }
}

fn head(reader: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    (status, headers)
}

fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut size = String::new();
    reader.read_line(&mut size).expect("the size of a chunk");
    let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|e| panic!("{e}: {size:?}"));
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk).expect("a chunk");
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}

/// An answer that goes on, in chunks.
pub struct Stream {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    text: Vec<u8>,
}

impl Stream {
    /// The next line; none when it has ended.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.text.extend(chunk(&mut self.reader)?);
        }
    }

    /// The next event: its name, its id, its data.
    pub fn event(&mut self) -> Option<(String, String, Value)> {
        let (mut name, mut id, mut data) = (String::new(), String::new(), String::new());
        loop {
            let line = self.line()?;
            if let Some(value) = line.strip_prefix("event:") {
                name = value.trim().to_owned();
            } else if let Some(value) = line.strip_prefix("id:") {
                id = value.trim().to_owned();
            } else if let Some(value) = line.strip_prefix("data:") {
                data.push_str(value.trim());
            } else if line.is_empty() && !data.is_empty() {
                return Some((name, id, serde_json::from_str(&data).unwrap_or(Value::String(data))));
            }
        }
    }
}

/// Waits until it answers, and takes the token of the operator.
pub fn operator(stage: &Stage, port: u16) -> String {
    wait_until("the hub to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let path = stage.path(".trueup/home/operator.token");
    let read = || std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
    wait_until("the token of the operator", || !read().is_empty());
    read()
}

/// Another token, with this scope, for the hub.
pub fn minted(stage: &Stage, scope: &str) -> String {
    let answer = stage.run(&["token", "mint", "-o", "json", "--scope", scope, "--audience", "hub"]).code(0);
    answer.typed("minted").pop().and_then(|line| line["token"].as_str().map(str::to_owned)).expect("a token")
}

/// A daemon with a hub, and tokens to call it.
pub struct Hub {
    _daemon: Own,
    pub stage: Stage,
    pub port: u16,
    pub reader: String,
    pub admin: String,
}

impl Hub {
    pub fn start(stage: Stage) -> Self {
        let port = free_port();
        stage.write("hub.yaml", &hub_at(port));
        let daemon = stage.daemon();
        let admin = operator(&stage, port);
        let reader = admin.clone();
        Self { _daemon: daemon, stage, port, reader, admin }
    }

    pub fn call(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answered {
        let bearer = format!("Bearer {token}");
        let text = body.map(ToString::to_string);
        let mut headers = vec![("Authorization", bearer.as_str())];
        if body.is_some() {
            headers.push(("Content-Type", "application/json"));
        }
        let path = format!("/api/v1{path}");
        Call { port: self.port, method, path: &path, headers: &headers, body: text.as_deref().map(str::as_bytes) }
            .send()
    }

    pub fn get(&self, path: &str) -> Answered {
        self.call(&self.reader, "GET", path, None)
    }

    pub fn post(&self, path: &str, body: Option<&Value>) -> Answered {
        self.call(&self.admin, "POST", path, body)
    }

    pub fn resource(&self, name: &str) -> Option<Value> {
        let list = self.get("/resources").status(200).json();
        list["resources"].as_array()?.iter().find(|r| r["name"] == name).cloned()
    }

    pub fn stream(&self, path: &str, more: &[(&str, &str)]) -> Stream {
        let bearer = format!("Bearer {}", self.reader);
        let headers = [&[("Authorization", bearer.as_str())], more].concat();
        let path = format!("/api/v1{path}");
        Call { port: self.port, method: "GET", path: &path, headers: &headers, body: None }.stream()
    }
}

pub fn ready(resource: &Value) -> bool {
    resource["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
