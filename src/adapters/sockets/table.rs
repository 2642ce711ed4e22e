//! The kernel's table of listening TCP sockets, asked for the way `ss -lt` does (netlink, sock_diag(7)).
//!
//! `/proc/net/tcp` has the same facts, and reading it makes the kernel walk its whole hash table of connections, empty
//! or not: 3 ms for each address family on a machine with a few gigabytes of memory. sock_diag walks the listeners alone.
//! procfs is still what is read where a kernel or a sandbox has no sock_diag.

use std::io;
use std::mem::MaybeUninit;

use procfs::net::TcpState;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, netlink};
use rustix::net::{recv, sendto, socket_with};

use crate::ports::sockets::Listening;

/// All listening sockets of the machine (of our network namespace), IPv4 and IPv6.
pub(super) fn read() -> io::Result<Vec<Listening>> {
    through_diag().or_else(|_| through_procfs())
}

fn through_procfs() -> io::Result<Vec<Listening>> {
    let mut entries = procfs::net::tcp().map_err(io::Error::other)?;
    match procfs::net::tcp6() {
        Ok(six) => entries.extend(six),
        // A kernel without IPv6 has no such table.
        Err(procfs::ProcError::NotFound(_)) => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    let listening = entries.into_iter().filter(|entry| entry.state == TcpState::Listen);
    Ok(listening.map(|e| Listening { port: e.local_address.port(), user: e.uid, inode: e.inode }).collect())
}

/// Size of `nlmsghdr` (linux/netlink.h).
const HEADER: usize = 16;
/// Size of `inet_diag_req_v2` (linux/inet_diag.h).
const QUESTION: usize = 56;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h): the type of questions and of answers.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` (linux/netlink.h).
const REQUEST_DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`: the table changed under the kernel's hands and the dump may have gaps.
const INTERRUPTED: u16 = 0x10;
/// `NLMSG_DONE`, the last message of a dump.
const DONE: u16 = 3;
/// The state bit of listening sockets: 1 << TCP_LISTEN.
const LISTEN: u32 = 1 << 10;
/// The kernel fills at most 32 KiB at a time for a dump.
const ANSWER: usize = 32 << 10;
/// How often an interrupted dump is asked for again before procfs is read.
const TRIES: usize = 3;

fn through_diag() -> io::Result<Vec<Listening>> {
    let mut all = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        all.extend(dump(family)?);
    }
    Ok(all)
}

fn dump(family: AddressFamily) -> io::Result<Vec<Listening>> {
    for _ in 0..TRIES {
        if let Some(answer) = dump_once(family)? {
            return Ok(answer);
        }
    }
    Err(io::Error::from(Errno::INTR))
}

/// One dump; `None` when it was interrupted.
fn dump_once(family: AddressFamily) -> io::Result<Option<Vec<Listening>>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    sendto(&socket, &question(family), SendFlags::empty(), &kernel)?;
    let mut answer = Vec::new();
    let mut buffer = vec![MaybeUninit::uninit(); ANSWER];
    loop {
        // The kernel queues the next part of a dump before it lets go of the one before: there is nothing to wait for.
        let ((bytes, _), length) = recv(&socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
        if length > bytes.len() {
            return Err(Errno::MSGSIZE.into());
        }
        match read_messages(bytes, &mut answer)? {
            Progress::More => {}
            Progress::Done => return Ok(Some(answer)),
            Progress::Interrupted => return Ok(None),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
    Interrupted,
}

fn question(family: AddressFamily) -> [u8; HEADER + QUESTION] {
    let mut message = [0; HEADER + QUESTION];
    message[0..4].copy_from_slice(&((HEADER + QUESTION) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    // Both are defined as numbers below 256.
    message[HEADER] = family.as_raw() as u8;
    message[HEADER + 1] = ipproto::TCP.as_raw().get() as u8;
    message[HEADER + 4..HEADER + 8].copy_from_slice(&LISTEN.to_ne_bytes());
    message
}

/// Reads the messages of one datagram: each is a header (length, type, flags) and an `inet_diag_msg`.
fn read_messages(mut bytes: &[u8], into: &mut Vec<Listening>) -> io::Result<Progress> {
    let malformed = || io::Error::from(Errno::PROTO);
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0).ok_or_else(malformed)? as usize;
        let kind = u16_at(bytes, 4).ok_or_else(malformed)?;
        let flags = u16_at(bytes, 6).ok_or_else(malformed)?;
        if length < HEADER || length > bytes.len() {
            return Err(malformed());
        }
        if flags & INTERRUPTED != 0 {
            return Ok(Progress::Interrupted);
        }
        match kind {
            DONE => return Ok(Progress::Done),
            BY_FAMILY => into.push(read_socket(&bytes[HEADER..length]).ok_or_else(malformed)?),
            // An error message: the kernel has no handler for this family, or refuses us.
            _ => return Err(Errno::OPNOTSUPP.into()),
        }
        // Messages start at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Progress::More)
}

/// Reads an `inet_diag_msg`: four bytes, the socket's address (48), expiry and queues (12), user, inode.
fn read_socket(body: &[u8]) -> Option<Listening> {
    let port = u16::from_be_bytes([*body.get(4)?, *body.get(5)?]);
    Some(Listening { port, user: u32_at(body, 64)?, inode: u32_at(body, 68)?.into() })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn both_sources_know_an_own_listener() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("loopback");
            let port = listener.local_addr().expect("bound").port();
            let own = |all: Vec<Listening>| all.into_iter().find(|row| row.port == port);
            let procfs = own(through_procfs().expect("procfs")).expect("procfs lists it");
            assert!(procfs.inode > 0);
            // A sandbox may have no sock_diag; then there is nothing to compare.
            if let Ok(diag) = through_diag() {
                assert_eq!(own(diag), Some(procfs), "{address}");
            }
        }
    }

    #[test]
    fn many_listeners_come_in_several_parts() {
        let listeners: Vec<_> = (0..800).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback")).collect();
        let all = read().expect("a table");
        for listener in &listeners {
            let port = listener.local_addr().expect("bound").port();
            assert!(all.iter().any(|row| row.port == port));
        }
    }

    #[test]
    fn bytes_that_are_no_answer_are_refused() {
        let mut into = Vec::new();
        assert!(read_messages(&[1, 2, 3], &mut into).is_err());
        assert!(read_messages(&[0; 16], &mut into).is_err());
        let mut short = question(AddressFamily::INET);
        short[0] = 20;
        assert!(read_messages(&short[..20], &mut into).is_err());
        let mut done = question(AddressFamily::INET);
        done[4] = DONE as u8;
        assert_eq!(read_messages(&done, &mut into).expect("done"), Progress::Done);
        done[6] = INTERRUPTED as u8;
        assert_eq!(read_messages(&done, &mut into).expect("interrupted"), Progress::Interrupted);
        assert!(into.is_empty());
    }
}
