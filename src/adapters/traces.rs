//! Traces over OTLP (HTTP, protobuf): spans that ended go through a bounded queue to a thread of its own, which sends them in groups. What
//! finds no room, or no collector, is dropped and counted; nobody ever waits for it but the end of the process, for less than a second.
//!
//! The variables are those of the OpenTelemetry specification; most are read by its library.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc as done;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry::{Context, Key, KeyValue, Value};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{RetryPolicy, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::environment::Environment;
use crate::ports::traces::TALLY;

/// Spans that wait to be sent: some MiB. A tick has at most 1,001.
const QUEUE: usize = 2_048;
/// Spans in one request.
const GROUP: usize = 512;
/// How long the first of a group waits for more.
const GATHER: Duration = Duration::from_secs(1);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of the process waits for what is left.
const LAST_WORDS: Duration = Duration::from_millis(900);
/// The most that is read of an answer.
const ANSWER_LIMIT: usize = 64 << 10;

type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// The thread that sends.
pub struct Sending {
    ending: watch::Sender<bool>,
    ended: done::Receiver<()>,
}

impl Sending {
    /// Sends what is left, within a second.
    pub fn end(self) {
        self.ending.send_replace(true);
        if self.ended.recv_timeout(LAST_WORDS).is_err() {
            // The collector does not answer, and nobody waits for it any more.
            TALLY.add_dropped(TALLY.under_way());
        }
        let dropped = TALLY.dropped();
        if dropped > 0 {
            tracing::warn!(dropped, sent = TALLY.sent(), "spans were not sent");
        }
    }
}

/// Begins when the environment names a collector.
///
/// # Errors
/// What is wrong with what the environment says. Nothing is sent then.
pub fn begin(environment: &Environment) -> Option<Result<(Listener, Sending), String>> {
    let named = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let collector = named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| named("OTEL_EXPORTER_OTLP_ENDPOINT"))?;
    if named("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    Some(start(environment, collector))
}

fn start(environment: &Environment, collector: &str) -> Result<(Listener, Sending), String> {
    let uri: Uri = collector.parse().map_err(|_| "the collector's address is no URL".to_owned())?;
    let host = uri.authority().map(|authority| authority.host()).ok_or("the collector's address has no host")?;
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    // An address may hold a password.
    let shown = format!("{host}{port}");
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let client: Arc<dyn HttpClient> = if uri.scheme_str() == Some("https") {
        let roots = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| error.to_string())?;
        Arc::new(Collector(client(roots.https_or_http().enable_http1().wrap_connector(tcp))))
    } else {
        Arc::new(Collector(client(tcp)))
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_shared_http_client(client)
        // A retry would hold up what comes after it.
        .with_retry_policy(RetryPolicy::disabled())
        .build();
    let mut exporter = exporter.map_err(|_| format!("the address of the collector at {shown} cannot be used"))?;
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if environment.get("OTEL_SERVICE_NAME").is_none_or(str::is_empty) {
        resource = resource.with_service_name("trueup");
    }
    let resource = resource.build();
    exporter.set_resource(&resource);
    let (queue, waiting) = mpsc::channel(QUEUE);
    let (ending, ends) = watch::channel(false);
    let (last, ended) = done::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let work = move || {
        runtime.block_on(send(exporter, waiting, ends, shown));
        let _ = last.send(());
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("traces".to_owned()).spawn(work).map_err(|error| error.to_string())?;
    TALLY.begin();
    let mut provider = SdkTracerProvider::builder().with_span_processor(Queue(queue)).with_resource(resource);
    // The specification wants the sampler named too; whoever gives a share alone means this one.
    if let (None, Some(share)) = (environment.get("OTEL_TRACES_SAMPLER"), environment.get("OTEL_TRACES_SAMPLER_ARG")) {
        let share: f64 = share.parse().map_err(|_| "OTEL_TRACES_SAMPLER_ARG is no number".to_owned())?;
        provider = provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))));
    }
    Ok((listener(provider.build()), Sending { ending, ended }))
}

