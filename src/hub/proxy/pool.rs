//! Connections to one module, kept for the next request. Each worker has its own, so nobody waits for a lock.
//!
//! It is ours and not the client of `hyper-util`, because the proxy must know of every failure whether the request had left us: what was
//! not sent is sent again, and waits for a module that is started again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::RequestBody;
use crate::hub::bounds::Bounds;

/// Connections to one process of a module.
pub struct Pool {
    port: u16,
    bounds: Arc<Bounds>,
    idle: Mutex<Idle>,
    /// Connections that exist, idle or not.
    open: AtomicUsize,
    /// Rung when one is given back or closed.
    room: Notify,
    /// Requests that the service has, over all workers.
    busy: Arc<AtomicUsize>,
}

/// A request that a service has, or is about to get.
pub struct Entry(Arc<AtomicUsize>);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is last, and is used next.
    kept: Vec<(SendRequest<RequestBody>, Instant)>,
    /// Somebody looks after those that are kept.
    swept: bool,
}

/// A connection in use. Closed when dropped.
pub struct Lease {
    pub sender: SendRequest<RequestBody>,
    /// It served a request before, so the module may be closing it at this moment.
    pub used: bool,
    pool: Arc<Pool>,
    _entry: Entry,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum NoConnection {
    /// Nobody listens, or not yet.
    Refused(io::Error),
    /// All connections that may be are in use.
    Full,
}

impl Pool {
    pub fn new(port: u16, bounds: Arc<Bounds>, busy: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { port, bounds, idle: Mutex::default(), open: AtomicUsize::new(0), room: Notify::new(), busy })
    }

    /// Counts a request.
    pub fn enter(&self) -> Entry {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Entry(self.busy.clone())
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept connection, or a new one.
    ///
    /// # Errors
    /// [`NoConnection`].
    pub async fn lease(self: &Arc<Self>, entry: Entry) -> Result<Lease, NoConnection> {
        let lease = |sender, used| Lease { sender, used, pool: self.clone(), _entry: entry };
        if let Some(sender) = self.kept() {
            return Ok(lease(sender, true));
        }
        if self.open.load(Ordering::Relaxed) >= self.bounds.upstream_connections {
            let waited = tokio::time::timeout(self.bounds.hold, self.wait_for_room()).await;
            match waited {
                Ok(Some(sender)) => return Ok(lease(sender, true)),
                Ok(None) => {}
                Err(_) => return Err(NoConnection::Full),
            }
        }
        let sender = self.connect().await.map_err(NoConnection::Refused)?;
        Ok(lease(sender, false))
    }

    /// One that is ready; those that were closed are dropped.
    fn kept(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle();
        let mut at = idle.kept.len();
        while at > 0 {
            at -= 1;
            let sender = &idle.kept[at].0;
            if sender.is_closed() {
                idle.kept.remove(at);
            } else if sender.is_ready() {
                return Some(idle.kept.remove(at).0);
            }
            // Otherwise it was given back a moment ago and has not noticed it yet.
        }
        None
    }

    async fn wait_for_room(&self) -> Option<SendRequest<RequestBody>> {
        loop {
            let rung = self.room.notified();
            if let Some(sender) = self.kept() {
                return Some(sender);
            }
            if self.open.load(Ordering::Relaxed) < self.bounds.upstream_connections {
                return None;
            }
            rung.await;
        }
    }

    async fn connect(self: &Arc<Self>) -> io::Result<SendRequest<RequestBody>> {
        let count = Count::new(self.clone());
        let stream = open(self.port, self.bounds.connect).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(self.bounds.head_bytes);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            // Whoever uses it is told what went wrong.
            let _ = connection.await;
            drop(count);
        });
        Ok(sender)
    }

    /// Closes what nobody used for a while, and ends when nothing is kept.
    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.bounds.upstream_keep / 2).await;
            let now = Instant::now();
            let mut idle = self.idle();
            idle.kept.retain(|(sender, since)| !sender.is_closed() && now - *since < self.bounds.upstream_keep);
            if idle.kept.is_empty() {
                idle.kept.shrink_to_fit();
                idle.swept = false;
                return;
            }
        }
    }
}

/// Opens a connection to a module.
///
/// # Errors
/// As the system says; `TimedOut` when its backlog stays full.
pub async fn open(port: u16, patience: Duration) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = tokio::time::timeout(patience, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if stream.local_addr()? == stream.peer_addr()? {
        // The kernel chose the very port that nobody listens on, and connected the socket with itself.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

impl Lease {
    /// Keeps the connection for the next request.
    pub fn give_back(self) {
        let Self { sender, pool, .. } = self;
        if sender.is_closed() {
            return;
        }
        let mut idle = pool.idle();
        if idle.kept.len() < pool.bounds.upstream_idle {
            idle.kept.push((sender, Instant::now()));
        }
        let sweep = !std::mem::replace(&mut idle.swept, true);
        drop(idle);
        pool.room.notify_one();
        if sweep {
            tokio::spawn(pool.sweep());
        }
    }
}

/// One connection that exists.
struct Count(Arc<Pool>);

impl Count {
    fn new(pool: Arc<Pool>) -> Self {
        pool.open.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.room.notify_one();
    }
}
