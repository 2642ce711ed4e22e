//! The reverse proxy: requests under a mount go to the service that has it.

pub mod answers;
pub mod body;
mod forward;
pub mod headers;
mod pool;
pub mod table;
pub mod trust;
mod websocket;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use self::pool::Pool;
use self::table::{Table, Target};
use super::bounds::Bounds;
use super::gate::Gate;
use super::limit::Limiter;
use super::metrics::{Meter, Metrics};
use super::site::Site;
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

/// What all workers share.
#[derive(Clone)]
pub struct Means {
    tables: watch::Receiver<Arc<Table>>,
    bounds: Arc<Bounds>,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock + Send + Sync>,
    metrics: Metrics,
    failures: Arc<Limiter>,
    websockets: Arc<Gate>,
    /// Requests of clients that do not speak from this machine.
    requests: Arc<Gate>,
    /// Requests that a service has and has not answered to the end, over all workers.
    pub busy: Arc<Busy>,
}

impl Means {
    pub fn new(site: &Site, tables: watch::Receiver<Arc<Table>>, bounds: Arc<Bounds>) -> Self {
        let (authority, clock, metrics) = (site.authority.clone(), site.clock.clone(), site.metrics.clone());
        let gauge = metrics.websockets.clone();
        let websockets = Gate::new(bounds.websockets, bounds.websockets_per_client, gauge);
        let requests = Gate::new(usize::MAX, bounds.requests_per_client, Gauge::default());
        let failures = site.failures.clone();
        Self { tables, bounds, authority, clock, metrics, failures, websockets, requests, busy: Arc::default() }
    }
}

/// How many requests services have under way.
#[derive(Default)]
pub struct Busy(Mutex<HashMap<Name, Arc<AtomicUsize>>>);

impl Busy {
    fn all(&self) -> MutexGuard<'_, HashMap<Name, Arc<AtomicUsize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The count of one service, for as long as anybody holds it.
    fn of(&self, service: &Name) -> Arc<AtomicUsize> {
        let mut all = self.all();
        if let Some(count) = all.get(service) {
            return count.clone();
        }
        // Whoever is gone by now leaves no trace.
        all.retain(|_, count| Arc::strong_count(count) > 1);
        all.entry(service.clone()).or_default().clone()
    }

    pub fn requests(&self, service: &Name) -> usize {
        self.all().get(service).map_or(0, |count| count.load(Ordering::SeqCst))
    }
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

/// A table, and what belongs to its targets, by their positions.
struct Current {
    table: Arc<Table>,
    pools: Vec<Arc<Pool>>,
    meters: Vec<Arc<Meter>>,
}

impl Current {
    /// Connections to a process that is still the same one stay.
    fn of(table: Arc<Table>, before: Option<&Self>, means: &Means) -> Self {
        let (mut pools, mut meters) = (Vec::new(), Vec::new());
        let targets = before.map_or(&[][..], |before| &before.table.targets);
        let slots: HashMap<&Name, usize> = targets.iter().map(|target| &target.service).zip(0..).collect();
        for target in &table.targets {
            let old = before.and_then(|before| Some((before, *slots.get(&target.service)?)));
            let same =
                |old: &Target| (old.upstream.port, old.upstream.pid) == (target.upstream.port, target.upstream.pid);
            pools.push(match old {
                Some((before, slot)) if same(&before.table.targets[slot]) => before.pools[slot].clone(),
                _ => {
                    let busy = means.busy.of(&target.service);
                    Pool::new(target.upstream.port.unwrap_or_default(), means.bounds.clone(), busy)
                }
            });
            meters.push(match old {
                Some((before, slot)) => before.meters[slot].clone(),
                None => Arc::new(means.metrics.meter(&target.service)),
            });
        }
        Self { table, pools, meters }
    }
}

impl Proxy {
    pub fn new(means: Means) -> Self {
        let mut tables = means.tables.clone();
        let table = tables.borrow_and_update().clone();
        let current = Arc::new(Current::of(table, None, &means));
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
            now.current = Arc::new(Current::of(table, Some(&now.current), &self.means));
        }
        now.current.clone()
    }

    /// Whether there is another table than this one. Who has counted its request before asking, and is told that there is none, is seen
    /// by whoever makes another one and then looks at the counts.
    fn is_stale(&self, current: &Arc<Current>) -> bool {
        fence(Ordering::SeqCst);
        !Arc::ptr_eq(&self.current(), current)
    }

    /// Rung when there is another table than the one in force.
    fn changes(&self) -> watch::Receiver<Arc<Table>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).tables.clone()
    }
}
