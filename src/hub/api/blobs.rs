//! Blobs, streamed both ways: never more than a few pieces of one are held in memory.

use std::convert::Infallible;
use std::ops::Range;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::answers::{Always, ByName};
use super::asked::{Asked, Nothing};
use crate::hub::office::{Fetched, Piece};
use crate::hub::refusal::{ErrorBody, Refusal};
use crate::hub::site::Site;
use crate::model::blob::Integrity;
use crate::model::blob_output::{BlobLine, RemovedLine, StoredLine, StoredOutcome};

/// So many blobs at once.
const MOST: usize = 1_000;
const USUAL: usize = 100;
/// So many pieces of a blob wait for the disk.
const PIECES: usize = 4;
/// A client that sends nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Which blobs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichBlobs {
    /// Only those after this key.
    #[param(inline)]
    after: Option<Integrity>,
    /// At most so many; 100 unless told.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobList {
    /// In the order of their keys.
    pub blobs: Vec<BlobLine>,
    /// For `after`, to go on from here; nothing when this is the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<Integrity>,
}

/// What a call that changes blobs may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "described, never made: handlers answer with refusals")]
enum Stored {
    /// The key has other bytes already, or no storage is set up.
    #[response(status = 409)]
    Conflict(ErrorBody),
}

/// List the blobs.
#[utoipa::path(
    get, path = "/blobs", operation_id = "listBlobs", tag = "blobs", params(WhichBlobs),
    responses((status = 200, body = BlobList), Always)
)]
pub(super) async fn list(State(site): State<Site>, Asked(which): Asked<WhichBlobs>) -> Result<Json<BlobList>, Refusal> {
    let limit = super::limit(which.limit, USUAL, MOST)?;
    let mut blobs = site.office.list_blobs(which.after, limit + 1).await?;
    let more = blobs.len() > limit;
    blobs.truncate(limit);
    let next = if more { blobs.last().map(|blob| blob.key.clone()) } else { None };
    Ok(Json(BlobList { blobs, next }))
}

/// Read a blob.
///
/// What is given is proved right before the first byte. One range of bytes may be asked for.
#[utoipa::path(
    get, path = "/blobs/{key}", operation_id = "getBlob", tag = "blobs",
    params(
        ("key" = inline(Integrity), Path, description = "Its key, percent-encoded"),
        ("Range" = Option<String>, Header, description = "One range, such as bytes=0-99"),
    ),
    responses(
        (status = 200, description = "Its bytes", content_type = "application/octet-stream"),
        (status = 206, description = "The bytes that were asked for", content_type = "application/octet-stream"),
        (status = 416, description = "It has no such bytes", body = ErrorBody),
        Always, ByName
    )
)]
pub(super) async fn get(
    State(site): State<Site>,
    Path(key): Path<String>,
    headers: HeaderMap,
    _: Nothing,
) -> Result<Response, Refusal> {
    let key = integrity(&key)?;
    let blob = site.office.stat_blob(key.clone()).await?;
    let range = wanted(&headers, &blob)?;
    let Fetched { first, rest } = site.office.get_blob(key, range.clone()).await?;
    let pieces = stream::unfold((first, rest), |(first, mut rest)| async move {
        let piece = match first {
            Some(piece) => piece,
            None => rest.recv().await?,
        };
        Some((Ok::<_, Infallible>(piece), (None, rest)))
    });
    let mut response = Body::from_stream(pieces).into_response();
    *response.headers_mut() = described(&blob);
    if let Some(range) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size);
        response.headers_mut().insert(CONTENT_LENGTH, (range.end - range.start).into());
        response.headers_mut().insert(CONTENT_RANGE, value(&text));
    }
    Ok(response)
}

/// How large a blob is.
#[utoipa::path(
    head, path = "/blobs/{key}", operation_id = "headBlob", tag = "blobs",
    params(("key" = inline(Integrity), Path, description = "Its key, percent-encoded")),
    responses(
        (status = 200, description = "`Content-Length` is its size, `ETag` the SHA-256 of its bytes"),
        (status = 400, description = "The key or a parameter cannot be read"), (status = 401, description = "No good token"),
        (status = 403, description = "The token has not the scope"), (status = 404, description = "There is no such blob"),
        (status = 429, description = "Too many requests without a good token"), (status = 500, description = "It failed on this side"),
        (status = 503, description = "Too much at once")
    )
)]
pub(super) async fn head(State(site): State<Site>, Path(key): Path<String>, _: Nothing) -> Result<Response, Refusal> {
    let blob = site.office.stat_blob(integrity(&key)?).await?;
    let mut response = Body::empty().into_response();
    *response.headers_mut() = described(&blob);
    Ok(response)
}

