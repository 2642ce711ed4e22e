//! Starting the keeper, and its loop.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{WaitOptions, WaitStatus};
use rustix::time::Timespec;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::actor::{Folders, Source, Units};
use super::connections::Connections;
use super::diary::Diary;
use super::handover::{self, Files, Written};
use super::spawn::{Limits, LowNumbers};
use super::wire::{self, Changed, PROTOCOL, Refusal, Reply, Request, Said, Verb};
use super::{KeeperError, clock};
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::keeper::Exit;

/// So many events are taken from the kernel at a time; the rest come in the next turn.
const EVENTS: usize = 64;

/// A keeper that has nothing to keep and that nobody has called for so long after its start was started by somebody who reached
/// another one meanwhile. It would stay for ever; it goes.
const UNCALLED: Millis = Millis::secs(10);

/// What an event is about, packed into the 64 bits that epoll carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Signal,
    Listener,
    Connection(u32),
    Unit(Source),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, id, low) = match self {
            Self::Signal => (0, 0, 0),
            Self::Listener => (1, 0, 0),
            Self::Connection(id) => (2, id, 0),
            Self::Unit(Source::Stream { slot, stream }) => (3, slot, stream),
            Self::Unit(Source::Leader { slot }) => (4, slot, 0),
            Self::Unit(Source::Stray { pid }) => (5, pid, 0),
            Self::Unit(Source::Notice { slot }) => (6, slot, 0),
            Self::Unit(Source::Way { slot }) => (7, slot, 0),
        };
        (kind << 48) | (u64::from(id) << 8) | u64::from(low)
    }

    fn unpack(bits: u64) -> Option<Self> {
        let id = u32::try_from((bits >> 8) & u64::from(u32::MAX)).ok()?;
        let stream = u8::try_from(bits & 0xff).ok()?;
        Some(match bits >> 48 {
            0 => Self::Signal,
            1 => Self::Listener,
            2 => Self::Connection(id),
            3 => Self::Unit(Source::Stream { slot: id, stream }),
            4 => Self::Unit(Source::Leader { slot: id }),
            5 => Self::Unit(Source::Stray { pid: id }),
            6 => Self::Unit(Source::Notice { slot: id }),
            7 => Self::Unit(Source::Way { slot: id }),
            _ => return None,
        })
    }
}

/// Runs the keeper of this state folder until it is told to end. What runs under it runs on. With `take_over` it goes on where
/// the program that was this process before stopped (see [`super::handover`]).
///
/// # Errors
/// [`KeeperError::Locked`] when this folder has a keeper; others when the folder or the kernel refuse something essential.
pub fn run(state: &Path, take_over: bool) -> Result<(), KeeperError> {
    let folders = prepare(state)?;
    // What is handed over may be more than the limit that we were started with allows.
    let limits = Limits::raise();
    let low = LowNumbers::hold().map_err(|cause| KeeperError::Kernel { what: "descriptors", cause })?;
    // Taken out before anything else uses standard input.
    let (written, mut files) = match take_over.then(handover::unpack) {
        Some(Ok((written, files))) => (Some(written), files),
        Some(Err(cause)) => {
            handover::complain(&cause);
            (None, Files::new())
        }
        None => (None, Files::new()),
    };
    let lock = match files.remove(handover::LOCK) {
        Some(lock) => File::from(lock),
        None => lock(&folders.state)?,
    };
    let id = lock
        .metadata()
        .map(|meta| (meta.dev(), meta.ino()))
        .map_err(|cause| KeeperError::state("read", state, cause))?;
    // Fails only if we lead a process group already (started by hand from a shell); then Ctrl-C is ignored all the same.
    let _ = rustix::process::setsid();
    let diary = Diary::new(folders.state.join("keeper.log"));
    if let Ok(null) = File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(null);
    }
    drop(std::env::set_current_dir("/"));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(KeeperError::kernel("subreaper"))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(KeeperError::kernel("epoll"))?;
    let signals = Signals::new(&epoll).map_err(|cause| KeeperError::Kernel { what: "signals", cause })?;
    let clone = || epoll.try_clone().map_err(|cause| KeeperError::Kernel { what: "epoll", cause });
    let state = folders.state.clone();
    let pack = |id| Token::Connection(id).pack();
    let connections = match files.remove(handover::LISTENER) {
        Some(listener) => Connections::taken_over(listener, &state, clone()?, pack),
        None => Connections::bind(&state, clone()?, pack)
            .map_err(|cause| KeeperError::state("bind", state.join("keeper.sock"), cause))?,
    };
    let data = EventData::new_u64(Token::Listener.pack());
    epoll::add(&epoll, connections.listener(), data, EventFlags::IN).map_err(KeeperError::kernel("epoll"))?;
    let mut units = Units::new(folders, clone()?, |source| Token::Unit(source).pack(), limits.clone(), low, id, diary)
        .map_err(|cause| KeeperError::Kernel { what: "pipes", cause })?;
    let handovers = match written {
        Some(written) => {
            units.diary.note(&format!("keeper {} took over, pid {}", env!("CARGO_PKG_VERSION"), std::process::id()));
            units.take_over_all(written.units, &mut files);
            written.handovers + 1
        }
        None => {
            units.diary.note(&format!("keeper {} started, pid {}", env!("CARGO_PKG_VERSION"), std::process::id()));
            units.adopt().map_err(|cause| KeeperError::state("read", state.join("run"), cause))?;
            0
        }
    };
    let uncalled = Some(clock::tick() + UNCALLED);
    let mut server =
        Server { epoll, signals, connections, units, uncalled, leaving: false, lock, limits, state, handovers };
    let result = server.serve();
    if !server.units.lost() {
        server.connections.close();
    }
    server.units.leave();
    server.units.diary.note("keeper ended; what runs, runs on");
    result
}

