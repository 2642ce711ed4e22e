//! A worker: a thread with a runtime of its own, and the connections that it was given. Nothing of a request moves between threads, and
//! connections to modules belong to one worker, so none waits for another.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::bounds::Bounds;
use super::front::Front;
use super::gate::Pass;
use super::proxy::Peer;
use super::stream::{Activity, UnderWay, Wire};

/// Threads that a worker may use for what blocks.
const BLOCKING: usize = 16;
/// A client that sent `P` and nothing else yet: it is looked whether more came, after so long, then after twice as long each time, and
/// at last so often. Peeking cannot wait for it: what was seen is still there to be read.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// How HTTP/2 without an upgrade begins; no method of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI ";
/// So often a client of HTTP/2 that says nothing is asked whether it is there.
const H2_PING: Duration = Duration::from_secs(20);

/// A connection for a worker.
pub struct Job {
    pub stream: std::net::TcpStream,
    pub address: SocketAddr,
    pub tls: Option<Arc<ServerConfig>>,
    /// Becomes `true` when the connection is to end after what is under way.
    pub drain: watch::Receiver<bool>,
    pub pass: Pass,
}

/// The handle of a worker. It ends, with all its connections, when this is dropped; [`Worker::join`] waits for that.
pub struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// A connection that a worker has.
struct Loaded(Arc<AtomicUsize>);

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    /// # Errors
    /// When the system gives no thread.
    pub fn start(number: usize, front: Arc<Front>, bounds: Arc<Bounds>) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(BLOCKING).enable_all().build()?;
        // Bounded by the gate: every job has its pass.
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        let load = Arc::new(AtomicUsize::new(0));
        let counter = load.clone();
        let thread = std::thread::Builder::new().name(format!("hub-{number}")).spawn(move || {
            runtime.block_on(async {
                while let Some(job) = waiting.recv().await {
                    let loaded = Loaded(counter.clone());
                    let (front, bounds) = (front.clone(), bounds.clone());
                    tokio::spawn(async move {
                        // A client that went away concerns nobody else.
                        let _ = serve(job, front, &bounds).await;
                        drop(loaded);
                    });
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { jobs, load, thread })
    }

    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub fn give(&self, job: Job) {
        self.load.fetch_add(1, Ordering::Relaxed);
        if self.jobs.send(job).is_err() {
            self.load.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn join(self) {
        drop(self.jobs);
        // It panicked: it has said so itself.
        let _ = self.thread.join();
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn serve(job: Job, front: Arc<Front>, bounds: &Bounds) -> Result<(), BoxError> {
    let Job { stream, address, tls, mut drain, pass: _pass } = job;
    stream.set_nodelay(true)?;
    let stream = TcpStream::from_std(stream)?;
    let peer = Peer { address, secure: tls.is_some() };
    let activity = Activity::begin();
    let (wire, h2) = match tls {
        None => {
            let h2 = timeout(bounds.head, begins_as_h2(&stream)).await??;
            (Wire::plain(stream, bounds.write_pause, activity.clone()), h2)
        }
        Some(config) => {
            let stream = timeout(bounds.handshake, TlsAcceptor::from(config).accept(stream)).await??;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Wire::tls(stream, bounds.write_pause, activity.clone()), h2)
        }
    };
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, under_way) = (front.clone(), requests.request());
        async move {
            let response = front.answer(request, peer).await;
            Ok::<_, Infallible>(response.map(|body| Counted { body, _under_way: under_way }))
        }
    });
    // In both: the connection is polled again after the other arms, which are cancel-safe.
    if h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(H2_PING).keep_alive_timeout(H2_PING);
        builder.max_concurrent_streams(bounds.streams);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            _ = drain.changed() => {}
            () = activity.silence(bounds.h2_idle) => {}
        }
        connection.as_mut().graceful_shutdown();
        // Whoever never said all of the preface never takes the farewell either. Streams that are under way go on.
        let silence = async {
            tokio::time::sleep(bounds.drain).await;
            activity.silence(bounds.drain).await;
        };
        tokio::select! {
            biased;
            ended = connection => return Ok(ended?),
            () = silence => return Ok(()),
        }
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(bounds.head_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service).with_upgrades());
    tokio::select! {
        biased;
        ended = connection.as_mut() => return Ok(ended?),
        _ = drain.changed() => connection.as_mut().graceful_shutdown(),
        () = activity.silence(bounds.head) => return Ok(()),
    }
    tokio::select! {
        ended = connection => Ok(ended?),
        () = activity.silence(bounds.head) => Ok(()),
    }
}

/// Looks without reading, so that whoever speaks HTTP/1.1 is not held up.
async fn begins_as_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    let mut pause = FIRST_LOOK;
    loop {
        let count = stream.peek(&mut seen).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if seen[..count] != PREFACE[..count] {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

/// An answer that is counted until it is over.
struct Counted {
    body: super::proxy::body::ResponseBody,
    _under_way: UnderWay,
}

impl hyper::body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, BoxError>>> {
        std::pin::Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
