//! What is changed about the heads of requests and answers on their way through. Pure.

use std::net::IpAddr;

use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};

use super::trust::Layer;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const LAYER: HeaderName = HeaderName::from_static("x-parachute-layer");
const CLIENT_IP: HeaderName = HeaderName::from_static("x-parachute-client-ip");

/// Names under which modules learn what the hub knows.
const OURS: [&str; 8] = [
    "x-parachute-layer",
    "x-parachute-client-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-request-id",
    "tailscale-user-login",
];

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// What an HTML page of a module may do unless it says otherwise itself.
const POLICY: HeaderValue = HeaderValue::from_static("frame-ancestors 'self'; object-src 'none'; base-uri 'self'");

/// They concern one connection and not the message.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What the request says about itself beside its headers.
pub struct Origin<'a> {
    /// The host that was asked for, with its port.
    pub host: Option<HeaderValue>,
    pub secure: bool,
    pub layer: Layer,
    pub client: IpAddr,
    /// Who is connected.
    pub peer: IpAddr,
    /// The part of the path that the module does not see.
    pub prefix: Option<&'a str>,
}

/// Takes away what concerns one connection only, and what `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(connection) = headers.get(CONNECTION) {
        // Nearly always one of two words, which name no header.
        let usual = connection.as_bytes().eq_ignore_ascii_case(b"keep-alive") || connection == "close";
        if !usual || headers.get_all(CONNECTION).iter().nth(1).is_some() {
            let named: Vec<HeaderName> = headers
                .get_all(CONNECTION)
                .iter()
                .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
                .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
                // Nobody gets rid of the frame of a message in this way.
                .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
                .collect();
            for name in named {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Takes away what a client says of itself and nobody here vouches for: what only a proxy or a tunnel of this machine may say of those it
/// speaks for, and names that a module could take for ours (CGI makes the same variable of `X_Parachute_Layer` and `X-Parachute-Layer`).
fn strip_claims(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let local = origin.peer.to_canonical().is_loopback();
    let public = origin.layer == Layer::Public;
    let claims = |name: &HeaderName| {
        let name = name.as_str();
        let told = || {
            ["x-forwarded-", "tailscale-", "cf-"].iter().any(|start| name.starts_with(start))
                || matches!(name, "forwarded" | "x-real-ip")
        };
        (name.contains('_') && OURS.contains(&name.replace('_', "-").as_str()))
            || (!local && told())
            || (public && name.starts_with("tailscale-user-"))
    };
    if headers.keys().any(claims) {
        let named: Vec<HeaderName> = headers.keys().filter(|name| claims(name)).cloned().collect();
        for name in named {
            headers.remove(name);
        }
    }
}

/// Makes the head of a request ready for a module. The length of the body is not its business: whoever sends it knows it.
pub fn for_module(headers: &mut HeaderMap, origin: Origin<'_>) {
    strip_hop_by_hop(headers);
    headers.remove(CONTENT_LENGTH);
    // It was answered, or will be, when the body is asked for.
    headers.remove(EXPECT);
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    strip_claims(headers, &origin);
    if let Some(host) = origin.host
        && !headers.contains_key(FORWARDED_HOST)
    {
        headers.insert(FORWARDED_HOST, host);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, if origin.secure { HTTPS } else { HTTP });
    }
    // Whoever is connected is added to those who handed it on; what they say is theirs.
    let mut hops: Vec<String> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|hop| Some(hop.to_str().ok()?.to_owned())).collect();
    if hops.is_empty() {
        headers.insert(FORWARDED_FOR, address(origin.peer));
    } else {
        hops.push(origin.peer.to_string());
        headers.insert(FORWARDED_FOR, HeaderValue::try_from(hops.join(", ")).unwrap_or(address(origin.peer)));
    }
    match origin.prefix.map(HeaderValue::try_from) {
        Some(Ok(prefix)) => drop(headers.insert(FORWARDED_PREFIX, prefix)),
        _ => drop(headers.remove(FORWARDED_PREFIX)),
    }
    // Inserting replaces whatever a client wrote there.
    headers.insert(LAYER, origin.layer.value());
    headers.insert(CLIENT_IP, address(origin.client));
}

fn address(client: IpAddr) -> HeaderValue {
    match client {
        IpAddr::V4(address) if address.octets() == [127, 0, 0, 1] => HeaderValue::from_static("127.0.0.1"),
        other => HeaderValue::try_from(other.to_string()).unwrap_or(HeaderValue::from_static("unknown")),
    }
}

