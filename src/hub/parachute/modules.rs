//! The module API of the older hub: its paths, shapes and words. Modules are the services of the tree that requests can go to, whoever
//! made them; what is installed is said by files, so installing and removing by a call is refused with a word that says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::authority::Caller;
use crate::hub::api::rights::{Right, admit, leave};
use crate::hub::api::{asked, lines_as_text};
use crate::hub::leave::Leave;
use crate::hub::office::{Act, Trouble};
use crate::hub::operations::{Operation, Status, Verb};
use crate::hub::refusal::{Refusal, sentence};
use crate::hub::site::Site;
use crate::model::id::{KindName, Name};
use crate::model::output::{About, Line, NoticeLine};
use crate::model::overriding::{Against, OverrideRequest};
use crate::model::unit::Millis;
use crate::ports::hub::{State as Standing, Upstream, Wish};

/// A body of these calls is a few words.
const BODY: usize = 64 << 10;
/// A call waits so long for a process to start or to stop; then it says how far that is.
const PATIENCE: Millis = Millis::secs(20);
/// What was begun may take longer than a call waits for it.
const TIMEOUT: Millis = Millis::secs(120);
/// The longest that anything may be kept against its file. Callers of this API expect that it lasts.
const SPAN: Millis = Millis(7 * 86_400_000);
/// Lines of output at once, as many as the older hub keeps of short ones.
const LINES: usize = 1_000;
/// After a change, the hub is told of it within a tick.
const NEWS: Duration = Duration::from_secs(2);

/// The modules that the older hub knows by name: short, package, focus.
const KNOWN: [(&str, &str, Focus); 5] = [
    ("vault", "@openparachute/vault", Focus::Core),
    ("surface", "@openparachute/surface", Focus::Core),
    ("app", "@openparachute/app", Focus::Core),
    ("scribe", "@openparachute/scribe", Focus::Deprecated),
    ("notes", "@openparachute/notes", Focus::Deprecated),
];
/// Not installed anew any more.
const RETIRED: [&str; 5] = ["runner", "agent", "channel", "scribe", "notes"];
const CHANNELS: [&str; 2] = ["latest", "rc"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Focus {
    Core,
    Experimental,
    Deprecated,
}

/// Its calls. Some need only to look; `door` of each says which.
pub(super) fn router(site: &Site) -> Router<Site> {
    use axum::routing::{get, post, put};
    let looks =
        Router::new().route("/api/modules", get(list)).route("/api/connections/catalog", get(super::catalog::catalog));
    let changes = Router::new()
        .route("/api/modules/channel", put(channel))
        .route("/api/modules/operations/{id}", get(operation))
        .route("/api/modules/{short}/start", post(start))
        .route("/api/modules/{short}/stop", post(stop))
        .route("/api/modules/{short}/restart", post(restart))
        .route("/api/modules/{short}/install", post(install))
        .route("/api/modules/{short}/upgrade", post(upgrade))
        .route("/api/modules/{short}/uninstall", post(uninstall))
        .route("/api/modules/{short}/logs", get(logs));
    let door = |right: Right| {
        let site = site.clone();
        middleware::from_fn(
            move |peer: Option<Extension<std::net::SocketAddr>>,
                  headers: HeaderMap,
                  mut request: Request,
                  next: middleware::Next| {
                let admitted = admit(&site, &headers, peer.map(|Extension(peer)| peer), right, "unauthenticated");
                let admitted = admitted.map(|caller| (leave(&site, &headers, &caller), caller));
                async move {
                    let (leave, caller): (Arc<Leave>, Caller) = match admitted {
                        Ok(admitted) => admitted,
                        Err(refusal) => return refusal.into_response(),
                    };
                    request.extensions_mut().insert(leave);
                    request.extensions_mut().insert(caller);
                    let mut response = next.run(request).await;
                    response.headers_mut().insert("cache-control", axum::http::HeaderValue::from_static("no-store"));
                    response
                }
            },
        )
    };
    looks.layer(door(Right::Read)).merge(changes.layer(door(Right::Change))).method_not_allowed_fallback(no_method)
}

async fn no_method(request: Request) -> Refusal {
    let what = format!("{} is not possible here; 'Allow' says what is", request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what)
}

/// A module: the one identity by which it is known here, and what it is.
struct Module {
    short: String,
    service: Name,
    upstream: Arc<Upstream>,
}

/// Every module once. Two services of the same module have their own names, or neither could be told from the other.
fn modules(wish: &Wish) -> Vec<Module> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for upstream in wish.upstreams.values() {
        *times.entry(&upstream.module.short).or_default() += 1;
    }
    let module = |(service, upstream): (&Name, &Arc<Upstream>)| {
        let short = &upstream.module.short;
        let alone = times.get(short.as_str()) == Some(&1);
        let taken = wish.upstreams.keys().any(|other| other != service && other.as_str() == short);
        let short = if alone && !taken { short.clone() } else { service.to_string() };
        Module { short, service: service.clone(), upstream: upstream.clone() }
    };
    wish.upstreams.iter().map(module).collect()
}

