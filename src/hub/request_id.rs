//! The id of a request: taken over from whoever asks, or made here; told to the upstream and to the client, and part of everything that is
//! logged of the request. No query string is logged, and of a service's path no more than its first segment: both may hold secrets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::HeaderName;
use axum::http::{Extensions, HeaderMap, HeaderValue, Request as AnyRequest, Response as AnyResponse};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Level, Span};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids of others are not taken over: they stand in every line of a request.
const LONGEST: usize = 64;
/// The most that is logged of a path, bytes.
const LONGEST_PATH: usize = 256;
/// So many characters of the instance tell its ids from those of another.
const NONCE: usize = 8;

/// Made ids so far, in this process.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The id of one request. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id of a request that came through the router; its header [`X_REQUEST_ID`] says the same.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// For a header.
    pub fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    pub fn as_str(&self) -> &str {
        // Ours and those taken over are ASCII.
        self.0.to_str().unwrap_or_default()
    }

    /// The one that the client chose: one header, short, and nothing in it that means something in a log, a shell or a page.
    fn given(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(X_REQUEST_ID).iter();
        let (Some(one), None) = (all.next(), all.next()) else { return None };
        let safe = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let fine = (1..=LONGEST).contains(&one.len()) && one.as_bytes().iter().all(safe);
        fine.then(|| Self(one.clone()))
    }

    fn made(instance: &str) -> Self {
        let nonce = instance.get(..NONCE).unwrap_or(instance);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self(HeaderValue::try_from(format!("{nonce}-{number:x}")).unwrap_or(HeaderValue::from_static("unnamed")))
    }
}

/// Which service answered. Put into the extensions of an answer, it is logged with the request.
#[derive(Clone, Debug)]
pub struct AnsweredBy(pub Arc<str>);

/// Gives a request its id, and says it to whoever gets the request.
pub(super) fn name(headers: &mut HeaderMap, instance: &str) -> RequestId {
    let id = RequestId::given(headers).unwrap_or_else(|| RequestId::made(instance));
    headers.insert(X_REQUEST_ID, id.value());
    id
}

/// What [`attend`] tells, for a request that does not go through the router.
pub(super) async fn told<B, C>(
    request: AnyRequest<B>,
    id: &RequestId,
    answer: impl AsyncFnOnce(AnyRequest<B>) -> AnyResponse<C>,
) -> AnyResponse<C> {
    let span = span(&request, id);
    let begun = Instant::now();
    let response = answer(request).instrument(span.clone()).await;
    tell(&span, &response, begun);
    response
}

/// Gives a request its id, and tells what came of it: a span `request`, and in it the event `answered` with the time until the head of the
/// answer, at level debug.
pub(super) async fn attend(State(instance): State<Arc<str>>, mut request: Request, next: Next) -> Response {
    let id = name(request.headers_mut(), &instance);
    request.extensions_mut().insert(id.clone());
    let mut response = if is_told() {
        told(request, &id, async |request| next.run(request).await).await
    } else {
        next.run(request).await
    };
    response.headers_mut().entry(X_REQUEST_ID).or_insert(id.0);
    response
}

/// Whether anybody listens, to the log or for traces.
pub(super) fn is_told() -> bool {
    tracing::span_enabled!(Level::DEBUG)
}

fn span<B>(request: &AnyRequest<B>, id: &RequestId) -> Span {
    tracing::debug_span!(
        "request",
        method = %request.method(),
        path = shown(request),
        request_id = id.as_str(),
        peer = request.extensions().get::<SocketAddr>().map(tracing::field::display),
        service = Empty,
        status = Empty,
    )
}

fn tell<B>(span: &Span, response: &AnyResponse<B>, begun: Instant) {
    let status = i64::from(response.status().as_u16());
    let service = response.extensions().get::<AnsweredBy>().map(|by| &*by.0);
    if let Some(service) = service {
        span.record("service", service);
    }
    let ms = begun.elapsed().as_secs_f64() * 1_000.0;
    span.in_scope(|| tracing::debug!(status, ms, "answered"));
    span.record("status", status);
}

/// What may be said of its path. What is behind a wildcard is somebody else's.
fn shown<B>(request: &AnyRequest<B>) -> &str {
    let own = request.extensions().get::<MatchedPath>().is_some_and(|path| !path.as_str().contains("{*"));
    of_path(request.uri().path(), own)
}

fn of_path(path: &str, own: bool) -> &str {
    let end = if own { path.len() } else { path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at) };
    // A path of a request is ASCII; whatever is not is passed over.
    path.get(..end.min(LONGEST_PATH)).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (X_REQUEST_ID, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_short_and_plain_id_is_taken_over_and_no_other() {
        let given = |values: &[&'static str]| RequestId::given(&headers(values)).map(|id| id.as_str().to_owned());
        assert_eq!(given(&["7f-A_b.9"]).as_deref(), Some("7f-A_b.9"));
        for refused in [&[][..], &[""], &["a b"], &["a\"b"], &["<a>"], &["one", "two"]] {
            assert_eq!(given(refused), None, "{refused:?}");
        }
        let long: &'static str = "x".repeat(LONGEST + 1).leak();
        assert_eq!(given(&[long]), None);
        assert_eq!(given(&[&long[1..]]).map(|id| id.as_str().len()), Some(LONGEST));
    }

    #[test]
    fn no_two_requests_get_the_same_id() {
        let [one, two] = [0, 1].map(|_| RequestId::made("0123456789abcdef"));
        assert_ne!(one, two);
        assert!(one.as_str().starts_with("01234567-"), "{one:?}");
        let again = RequestId::given(&[(X_REQUEST_ID, one.value())].into_iter().collect());
        assert_eq!(again, Some(one), "what we make, another hub of ours takes over");
    }

    #[test]
    fn of_the_path_of_a_service_only_the_first_segment_is_said() {
        assert_eq!(of_path("/healthz", true), "/healthz");
        assert_eq!(of_path("/api/v1/services/vault", true), "/api/v1/services/vault");
        assert_eq!(of_path("/vault/invite/SECRET", false), "/vault");
        assert_eq!(of_path("/", false), "/");
        assert_eq!(of_path(&format!("/{}", "x".repeat(999)), true).len(), LONGEST_PATH);
    }
}