/// Makes the folders, readable by nobody else.
fn prepare(state: &Path) -> Result<Folders, KeeperError> {
    let make = |path: &Path| {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|cause| KeeperError::state("create", path, cause))
    };
    make(state)?;
    // The same folder by another path is the same folder.
    let state = fs::canonicalize(state).map_err(|cause| KeeperError::state("find", state, cause))?;
    let folders = Folders { run: state.join("run"), logs: state.join("logs"), state };
    make(&folders.run)?;
    make(&folders.logs)?;
    Ok(folders)
}

/// The kernel frees the lock when this process is gone, however it went.
fn lock(state: &Path) -> Result<File, KeeperError> {
    let path = state.join(handover::LOCK_FILE);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(|cause| KeeperError::state("open", &path, cause))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(KeeperError::Locked(path)),
        Err(TryLockError::Error(cause)) => return Err(KeeperError::state("lock", &path, cause)),
    }
    // Who holds it, for people; nothing depends on it.
    drop(file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes())));
    Ok(file)
}

/// Signals as events.
struct Signals {
    wake: UnixStream,
    term: Arc<AtomicBool>,
}

impl Signals {
    fn new(epoll: &OwnedFd) -> io::Result<Self> {
        let (wake, sender) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        let term = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, Arc::clone(&term))?;
        for signal in [SIGCHLD, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        // Caught rather than ignored: what is ignored stays ignored in the programs that we start.
        for signal in [SIGINT, SIGHUP] {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        epoll::add(epoll, &wake, EventData::new_u64(Token::Signal.pack()), EventFlags::IN)?;
        Ok(Self { wake, term })
    }

    fn clear(&mut self) {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|length| length > 0) {}
    }
}

struct Server {
    epoll: OwnedFd,
    signals: Signals,
    connections: Connections,
    units: Units,
    /// Until when somebody must have called; `None` once somebody has.
    uncalled: Option<Tick>,
    leaving: bool,
    lock: File,
    /// Lowered for the next program, which raises them itself.
    limits: Limits,
    state: PathBuf,
    handovers: u32,
}

