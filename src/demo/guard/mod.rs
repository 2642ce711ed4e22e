//! How a module checks a bearer of the hub: with the hub's published keys and its list of revoked tokens, and nothing of ours besides.

mod jwt;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::jwt::{Key, Parts};
use super::fetch::Fetch;

pub(super) use self::jwt::Claims;

const DEFAULT_ORIGIN: &str = "http://127.0.0.1:1939";
/// Keys are fetched again when they are older.
const KEYS_LIVE: Duration = Duration::from_secs(300);
/// Unknown key ids do not make it fetch the keys more often than this.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// Between two fetches that a token which does not verify brings about.
const FORCED: Duration = Duration::from_secs(10);
const REVOCATIONS_LIVE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the hub is, and who it may say it is.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct Hub {
    /// The hub's origin: the issuer of the tokens that are believed.
    #[arg(long, env = "PARACHUTE_HUB_ORIGIN", value_name = "URL", default_value = DEFAULT_ORIGIN)]
    hub_origin: String,
    /// Further origins of the hub, with commas between.
    #[arg(long, env = "PARACHUTE_HUB_ORIGINS", value_name = "URLS", default_value = "")]
    hub_origins: String,
    /// Where the hub is reached from this machine: its keys and revocations are fetched there.
    #[arg(long, env = "PARACHUTE_HUB_LOOPBACK", value_name = "URL", default_value = "")]
    hub_loopback: String,
}

/// Why a bearer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Signature,
    Issuer,
    Expired,
    Kid,
    /// The keys cannot be fetched.
    Jwks,
    Audience,
    Shape,
    Revoked,
    /// No list of revocations was ever fetched.
    RevocationUnavailable,
}

/// A refusal, with a sentence that may be told to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refusal {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Checks bearers.
#[derive(Debug)]
pub(super) struct Guard {
    issuers: BTreeSet<String>,
    /// Where keys and revocations are looked for, the best place first.
    places: Vec<String>,
    fetch: Fetch,
    keys: Mutex<Keys>,
    revoked: Mutex<Revoked>,
}

#[derive(Debug, Default)]
struct Keys {
    known: Vec<Key>,
    fetched: Option<Instant>,
    forced: Option<Instant>,
}

#[derive(Debug, Default)]
struct Revoked {
    jtis: BTreeSet<String>,
    fetched: Option<Instant>,
}

impl Guard {
    pub(super) fn new(hub: &Hub) -> Self {
        let origin = if hub.hub_origin.trim().is_empty() { DEFAULT_ORIGIN } else { &hub.hub_origin };
        let origins = std::iter::once(origin).chain(hub.hub_origins.split([',', ' '])).map(tidy);
        let issuers: BTreeSet<String> = origins.filter(|origin| !origin.is_empty()).collect();
        let mut places: Vec<String> = match tidy(&hub.hub_loopback) {
            own if own.is_empty() => issuers.iter().cloned().collect(),
            own => vec![own],
        };
        places.sort_by_key(|place| (!is_loopback(place), *place != tidy(origin)));
        Self { issuers, places, fetch: Fetch::new(), keys: Mutex::default(), revoked: Mutex::default() }
    }

    /// The claims of a bearer for this audience that the hub signed and did not revoke.
    pub(super) async fn check(&self, token: &str, audience: &str) -> Result<Claims, Refusal> {
        let claims = self.open(&Parts::of(token)?).await?;
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0;
        if !self.issuers.contains(&tidy(&claims.issuer)) {
            return Err(Refusal::new(Code::Issuer, "the token is of another issuer"));
        }
        if claims.expires <= now || claims.not_before > now {
            return Err(Refusal::new(Code::Expired, "the token is not valid at this time"));
        }
        if !claims.audiences.iter().any(|one| one == audience) {
            return Err(Refusal::new(Code::Audience, format!("the token is not for the audience '{audience}'")));
        }
        match self.is_revoked(&claims.jti).await {
            Some(false) => Ok(claims),
            Some(true) => Err(Refusal::new(Code::Revoked, "token has been revoked")),
            None => {
                Err(Refusal::new(Code::RevocationUnavailable, "token cannot be validated: revocation list unavailable"))
            }
        }
    }

    /// With the keys at hand; when that fails, once more with fresh ones.
    async fn open(&self, parts: &Parts<'_>) -> Result<Claims, Refusal> {
        let mut keys = self.keys.lock().await;
        let stale = keys.fetched.is_none_or(|at| at.elapsed() >= KEYS_LIVE);
        let first = match stale {
            true => self.fetch_keys(&mut keys).await.and_then(|()| parts.open(&keys.known)),
            false => parts.open(&keys.known),
        };
        let refusal = match first {
            Err(refusal) if matches!(refusal.code, Code::Signature | Code::Kid | Code::Jwks) => refusal,
            other => return other,
        };
        let cool = refusal.code == Code::Kid && keys.fetched.is_some_and(|at| at.elapsed() >= COOL_DOWN);
        if !cool && keys.forced.is_some_and(|at| at.elapsed() < FORCED) {
            return Err(refusal);
        }
        keys.forced = Some(Instant::now());
        self.fetch_keys(&mut keys).await?;
        parts.open(&keys.known)
    }

    async fn fetch_keys(&self, keys: &mut Keys) -> Result<(), Refusal> {
        let mut why = "the hub has no address".to_owned();
        for place in &self.places {
            match self.fetch.get(&format!("{place}/.well-known/jwks.json"), PATIENCE).await {
                Ok(answer) if answer.status == 200 => match jwt::keys(&answer.body) {
                    Some(known) => {
                        (keys.known, keys.fetched) = (known, Some(Instant::now()));
                        return Ok(());
                    }
                    None => why = "what the hub answers is no key set".to_owned(),
                },
                Ok(answer) => why = format!("the hub answers {}", answer.status),
                Err(error) => why = error,
            }
        }
        Err(Refusal::new(Code::Jwks, format!("the hub's keys cannot be fetched: {why}")))
    }

    /// `None` when there is no list and never was.
    async fn is_revoked(&self, jti: &str) -> Option<bool> {
        // One fetch at a time; who comes meanwhile waits for it.
        let mut revoked = self.revoked.lock().await;
        if revoked.fetched.is_none_or(|at| at.elapsed() >= REVOCATIONS_LIVE) {
            for place in &self.places {
                let answer = self.fetch.get(&format!("{place}/.well-known/parachute-revocation.json"), PATIENCE).await;
                let body = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.body);
                if let Some(jtis) = body.as_deref().and_then(revocations) {
                    *revoked = Revoked { jtis, fetched: Some(Instant::now()) };
                    break;
                }
            }
        }
        revoked.fetched.map(|_| revoked.jtis.contains(jti))
    }
}

fn revocations(body: &[u8]) -> Option<BTreeSet<String>> {
    let list: Value = serde_json::from_slice(body).ok()?;
    list.get("jtis")?.as_array()?.iter().map(|jti| jti.as_str().map(str::to_owned)).collect()
}

fn tidy(origin: &str) -> String {
    origin.trim().trim_end_matches('/').to_owned()
}

fn is_loopback(origin: &str) -> bool {
    let rest = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    rest.starts_with("127.") || rest.starts_with("[::1]") || rest.starts_with("localhost")
}
