//! The hub as the engine sees it: what it is to serve, and how it stands. The work is done by threads of the hub room.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Answer;
use crate::model::id::Name;
use crate::model::route::Exposure;
use crate::model::unit::Millis;

/// What the hub is to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Host and port, such as `127.0.0.1:1939`; `None` when nothing is to be served.
    pub listen: Option<String>,
    pub tls: Option<Tls>,
    /// The issuer of tokens.
    pub origin: String,
    /// Every origin under which the hub is reached, the issuer included.
    pub origins: Vec<String>,
    /// The folder that modules know as `PARACHUTE_HOME`.
    pub home: PathBuf,
    /// By service; only those with routes or a port.
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// The tree has connections or vaults: modules must be able to ask the hub for its keys, even while only `reconcile --once` runs.
    pub has_ties: bool,
    /// Connections with a sink: whose events are accepted, and where they go. Direct ones are among them, for events of a time when they
    /// were durable.
    pub connections: BTreeMap<Name, Arc<Wiring>>,
}

/// Where the events of a durable connection go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// The service that takes them; its port and state are those of its [`Upstream`].
    pub sink: Name,
    /// The path of the action at the sink's own port.
    pub path: String,
    /// What the token of a delivery may do, and for whom it is.
    pub scope: String,
    pub audience: String,
    /// Handed to the sink with every event.
    pub params: Map<String, Value>,
    /// Events are accepted and kept, and not delivered.
    pub suspended: bool,
    pub retry: Retry,
}

/// How long a delivery is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Answers of the sink that are no success, before an event becomes a dead letter.
    pub max_attempts: u32,
    /// So long an event is tried at most, since it was accepted.
    pub max_age: Millis,
    /// How long an answer of the sink is waited for.
    pub timeout: Millis,
}

/// The files of a certificate (PEM), absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A service that requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `None` while no port could be chosen.
    pub port: Option<u16>,
    pub routes: Vec<Mount>,
    pub state: State,
    /// The reason of its `Ready` condition, and what it says.
    pub reason: &'static str,
    pub message: String,
    pub pid: Option<u32>,
    pub restarts: u32,
    pub last_exit: Option<String>,
    /// Its listening socket outlives its process (`passSocket`).
    pub keeps_socket: bool,
    pub module: Module,
}

/// One path under the hub's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Begins with `/` and does not end with one, but for `/` itself.
    pub path: String,
    pub strip_prefix: bool,
    pub websocket: bool,
    pub exposure: Exposure,
}

/// How far a service is, for whoever wants to send it a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Soon: it starts, or is started again after a crash.
    Starting,
    /// A person keeps it stopped, by its file or by a command.
    Stopped,
    /// It runs, and is not well.
    Unwell,
    /// It does not run, and not because anybody wished so.
    Failed,
}

/// What a service says of itself, for lists of modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// The short name: `vault`.
    pub short: String,
    /// Its row in services.json, `parachute-vault`, if it has one.
    pub row: Option<String>,
    pub display_name: Option<String>,
    pub tagline: Option<String>,
    /// As its row says.
    pub version: Option<String>,
    /// The folder that holds `.parachute/module.json`.
    pub folder: Option<PathBuf>,
    /// What connections can be made of.
    pub declared: Arc<Declared>,
}

/// What a module declares for connections; each entry is JSON in the shape of the older hub, with its `module`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub events: Vec<Value>,
    pub actions: Vec<Value>,
    pub credentials: Vec<Value>,
    pub templates: Vec<Value>,
}

/// How the hub stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// Nobody serves it: it belongs to the continuous mode.
    #[default]
    Idle,
    /// It is about to listen.
    Starting,
    Serving(SocketAddr),
    /// It cannot serve until something changes; it is tried again.
    Refused {
        trouble: Trouble,
        message: String,
    },
}

/// Why it cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trouble {
    /// Somebody else has the address.
    Taken,
    /// The address is not one of this machine, or not to be had by this user.
    Address,
    /// The certificate or its key.
    Certificate,
    /// The database of keys and tokens.
    Database,
}

/// The verbs of the hub. None waits for a request, but for `settle`, and that not for long.
pub trait Hub {
    /// Tells it what to serve. The same again does nothing.
    fn tell(&self, wish: Wish);
    fn standing(&self) -> Standing;
    /// Gives the requests that these services have already a moment to be answered. New ones do not come between: since [`Hub::tell`]
    /// they wait until the service is ready again.
    fn settle(&self, services: Vec<Name>) -> Answer<'_, ()>;
}
