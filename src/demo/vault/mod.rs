//! Vaults of notes, with triggers that send notes to webhooks as they come and change. Several vaults live in one process, each in
//! `<home>/vault/<name>`; without a home there is one, in memory.
//!
//! It speaks the notes and triggers API of the vault module that trueup's users run, so that a client cannot tell the two apart.

mod desk;
mod door;
mod hooks;
mod note;
mod notes;
mod operators;
mod predicate;
mod query;
mod store;
mod triggers;
mod vaults;
mod verbs;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;

use self::desk::{Desk, Faults};
use self::door::Rules;
use self::hooks::Hooks;
use self::vaults::Vaults;
use super::args::{Args, VaultFaults};
use super::guard::Guard;
use super::{Identity, registration, say};

pub(super) use self::verbs::follow;

pub(super) const IDENTITY: Identity = Identity {
    short: "vault",
    row: "parachute-vault",
    port: 1940,
    mount: "/vault/default",
    health: "/vault/default/health",
    display_name: "Demo vault",
    tagline: "Keeps notes in a file",
};

/// The path under which the number of notes is told.
pub(super) const COUNT_PATH: &str = "/vault/default/api/count";

/// How often it looks whether vaults have come or gone.
const LOOK: Duration = Duration::from_millis(200);

/// The vaults of this process, ready to serve.
pub(super) struct Served {
    pub(super) routes: Router,
    /// Where the vaults are, for the module's row.
    pub(super) paths: Vec<String>,
}

pub(super) fn served(args: &Args, identity: &Identity) -> Result<Served, String> {
    let folder = args.home.as_deref().map(|home| vaults::folder(home, identity.row));
    let vaults = Vaults::new(folder);
    vaults.start(args.vault.first()).map_err(|error| format!("no vault: {error}"))?;
    let paths = paths(&vaults);
    let VaultFaults { triggers_fail, lose_answers, slow_api, forget_triggers_while } = &args.vault_faults;
    let status = triggers_fail.map(StatusCode::from_u16).transpose();
    let faults = Faults {
        triggers_fail: status.map_err(|_| "--triggers-fail takes a status code".to_owned())?,
        lose_answers: AtomicU64::new(lose_answers.unwrap_or(0)),
        slow_api: slow_api.map(Duration::from_millis),
        sick_while: args.sick_while.clone(),
    };
    let operator_token = args.vault.auth_token.clone().map(|token| token.trim().to_owned());
    let desk = Desk {
        vaults,
        guard: Guard::new(&args.hub),
        rules: Rules {
            require_token: args.vault.require_token,
            operator_token: operator_token.filter(|token| !token.is_empty()),
        },
        hooks: Arc::new(Hooks::new(args.vault.hook_concurrency(), forget_triggers_while.clone())),
        faults,
    };
    let desk = Arc::new(desk);
    if let Some(home) = args.home.clone() {
        tokio::spawn(watch(desk.clone(), home, identity.row, paths.clone()));
    }
    Ok(Served { routes: desk::routes(desk, identity), paths })
}

fn paths(vaults: &Vaults) -> Vec<String> {
    vaults.names().iter().map(|name| path(name)).collect()
}

fn path(vault: &str) -> String {
    format!("/vault/{vault}")
}

/// Keeps the paths of the module's row at what there is. Never ends.
async fn watch(desk: Arc<Desk>, home: PathBuf, row: &'static str, mut known: Vec<String>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let now = paths(&desk.vaults);
        if now == known {
            continue;
        }
        match registration::set_paths(&home, row, &now) {
            Ok(()) => known = now,
            Err(error) => say(&format!("vault cannot tell its paths in {}: {error}", home.display())),
        }
    }
}
