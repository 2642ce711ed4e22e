//! What the hub answers in the place of a module: JSON for programs, a page for people.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use hyper::header::{WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::ResponseBody;
use super::table::Target;

/// Clients that know the older hub try again after so long, and so often.
const RETRY_AFTER_MS: u64 = 2_000;
const ATTEMPTS: u64 = 5;
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'";

/// An answer of the hub's own.
pub struct Problem {
    pub status: StatusCode,
    pub error: &'static str,
    pub description: String,
    /// Fields beside these two.
    pub more: Box<Map<String, Value>>,
    /// It will be over soon: the page loads itself again.
    pub passing: bool,
    /// The lines of the page below its first sentence.
    pub lines: Vec<String>,
}

impl Problem {
    pub fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        let description = description.into();
        Self { status, error, description, more: Box::default(), passing: false, lines: Vec::new() }
    }

    /// The same for whoever may not know that there is something.
    pub fn nothing_here() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    /// A module that should answer soon.
    pub fn starting(target: &Target, why: &str) -> Self {
        let description = format!("{} is not ready to answer: {why}", target.service);
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_starting", description);
        problem.passing = true;
        problem.more.insert("retry_after_ms".to_owned(), json!(RETRY_AFTER_MS));
        problem.more.insert("max_attempts".to_owned(), json!(ATTEMPTS));
        problem.of(target)
    }

    /// A module that does not answer until something changes.
    pub fn unreachable(target: &Target, why: &str) -> Self {
        let description = format!("{} does not answer: {why}", target.service);
        let mut problem = Self::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", description);
        problem.more.insert("admin_url".to_owned(), json!("/admin/modules"));
        problem.of(target)
    }

    /// A module that took too long.
    pub fn late(target: &Target, why: &str) -> Self {
        let description = format!("{} did not answer in time: {why}", target.service);
        Self::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", description).of(target)
    }

    /// Says which service it is, how it stands, and what tells more.
    fn of(mut self, target: &Target) -> Self {
        let upstream = &target.upstream;
        let commands =
            [format!("trueup describe Service/{}", target.service), format!("trueup logs {}", target.service)];
        self.lines.push(format!("Its condition: {}, {}", upstream.reason, upstream.message));
        self.lines.extend(upstream.last_exit.iter().map(|exit| format!("Its last end: {exit}")));
        self.lines.push(format!("More on this machine: {}", commands.join("; ")));
        let own = [
            ("error_type", json!(self.error)),
            ("service", json!(target.service.as_str())),
            ("reason", json!(upstream.reason)),
            ("message", json!(upstream.message)),
            ("commands", json!(commands)),
        ];
        self.more.extend(own.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// What somebody elsewhere may know: which service it is, and whether it comes back. Why is for whoever is on the machine.
    pub fn for_strangers(mut self) -> Self {
        if self.more.contains_key("service") {
            self.description.truncate(self.description.find(": ").unwrap_or(self.description.len()));
            self.lines.clear();
            for name in ["reason", "message", "commands", "admin_url"] {
                self.more.remove(name);
            }
        }
        self
    }

    /// As JSON, or as a page for whoever would rather have one.
    pub fn answer(self, page: bool) -> Response<ResponseBody> {
        let (kind, text) = match page {
            true => ("text/html; charset=utf-8", self.page()),
            false => ("application/json", self.json()),
        };
        let mut response = Response::new(ResponseBody::Text(Full::new(Bytes::from(text))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if page {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        }
        if self.passing {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_MS / 1_000));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let code = if self.error == "invalid_token" { ", error=\"invalid_token\"" } else { "" };
            let challenge = HeaderValue::try_from(format!("Bearer realm=\"trueup\"{code}"));
            headers.insert(WWW_AUTHENTICATE, challenge.unwrap_or(HeaderValue::from_static("Bearer")));
        }
        response
    }

    fn json(&self) -> String {
        let mut body = Map::new();
        body.insert("error".to_owned(), json!(self.error));
        if let Some(kind) = self.more.get("error_type") {
            body.insert("error_type".to_owned(), kind.clone());
        }
        body.insert("error_description".to_owned(), json!(self.description));
        body.extend(self.more.iter().filter(|(name, _)| *name != "error_type").map(|(n, v)| (n.clone(), v.clone())));
        Value::Object(body).to_string()
    }

    fn page(&self) -> String {
        let again = format!("<meta http-equiv=\"refresh\" content=\"{}\">", RETRY_AFTER_MS / 1_000);
        let again = if self.passing { again.as_str() } else { "" };
        let title = format!("{} {}", self.status.as_u16(), self.status.canonical_reason().unwrap_or_default());
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{again}<title>{title}</title>\
             <style>body{{font:16px/1.5 system-ui,sans-serif;margin:10vh auto;max-width:40em;padding:0 1em}}</style></head>\
             <body><h1>{title}</h1><p>{}</p>",
            escape(&self.description)
        );
        for line in &self.lines {
            let _ = write!(page, "<p>{}</p>", escape(line));
        }
        if self.passing {
            page.push_str("<p>This page loads itself again.</p>");
        }
        page.push_str("</body></html>\n");
        page
    }
}

/// Whether the client would rather have a page.
pub fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/html"));
    headers.get_all(ACCEPT).iter().any(accepts)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
