//! What units say of themselves: the protocol of `sd_notify(3)`, on a datagram socket for each unit that speaks it.
//!
//! A socket stands beside the FIFOs of its unit. That of a unit with another user, who cannot reach it there, stands in a folder of its
//! own below `/run`, and is that user's alone. Where neither can be it has an abstract address (unix(7)): not every client library
//! knows those, and any user can fill such a socket or take its name. Whoever is neither the unit's own user nor root is not heard
//! anywhere. The next keeper binds the same addresses.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, UCred,
};

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

/// Where folders stand that every user can reach, and only root can make (file-hierarchy(7)).
const RUNTIME: &str = "/run";

/// Where a unit's socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Path(PathBuf),
    /// That of another user: in this folder, under this name.
    Theirs {
        folder: PathBuf,
        unit: Name,
        uid: u32,
    },
    Abstract(String),
}

impl Address {
    /// `user` is the unit's, if that is another one than ours: it may not enter the state folder.
    pub(super) fn of(run: &Path, state_id: &str, unit: &Name, user: Option<u32>) -> Self {
        let path = run.join(format!("{unit}.notify"));
        match user {
            None if path.as_os_str().len() <= MAX_PATH => Self::Path(path),
            Some(uid) if let Ok(folder) = open_to_all(Path::new(RUNTIME), state_id) => {
                Self::Theirs { folder, unit: unit.clone(), uid }
            }
            _ => Self::Abstract(format!("trueup/{state_id}/{unit}")),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Theirs { folder, unit, .. } => Some(folder.join(format!("{unit}.notify"))),
            Self::Abstract(_) => None,
        }
    }

    /// What a program is given as `NOTIFY_SOCKET`.
    pub(super) fn variable(&self) -> OsString {
        match self {
            Self::Path(_) | Self::Theirs { .. } => self.path().unwrap_or_default().into_os_string(),
            Self::Abstract(name) => format!("@{name}").into(),
        }
    }
}

/// Our folder that others can reach things in and not list. Only root has one: anybody may give a folder in a place like /tmp its name.
fn open_to_all(runtime: &Path, state_id: &str) -> io::Result<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let folder = runtime.join(format!("trueup-{state_id}"));
    match fs::create_dir(&folder) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let found = fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.st_uid() != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
    Ok(folder)
}

/// The user of a unit's program, if it is not ours.
pub(super) fn user(launch: Option<&Launch>, process: Option<&Process>) -> Option<u32> {
    let user = match (launch, process) {
        (Some(launch), _) => launch.confinement.uid,
        // An adopted one was told its address by an earlier keeper.
        (None, process) => process.and_then(|process| find::user(process.pid)),
    };
    user.filter(|uid| *uid != rustix::process::geteuid().as_raw())
}

impl Drop for Notices {
    fn drop(&mut self) {
        if let Some(path) = self.address.path() {
            drop(fs::remove_file(path));
        }
        if let Address::Theirs { folder, .. } = &self.address {
            // Refused while another unit has its socket there.
            drop(fs::remove_dir(folder));
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
            Address::Theirs { uid, .. } => {
                let path = address.path().unwrap_or_default();
                drop(fs::remove_file(&path));
                let socket =
                    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
                // Its mode is that of the file from the first moment on.
                rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
                rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
                std::os::unix::fs::chown(&path, Some(*uid), None)?;
                socket.into()
            }
            Address::Abstract(name) => UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?,
        };
        socket.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket, address })
    }

    /// The socket as an earlier program of this keeper had it bound, whatever address that one chose.
    pub(super) fn taken_over(socket: OwnedFd, address: Address) -> Self {
        let socket = UnixDatagram::from(socket);
        let bound = socket.local_addr().ok();
        let name = bound.as_ref().and_then(|bound| bound.as_abstract_name());
        let address = name.map_or(address, |name| Address::Abstract(String::from_utf8_lossy(name).into_owned()));
        Self { socket, address }
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
        let own = Address::of(folder.path(), &id, &unit, None);
        assert!(matches!(own, Address::Path(_)));
        for address in [own, Address::Abstract(format!("trueup/{id}/web"))] {
            let notices = Notices::bind(address.clone()).expect("bound");
            let sender = UnixDatagram::unbound().expect("a socket");
            let to = match &address {
                Address::Abstract(name) => SocketAddr::from_abstract_name(name).expect("an address"),
                _ => SocketAddr::from_pathname(address.path().expect("a path")).expect("an address"),
            };
            sender.send_to_addr(b"READY=1", &to).expect("sent");
            assert_eq!(notices.read(Some(std::process::id())), [Word::Ready], "{address:?}");
        }
        assert!(fs::read_dir(folder.path()).expect("listed").next().is_none(), "nothing stays behind");
        let deep = Address::of(&folder.path().join("x".repeat(100)), &id, &unit, None);
        assert!(matches!(deep, Address::Abstract(_)));
    }
    #[test]
    fn the_socket_of_another_user_is_that_users_alone() {
        if !rustix::process::geteuid().is_root() {
            assert!(open_to_all(Path::new("/tmp"), "any").is_err(), "only root makes such a folder");
            return;
        }
        let runtime = tempfile::tempdir().expect("a folder");
        let unit = Name::new("web").expect("a name");
        let folder = open_to_all(runtime.path(), "0123").expect("made");
        assert_eq!(open_to_all(runtime.path(), "0123").expect("there"), folder);
        let address = Address::Theirs { folder: folder.clone(), unit, uid: 4242 };
        let notices = Notices::bind(address.clone()).expect("bound");
        let made = fs::metadata(folder.join("web.notify")).expect("a socket");
        assert_eq!((made.st_mode() & 0o777, made.st_uid()), (0o600, 4242));
        let around = fs::metadata(&folder).expect("a folder");
        assert_eq!((around.st_mode() & 0o777, around.st_uid()), (0o711, 0));
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(b"READY=1", folder.join("web.notify")).expect("sent");
        assert_eq!(notices.read(Some(std::process::id())), [Word::Ready]);
        let notices = Notices::taken_over(notices.socket.try_clone().expect("another").into(), address.clone());
        assert_eq!(*notices.address(), address);
        drop(notices);
        assert!(!folder.exists(), "nothing stays behind");
        // Somebody else's is not used.
        let elsewhere = runtime.path().join("trueup-4567");
        std::os::unix::fs::symlink("/tmp", &elsewhere).expect("linked");
        assert!(open_to_all(runtime.path(), "4567").is_err());
    }
}
