//! The hub behind the engine: served by the continuous mode, and only looked at by every other process.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::bell::Ringer;
use super::control::known;
use super::emit;
use crate::adapters::clock::{SystemClock, random_bytes};
use crate::authority::Authority;
use crate::cli::exit::Failure;
use crate::engine::Report;
use crate::engine::report::is_manifest_problem;
use crate::hub::office::Office;
use crate::hub::{Board, Parts, Server};
use crate::ports::clock::Clock;
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
    pub(super) fn serve(&self, ringer: &Ringer, office: Arc<dyn Office>) -> Result<(), Failure> {
        let ringer = ringer.clone();
        let parts = Parts {
            authority: Arc::new(Authority::default()),
            clock: Arc::new(SystemClock),
            office,
            instance: Arc::from(instance()?),
            bell: Arc::new(move || ringer.ring()),
        };
        *self.server.borrow_mut() = Some(Server::start(parts).map_err(anyhow::Error::from)?);
        Ok(())
    }

    /// What a tick reported.
    pub(super) fn publish(&self, report: &Report) {
        if let Some(server) = &*self.server.borrow() {
            let problems = report.problems.iter().filter(|problem| is_manifest_problem(problem));
            server.publish(Board {
                version: 0,
                at: SystemClock.wall(),
                resources: known(report),
                problems: problems.map(|problem| emit::problem_line(problem, &report.sources)).collect(),
                settled: report.settled,
            });
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
