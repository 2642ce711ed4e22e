//! The listening socket that the keeper holds for a unit and hands to each of its processes (`LISTEN_FDS`, sd_listen_fds(3)), so that
//! a restart refuses no connection: between two processes they wait in the kernel's queue.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

/// The number under which a program finds its first socket (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// An open door.
pub(super) struct Door {
    address: SocketAddr,
    listener: TcpListener,
}

impl Door {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// The socket as an earlier program of this keeper had it open.
    pub(super) fn taken_over(socket: OwnedFd) -> Option<Self> {
        let listener = TcpListener::from(socket);
        Some(Self { address: listener.local_addr().ok()?, listener })
    }

    /// Takes the socket back from a process that an earlier keeper gave it to, where the kernel allows that (ptrace(2), access mode
    /// checks). Without it the next restart leaves a gap; nothing else is lost.
    pub(super) fn from_process(pid: u32, address: SocketAddr) -> Option<Self> {
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
        let socket = rustix::process::pidfd_getfd(&pidfd, FIRST, PidfdGetfdFlags::empty()).ok()?;
        Self::taken_over(socket).filter(|door| door.address == address)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_stays_where_it_is() {
        let door = Door::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("opened");
        assert!(Door::open(door.address()).is_err(), "one at a time");
        let again = Door::taken_over(door.fd().try_clone_to_owned().expect("a copy")).expect("a socket");
        assert_eq!(again.address(), door.address());
        assert!(Door::taken_over(std::fs::File::open("/dev/null").expect("a file").into()).is_none());
    }
}
