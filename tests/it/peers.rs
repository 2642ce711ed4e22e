//! Peers for tests of connections: a pretend hub that makes any token there is, vaults and sinks that were not written by us alone, and a
//! receiver of webhooks that keeps what it got.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{Path as PathParameter, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::Request;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::pkcs8::EncodePrivateKey;
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};

use crate::hub_stage::{Reply, send};
use crate::python;
use crate::stage::{Own, wait_until};

/// PyJWT and what it needs for RSA.
pub const PACKAGES: [&str; 4] = ["pyjwt==2.15.1", "cryptography==50.0.2", "cffi==2.1.1", "pycparser==3.12"];

/// What the pretend hub says it is, wherever it is reached.
pub const ISSUER: &str = "https://hub.example.org";

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves on a free port until the test binary ends.
fn serve(routes: Router) -> u16 {
    RUNTIME.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        port
    })
}

/// A signing key.
pub struct Key {
    pair: RsaKeyPair,
    jwk: Value,
}

impl Key {
    fn make(kid: &str) -> Self {
        let private = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("a key");
        let der = private.to_pkcs8_der().expect("a key");
        let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
        let jwk = json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": number(private.n()), "e": number(private.e()) });
        Self { pair: RsaKeyPair::from_pkcs8(der.as_bytes()).expect("a key"), jwk }
    }

    /// Signs these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.jwk["kid"] });
        let signed = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The first is the pretend hub's, the second one that it takes later, the third nobody's.
pub static KEYS: LazyLock<[Key; 3]> = LazyLock::new(|| ["first", "second", "first"].map(Key::make));

/// Seconds since 1970.
pub fn seconds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "tokens are made for the clock of other programs")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The claims of a good token of the pretend hub, by this id.
pub fn claims(jti: &str, audience: &str, scope: &str) -> Value {
    json!({ "iss": ISSUER, "sub": "connection", "aud": audience, "scope": scope, "jti": jti, "client_id": "test",
        "vault_scope": [], "iat": seconds() - 1, "exp": seconds() + 600 })
}

/// A token of the pretend hub.
pub fn token(audience: &str, scope: &str) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    KEYS[0].sign(&claims(&format!("t{}", LAST.fetch_add(1, Ordering::SeqCst)), audience, scope))
}

/// A token for the triggers of a vault.
pub fn admin(vault: &str) -> String {
    token(&format!("vault.{vault}"), &format!("vault:{vault}:admin"))
}

/// Keys, and the list of revoked tokens if there is one.
type Published = Arc<Mutex<(Vec<Value>, Option<Vec<String>>)>>;

/// A pretend hub: publishes keys and revocations, and does nothing else.
#[derive(Clone)]
pub struct Hub {
    pub port: u16,
    published: Published,
}

impl Hub {
    /// One with the first key that revoked these tokens; `None` has no list of them.
    pub fn start(revoked: Option<&[&str]>) -> Self {
        let revoked = revoked.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
        let published = Arc::new(Mutex::new((vec![KEYS[0].jwk.clone()], revoked)));
        let routes = Router::new()
            .route(
                "/.well-known/jwks.json",
                get(async |State(all): State<Published>| Json(json!({ "keys": lock(&all).0.clone() }))),
            )
            .route(
                "/.well-known/parachute-revocation.json",
                get(async |State(all): State<Published>| match &lock(&all).1 {
                    Some(jtis) => Ok(Json(json!({ "generated_at": "now", "jtis": jtis }))),
                    None => Err(StatusCode::SERVICE_UNAVAILABLE),
                }),
            )
            .with_state(published.clone());
        Self { port: serve(routes), published }
    }

    /// Publishes the second key besides.
    pub fn rotate(&self) {
        lock(&self.published).0.push(KEYS[1].jwk.clone());
    }

    /// What a module of this hub finds in its environment.
    pub fn env(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            pair("PARACHUTE_HUB_ORIGIN", ISSUER),
            pair("PARACHUTE_HUB_ORIGINS", "http://localhost:1,https://other.example.org"),
            pair("PARACHUTE_HUB_LOOPBACK", &format!("http://127.0.0.1:{}", self.port)),
        ]
    }
}

/// A post that a receiver got.
#[derive(Clone, Debug)]
pub struct Got {
    pub bearer: String,
    pub body: Value,
}

/// Receives webhooks, and answers as it is told.
#[derive(Clone)]
pub struct Receiver {
    pub port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    got: Mutex<Vec<Got>>,
    answer: Mutex<(u16, String)>,
    /// While it is held, nobody is answered.
    held: tokio::sync::RwLock<()>,
    at_once: AtomicU64,
    most_at_once: AtomicU64,
}

impl Receiver {
    pub fn start() -> Self {
        let inner = Arc::new(Inner {
            got: Mutex::default(),
            answer: Mutex::new((200, String::new())),
            held: tokio::sync::RwLock::new(()),
            at_once: AtomicU64::new(0),
            most_at_once: AtomicU64::new(0),
        });
        let routes = Router::new().route("/{*path}", post(Self::receive)).with_state(inner.clone());
        Self { port: serve(routes), inner }
    }

