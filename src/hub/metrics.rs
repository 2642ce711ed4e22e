//! What is counted, for `/metrics` (OpenMetrics text). Counters live as long as the process; what is known of resources is read from the
//! board when somebody asks, so that nothing is left of a resource that is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use super::api::rights::{Right, admit};
use super::proxy::trust::{Layer, layer};
use super::site::{Board, Site};
use super::spans::OfSpans;
use crate::model::condition::{ConditionStatus, ConditionType};
use crate::model::id::Name;
use crate::model::output::ResourceLine;
use crate::model::problem::Severity;
use crate::ports::deliveries::{Post, Seen, Tally};
use crate::ports::tokens::Via;

/// Seconds. A look at a converged machine takes milliseconds; a proxied request adds fractions of one.
const TICK_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
const REQUEST_BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// A delivery waits for the disk and the sink; after an outage for long.
const DELIVERY_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 60.0, 600.0, 3_600.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    kind: String,
    action: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    service: String,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TokenLabels {
    created_via: &'static str,
    revoked: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConnectionLabels {
    connection: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    connection: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The counters. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    ticks: Counter,
    tick: Histogram,
    steps: Family<StepLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    denied: Family<ReasonLabels, Counter>,
    tokens: Family<TokenLabels, Gauge>,
    database: Gauge,
    accepted: Family<ConnectionLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    delivered: Family<ConnectionLabels, Counter>,
    failed: Family<ConnectionLabels, Counter>,
    dead: Family<ConnectionLabels, Counter>,
    latency: Family<ConnectionLabels, Histogram, fn() -> Histogram>,
    post: Arc<OnceLock<Arc<dyn Post>>>,
    /// Connections that are open now.
    pub connections: Gauge,
    /// WebSocket connections that are open now.
    pub websockets: Gauge,
}

/// The counters of one service, looked up once for many requests.
#[derive(Clone, Debug)]
pub struct Meter {
    classes: [Counter; 5],
    duration: Histogram,
}

impl Meter {
    /// A request was answered with this status; its head took so long.
    pub fn finished(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].inc();
        self.duration.observe(took.as_secs_f64());
    }
}

