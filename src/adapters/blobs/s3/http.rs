//! How requests of `object_store` reach a server: hyper's client, with a watch on the flow of bytes, and a note of what went wrong, since
//! the errors of `object_store` keep that to themselves.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Collected, Limited};
use hyper::rt::ReadBufCursor;
use hyper::{HeaderMap, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, Connected, Connection, HttpConnector as TcpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::Patience;

/// The most that is read of an answer that says no.
const REFUSAL_LIMIT: usize = 64 << 10;
/// Connections that wait for the next request.
const IDLE_CONNECTIONS: usize = 8;
/// Servers close what is idle; we do so first.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);
/// A server that asks for more is busy for longer than a request may wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the last request came to, if it was no success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// `None` when there was no answer.
    pub status: Option<u16>,
    /// The `Code` of an S3 error, such as `NoSuchBucket`.
    pub code: String,
    pub message: String,
    /// The region that the server wants to be addressed in.
    pub region: Option<String>,
}

tokio::task_local! {
    static FAILURE: RefCell<Option<Failure>>;
}

/// Runs requests, and gives what the last of them failed with.
pub(super) async fn noting<T>(requests: impl Future<Output = T>) -> (T, Option<Failure>) {
    let noted = async {
        let out = requests.await;
        (out, FAILURE.with(RefCell::take))
    };
    FAILURE.scope(RefCell::default(), noted).await
}

fn note(failure: Option<Failure>) {
    // Outside of `noting` nobody asks.
    let _ = FAILURE.try_with(|noted| noted.replace(failure));
}

/// Gives `object_store` our client.
#[derive(Debug)]
pub(super) struct Connector(HttpClient);

impl Connector {
    /// # Errors
    /// When TLS is wanted and this machine has no root certificates.
    pub(super) fn new(tls: bool, patience: &Patience) -> io::Result<Self> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience.connect));
        let watching = Watching { tcp, connect: patience.connect * 2, idle: patience.idle };
        if !tls {
            return Ok(Self(client(watching)));
        }
        let builder = HttpsConnectorBuilder::new().with_native_roots()?;
        Ok(Self(client(builder.https_or_http().enable_http1().wrap_connector(watching))))
    }
}

fn client<C: Connect + Clone + Send + Sync + 'static>(connector: C) -> HttpClient {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_CONNECTION).pool_max_idle_per_host(IDLE_CONNECTIONS);
    HttpClient::new(Requests(builder.build(connector)))
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

struct Requests<C>(Client<C, HttpRequestBody>);

impl<C> fmt::Debug for Requests<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> HttpService for Requests<C> {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.answer(request))
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> Requests<C> {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.request(request).await.map_err(|error| {
            let connecting = error.is_connect();
            broken(error, connecting)
        })?;
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            note(None);
            let body = body.map_err(|error| broken(error, false));
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        // The status alone says enough when the rest is cut off.
        let answer = Limited::new(body, REFUSAL_LIMIT).collect().await.map(Collected::to_bytes).unwrap_or_default();
        note(Some(refusal(parts.status, &parts.headers, &answer)));
        if let Some(pause) = pause(parts.status, &parts.headers) {
            tokio::time::sleep(pause).await;
        }
        Ok(HttpResponse::from_parts(parts, answer.into()))
    }
}

/// What a server said with a status that is no success.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap, answer: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(answer);
    let named = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok()).map(str::to_owned);
    Failure {
        status: Some(status.as_u16()),
        code: element(&text, "Code").unwrap_or_default(),
        message: element(&text, "Message").unwrap_or_default(),
        region: named.or_else(|| element(&text, "Region")),
    }
}

/// The text of an XML element without children. What a server says to people is not worth a parser.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once('<')?;
    let printable = inside.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    Some(printable.take(300).collect::<String>()).filter(|inside| !inside.is_empty())
}

/// `object_store` waits by its own measure; a server that says how long it needs is waited for here before.
fn pause(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let seconds = headers.get(hyper::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// Notes what broke a connection, and says what kind it is: that decides whether it is tried again.
fn broken(error: impl Error + Send + Sync + 'static, connecting: bool) -> HttpError {
    let mut kind = if connecting { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    let mut deepest: &(dyn Error + 'static) = &error;
    loop {
        if deepest.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
            && !connecting
        {
            kind = HttpErrorKind::Timeout;
        }
        match deepest.source() {
            Some(source) => deepest = source,
            None => break,
        }
    }
    note(Some(Failure { message: deepest.to_string(), ..Failure::default() }));
    HttpError::new(kind, error)
}

/// Connects, and gives connections that fail when no byte comes or goes for too long.
#[derive(Clone)]
struct Watching {
    tcp: TcpConnector,
    /// For finding the address and connecting.
    connect: Duration,
    idle: Duration,
}

impl Service<Uri> for Watching {
    type Response = Watched;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Watched, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.connect, self.tcp.call(uri));
        let idle = self.idle;
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            let io = connecting.await.map_err(late)??;
            Ok(Watched { io, idle, alarm: Box::pin(tokio::time::sleep(idle)) })
        })
    }
}

struct Watched {
    io: TokioIo<TcpStream>,
    idle: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl Watched {
    fn watch<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.alarm.as_mut().reset(Instant::now() + self.idle);
            return polled;
        }
        if self.alarm.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let text = format!("no byte came or went for {} s", self.idle.as_secs_f32());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl hyper::rt::Read for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.watch(polled, cx)
    }
}

impl hyper::rt::Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.watch(polled, cx)
    }
}

impl Connection for Watched {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}
