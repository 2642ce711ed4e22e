//! Listening: the thread of the hub, its listener, and the connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::limit::Limiter;
use super::metrics::Metrics;
use super::office::Office;
use super::operations::Operations;
use super::router::router;
use super::selfprobe::{self, SelfProbe};
use super::site::{Board, Site};
use super::state::State;
use super::tokens::{self, OperatorFile};
use super::vital::{self, Vital};
use crate::authority::Authority;
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::hub::{Standing, Trouble, Wish};

/// After accepting failed: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So often an address that could not be had is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// So many requests without a good token are let pass at once, and one more every so often.
const FAILURES: u32 = 60;
const FORGETTING: Millis = Millis(1_000);

/// What a server is made of.
pub struct Parts {
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub office: Arc<dyn Office>,
    /// Tells this process from any other that answers on our port.
    pub instance: Arc<str>,
    pub vital: vital::Parts,
    /// The file of the operator token in a home.
    pub operator_file: OperatorFile,
}

/// The hub. Ends with its value, after its requests had a moment.
pub struct Server {
    wish: watch::Sender<Arc<Wish>>,
    board: watch::Sender<Arc<Board>>,
    state: Arc<State>,
    metrics: Metrics,
    end: Option<watch::Sender<Option<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts its thread. It listens when it is told where.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let (wish, wishes) = watch::channel(Arc::new(Wish::default()));
        let (board, boards) = watch::channel(Arc::new(Board::default()));
        let (end, ends) = watch::channel(None);
        let state = Arc::new(State::default());
        state.say(Standing::Starting);
        let metrics = Metrics::new(boards.clone());
        let authority = Arc::new(Authority::default());
        let bell = parts.vital.bell.clone();
        let vital = Vital::new(parts.vital, authority.clone(), state.clone());
        let site = Site {
            wish: wishes.clone(),
            board: boards,
            authority,
            operations: Arc::new(Operations::new(&parts.instance)),
            office: parts.office,
            failures: Arc::new(Limiter::new(FAILURES, FORGETTING)),
            ends: ends.clone(),
            metrics: metrics.clone(),
            vital: vital.clone(),
            clock: parts.clock,
            instance: parts.instance,
        };
        let probing = selfprobe::watch(state.clone(), site.clone(), bell.clone());
        let keeping = tokens::keep(site.clone(), parts.operator_file);
        let listener = Listener { site, state: state.clone(), bell: bell, ends };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("hub").enable_all().build()?;
        let thread = std::thread::Builder::new().name("hub".to_owned()).spawn(move || {
            runtime.spawn(keeping);
            runtime.spawn(probing);
            runtime.block_on(listener.run(wishes));
            runtime.shutdown_background();
        })?;
        Ok(Self { wish, board, state, metrics, end: Some(end), thread: Some(thread) })
    }

    /// Tells it what to serve.
    pub fn tell(&self, wish: Wish) {
        self.wish.send_if_modified(|now| {
            let news = **now != wish;
            if news {
                *now = Arc::new(wish);
            }
            news
        });
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
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

struct Listener {
    site: Site,
    state: Arc<State>,
    bell: Arc<dyn Fn() + Send + Sync>,
    ends: watch::Receiver<Option<Duration>>,
}

impl Listener {
    /// Serves where the wish says, until the end.
    async fn run(mut self, mut wishes: watch::Receiver<Arc<Wish>>) {
        loop {
            let wish = wishes.borrow_and_update().clone();
            match wish.listen.clone() {
                None => self.say(Standing::Idle),
                Some(address) => match TcpListener::bind(&address).await {
                    Ok(listener) => {
                        let local = listener.local_addr().ok();
                        self.say(local.map_or(Standing::Starting, Standing::Serving));
                        self.accept(listener, &address, &mut wishes).await;
                        if self.ends.borrow().is_some() {
                            return;
                        }
                        continue;
                    }
                    Err(error) => {
                        let message = format!("cannot listen on {address}: {error}");
                        self.say(Standing::Refused { trouble: Trouble::Address, message });
                    }
                },
            }
            // All arms are cancel-safe.
            tokio::select! {
                _ = self.ends.changed() => return,
                changed = wishes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(BIND_AGAIN) => {}
            }
        }
    }

    /// Until the end, or until it is to listen elsewhere.
    async fn accept(&mut self, listener: TcpListener, address: &str, wishes: &mut watch::Receiver<Arc<Wish>>) {
        let router = router(self.site.clone());
        let graceful = GracefulShutdown::new();
        loop {
            // All arms are cancel-safe.
            tokio::select! {
                _ = self.ends.changed() => break,
                changed = wishes.changed() => {
                    if changed.is_err() || wishes.borrow_and_update().listen.as_deref() != Some(address) {
                        break;
                    }
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => serve(stream, peer, router.clone(), &graceful),
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        drop(listener);
        let grace = self.ends.borrow().unwrap_or(Duration::from_secs(10));
        // Whoever is not done by then is cut off.
        let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
    }

    fn say(&self, now: Standing) {
        if self.state.say(now) {
            (self.bell)();
        }
    }
}

fn serve(stream: tokio::net::TcpStream, peer: SocketAddr, router: axum::Router, graceful: &GracefulShutdown) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router.layer(axum::Extension(peer)));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = graceful.watch(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned());
    tokio::spawn(async move {
        // A client that went away concerns nobody else.
        let _ = connection.await;
    });
}