/// What is known of a short name by its look.
fn known(short: &str) -> (Option<&'static str>, Focus) {
    let row = KNOWN.iter().find(|(name, _, _)| *name == short);
    row.map_or((None, Focus::Experimental), |(_, package, focus)| (Some(package), *focus))
}

/// The module that a path names: by its short name, its service, or its row in services.json.
fn find(site: &Site, short: &str) -> Result<Module, Refusal> {
    let mut all = modules(&site.wish());
    let named = |module: &Module| {
        module.short == short
            || module.service.as_str() == short
            || module.upstream.module.row.as_deref() == Some(short)
    };
    if let Some(at) = all.iter().position(named) {
        return Ok(all.swap_remove(at));
    }
    let board = site.board();
    let broken = board.resources.iter().find(|line| line.kind == KindName::Service && line.name.as_str() == short);
    if let Some(line) = broken.filter(|line| line.phase == "Invalid") {
        let what = format!("'{short}' has no start command: its manifest has a mistake ({})", line.source);
        return Err(Refusal::unprocessable("no_start_cmd", what));
    }
    if known(short).0.is_some() {
        let what = format!("'{short}' is not installed: no manifest declares it");
        return Err(Refusal::bad_request("not_installed", what));
    }
    let shown: String = short.chars().take(64).collect();
    Err(Refusal::not_found(format!("there is no module '{shown}'")))
}

/// As the older hub's supervisor says it.
fn status(upstream: &Upstream) -> &'static str {
    match upstream.state {
        Standing::Ready | Standing::Unwell => "running",
        Standing::Starting if upstream.reason == "Restarting" || upstream.restarts > 0 => "restarting",
        Standing::Starting => "starting",
        Standing::Stopped => "stopped",
        Standing::Failed => "crashed",
    }
}

/// Why it does not run as it should.
fn start_error(upstream: &Upstream) -> Option<Value> {
    if !matches!(upstream.state, Standing::Failed | Standing::Unwell) {
        return None;
    }
    let kind = match upstream.reason {
        "PortTaken" => "port_squatter",
        "ListensElsewhere" => "started_but_unbound",
        "BadInput" => "missing_dependency",
        _ if upstream.state == Standing::Unwell => "started_but_unbound",
        _ => "crashed",
    };
    Some(json!({ "error_type": kind, "error_description": upstream.message, "why": upstream.reason }))
}

/// `short, status, pid?, restartsInWindow, startError?`, as far as it is known.
fn state(module: &Module) -> Value {
    let upstream = &module.upstream;
    let mut state = Map::new();
    state.insert("short".to_owned(), module.short.clone().into());
    state.insert("status".to_owned(), status(upstream).into());
    if let Some(pid) = upstream.pid {
        state.insert("pid".to_owned(), pid.into());
    }
    state.insert("restartsInWindow".to_owned(), upstream.restarts.into());
    if let Some(exit) = &upstream.last_exit {
        state.insert("lastExit".to_owned(), exit.clone().into());
    }
    if let Some(error) = start_error(upstream) {
        state.insert("startError".to_owned(), error);
    }
    state.into()
}

