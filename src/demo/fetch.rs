//! Requests that the modules send themselves: for the hub's keys, and to the webhooks of triggers. Plain HTTP only.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Longer answers are refused.
const LONGEST: usize = 4 << 20;

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// A client that keeps a few connections.
#[derive(Clone, Debug)]
pub(super) struct Fetch(Client<HttpConnector, Full<Bytes>>);

impl Fetch {
    pub(super) fn new() -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(2).pool_idle_timeout(Duration::from_secs(5));
        Self(builder.build_http())
    }

    pub(super) async fn get(&self, url: &str, patience: Duration) -> Result<Answer, String> {
        let request = Request::get(target(url)?).body(Full::default());
        self.send(request.map_err(|error| error.to_string())?, patience).await
    }

    pub(super) async fn post(
        &self,
        url: &str,
        bearer: Option<&str>,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Answer, String> {
        let mut request = Request::post(target(url)?).header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {bearer}")).map_err(|_| "the bearer is no header")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        self.send(request, patience).await
    }

    async fn send(&self, request: Request<Full<Bytes>>, patience: Duration) -> Result<Answer, String> {
        let exchange = async {
            let answer = self.0.request(request).await.map_err(|error| match error.is_connect() {
                true => "nobody takes connections there".to_owned(),
                false => format!("the connection broke: {error}"),
            })?;
            let (head, body) = answer.into_parts();
            let body =
                Limited::new(body, LONGEST).collect().await.map_err(|error| format!("no whole answer: {error}"))?;
            Ok(Answer { status: head.status.as_u16(), body: body.to_bytes() })
        };
        let late = |_| Err(format!("no answer within {} ms", patience.as_millis()));
        tokio::time::timeout(patience, exchange).await.unwrap_or_else(late)
    }
}

fn target(url: &str) -> Result<Uri, String> {
    let url: Uri = url.parse().map_err(|error| format!("no address: {error}"))?;
    match url.scheme_str() {
        Some("http") => Ok(url),
        other => Err(format!("a demo module speaks http only, not {}", other.unwrap_or("nothing"))),
    }
}
