//! The client of the keeper: finds it, starts it when it is needed, and speaks its lines.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backoff::{BackoffBuilder, ExponentialBuilder};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::descriptors;
use crate::keeper::wire::{self, Line, PROTOCOL, Refusal, Reply, Request, Said, Verb, WireLaunch};
use crate::keeper::{find, marks};
use crate::model::id::Name;
use crate::ports::keeper::{Keeper, Launch, Policy, Unit};
use crate::ports::{Answer, PortError};

/// A keeper that starts adopts what runs first; a few thousand processes take it well under a second.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Pauses between attempts to reach a keeper that is starting: it is there after a few milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The keeper answers at once; it waits for nothing. Only a machine at its limits takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What the kernel adds to the name of a program whose file is gone (proc(5)).
const DELETED: &str = " (deleted)";

/// Between two connections of a watch.
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// The keeper of one state folder. Lives on one thread, as the engine does.
pub struct KeeperClient {
    state: PathBuf,
    program: Option<PathBuf>,
    start_on_demand: bool,
    link: RefCell<Option<Rc<Link>>>,
    /// One connection attempt at a time: two keepers would not hurt, but two attempts would race for nothing.
    connecting: tokio::sync::Mutex<()>,
    child: RefCell<Option<Child>>,
    /// Wakes the watch when there is a keeper to watch.
    connected: tokio::sync::Notify,
    next: Cell<u64>,
    /// The keeper was asked to become our version already.
    renewed: Cell<bool>,
}

/// What a keeper says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperVersion {
    pub version: String,
    pub pid: u32,
    /// How often its process became another program.
    pub handovers: u32,
}

/// One connection. Its tasks end when it is dropped or the keeper hangs up.
struct Link {
    lines: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
}

/// Requests without an answer, by id; `None` once the connection is gone.
type Waiting = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<Result<Said, Refusal>>>>>>;

/// Why a request got no answer.
enum Lost {
    /// It was never sent.
    NotSent(String),
    /// It was sent, and nothing came back.
    Sent(String),
}

impl KeeperClient {
    /// The keeper of this state folder. With `start_on_demand` a keeper is started when one is needed; without it, `list` tells
    /// what the mark files say when there is none, and nothing can be changed.
    pub fn new(state: &Path, start_on_demand: bool) -> Self {
        Self {
            state: state.to_owned(),
            program: None,
            start_on_demand,
            link: RefCell::new(None),
            connecting: tokio::sync::Mutex::new(()),
            child: RefCell::new(None),
            connected: tokio::sync::Notify::new(),
            next: Cell::new(1),
            renewed: Cell::new(false),
        }
    }

    /// Starts keepers from this binary instead of the running one.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Asks the keeper who it is, starting none.
    ///
    /// # Errors
    /// As any call; `Retry` when there is no keeper.
    pub async fn version(&self) -> Result<KeeperVersion, PortError> {
        let link = self.link(false).await?.ok_or_else(no_keeper)?;
        match self.ask(&link, Verb::Hello).await.map_err(look_lost)? {
            Ok(Said::Hello { version, pid, handovers, .. }) => Ok(KeeperVersion { version, pid, handovers }),
            other => Err(unexpected(other)),
        }
    }

    /// Has the keeper become this program (by default the running one), without a unit noticing. Returns when it answers again.
    ///
    /// # Errors
    /// `Never` when the program cannot be executed: the old one goes on. `Unsure` when it does not answer in time.
    pub async fn upgrade(&self) -> Result<KeeperVersion, PortError> {
        let before = self.version().await?;
        let link = self.link(false).await?.ok_or_else(no_keeper)?;
        self.hand_over(&link).await?;
        *self.link.borrow_mut() = None;
        let after = async {
            loop {
                match self.version().await {
                    Ok(now) if now.pid != before.pid || now.handovers > before.handovers => return now,
                    _ => sleep(FIRST_PAUSE).await,
                }
            }
        };
        let late = || PortError::Unsure("the keeper does not answer after its upgrade; see keeper.log".to_owned());
        timeout(ANSWER_LIMIT, after).await.map_err(|_| late())
    }

