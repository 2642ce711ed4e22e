//! What becomes of keys and tokens by the passing of time: the operator token is renewed, and what expired long ago is forgotten. None of it
//! happens before the hub is to listen somewhere: a tree that serves nothing needs no keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::site::Site;
use crate::model::time::Timestamp;
use crate::ports::tokens::{SecretFile, StoreFault};

/// Between two looks, when nothing changes.
const EVERY: Duration = Duration::from_secs(60);
/// What ended long ago is forgotten so often, the first time when the hub has run so long: a clock that was wrong when the machine started
/// is right by then.
const FORGET: Duration = Duration::from_secs(3_600);
/// More than a database holds, each time.
const MOST_SWEEPS: usize = 400;
/// After one that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// The file of the operator token in a home.
pub type OperatorFile = Arc<dyn Fn(&Path) -> Box<dyn SecretFile> + Send + Sync>;

/// Looks again and again, and when the home or the origins change. Never ends.
pub(super) async fn keep(site: Site, file: OperatorFile) {
    let mut wishes = site.wish.clone();
    let mut watching = false;
    let mut forgot = Instant::now();
    loop {
        let wish = wishes.borrow_and_update().clone();
        let mut pause = EVERY;
        if wish.listen.is_some() {
            if !std::mem::replace(&mut watching, true) {
                // The database is opened by its first look.
                let _ = site.vital.looked().await;
                tokio::spawn(site.vital.clone().watch());
            }
            site.authority.set_origins(&wish.origin, &wish.origins);
            let (own, file, home) = (site.clone(), file.clone(), wish.home.clone());
            let forget = forgot.elapsed() >= FORGET;
            if forget {
                forgot = Instant::now();
            }
            let work = tokio::task::spawn_blocking(move || tend(&own, &file, &home, forget, own.clock.wall()));
            if !work.await.unwrap_or(false) {
                pause = AGAIN;
            }
        }
        let (home, origin) = (wish.home.clone(), wish.origin.clone());
        // All arms are cancel-safe.
        tokio::select! {
            changed = wishes.wait_for(|now| now.home != home || now.origin != origin || now.listen.is_some() != wish.listen.is_some()) => {
                if changed.is_err() {
                    return;
                }
            }
            () = site.vital.opened_anew() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether all went well.
fn tend(site: &Site, file: &OperatorFile, home: &Path, forget: bool, now: Timestamp) -> bool {
    if site.authority.store().is_none() {
        return false;
    }
    if forget && let Err(error) = sweep(site, now) {
        // There is another hour.
        tracing::warn!(%error, "tokens that ended long ago are not forgotten");
    }
    match site.authority.keep_operator_token(&*file(home), now) {
        Ok(kept) => {
            if let Some(mode) = kept.mode_was {
                tracing::warn!(
                    mode = format!("{mode:o}"),
                    "others could read the operator token; its mode was put right"
                );
            }
            if let Some(why) = kept.renewed {
                tracing::info!(jti = kept.jti, why, "the operator token was renewed");
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, "there may be no good operator token");
            false
        }
    }
}

fn sweep(site: &Site, now: Timestamp) -> Result<(), StoreFault> {
    for _ in 0..MOST_SWEEPS {
        if site.authority.sweep(now)? == 0 {
            break;
        }
    }
    Ok(())
}
