//! The reverse proxy: requests under a mount go to the service that has it.

pub mod answers;
pub mod body;
mod forward;
pub mod headers;
mod pool;
pub mod table;
pub mod trust;

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;

use self::pool::Pool;
use self::table::{Table, Target};
use super::bounds::Bounds;
use crate::authority::Authority;
use crate::model::id::Name;
use crate::ports::clock::Clock;

/// Who is connected, and how.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// By TLS.
    pub secure: bool,
}

/// A request that a service was asked for, when it is over.
#[derive(Debug)]
pub struct Finished<'a> {
    pub service: &'a Name,
    /// What the client was told.
    pub status: StatusCode,
    /// From the head of the request to the end of the answer.
    pub took: Duration,
    /// From the head of the request to the head of the answer.
    pub waited: Duration,
    /// `false` when the answer was cut off, by either side.
    pub whole: bool,
}

/// Told of every finished request; must not block.
pub type Ears = Arc<dyn Fn(&Finished<'_>) + Send + Sync>;

/// What all workers share.
#[derive(Clone)]
pub struct Means {
    pub tables: watch::Receiver<Arc<Table>>,
    pub bounds: Arc<Bounds>,
    pub authority: Arc<Authority>,
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub finished: Option<Ears>,
}

/// The proxy of one worker.
pub struct Proxy {
    means: Means,
    now: Mutex<Now>,
    /// Requests that wait for a module.
    held: AtomicUsize,
}

struct Now {
    tables: watch::Receiver<Arc<Table>>,
    current: Arc<Current>,
}

/// A table and the connections to its targets.
struct Current {
    table: Arc<Table>,
    pools: Vec<Arc<Pool>>,
}

impl Current {
    /// Connections to a process that is still the same one stay.
    fn of(table: Arc<Table>, before: Option<&Self>, bounds: &Arc<Bounds>) -> Self {
        let kept = |target: &Arc<Target>| {
            let before = before?;
            let slot = before.table.targets.iter().position(|old| {
                let (old, new) = (&old.upstream, &target.upstream);
                old.port == new.port && old.pid == new.pid
            })?;
            (before.table.targets[slot].service == target.service).then(|| before.pools[slot].clone())
        };
        let fresh = |target: &Arc<Target>| Pool::new(target.upstream.port.unwrap_or_default(), bounds.clone());
        let pools = table.targets.iter().map(|target| kept(target).unwrap_or_else(|| fresh(target))).collect();
        Self { table, pools }
    }
}

impl Proxy {
    pub fn new(means: Means) -> Self {
        let mut tables = means.tables.clone();
        let table = tables.borrow_and_update().clone();
        let current = Arc::new(Current::of(table, None, &means.bounds));
        Self { means, now: Mutex::new(Now { tables, current }), held: AtomicUsize::new(0) }
    }

    /// A client may pause so long in a body.
    pub fn body_pause(&self) -> Duration {
        self.means.bounds.body_pause
    }

    /// The table in force.
    fn current(&self) -> Arc<Current> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.tables.has_changed().unwrap_or(false) {
            let table = now.tables.borrow_and_update().clone();
            now.current = Arc::new(Current::of(table, Some(&now.current), &self.means.bounds));
        }
        now.current.clone()
    }

    /// Rung when there is another table than the one in force.
    fn changes(&self) -> watch::Receiver<Arc<Table>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).tables.clone()
    }
}

/// Tells of a request when it is over, however it ends.
pub struct Done {
    ears: Option<Ears>,
    target: Arc<Target>,
    begun: Instant,
    answered: Instant,
    status: StatusCode,
    whole: bool,
}

impl Done {
    fn new(ears: Option<Ears>, target: Arc<Target>, begun: Instant, status: StatusCode) -> Self {
        let answered = if ears.is_some() { Instant::now() } else { begun };
        Self { ears, target, begun, answered, status, whole: false }
    }

    /// The answer was complete.
    pub fn whole(&mut self) {
        self.whole = true;
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(ears) = &self.ears {
            ears(&Finished {
                service: &self.target.service,
                status: self.status,
                took: self.begun.elapsed(),
                waited: self.answered - self.begun,
                whole: self.whole,
            });
        }
    }
}