/// `GET /api/modules`
async fn list(State(site): State<Site>) -> Json<Value> {
    let mut all = modules(&site.wish());
    let rank = |short: &str| match short {
        "vault" => 0,
        "scribe" => 1,
        _ => 2,
    };
    all.sort_by(|a, b| {
        let key = |module: &Module| (known(&module.short).1, rank(&module.short), module.short.clone());
        key(a).cmp(&key(b))
    });
    let supervised: Vec<Value> = all.iter().map(supervised).collect();
    let channel = site.operations.channel();
    Json(json!({
        "modules": all.iter().map(row).collect::<Vec<_>>(),
        "supervised": supervised,
        "supervisor_available": true,
        "module_install_channel": channel,
    }))
}

fn row(module: &Module) -> Value {
    let Upstream { module: about, pid, .. } = &*module.upstream;
    let (package, focus) = known(&module.short);
    json!({
        "short": module.short,
        "package": package.map(str::to_owned).or_else(|| about.row.clone()).unwrap_or_else(|| module.short.clone()),
        "display_name": about.display_name.clone().unwrap_or_else(|| module.short.clone()),
        "tagline": about.tagline.clone().unwrap_or_default(),
        "focus": focus,
        "available": true,
        // By a file, not by a call.
        "available_to_install": false,
        "installed": true,
        "installed_version": about.version,
        // Nobody looked, so nobody knows.
        "latest_version": null,
        "upgrade_available": false,
        "supervisor_status": status(&module.upstream),
        "pid": pid,
        "supervisor_start_error": start_error(&module.upstream),
        "install_dir": about.folder,
        "uis": [],
        "management_url": null,
        "config_ui_url": null,
    })
}

fn supervised(module: &Module) -> Value {
    json!({
        "short": module.short,
        "installed": true,
        "installed_version": module.upstream.module.version,
        "supervisor_status": status(&module.upstream),
        "pid": module.upstream.pid,
        "supervisor_start_error": start_error(&module.upstream),
    })
}

#[derive(Default, Deserialize)]
struct Channel {
    channel: Option<String>,
}

/// The channel in a body, if there is one.
async fn wanted_channel(request: Request<Body>) -> Result<Option<String>, Refusal> {
    let bytes = asked::body(request, BODY).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let read: Result<Channel, _> = serde_json::from_slice(&bytes);
    let Channel { channel } =
        read.map_err(|error| Refusal::bad_request("invalid_request", format!("the body: {error}")))?;
    match channel {
        Some(channel) if !CHANNELS.contains(&channel.as_str()) => Err(invalid_channel()),
        channel => Ok(channel),
    }
}

fn invalid_channel() -> Refusal {
    Refusal::bad_request("invalid_channel", "'channel' is latest or rc")
}

/// `PUT /api/modules/channel`
async fn channel(State(site): State<Site>, request: Request) -> Result<Json<Value>, Refusal> {
    let channel = wanted_channel(request).await?.ok_or_else(invalid_channel)?;
    site.operations.set_channel(&channel);
    Ok(Json(json!({ "channel": channel })))
}

/// Has it done, and waits for it. What came of it; none when it is not over yet.
async fn done(site: &Site, act: Act) -> Result<Option<Operation>, Refusal> {
    let begun = site.operations.begin(&*site.office, &site.clock, act, TIMEOUT).map_err(refused)?;
    tokio::select! {
        () = site.operations.wait(&begun, PATIENCE) => {}
        () = site.ended() => {}
    }
    let operation = site.operations.get(&begun, site.now());
    if let Some(Operation { status: Status::Failed, conclusion: None, error: Some(error), .. }) = &operation {
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "module_op_failed", sentence(error)));
    }
    Ok(operation.filter(|operation| operation.status != Status::Running))
}

fn refused(trouble: Trouble) -> Refusal {
    match trouble {
        Trouble::Busy(seconds) => {
            let what = "too much is under way; try again in a moment";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "supervisor_unavailable", what).after(seconds)
        }
        Trouble::Ending => {
            let what = "the daemon is about to end";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "supervisor_unavailable", what).after(5)
        }
        other => other.into(),
    }
}

