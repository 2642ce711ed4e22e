//! What a Hub asks for. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::unit::{Millis, Percent};

/// Where a hub listens that says nothing of it.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:1939";
const ORIGIN: &str = "an origin is http:// or https:// and a host, without a path, such as https://hub.example.org";

/// The settings of the tree. Exactly one Hub stands in a tree; it is also the proof that a folder is the tree, so that an
/// empty or wrong folder never looks like "remove everything".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HubSpec {
    /// Address and port of the hub, or `none` when nothing is to be served. Modules learn their hub's origin from it when `origin` is
    /// not given.
    #[schemars(regex(pattern = r"^(none|(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})$"))]
    #[schemars(extend("errorMessage" = "an address is a host and a port, such as 127.0.0.1:1939 or [::1]:1939; or none"))]
    pub listen: String,
    /// Serves https. Both files are read again when they change.
    pub tls: Option<TlsSpec>,
    /// The public origin of the hub (the issuer of tokens), given to modules as `PARACHUTE_HUB_ORIGIN`.
    /// Default: `http://` (with `tls`: `https://`) and `listen`.
    #[schemars(regex(pattern = r"^https?://[^/\s]+$"))]
    #[schemars(extend("errorMessage" = ORIGIN))]
    pub origin: Option<String>,
    /// Further origins under which people reach the hub, given to modules as `PARACHUTE_HUB_ORIGINS`.
    #[schemars(inner(regex(pattern = r"^https?://[^/\s]+$")))]
    #[schemars(extend("errorMessage" = ORIGIN))]
    pub accepted_origins: Vec<String>,
    /// The ports that `port: auto` chooses from.
    pub port_range: PortRange,
    /// The folder in which modules find services.json and each other (`PARACHUTE_HOME`), relative to this file.
    /// Default: `home` in the state folder.
    pub home: Option<String>,
    /// How often everything is looked at even if nothing seems to have happened; 1s or longer.
    #[schemars(extend("pattern" = r"^0*([1-9][0-9]{3,10}ms|[1-9][0-9]{0,10}(s|m|h|d))$"))]
    #[schemars(extend("errorMessage" = "the interval is 1s or longer, written 30s, 10m or 1h"))]
    pub interval: Millis,
    /// When a change concerns many services, at most so many are replaced at a time. The others follow when these are ready, have
    /// failed, or a minute has passed.
    #[schemars(range(min = 1))]
    pub max_unavailable: u32,
    /// How much may be removed at once before a person has to say so.
    pub prune: PruneBudget,
    /// How much of the past is kept.
    pub history: History,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    /// The certificate and whatever leads from it to its root (PEM), relative to this file.
    pub certificate: String,
    /// The private key (PEM), relative to this file.
    pub key: String,
}

/// An inclusive range of TCP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortRange {
    /// The first port of the range.
    #[schemars(range(min = 1))]
    pub from: u16,
    /// The last port of the range.
    #[schemars(range(min = 1))]
    pub to: u16,
}

/// A tick may remove the larger of the two; what goes beyond needs `--allow-prune N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PruneBudget {
    /// So many resources may go at once.
    pub max_count: u32,
    /// This share of all owned resources may go at once.
    pub max_share: Percent,
}

/// How many lines of history the ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct History {
    /// Events kept.
    #[schemars(range(min = 100))]
    pub events: u32,
    /// Journal lines kept.
    #[schemars(range(min = 100))]
    pub journal: u32,
}

impl Default for HubSpec {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN.to_owned(),
            tls: None,
            origin: None,
            accepted_origins: Vec::new(),
            port_range: PortRange::default(),
            home: None,
            interval: Millis::secs(600),
            max_unavailable: 10,
            prune: PruneBudget::default(),
            history: History::default(),
        }
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self { from: 1939, to: 1999 }
    }
}

impl Default for PruneBudget {
    fn default() -> Self {
        Self { max_count: 3, max_share: Percent(20) }
    }
}

impl Default for History {
    fn default() -> Self {
        Self { events: 10_000, journal: 10_000 }
    }
}

impl HubSpec {
    /// The hub's origin as modules get it.
    pub fn effective_origin(&self) -> String {
        // Who listens everywhere is reached at this machine by its own address.
        let listen =
            self.address().unwrap_or(DEFAULT_LISTEN).replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.origin.clone().unwrap_or_else(|| format!("{scheme}://{listen}"))
    }

    /// Where modules of this machine reach the hub without leaving it; `None` when it serves nothing. A certificate is for the name of the
    /// origin, so with one it is that.
    pub fn loopback(&self) -> Option<String> {
        if self.tls.is_some() {
            return self.address().map(|_| self.effective_origin());
        }
        let listen = self.address()?.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
        Some(format!("http://{listen}"))
    }

    /// All origins under which the hub is reached: its issuer, those the Hub names, and the loopback ones.
    pub fn origins(&self) -> Vec<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let port = self.address().unwrap_or(DEFAULT_LISTEN).rsplit(':').next().unwrap_or_default();
        let loopback = [format!("{scheme}://localhost:{port}"), format!("{scheme}://127.0.0.1:{port}")];
        let mut all = vec![self.effective_origin()];
        for origin in self.accepted_origins.iter().chain(&loopback) {
            if !all.contains(origin) {
                all.push(origin.clone());
            }
        }
        all
    }

    /// Where it listens; `None` when nothing is to be served.
    pub fn address(&self) -> Option<&str> {
        (self.listen != "none").then_some(self.listen.as_str())
    }
}
