//! The hub behind the engine: served by the continuous mode, and only looked at by every other process.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::bell::Ringer;
use super::build::LEDGER;
use super::control::known;
use super::database;
use super::emit;
use super::instance::{self, INSTANCE, Instance, Note};
use super::witness::Witness;
use crate::adapters::clock::{SystemClock, random_bytes};
use crate::adapters::descriptors;
use crate::adapters::hubdb::file::OwnFile;
use crate::adapters::sockets::ProcSockets;
use crate::authority::operator;
use crate::cli::exit::Failure;
use crate::engine::Report;
use crate::engine::report::is_manifest_problem;
use crate::hub::office::Office;
use crate::hub::{Board, Bounds, Parts, Server, vital};
use crate::model::id::Name;
use crate::model::output::ProblemLine;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::Answer;
use crate::ports::clock::Clock;
use crate::ports::deliveries::Post;
use crate::ports::hub::{Hub, Standing, Wish};
use crate::ports::sockets::{Sockets as _, Sought};
use crate::ports::store::Store;

/// Requests under way have so long when the daemon ends.
const GRACE: Duration = Duration::from_secs(5);

/// Serves nothing before [`LazyHub::serve`].
pub(super) struct LazyHub {
    state: PathBuf,
    server: RefCell<Option<Served>>,
    /// What it is served with as soon as somebody needs it.
    standby: RefCell<Option<Standby>>,
    /// Why the process cannot go on.
    lost: Arc<Mutex<Option<String>>>,
    /// The database of keys and tokens was opened.
    opened: Arc<AtomicBool>,
    /// Where events are delivered.
    post: Arc<dyn Post>,
}

struct Standby {
    ringer: Ringer,
    office: Arc<dyn Office>,
    store: Rc<dyn Store>,
}

struct Served {
    server: Server,
    instance: String,
    started: Timestamp,
    home: PathBuf,
    card: Note,
    note: Note,
}

impl LazyHub {
    /// `state` is the state folder.
    pub(super) fn new(state: &Path, post: Arc<dyn Post>) -> Self {
        Self {
            state: state.to_owned(),
            server: RefCell::default(),
            standby: RefCell::default(),
            lost: Arc::default(),
            opened: Arc::default(),
            post,
        }
    }

