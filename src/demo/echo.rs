//! An echo: says what it was asked, and does what a proxy must live with (streams, slow answers, answers that break off, WebSockets).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Identity;
use super::server::problem;

pub(super) const IDENTITY: Identity = Identity {
    short: "echo",
    row: "echo",
    port: 1943,
    mount: "/echo",
    health: "/echo/health",
    display_name: "Demo echo",
    tagline: "Says what it was asked",
};

const CHUNK: usize = 64 << 10;
/// RFC 6455, 1.3.
const WEBSOCKET_KEY: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longer messages are not echoed.
const LONGEST_MESSAGE: usize = 1 << 20;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    /// Requests of those that take a while that have begun.
    begun: AtomicU64,
    /// Requests whose client left before they were answered.
    left: AtomicU64,
    bytes: AtomicU64,
}

type Shared = Arc<Seen>;

pub(super) fn routes() -> Router {
    Router::new()
        .route("/echo/seen", get(seen))
        .route("/echo/body", any(body))
        .route("/echo/count", any(count))
        .route("/echo/page", get(async || Html("<p>echo</p>")))
        .route("/echo/bytes/{bytes}", get(bytes))
        .route("/echo/drip/{count}/{ms}", get(drip))
        .route("/echo/slow/{ms}", any(slow))
        .route("/echo/cut/{bytes}", get(cut))
        .route("/echo/die", any(die))
        .route("/echo/ws", get(websocket))
        .route("/echo/ask", any(asked))
        .route("/echo/ask/{*rest}", any(asked))
        .with_state(Shared::default())
}

async fn seen(State(seen): State<Shared>) -> Json<Value> {
    let number = |count: &AtomicU64| count.load(Ordering::SeqCst);
    Json(
        json!({ "requests": number(&seen.requests), "begun": number(&seen.begun), "left": number(&seen.left), "bytes": number(&seen.bytes) }),
    )
}

/// What came, but for its body.
async fn asked(State(seen): State<Shared>, request: Request) -> Json<Value> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Json(json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "headers": headers,
        "pid": std::process::id(),
    }))
}

/// The body, as it comes.
async fn body(State(seen): State<Shared>, request: Request) -> Response {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    request.into_body().into_response()
}

/// How long the body was; it is not kept.
async fn count(State(seen): State<Shared>, request: Request) -> Response {
    let leaving = Leaving(Some(seen.clone()));
    let mut body = request.into_body().into_data_stream();
    let mut bytes = 0;
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else { return problem(StatusCode::BAD_REQUEST, "cut_off", "the body broke off") };
        bytes += chunk.len() as u64;
        seen.bytes.fetch_add(chunk.len() as u64, Ordering::SeqCst);
    }
    leaving.stayed();
    Json(json!({ "bytes": bytes })).into_response()
}

async fn bytes(Path(bytes): Path<u64>) -> Response {
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let body = stream::unfold(bytes, move |left| {
        let size = left.min(CHUNK as u64);
        let piece = chunk.slice(..usize::try_from(size).unwrap_or(CHUNK));
        async move { (size > 0).then(|| (Ok::<_, Infallible>(piece), left - size)) }
    });
    ([(header::CONTENT_LENGTH, bytes)], Body::from_stream(body)).into_response()
}

/// So many lines, with a pause before each.
async fn drip(State(seen): State<Shared>, Path((count, ms)): Path<(u64, u64)>) -> Response {
    let leaving = Leaving(Some(seen));
    let body = stream::unfold((0, leaving), move |(number, leaving)| async move {
        if number == count {
            leaving.stayed();
            return None;
        }
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Some((Ok::<_, Infallible>(format!("line {number}\n")), (number + 1, leaving)))
    });
    Body::from_stream(body).into_response()
}

async fn slow(State(seen): State<Shared>, Path(ms): Path<u64>) -> Json<Value> {
    seen.begun.fetch_add(1, Ordering::SeqCst);
    let leaving = Leaving(Some(seen));
    tokio::time::sleep(Duration::from_millis(ms)).await;
    leaving.stayed();
    Json(json!({ "slept": ms, "pid": std::process::id() }))
}

/// So many bytes of an answer that would be longer.
async fn cut(Path(bytes): Path<usize>) -> Response {
    let piece = stream::iter([Ok(Bytes::from(vec![b'x'; bytes]))]);
    let end = stream::once(async {
        // What was said before is on its way by then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(std::io::Error::other("cut off on request"))
    });
    Body::from_stream(piece.chain(end)).into_response()
}

/// The process ends without an answer.
async fn die() -> Response {
    std::process::abort()
}

/// Counts a client that left before its answer.
struct Leaving(Option<Shared>);

impl Leaving {
    fn stayed(mut self) {
        if let Some(seen) = self.0.take() {
            seen.requests.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(seen) = &self.0 {
            seen.left.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The handshake; every message comes back then. The first of the subprotocols that are offered is spoken.
async fn websocket(mut request: Request) -> Response {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return problem(StatusCode::BAD_REQUEST, "no_websocket", "this path speaks WebSocket");
    };
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), WEBSOCKET_KEY.as_bytes()].concat());
    let protocols = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|list| list.to_str().ok());
    let protocol = protocols.and_then(|list| list.split(',').next()).and_then(|one| one.trim().parse().ok());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            // Whoever leaves in the middle is not waited for.
            let _ = converse(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = STANDARD.encode(accept).parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// Sends every frame back without its mask, and ends with a close.
async fn converse(mut io: TokioIo<hyper::upgrade::Upgraded>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 2];
        io.read_exact(&mut head).await?;
        let length = match head[1] & 0x7f {
            126 => u64::from(io.read_u16().await?),
            127 => io.read_u64().await?,
            short => u64::from(short),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST_MESSAGE);
        let Some(length) = length else { return Ok(()) };
        let mut mask = [0; 4];
        if head[1] & 0x80 != 0 {
            io.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; length];
        io.read_exact(&mut payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let code = head[0] & 0x0f;
        let code = if code == PING { PONG } else { code };
        let mut frame = vec![head[0] & 0xf0 | code];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => frame.push(short),
            (_, Ok(middle)) => {
                frame.push(126);
                frame.extend(middle.to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        io.write_all(&frame).await?;
        io.flush().await?;
        if code == CLOSE {
            return io.shutdown().await;
        }
    }
}
