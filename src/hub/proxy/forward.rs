//! One request on its way to a module and back.
//!
//! A request that has not left us is never lost to a module that is being started: it waits, within bounds, and is sent when there is
//! somebody to take it. A request that has left us is sent once more only if nothing can happen twice: it has no body, its method is
//! idempotent, and not a byte of an answer came.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::{Instant, timeout};
use tracing::Level;

use super::answers::{Problem, wants_page};
use super::body::{ModuleBody, RequestBody, ResponseBody, Stalled};
use super::headers::{self, Origin};
use super::pool::{Lease, NoConnection};
use super::table::Route;
use super::trust::{self, Layer};
use super::websocket::{self, Handshake};
use super::{Current, Peer, Proxy};
use crate::authority::Denied;
use crate::hub::gate::Pass;
use crate::hub::request_id::AnsweredBy;
use crate::model::route::Exposure;
use crate::ports::hub::State;

/// The first and the longest pause between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A request is sent anew so often: connections that are closed under our hands come in bunches.
const MOST_ATTEMPTS: u32 = 6;

/// What is left of a request that can be sent once more.
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// How sending went.
enum Sent {
    Answered(Response<Incoming>, Option<Lease>),
    /// Again: nothing of it was sent, or nothing can happen twice.
    Again(Request<RequestBody>),
    Failed(Problem),
}

