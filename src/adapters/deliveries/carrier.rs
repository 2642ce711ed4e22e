//! Requests to sinks: HTTP/1.1 to a port of this machine, over connections that are kept for the next request.

use std::error::Error as _;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::model::unit::Millis;
use crate::ports::deliveries::{Arrival, Carrier, Errand, Soon};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CONNECTION: HeaderName = HeaderName::from_static("trueup-connection");
const ATTEMPT: HeaderName = HeaderName::from_static("trueup-attempt");
/// Connecting to a module of this machine.
const CONNECT: Duration = Duration::from_secs(2);
/// Kept connections to one sink: as many as it has events at once.
const IDLE: usize = 8;
/// Shorter than what servers usually allow (Node and uvicorn: 5 s), so that we close first.
const KEEP: Duration = Duration::from_secs(4);
/// The answer of a sink is not used; so much of it is read, so that the connection can be used again.
const MOST_ANSWER: usize = 64 << 10;

/// A client for all sinks.
#[derive(Clone, Debug)]
pub struct HttpCarrier {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for HttpCarrier {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(KEEP).pool_max_idle_per_host(IDLE).pool_timer(TokioTimer::new());
        Self { client: builder.build(connector) }
    }
}

fn request(errand: &Errand) -> Result<Request<Full<Bytes>>, String> {
    let uri: Uri = format!("http://{}:{}{}", Ipv4Addr::LOCALHOST, errand.port, errand.path)
        .parse()
        .map_err(|error| format!("{} is no path: {error}", errand.path))?;
    let mut request = Request::new(Full::new(errand.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a header is no text".to_owned());
    let mut bearer = value(&format!("Bearer {}", errand.token.reveal()))?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(CONTENT_TYPE, value(&errand.content_type)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("trueup/", env!("CARGO_PKG_VERSION"))));
    headers.insert(IDEMPOTENCY_KEY, value(&errand.key)?);
    headers.insert(CONNECTION, value(errand.connection.as_str())?);
    headers.insert(ATTEMPT, errand.attempt.into());
    Ok(request)
}

impl Carrier for HttpCarrier {
    fn carry(&self, errand: Errand) -> Soon<Arrival> {
        let client = self.client.clone();
        Box::pin(async move {
            let request = match request(&errand) {
                Ok(request) => request,
                Err(why) => return Arrival::Unreached(why),
            };
            let exchange = async {
                let response = match client.request(request).await {
                    Ok(response) => response,
                    Err(error) if error.is_connect() => {
                        return Arrival::Unreached(format!("nobody listens on port {}{}", errand.port, cause(&error)));
                    }
                    Err(error) => return Arrival::Lost(format!("the connection broke{}", cause(&error))),
                };
                let (head, body) = response.into_parts();
                let text = match Limited::new(body, MOST_ANSWER).collect().await {
                    Ok(body) if !head.status.is_success() => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                    // What a sink that took an event says is nothing to us.
                    _ => String::new(),
                };
                let retry_after = retry_after(&head.headers);
                Arrival::Answered { status: head.status.as_u16(), retry_after, text }
            };
            let answered = tokio::time::timeout(Duration::from(errand.timeout), exchange).await;
            answered.unwrap_or_else(|_| Arrival::Lost(format!("no answer within {}", errand.timeout)))
        })
    }
}

fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut last = None;
    let mut next = error.source();
    while let Some(error) = next {
        last = Some(error);
        next = error.source();
    }
    last.map(|error| format!(": {error}")).unwrap_or_default()
}

/// In seconds, or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Millis> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Millis(seconds.saturating_mul(1_000)));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    #[expect(clippy::disallowed_methods, reason = "a date of another program is compared with the wall clock")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let now = i64::try_from(now.as_millis()).ok()?;
    let ahead = at.timestamp().as_millisecond().saturating_sub(now);
    Some(Millis(u64::try_from(ahead).unwrap_or(0)))
}