    /// From now on what it is told is served.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn serve(&self, ringer: &Ringer, office: Arc<dyn Office>, store: &dyn Store) -> Result<(), Failure> {
        let known = database::is_known(store).map_err(anyhow::Error::from)?;
        let (state, opened) = (self.state.clone(), self.opened.clone());
        let ledger = Witness::of(&self.state.join(LEDGER));
        let (bell, alarm, lost) = (ringer.clone(), ringer.clone(), self.lost.clone());
        let instance = number()?;
        let parts = Parts {
            clock: Arc::new(SystemClock),
            holder: Some(Arc::new(|address| holder(address.port()))),
            bounds: Bounds::within(descriptors::raise()),
            office,
            post: self.post.clone(),
            instance: Arc::from(instance.as_str()),
            vital: vital::Parts {
                database: self.state.join(database::DATABASE).display().to_string(),
                bell: Arc::new(move || bell.ring()),
                witness: Arc::new(move || ledger.look()),
                alarm: Arc::new(move |why| {
                    lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                    alarm.ring();
                }),
                open: Arc::new(move || {
                    let store = database::open(&state, known)?;
                    if let Some(mode) = store.mode_was() {
                        tracing::warn!(mode = format!("{mode:o}"), "others could read hub.db; its mode was put right");
                    }
                    opened.store(true, Ordering::Relaxed);
                    Ok(Arc::new(store))
                }),
            },
            operator_file: Arc::new(|home| Box::new(OwnFile::new(home.join(operator::FILE)))),
        };
        let server = Server::start(parts).map_err(anyhow::Error::from)?;
        let (card, note) = (Note::default(), Note::default());
        let (started, home) = (SystemClock.wall(), PathBuf::new());
        *self.server.borrow_mut() = Some(Served { server, instance, started, home, card, note });
        Ok(())
    }

    /// It is served as soon as the tree has something that needs it, and not before.
    pub(super) fn stand_by(&self, ringer: &Ringer, office: Arc<dyn Office>, store: Rc<dyn Store>) {
        *self.standby.borrow_mut() = Some(Standby { ringer: ringer.clone(), office, store });
    }

    /// What a tick reported.
    pub(super) fn publish(&self, report: &Report, took: Millis, store: &dyn Store) {
        // If the ledger cannot be written now, it can later; until then a lost database would not be missed at the next start.
        if self.opened.load(Ordering::Relaxed) && database::remember(store).is_ok() {
            self.opened.store(false, Ordering::Relaxed);
        }
        if let Some(served) = &mut *self.server.borrow_mut() {
            served.show(&self.state);
            let problems = report.problems.iter().filter(|problem| is_manifest_problem(problem));
            served.server.publish(Board {
                version: 0,
                at: SystemClock.wall(),
                resources: known(report),
                problems: problems.map(|problem| plain(emit::problem_line(problem, &report.sources))).collect(),
                steps: report.steps.clone(),
                later: report.later.len(),
                waits: report.waits.clone(),
                progress: report.progress.clone(),
                settled: report.settled,
                refused: report.refusal.is_some(),
                took,
                pause: report.next.or(report.interval).unwrap_or_default(),
            });
        }
    }

    /// Why the process cannot go on, if it cannot.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives requests a moment, and ends.
    pub(super) fn end(&self) {
        self.standby.borrow_mut().take();
        let served = self.server.borrow_mut().take();
        if let Some(mut served) = served {
            served.card.take_away();
            served.note.take_away();
            served.server.end(GRACE);
        }
    }
}

impl Served {
    /// Writes down who serves, and where.
    fn show(&mut self, state: &Path) {
        let standing = self.server.standing();
        instance::say(&mut self.note, state, &standing);
        match standing {
            Standing::Serving(address) if !self.home.as_os_str().is_empty() => {
                let instance = Instance {
                    instance: self.instance.clone(),
                    pid: std::process::id(),
                    port: address.port(),
                    started_at: self.started,
                    self_probe: self.server.self_probe(),
                };
                self.card.write(&self.home.join(INSTANCE), &instance);
            }
            _ => {}
        }
    }
}

/// Without the colours of a terminal.
fn plain(mut line: ProblemLine) -> ProblemLine {
    line.rendered = anstream::adapter::strip_str(&line.rendered).to_string();
    line
}

/// Who listens on a port.
fn holder(port: u16) -> Option<String> {
    let sockets = ProcSockets::new();
    let table = sockets.table().ok()?;
    let sought = Sought { ports: [port].into(), ..Sought::default() };
    sockets.holders(&table, &sought).by_port.get(&port)?.first().map(ToString::to_string)
}

/// A number that no other process has.
fn number() -> Result<String, Failure> {
    let bytes = random_bytes::<16>().map_err(anyhow::Error::from)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Hub for LazyHub {
    fn tell(&self, wish: Wish) {
        let standby = if wish.has_ties { self.standby.borrow_mut().take() } else { None };
        if let Some(Standby { ringer, office, store }) = standby
            && let Err(failure) = self.serve(&ringer, office, &*store)
        {
            tracing::warn!(why = ?failure, "the hub cannot be served");
        }
        if let Some(served) = &mut *self.server.borrow_mut() {
            served.home.clone_from(&wish.home);
            served.server.tell(wish);
        }
    }

    fn standing(&self) -> Standing {
        match &*self.server.borrow() {
            Some(served) => served.server.standing(),
            None => instance::standing(&self.state),
        }
    }

    fn settle(&self, services: Vec<Name>) -> Answer<'_, ()> {
        let settled = self.server.borrow().as_ref().map(|served| served.server.settle(services));
        Box::pin(async move {
            if let Some(settled) = settled {
                settled.await;
            }
        })
    }
}