    async fn receive(
        State(inner): State<Arc<Inner>>,
        PathParameter(_): PathParameter<String>,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, String) {
        let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let body = serde_json::from_slice(&body).expect("JSON");
        lock(&inner.got).push(Got { bearer, body });
        let now = inner.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        inner.most_at_once.fetch_max(now, Ordering::SeqCst);
        let (status, text) = lock(&inner.answer).clone();
        drop(inner.held.read().await);
        inner.at_once.fetch_sub(1, Ordering::SeqCst);
        (StatusCode::from_u16(status).expect("a status"), text)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// What it answers from now on.
    pub fn answers(&self, status: u16, text: &str) {
        *lock(&self.inner.answer) = (status, text.to_owned());
    }

    /// Nobody is answered until this is dropped.
    pub fn hold(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.inner.held.blocking_write()
    }

    pub fn got(&self) -> Vec<Got> {
        lock(&self.inner.got).clone()
    }

    pub fn most_at_once(&self) -> u64 {
        self.inner.most_at_once.load(Ordering::SeqCst)
    }

    /// Waits until it got so many in all.
    pub fn until(&self, count: usize) -> Vec<Got> {
        wait_until("webhooks", || self.got().len() >= count);
        self.got()
    }
}

/// Which program plays the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Demo,
    Python,
}

/// A peer that runs; killed when the test is over.
pub struct Peer {
    child: Own,
    pub port: u16,
    start: (Vec<String>, Vec<(String, String)>),
}

impl Peer {
    /// A vault of a hub, with its things in this home. `None` when this machine has no Python for it and says so.
    pub fn vault(kind: Kind, hub: &Hub, home: &Path, more: &[(&str, &str)]) -> Option<Self> {
        let mut words = match kind {
            Kind::Demo => vec![env!("CARGO_BIN_EXE_trueup").to_owned(), "demo".to_owned(), "vault".to_owned()],
            Kind::Python => python_words("vault.py")?,
        };
        let mut env = hub.env();
        env.push(("PARACHUTE_HOME".to_owned(), home.display().to_string()));
        env.push(("PORT".to_owned(), "0".to_owned()));
        for (name, value) in more {
            match name.strip_prefix("--") {
                Some(_) => words.extend([(*name).to_owned(), (*value).to_owned()]),
                None => env.push(((*name).to_owned(), (*value).to_owned())),
            }
        }
        Some(Self::run(words, env))
    }

    /// A demo module with these words.
    pub fn demo(hub: &Hub, home: &Path, words: &[&str]) -> Self {
        let mut all = vec![env!("CARGO_BIN_EXE_trueup").to_owned(), "demo".to_owned()];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let mut env = hub.env();
        env.push(("PARACHUTE_HOME".to_owned(), home.display().to_string()));
        env.push(("PORT".to_owned(), "0".to_owned()));
        Self::run(all, env)
    }

    /// The sink in Python, which needs no packages.
    pub fn sink(more: &[(&str, &str)]) -> Option<Self> {
        let env = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Some(Self::run(python_words("sink.py")?, env))
    }

    fn run(words: Vec<String>, env: Vec<(String, String)>) -> Self {
        let (child, port) = spawn(&words, &env);
        Self { child, port, start: (words, env) }
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Kills it and starts it again. It has another port then, unless a row gives it one.
    pub fn again(&mut self) {
        self.child.0.kill().expect("ours");
        self.child.0.wait().expect("ours");
        (self.child, self.port) = spawn(&self.start.0, &self.start.1);
    }

    /// A request with a token; an empty one is none. A body that is null is none.
    ///
    /// # Errors
    /// When no whole answer came.
    pub fn try_ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        send(self.port, request.body(Full::from(body)).expect("a request"))
    }

    /// The same, with its status and JSON.
    pub fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let reply = self.try_ask(method, path, token, body).expect("an answer");
        (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
    }
}

/// The words that run a peer in Python; both are run by the Python with the packages.
pub fn python_words(script: &str) -> Option<Vec<String>> {
    let python = python::with(&PACKAGES)?;
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "peers", script].iter().collect();
    Some(vec![python.display().to_string(), script.display().to_string()])
}

fn spawn(words: &[String], env: &[(String, String)]) -> (Own, u16) {
    let child = Command::new(&words[0])
        .args(&words[1..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(env.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a peer starts");
    let mut child = Own(child);
    let (say, said) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.0.stdout.take().expect("a pipe")).lines();
    // Reads on, so that a peer that logs is never stuck.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(say.send(line))));
    loop {
        let line = said.recv_timeout(Duration::from_secs(30)).expect("a peer says its port");
        if let Some(port) = line.split_whitespace().find_map(|word| word.strip_prefix("port=")) {
            return (child, port.parse().expect("a port"));
        }
    }
}
