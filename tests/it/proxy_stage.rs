//! Stages for the proxy: a daemon with an echo behind its hub, and a hub in this process with an upstream that the story plays itself.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trueup::adapters::clock::{SystemClock, SystemDice};
use trueup::adapters::deliveries::Delivered;
use trueup::adapters::deliveries::carrier::HttpCarrier;
use trueup::adapters::hubdb::HubDb;
use trueup::adapters::hubdb::file::OwnFile;
use trueup::hub::office::{Act, Answer, Fetched, Office, Piece, Planned, Said, Trouble};
use trueup::hub::{Bounds, Parts, Server, vital};
use trueup::model::blob::Integrity;
use trueup::model::blob_output::{BlobLine, RemovedLine, StoredLine};
use trueup::model::event::Event;
use trueup::model::id::{Name, ResourceId};
use trueup::model::output::{Description, LogLine};
use trueup::model::route::Exposure;
use trueup::model::unit::Millis;
use trueup::ports::deliveries;
use trueup::ports::hub::{Module, Mount, Standing, State, Tls, Upstream, Wish};
use trueup::ports::store::EventQuery;

use crate::hub_stage::{Reply, get, staged};
use crate::stage::{DEADLINE, Own, Stage, free_port, wait_until};

/// An echo as `name`, with its routes.
pub fn echo(name: &str, port: u16, routes: &str, more: &str) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [trueup, demo, echo, --row, row-{name}]\n  \
         port: {port}\n  readiness: {{ http: {{ path: /echo/health }}, period: 100ms }}\n  routes: {routes}\n{more}"
    )
}

/// A daemon whose hub has an echo at `/echo`.
pub struct Room {
    pub stage: Stage,
    pub daemon: Own,
    pub hub: u16,
    pub port: u16,
}

impl Room {
    pub fn new(routes: &str, more: &str) -> Self {
        let (stage, hub) = staged();
        let port = free_port();
        stage.write("echo.yaml", &echo("echo", port, routes, more));
        let daemon = stage.daemon();
        let room = Self { stage, daemon, hub, port };
        wait_until("the echo behind the hub", || room.get("/echo/seen").is_ok_and(|reply| reply.status == 200));
        room
    }

    pub fn usual() -> Self {
        Self::new("[ { path: /echo, websocket: true } ]", "")
    }

    pub fn get(&self, path: &str) -> Result<Reply, String> {
        get(self.hub, path)
    }

    /// One of the numbers that the echo counts.
    pub fn seen(&self, what: &str) -> u64 {
        self.get("/echo/seen").ok().and_then(|reply| reply.json()[what].as_u64()).unwrap_or_default()
    }
}

/// A connection on which anything may be said.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout");
        Self(stream)
    }

    pub fn say(mut self, bytes: impl AsRef<[u8]>) -> Self {
        // Whoever is refused in the middle may find the connection closed.
        let _ = self.0.write_all(bytes.as_ref());
        self
    }

    /// Everything until the other side closes.
    pub fn all(mut self) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Until this was heard.
    pub fn until(&mut self, word: &str) -> String {
        let mut text = String::new();
        let mut byte = [0];
        while !text.contains(word) {
            assert_eq!(self.0.read(&mut byte).expect("more"), 1, "{text}");
            text.push(char::from(byte[0]));
        }
        text
    }

    /// The head of an answer; none when it was closed before, as happens to who is refused while he speaks.
    pub fn heard(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut byte = [0];
        while !text.contains("\r\n\r\n") {
            match self.0.read(&mut byte) {
                Ok(1) => text.push(char::from(byte[0])),
                Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error} after {text}"),
                _ => return None,
            }
        }
        Some(text)
    }

    pub fn no_more(self) -> Self {
        let _ = self.0.shutdown(Shutdown::Write);
        self
    }
}

/// The status of an answer as it came.
pub fn status(text: &str) -> &str {
    text.split(' ').nth(1).unwrap_or(text)
}

struct Closed;

fn ending<'a, T: 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(Trouble::Ending) })
}

