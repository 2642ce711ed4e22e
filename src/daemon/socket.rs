//! The daemon's socket: a Unix socket that only its owner may use. A request is one JSON line, the answer is many.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::bell::Ringer;
use super::serve::Client;
use super::verbs::{Reply, Verb};
use crate::cli::engine::{Ended, Outcome, Sink};
use crate::cli::exit::Failure;
use crate::cli::interrupt::Cancel;
use crate::model::exit::Exit;

/// A request is small; more is not ours.
const REQUEST_LIMIT: u64 = 64 * 1024;
/// So many clients at once; a person has one or two.
const CLIENTS: usize = 32;

/// After a connection could not be taken.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Where the socket is reached. The path of a socket is limited to about 107 bytes and state folders may be deep, so the folder
/// is opened and the socket named through it.
struct Door {
    _folder: std::fs::File,
    path: PathBuf,
}

fn door(state: &Path) -> io::Result<Door> {
    use std::os::fd::AsRawFd;
    let folder = std::fs::File::open(state)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/trueup.sock", folder.as_raw_fd()));
    Ok(Door { _folder: folder, path })
}

/// Whether a daemon listens.
pub(super) fn answers(state: &Path) -> bool {
    door(state).is_ok_and(|door| std::os::unix::net::UnixStream::connect(&door.path).is_ok())
}

/// Listens; requests go to the loop, which is woken. The caller holds the lock of the state folder, so an old socket is dead.
pub(super) fn listen(state: &Path, to: UnboundedSender<Client>, ringer: Ringer) -> io::Result<Listening> {
    let real = state.join("trueup.sock");
    match std::fs::remove_file(&real) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let door = door(state)?;
    let listener = UnixListener::bind(&door.path)?;
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600))?;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS));
    let task = tokio::task::spawn_local(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely: the next attempt would fail at once too, and burn a core.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (to, ringer) = (to.clone(), ringer.clone());
            tokio::task::spawn_local(async move {
                if ours(&stream) {
                    // A client that went away or spoke nonsense concerns nobody else.
                    let _ = talk(stream, &to, &ringer).await;
                }
                drop(place);
            });
        }
    });
    Ok(Listening { path: real, task })
}

/// Takes the socket away when the daemon ends.
pub(super) struct Listening {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the peer is the same user (or root): the file's mode says so already, the kernel's word is better.
fn ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream.as_fd()).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

async fn talk(stream: UnixStream, to: &UnboundedSender<Client>, ringer: &Ringer) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(REQUEST_LIMIT)).lines();
    let Some(line) = lines.next_line().await? else { return Ok(()) };
    // Who gave up while we could not listen shall not have it done now. Both arms lose nothing: a client says one line.
    tokio::select! {
        biased;
        _ = lines.next_line() => return Ok(()),
        () = tokio::task::yield_now() => {}
    }
    if line.as_bytes() == WAKE.trim_end().as_bytes() {
        ringer.ring();
        return write.write_all(b"{}\n").await;
    }
    let (reply, mut replies) = unbounded_channel();
    match serde_json::from_str::<Verb>(&line) {
        Ok(verb) => {
            let _ = to.send(Client { verb, reply });
            ringer.ring();
        }
        Err(error) => {
            let _ = reply.send(Reply::Failed { message: format!("not a request that this version knows: {error}") });
        }
    }
    loop {
        // Both arms are cancel-safe. A client says nothing after its request, so its next word is its end.
        let reply = tokio::select! {
            biased;
            reply = replies.recv() => reply,
            _ = lines.next_line() => {
                drop(replies);
                // The loop drops the request when it looks.
                ringer.ring();
                return Ok(());
            }
        };
        let Some(reply) = reply else { break };
        let last = !matches!(reply, Reply::Line { .. });
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        write.write_all(&text).await?;
        if last {
            break;
        }
    }
    write.shutdown().await
}

/// What a client says that wants the daemon to look, and does not wait for it.
const WAKE: &str = "{\"verb\":\"look\"}\n";

/// Has a daemon look soon, if one runs.
pub(super) fn wake(state: &Path) {
    let Ok(door) = door(state) else { return };
    if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&door.path) {
        // It looks by itself too, only later.
        let _ = stream.set_write_timeout(Some(ACCEPT_PAUSE));
        let _ = std::io::Write::write_all(&mut stream, WAKE.as_bytes());
        let _ = stream.set_read_timeout(Some(ACCEPT_PAUSE));
        let _ = std::io::Read::read(&mut stream, &mut [0; 64]);
    }
}

/// Connects to a daemon, if one answers.
pub(super) async fn connect(state: &Path) -> Option<UnixStream> {
    let door = door(state).ok()?;
    UnixStream::connect(&door.path).await.ok()
}

/// A daemon that waits for the ledger or the keeper is slow for some seconds; one that says nothing for longer than this beyond its
/// time hangs.
const HANGING: Duration = Duration::from_secs(10);

fn hangs() -> Failure {
    Failure::new(Exit::TimedOut, "the daemon does not answer")
        .hint("it hangs, or was stopped (SIGSTOP); its modules run on, and what was asked of it is dropped")
}

/// Asks the daemon and passes on what it says.
/// Asks the daemon and waits for the end of its answer, on a thread that may wait. What it says is not heard.
pub(super) fn ask_here(state: &Path, verb: &Verb) -> io::Result<()> {
    use std::io::{BufRead, Write};
    let door = door(state)?;
    let mut stream = std::os::unix::net::UnixStream::connect(&door.path)?;
    stream.set_read_timeout(Some(Duration::from(verb.timeout())))?;
    let mut text = serde_json::to_vec(verb)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    for line in io::BufReader::new(stream).lines() {
        if !matches!(serde_json::from_str(&line?), Ok(Reply::Line { .. })) {
            break;
        }
    }
    Ok(())
}

pub(super) async fn ask(
    stream: UnixStream,
    verb: &Verb,
    cancel: &Cancel,
    sink: &mut Sink<'_>,
) -> Result<Outcome, Failure> {
    let broken = |e: io::Error| Failure::from(anyhow::Error::from(e).context("the daemon went away"));
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_vec(verb).map_err(anyhow::Error::from)?;
    text.push(b'\n');
    write.write_all(&text).await.map_err(broken)?;
    let mut lines = BufReader::new(read).lines();
    // It ends by itself when its time is over; this is for a daemon that does not go round at all.
    let too_late = tokio::time::sleep(Duration::from(verb.timeout()).saturating_add(HANGING));
    tokio::pin!(too_late);
    loop {
        // Cancel-safe: `next_line` keeps what it has read, and after a cancel nothing more is read.
        let line = tokio::select! {
            line = lines.next_line() => line.map_err(broken)?,
            _ = cancel.wait() => return Ok(Outcome { ended: Ended::Cancelled, ..Outcome::default() }),
            () = &mut too_late => return Err(hangs()),
        };
        let Some(line) = line else {
            return Err(Failure::new(Exit::Error, "the daemon ended before it was done")
                .hint("its modules go on running; run the command again"));
        };
        match serde_json::from_str(&line).map_err(anyhow::Error::from)? {
            Reply::Line { line } => sink(line),
            Reply::Done { outcome } => return Ok(outcome),
            Reply::Failed { message } => return Err(Failure::new(Exit::Error, message)),
        }
    }
}
