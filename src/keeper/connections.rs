//! The socket of the keeper and who is connected to it. Only bytes and lines here; what they mean is the server's business.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};

use super::wire;

/// The name of the socket in the state folder.
pub const SOCKET: &str = "keeper.sock";
/// Clients are a daemon and a few commands; more are a fault, and are hung up on.
const MAX_CONNECTIONS: usize = 64;
/// A client that does not read gets no more than this put aside (a list of 10,000 units is about 8 MiB).
const MAX_UNSENT: usize = 32 << 20;
/// A watcher that has so much to read already needs no further "look again".
const ENOUGH_TOLD: usize = 64 << 10;

/// One client.
struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    watching: bool,
    /// Whether the loop waits for it to take output.
    blocked: bool,
}

/// All clients.
pub(super) struct Connections {
    listener: UnixListener,
    path: PathBuf,
    epoll: OwnedFd,
    all: BTreeMap<u32, Connection>,
    next: u32,
    token: fn(u32) -> u64,
}

/// A path below a folder that is short however deep the folder lies: socket addresses hold 107 bytes (unix(7)). The folder
/// must stay open while the path is used.
///
/// # Errors
/// When the folder cannot be opened.
pub fn short_path(folder: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let fd = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()));
    Ok((fd, path))
}

impl Connections {
    /// Binds the socket. Whoever holds the lock may remove what an earlier keeper left.
    pub(super) fn bind(state: &Path, epoll: OwnedFd, token: fn(u32) -> u64) -> io::Result<Self> {
        let path = state.join(SOCKET);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let (folder, short) = short_path(state, SOCKET)?;
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(short);
        rustix::process::umask(before);
        drop(folder);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path, epoll, all: BTreeMap::new(), next: 0, token })
    }

    /// The socket as an earlier program of this keeper had it bound.
    pub(super) fn taken_over(listener: OwnedFd, state: &Path, epoll: OwnedFd, token: fn(u32) -> u64) -> Self {
        let listener = UnixListener::from(listener);
        Self { listener, path: state.join(SOCKET), epoll, all: BTreeMap::new(), next: 0, token }
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub(super) fn close(&self) {
        drop(fs::remove_file(&self.path));
    }

    /// Takes in whoever waits, if it is our own user.
    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let ours =
                rustix::net::sockopt::socket_peercred(&stream).is_ok_and(|peer| peer.uid == rustix::process::geteuid());
            if !ours || self.all.len() >= MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.next = self.next.wrapping_add(1);
            let data = EventData::new_u64((self.token)(self.next));
            if epoll::add(&self.epoll, &stream, data, EventFlags::IN).is_ok() {
                let connection =
                    Connection { stream, input: Vec::new(), output: Vec::new(), watching: false, blocked: false };
                self.all.insert(self.next, connection);
            }
        }
    }

    /// Reads what a client sent, and gives the complete lines. Hangs up when it did.
    pub(super) fn lines(&mut self, id: u32) -> Vec<Vec<u8>> {
        let Some(connection) = self.all.get_mut(&id) else { return Vec::new() };
        let mut chunk = [0; 16 << 10];
        match connection.stream.read(&mut chunk) {
            Ok(0) => self.hang_up(id),
            Ok(length) => {
                connection.input.extend_from_slice(&chunk[..length]);
                if !chunk[..length].contains(&b'\n') && connection.input.len() <= wire::MAX_LINE {
                    return Vec::new();
                }
                let lines = wire::take_lines(&mut connection.input);
                if connection.input.len() > wire::MAX_LINE {
                    self.hang_up(id);
                }
                return lines;
            }
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.hang_up(id),
        }
        Vec::new()
    }

    pub(super) fn send(&mut self, id: u32, line: &[u8]) {
        if let Some(connection) = self.all.get_mut(&id) {
            connection.output.extend_from_slice(line);
            self.flush(id);
        }
    }

    pub(super) fn watch(&mut self, id: u32) {
        if let Some(connection) = self.all.get_mut(&id) {
            connection.watching = true;
        }
    }

    /// Sends a line to everyone who watches.
    pub(super) fn tell(&mut self, line: &[u8]) {
        let watching = self.all.iter().filter(|(_, c)| c.watching && c.output.len() < ENOUGH_TOLD);
        for id in watching.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.send(id, line);
        }
    }

    /// Writes as much as the client takes.
    pub(super) fn flush(&mut self, id: u32) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        let mut sent = 0;
        let failed = loop {
            if sent == connection.output.len() {
                break false;
            }
            match connection.stream.write(&connection.output[sent..]) {
                Ok(0) => break true,
                Ok(length) => sent += length,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) => break cause.kind() != ErrorKind::WouldBlock,
            }
        };
        connection.output.drain(..sent);
        if connection.output.is_empty() {
            connection.output = Vec::new();
        }
        if failed || connection.output.len() > MAX_UNSENT {
            return self.hang_up(id);
        }
        let blocked = !connection.output.is_empty();
        if blocked != connection.blocked {
            connection.blocked = blocked;
            let flags = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64((self.token)(id));
            if epoll::modify(&self.epoll, connection.stream.as_fd(), data, flags).is_err() {
                self.hang_up(id);
            }
        }
    }

    fn hang_up(&mut self, id: u32) {
        if let Some(connection) = self.all.remove(&id) {
            let _ = epoll::delete(&self.epoll, &connection.stream);
        }
    }
}
