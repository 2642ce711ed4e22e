//! What the durable way costs and brings, beside sending straight to the sink, in the same run: events a second, what it adds to an event
//! that comes alone, and how fast a queue is drained after an outage.
//!
//! `cargo bench --bench deliveries`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures, prints and stops"
)]

#[path = "../tests/it/delivery_stage.rs"]
#[allow(dead_code)]
mod delivery_stage;
#[path = "../tests/it/hub_stage.rs"]
#[allow(dead_code)]
mod hub_stage;
#[path = "../tests/it/proxy_stage.rs"]
#[allow(dead_code)]
mod proxy_stage;
#[path = "../tests/it/stage.rs"]
#[allow(dead_code)]
mod stage;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use trueup::model::id::Name;
use trueup::ports::deliveries::DeliveryStore;
use trueup::ports::hub::State;

use crate::delivery_stage::{Depot, PATH, event, wiring};

/// Clients at once, for events a second.
const CLIENTS: usize = 32;
/// How long each of those loops runs.
const SPAN: Duration = Duration::from_secs(5);
/// Events that come alone: so many, one every so often.
const ALONE: u64 = 1_000;
const EVERY: Duration = Duration::from_millis(10);
/// Events that wait when the sink comes back.
const BACKLOG: u64 = 5_000;

/// When each event was first at the sink.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<BTreeMap<u64, Instant>>>, Arc<AtomicU64>);

/// A sink that takes everything and notes when.
async fn sink(arrivals: Arrivals) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let arrivals = arrivals.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let arrivals = arrivals.clone();
                    async move {
                        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        let at = Instant::now();
                        let number =
                            serde_json::from_slice::<serde_json::Value>(&body).unwrap()["number"].as_u64().unwrap();
                        arrivals.0.lock().unwrap().entry(number).or_insert(at);
                        arrivals.1.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("{}")))
                    }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

type Http = Client<HttpConnector, Full<Bytes>>;

async fn post(client: &Http, url: &str, bearer: &str, number: u64) {
    let body = event(&format!("n{number}"), number).to_string();
    let request =
        Request::post(url).header("authorization", format!("Bearer {bearer}")).body(Full::from(body)).unwrap();
    let answer = client.request(request).await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    let _ = answer.into_body().collect().await;
}

/// Events a second that are answered.
async fn rate(client: &Http, url: &str, bearer: &str, next: &Arc<AtomicU64>, most: u64) -> f64 {
    let (begun, first) = (Instant::now(), next.load(Ordering::Relaxed));
    let mut tasks = Vec::new();
    for _ in 0..CLIENTS {
        let (client, url, bearer, next) = (client.clone(), url.to_owned(), bearer.to_owned(), next.clone());
        tasks.push(tokio::spawn(async move {
            while begun.elapsed() < SPAN {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + most {
                    return;
                }
                post(&client, &url, &bearer, number).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let count = (next.load(Ordering::Relaxed) - first).min(most);
    count as f64 / begun.elapsed().as_secs_f64()
}

/// From sending to the sink, in milliseconds: p50 and p99. Times to the answer as well.
async fn alone(client: &Http, url: &str, bearer: &str, next: &Arc<AtomicU64>, arrivals: &Arrivals) -> [f64; 4] {
    let (mut sent, mut answered) = (BTreeMap::new(), Vec::new());
    let mut timer = tokio::time::interval(EVERY);
    for _ in 0..ALONE {
        timer.tick().await;
        let number = next.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        sent.insert(number, begun);
        post(client, url, bearer, number).await;
        answered.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    until(|| sent.keys().all(|number| arrivals.0.lock().unwrap().contains_key(number))).await;
    let arrivals = arrivals.0.lock().unwrap();
    let arrived = sent.iter().map(|(number, begun)| (arrivals[number] - *begun).as_secs_f64() * 1e3).collect();
    let (arrived, answered) = (sorted(arrived), sorted(answered));
    [at(&arrived, 50), at(&arrived, 99), at(&answered, 50), at(&answered, 99)]
}

fn sorted(mut all: Vec<f64>) -> Vec<f64> {
    all.sort_by(f64::total_cmp);
    all
}

fn at(all: &[f64], percent: usize) -> f64 {
    all[(all.len() * percent / 100).min(all.len() - 1)]
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // On the disk of the sources: a folder in memory would not wait for it.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let arrivals = Arrivals::default();
    let port = runtime.block_on(sink(arrivals.clone()));
    let depot = Depot::new(dir.path()).service("agent", port).connection("box", wiring("agent")).tell();
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    let straight = format!("http://127.0.0.1:{port}{PATH}");
    let durable = format!("http://127.0.0.1:{}/inbox/box", depot.hub);
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    let next = Arc::new(AtomicU64::new(1));
    let tally = || depot.store.tallies().unwrap().remove(&Name::new("box").unwrap()).unwrap_or_default();

    let bare = runtime.block_on(alone(&client, &straight, "x", &next, &arrivals));
    let kept = runtime.block_on(alone(&client, &durable, &bearer, &next, &arrivals));
    println!("100 events a second, from the sender to the sink: p50, p99; to the answer: p50, p99 (ms)");
    println!("  straight  {:>8.2} {:>8.2} {:>8.2} {:>8.2}", bare[0], bare[1], bare[2], bare[3]);
    println!("  durable   {:>8.2} {:>8.2} {:>8.2} {:>8.2}", kept[0], kept[1], kept[2], kept[3]);
    println!("  added     {:>8.2} {:>8.2}", kept[0] - bare[0], kept[1] - bare[1]);

    let bare = runtime.block_on(rate(&client, &straight, "x", &next, u64::MAX / 2));
    println!("straight, {CLIENTS} clients                       {bare:>9.0} events/s");
    let before = arrivals.1.load(Ordering::Relaxed);
    let begun = Instant::now();
    // As many as a queue holds: a sender that is quicker than the sink would be told that it is full.
    let kept = runtime.block_on(rate(&client, &durable, &bearer, &next, 9_000));
    println!(
        "durable, {CLIENTS} clients: taken in              {kept:>9.0} events/s  {:>6.2} of straight",
        kept / bare
    );
    runtime.block_on(until(|| tally().waiting == 0));
    let all = (arrivals.1.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    println!("durable, {CLIENTS} clients: taken in and delivered {all:>8.0} events/s  {:>6.2} of straight", all / bare);

    let mut depot = depot;
    depot.service_is("agent", |agent| agent.state = State::Starting);
    let queued = runtime.block_on(rate(&client, &durable, &bearer, &next, BACKLOG));
    println!("taken in while the sink is away                  {queued:>9.0} events/s");
    let waiting = depot.tally("box").waiting;
    let (before, begun) = (arrivals.1.load(Ordering::Relaxed), Instant::now());
    depot.service_is("agent", |agent| agent.state = State::Ready);
    runtime.block_on(until(|| arrivals.1.load(Ordering::Relaxed) > before));
    let first = begun.elapsed();
    runtime.block_on(until(|| depot.tally("box").waiting == 0));
    let drained = waiting as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{waiting} drained after an outage: first after {first:.1?} {drained:>9.0} events/s  {:>6.2} of straight",
        drained / bare
    );
    assert_eq!(depot.tally("box").dead, 0);
}