/// Store a blob.
///
/// Under the key of its origin's content. Nothing is stored when the body ends too early; the same again is no change.
#[utoipa::path(
    put, path = "/blobs/{key}", operation_id = "putBlob", tag = "blobs",
    params(("key" = inline(Integrity), Path, description = "Its key, percent-encoded")),
    request_body(content_type = "application/octet-stream", description = "Its bytes, of any type"),
    responses(
        (status = 200, description = "It was there already, or is repaired", body = StoredLine),
        (status = 201, description = "It is stored", body = StoredLine),
        Always, Stored
    )
)]
pub(super) async fn put(
    State(site): State<Site>,
    Path(key): Path<String>,
    _: Nothing,
    request: Request,
) -> Result<(StatusCode, Json<StoredLine>), Refusal> {
    let key = integrity(&key)?;
    if request.headers().contains_key(CONTENT_RANGE) {
        return Err(Refusal::bad_request("no_parts", "a blob is stored as a whole, without 'Content-Range'"));
    }
    let (to, from) = mpsc::channel(PIECES);
    let (sent, stored) = tokio::join!(send(request.into_body(), to), site.office.put_blob(key, from));
    sent?;
    let stored = stored?;
    let status = if stored.outcome == StoredOutcome::Stored { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(stored)))
}

/// Passes the body on until it ends, or nobody wants more of it.
async fn send(mut body: Body, to: mpsc::Sender<Piece>) -> Result<(), Refusal> {
    loop {
        let Ok(frame) = tokio::time::timeout(SILENCE, body.frame()).await else {
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come in time"));
        };
        let piece = match frame {
            None => Piece::End,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Piece::Bytes(bytes),
                Err(_) => continue,
            },
            Some(Err(_)) => {
                return Err(Refusal::bad_request("broken_body", "the body ended before it was whole"));
            }
        };
        let last = piece == Piece::End;
        // Whoever takes it has failed, and says why.
        if to.send(piece).await.is_err() || last {
            return Ok(());
        }
    }
}

/// Remove a blob.
#[utoipa::path(
    delete, path = "/blobs/{key}", operation_id = "removeBlob", tag = "blobs",
    params(("key" = inline(Integrity), Path, description = "Its key, percent-encoded")),
    responses((status = 200, body = RemovedLine), Always, ByName)
)]
pub(super) async fn remove(
    State(site): State<Site>,
    Path(key): Path<String>,
    _: Nothing,
) -> Result<Json<RemovedLine>, Refusal> {
    Ok(Json(site.office.remove_blob(integrity(&key)?).await?))
}

fn integrity(key: &str) -> Result<Integrity, Refusal> {
    key.parse().map_err(|bad| Refusal::bad_request("invalid_key", format!("the key: {bad}, percent-encoded")))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn tag(blob: &BlobLine) -> String {
    format!("\"{}\"", blob.sha256)
}

fn described(blob: &BlobLine) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, blob.size.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, value(&tag(blob)));
    // A browser that is led here must not take it for a page.
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("content-disposition", HeaderValue::from_static("attachment"));
    headers
}

/// The one range that is asked for. What asks for several, or for another version, is given everything (RFC 9110, 14.2).
fn wanted(headers: &HeaderMap, blob: &BlobLine) -> Result<Option<Range<u64>>, Refusal> {
    if headers.get(IF_RANGE).is_some_and(|given| given.as_bytes() != tag(blob).as_bytes()) {
        return Ok(None);
    }
    let Some(range) = headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(parse) else { return Ok(None) };
    let size = blob.size;
    let range = match range {
        Span::From(start, end) => start..end.map_or(size, |end| end.saturating_add(1).min(size)),
        Span::Last(count) => size.saturating_sub(count)..size,
    };
    if range.is_empty() {
        let what = format!("it has {size} bytes, and none of those");
        let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", what);
        return Err(refusal.header(CONTENT_RANGE, format!("bytes */{size}")));
    }
    Ok(Some(range))
}

/// One range as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    From(u64, Option<u64>),
    Last(u64),
}

fn parse(text: &str) -> Option<Span> {
    let (unit, range) = text.split_once('=')?;
    let (start, end) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return None;
    }
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (start.trim(), end.trim()) {
        ("", end) => number(end).map(Span::Last),
        (start, "") => Some(Span::From(number(start)?, None)),
        (start, end) => {
            let (start, end) = (number(start)?, number(end)?);
            (start <= end).then_some(Span::From(start, Some(end)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        let cases = [
            ("bytes=0-0", Some(Span::From(0, Some(0)))),
            ("Bytes = 5-", Some(Span::From(5, None))),
            ("bytes=-7", Some(Span::Last(7))),
            ("bytes=7-5", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("lines=0-1", None),
            ("bytes", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }
}
