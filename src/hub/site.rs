//! What every request may look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::{Semaphore, watch};

use super::limit::Limiter;
use super::metrics::Metrics;
use super::office::{Act, Office};
use super::operations::Operations;
use super::vital::Vital;
use crate::authority::{Authority, Caller};
use crate::model::id::Name;
use crate::model::output::{ProblemLine, ProgressLine, ResourceLine, StepLine, WaitLine};
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::deliveries::Post;
use crate::ports::hub::Wish;

/// How long a token that is to be revoked is left in force while it is replaced.
const REPLACE_LIMIT: Millis = Millis::secs(5);

/// What was last reported of the machine.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// One more whenever the resources differ from those before by more than the time that they have run.
    pub version: u64,
    /// When it was looked at.
    pub at: Timestamp,
    /// Sorted by identity.
    pub resources: Vec<ResourceLine>,
    /// The mistakes in the manifests.
    pub problems: Vec<ProblemLine>,
    /// What this tick did.
    pub steps: Vec<StepLine>,
    /// How many steps wait for something.
    pub later: usize,
    /// What is waited for.
    pub waits: Vec<WaitLine>,
    /// Set while blobs are moved.
    pub progress: Option<ProgressLine>,
    /// Nothing is left to do or to wait for.
    pub settled: bool,
    /// A removal waits for a person to say so.
    pub refused: bool,
    /// How long the tick took, and how long until the next one if nothing happens.
    pub took: Millis,
    pub pause: Millis,
}

impl Board {
    /// Whether the same is to be said of the resources; how long they have run is no news.
    pub fn same_resources(&self, other: &Self) -> bool {
        self.resources.len() == other.resources.len()
            && self.resources.iter().zip(&other.resources).all(|(a, b)| same(a, b))
    }
}

/// Whether the same is to be said of a resource; how long it has run is no news.
pub fn same(a: &ResourceLine, b: &ResourceLine) -> bool {
    // Without a copy: a board may hold thousands of them, and is compared after every tick.
    let ResourceLine {
        kind,
        name,
        source,
        generation,
        conditions,
        phase,
        pid,
        port,
        restarts,
        uptime_ms: _,
        last_exit,
        says,
        pause,
        next_run,
    } = a;
    (*kind, name, source, *generation, conditions, phase)
        == (b.kind, &b.name, &b.source, b.generation, &b.conditions, &b.phase)
        && (*pid, *port, *restarts, last_exit, says) == (b.pid, b.port, b.restarts, &b.last_exit, &b.says)
        && (pause, next_run) == (&b.pause, &b.next_run)
}

/// Shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    pub wish: watch::Receiver<Arc<Wish>>,
    pub board: watch::Receiver<Arc<Board>>,
    pub authority: Arc<Authority>,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub(super) vital: Vital,
    /// Tells this process from any other that answers on our port.
    pub instance: Arc<str>,
    /// Where the engine is asked.
    pub office: Arc<dyn Office>,
    /// Where events are delivered.
    pub post: Arc<dyn Post>,
    /// Has the engine look.
    pub bell: Arc<dyn Fn() + Send + Sync>,
    /// When it was last rung for a request, in milliseconds since 1970.
    pub(super) rung: Arc<AtomicI64>,
    /// Room for bodies of events that are being read, in KiB.
    pub(super) inbox: Arc<Semaphore>,
    /// What was begun by requests.
    pub operations: Arc<Operations>,
    /// Requests without a good token, by address.
    pub failures: Arc<Limiter>,
    /// Seats for answers that go on.
    pub streams: Arc<Semaphore>,
    /// See [`super::Bounds::recheck`].
    pub recheck: std::time::Duration,
    /// Says when the hub ends; what would go on for ever ends with it.
    pub ends: watch::Receiver<Option<std::time::Duration>>,
}

impl Site {
    /// At most once a second: whoever may not do something cannot keep the engine busy.
    pub(super) fn may_ring(&self) -> bool {
        let now = self.now().0;
        let last = self.rung.load(Ordering::Relaxed);
        (now - last).abs() >= 1_000
            && self.rung.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Has other tokens put in place for the connection that uses this one, before it is revoked: no event is refused by that. Who may not
    /// revoke it, and what takes too long, changes nothing.
    pub(super) async fn replace_first(&self, jti: &str, by: &Caller) {
        if !by.is_operator() {
            return;
        }
        let (authority, jti) = (self.authority.clone(), jti.to_owned());
        let row = tokio::task::spawn_blocking(move || authority.find(&jti)).await;
        let row = row.ok().and_then(Result::ok).flatten().filter(|row| row.revoked.is_none());
        let name = row.and_then(|row| Name::new(row.client.strip_prefix("connection/")?.split('/').next()?).ok());
        let Some(connection) = name else { return };
        let Ok(mut said) = self.office.act(Act::Renew { connections: vec![connection] }, REPLACE_LIMIT) else { return };
        let over = async { while said.recv().await.is_some() {} };
        let _ = tokio::time::timeout(REPLACE_LIMIT.into(), over).await;
    }

    /// What is served now.
    pub fn wish(&self) -> Arc<Wish> {
        self.wish.borrow().clone()
    }

    pub fn board(&self) -> Arc<Board> {
        self.board.borrow().clone()
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Ends when the hub ends, or is to listen elsewhere: connections are let go then. Cancel-safe.
    pub async fn ended(&self) {
        let (mut ends, mut wishes) = (self.ends.clone(), self.wish.clone());
        let here = wishes.borrow().listen.clone();
        // Both arms are cancel-safe. Without its sender, the hub is gone already.
        tokio::select! {
            _ = ends.wait_for(Option::is_some) => {}
            _ = wishes.wait_for(|wish| wish.listen != here) => {}
        }
    }
}