/// Hears our spans, and nothing else.
fn listener(provider: SdkTracerProvider) -> Listener {
    fn spans<S: Subscriber + for<'a> LookupSpan<'a>>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
    }
    let ours = |of: &Metadata<'_>| of.is_span() && of.target().starts_with(env!("CARGO_CRATE_NAME"));
    spans(&provider).with_filter(filter_fn(ours).with_max_level_hint(Level::DEBUG)).boxed()
}

/// Takes spans that ended.
struct Queue(mpsc::Sender<SpanData>);

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        if span.span_context.is_sampled() {
            known_by_its_names(&mut span);
            TALLY.add_ended();
            if self.0.try_send(span).is_err() {
                TALLY.add_dropped(1);
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Gives requests the names that the semantic conventions of OpenTelemetry have for them; ours are short, for the log.
fn known_by_its_names(span: &mut SpanData) {
    const NAMES: [(&str, &str); 4] = [
        ("method", "http.request.method"),
        ("path", "url.path"),
        ("status", "http.response.status_code"),
        ("peer", "network.peer.address"),
    ];
    if span.name != "request" {
        return;
    }
    span.span_kind = SpanKind::Server;
    let of =
        |span: &SpanData, key: &str| span.attributes.iter().find(|a| a.key.as_str() == key).map(|a| a.value.clone());
    if let (Some(method), Some(path)) = (of(span, "method"), of(span, "path")) {
        span.name = format!("{} {}", method.as_str(), path.as_str()).into();
    }
    if let Some(Value::I64(500..)) = of(span, "status") {
        span.status = Status::error("");
    }
    for attribute in &mut span.attributes {
        if let Some((_, name)) = NAMES.iter().find(|(ours, _)| *ours == attribute.key.as_str()) {
            attribute.key = Key::from_static_str(name);
        }
    }
}

/// Sends groups until the end.
async fn send(
    exporter: opentelemetry_otlp::SpanExporter,
    mut waiting: mpsc::Receiver<SpanData>,
    mut ends: watch::Receiver<bool>,
    collector: String,
) {
    let mut said = false;
    let mut ending = false;
    loop {
        let mut group = Vec::with_capacity(GROUP);
        if ending {
            while group.len() < GROUP
                && let Ok(span) = waiting.try_recv()
            {
                group.push(span);
            }
            if group.is_empty() {
                return;
            }
        } else {
            ending = gather(&mut group, &mut waiting, &mut ends).await;
        }
        if group.is_empty() {
            continue;
        }
        let count = group.len() as u64;
        match exporter.export(group).await {
            Ok(()) => TALLY.add_sent(count),
            Err(error) => {
                TALLY.add_dropped(count);
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(collector, %error, "traces are not received; this is said once, and what is lost is counted");
                }
            }
        }
    }
}

/// Waits for spans until there is a group of them or the first has waited long enough; whether the end has come.
async fn gather(
    group: &mut Vec<SpanData>,
    waiting: &mut mpsc::Receiver<SpanData>,
    ends: &mut watch::Receiver<bool>,
) -> bool {
    let mut until = None;
    while group.len() < GROUP {
        let room = GROUP - group.len();
        let more = async {
            let more = waiting.recv_many(group, room);
            match until {
                Some(until) => timeout_at(until, more).await.unwrap_or(0),
                None => more.await,
            }
        };
        // Both arms are cancel-safe: what `recv_many` has not returned is still in the queue.
        tokio::select! {
            _ = ends.changed() => return true,
            // Time is over, or nobody is left who could send.
            got = more => if got == 0 { return waiting.is_closed() },
        }
        until.get_or_insert_with(|| Instant::now() + GATHER);
    }
    false
}

/// The collector, through the HTTP stack that all of ours uses.
struct Collector<C>(Client<C, Full<Bytes>>);

fn client<C: Connect + Clone>(connector: C) -> Client<C, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1).build(connector)
}

impl<C> fmt::Debug for Collector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> HttpClient for Collector<C> {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let exchange = async {
                let response = self.0.request(request.map(Full::new)).await?;
                let (parts, body) = response.into_parts();
                let body = Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes();
                Ok(Response::from_parts(parts, body))
            };
            let late = || -> Box<dyn Error + Send + Sync> { "no answer in time".into() };
            timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(late()))
        })
    }
}