impl Metrics {
    pub fn new(board: watch::Receiver<Arc<Board>>) -> Self {
        let mut registry = Registry::with_prefix("trueup");
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs", info);
        let (ticks, tick) = (Counter::default(), Histogram::new(TICK_BUCKETS));
        registry.register("ticks", "Looks at the machine", ticks.clone());
        registry.register_with_unit("tick_duration", "How long a look and its steps took", Unit::Seconds, tick.clone());
        let steps = Family::default();
        registry.register("steps", "Steps done, by what came of them", steps.clone());
        let requests = Family::default();
        registry.register("proxy_requests", "Requests to services, by class of status", requests.clone());
        let durations: Family<ServiceLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS));
        let help = "From a request to the head of its answer";
        registry.register_with_unit("proxy_request_duration", help, Unit::Seconds, durations.clone());
        let (tokens, database) = (Family::default(), Gauge::default());
        registry.register("tokens", "Tokens that have not expired", tokens.clone());
        registry.register("database_up", "Whether the database of tokens can be read", database.clone());
        let (accepted, refused) = (Family::default(), Family::default());
        registry.register("deliveries_accepted", "Events taken in, the same again included", Family::clone(&accepted));
        registry.register("deliveries_refused", "Events not taken in, by reason", Family::clone(&refused));
        let (delivered, failed, dead) = (Family::default(), Family::default(), Family::default());
        registry.register("deliveries_delivered", "Events that their sink took", Family::clone(&delivered));
        registry.register("deliveries_failed_attempts", "Attempts that are made again", Family::clone(&failed));
        registry.register("deliveries_given_up", "Events that became dead letters", Family::clone(&dead));
        let latency: Family<ConnectionLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DELIVERY_BUCKETS));
        let help = "From taking an event in to the answer of its sink";
        registry.register_with_unit("delivery_duration", help, Unit::Seconds, latency.clone());
        let post = Arc::new(OnceLock::new());
        registry.register_collector(Box::new(OfPost(post.clone())));
        let denied = Family::default();
        registry.register("denied", "Requests without a token that allows them", denied.clone());
        let (connections, websockets) = (Gauge::default(), Gauge::default());
        registry.register("connections", "Client connections that are open", connections.clone());
        registry.register("websockets", "WebSocket connections that are open", websockets.clone());
        registry.register_collector(Box::new(OfBoard(board)));
        registry.register_collector(Box::new(OfSpans));
        Self {
            tokens,
            database,
            accepted,
            refused,
            delivered,
            failed,
            dead,
            latency,
            post,
            registry: Arc::new(registry),
            ticks,
            tick,
            steps,
            requests,
            durations,
            denied,
            connections,
            websockets,
        }
    }

    /// A tick was done.
    pub(super) fn ticked(&self, board: &Board) {
        self.ticks.inc();
        self.tick.observe(Duration::from(board.took).as_secs_f64());
        for step in &board.steps {
            let outcome = step.outcome.as_str();
            let labels = StepLabels { kind: step.resource.kind.to_string(), action: step.action.clone(), outcome };
            self.steps.get_or_create(&labels).inc();
        }
    }

    /// What the database of tokens says; `None` when it could not be asked.
    fn counted(&self, counts: Option<Vec<(Via, bool, u64)>>) {
        self.database.set(i64::from(counts.is_some()));
        self.tokens.clear();
        for (via, revoked, count) in counts.into_iter().flatten() {
            let labels = TokenLabels { created_via: via.as_str(), revoked: if revoked { "true" } else { "false" } };
            self.tokens.get_or_create(&labels).set(number(count));
        }
    }

    /// A request was refused for want of a token that allows it.
    pub fn denied(&self, reason: &'static str) {
        self.denied.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Where what waits is asked for.
    pub(super) fn deliveries(&self, post: Arc<dyn Post>) {
        let _ = self.post.set(post);
    }

    /// An event was taken in.
    pub(super) fn accepted(&self, connection: &Name) {
        self.accepted.get_or_create(&ConnectionLabels { connection: connection.to_string() }).inc();
    }

    /// An event was not taken in. Without a connection nobody knows whose it was.
    pub(super) fn refused(&self, connection: Option<&Name>, reason: &'static str) {
        let connection = connection.map(ToString::to_string).unwrap_or_default();
        self.refused.get_or_create(&RefusedLabels { connection, reason }).inc();
    }

    /// Something happened to a delivery.
    pub(super) fn delivery(&self, connection: &Name, seen: Seen) {
        let labels = ConnectionLabels { connection: connection.to_string() };
        match seen {
            Seen::Delivered(took) => {
                self.delivered.get_or_create(&labels).inc();
                self.latency.get_or_create(&labels).observe(Duration::from(took).as_secs_f64());
            }
            Seen::Failed => drop(self.failed.get_or_create(&labels).inc()),
            Seen::Dead => drop(self.dead.get_or_create(&labels).inc()),
        }
    }

    /// The counters of a service.
    pub fn meter(&self, service: &Name) -> Meter {
        let class = |class| self.requests.get_or_create_owned(&RequestLabels { service: service.to_string(), class });
        let duration = self.durations.get_or_create_owned(&ServiceLabels { service: service.to_string() });
        Meter { classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class), duration }
    }
}

/// What is read from the database of events when somebody asks.
#[derive(Clone)]
struct OfPost(Arc<OnceLock<Arc<dyn Post>>>);

impl std::fmt::Debug for OfPost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OfPost")
    }
}

impl Collector for OfPost {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(post) = self.0.get() else { return Ok(()) };
        let up = ConstGauge::new(i64::from(post.standing().is_ok()));
        let help = "Whether events can be written down, where there is need to";
        up.encode(encoder.encode_descriptor("deliveries_up", help, None, up.metric_type())?)?;
        let Ok(tallies) = post.tallies() else { return Ok(()) };
        type Read = fn(&Tally) -> i64;
        let gauges: [(&str, &str, Read); 3] = [
            ("deliveries_waiting", "Events taken in and not delivered yet", |tally| number(tally.waiting)),
            ("deliveries_dead", "Dead letters that nobody replayed or discarded", |tally| number(tally.dead)),
            ("deliveries_full", "Whether no more events of a connection are taken in", |tally| i64::from(tally.full)),
        ];
        for (name, help, read) in gauges {
            let kind = ConstGauge::new(0_i64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (connection, tally) in &tallies {
                let gauge = ConstGauge::new(read(tally));
                gauge.encode(family.encode_family(&[("connection", connection.to_string())])?)?;
            }
        }
        let help = "When the oldest event that waits was taken in, in seconds since 1970";
        let kind = ConstGauge::new(0_f64).metric_type();
        let mut family = encoder.encode_descriptor("deliveries_oldest_timestamp", help, Some(&Unit::Seconds), kind)?;
        for (connection, tally) in &tallies {
            if let Some(oldest) = tally.oldest {
                let gauge = ConstGauge::new(oldest.0 as f64 / 1_000.0);
                gauge.encode(family.encode_family(&[("connection", connection.to_string())])?)?;
            }
        }
        Ok(())
    }
}