impl Office for Closed {
    fn plan(&self, _: Option<u32>) -> Answer<'_, Planned> {
        ending()
    }
    fn describe(&self, _: ResourceId) -> Answer<'_, Description> {
        ending()
    }
    fn act(&self, _: Act, _: Millis) -> Result<mpsc::Receiver<Said>, Trouble> {
        Err(Trouble::Ending)
    }
    fn events(&self, _: EventQuery) -> Answer<'_, Vec<Event>> {
        ending()
    }
    fn logs(&self, _: Name, _: usize) -> Answer<'_, Vec<LogLine>> {
        ending()
    }
    fn follow_logs(&self, _: Name, _: usize) -> Answer<'_, mpsc::Receiver<LogLine>> {
        ending()
    }
    fn put_blob(&self, _: Integrity, _: mpsc::Receiver<Piece>) -> Answer<'_, StoredLine> {
        ending()
    }
    fn get_blob(&self, _: Integrity, _: Option<Range<u64>>) -> Answer<'_, Fetched> {
        ending()
    }
    fn stat_blob(&self, _: Integrity) -> Answer<'_, BlobLine> {
        ending()
    }
    fn list_blobs(&self, _: Option<Integrity>, _: usize) -> Answer<'_, Vec<BlobLine>> {
        ending()
    }
    fn remove_blob(&self, _: Integrity) -> Answer<'_, RemovedLine> {
        ending()
    }
}

/// What a hub in this process is made of; its databases are in this folder.
pub fn parts(folder: &Path, bounds: Bounds, kept: deliveries::Bounds) -> Parts {
    let (database, events) = (folder.join("hub.db"), folder.join("deliveries.db"));
    let room = trueup::delivery::Room::new(trueup::delivery::Parts {
        open: Arc::new(move |make| match make || events.exists() {
            true => Ok(Some(Arc::new(Delivered::open(&events, kept)?))),
            false => Ok(None),
        }),
        carrier: Arc::new(HttpCarrier::default()),
        clock: Arc::new(SystemClock),
        dice: Arc::new(Mutex::new(SystemDice::new())),
    });
    Parts {
        clock: Arc::new(SystemClock),
        office: Arc::new(Closed),
        instance: Arc::from("0123456789abcdef"),
        vital: vital::Parts {
            database: "hub.db".to_owned(),
            witness: Arc::new(|| Ok(())),
            alarm: Arc::new(|_| {}),
            open: Arc::new(move || Ok(Arc::new(HubDb::open(&database, true).map_err(|unwell| unwell.to_string())?))),
            bell: Arc::new(|| {}),
        },
        post: Arc::new(room),
        operator_file: Arc::new(|home| Box::new(OwnFile::new(home.join("operator.token")))),
        holder: None,
        bounds,
    }
}

/// A hub in this process.
pub struct Bare {
    pub server: Server,
    pub hub: u16,
    pub wish: Wish,
    pub folder: tempfile::TempDir,
}

impl Bare {
    pub fn new(bounds: Bounds, tls: Option<Tls>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(parts(folder.path(), bounds, deliveries::Bounds::default())).expect("a server");
        let hub = free_port();
        let home = folder.path().join("home");
        let wish = Wish { listen: Some(format!("127.0.0.1:{hub}")), tls, home, ..Wish::default() };
        Self { server, hub, wish, folder }
    }

    /// A service at `/<name>`.
    pub fn with(mut self, name: &str, port: u16, state: State) -> Self {
        self.wish.upstreams.insert(Name::new(name).expect("a name"), Arc::new(upstream(name, port, state)));
        self
    }

    pub fn tell(self) -> Self {
        self.server.tell(self.wish.clone());
        wait_until("it to listen", || matches!(self.server.standing(), Standing::Serving(_)));
        self
    }
}

pub fn upstream(name: &str, port: u16, state: State) -> Upstream {
    Upstream {
        port: Some(port),
        routes: vec![Mount {
            path: format!("/{name}"),
            strip_prefix: false,
            websocket: true,
            exposure: Exposure::Allowed,
        }],
        state,
        reason: "Testing",
        message: "as the story says".to_owned(),
        pid: None,
        restarts: 0,
        last_exit: None,
        keeps_socket: false,
        module: Module::default(),
    }
}

/// Listens, and plays an upstream: every connection is one call, on a thread of its own.
pub fn play(part: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let part = Arc::new(part);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let part = part.clone();
            std::thread::spawn(move || part(stream.expect("a connection")));
        }
    });
    port
}

/// One request head as an upstream gets it; `None` when the connection ended before.
pub fn head(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(char::from(byte[0]));
    }
    Some(text)
}

/// Sockets of this machine that lead to a port, by state, as the kernel names them: `01` is established, `06` TIME_WAIT.
pub fn sockets_to(port: u16) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table").lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields[2].ends_with(&format!(":{port:04X}")) {
            *counts.entry(fields[3].to_owned()).or_default() += 1;
        }
    }
    counts
}

/// The most memory that a process ever had, MiB.
pub fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") >> 10
}

/// Waits without looking: nothing can be seen of what is to happen.
#[expect(clippy::disallowed_methods, reason = "a story waits in real time")]
pub fn pause(span: Duration) {
    let until = Instant::now() + span;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}
