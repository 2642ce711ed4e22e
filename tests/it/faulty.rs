//! A bad line between us and a server: by a plan it cuts, stalls, says no, and loses answers, and it counts what it did.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It goes through.
    None,
    /// The connection ends before the server sees the request.
    CutBefore,
    /// The server gets so many bytes of the request's body, and then no more.
    CutRequest(usize),
    /// The server does its work, and its answer is lost.
    LoseAnswer,
    /// The answer ends after so many bytes of its body.
    CutAnswer(usize),
    /// The server is not asked; the answer is this status, with so many seconds in `Retry-After` if any.
    Refuse(u16, Option<u32>),
    /// The answer comes in small pieces.
    Slow,
    /// The request is taken, and nothing comes back.
    Stall,
}

/// Ends with this value. The server behind it sees one connection for each request.
pub struct Faulty {
    pub endpoint: String,
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    server: SocketAddr,
    plan: Mutex<Plan>,
    /// Each request that came, and what was done to it.
    done: Mutex<Vec<(String, Fault)>>,
    ended: AtomicBool,
}

struct Plan {
    script: VecDeque<Fault>,
    chance: Option<Chance>,
}

struct Chance {
    state: u64,
    /// One request in so many is hit.
    one_in: u64,
    faults: Vec<Fault>,
}

