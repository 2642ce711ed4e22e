//! From where a request comes, as far as that can be known: unknown is the public. Pure.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");
const CF_CLIENT: HeaderName = HeaderName::from_static("cf-connecting-ip");
const FUNNEL: HeaderName = HeaderName::from_static("tailscale-funnel-request");
const TAILNET_USER: HeaderName = HeaderName::from_static("tailscale-user-login");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

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

/// The layer, by the headers as they came in. Whatever a client writes into them can only take trust away from it: a tailnet user is
/// believed only when it is this machine that says so.
pub fn layer(peer: IpAddr, headers: &HeaderMap) -> Layer {
    if !peer.to_canonical().is_loopback() {
        return Layer::Public;
    }
    let funnel = headers.get_all(FUNNEL).iter().any(|value| value.as_bytes() == b"?1");
    if headers.contains_key(CF_RAY) || headers.contains_key(CF_CLIENT) || funnel {
        return Layer::Public;
    }
    if headers.contains_key(TAILNET_USER) {
        return Layer::Tailnet;
    }
    let forwarded = [FORWARDED_FOR, FORWARDED_HOST, FORWARDED].iter().any(|name| headers.contains_key(name));
    if forwarded { Layer::Public } else { Layer::Loopback }
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
            (&[("host", "hub.example.org")], Layer::Loopback),
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
                assert_eq!(layer(peer.parse().expect("an address"), &headers), *wanted, "{peer} {pairs:?}");
            }
            for peer in far {
                assert_eq!(layer(peer.parse().expect("an address"), &headers), Layer::Public, "{peer} {pairs:?}");
            }
        }
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
