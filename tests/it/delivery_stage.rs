//! A stage for deliveries: a hub in this process with durable connections, and sinks that the story plays itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use trueup::adapters::clock::SystemClock;
use trueup::adapters::deliveries::Delivered;
use trueup::adapters::hubdb::HubDb;
use trueup::authority::{Authority, Caller, OwnRequest};
use trueup::hub::{Bounds, Server};
use trueup::model::id::Name;
use trueup::model::unit::Millis;
use trueup::ports::clock::Clock;
use trueup::ports::deliveries::{self, DeliveryStore, Letter, LetterQuery, Tally};
use trueup::ports::hub::{Retry, Standing, State, Upstream, Wiring, Wish};
use trueup::ports::tokens::Via;

use crate::hub_stage::{Reply, post};
use crate::proxy_stage::{parts, upstream};
use crate::stage::{free_port, wait_until};

/// The issuer of the tokens of the story.
pub const ORIGIN: &str = "http://127.0.0.1:1939";
pub const PATH: &str = "/api/deliver";

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// A request that a sink got.
#[derive(Clone, Debug)]
pub struct Heard {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Heard {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The number of the event.
    pub fn number(&self) -> u64 {
        self.json()["number"].as_u64().expect("a number")
    }
}

/// What a sink says: a status, headers, and how long it takes.
#[derive(Clone, Debug, Default)]
pub struct Says {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub after: Duration,
}

pub fn says(status: u16) -> Says {
    Says { status, ..Says::default() }
}

type Part = dyn Fn(&Heard) -> Says + Send + Sync;

/// A sink on a port; it may be away.
pub struct Sink {
    pub port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    part: Arc<Mutex<Arc<Part>>>,
    listening: Option<JoinHandle<()>>,
}

impl Sink {
    pub fn new(part: impl Fn(&Heard) -> Says + Send + Sync + 'static) -> Self {
        let part: Arc<Part> = Arc::new(part);
        let mut sink =
            Self { port: free_port(), heard: Arc::default(), part: Arc::new(Mutex::new(part)), listening: None };
        sink.up();
        sink
    }

    pub fn plays(&self, part: impl Fn(&Heard) -> Says + Send + Sync + 'static) {
        *self.part.lock().expect("a part") = Arc::new(part);
    }

    pub fn up(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let (heard, part) = (self.heard.clone(), self.part.clone());
        let listener = RUNTIME.block_on(tokio::net::TcpListener::bind(address)).expect("the port of the sink");
        self.listening = Some(RUNTIME.spawn(async move {
            // Connections end with their listener.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, part) = (heard.clone(), part.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (heard, part) = (heard.clone(), part.clone());
                        async move { answer(request, &heard, &part).await }
                    });
                    let served =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = served.await;
                });
            }
        }));
    }

    pub fn down(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = RUNTIME.block_on(listening);
        }
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("what was heard").clone()
    }

    /// How often each event came.
    pub fn numbers(&self) -> BTreeMap<u64, usize> {
        let mut numbers = BTreeMap::new();
        for heard in self.heard() {
            *numbers.entry(heard.number()).or_default() += 1;
        }
        numbers
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.down();
    }
}

async fn answer(
    request: Request<Incoming>,
    heard: &Mutex<Vec<Heard>>,
    part: &Mutex<Arc<Part>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let one = Heard { path: head.uri.path().to_owned(), headers: head.headers, body };
    let part = part.lock().expect("a part").clone();
    let says = part(&one);
    heard.lock().expect("what was heard").push(one);
    tokio::time::sleep(says.after).await;
    let mut response = Response::builder().status(says.status);
    for (name, value) in says.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from("as the story says")).expect("a response"))
}

/// A hub with durable connections.
pub struct Depot {
    pub server: Server,
    pub hub: u16,
    pub wish: Wish,
    pub authority: Authority,
    pub store: Delivered,
}

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub fn wiring(sink: &str) -> Wiring {
    Wiring {
        sink: name(sink),
        path: PATH.to_owned(),
        scope: "agent:send".to_owned(),
        audience: "agent".to_owned(),
        params: serde_json::Map::new(),
        suspended: false,
        retry: Retry { max_attempts: 20, max_age: Millis::secs(86_400), timeout: Millis::secs(10) },
    }
}

