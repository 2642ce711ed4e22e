//! Every "no" of the hub, in one form: a status, and `{"error": code, "error_description": sentence}`.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::office::Trouble;
use crate::model::output::ErrorLine;

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// A word for programs.
    #[schema(examples("not_found"))]
    pub error: String,
    /// What is wrong, where, and what to do, for people.
    #[schema(examples("there is no resource Service/vualt; did you mean Service/vault?"))]
    pub error_description: String,
}

/// A "no".
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub description: String,
    /// In seconds.
    retry_after: Option<u32>,
    /// What follows `Bearer` in `WWW-Authenticate`.
    challenge: Option<Box<str>>,
    header: Option<Box<(HeaderName, String)>>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, description: impl Into<String>) -> Self {
        Self { status, code, description: description.into(), retry_after: None, challenge: None, header: None }
    }

    pub fn not_found(description: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", description)
    }

    pub fn bad_request(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, description)
    }

    pub fn unprocessable(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, description)
    }

    /// Too much at once.
    pub fn busy(seconds: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too much is asked at once; try again in a moment")
            .after(seconds)
    }

    /// May be tried again after so many seconds.
    #[must_use]
    pub fn after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Asks for a (better) token. Never with a part of one.
    #[must_use]
    pub fn challenge(mut self, parameters: String) -> Self {
        self.challenge = Some(parameters.into());
        self
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: String) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }
}

/// A sentence with its hint.
pub fn sentence(line: &ErrorLine) -> String {
    let causes: String = line.causes.iter().map(|cause| format!(": {cause}")).collect();
    let hint = line.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{}{causes}{hint}", line.message)
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Busy(seconds) => Self::busy(seconds),
            Trouble::Ending => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ending", "the daemon is about to end").after(5)
            }
            Trouble::Missing(what) => Self::not_found(what),
            Trouble::Conflict(code, why) => Self::new(StatusCode::CONFLICT, code, why),
            Trouble::Unreadable(why) => Self::bad_request("broken_body", why),
            Trouble::Failed(line) => {
                let (status, code) = match line.code.as_str() {
                    "invalid" => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
                    "usage" => (StatusCode::UNPROCESSABLE_ENTITY, "usage"),
                    "refused" => (StatusCode::CONFLICT, "refused"),
                    "locked" => (StatusCode::SERVICE_UNAVAILABLE, "locked"),
                    "timedOut" => (StatusCode::SERVICE_UNAVAILABLE, "timed_out"),
                    _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
                };
                let refusal = Self::new(status, code, sentence(&line));
                if status == StatusCode::SERVICE_UNAVAILABLE { refusal.after(1) } else { refusal }
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: self.code.to_owned(), error_description: self.description };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(parameters) = self.challenge {
            let text = if parameters.is_empty() { "Bearer".to_owned() } else { format!("Bearer {parameters}") };
            let value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
            headers.insert(WWW_AUTHENTICATE, value);
        }
        if let Some(header) = self.header
            && let Ok(value) = HeaderValue::from_str(&header.1)
        {
            headers.insert(header.0, value);
        }
        response
    }
}
