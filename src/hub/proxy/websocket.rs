//! WebSockets: only where a mount declares them. The hub does not read them: after the handshake both sides are connected as they are,
//! with bounded buffers, so that who does not read holds up who writes. Subprotocols and extensions are between the two. Whether a page
//! of another origin may open one is the module's business as well: it gets the `Origin` that the browser sent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::answers::Problem;
use super::body::{RequestBody, ResponseBody};
use super::headers;
use super::pool;
use crate::hub::bounds::Bounds;
use crate::hub::gate::{Pass, Shut};
use crate::hub::leave::Leave;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADES: HeaderValue = HeaderValue::from_static("Upgrade");
/// When one side has closed, what the other one still says is waited for so long.
const LINGER: Duration = Duration::from_secs(5);

/// Whether a request asks for one.
pub fn is_wanted<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(UPGRADE)
        && request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && names(request.headers(), &UPGRADE, "websocket")
        && names(request.headers(), &CONNECTION, "upgrade")
}

/// Whether a list of words has this one.
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let words = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    words.into_iter().any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// One that a client is about to have.
pub struct Handshake {
    client: OnUpgrade,
    pass: Pass,
}

impl Handshake {
    /// Takes the client's side. The request must not have been rewritten yet.
    pub fn begin(request: &mut Request<RequestBody>, pass: Pass) -> Self {
        Self { client: hyper::upgrade::on(request), pass }
    }

    /// Connects both sides when the module agreed; otherwise its answer stays as it is.
    pub fn end(
        self,
        mut response: Response<Incoming>,
        leave: Option<Arc<Leave>>,
        bounds: &Arc<Bounds>,
    ) -> Response<ResponseBody> {
        let module = hyper::upgrade::on(&mut response);
        let bounds = bounds.clone();
        tokio::spawn(async move {
            let Self { client, pass } = self;
            // Whichever side is gone before it began, the other one is closed with it.
            if let Ok((client, module)) = tokio::try_join!(client, module) {
                tunnel(client, module, leave, &bounds).await;
            }
            drop(pass);
        });
        let (mut parts, _) = response.into_parts();
        headers::for_client(&mut parts.headers);
        parts.headers.remove(CONTENT_LENGTH);
        ask(&mut parts.headers);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        Response::from_parts(parts, ResponseBody::Text(http_body_util::Full::default()))
    }
}

/// Says that this is about a WebSocket.
pub fn ask(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, UPGRADES);
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Whether a module agreed.
pub fn agreed(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS && names(response.headers(), &UPGRADE, "websocket")
}

/// The mount has none.
pub fn not_here() -> Problem {
    let text = "this path has no WebSockets; its service declares them with 'websocket: true' on the route";
    Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket_not_supported", text)
}

pub fn too_many(shut: Shut) -> Problem {
    let text = match shut {
        Shut::Full => "there are too many WebSockets",
        Shut::TooManyOfOne => "this client has too many WebSockets",
    };
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_websockets", text)
}

/// A connection to a module that can become something else.
///
/// # Errors
/// As [`pool::open`].
pub async fn connect(port: u16, bounds: &Bounds) -> io::Result<http1::SendRequest<RequestBody>> {
    let stream = pool::open(port, bounds.connect).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        // Whoever uses it is told what went wrong.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

type Io = TokioIo<Upgraded>;

/// When something was last said, by either side.
struct LastWord {
    begun: Instant,
    ms: AtomicU64,
}

impl LastWord {
    fn now(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ms.store(ms, Ordering::Relaxed);
    }

    /// Ends when nothing was said for so long.
    async fn silence(&self, idle: Duration) {
        loop {
            let until = self.begun + Duration::from_millis(self.ms.load(Ordering::Relaxed)) + idle;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Hands on what either side says, until one of them ends, both fall silent, or the client may go on no longer. Both are closed then.
async fn tunnel(client: Upgraded, module: Upgraded, leave: Option<Arc<Leave>>, bounds: &Bounds) {
    let over = async {
        match &leave {
            Some(leave) => leave.over().await,
            None => std::future::pending().await,
        }
    };
    let last = LastWord { begun: Instant::now(), ms: AtomicU64::new(0) };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_module, to_module) = tokio::io::split(TokioIo::new(module));
    let mut up = std::pin::pin!(pump(from_client, to_module, bounds.websocket_buffer, &last));
    let mut down = std::pin::pin!(pump(from_module, to_client, bounds.websocket_buffer, &last));
    // What is under way in an arm that lost goes on below, or is dropped with both connections.
    tokio::select! {
        ended = &mut up => if ended.is_ok() { let _ = tokio::time::timeout(LINGER, down).await; },
        ended = &mut down => if ended.is_ok() { let _ = tokio::time::timeout(LINGER, up).await; },
        () = last.silence(bounds.websocket_idle) => {}
        () = over => {}
    }
}

/// One direction. The end of the one side is told to the other.
async fn pump(mut from: ReadHalf<Io>, mut to: WriteHalf<Io>, size: usize, last: &LastWord) -> io::Result<()> {
    let mut buffer = vec![0; size];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        last.now();
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        last.now();
    }
}
