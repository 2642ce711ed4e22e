//! What all demonstration modules have in common on the wire: the port, health, `.parachute/info`, the log of requests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::args::Args;
use super::cut::{Cut, Cuttable};
use super::{Identity, registration, say};

/// How often it looks whether it is still sick, and the longest pause between two signs of life.
const SICK_LOOK: Duration = Duration::from_millis(50);

/// Listens, registers, says so in one line, and serves until it is stopped.
pub(super) async fn serve(
    args: &Args,
    identity: &Identity,
    routes: Router,
    paths: &[String],
    stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    let wanted = args.listen_on.unwrap_or_else(|| ladder(args, identity));
    let bound = match passed() {
        Some(socket) => TcpListener::from_std(socket),
        None => TcpListener::bind(("127.0.0.1", wanted)).await,
    };
    let listener = bound.map_err(|error| format!("{} cannot listen on port {wanted}: {error}", identity.short))?;
    let port = listener.local_addr().map_err(|error| format!("a port without a number: {error}"))?.port();
    if let Some(home) = &args.home
        && let Err(error) = registration::register(home, identity, port, paths)
    {
        say(&format!("{} is not registered in {}: {error}", identity.short, home.display()));
    }
    let pid = std::process::id();
    say(&format!("{} listens port={port} pid={pid} logLevel={}", identity.short, args.log_level));
    let routes = with_conventions(routes, identity, port, args.sick_while.clone());
    if args.notify {
        tokio::spawn(speak(args.sick_while.clone(), format!("listens on {port}")));
    }
    let routes = if matches!(args.log_level.as_str(), "debug" | "trace") { routes.layer(from_fn(log)) } else { routes };
    let until = async {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopped.await;
    };
    let service = routes.into_make_service_with_connect_info::<Cut>();
    axum::serve(Cuttable(listener), service).with_graceful_shutdown(until).await.map_err(|error| error.to_string())
}

/// services.json before configuration before PORT before the default: a wrong row makes a module listen at the wrong port.
fn ladder(args: &Args, identity: &Identity) -> u16 {
    registration::port_of(args.home.as_deref(), identity.row).or(args.port).unwrap_or(identity.port)
}

/// The socket that was handed over already listening, if one was.
fn passed() -> Option<std::net::TcpListener> {
    let socket = ListenFd::from_env().take_tcp_listener(0).ok().flatten()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// Says that it is ready as soon as it is well, and then that it lives, twice as often as is asked.
async fn speak(sick_while: Option<PathBuf>, status: String) {
    let is_sick = || sick_while.as_ref().is_some_and(|file| file.exists());
    let often = sd_notify::watchdog_enabled().map_or(SICK_LOOK, |span| (span / 2).min(SICK_LOOK));
    let mut said = false;
    loop {
        if !is_sick() {
            let mut words = vec![NotifyState::Watchdog];
            if !std::mem::replace(&mut said, true) {
                words = vec![NotifyState::Ready, NotifyState::Status(&status)];
            }
            // A keeper that is being replaced does not hear; it is told again.
            let _ = sd_notify::notify(&words);
        }
        tokio::time::sleep(often).await;
    }
}

fn with_conventions(routes: Router, identity: &Identity, port: u16, sick_while: Option<PathBuf>) -> Router {
    let health = json!({ "status": "ok", "service": identity.row, "port": port, "pid": std::process::id() });
    let about = info(identity);
    routes
        .route(identity.health, get(async move || is_well(sick_while.as_deref(), health)))
        .route(&format!("{}/.parachute/info", identity.mount), get(async move || about))
        .fallback(async || problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"))
}

/// The card of a module.
pub(super) type About = ([(HeaderName, HeaderValue); 1], Json<Value>);

/// The card of a module, for everybody.
pub(super) fn info(identity: &Identity) -> About {
    let info = json!({
        "name": identity.short,
        "manifestName": identity.row,
        "displayName": identity.display_name,
        "tagline": identity.tagline,
        "version": env!("CARGO_PKG_VERSION"),
    });
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))], Json(info))
}

/// The answer about its health.
pub(super) fn is_well(sick_while: Option<&Path>, health: Value) -> Response {
    if sick_while.is_some_and(Path::exists) {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "sick", "the file of --sick-while exists");
    }
    Json(health).into_response()
}

async fn log(request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    say(&format!("{line} {}", response.status().as_u16()));
    response
}

/// The error body of all modules.
pub(super) fn problem(status: StatusCode, error: &str, description: &str) -> Response {
    (status, Json(json!({ "error": error, "error_description": description }))).into_response()
}
