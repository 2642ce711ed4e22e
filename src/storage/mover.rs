//! The mover: a thread that sleeps until something is wished or due, and the engine's verbs on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use super::shared::{Open, Parts};
use super::shared::{Shared, locked};
use super::turn::{Core, FAILING, Next, PROVEN, REFUSED, UNWELL};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::unit::Millis;
use crate::ports::PortError;
use crate::ports::blobs::{IndexError, Standing};
use crate::ports::storage::{Finding, Health, Intent, Status, Storage, Told};

/// So many blobs with a finding are shown; the index knows them all.
const SHOWN: usize = 8;
/// After a panic (a mistake of ours) the thread does not come back at once.
const AFTER_PANIC: Millis = Millis(60_000);
/// So long its end is waited for.
const STOPS_WITHIN: Millis = Millis(5_000);
/// So long whoever tells it something waits for its first look at the backends; most take milliseconds.
const FIRST_LOOK: Millis = Millis(1_000);
/// The note of the last migration whose end was told.
const TOLD: &str = "told-migration";

/// The storage as the engine has it. Nothing runs before the first [`Storage::tell`], and nothing after [`Mover::stop`].
pub struct Mover {
    parts: Parts,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The last migration whose end was told, plus one; zero when the index was not asked yet.
    told: AtomicU64,
}

impl Mover {
    pub fn start(parts: Parts) -> Self {
        let shared = Arc::new(Shared::new(parts.bell.clone()));
        Self { parts, shared, thread: Mutex::new(None), told: AtomicU64::new(0) }
    }

    /// The mover without a thread, for whoever wants to take each turn by himself.
    pub fn core(&self) -> Core {
        Core::new(self.parts.clone(), self.shared.clone())
    }

    /// Says what is wished without making a thread for it.
    pub fn wish(&self, intent: &Intent) -> bool {
        self.shared.tell(intent)
    }

    /// Ends it: between two objects, or between two pieces of a large one. Waits for the thread, but not for a server that does not
    /// answer: whatever the thread is at, it may be killed in it.
    pub fn stop(&self) {
        self.shared.end();
        let thread = locked(&self.thread).take();
        if let Some(thread) = thread {
            let last = self.parts.clock.now() + STOPS_WITHIN;
            while !thread.is_finished() {
                if self.parts.clock.now() >= last {
                    return tracing::warn!("the storage is left in the middle of a call that does not end");
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
            // A panic in it was logged by the thread itself.
            let _ = thread.join();
        }
    }

    fn hire(&self) {
        let mut thread = locked(&self.thread);
        if thread.is_some() || self.shared.ended() {
            return;
        }
        let mut core = self.core();
        let shared = self.shared.clone();
        match Builder::new().name("storage".to_owned()).spawn(move || live(&mut core, &shared)) {
            Ok(handle) => *thread = Some(handle),
            Err(error) => tracing::error!(%error, "no thread could be made for the storage"),
        }
    }

    fn proven_before(&self) -> Result<BTreeMap<Name, Health>, IndexError> {
        let named = |(name, text): (String, String)| Some((Name::new(&name).ok()?, text));
        let proven = self.parts.index.notes(PROVEN)?.into_iter().filter_map(named);
        let mut health: BTreeMap<Name, Health> =
            proven.map(|(name, digest)| (name, Health::Proven(Digest::stored(digest)))).collect();
        for (name, text) in self.parts.index.notes(UNWELL)?.into_iter().filter_map(named) {
            if let Some(why) = text.strip_prefix(REFUSED) {
                health.insert(name, Health::Refused(why.to_owned()));
            } else if let Some(why) = text.strip_prefix(FAILING) {
                health.insert(name, Health::Failing { why: why.to_owned(), retry_at: self.parts.clock.wall() });
            }
        }
        Ok(health)
    }

    /// The end of a migration is in the index, so that a kill between the end and the telling loses nothing.
    fn ended_migration(&self, standing: &Standing) -> Result<Option<Told>, IndexError> {
        if self.told.load(Ordering::Relaxed) == 0 {
            let noted = self.parts.index.note(TOLD)?.and_then(|text| text.parse::<u64>().ok());
            self.told.store(noted.map_or(1, |id| id + 1), Ordering::Relaxed);
        }
        let migration = match &standing.migration {
            Some(migration) => Some(migration.clone()),
            None => self.parts.index.migrations(1)?.into_iter().next(),
        };
        let Some(migration) = migration.filter(|migration| migration.id >= self.told.load(Ordering::Relaxed)) else {
            return Ok(None);
        };
        let (Some(ended), "done") = (migration.ended, migration.outcome.as_str()) else { return Ok(None) };
        self.parts.index.set_note(TOLD, &migration.id.to_string())?;
        self.told.store(migration.id + 1, Ordering::Relaxed);
        let took = Millis(u64::try_from(ended.0 - migration.begun.0).unwrap_or(0));
        let (objects, bytes) = (migration.moved, migration.moved_bytes);
        let what = Finding::Migrated { from: migration.from, to: migration.to, objects, bytes, took };
        Ok(Some(Told { at: ended, what }))
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.stop();
    }
}

fn live(core: &mut Core, shared: &Shared) {
    while !shared.ended() {
        let round = shared.round();
        let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| core.turn()));
        let now = core.now();
        let next = turn.unwrap_or_else(|_| {
            tracing::error!("the storage panicked and begins anew");
            Next::At(now + AFTER_PANIC)
        });
        match next {
            Next::Again => {}
            Next::At(due) => shared.wait(round, Some(due - now)),
            Next::Told => shared.wait(round, None),
        }
    }
}

fn port(error: IndexError) -> PortError {
    PortError::Retry(error.to_string())
}

impl Storage for Mover {
    fn status(&self) -> Result<Status, PortError> {
        let index = &self.parts.index;
        let standing = index.standing().map_err(port)?;
        let mut troubled = Vec::new();
        if standing.troubled() > 0 {
            for row in index.troubled(None, SHOWN).map_err(port)? {
                let Some(trouble) = row.trouble else { continue };
                for key in index.keys_of(&row.object.name).map_err(port)?.into_iter().take(SHOWN) {
                    let why = format!("{}: {}", trouble.fault.as_str(), trouble.detail);
                    troubled.push((key, row.place.clone(), why));
                }
            }
            troubled.truncate(SHOWN);
        }
        let progress = self.shared.meter.progress(&standing, self.parts.clock.now());
        // What was proven in an earlier life counts until this one has looked for itself.
        let mut health = self.proven_before().map_err(port)?;
        health.extend(self.shared.health());
        Ok(Status { standing, health, motion: self.shared.motion(), busy: self.shared.busy(), progress, troubled })
    }

    fn tell(&self, intent: &Intent) -> bool {
        let news = self.shared.tell(intent);
        if news {
            self.hire();
            self.shared.wait_for_proofs(FIRST_LOOK);
        }
        news
    }

    fn activate(&self, place: &Name) -> Result<(), PortError> {
        self.parts.index.activate(place, self.parts.clock.wall()).map_err(port)?;
        self.shared.look_again();
        Ok(())
    }

    fn migrate(&self, target: &Name) -> Result<(), PortError> {
        self.parts.index.begin(target, self.parts.clock.wall()).map_err(port)?;
        self.shared.look_again();
        Ok(())
    }

    fn told(&self) -> Result<Vec<Told>, PortError> {
        let standing = self.parts.index.standing().map_err(port)?;
        let ended = self.ended_migration(&standing).map_err(port)?;
        let mut told = self.shared.findings();
        told.extend(ended);
        Ok(told)
    }
}