    async fn hand_over(&self, link: &Link) -> Result<(), PortError> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => own_binary().map_err(|cause| PortError::Never(cause.to_string()))?,
        };
        match self.ask(link, Verb::Upgrade { program }).await {
            // The connection goes with the old program.
            Err(Lost::Sent(_)) => Ok(()),
            Err(Lost::NotSent(why)) => Err(PortError::Retry(why)),
            Ok(Err(refusal)) => Err(refused(refusal)),
            Ok(Ok(_)) => Err(unexpected(Ok(Said::Done))),
        }
    }

    /// Ends the keeper, if there is one. It refuses while units have processes; with `force` it leaves them running for the
    /// next keeper to adopt. Returns when it is gone or has hung up.
    ///
    /// # Errors
    /// `Retry` when it refuses.
    pub async fn shutdown(&self, force: bool) -> Result<(), PortError> {
        let Some(link) = self.link(false).await? else { return Ok(()) };
        match self.ask(&link, Verb::Shutdown { force }).await {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => return Err(refused(refusal)),
            // It went away while it was asked to: that is what was wanted.
            Err(Lost::Sent(_) | Lost::NotSent(_)) => {}
        }
        // Its lock is free when it is gone, so a keeper may be started right after this.
        let gone = async {
            while link.alive() || self.locked() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(ANSWER_LIMIT, gone)
            .await
            .map_err(|_| PortError::Unsure("the keeper did not end in time".to_owned()))?;
        self.bury();
        Ok(())
    }

    /// Calls `wake` whenever a unit may have changed, for as long as it is polled; run it beside the engine. It starts no
    /// keeper: it follows the one that the other calls find, and also wakes when that one is lost.
    pub async fn watch(&self, wake: impl Fn()) {
        loop {
            let found = self.connected.notified();
            tokio::pin!(found);
            // Armed before looking, so that a keeper that comes right after the look is not missed.
            found.as_mut().enable();
            if let Ok(stream) = self.dial().await {
                // What changed between two connections was told to nobody.
                wake();
                // However it ended, the keeper is lost: look again.
                drop(self.follow(stream, &wake).await);
                wake();
                // A keeper that hangs up at once must not make this a busy loop.
                sleep(WATCH_PAUSE).await;
                continue;
            }
            found.await;
        }
    }

    /// Reads the lines of one watching connection until it ends.
    async fn follow(&self, mut stream: UnixStream, wake: &impl Fn()) -> io::Result<()> {
        let line = wire::encode(&Request { id: 0, verb: Verb::Watch })?;
        stream.write_all(&line).await?;
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut reader).take(wire::MAX_LINE as u64).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            wake();
        }
    }

    async fn dial(&self) -> io::Result<UnixStream> {
        let (folder, path) = crate::keeper::short_path(&self.state, crate::keeper::SOCKET)?;
        let stream = UnixStream::connect(path).await?;
        drop(folder);
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("the keeper's socket belongs to user {peer}")));
        }
        Ok(stream)
    }

    /// The connection: the one there is, or a new one, to a new keeper if `start` and none runs.
    async fn link(&self, start: bool) -> Result<Option<Rc<Link>>, PortError> {
        let _one = self.connecting.lock().await;
        if let Some(link) = self.link.borrow().as_ref().filter(|link| link.alive()) {
            return Ok(Some(Rc::clone(link)));
        }
        self.bury();
        let stream = match self.dial().await {
            Ok(stream) => stream,
            Err(cause) if absent(&cause) && !start => return Ok(None),
            Err(cause) if absent(&cause) => self.start().await?,
            Err(cause) => return Err(PortError::Retry(format!("the keeper's socket: {cause}"))),
        };
        let mut link = Rc::new(Link::new(stream));
        let mut said = self.ask(&link, Verb::Hello).await.map_err(look_lost)?;
        // Once in the life of a client: two programs that disagree would hand the keeper to and fro.
        if self.start_on_demand && !self.renewed.get() && outdated(&said) {
            self.renewed.set(true);
            match self.hand_over(&link).await {
                Ok(()) => {
                    link = Rc::new(Link::new(self.start().await?));
                    said = self.ask(&link, Verb::Hello).await.map_err(look_lost)?;
                }
                // It keeps its units as it is.
                Err(error) => tracing::warn!(%error, "the keeper is of another version and stays so"),
            }
        }
        match said {
            Ok(Said::Hello { protocol: PROTOCOL, .. }) => {}
            Ok(Said::Hello { protocol, version, .. }) => {
                return Err(PortError::Never(format!(
                    "the running keeper (version {version}) speaks protocol {protocol}, this is {PROTOCOL}; end it with \
                     SIGTERM, its modules run on and the next keeper adopts them"
                )));
            }
            other => return Err(unexpected(other)),
        }
        *self.link.borrow_mut() = Some(Rc::clone(&link));
        self.connected.notify_waiters();
        Ok(Some(link))
    }

    /// Starts a keeper and waits until it can be reached.
    async fn start(&self) -> Result<UnixStream, PortError> {
        self.spawn().map_err(|cause| PortError::Retry(format!("the keeper could not be started: {cause}")))?;
        let reach = async {
            let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
            // Bounded by the time limit around it.
            let mut pauses = pauses.without_max_times().build();
            loop {
                match self.dial().await {
                    Ok(stream) => return Ok(stream),
                    Err(cause) if !absent(&cause) => return Err(cause),
                    Err(_) => {}
                }
                // One that ended because another was faster is as good: that other one is reached.
                let ended = self.child.borrow_mut().as_mut().and_then(|child| child.try_wait().ok().flatten());
                if let Some(status) = ended
                    && !self.locked()
                {
                    return Err(io::Error::other(format!("it ended at once ({status}); see keeper.log")));
                }
                sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            }
        };
        match timeout(START_LIMIT, reach).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(cause)) => Err(PortError::Retry(format!("the keeper could not be reached: {cause}"))),
            Err(_) => Err(PortError::Retry("the keeper did not start in time; see keeper.log".to_owned())),
        }
    }

    fn spawn(&self) -> io::Result<()> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => own_binary()?,
        };
        let mut command = Command::new(program);
        command.arg("keeper").arg("--state").arg(&self.state);
        // The keeper is no module of anybody, even if this was started by one.
        command.env_remove(find::MARK);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.child.borrow_mut() = Some(descriptors::as_given(|| command.spawn())?);
        Ok(())
    }

    /// Waits for a keeper that we started and that is gone, so that it does not stay a zombie.
    fn bury(&self) {
        let mut child = self.child.borrow_mut();
        if child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            *child = None;
        }
    }

    /// Whether a keeper holds the lock of the state folder.
    fn locked(&self) -> bool {
        let file = std::fs::File::open(self.state.join("keeper.lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
    }

    /// Sends one request and waits for its answer.
    async fn ask(&self, link: &Link, verb: Verb) -> Result<Result<Said, Refusal>, Lost> {
        let id = self.next.get();
        self.next.set(id + 1);
        let line = wire::encode(&Request { id, verb }).map_err(|cause| Lost::NotSent(cause.to_string()))?;
        if line.len() > wire::MAX_LINE {
            return Ok(Err(Refusal::Never("arguments and environment are too long".to_owned())));
        }
        let (sender, receiver) = oneshot::channel();
        match link.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(Lost::NotSent("the keeper is gone".to_owned())),
        }
        if link.lines.send(line).is_err() {
            return Err(Lost::NotSent("the keeper is gone".to_owned()));
        }
        match timeout(ANSWER_LIMIT, receiver).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(Lost::Sent("the keeper went away before it answered".to_owned())),
            Err(_) => Err(Lost::Sent("the keeper did not answer in time".to_owned())),
        }
    }

    /// A request that changes something.
    async fn act(&self, verb: Verb) -> Result<Said, PortError> {
        let link = self.link(self.start_on_demand).await?.ok_or_else(no_keeper)?;
        match self.ask(&link, verb).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(refusal)) => Err(refused(refusal)),
            Err(Lost::NotSent(why)) => Err(PortError::Retry(why)),
            Err(Lost::Sent(why)) => Err(PortError::Unsure(why)),
        }
    }

    /// A request that needs no keeper if there is nothing to act on.
    async fn act_if_any(&self, verb: Verb, name: &Name) -> Result<(), PortError> {
        if self.link(false).await?.is_none() {
            let (units, _) = self.look()?;
            if !units.iter().any(|unit| unit.name == *name) {
                return Ok(());
            }
        }
        self.act(verb).await.map(drop)
    }

    fn look(&self) -> Result<(Vec<Unit>, bool), PortError> {
        marks::look(&self.state).map_err(|cause| PortError::Retry(format!("the keeper's marks: {cause}")))
    }

    async fn list_units(&self) -> Result<Vec<Unit>, PortError> {
        match self.list_once().await {
            // The keeper died under the question; its successor can answer it as well.
            Err(Lost::Sent(_) | Lost::NotSent(_)) => self.list_once().await.map_err(look_lost)?,
            Ok(answer) => answer,
        }
    }

    async fn list_once(&self) -> Result<Result<Vec<Unit>, PortError>, Lost> {
        let link = match self.link(false).await {
            Ok(None) => match self.look() {
                Ok((_, true)) if self.start_on_demand => self.link(true).await,
                Ok((units, _)) => return Ok(Ok(units)),
                Err(cause) => Err(cause),
            },
            link => link,
        };
        let link = match link {
            Ok(Some(link)) => link,
            Ok(None) => return Ok(Err(no_keeper())),
            Err(cause) => return Ok(Err(cause)),
        };
        Ok(match self.ask(&link, Verb::List).await? {
            Ok(Said::Units(units)) => Ok(units),
            other => Err(unexpected(other)),
        })
    }
}