/// Makes the head of an answer ready for the client.
pub fn for_client(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // The one contradicts the other; the coding is what was read.
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    let html = |value: &HeaderValue| {
        value.as_bytes().get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
            || value.as_bytes().get(..21).is_some_and(|start| start.eq_ignore_ascii_case(b"application/xhtml+xml"))
    };
    if headers.get(CONTENT_TYPE).is_some_and(html) {
        headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(NOSNIFF);
        headers.entry(CONTENT_SECURITY_POLICY).or_insert(POLICY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::try_from(*name).expect("a name");
            headers.append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-more , content-length, host"),
            ("x-secret", "1"),
            ("x-more", "1"),
            ("x-kept", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("host", "h"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(lines(&headers), ["content-length: 3", "host: h", "x-kept: 1"]);
    }

    #[test]
    fn a_module_learns_what_we_know_and_not_what_a_client_claims() {
        let host = HeaderValue::from_static("hub.example.org");
        let origin = || Origin {
            host: Some(host.clone()),
            secure: true,
            layer: Layer::Public,
            client: "192.0.2.1".parse().expect("an address"),
            peer: "127.0.0.1".parse().expect("an address"),
            prefix: Some("/notes"),
        };
        let mut headers = map(&[
            ("accept-encoding", "gzip, br"),
            ("x-parachute-layer", "loopback"),
            ("x-parachute-layer", "tailnet"),
            ("x-parachute-client-ip", "127.0.0.1"),
            ("authorization", "Bearer x"),
            ("connection", "x-parachute-layer"),
            ("expect", "100-continue"),
        ]);
        for_module(&mut headers, origin());
        let wanted = [
            "accept-encoding: identity",
            "authorization: Bearer x",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: hub.example.org",
            "x-forwarded-prefix: /notes",
            "x-forwarded-proto: https",
            "x-parachute-client-ip: 192.0.2.1",
            "x-parachute-layer: public",
        ];
        assert_eq!(lines(&headers), wanted);
        let mut headers =
            map(&[("x-forwarded-host", "a"), ("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")]);
        headers.append(FORWARDED_PREFIX, HeaderValue::from_static("/forged"));
        for_module(&mut headers, Origin { secure: false, prefix: None, ..origin() });
        assert_eq!(headers[FORWARDED_FOR], "192.0.2.1, 127.0.0.1");
        assert!(!headers.contains_key(FORWARDED_PREFIX));
        assert_eq!(headers[FORWARDED_HOST], "a");
        assert_eq!(headers[FORWARDED_PROTO], "https");
    }

    #[test]
    fn a_stranger_claims_nothing() {
        let claims = [
            ("tailscale-user-login", "admin@corp"),
            ("cf-connecting-ip", "127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x_parachute_layer", "loopback"),
            ("x-other", "kept"),
        ];
        let stranger = Origin {
            host: None,
            secure: false,
            layer: Layer::Public,
            client: "192.0.2.9".parse().expect("an address"),
            peer: "192.0.2.9".parse().expect("an address"),
            prefix: None,
        };
        let mut headers = map(&claims);
        for_module(&mut headers, stranger);
        let wanted = [
            "accept-encoding: identity",
            "x-forwarded-for: 192.0.2.9",
            "x-forwarded-proto: http",
            "x-other: kept",
            "x-parachute-client-ip: 192.0.2.9",
            "x-parachute-layer: public",
        ];
        assert_eq!(lines(&headers), wanted);
    }

    #[test]
    fn pages_are_guarded_unless_the_module_guards_them_itself() {
        let mut plain = map(&[("content-type", "application/json")]);
        for_client(&mut plain);
        assert_eq!(lines(&plain), ["content-type: application/json"]);
        let mut page = map(&[("content-type", "Text/HTML; charset=utf-8"), ("connection", "close")]);
        for_client(&mut page);
        assert_eq!(page[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(page[CONTENT_SECURITY_POLICY], POLICY);
        let own = [("content-type", "text/html"), ("content-security-policy", "default-src 'none'")];
        let mut page = map(&own);
        for_client(&mut page);
        assert_eq!(page[CONTENT_SECURITY_POLICY], "default-src 'none'");
        let mut both = map(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        for_client(&mut both);
        assert!(both.is_empty());
    }
}
