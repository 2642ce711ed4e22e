//! Whether our address leads to us: another process may answer there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use super::site::Site;
use super::state::State;
use crate::model::time::Timestamp;
use crate::ports::hub::Standing;

/// Between two probes.
const EVERY: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: usize = 16 << 10;

/// What it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfProbe {
    pub status: ProbeStatus,
    pub checked_at: Timestamp,
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeStatus {
    Ok,
    /// Somebody else answered.
    Hijacked,
    /// Nobody did.
    Unreachable,
}

/// Asks whenever the hub listens somewhere new, and then now and again. Never ends. An address with TLS is not asked: the certificate
/// says already whose it is.
pub(super) async fn watch(state: Arc<State>, site: Site, bell: Arc<dyn Fn() + Send + Sync>) {
    loop {
        let address = match state.standing() {
            Standing::Serving(address) if site.wish().tls.is_none() => Some(address),
            _ => None,
        };
        let found = match address {
            Some(address) => Some(probe(address, &site.instance, site.clock.wall()).await),
            None => None,
        };
        let status = |probe: &Option<SelfProbe>| probe.as_ref().map(|probe| probe.status);
        let news = status(&found) != status(&state.self_probe());
        state.probed(found);
        if news {
            bell();
        }
        // Both arms are cancel-safe.
        tokio::select! {
            () = state.moved() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Asks for `/health` at the address that we listen on.
async fn probe(address: SocketAddr, instance: &str, now: Timestamp) -> SelfProbe {
    let answer = tokio::time::timeout(PATIENCE, ask(reachable(address))).await;
    let (status, observed_instance, detail) = match answer {
        Err(_) => (ProbeStatus::Unreachable, None, Some(format!("no answer within {}s", PATIENCE.as_secs()))),
        Ok(Err(error)) => (ProbeStatus::Unreachable, None, Some(error)),
        Ok(Ok(seen)) if seen.as_deref() == Some(instance) => (ProbeStatus::Ok, seen, None),
        Ok(Ok(seen)) => (ProbeStatus::Hijacked, seen, Some(format!("another process answers on {address}"))),
    };
    SelfProbe { status, checked_at: now, observed_instance, detail }
}

/// Who listens everywhere is asked at loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The instance that the answer names.
async fn ask(address: SocketAddr) -> Result<Option<String>, String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let request = Request::get(format!("http://{address}/health")).body(Empty::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| error.to_string())?;
    let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?;
    let body: Option<serde_json::Value> = serde_json::from_slice(&body.to_bytes()).ok();
    Ok(body.and_then(|body| Some(body.get("instance")?.as_str()?.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_at_loopback() {
        let asked = |address: &str| reachable(address.parse().expect("an address")).to_string();
        assert_eq!(asked("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(asked("[::]:80"), "[::1]:80");
        assert_eq!(asked("192.0.2.7:80"), "192.0.2.7:80");
    }
}
