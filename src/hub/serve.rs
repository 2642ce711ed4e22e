//! The server: where it listens, with which certificate, and how it moves and ends. Connections are the workers' business.
//!
//! One thread accepts and hands every connection to the worker that has the fewest. The address is not shared with `SO_REUSEPORT`: with it
//! another process of the same user could listen on our port unnoticed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;

use super::bounds::Bounds;
use super::front::Front;
use super::gate::{Gate, Shut};
use super::inbox;
use super::limit::Limiter;
use super::metrics::Metrics;
use super::office::Office;
use super::operations::Operations;
use super::proxy::table::Table;
use super::proxy::{Busy, Means, Proxy};
use super::selfprobe::{self, SelfProbe};
use super::site::{Board, Site};
use super::state::State;
use super::tls::Certificate;
use super::tokens::{self, OperatorFile};
use super::vital::{self, Vital};
use super::worker::{Job, Worker};
use crate::authority::Authority;
use crate::model::id::Name;
use crate::model::seldom::Seldom;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::deliveries::Post;
use crate::ports::hub::{Standing, Tls, Trouble, Wish};

/// After accepting failed: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So often an address that could not be had, and bad files of a certificate, are tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// So often it is looked whether requests are answered.
const SETTLE_LOOK: Duration = Duration::from_millis(2);
/// So often the files of the certificate are looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);
/// So many requests without a good token are let pass at once, and one more every so often.
const FAILURES: u32 = 60;
const FORGETTING: Millis = Millis(1_000);
/// More than these do not make a machine's modules faster.
const MOST_WORKERS: usize = 8;

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-type: application/json\r\ncontent-length: 72\r\n\
    connection: close\r\n\r\n{\"error\":\"overloaded\",\"error_description\":\"there are too many clients\"}\n";
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-type: application/json\r\ncontent-length: 89\r\n\
    connection: close\r\n\r\n{\"error\":\"too_many_connections\",\"error_description\":\"this address has too many already\"}\n";

/// Names who listens on an address, if that can be known.
pub type Holder = Arc<dyn Fn(SocketAddr) -> Option<String> + Send + Sync>;

/// So many answers may go on at once.
const STREAMS: usize = 64;

/// What a server is made of.
pub struct Parts {
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub office: Arc<dyn Office>,
    /// Tells this process from any other that answers on our port.
    pub instance: Arc<str>,
    pub vital: vital::Parts,
    /// Where events are delivered.
    pub post: Arc<dyn Post>,
    /// The file of the operator token in a home.
    pub operator_file: OperatorFile,
    /// Asked when an address is taken. May block.
    pub holder: Option<Holder>,
    pub bounds: Bounds,
}

/// The hub. Ends with its value, after its requests had a moment.
pub struct Server {
    wish: watch::Sender<Arc<Wish>>,
    table: watch::Sender<Arc<Table>>,
    board: watch::Sender<Arc<Board>>,
    state: Arc<State>,
    metrics: Metrics,
    post: Arc<dyn Post>,
    busy: Arc<Busy>,
    bounds: Arc<Bounds>,
    end: Option<watch::Sender<Option<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts its threads. It listens when it is told where.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let (wish, wishes) = watch::channel(Arc::new(Wish::default()));
        let (table, tables) = watch::channel(Arc::new(Table::default()));
        let (board, boards) = watch::channel(Arc::new(Board::default()));
        let (end, ends) = watch::channel(None);
        let state = Arc::new(State::default());
        state.say(Standing::Starting);
        let metrics = Metrics::new(boards.clone());
        let authority = Arc::new(Authority::default());
        metrics.deliveries(parts.post.clone());
        parts.post.begin(inbox::side(&authority, &metrics, &parts.clock));
        let post = parts.post.clone();
        let bell = parts.vital.bell.clone();
        let vital = Vital::new(parts.vital, authority.clone(), state.clone());
        let bounds = Arc::new(parts.bounds);
        let site = Site {
            wish: wishes.clone(),
            board: boards,
            authority,
            operations: Arc::new(Operations::new(&parts.instance)),
            office: parts.office,
            post: parts.post,
            bell: bell.clone(),
            rung: Arc::default(),
            inbox: Arc::new(Semaphore::new(inbox::ROOM_KIB)),
            failures: Arc::new(Limiter::new(FAILURES, FORGETTING)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            recheck: bounds.recheck,
            ends: ends.clone(),
            metrics: metrics.clone(),
            vital: vital.clone(),
            clock: parts.clock,
            instance: parts.instance,
        };
        let means = Means::new(&site, tables, bounds.clone());
        let probing = selfprobe::watch(state.clone(), site.clone(), bell.clone());
        let keeping = tokens::keep(site.clone(), parts.operator_file);
        let (busy, kept) = (means.busy.clone(), bounds.clone());
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
        let workers = (0..count).map(|number| {
            let front = Front::new(site.clone(), Proxy::new(means.clone()));
            Worker::start(number, Arc::new(front), bounds.clone())
        });
        let workers: Arc<Vec<Worker>> = Arc::new(workers.collect::<io::Result<_>>()?);
        let gate = Gate::new(bounds.connections, bounds.connections_per_address, metrics.connections.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let host = Host { workers, gate, bounds, state: state.clone(), bell, holder: parts.holder, ends };
        let thread = std::thread::Builder::new().name("hub".to_owned()).spawn(move || {
            let workers = host.workers.clone();
            runtime.spawn(keeping);
            runtime.spawn(probing);
            runtime.block_on(host.run(wishes));
            // Nobody accepts any more, so this is the last one who knows them.
            runtime.shutdown_background();
            if let Ok(workers) = Arc::try_unwrap(workers) {
                workers.into_iter().for_each(Worker::join);
            }
        })?;
        let (end, thread) = (Some(end), Some(thread));
        Ok(Self { wish, table, board, state, metrics, post, busy, bounds: kept, end, thread })
    }

    /// Tells it what to serve. When this returns, no request is sent to a service any more that was not to be sent under this wish.
    pub fn tell(&self, wish: Wish) {
        self.wish.send_if_modified(|now| {
            let news = **now != wish;
            if news {
                if now.upstreams != wish.upstreams {
                    self.table.send_replace(Arc::new(Table::of(&wish)));
                }
                *now = Arc::new(wish);
            }
            news
        });
        let wish = self.wish.borrow().clone();
        self.post.tell(&wish);
    }

    /// Ends when these services have answered the requests that they have, or after [`Bounds::settle`].
    pub fn settle(&self, services: Vec<Name>) -> impl Future<Output = ()> + 'static {
        let (busy, bounds) = (self.busy.clone(), self.bounds.clone());
        async move {
            let until = Instant::now() + bounds.settle;
            while services.iter().any(|service| busy.requests(service) > 0) && Instant::now() < until {
                tokio::time::sleep(SETTLE_LOOK).await;
            }
        }
    }

    /// What was last reported of the machine.
    pub fn publish(&self, mut board: Board) {
        let before = self.board.borrow().clone();
        board.version = before.version + u64::from(!before.same_resources(&board));
        self.metrics.ticked(&board);
        self.board.send_replace(Arc::new(board));
    }

    pub fn standing(&self) -> Standing {
        self.state.seen()
    }

    /// Whether its address leads to it, as far as that is known.
    pub fn self_probe(&self) -> Option<SelfProbe> {
        self.state.self_probe()
    }

    /// Stops listening, gives requests under way so long, and ends.
    pub fn end(mut self, grace: Duration) {
        self.stop(grace);
    }

    fn stop(&mut self, grace: Duration) {
        if let Some(end) = self.end.take() {
            end.send_replace(Some(grace));
        }
        if let Some(thread) = self.thread.take() {
            // It panicked: it has said so itself.
            let _ = thread.join();
            // After the last event was taken in.
            self.post.end(grace);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// The thread that listens.
struct Host {
    workers: Arc<Vec<Worker>>,
    gate: Arc<Gate>,
    bounds: Arc<Bounds>,
    state: Arc<State>,
    bell: Arc<dyn Fn() + Send + Sync>,
    holder: Option<Holder>,
    ends: watch::Receiver<Option<Duration>>,
}

/// An address that is listened on.
struct Door {
    address: String,
    local: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
    drain: watch::Sender<bool>,
}

impl Host {
    /// Serves where the wish says, until the end.
    async fn run(mut self, mut wishes: watch::Receiver<Arc<Wish>>) {
        let mut door: Option<Door> = None;
        let mut certificate: Option<Certificate> = None;
        loop {
            let wish = wishes.borrow_and_update().clone();
            let trouble = self.open(&wish, &mut door, &mut certificate).await;
            self.say(match (trouble, &door) {
                (Some((trouble, message)), _) => Standing::Refused { trouble, message },
                (None, Some(door)) => Standing::Serving(door.local),
                (None, None) => Standing::Idle,
            });
            let refused = matches!(self.state.standing(), Standing::Refused { .. });
            let again = async {
                match (refused, certificate.is_some()) {
                    (true, _) => tokio::time::sleep(AGAIN).await,
                    (false, true) => tokio::time::sleep(CERTIFICATE_LOOK).await,
                    (false, false) => std::future::pending().await,
                }
            };
            // All arms are cancel-safe.
            tokio::select! {
                _ = self.ends.changed() => break,
                changed = wishes.changed() => if changed.is_err() { break },
                () = again => {}
            }
        }
        let grace = self.ends.borrow().unwrap_or_default();
        if let Some(door) = door {
            door.close(grace).await;
        }
    }

    /// Listens where the wish says; says what is in the way.
    async fn open(
        &self,
        wish: &Wish,
        door: &mut Option<Door>,
        certificate: &mut Option<Certificate>,
    ) -> Option<(Trouble, String)> {
        let Some(address) = &wish.listen else {
            *certificate = None;
            self.leave(door.take());
            return None;
        };
        let trouble = renew(wish.tls.as_ref(), certificate);
        if trouble.is_some() && certificate.is_none() {
            // Rather nothing than in the open what was to be encrypted.
            self.leave(door.take());
            return trouble;
        }
        let config = certificate.as_ref().map(|certificate| certificate.config.clone());
        if let Some(open) = door.as_ref().filter(|door| door.address == *address && !door.accepting.is_finished()) {
            open.tls.send_replace(config);
            return trouble;
        }
        match self.bind(address, door).await {
            Ok(listener) => {
                let before = door.take();
                *door = self.accept(listener, address.clone(), config);
                self.leave(before);
                trouble
            }
            Err(error) => {
                let taken = error.kind() == io::ErrorKind::AddrInUse;
                let trouble = if taken { Trouble::Taken } else { Trouble::Address };
                Some((trouble, self.not_had(address, &error, door.as_ref())))
            }
        }
    }

    /// Binds before the old address is let go of, unless the one is in the way of the other.
    async fn bind(&self, address: &str, door: &mut Option<Door>) -> io::Result<TcpListener> {
        let refused = match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            other => return other,
        };
        let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
        let Some(before) = door.take_if(|door| port(&door.address) == port(address)) else { return Err(refused) };
        let (old, config) = (before.address.clone(), before.tls.borrow().clone());
        before.accepting.abort();
        self.leave(Some(before));
        // The task has let go of its listener when it has had its turn.
        tokio::task::yield_now().await;
        let listener = TcpListener::bind(address).await;
        if listener.is_err()
            && let Ok(listener) = TcpListener::bind(&old).await
        {
            *door = self.accept(listener, old, config);
        }
        listener
    }

    fn not_had(&self, address: &str, error: &io::Error, door: Option<&Door>) -> String {
        let mut message = format!("cannot listen on {address}: {error}");
        if error.kind() == io::ErrorKind::AddrInUse
            && let (Some(holder), Ok(address)) = (&self.holder, address.replace("localhost", "127.0.0.1").parse())
            && let Some(who) = holder(address)
        {
            message = format!("{message}; {who} listens there");
        }
        if let Some(door) = door {
            message = format!("{message}; {} is still served", door.local);
        }
        message
    }

    fn accept(&self, listener: TcpListener, address: String, config: Option<Arc<ServerConfig>>) -> Option<Door> {
        let local = listener.local_addr().ok()?;
        let (tls, configs) = watch::channel(config);
        let (drain, drains) = watch::channel(false);
        let (workers, gate) = (self.workers.clone(), self.gate.clone());
        let accepting = tokio::spawn(async move {
            let (begun, mut seldom) = (Instant::now(), Seldom::default());
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let tls = configs.borrow().clone();
                        hand_over(stream, peer, tls, &drains, &workers, &gate);
                    }
                    Err(error) if is_of_one(&error) => {}
                    Err(error) => {
                        let now = Tick(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
                        if let Some(count) = seldom.happened(now) {
                            tracing::warn!(%error, count, "connections could not be accepted");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        Some(Door { address, local, accepting, tls, drain })
    }

    /// Closes an address without waiting for its requests.
    fn leave(&self, door: Option<Door>) {
        if let Some(door) = door {
            tokio::spawn(door.close(self.bounds.drain));
        }
    }

    fn say(&self, now: Standing) {
        if self.state.say(now) {
            (self.bell)();
        }
    }
}

impl Door {
    /// Whoever is not done by then is cut off when the workers end, or goes on until he is.
    async fn close(self, grace: Duration) {
        self.accepting.abort();
        let _ = self.accepting.await;
        self.drain.send_replace(true);
        let _ = tokio::time::timeout(grace, self.drain.closed()).await;
    }
}

/// Reads the certificate when it is wished, and again when its files changed.
fn renew(wished: Option<&Tls>, certificate: &mut Option<Certificate>) -> Option<(Trouble, String)> {
    let Some(files) = wished else {
        *certificate = None;
        return None;
    };
    if let Some(now) = certificate.as_mut().filter(|now| now.files == *files) {
        match now.refresh() {
            Some(Err(error)) => tracing::warn!(%error, "the certificate before it is kept"),
            Some(Ok(())) => tracing::info!("the certificate was read again"),
            None => {}
        }
        return now
            .spoiled
            .as_ref()
            .map(|error| (Trouble::Certificate, format!("{error}; the one before it is still served")));
    }
    match Certificate::read(files) {
        Ok(read) => {
            *certificate = Some(read);
            None
        }
        Err(error) => Some((Trouble::Certificate, error)),
    }
}

/// The client is gone already; the next one may be well.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn hand_over(
    stream: tokio::net::TcpStream,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    drains: &watch::Receiver<bool>,
    workers: &[Worker],
    gate: &Arc<Gate>,
) {
    let ip: IpAddr = address.ip().to_canonical();
    let pass = match gate.enter((!ip.is_loopback()).then_some(ip)) {
        Ok(pass) => pass,
        Err(shut) => {
            if tls.is_none() {
                // Into an empty socket buffer it goes at once; who cannot take it is not worth waiting for.
                let _ = stream.try_write(if shut == Shut::Full { FULL } else { TOO_MANY });
            }
            return;
        }
    };
    let Ok(stream) = stream.into_std() else { return };
    if let Some(worker) = workers.iter().min_by_key(|worker| worker.load()) {
        worker.give(Job { stream, address, tls, drain: drains.clone(), pass });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_answers_are_as_long_as_they_say() {
        for answer in [FULL, TOO_MANY] {
            let text = std::str::from_utf8(answer).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        }
    }
}
