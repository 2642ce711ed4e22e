//! Connections to one module, kept for the next request. Each worker has its own, so nobody waits for a lock.
//!
//! A connection has no task of its own: whoever uses it drives it, from the request to the end of the answer, so that no other task has
//! to be woken for either. While it is kept nobody drives it; whether it was closed meanwhile is looked at before it is used.
//!
//! It is ours and not the client of `hyper-util`, because the proxy must know of every failure whether the request had left us: what was
//! not sent is sent again, and waits for a module that is started again.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
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
    kept: Vec<(Line, Instant)>,
    /// Somebody looks after those that are kept.
    swept: bool,
}

/// A connection: what requests are given to, and what drives them.
struct Line {
    sender: SendRequest<RequestBody>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, RequestBody>>>,
    over: bool,
    _count: Count,
}

impl Line {
    fn drive(&mut self, cx: &mut Context<'_>) {
        // What went wrong is told to whoever waits for the answer.
        if !self.over && self.driver.as_mut().poll(cx).is_ready() {
            self.over = true;
        }
    }

    fn is_usable(&self) -> bool {
        !self.over && self.sender.is_ready()
    }
}

/// A connection in use. Closed when dropped.
pub struct Lease {
    line: Line,
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
        let lease = |line, used| Lease { line, used, pool: self.clone(), _entry: entry };
        if let Some(line) = poll_fn(|cx| Poll::Ready(self.kept(cx))).await {
            return Ok(lease(line, true));
        }
        if self.open.load(Ordering::Relaxed) >= self.bounds.upstream_connections {
            let waited = tokio::time::timeout(self.bounds.hold, self.wait_for_room()).await;
            match waited {
                Ok(Some(line)) => return Ok(lease(line, true)),
                Ok(None) => {}
                Err(_) => return Err(NoConnection::Full),
            }
        }
        let line = self.connect().await.map_err(NoConnection::Refused)?;
        Ok(lease(line, false))
    }

    /// One that is ready; those that were closed are dropped.
    fn kept(&self, cx: &mut Context<'_>) -> Option<Line> {
        loop {
            let (mut line, _) = self.idle().kept.pop()?;
            line.drive(cx);
            if line.is_usable() {
                return Some(line);
            }
        }
    }

    async fn wait_for_room(&self) -> Option<Line> {
        loop {
            let rung = self.room.notified();
            if let Some(line) = poll_fn(|cx| Poll::Ready(self.kept(cx))).await {
                return Some(line);
            }
            if self.open.load(Ordering::Relaxed) < self.bounds.upstream_connections {
                return None;
            }
            rung.await;
        }
    }

    async fn connect(self: &Arc<Self>) -> io::Result<Line> {
        let count = Count::new(self.clone());
        let stream = open(self.port, self.bounds.connect).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(self.bounds.head_bytes);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut line = Line { sender, driver: Box::pin(connection), over: false, _count: count };
        // It takes requests when it was driven once.
        poll_fn(|cx| {
            line.drive(cx);
            Poll::Ready(())
        })
        .await;
        Ok(line)
    }

    /// Closes what nobody used for a while, and ends when nothing is kept.
    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.bounds.upstream_keep / 2).await;
            let now = Instant::now();
            let mut idle = self.idle();
            idle.kept.retain(|(_, since)| now - *since < self.bounds.upstream_keep);
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
    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// With the request itself when nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut sent = pin!(self.line.sender.try_send_request(request));
        let (driver, over) = (&mut self.line.driver, &mut self.line.over);
        poll_fn(|cx| {
            if !*over && driver.as_mut().poll(cx).is_ready() {
                *over = true;
            }
            sent.as_mut().poll(cx)
        })
        .await
    }

    /// Moves what is under way: an answer comes, and a body goes, only while this is called.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        self.line.drive(cx);
    }

    /// Keeps the connection for the next request, if it can take one.
    pub fn give_back(mut self, cx: &mut Context<'_>) {
        if !self.line.is_usable() {
            self.line.drive(cx);
        }
        if !self.line.is_usable() {
            return;
        }
        let Self { line, pool, .. } = self;
        let mut idle = pool.idle();
        if idle.kept.len() < pool.bounds.upstream_idle {
            idle.kept.push((line, Instant::now()));
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
