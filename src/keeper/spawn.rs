//! Starting a process: its own group, its own environment, its output into the FIFOs. A program with rights or limits of its own
//! is started by way of [`super::becoming`].

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};

use super::becoming::{self, Message};
use super::find::{self, MARK};
use crate::model::time::Timestamp;
use crate::ports::keeper::{Launch, Notify, Process};

/// The limit of open files: raised for the keeper, as it was for what it starts. Programs that use `select` or close every
/// possible descriptor do not bear a high one.
#[derive(Clone)]
pub(super) struct Limits {
    given: Rlimit,
    raised: Rlimit,
}

impl Limits {
    pub(super) fn raise() -> Self {
        let given = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: given.maximum, maximum: given.maximum };
        let limits = Self { given, raised };
        limits.set(&limits.raised);
        limits
    }

    /// Limits are the process's own and are copied at its birth, so they are lowered around it: no code runs in the child.
    pub(super) fn lowered<T>(&self, act: impl FnOnce() -> T) -> T {
        self.set(&self.given);
        let result = act();
        self.set(&self.raised);
        result
    }

    fn set(&self, limit: &Rlimit) {
        if self.given == self.raised {
            return;
        }
        // Between the given and the hard limit nothing is refused; if it were, the old limit would serve as well.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.current, maximum: limit.maximum });
    }
}

/// Low numbers kept free for what a program starts with: its limit of descriptors is lower than ours, and posix_spawn(3) refuses to
/// hand on a descriptor whose number lies beyond it. Without this a keeper of some hundred units could start nothing more.
pub(super) struct LowNumbers {
    null: File,
    held: Vec<OwnedFd>,
}

impl LowNumbers {
    /// To be called while the low numbers are free.
    pub(super) fn hold() -> io::Result<Self> {
        let mut numbers = Self { null: File::open("/dev/null")?, held: Vec::new() };
        numbers.refill();
        Ok(numbers)
    }

    /// The same open files under low numbers. They are to be closed before [`Self::refill`].
    fn lend(&mut self, files: [OwnedFd; 3]) -> io::Result<[OwnedFd; 3]> {
        self.held.clear();
        let low = |file: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(file, 3);
        Ok([low(&files[0])?, low(&files[1])?, low(&files[2])?])
    }

    fn refill(&mut self) {
        // When no descriptor is left at all, the next start says so.
        let one = |_| self.null.try_clone().ok().map(OwnedFd::from);
        self.held = (self.held.len()..3).filter_map(one).collect();
    }
}

/// The binary that runs here, whatever became of its file.
pub(super) const OURSELVES: &str = "/proc/self/exe";
/// A reason is a sentence with a path in it.
const MAX_REASON: u64 = 16 << 10;

/// What was started.
pub(super) struct Spawned {
    pub process: Process,
    pub session: u32,
    /// How becoming the program goes, if there is more to it than starting it.
    pub way: Option<Way>,
}

/// The keeper's end of a start by way of [`super::becoming`].
pub(super) struct Way(UnixStream);