impl Server {
    fn serve(&mut self) -> Result<(), KeeperError> {
        let mut events = Vec::with_capacity(EVENTS);
        // A child may have ended before its signal was ours to hear.
        self.reap();
        while !self.leaving {
            self.units.turn();
            self.units.due();
            self.tell();
            if self.units.lost() {
                self.units.diary.note("the state folder is another one now; this keeper ends, what runs, runs on");
                break;
            }
            if let Some(at) = self.uncalled
                && at <= clock::tick()
            {
                self.uncalled = None;
                self.leaving = !self.units.any_alive();
                continue;
            }
            let timeout = self.units.deadline().into_iter().chain(self.uncalled).min().map(until);
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(KeeperError::Kernel { what: "epoll", cause: cause.into() }),
            }
            self.units.turn();
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                if let Some(token) = Token::unpack(data.u64()) {
                    self.happened(token, flags);
                }
            }
        }
        Ok(())
    }

    fn happened(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Signal => {
                self.signals.clear();
                self.reap();
                self.leaving |= self.signals.term.load(Ordering::Relaxed);
            }
            Token::Listener => {
                self.uncalled = None;
                self.connections.accept();
            }
            Token::Connection(id) => {
                if flags.contains(EventFlags::OUT) {
                    self.connections.flush(id);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    for line in self.connections.lines(id) {
                        self.request(id, &line);
                    }
                }
            }
            Token::Unit(source) => self.units.happened(source),
        }
    }

    /// Waits for every child that has ended, our own and those that were left to us.
    fn reap(&mut self) {
        let mut any = false;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            any = true;
            self.units.reaped(pid.as_raw_nonzero().get().cast_unsigned(), exit(status));
        }
        if any {
            self.units.check_cleared(false);
        }
    }

    /// Becomes the program; returns only if that failed.
    fn hand_over(&mut self, program: &Path) -> io::Error {
        // What ended already is ended by this program, which knows how.
        self.reap();
        let (written, mut files) = self.units.hand_over();
        files.push((handover::LOCK.to_owned(), self.lock.as_fd()));
        files.push((handover::LISTENER.to_owned(), self.connections.listener().as_fd()));
        let written = Written::new(self.handovers, written);
        handover::become_program(program, &self.state, &written, &files, &self.limits)
    }

    fn tell(&mut self) {
        for changed in self.units.take_changed() {
            if let Ok(line) = wire::encode(&Changed { changed }) {
                self.connections.tell(&line);
            }
        }
    }

    fn request(&mut self, from: u32, line: &[u8]) {
        let (id, result) = match serde_json::from_slice::<Request>(line) {
            Ok(request) => (request.id, self.answer(from, request.verb)),
            Err(cause) => {
                // The cause may quote what it could not read, and that may be a secret.
                let id = serde_json::from_slice::<Numbered>(line).map_or(0, |n| n.id);
                (
                    id,
                    Err(Refusal::Never(format!(
                        "the keeper does not understand the request (column {})",
                        cause.column()
                    ))),
                )
            }
        };
        if let Ok(line) = wire::encode(&Reply { id, result }) {
            self.connections.send(from, &line);
        }
    }

    fn answer(&mut self, from: u32, verb: Verb) -> Result<Said, Refusal> {
        match verb {
            Verb::Hello => {
                let version = env!("CARGO_PKG_VERSION").to_owned();
                let (pid, handovers) = (std::process::id(), self.handovers);
                return Ok(Said::Hello { protocol: PROTOCOL, version, pid, handovers });
            }
            Verb::List => return Ok(Said::Units(self.units.list())),
            Verb::Ensure { unit, launch, policy, again } => {
                let seen = self.units.ensure(&unit, *launch, policy, again)?;
                return Ok(Said::Unit(Box::new(seen)));
            }
            Verb::Stop { unit } => self.units.stop(&unit),
            Verb::Ready { unit, pid } => self.units.ready(&unit, pid),
            Verb::Unwell { unit, pid, why } => self.units.unwell(&unit, pid, why),
            Verb::Signal { unit, pid, signal } => self.units.signal_main(&unit, pid, signal)?,
            Verb::StopStrays { unit } => self.units.stop_strays(&unit),
            Verb::Forget { unit } => self.units.forget(&unit)?,
            Verb::Upgrade { program } => {
                let cause = self.hand_over(&program);
                let text = format!("{} cannot take over: {cause}", program.display());
                self.units.diary.note(&text);
                return Err(Refusal::Never(text));
            }
            Verb::Watch => self.connections.watch(from),
            Verb::Shutdown { force } => {
                if !force && self.units.any_alive() {
                    return Err(Refusal::Retry("units still have processes".to_owned()));
                }
                self.leaving = true;
            }
        }
        Ok(Said::Done)
    }
}

/// The number of a request that cannot be read otherwise.
#[derive(serde::Deserialize)]
struct Numbered {
    id: u64,
}

fn exit(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// From now until then.
fn until(at: Tick) -> Timespec {
    // The clock was read in whole milliseconds, rounded down: one more, or the last one is spent waking up for nothing.
    let wait = at - clock::tick();
    let wait = if wait.0 == 0 { 0 } else { wait.0 + 1 };
    Timespec {
        tv_sec: i64::try_from(wait / 1_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(wait % 1_000).unwrap_or(0) * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let all = [
            Token::Signal,
            Token::Listener,
            Token::Connection(u32::MAX),
            Token::Unit(Source::Stream { slot: 7, stream: 1 }),
            Token::Unit(Source::Leader { slot: 1 << 30 }),
            Token::Unit(Source::Stray { pid: 4_194_304 }),
            Token::Unit(Source::Notice { slot: 9 }),
            Token::Unit(Source::Way { slot: 3 }),
        ];
        for token in all {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
