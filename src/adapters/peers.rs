//! Calls to modules on this machine: a fresh connection each, no redirects, bounded answers. What matters is whether a request may have
//! arrived.

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;

use super::web::connect;
use crate::ports::peers::{Call, MOST_ANSWER_BYTES, Peers, Reply};
use crate::ports::{Answer, PortError};

/// Whoever listens on ports of this machine.
pub struct LocalPeers;

impl Peers for LocalPeers {
    fn call(&self, call: Call) -> Answer<'_, Result<Reply, PortError>> {
        Box::pin(async move {
            let request = request(&call)?;
            let limit = call.timeout.into();
            match tokio::time::timeout(limit, exchange(call.port, request)).await {
                Ok(answer) => answer,
                // It may be that only the answer is late.
                Err(_) => Err(PortError::Unsure(format!("it did not answer within {}", call.timeout))),
            }
        })
    }
}

fn request(call: &Call) -> Result<Request<Full<Bytes>>, PortError> {
    let never =
        |what: &str| PortError::Never(format!("{} {} cannot be asked: {what}", call.method.as_str(), call.path));
    let body = call.body.as_ref().map(|body| Bytes::copy_from_slice(body.reveal().as_bytes())).unwrap_or_default();
    let mut request = Request::builder()
        .method(call.method.as_str())
        .uri(&call.path)
        .header(HOST, format!("127.0.0.1:{}", call.port))
        .header(USER_AGENT, concat!("trueup/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        // Nobody waits for a second request: the server may let go of the connection at once.
        .header(CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| never(&error.to_string()))?;
    if call.body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(bearer) = &call.bearer {
        let mut value = HeaderValue::try_from(format!("Bearer {}", bearer.reveal())).map_err(|_| never("its token"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

async fn exchange(port: u16, request: Request<Full<Bytes>>) -> Result<Reply, PortError> {
    let stream = connect(port).await.map_err(|fault| PortError::Retry(fault.to_string()))?;
    let broken = |error: hyper::Error| PortError::Unsure(format!("the connection broke: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let mut response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(frame) = response.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if body.len() + data.len() > MOST_ANSWER_BYTES {
                return Err(PortError::Unsure(format!("it answered more than {} MiB", MOST_ANSWER_BYTES >> 20)));
            }
            body.extend_from_slice(&data);
        }
        Ok(Reply { status, body })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        // The exchange first: an answer that is complete counts, whatever the connection says then. Neither side is polled again after
        // this, so nothing is lost by dropping the other.
        biased;
        answer = &mut exchange => answer,
        // What broke it is told there.
        _ = &mut connection => exchange.await,
    }
}