impl Plan {
    fn next(&mut self) -> Fault {
        if let Some(fault) = self.script.pop_front() {
            return fault;
        }
        let Some(chance) = &mut self.chance else { return Fault::None };
        let mut roll = |below: u64| {
            chance.state ^= chance.state << 13;
            chance.state ^= chance.state >> 7;
            chance.state ^= chance.state << 17;
            chance.state % below
        };
        if roll(chance.one_in) > 0 {
            return Fault::None;
        }
        let index = roll(chance.faults.len() as u64);
        chance.faults[usize::try_from(index).expect("small")]
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Faulty {
    /// Stands before the server at this `http://` endpoint. It is good until told otherwise.
    pub fn before(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").expect("HTTP").parse().expect("an address");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            server,
            plan: Mutex::new(Plan { script: VecDeque::new(), chance: None }),
            done: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&served);
                // A connection that breaks is what this is about.
                std::thread::spawn(move || while matches!(exchange(&stream, &shared), Ok(true)) {});
            }
        });
        Self { endpoint: format!("http://{address}"), shared, address }
    }

    /// What happens to the requests that come next, one after the other.
    pub fn script(&self, faults: &[Fault]) {
        lock(&self.shared.plan).script = faults.iter().copied().collect();
    }

    /// One request in so many gets one of these faults, always the same ones for a seed.
    pub fn chance(&self, seed: u64, one_in: u64, faults: &[Fault]) {
        lock(&self.shared.plan).chance = Some(Chance { state: seed | 1, one_in, faults: faults.to_vec() });
    }

    pub fn good(&self) {
        *lock(&self.shared.plan) = Plan { script: VecDeque::new(), chance: None };
    }

    /// Every request since the start with what was done to it.
    pub fn done(&self) -> Vec<(String, Fault)> {
        lock(&self.shared.done).clone()
    }

    /// How often such a thing was done.
    pub fn count(&self, such: impl Fn(&Fault) -> bool) -> usize {
        self.done().iter().filter(|(_, fault)| such(fault)).count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first line and the headers of a message, as they came.
struct Head {
    bytes: Vec<u8>,
    /// Of the body; `None` when it has chunks.
    length: Option<usize>,
}

impl Head {
    /// `None` at the end of the connection.
    fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut one = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            if stream.read(&mut one)? == 0 {
                return Ok(None);
            }
            bytes.push(one[0]);
        }
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let value =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned));
        let chunked = value("transfer-encoding:").is_some_and(|value| value.contains("chunked"));
        let length = value("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
        Ok(Some(Self { bytes, length: (!chunked).then_some(length) }))
    }

    fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes).lines().next().unwrap_or_default().to_owned()
    }

    fn status(&self) -> u16 {
        self.line().split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// One request and its answer. Whether the connection goes on.
fn exchange(client: &TcpStream, shared: &Shared) -> io::Result<bool> {
    let mut from_client = io::BufReader::new(client);
    let Some(request) = Head::read(&mut from_client)? else { return Ok(false) };
    let fault = lock(&shared.plan).next();
    lock(&shared.done).push((request.line(), fault));
    match fault {
        Fault::CutBefore => return end(client),
        Fault::Stall => {
            // Until the client has enough.
            io::copy(&mut from_client, &mut io::sink())?;
            return end(client);
        }
        Fault::Refuse(status, seconds) => {
            let mut body = vec![0; request.length.unwrap_or(0)];
            from_client.read_exact(&mut body)?;
            let retry = seconds.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
            let text = "<Error><Code>SlowDown</Code><Message>told to say so</Message></Error>";
            let text = if request.line().starts_with("HEAD") { "" } else { text };
            let head = format!("HTTP/1.1 {status} No\r\n{retry}Content-Length: {}\r\n\r\n{text}", text.len());
            (&*client).write_all(head.as_bytes())?;
            return Ok(true);
        }
        _ => {}
    }
    let mut server = TcpStream::connect(shared.server)?;
    // It closes the connection after its answer, so that an answer in chunks need not be understood here.
    server.write_all(&request.bytes[..request.bytes.len() - 2])?;
    server.write_all(b"Connection: close\r\n\r\n")?;
    let length = request.length.expect("our requests have a length") as u64;
    if let Fault::CutRequest(limit) = fault {
        io::copy(&mut from_client.by_ref().take(length.min(limit as u64)), &mut server)?;
        let _ = server.shutdown(Shutdown::Both);
        return end(client);
    }
    io::copy(&mut from_client.by_ref().take(length), &mut server)?;
    let mut from_server = io::BufReader::new(&server);
    let is_head = request.line().starts_with("HEAD");
    let answer = loop {
        match Head::read(&mut from_server)? {
            Some(answer) if answer.status() == 100 => {}
            Some(answer) => break answer,
            None => return end(client),
        }
    };
    let mut to_client = client;
    let Some(length) = answer.length else {
        if fault == Fault::LoseAnswer {
            io::copy(&mut from_server, &mut io::sink())?;
            return end(client);
        }
        to_client.write_all(&answer.bytes)?;
        io::copy(&mut from_server, &mut to_client)?;
        return end(client);
    };
    let length = if is_head || matches!(answer.status(), 204 | 304) { 0 } else { length };
    let mut body = from_server.by_ref().take(length as u64);
    match fault {
        Fault::LoseAnswer => {
            // The server has done its work when it has said all.
            io::copy(&mut body, &mut io::sink())?;
            end(client)
        }
        Fault::CutAnswer(limit) => {
            to_client.write_all(&answer.bytes)?;
            io::copy(&mut body.take(limit as u64), &mut to_client)?;
            end(client)
        }
        Fault::Slow => {
            to_client.write_all(&answer.bytes)?;
            let mut piece = vec![0; length.div_ceil(10).max(1)];
            loop {
                let count = body.read(&mut piece)?;
                if count == 0 {
                    return Ok(true);
                }
                // A pause on a line that says nothing: its time-out is the wait.
                client.set_read_timeout(Some(Duration::from_millis(10)))?;
                let _ = client.peek(&mut [0]);
                client.set_read_timeout(None)?;
                to_client.write_all(&piece[..count])?;
            }
        }
        _ => {
            to_client.write_all(&answer.bytes)?;
            io::copy(&mut body, &mut to_client)?;
            Ok(true)
        }
    }
}

fn end(client: &TcpStream) -> io::Result<bool> {
    client.shutdown(Shutdown::Both)?;
    Ok(false)
}