/// Looks again until the module is so, but not for long: what is told to the hub comes a moment after what is done.
async fn settled(site: &Site, module: Module, so: impl Fn(&Upstream) -> bool) -> Module {
    let mut wishes = site.wish.clone();
    let service = module.service.clone();
    let here = |wish: &Arc<Wish>| wish.upstreams.get(&service).is_none_or(|upstream| so(upstream));
    // Cancel-safe: it only looks.
    let _ = tokio::time::timeout(NEWS, wishes.wait_for(here)).await;
    let upstream = site.wish().upstreams.get(&service).cloned();
    Module { upstream: upstream.unwrap_or_else(|| module.upstream.clone()), ..module }
}

fn against(service: &Name, wish: Against) -> Act {
    Act::Override(OverrideRequest {
        names: vec![service.clone()],
        wish,
        span: SPAN,
        reason: "by the module API".to_owned(),
    })
}

fn runs(upstream: &Upstream) -> bool {
    matches!(upstream.state, Standing::Ready | Standing::Starting | Standing::Unwell)
}

/// `POST /api/modules/:short/start`
async fn start(State(site): State<Site>, Path(short): Path<String>) -> Result<Json<Value>, Refusal> {
    let mut module = find(&site, &short)?;
    if !runs(&module.upstream) {
        let act = match module.upstream.state {
            // What gave up is tried again; what is kept stopped is let go.
            Standing::Failed => Act::Restart { names: vec![module.service.clone()] },
            _ => against(&module.service, Against::Start),
        };
        done(&site, act).await?;
        module = settled(&site, module, |upstream| upstream.state != Standing::Stopped).await;
    }
    Ok(Json(json!({ "short": module.short, "state": state(&module) })))
}

/// `POST /api/modules/:short/stop`
async fn stop(State(site): State<Site>, Path(short): Path<String>) -> Result<Json<Value>, Refusal> {
    let module = find(&site, &short)?;
    if module.upstream.state == Standing::Stopped {
        return Ok(Json(json!({ "short": module.short, "stopped": false })));
    }
    done(&site, against(&module.service, Against::Stop)).await?;
    let module = settled(&site, module, |upstream| upstream.state == Standing::Stopped).await;
    Ok(Json(json!({ "short": module.short, "stopped": true, "state": state(&module) })))
}

/// `POST /api/modules/:short/restart`
async fn restart(State(site): State<Site>, Path(short): Path<String>) -> Result<Json<Value>, Refusal> {
    let module = find(&site, &short)?;
    let before = module.upstream.pid;
    if module.upstream.state == Standing::Stopped {
        let what = format!("'{}' is stopped, so there is nothing to restart; start it", module.short);
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_supervised", what));
    }
    done(&site, Act::Restart { names: vec![module.service.clone()] }).await?;
    let module = settled(&site, module, |upstream| upstream.pid != before && upstream.pid.is_some()).await;
    Ok(Json(json!({ "short": module.short, "state": state(&module) })))
}

/// What is declared in files is not changed by a call.
fn managed(what: &str) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "managed_by_manifests", what)
}

/// `POST /api/modules/:short/install`
async fn install(
    State(site): State<Site>,
    Path(short): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    wanted_channel(request).await?;
    let module = match find(&site, &short) {
        Ok(module) => module,
        Err(_) if RETIRED.contains(&short.as_str()) => {
            let what = format!("'{short}' is retired and is not installed anew");
            return Err(Refusal::new(StatusCode::GONE, "module_retired", what));
        }
        Err(refusal) if refusal.code == "not_installed" => {
            return Err(managed(
                "modules are installed by a manifest: put a Service for it into the folder of manifests",
            ));
        }
        Err(refusal) => return Err(refusal),
    };
    if !runs(&module.upstream) {
        return Err(managed("it is declared by a manifest and does not run; start it, or mend its manifest"));
    }
    let message = format!("{} is installed and running already", module.short);
    let line = Line::Notice(NoticeLine { about: About::Watching, message });
    let id = site.operations.enter_done(Verb::Install, vec![module.service], line, site.now());
    Ok((StatusCode::ACCEPTED, Json(json!({ "operation_id": id }))))
}

