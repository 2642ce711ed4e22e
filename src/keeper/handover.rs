//! Handing everything over to another program in the same process: an upgrade that no unit notices.
//!
//! The keeper writes down what it knows, packs it with its open files into a socket that is standard input after the exec, and
//! becomes the new program. It stays the parent of every unit, so exit codes stay known; the lock, the listening socket and the
//! FIFOs stay open, so there is no moment in which a second keeper could start, a client is refused, or output is lost. When the
//! exec fails, the old program goes on as if nothing had been asked.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use super::hold::WrittenHold;
use super::spawn::Limits;
use super::table::State;
use super::wire::WireLaunch;
use crate::model::id::Name;
use crate::model::time::Tick;

/// The argument that tells a keeper to take over from standard input.
pub const FLAG: &str = "--take-over";
/// What is written grows by fields with defaults; another number means that the two cannot understand each other, and the units
/// are adopted from their marks instead.
const FORMAT: u32 = 1;
/// So many descriptors travel in one message (the kernel allows 253).
const BATCH: usize = 64;
/// The names of a batch: a unit's name has at most 63 letters.
const MAX_NAMES: usize = BATCH * 128;
/// Launches of 10,000 units with environments of some kilobytes.
const MAX_STATE: u64 = 256 << 20;

/// The kernel lock of a state folder.
pub(super) const LOCK_FILE: &str = "keeper.lock";

/// The names of what is packed, apart from the files of units.
pub(super) const LOCK: &str = "lock";
pub(super) const LISTENER: &str = "listener";
const WRITTEN: &str = "written";

/// Everything a keeper knows that is not in the marks.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Written {
    format: u32,
    /// How often this process became another program.
    pub handovers: u32,
    pub units: Vec<WrittenUnit>,
}

/// One unit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WrittenUnit {
    pub name: Name,
    pub state: State,
    #[serde(default)]
    pub launch: Option<WireLaunch>,
    #[serde(default)]
    pub group: Option<WrittenGroup>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub birth: Option<String>,
    #[serde(default)]
    pub timer: Option<Tick>,
    /// The last thing that each stream wrote was a part of a line.
    #[serde(default)]
    pub unfinished: [bool; 2],
    #[serde(default)]
    pub hold: WrittenHold,
}

/// Its process group.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WrittenGroup {
    pub pid: u32,
    pub start_ticks: u64,
    pub session: u32,
    pub leader_gone: bool,
    /// Its leader is our child, and not one that was adopted.
    pub child: bool,
}

/// Open files by name. The file of a unit is named `unit/what`.
pub(super) type Files = BTreeMap<String, OwnedFd>;

impl Written {
    pub(super) fn new(handovers: u32, units: Vec<WrittenUnit>) -> Self {
        Self { format: FORMAT, handovers, units }
    }
}

/// Becomes the program. Returns only if that failed; nothing has changed then.
pub(super) fn become_program(
    program: &Path,
    state: &Path,
    written: &Written,
    files: &[(String, BorrowedFd<'_>)],
    limits: &Limits,
) -> io::Error {
    // With raised limits: the kernel counts descriptors on their way against them (unix(7), ETOOMANYREFS).
    let packed = match pack(written, files) {
        Ok(packed) => packed,
        Err(cause) => return cause,
    };
    if let Err(cause) = rustix::stdio::dup2_stdin(&packed) {
        return cause.into();
    }
    // Everything else that is open closes with the exec.
    let mut command = Command::new(program);
    command.arg("keeper").arg("--state").arg(state).arg(FLAG);
    let cause = limits.lowered(|| command.exec());
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(null);
    }
    cause
}

/// A socket out of which everything can be taken, even when its other end is closed.
fn pack(written: &Written, files: &[(String, BorrowedFd<'_>)]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("trueup-keeper", MemfdFlags::CLOEXEC)?;
    let mut memory = std::fs::File::from(memory);
    serde_json::to_writer(io::BufWriter::new(&mut memory), written)?;
    memory.rewind()?;
    let (out, into) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // The kernel doubles it and counts some overhead; the default holds the files of some thousand units.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&into, 8 << 20);
    let first = (WRITTEN.to_owned(), memory.as_fd());
    let all: Vec<&(String, BorrowedFd<'_>)> = std::iter::once(&first).chain(files).collect();
    for batch in all.chunks(BATCH) {
        let names: Vec<&str> = batch.iter().map(|(name, _)| name.as_str()).collect();
        let fds: Vec<BorrowedFd<'_>> = batch.iter().map(|(_, fd)| *fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for descriptors"));
        }
        let names = names.join("\n");
        rustix::net::sendmsg(&into, &[IoSlice::new(names.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(out)
}

/// Takes everything out of standard input.
///
/// # Errors
/// When it is not what a keeper packed, or of another format. The descriptors are closed then.
pub(super) fn unpack() -> io::Result<(Written, Files)> {
    let stdin = io::stdin();
    let mut files = Files::new();
    loop {
        let mut names = vec![0; MAX_NAMES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            stdin.as_fd(),
            &mut [IoSliceMut::new(&mut names)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        );
        let length = match received {
            Ok(message) if message.bytes > 0 => message.bytes,
            Ok(_) | Err(rustix::io::Errno::AGAIN) => break,
            Err(cause) => return Err(cause.into()),
        };
        let names = String::from_utf8_lossy(&names[..length]).into_owned();
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        files.extend(names.split('\n').map(str::to_owned).zip(fds));
    }
    let written = files.remove(WRITTEN).ok_or_else(|| io::Error::other("nothing was handed over"))?;
    let mut text = Vec::new();
    std::fs::File::from(written).take(MAX_STATE).read_to_end(&mut text)?;
    let written: Written = serde_json::from_slice(&text).map_err(|cause| {
        // The cause may quote a secret.
        io::Error::other(format!("what was handed over cannot be read (column {})", cause.column()))
    })?;
    if written.format != FORMAT {
        return Err(io::Error::other(format!("what was handed over has format {}, not {FORMAT}", written.format)));
    }
    Ok((written, files))
}

/// A diary line of its own for what goes wrong before there is a diary.
pub(super) fn complain(cause: &io::Error) {
    let _ = writeln!(io::stderr(), "the keeper could not take over: {cause}");
}
