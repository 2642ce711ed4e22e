//! Reading requests strictly: what is not known is refused with the nearest name, so that a misspelt word is never silently ignored.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::ParameterIn;

use crate::hub::refusal::Refusal;
use crate::model::wording::nearest;

/// A request in JSON is small.
pub const BODY_LIMIT: usize = 64 * 1024;
/// A client has so long to send it.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// The parameters of a request, all of them known and each given once.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + IntoParams> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let unreadable = |why: String| Refusal::bad_request("invalid_parameter", format!("the query: {why}"));
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = pairs.map_err(|error| unreadable(error.body_text()))?;
        let known: Vec<String> =
            T::into_params(|| Some(ParameterIn::Query)).into_iter().map(|parameter| parameter.name).collect();
        check(pairs.iter().map(|(name, _)| name.as_str()), &known)?;
        let Query(asked) = Query::<T>::try_from_uri(&parts.uri).map_err(|error| unreadable(error.body_text()))?;
        Ok(Self(asked))
    }
}

/// No parameters at all.
pub struct Nothing;

impl<S: Send + Sync> FromRequestParts<S> for Nothing {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let unreadable = |why: String| Refusal::bad_request("invalid_parameter", format!("the query: {why}"));
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = pairs.map_err(|error| unreadable(error.body_text()))?;
        check(pairs.iter().map(|(name, _)| name.as_str()), &[])?;
        Ok(Self)
    }
}

fn check<'a>(names: impl Iterator<Item = &'a str>, known: &[String]) -> Result<(), Refusal> {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !known.iter().any(|one| one == name) {
            let shown: String = name.chars().take(64).collect();
            let hint = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean '{near}'?"),
                None if known.is_empty() => "there are none here".to_owned(),
                None => format!("there are {}", known.join(", ")),
            };
            return Err(Refusal::bad_request("unknown_parameter", format!("'{shown}' is no parameter; {hint}")));
        }
        if seen.contains(&name) {
            return Err(Refusal::bad_request("invalid_parameter", format!("'{name}' is given twice")));
        }
        seen.push(name);
    }
    Ok(())
}

/// The body of a request in JSON. No body is an empty object.
pub struct Told<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Told<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let headers = request.headers().clone();
        let bytes = body(request, BODY_LIMIT).await?;
        if bytes.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            return read(b"{}").map(Self);
        }
        is_json(&headers)?;
        read(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Refusal::new(status, "unsupported_media_type", "the body must come with 'Content-Type: application/json'"))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Refusal::unprocessable("invalid_body", format!("the body: {error}")),
        _ => Refusal::bad_request("invalid_json", format!("the body is not JSON: {error}")),
    })
}

/// The whole body, if it is small and comes soon.
pub async fn body(request: Request, limit: usize) -> Result<Bytes, Refusal> {
    within(request, limit, BODY_TIME).await
}

async fn within(request: Request, limit: usize, time: std::time::Duration) -> Result<Bytes, Refusal> {
    let too_large = || {
        let what = format!("the body is larger than {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", what)
    };
    if HttpBody::size_hint(request.body()).lower() > limit as u64 {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(time, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::bad_request("broken_body", "the body ended before it was whole")),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come in time")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use axum::body::Body;
    use axum::response::IntoResponse;
    use futures_util::{StreamExt, stream};

    use super::*;

    #[test]
    fn a_body_that_does_not_come_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
        let request = Request::new(Body::from_stream(first.chain(stream::pending())));
        let read = runtime.block_on(within(request, BODY_LIMIT, Duration::from_millis(20)));
        assert_eq!(read.expect_err("too slow").into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