impl Keeper for KeeperClient {
    fn list(&self) -> Answer<'_, Result<Vec<Unit>, PortError>> {
        Box::pin(self.list_units())
    }

    fn ensure<'a>(
        &'a self,
        name: &'a Name,
        launch: &'a Launch,
        policy: &'a Policy,
        again: bool,
    ) -> Answer<'a, Result<Unit, PortError>> {
        let launch = WireLaunch::from(launch);
        let verb = Verb::Ensure { unit: name.clone(), launch: Box::new(launch), policy: policy.clone(), again };
        Box::pin(async move {
            match self.act(verb).await? {
                Said::Unit(unit) => Ok(*unit),
                other => Err(unexpected(Ok(other))),
            }
        })
    }

    fn stop<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>> {
        Box::pin(self.act_if_any(Verb::Stop { unit: name.clone() }, name))
    }

    fn ready<'a>(&'a self, name: &'a Name, pid: u32) -> Answer<'a, Result<(), PortError>> {
        Box::pin(self.act_if_any(Verb::Ready { unit: name.clone(), pid }, name))
    }

    fn unwell<'a>(&'a self, name: &'a Name, pid: u32, why: &'a str) -> Answer<'a, Result<(), PortError>> {
        Box::pin(self.act_if_any(Verb::Unwell { unit: name.clone(), pid, why: why.to_owned() }, name))
    }

    fn signal<'a>(&'a self, name: &'a Name, pid: u32, signal: i32) -> Answer<'a, Result<(), PortError>> {
        Box::pin(self.act_if_any(Verb::Signal { unit: name.clone(), pid, signal }, name))
    }

    fn stop_strays<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>> {
        Box::pin(self.act_if_any(Verb::StopStrays { unit: name.clone() }, name))
    }

    fn forget<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>> {
        Box::pin(self.act_if_any(Verb::Forget { unit: name.clone() }, name))
    }
}

