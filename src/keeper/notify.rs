//! What units say of themselves: the protocol of `sd_notify(3)`, on a datagram socket for each unit that speaks it.
//!
//! A socket stands beside the FIFOs of its unit. Where its path would be too long for an address, or the unit runs as a user that
//! cannot reach it, it has an abstract address (unix(7)), which not every client library knows. Whoever is neither the unit's own
//! user nor root is not heard. The next keeper binds the same addresses.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, UCred};

use super::find;
use crate::model::id::Name;
use crate::model::unit::Millis;
use crate::ports::keeper::{Launch, Process};

/// systemd reads so much of a message and no more.
const MAX_MESSAGE: usize = 4096;
/// What a unit says of its state is kept up to this length.
const MAX_STATUS: usize = 256;
/// So many messages of one unit are read in one turn of the loop; the others get their turn too.
const MESSAGES: usize = 64;

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Ready,
    Alive,
    /// `WATCHDOG=trigger`: it wants to be treated as if it had been silent.
    Trigger,
    Extend(Millis),
    Status(String),
}

/// An address holds so many bytes and a zero (unix(7)).
const MAX_PATH: usize = 107;

/// The socket of one unit.
pub(super) struct Notices {
    socket: UnixDatagram,
    address: Address,
}

/// Where a unit's socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Path(PathBuf),
    Abstract(String),
}

impl Address {
    /// `reached` says whether the unit's user may enter the state folder.
    pub(super) fn of(run: &Path, state_id: &str, unit: &Name, reached: bool) -> Self {
        let path = run.join(format!("{unit}.notify"));
        if reached && path.as_os_str().len() <= MAX_PATH {
            return Self::Path(path);
        }
        Self::Abstract(format!("trueup/{state_id}/{unit}"))
    }

    /// What a program is given as `NOTIFY_SOCKET`.
    pub(super) fn variable(&self) -> OsString {
        match self {
            Self::Path(path) => path.clone().into_os_string(),
            Self::Abstract(name) => format!("@{name}").into(),
        }
    }
}

/// Whether a unit's program may enter the state folder, which is ours alone.
pub(super) fn reached(launch: Option<&Launch>, process: Option<&Process>) -> bool {
    let user = match (launch, process) {
        (Some(launch), _) => launch.confinement.uid,
        // An adopted one was told its address by an earlier keeper.
        (None, process) => process.and_then(|process| find::user(process.pid)),
    };
    user.is_none_or(|uid| uid == rustix::process::geteuid().as_raw())
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Address::Path(path) = &self.address {
            drop(fs::remove_file(path));
        }
    }
}

impl Notices {
    /// Binds the address. Whoever holds the lock of the state folder may remove what an earlier keeper left.
    pub(super) fn bind(address: Address) -> io::Result<Self> {
        let socket = match &address {
            Address::Path(path) => {
                drop(fs::remove_file(path));
                UnixDatagram::bind(path)?
            }
            Address::Abstract(name) => UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?,
        };
        socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket, address })
    }

    /// The socket as an earlier program of this keeper had it bound.
    pub(super) fn taken_over(socket: OwnedFd, address: Address) -> Self {
        Self { socket: UnixDatagram::from(socket), address }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Everything that was said and not read yet, up to a bound. `main` is the unit's process now.
    pub(super) fn read(&self, main: Option<u32>) -> Vec<Word> {
        let mut words = Vec::new();
        for _ in 0..MESSAGES {
            let mut bytes = [0; MAX_MESSAGE];
            let Ok((length, from)) = receive(&self.socket, &mut bytes) else { break };
            if from.is_some_and(|from| may_speak(&from, main)) {
                words.extend(parse(&bytes[..length]));
            }
        }
        words
    }
}

/// File descriptors that come with a message find no room and are closed by the kernel (unix(7)).
fn receive(socket: &UnixDatagram, bytes: &mut [u8]) -> io::Result<(usize, Option<UCred>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    )?;
    let from = control.drain().find_map(|one| match one {
        RecvAncillaryMessage::ScmCredentials(from) => Some(from),
        _ => None,
    });
    Ok((message.bytes, from))
}

/// The user that the unit runs as, or root.
fn may_speak(from: &UCred, main: Option<u32>) -> bool {
    let user = main.and_then(|pid| fs::metadata(format!("/proc/{pid}")).ok()).map(|meta| meta.st_uid());
    from.uid.is_root() || user == Some(from.uid.as_raw())
}

/// Lines of `NAME=value`; what is not known is skipped, as the protocol asks.
fn parse(message: &[u8]) -> Vec<Word> {
    let text = String::from_utf8_lossy(message);
    let word = |line: &str| {
        let (name, value) = line.split_once('=')?;
        match (name, value) {
            ("READY", "1") => Some(Word::Ready),
            ("WATCHDOG", "1") => Some(Word::Alive),
            ("WATCHDOG", "trigger") => Some(Word::Trigger),
            ("EXTEND_TIMEOUT_USEC", micros) => Some(Word::Extend(Millis(micros.parse::<u64>().ok()?.div_ceil(1_000)))),
            ("STATUS", status) => Some(Word::Status(printable(status))),
            _ => None,
        }
    };
    text.split('\n').filter_map(word).collect()
}

/// One line without control characters, not too long.
fn printable(status: &str) -> String {
    status.chars().filter(|c| !c.is_control()).take(MAX_STATUS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_understood_and_the_rest_is_skipped() {
        let message =
            b"READY=1\nSTATUS=serving\x07 3\nMAINPID=7\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=1500\nnonsense\nREADY=0";
        let status = Word::Status("serving 3".to_owned());
        assert_eq!(parse(message), [Word::Ready, status, Word::Alive, Word::Extend(Millis(2))]);
        assert_eq!(parse(b"WATCHDOG=trigger"), [Word::Trigger]);
        assert!(parse(b"\xff\xfe").is_empty());
    }

    #[test]
    fn a_unit_is_heard_wherever_its_socket_is() {
        let unit = Name::new("web").expect("a name");
        let folder = tempfile::tempdir().expect("a folder");
        let id = format!("test{}", std::process::id());
        for reached in [true, false] {
            let address = Address::of(folder.path(), &id, &unit, reached);
            let notices = Notices::bind(address.clone()).expect("bound");
            let sender = UnixDatagram::unbound().expect("a socket");
            let to = match &address {
                Address::Path(path) => SocketAddr::from_pathname(path).expect("an address"),
                Address::Abstract(name) => SocketAddr::from_abstract_name(name).expect("an address"),
            };
            sender.send_to_addr(b"READY=1", &to).expect("sent");
            assert_eq!(notices.read(Some(std::process::id())), [Word::Ready], "{address:?}");
        }
        assert!(fs::read_dir(folder.path()).expect("listed").next().is_none(), "nothing stays behind");
        let deep = Address::of(&folder.path().join("x".repeat(100)), &id, &unit, true);
        assert!(matches!(deep, Address::Abstract(_)));
    }
}