impl Way {
    /// The socket as an earlier program of this keeper had it open.
    pub(super) fn taken_over(socket: OwnedFd) -> Self {
        Self(socket.into())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Why the program never ran, if that is what was said. To be asked when something came, or when the process is gone.
    pub(super) fn reason(&self) -> Option<String> {
        let mut bytes = Vec::new();
        // Ends early with `WouldBlock` when the process lives and has said nothing: what was read is kept.
        let _ = (&self.0).take(MAX_REASON).read_to_end(&mut bytes);
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What is to be started.
pub(super) struct Start<'a> {
    pub launch: &'a Launch,
    pub mark: &'a str,
    /// Where it is heard, and what it is expected to say.
    pub notify: Option<(OsString, &'a Notify)>,
    /// What it takes on before it becomes its program.
    pub message: Option<&'a Message>,
    /// The listening socket that goes with the message.
    pub socket: Option<BorrowedFd<'a>>,
}

/// Starts it.
pub(super) fn spawn(
    start: &Start<'_>,
    ends: [File; 2],
    null: &File,
    limits: &Limits,
    low: &mut LowNumbers,
    wall: Timestamp,
) -> Result<Spawned, String> {
    let &Start { launch, mark, ref notify, message, socket } = start;
    let (first, rest) = launch.argv.split_first().ok_or("the argument vector is empty")?;
    let [out, err] = ends;
    let (mut command, input, way) = match message {
        None => {
            let mut command = Command::new(&launch.program);
            command.arg0(first).args(rest).current_dir(&launch.dir);
            (command, OwnedFd::from(null.try_clone().map_err(|cause| cause.to_string())?), None)
        }
        Some(message) => {
            let (theirs, way) = tell(message, socket).map_err(|cause| cause.to_string())?;
            let mut command = Command::new(OURSELVES);
            command.arg0("trueup").arg(becoming::WORD).arg(&launch.program).arg(first).args(rest);
            (command, theirs, Some(way))
        }
    };
    command.env_clear();
    let name = |name| if message.is_some() { becoming::held(name) } else { Cow::Borrowed(name) };
    let env = launch.env.iter().map(|(key, value)| (name(key.as_str()).into_owned(), value.reveal()));
    command.envs(env).env(MARK, mark);
    if let Some((socket, notify)) = notify {
        command.env("NOTIFY_SOCKET", socket);
        if let Some(watchdog) = notify.watchdog {
            // For sd_watchdog_enabled(3). Without WATCHDOG_PID it holds for whichever process of the unit asks.
            command.env("WATCHDOG_USEC", watchdog.0.saturating_mul(1_000).to_string());
        }
    }
    let streams = low.lend([input, out.into(), err.into()]);
    let spawned = streams.and_then(|[input, out, err]| {
        command.process_group(0).stdin(input).stdout(Stdio::from(out)).stderr(Stdio::from(err));
        limits.lowered(|| command.spawn())
    });
    // Its ends of the streams close with it.
    drop(command);
    low.refill();
    let mut child = spawned.map_err(|cause| explain(launch, &cause))?;
    let pid = child.id();
    // It is our child and not yet waited for, so it is there, if only as a zombie. When it cannot be looked at all the same (no
    // descriptor is left), nobody would ever know it again: it must not live.
    let Some(stat) = find::stat(pid) else {
        if let Some(group) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
        return Err("its process could not be looked at, and was ended".to_owned());
    };
    Ok(Spawned { process: Process { pid, start_ticks: stat.start_ticks, started: wall }, session: stat.session, way })
}

/// A socket with the message in it: it is there before its reader is, so nobody waits.
pub(super) fn tell(message: &Message, socket: Option<BorrowedFd<'_>>) -> io::Result<(OwnedFd, Way)> {
    let pair = || -> io::Result<(UnixStream, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((ours, theirs))
    };
    let (mut ours, theirs) = pair()?;
    let line = message.line().map_err(io::Error::other)?;
    let failed = |cause: io::Error| io::Error::other(format!("its settings: {cause}"));
    match socket {
        None => ours.write_all(&line).map_err(failed)?,
        Some(socket) => {
            let fds = [socket];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&fds));
            let sent = rustix::net::sendmsg(&ours, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL);
            let sent = sent.map_err(|cause| failed(cause.into()))?;
            ours.write_all(&line[sent..]).map_err(failed)?;
        }
    }
    Ok((theirs.into(), Way(ours)))
}

/// "No such file" may mean the folder as well as the program.
fn explain(launch: &Launch, cause: &io::Error) -> String {
    if cause.kind() == io::ErrorKind::NotFound && !launch.dir.is_dir() {
        return format!("working directory {}: {cause}", launch.dir.display());
    }
    format!("{}: {cause}", launch.program.display())
}