/// A request that waits for a module.
struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Proxy {
    /// Sends a request to the module whose path it has.
    pub async fn forward(&self, mut request: Request<RequestBody>, peer: Peer) -> Response<ResponseBody> {
        let begun = Instant::now();
        let page = wants_page(request.headers());
        let current = self.current();
        let route = match current.table.resolve(request.uri().path()) {
            Ok(Some(route)) => route.clone(),
            Ok(None) => return Problem::nothing_here().answer(page),
            Err(bad) => return Problem::new(StatusCode::BAD_REQUEST, "bad_path", bad.to_string()).answer(page),
        };
        let authority = request.uri().authority().map(hyper::http::uri::Authority::as_str);
        let layer = trust::layer(peer.address.ip(), authority, request.headers());
        if let Err(problem) = self.admit(&route, layer, peer, request.headers()) {
            return self.refuse(problem, &route, layer, begun, page);
        }
        let pass = match self.count(peer, request.headers()) {
            Ok(pass) => pass,
            Err(problem) => return self.refuse(problem, &route, layer, begun, page),
        };
        if websocket::is_wanted(&request) {
            return Box::pin(self.upgrade(request, current, route, layer, (peer, begun, page))).await;
        }
        if let Err(problem) = rewrite(&mut request, &route, layer, peer) {
            return self.refuse(problem, &route, layer, begun, page);
        }
        match self.deliver(request, current, route, begun, false).await {
            Ok((response, lease, route)) => passed_on(response, lease, pass, &route),
            Err((problem, route)) => self.refuse(problem, &route, layer, begun, page),
        }
    }

    /// Counts a request for its client.
    fn count(&self, peer: Peer, headers: &HeaderMap) -> Result<Option<Pass>, Problem> {
        let client = trust::client(peer.address, headers);
        if client.is_loopback() {
            return Ok(None);
        }
        self.means.requests.enter(Some(client)).map(Some).map_err(|_| {
            let text = "this client has too many requests under way already";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text);
            Problem { passing: true, ..problem }
        })
    }

    /// The same for a request that asks for a WebSocket.
    async fn upgrade(
        &self,
        mut request: Request<RequestBody>,
        current: Arc<Current>,
        route: Arc<Route>,
        layer: Layer,
        (peer, begun, page): (Peer, Instant, bool),
    ) -> Response<ResponseBody> {
        if !route.mount.websocket {
            return self.refuse(websocket::not_here(), &route, layer, begun, page);
        }
        let client = trust::client(peer.address, request.headers());
        let pass = match self.means.websockets.enter(Some(client)) {
            Ok(pass) => pass,
            Err(shut) => return self.refuse(websocket::too_many(shut), &route, layer, begun, page),
        };
        let handshake = Handshake::begin(&mut request, pass);
        if let Err(problem) = rewrite(&mut request, &route, layer, peer) {
            return self.refuse(problem, &route, layer, begun, page);
        }
        websocket::ask(request.headers_mut());
        match self.deliver(request, current, route, begun, true).await {
            Ok((response, _, _)) if websocket::agreed(&response) => handshake.end(response, &self.means.bounds),
            Ok((response, lease, route)) => passed_on(response, lease, None, &route),
            Err((problem, route)) => self.refuse(problem, &route, layer, begun, page),
        }
    }

    fn refuse(
        &self,
        problem: Problem,
        route: &Route,
        layer: Layer,
        begun: Instant,
        page: bool,
    ) -> Response<ResponseBody> {
        let current = self.current();
        if let Some(now) = current.table.again(route) {
            current.meters[now.slot].finished(problem.status.as_u16(), begun.elapsed());
        }
        let problem = if layer == Layer::Public { problem.for_strangers() } else { problem };
        problem.answer(page)
    }

    /// Whether this client may reach the mount.
    fn admit(&self, route: &Route, layer: Layer, peer: Peer, headers: &HeaderMap) -> Result<(), Problem> {
        match route.mount.exposure {
            Exposure::Allowed => Ok(()),
            Exposure::Loopback if layer == Layer::Loopback => Ok(()),
            Exposure::Loopback => Err(Problem::nothing_here()),
            Exposure::AuthRequired => {
                let unauthorized =
                    |error, text: String| match self.means.failures.failed(peer.address.ip(), self.means.clock.now()) {
                        Some(_) => {
                            let text = "too many requests without a good token; wait";
                            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", text)
                        }
                        None => Problem::new(StatusCode::UNAUTHORIZED, error, text),
                    };
                let Some(token) = bearer(headers) else {
                    self.means.metrics.denied("missing");
                    return Err(unauthorized("unauthenticated", "this path needs a bearer token".to_owned()));
                };
                match self.means.authority.verify(token, self.means.clock.wall()) {
                    Ok(_) => Ok(()),
                    Err(Denied::Unavailable(why)) => {
                        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", why))
                    }
                    Err(denied) => {
                        self.means.metrics.denied(denied.code());
                        Err(unauthorized("invalid_token", format!("the token is not accepted: {denied}")))
                    }
                }
            }
        }
    }

    /// Finds somebody to take it, for as long as it may wait.
    async fn deliver(
        &self,
        mut request: Request<RequestBody>,
        mut current: Arc<Current>,
        mut route: Arc<Route>,
        begun: Instant,
        upgrade: bool,
    ) -> Result<(Response<Incoming>, Option<Lease>, Arc<Route>), (Problem, Arc<Route>)> {
        let deadline = begun + self.means.bounds.hold;
        let (mut attempts, mut pause) = (0, FIRST_PAUSE);
        let mut held = None;
        loop {
            let upstream = &route.target.upstream;
            let why = match upstream.state {
                State::Stopped | State::Failed => {
                    let problem = Problem::unreachable(&route.target, &upstream.message);
                    return Err((problem, route));
                }
                State::Starting => upstream.message.clone(),
                State::Ready | State::Unwell => {
                    match self.attempt(request, &current, &route, attempts, upgrade).await {
                        Ok(Sent::Answered(response, lease)) => {
                            current.meters[route.slot].finished(response.status().as_u16(), begun.elapsed());
                            return Ok((response, lease, route));
                        }
                        Ok(Sent::Failed(problem)) => return Err((problem, route)),
                        Ok(Sent::Again(again)) => {
                            (request, attempts) = (again, attempts + 1);
                            current = self.current();
                            route = self.again(&current, route, &mut request)?;
                            continue;
                        }
                        Err((NoConnection::Full, _)) => {
                            let why = "all connections to it are in use";
                            return Err((Problem::starting(&route.target, why), route));
                        }
                        Err((NoConnection::Refused(error), _)) if upstream.state == State::Unwell => {
                            let why = format!("no connection: {error}");
                            return Err((Problem::unreachable(&route.target, &why), route));
                        }
                        Err((NoConnection::Refused(error), back)) => {
                            request = back;
                            format!("no connection: {error}")
                        }
                    }
                }
            };
            if held.is_none() {
                held = self.hold();
            }
            if held.is_none() || Instant::now() >= deadline {
                return Err((Problem::starting(&route.target, &why), route));
            }
            let mut changes = self.changes();
            let until = match upstream.state {
                State::Starting => deadline,
                _ => deadline.min(Instant::now() + pause),
            };
            pause = (pause * 2).min(LONGEST_PAUSE);
            // A change between the look and this is not missed: the table in force is compared first.
            if Arc::ptr_eq(&self.current().table, &current.table) {
                // Both arms are cancel-safe; whichever it is, the answer is to look again.
                tokio::select! {
                    _ = changes.changed() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            current = self.current();
            route = self.again(&current, route, &mut request)?;
        }
    }

    /// The same mount in the table in force, which may be at another port by now.
    fn again(
        &self,
        current: &Current,
        route: Arc<Route>,
        request: &mut Request<RequestBody>,
    ) -> Result<Arc<Route>, (Problem, Arc<Route>)> {
        let Some(now) = current.table.again(&route) else { return Err((Problem::nothing_here(), route)) };
        request.headers_mut().insert(HOST, now.target.host.clone());
        Ok(now.clone())
    }

    fn hold(&self) -> Option<Held<'_>> {
        let before = self.held.fetch_add(1, Ordering::Relaxed);
        let held = Held(&self.held);
        (before < self.means.bounds.held).then_some(held)
    }

    /// Sends it once. Gives it back when nobody took it.
    async fn attempt(
        &self,
        request: Request<RequestBody>,
        current: &Arc<Current>,
        route: &Route,
        attempts: u32,
        upgrade: bool,
    ) -> Result<Sent, (NoConnection, Request<RequestBody>)> {
        let pool = &current.pools[route.slot];
        let entry = pool.enter();
        if self.is_stale(current) {
            return Ok(Sent::Again(request));
        }
        if upgrade {
            return self.attempt_upgrade(request, route).await;
        }
        let mut lease = match pool.lease(entry).await {
            Ok(lease) => lease,
            Err(none) => return Err((none, request)),
        };
        let spare = spare(&request);
        let frames = request.body().frames();
        let sent = answer(lease.send(request), frames, self.means.bounds.answer).await;
        let Some(sent) = sent else {
            let why = format!("no answer within {} s", self.means.bounds.answer.as_secs());
            return Ok(Sent::Failed(Problem::late(&route.target, &why)));
        };
        let mut error = match sent {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let why = "it changes the protocol, and nobody asked for that";
                return Ok(Sent::Failed(Problem::unreachable(&route.target, why)));
            }
            Ok(response) => return Ok(Sent::Answered(response, Some(lease))),
            Err(error) => error,
        };
        if attempts < MOST_ATTEMPTS {
            if let Some(request) = error.take_message() {
                return Ok(Sent::Again(request));
            }
            // A connection of its own that is closed without a word is the module's doing, once is enough.
            let closed = !error.error().is_parse() && (lease.used || attempts == 0);
            if let (Some(spare), true) = (spare, closed) {
                return Ok(Sent::Again(spare.request()));
            }
        }
        let error = error.into_error();
        if stalled(&error) {
            let why = "nothing more came of the body of the request";
            return Ok(Sent::Failed(Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", why)));
        }
        let why =
            if error.is_parse() { "it does not speak HTTP" } else { "it closed the connection before it answered" };
        Ok(Sent::Failed(Problem::unreachable(&route.target, why)))
    }

    /// On a connection of its own, since it is to become something else.
    async fn attempt_upgrade(
        &self,
        request: Request<RequestBody>,
        route: &Route,
    ) -> Result<Sent, (NoConnection, Request<RequestBody>)> {
        let bounds = &self.means.bounds;
        let port = route.target.upstream.port.unwrap_or_default();
        let mut sender = match websocket::connect(port, bounds).await {
            Ok(sender) => sender,
            Err(error) => return Err((NoConnection::Refused(error), request)),
        };
        Ok(match timeout(bounds.answer, sender.send_request(request)).await {
            Ok(Ok(response))
                if response.status() == StatusCode::SWITCHING_PROTOCOLS && !websocket::agreed(&response) =>
            {
                Sent::Failed(Problem::unreachable(&route.target, "it changes to a protocol that nobody asked for"))
            }
            Ok(Ok(response)) => Sent::Answered(response, None),
            Ok(Err(_)) => {
                Sent::Failed(Problem::unreachable(&route.target, "it closed the connection before it answered"))
            }
            Err(_) => Sent::Failed(Problem::late(&route.target, "it did not answer the handshake")),
        })
    }
}

/// Waits for the head of the answer; `None` when it does not come. A body that is still being sent is no reason to give up.
async fn answer<T, E>(
    sent: impl Future<Output = Result<T, E>>,
    frames: Option<Arc<AtomicU64>>,
    patience: Duration,
) -> Option<Result<T, E>> {
    tokio::pin!(sent);
    let count = || frames.as_ref().map_or(0, |frames| frames.load(Ordering::Relaxed));
    loop {
        let before = count();
        if let Ok(sent) = timeout(patience, &mut sent).await {
            return Some(sent);
        }
        if count() == before {
            return None;
        }
    }
}

fn spare(request: &Request<RequestBody>) -> Option<Spare> {
    let again = request.body().is_empty() && request.method().is_idempotent();
    again.then(|| Spare {
        method: request.method().clone(),
        uri: request.uri().clone(),
        headers: request.headers().clone(),
    })
}

impl Spare {
    fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

fn stalled(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<Stalled>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The token of an `Authorization` header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Makes the request the module's.
fn rewrite(request: &mut Request<RequestBody>, route: &Route, layer: Layer, peer: Peer) -> Result<(), Problem> {
    let bad = |text: &str| Problem::new(StatusCode::BAD_REQUEST, "bad_request", text);
    let authority = request.uri().authority().map(|authority| HeaderValue::try_from(authority.as_str()));
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = hosts.next().is_some();
    if hosts.next().is_some() {
        return Err(bad("the request names more than one host"));
    }
    if !named && authority.is_none() && request.version() == Version::HTTP_11 {
        return Err(bad("the request names no host"));
    }
    let client = trust::client(peer.address, request.headers());
    let path = request.uri().path();
    let rest = route.rest(path).map_err(|bad| Problem::new(StatusCode::BAD_REQUEST, "bad_path", bad.to_string()))?;
    if rest.len() != path.len() || authority.is_some() {
        let target = match request.uri().query() {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        };
        let target = PathAndQuery::try_from(target).map_err(|_| bad("the path cannot be passed on"))?;
        *request.uri_mut() = Uri::from(target);
    }
    let headers = request.headers_mut();
    let host = headers.insert(HOST, route.target.host.clone());
    let host = authority.and_then(Result::ok).or(host);
    let prefix = route.mount.strip_prefix.then_some(route.mount.path.as_str());
    headers::for_module(headers, Origin { host, secure: peer.secure, layer, client, peer: peer.address.ip(), prefix });
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}

fn passed_on(
    response: Response<Incoming>,
    lease: Option<Lease>,
    pass: Option<Pass>,
    route: &Route,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    headers::for_client(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if tracing::enabled!(Level::DEBUG) {
        parts.extensions.insert(AnsweredBy(Arc::from(route.target.service.as_str())));
    }
    Response::from_parts(parts, ResponseBody::Module(ModuleBody::new(body, lease, pass)))
}
