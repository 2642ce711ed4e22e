//! The moment between the keeper and a program with rights and limits of its own: this very binary, started in the program's
//! place, takes them on and then becomes the program. What a process is can only be changed from within it.
//!
//! The keeper's message waits on its standard input, a socket. The other end learns how it went: hung up without a word means
//! that the program runs, a text says why it never did. Pid, start time, group, output and mark are the program's own from the
//! beginning.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Resource;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use crate::ports::keeper::{Bounds, Confinement, Rlimit};

/// The word that starts it: `trueup become PROGRAM ARGV...`.
pub const WORD: &str = "become";
/// What could not become its program ends so, as a shell that finds no command (POSIX, 127).
const NEVER_RAN: u8 = 127;
/// Started by hand, without a keeper.
const USAGE: u8 = 64;
/// The settings of one program are some hundred bytes; a path may be 4 KiB.
const MAX_MESSAGE: usize = 64 << 10;
/// So many descriptors can come with a message; the kernel allows 253 (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// What the keeper says: one line of JSON. A field joins with a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// Where the program starts.
    pub dir: PathBuf,
    /// The folder of the cgroup to join.
    pub cgroup: Option<PathBuf>,
    pub confinement: Confinement,
    /// So many listening sockets come with this message.
    pub sockets: u32,
}

impl Message {
    /// The line as it is sent.
    pub(super) fn line(&self) -> Result<Vec<u8>, String> {
        let mut line = serde_json::to_vec(self).map_err(|cause| cause.to_string())?;
        line.push(b'\n');
        if line.len() > MAX_MESSAGE {
            return Err("its settings are too long".to_owned());
        }
        Ok(line)
    }
}

/// What the dynamic loader reads of an environment (ld.so(8)) is for the program, and not for this binary, which may still have the
/// keeper's rights: such a variable comes under another name.
const HELD: &str = "TRUEUP_HELD_";

/// The name under which a variable of the program is given to this binary.
pub fn held(name: &str) -> Cow<'_, str> {
    let read_by_loader = name.starts_with("LD_") || name == "GLIBC_TUNABLES";
    if read_by_loader { Cow::Owned(format!("{HELD}{name}")) } else { Cow::Borrowed(name) }
}

/// Becomes the program named by the words. Returns only if that failed, with the exit code to end with.
pub fn run(words: &[OsString]) -> u8 {
    // First of all: the lowest numbers are still free, so descriptors that come with the message are 3, 4, and so on.
    let message = match receive() {
        Ok(message) => message,
        Err(why) => {
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("trueup become: {why}\n").as_bytes());
            return USAGE;
        }
    };
    let keeper = match step_aside() {
        Ok(keeper) => keeper,
        Err(cause) => {
            let _ = rustix::io::write(rustix::stdio::stdin(), format!("/dev/null: {cause}").as_bytes());
            return NEVER_RAN;
        }
    };
    let why = become_program(&message, words);
    let _ = rustix::io::write(keeper, why.as_bytes());
    NEVER_RAN
}

/// Reads the message. Descriptors that come with it stay open, in their order, for the program too.
fn receive() -> Result<Message, String> {
    let socket = rustix::stdio::stdin();
    let (mut line, mut buffer) = (Vec::new(), vec![0; MAX_MESSAGE]);
    while line.last() != Some(&b'\n') {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let read =
            match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                Err(cause) => {
                    return Err(format!("this is started by the keeper, with a socket as its input ({cause})"));
                }
                Ok(message) => message.bytes,
            };
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = ancillary {
                for fd in fds {
                    // Let go of without closing it.
                    let _open = fd.into_raw_fd();
                }
            }
        }
        if read == 0 || line.len() + read > MAX_MESSAGE {
            return Err("the keeper's message is not whole".to_owned());
        }
        line.extend_from_slice(&buffer[..read]);
    }
    serde_json::from_slice(&line).map_err(|cause| format!("the keeper's message: {cause}"))
}

/// Makes the standard input empty, and keeps the socket where the program will not have it.
fn step_aside() -> io::Result<OwnedFd> {
    let keeper = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(keeper)
}

/// Takes on the settings, what needs the most rights first, and becomes the program. Returns why not.
fn become_program(message: &Message, words: &[OsString]) -> String {
    let [program, first, rest @ ..] = words else { return "the argument vector is empty".to_owned() };
    // Made now: a tight memory limit must not meet more than it has to.
    let mut command = Command::new(program);
    command.arg0(first).args(rest);
    for (name, value) in std::env::vars_os() {
        if let Some(own) = name.to_str().and_then(|name| name.strip_prefix(HELD)) {
            command.env_remove(&name).env(own, value);
        }
    }
    if message.sockets > 0 {
        // sd_listen_fds(3): the number, whose they are, and their names.
        command.env("LISTEN_FDS", message.sockets.to_string());
        command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDNAMES", "port");
    }
    if let Err(why) = take_on(message) {
        return why;
    }
    let cause = command.exec();
    format!("{}: {cause}", program.display())
}