impl Depot {
    /// Its databases are in this folder.
    pub fn new(folder: &Path) -> Self {
        Self::bounded(folder, deliveries::Bounds::default())
    }

    pub fn bounded(folder: &Path, kept: deliveries::Bounds) -> Self {
        let server = Server::start(parts(folder, Bounds::default(), kept)).expect("a server");
        let hub = free_port();
        let authority = Authority::new(Arc::new(HubDb::open(&folder.join("hub.db"), true).expect("a database")));
        authority.set_origins(ORIGIN, &[]);
        let wish = Wish {
            listen: Some(format!("127.0.0.1:{hub}")),
            origin: ORIGIN.to_owned(),
            origins: vec![ORIGIN.to_owned()],
            home: folder.join("home"),
            ..Wish::default()
        };
        let store = Delivered::open(&folder.join("deliveries.db"), kept).expect("a database");
        Self { server, hub, wish, authority, store }
    }

    pub fn service(mut self, service: &str, port: u16) -> Self {
        self.wish.upstreams.insert(name(service), Arc::new(upstream(service, port, State::Ready)));
        self
    }

    pub fn connection(mut self, connection: &str, wiring: Wiring) -> Self {
        self.wish.connections.insert(name(connection), Arc::new(wiring));
        self
    }

    /// A connection `box` to a sink on a port.
    pub fn with(self, sink: &Sink) -> Self {
        self.service("agent", sink.port).connection("box", wiring("agent"))
    }

    pub fn tell(self) -> Self {
        self.server.tell(self.wish.clone());
        wait_until("it to listen", || matches!(self.server.standing(), Standing::Serving(_)));
        self
    }

    /// Another wish.
    pub fn change(&mut self, change: impl FnOnce(&mut Wish)) {
        change(&mut self.wish);
        self.server.tell(self.wish.clone());
    }

    pub fn service_is(&mut self, service: &str, change: impl FnOnce(&mut Upstream)) {
        self.change(|wish| {
            let upstream = wish.upstreams.get_mut(&name(service)).expect("a service");
            change(Arc::make_mut(upstream));
        });
    }

    /// The bearer of a trigger.
    pub fn bearer(&self, audience: &str, scope: &str) -> (String, String) {
        let request = OwnRequest {
            scopes: vec![scope.to_owned()],
            audience: Some(audience.to_owned()),
            subject: "connection".to_owned(),
            seconds: 3_600,
            via: Via::ConnectionProvision,
            ..OwnRequest::default()
        };
        let minted = self.authority.mint_own(request, SystemClock.wall()).expect("a token");
        (minted.token().reveal().to_owned(), minted.jti().to_owned())
    }

    /// Sends an event as a vault does.
    pub fn send(&self, connection: &str, token: &str, body: &Value) -> Result<Reply, String> {
        post(self.hub, &format!("/inbox/{connection}"), token, body)
    }

    /// The tallies, from outside.
    pub fn tally(&self, connection: &str) -> Tally {
        self.store.tallies().expect("tallies").remove(&name(connection)).unwrap_or_default()
    }

    pub fn letters(&self) -> Vec<Letter> {
        self.store.list(&LetterQuery { limit: 100_000, ..LetterQuery::default() }).expect("letters")
    }

    pub fn accepts(&self, token: &str) -> Option<Caller> {
        self.authority.verify(token, SystemClock.wall()).ok()
    }
}

/// An event of a note, with a number.
pub fn event(note: &str, number: u64) -> Value {
    json!({
        "trigger": "conn_box",
        "event": "note.updated",
        "note": { "id": note, "content": "hello", "updatedAt": format!("2026-01-01T00:00:00.{number:09}Z") },
        "number": number,
    })
}