impl Link {
    fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (lines, queue) = mpsc::unbounded_channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(BTreeMap::new())));
        // Both end by themselves: the writer when `lines` is dropped, the reader when the keeper then hangs up.
        tokio::spawn(write_lines(write, queue, Arc::clone(&waiting)));
        tokio::spawn(read_lines(read, Arc::clone(&waiting)));
        Self { lines, waiting }
    }

    fn alive(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A task of its own, so that a request whose caller lost interest is still written whole.
async fn write_lines(mut write: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>, waiting: Waiting) {
    while let Some(mut line) = queue.recv().await {
        // What else waits goes with it; the keeper then reads many requests at once.
        while let Ok(next) = queue.try_recv() {
            line.extend_from_slice(&next);
        }
        if write.write_all(&line).await.is_err() {
            break;
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
}

async fn read_lines(read: OwnedReadHalf, waiting: Waiting) {
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).await {
            Ok(length) if length > 0 => {}
            _ => break,
        }
        let Ok(Line::Reply(Reply { id, result })) = serde_json::from_slice(&line) else { continue };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&id)) {
            // Nobody listens any more when the caller gave up.
            drop(sender.send(result));
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Whether a keeper runs another version than this, or a file that was replaced since it was started.
fn outdated(said: &Result<Said, Refusal>) -> bool {
    let Ok(Said::Hello { version, pid, .. }) = said else { return false };
    let file = std::fs::read_link(format!("/proc/{pid}/exe"));
    let replaced = file.is_ok_and(|path| path.to_string_lossy().ends_with(DELETED));
    replaced || version != env!("CARGO_PKG_VERSION")
}

/// No keeper listens there.
fn absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn no_keeper() -> PortError {
    PortError::Retry("no keeper runs".to_owned())
}

fn refused(refusal: Refusal) -> PortError {
    match refusal {
        Refusal::Retry(why) => PortError::Retry(why),
        Refusal::Never(why) => PortError::Never(why),
    }
}

/// What only looks has certainly changed nothing.
fn look_lost(lost: Lost) -> PortError {
    let (Lost::NotSent(why) | Lost::Sent(why)) = lost;
    PortError::Retry(why)
}

fn unexpected(result: Result<Said, Refusal>) -> PortError {
    match result {
        Err(refusal) => refused(refusal),
        Ok(_) => PortError::Unsure("the keeper answered something else than what it was asked".to_owned()),
    }
}

/// The binary that runs now. After an upgrade its file has another name for the kernel; the new one is what should be started.
fn own_binary() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(DELETED).map_or_else(|| path.clone(), PathBuf::from))
}