fn take_on(message: &Message) -> Result<(), String> {
    let say = |what: &str| {
        let what = what.to_owned();
        move |cause: Errno| format!("{what}: {}", io::Error::from(cause))
    };
    let Confinement { uid, gid, groups, nice, umask, rlimits } = &message.confinement;
    if let Some(folder) = &message.cgroup {
        // 0 is whoever writes (cgroups(7)).
        fs::write(folder.join("cgroup.procs"), "0").map_err(|cause| format!("{}: {cause}", folder.display()))?;
    }
    if let Some(nice) = nice {
        rustix::process::setpriority_process(None, *nice).map_err(say(&format!("resources.nice {nice}")))?;
    }
    if let Some(umask) = umask {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(*umask));
    }
    for (limit, bounds) in rlimits {
        set_limit(*limit, *bounds).map_err(say(&format!("resources.rlimits.{}", limit.as_str())))?;
    }
    if let Some(uid) = uid {
        // Programs open their standard streams again by name (/dev/stdout), which asks for the rights of the owner.
        for stream in [rustix::stdio::stdout().as_fd(), rustix::stdio::stderr().as_fd()] {
            // Ours alone: never a device that everybody has, such as /dev/null.
            if rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
                let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(*uid)), None);
            }
        }
    }
    // Whoever becomes another user keeps no group of ours, whatever the keeper said.
    if groups.is_some() || uid.is_some() {
        let groups: Vec<_> = match groups {
            Some(groups) => groups.iter().map(|gid| rustix::fs::Gid::from_raw(*gid)).collect(),
            None => gid.iter().map(|gid| rustix::fs::Gid::from_raw(*gid)).collect(),
        };
        set_thread_groups(&groups).map_err(say("its supplementary groups"))?;
    }
    // This process has one thread, so what the kernel changes for a thread is changed for all of it.
    if let Some(gid) = gid {
        let id = rustix::fs::Gid::from_raw(*gid);
        set_thread_res_gid(id, id, id).map_err(say(&format!("its group {gid}")))?;
    }
    if let Some(uid) = uid {
        let id = rustix::fs::Uid::from_raw(*uid);
        set_thread_res_uid(id, id, id).map_err(say(&format!("its user {uid}")))?;
    }
    // As that user, so that a folder it may not enter is no way in.
    let whom = uid.map(|uid| format!(" (as user {uid})")).unwrap_or_default();
    rustix::process::chdir(&message.dir).map_err(say(&format!("working directory {}{whom}", message.dir.display())))
}

fn set_limit(limit: Rlimit, bounds: Bounds) -> rustix::io::Result<()> {
    let value = rustix::process::Rlimit { current: bounds.soft, maximum: bounds.hard };
    rustix::process::setrlimit(resource(limit), value)
}

/// The kernel's number of a limit.
pub fn resource(limit: Rlimit) -> Resource {
    match limit {
        Rlimit::As => Resource::As,
        Rlimit::Core => Resource::Core,
        Rlimit::Cpu => Resource::Cpu,
        Rlimit::Data => Resource::Data,
        Rlimit::Fsize => Resource::Fsize,
        Rlimit::Locks => Resource::Locks,
        Rlimit::Memlock => Resource::Memlock,
        Rlimit::Msgqueue => Resource::Msgqueue,
        Rlimit::Nice => Resource::Nice,
        Rlimit::Nofile => Resource::Nofile,
        Rlimit::Nproc => Resource::Nproc,
        Rlimit::Rss => Resource::Rss,
        Rlimit::Rtprio => Resource::Rtprio,
        Rlimit::Rttime => Resource::Rttime,
        Rlimit::Sigpending => Resource::Sigpending,
        Rlimit::Stack => Resource::Stack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_reads_is_not_for_this_binary() {
        assert_eq!(held("LD_PRELOAD"), "TRUEUP_HELD_LD_PRELOAD");
        assert_eq!((held("PATH"), held("LDAP")), ("PATH".into(), "LDAP".into()));
    }

    #[test]
    fn a_message_of_an_older_keeper_is_read() {
        let message: Message = serde_json::from_str(r#"{"dir":"/srv","unheardOf":1}"#).expect("a message");
        assert_eq!(message, Message { dir: "/srv".into(), ..Message::default() });
        let line = Message { cgroup: Some("/sys".into()), ..message.clone() }.line().expect("a line");
        assert_eq!(serde_json::from_slice::<Message>(&line).expect("reads back").cgroup, Some("/sys".into()));
        assert!(Message { dir: "x".repeat(MAX_MESSAGE).into(), ..message }.line().is_err());
    }
}