/// What is read from the board when somebody asks.
#[derive(Debug)]
struct OfBoard(watch::Receiver<Arc<Board>>);

type Labels = [(&'static str, String); 2];

fn named(line: &ResourceLine) -> Labels {
    [("kind", line.kind.to_string()), ("name", line.name.to_string())]
}

impl Collector for OfBoard {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let board = self.0.borrow().clone();
        let mut gauge = |name: &str, help: &str, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("settled", "Whether nothing is left to do or to wait for", i64::from(board.settled))?;
        gauge("waiting", "Resources that something is waited for", number(board.waits.len()))?;
        gauge("pending_steps", "Steps planned and not done, because they wait for something", number(board.later))?;
        let wrong = board.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        gauge("manifest_errors", "Mistakes in the manifests", number(wrong))?;
        let synced = board.settled && wrong == 0 && !board.refused;
        gauge("in_sync", "Whether the machine is as the manifests say, all of them", i64::from(synced))?;
        if let Some(moved) = &board.progress {
            gauge("migration_objects", "Objects to be at the target of the migration", number(moved.total))?;
            gauge("migration_objects_done", "Objects at the target of the migration", number(moved.done))?;
            gauge("migration_bytes", "Bytes to be at the target of the migration", number(moved.total_bytes))?;
            gauge("migration_bytes_done", "Bytes at the target of the migration", number(moved.done_bytes))?;
        }
        let pause = ConstGauge::new(Duration::from(board.pause).as_secs_f64());
        let help = "How long until the next look, if nothing happens";
        pause.encode(encoder.encode_descriptor("next_look", help, Some(&Unit::Seconds), pause.metric_type())?)?;
        let holds = |line: &ResourceLine, kind| {
            line.conditions.iter().any(|c| c.kind == kind && c.status == ConditionStatus::True)
        };
        let conditions = [
            ("resource_ready", "Whether a resource is as its file asks", ConditionType::Ready),
            ("resource_stalled", "Whether a resource cannot get further by itself", ConditionType::Stalled),
            ("resource_drifted", "Whether a resource differs from what was last applied", ConditionType::Drifted),
        ];
        for (name, help, kind) in conditions {
            let kind_of = ConstGauge::new(0_i64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind_of)?;
            for line in &board.resources {
                let gauge = ConstGauge::new(i64::from(holds(line, kind)));
                gauge.encode(family.encode_family(&named(line))?)?;
            }
        }
        let help = "Restarts after a crash, since its keeper first started it";
        let mut family =
            encoder.encode_descriptor("service_restarts", help, None, ConstCounter::new(0_u64).metric_type())?;
        for line in &board.resources {
            if let Some(restarts) = line.restarts {
                let counter = ConstCounter::new(u64::from(restarts));
                counter.encode(family.encode_family(&[("service", line.name.to_string())])?)?;
            }
        }
        Ok(())
    }
}

fn number<N: TryInto<i64>>(number: N) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// `GET /metrics`: OpenMetrics for whoever asks for it, else the text format that everybody reads. From elsewhere it needs a token: it names
/// every service.
pub(super) async fn metrics(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer);
    if peer.is_none_or(|peer| layer(peer.ip(), uri.authority().map(Authority::as_str), &headers) == Layer::Public)
        && let Err(refusal) = admit(&site, &headers, peer, Right::Read, "unauthorized")
    {
        return refusal.into_response();
    }
    let (own, now) = (site.clone(), site.now());
    // Two databases are asked.
    let told = tokio::task::spawn_blocking(move || {
        own.metrics.counted(own.authority.counts(now).ok());
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &own.metrics.registry);
        text
    });
    let text = told.await.unwrap_or_default();
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let open = accepts.into_iter().any(|accept| accept.contains("application/openmetrics-text"));
    let kind = match open {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    let text = if open { text } else { plain(&text) };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// OpenMetrics as the older text format: there a family has the name of its samples, and neither units nor an end.
fn plain(open: &str) -> String {
    let mut suffixes: BTreeMap<&str, &str> = BTreeMap::new();
    for line in open.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            suffixes.insert(
                name,
                match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                },
            );
        }
    }
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| !line.starts_with("# UNIT") && *line != "# EOF") {
        let comment = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match comment.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) {
            Some((word, (name, rest))) => {
                let suffix = suffixes.get(name).copied().unwrap_or_default();
                let rest = if rest == "info" { "gauge" } else { rest };
                text.push_str(&format!("# {word} {name}{suffix} {rest}\n"));
            }
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}