/// `POST /api/modules/:short/upgrade`
async fn upgrade(State(site): State<Site>, Path(short): Path<String>, request: Request) -> Refusal {
    if let Err(refusal) = wanted_channel(request).await {
        return refusal;
    }
    let by = "its version is what its manifest and its folder say: change those, and it is restarted by itself";
    find(&site, &short).map_or_else(|refusal| refusal, |_| managed(by))
}

/// `POST /api/modules/:short/uninstall`
async fn uninstall(State(site): State<Site>, Path(short): Path<String>) -> Refusal {
    let by = "it is there because a manifest declares it: remove that file, and it is stopped and its row dropped";
    find(&site, &short).map_or_else(|refusal| refusal, |_| managed(by))
}

#[derive(Deserialize)]
struct Follow {
    follow: Option<String>,
}

/// `GET /api/modules/:short/logs`
async fn logs(
    State(site): State<Site>,
    Path(short): Path<String>,
    Extension(leave): Extension<Arc<Leave>>,
    Query(asked): Query<Follow>,
) -> Result<Response, Refusal> {
    let not_supervised = |what: String| Refusal::new(StatusCode::NOT_FOUND, "not_supervised", what);
    let module = find(&site, &short)?;
    let unheard = |trouble| match trouble {
        Trouble::Missing(what) => not_supervised(what),
        other => refused(other),
    };
    if matches!(asked.follow.as_deref(), Some("1" | "true")) {
        let lines = site.office.follow_logs(module.service, LINES).await.map_err(unheard)?;
        return lines_as_text(&site, &leave, lines);
    }
    let lines = site.office.logs(module.service, LINES).await.map_err(unheard)?;
    let lines: Vec<String> = lines.into_iter().map(|line| line.text).collect();
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    Ok(Json(json!({ "short": module.short, "lines": lines, "text": text })).into_response())
}

/// `GET /api/modules/operations/:id`
async fn operation(State(site): State<Site>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let operation = site.operations.get(&id, site.now());
    operation
        .and_then(|operation| shown(&site, &operation))
        .map(Json)
        .ok_or_else(|| Refusal::not_found("there is no such operation"))
}

/// An operation of one module as the older hub shows it.
fn shown(site: &Site, operation: &Operation) -> Option<Value> {
    let kind = match operation.verb {
        Verb::Install => "install",
        Verb::Restart => "restart",
        Verb::Reconcile | Verb::Stop | Verb::Start => return None,
    };
    let [service] = operation.names.as_slice() else { return None };
    let short = modules(&site.wish()).into_iter().find(|module| module.service == *service);
    let mut body = Map::new();
    body.insert("id".to_owned(), operation.id.clone().into());
    body.insert("kind".to_owned(), kind.into());
    body.insert("short".to_owned(), short.map_or_else(|| service.to_string(), |module| module.short).into());
    let status = match operation.status {
        Status::Running => "running",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
    };
    body.insert("status".to_owned(), status.into());
    body.insert("log".to_owned(), operation.lines.iter().filter_map(said).collect::<Vec<_>>().into());
    if let Some(error) = &operation.error {
        body.insert("error".to_owned(), error.code.clone().into());
        body.insert("error_detail".to_owned(), sentence(error).into());
    }
    body.insert("startedAt".to_owned(), operation.started_at.to_string().into());
    if let Some(at) = operation.finished_at {
        body.insert("finishedAt".to_owned(), at.to_string().into());
    }
    Some(body.into())
}

/// A line as a sentence.
fn said(line: &Line) -> Option<String> {
    match line {
        Line::Step(step) => {
            let detail = if step.message.is_empty() { &step.detail } else { &step.message };
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            Some(format!("{} {} ({}){detail}", step.action, step.resource, step.reason))
        }
        Line::Notice(notice) => Some(notice.message.clone()),
        Line::Note(note) => Some(format!("{}: {}", note.resource, note.message)),
        Line::Event(event) => Some(format!("{}: {}", event.resource, event.message)),
        Line::Waiting(waiting) => {
            waiting.waits.first().map(|wait| format!("{} waits: {}", wait.resource, wait.message))
        }
        Line::Problem(problem) => Some(format!("{}:{}: {}", problem.file, problem.line, problem.message)),
        Line::Error(error) => Some(error.message.clone()),
        _ => None,
    }
}
