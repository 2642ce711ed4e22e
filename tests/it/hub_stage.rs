//! A stage with a hub on a free port, and a client for it.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::stage::{Stage, free_port};

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// What the hub answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends one request on a fresh connection.
///
/// # Errors
/// When no whole answer came within ten seconds.
pub fn send(port: u16, request: Request<Full<Bytes>>) -> Result<Reply, String> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://127.0.0.1:{port}{path}").parse().expect("an address");
    RUNTIME.block_on(async move {
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let answer = async {
            let (head, body) = client.request(Request::from_parts(parts, body)).await?.into_parts();
            let body = body.collect().await.map_err(Box::<dyn std::error::Error + Send + Sync>::from)?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Reply {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            })
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
    })
}

/// One GET.
///
/// # Errors
/// As [`send`].
pub fn get(port: u16, path: &str) -> Result<Reply, String> {
    send(port, Request::get(path).body(Full::default()).expect("a request"))
}

/// One POST of JSON.
///
/// # Errors
/// As [`send`].
pub fn post(port: u16, path: &str, token: &str, body: &Value) -> Result<Reply, String> {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()));
    send(port, request.expect("a request"))
}

/// The Hub's document.
pub fn hub_at(port: u16) -> String {
    format!("apiVersion: trueup/v1\nkind: Hub\nmetadata: {{ name: home }}\nspec: {{ listen: \"127.0.0.1:{port}\" }}\n")
}

/// A stage whose hub listens on a free port.
pub fn staged() -> (Stage, u16) {
    let stage = Stage::new();
    let port = free_port();
    stage.write("hub.yaml", &hub_at(port));
    (stage, port)
}

/// A condition of the Hub.
pub fn hub_condition(stage: &Stage, kind: &str) -> Option<Value> {
    let answer = stage.run(&["get", "Hub/home", "-o", "json"]).code(0);
    let row = answer.typed("resource").pop()?;
    row["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
}

/// Whether nothing but these stands in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
