//! The hub behind the engine: served by the continuous mode, and only looked at by every other process.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::bell::Ringer;
use crate::adapters::clock::{SystemClock, random_bytes};
use crate::authority::Authority;
use crate::cli::exit::Failure;
use crate::engine::Report;
use crate::hub::{Board, Bounds, Parts, Server};
use crate::ports::hub::{Hub, Standing, Wish};

/// Requests under way have so long when the daemon ends.
const GRACE: Duration = Duration::from_secs(5);

/// Serves nothing before [`LazyHub::serve`].
#[derive(Default)]
pub(super) struct LazyHub {
    server: RefCell<Option<Server>>,
}

impl LazyHub {
    /// From now on what it is told is served.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn serve(&self, ringer: &Ringer) -> Result<(), Failure> {
        let ringer = ringer.clone();
        let parts = Parts {
            authority: Arc::new(Authority::default()),
            instance: Arc::from(instance()?),
            bell: Arc::new(move || ringer.ring()),
            clock: Arc::new(SystemClock),
            holder: None,
            finished: None,
            bounds: Bounds::default(),
        };
        *self.server.borrow_mut() = Some(Server::start(parts).map_err(anyhow::Error::from)?);
        Ok(())
    }

    /// What a tick reported.
    pub(super) fn publish(&self, report: &Report) {
        if let Some(server) = &*self.server.borrow() {
            server.publish(Board { resources: report.resources.clone(), settled: report.settled });
        }
    }

    /// Gives requests a moment, and ends.
    pub(super) fn end(&self) {
        let server = self.server.borrow_mut().take();
        if let Some(server) = server {
            server.end(GRACE);
        }
    }
}

/// A number that no other process has.
fn instance() -> Result<String, Failure> {
    let bytes = random_bytes::<16>().map_err(anyhow::Error::from)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Hub for LazyHub {
    fn tell(&self, wish: Wish) {
        if let Some(server) = &*self.server.borrow() {
            server.tell(wish);
        }
    }

    fn standing(&self) -> Standing {
        self.server.borrow().as_ref().map(Server::standing).unwrap_or_default()
    }
}
