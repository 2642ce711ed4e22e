//! From where a request comes, as far as that can be known: unknown is the public. Pure.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

const CF_CLIENT: HeaderName = HeaderName::from_static("cf-connecting-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How near a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A program of this machine that speaks for itself.
    Loopback,
    /// A person of the tailnet, as the tailscale daemon of this machine says.
    Tailnet,
    Public,
}

impl Layer {
    pub fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Loopback => "loopback",
            Self::Tailnet => "tailnet",
            Self::Public => "public",
        })
    }
}

/// The layer, by the head as it came in. Whatever a client writes into it can only take trust away from it: a tailnet user is believed
/// only when it is this machine that says so. Loopback is a program of this machine that speaks for itself: not a proxy, whatever it says
/// of those it speaks for, and not a browser on behalf of somebody else's page, which names that page (`Origin`, `Sec-Fetch-Site`) or, with
/// a name that was pointed here, a host that is not this machine. Unknown is public.
pub fn layer(peer: IpAddr, authority: Option<&str>, headers: &HeaderMap) -> Layer {
    if !peer.to_canonical().is_loopback() {
        return Layer::Public;
    }
    let (mut handed_on, mut tailnet, mut foreign) = (false, false, false);
    for (name, value) in headers {
        match name.as_str() {
            "cf-ray" | "cf-connecting-ip" => return Layer::Public,
            "tailscale-funnel-request" if value.as_bytes() == b"?1" => return Layer::Public,
            "tailscale-user-login" => tailnet = true,
            "forwarded" | "via" | "x-real-ip" => handed_on = true,
            "host" | "origin" => foreign |= !value.to_str().is_ok_and(is_this_machine),
            "sec-fetch-site" => foreign |= value.as_bytes() == b"cross-site",
            other => handed_on |= other.starts_with("x-forwarded-"),
        }
    }
    match () {
        () if tailnet => Layer::Tailnet,
        () if handed_on || foreign || authority.is_some_and(|authority| !is_this_machine(authority)) => Layer::Public,
        () => Layer::Loopback,
    }
}

/// Whether a host, or the origin of a page, is this machine by a name that nobody can point elsewhere.
fn is_this_machine(text: &str) -> bool {
    let host = text.split_once("://").map_or(text, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let local =
        |name: &str| name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    host.is_empty() || local(host) || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The address of the client: Cloudflare's word, then the first of `X-Forwarded-For`, then who is connected. The headers count only when a
/// program of this machine (a proxy, a tunnel) hands them on; what is no address does not count.
pub fn client(peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
    let peer = peer.ip().to_canonical();
    if !peer.is_loopback() || headers.is_empty() {
        return peer;
    }
    let told = |name: HeaderName| headers.get(name)?.to_str().ok()?.split(',').next()?.trim().parse::<IpAddr>().ok();
    told(CF_CLIENT).or_else(|| told(FORWARDED_FOR)).map_or(peer, |address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"))
        });
        pairs.collect()
    }

    #[test]
    fn trust_is_only_taken_away() {
        let near = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.8.9.1"];
        let far = ["192.0.2.7", "10.0.0.1", "2001:db8::1"];
        let cases: &[(&[(&str, &str)], Layer)] = &[
            (&[], Layer::Loopback),
            (&[("host", "127.0.0.1:1939")], Layer::Loopback),
            (&[("host", "localhost"), ("origin", "http://app.localhost:3000")], Layer::Loopback),
            (&[("host", "[::1]:1939"), ("origin", "http://[::1]:1939")], Layer::Loopback),
            (&[("host", "hub.example.org")], Layer::Public),
            (&[("host", "localhost.example.org")], Layer::Public),
            (&[("host", "127.0.0.1"), ("origin", "https://evil.example")], Layer::Public),
            (&[("host", "127.0.0.1"), ("origin", "null")], Layer::Public),
            (&[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")], Layer::Public),
            (&[("via", "1.1 proxy")], Layer::Public),
            (&[("x-real-ip", "192.0.2.1")], Layer::Public),
            (&[("x-forwarded-proto", "https")], Layer::Public),
            (&[("x-forwarded-for", "127.0.0.1")], Layer::Public),
            (&[("x-forwarded-host", "localhost")], Layer::Public),
            (&[("forwarded", "for=127.0.0.1")], Layer::Public),
            (&[("cf-ray", "1")], Layer::Public),
            (&[("cf-connecting-ip", "127.0.0.1")], Layer::Public),
            (&[("tailscale-user-login", "a@b")], Layer::Tailnet),
            (&[("tailscale-user-login", "a@b"), ("x-forwarded-for", "100.64.0.1")], Layer::Tailnet),
            (&[("tailscale-user-login", "a@b"), ("tailscale-funnel-request", "?1")], Layer::Public),
            (&[("tailscale-user-login", "a@b"), ("cf-ray", "1")], Layer::Public),
            (&[("tailscale-funnel-request", "?0")], Layer::Loopback),
        ];
        for (pairs, wanted) in cases {
            let headers = headers(pairs);
            for peer in near {
                assert_eq!(layer(peer.parse().expect("an address"), None, &headers), *wanted, "{peer} {pairs:?}");
            }
            for peer in far {
                assert_eq!(layer(peer.parse().expect("an address"), None, &headers), Layer::Public, "{peer} {pairs:?}");
            }
        }
    }

    #[test]
    fn a_name_that_was_pointed_here_is_not_this_machine() {
        let near: IpAddr = "127.0.0.1".parse().expect("an address");
        assert_eq!(layer(near, Some("evil.example"), &headers(&[])), Layer::Public);
        assert_eq!(layer(near, Some("127.0.0.1@evil.example"), &headers(&[])), Layer::Public);
        assert_eq!(layer(near, Some("localhost:1939"), &headers(&[])), Layer::Loopback);
    }

    #[test]
    fn a_client_is_who_a_program_of_this_machine_says() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: &[Case<'_>] = &[
            ("127.0.0.1:5", &[], "127.0.0.1"),
            ("127.0.0.1:5", &[("x-forwarded-for", "192.0.2.1, 10.0.0.1")], "192.0.2.1"),
            ("127.0.0.1:5", &[("x-forwarded-for", "192.0.2.1"), ("cf-connecting-ip", "2001:db8::5")], "2001:db8::5"),
            ("127.0.0.1:5", &[("x-forwarded-for", "unknown")], "127.0.0.1"),
            ("192.0.2.9:5", &[("x-forwarded-for", "127.0.0.1")], "192.0.2.9"),
            ("[::ffff:192.0.2.9]:5", &[("cf-connecting-ip", "1.1.1.1")], "192.0.2.9"),
        ];
        for (peer, pairs, wanted) in cases {
            let found = client(peer.parse().expect("an address"), &headers(pairs));
            assert_eq!(found.to_string(), *wanted, "{peer} {pairs:?}");
        }
    }
}
