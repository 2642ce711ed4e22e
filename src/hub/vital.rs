//! Whether what the hub lives on is still there and well: files that are open and were removed go on working, and nobody would notice.
//! The rules for the database are the older hub's: what is gone ends the process, and nothing is made anew; what was replaced or is
//! broken is opened once more, or ends the process; everything else is said, and passes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::state::State;
use crate::authority::Authority;
use crate::ports::tokens::{FaultClass, Lost, TokenStore, Unwell};

/// As often as the older hub looked.
const EVERY: Duration = Duration::from_secs(15);

/// Says what became of files that must be there, if anything did.
pub type Witness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
/// Told when the process cannot go on.
pub type Alarm = Arc<dyn Fn(String) + Send + Sync>;
/// Opens the database of keys and tokens, or says in words why it cannot.
pub type Open = Arc<dyn Fn() -> Result<Arc<dyn TokenStore>, String> + Send + Sync>;
/// Rung when somebody else should look again.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// What is looked after, and who is told.
pub struct Parts {
    pub witness: Witness,
    pub alarm: Alarm,
    pub open: Open,
    pub bell: Bell,
    /// The file of the database, for people.
    pub database: String,
}

/// Looks, and raises the alarm. Cheap to clone.
#[derive(Clone)]
pub struct Vital {
    parts: Arc<Parts>,
    authority: Arc<Authority>,
    state: Arc<State>,
    /// Told when the database was opened anew: it may be another one, which does not know the operator token.
    anew: Arc<Notify>,
    /// One look at a time: two must not open a database twice.
    looking: Arc<Mutex<()>>,
}

impl Vital {
    pub(super) fn new(parts: Parts, authority: Arc<Authority>, state: Arc<State>) -> Self {
        Self { parts: Arc::new(parts), authority, state, anew: Arc::default(), looking: Arc::default() }
    }

    /// Opens the database when it is not open, and looks whether everything is well. Blocks for a moment.
    ///
    /// # Errors
    /// What is wrong, in the older hub's words, such as `error: path-gone`. If it cannot become well by itself, the alarm was raised.
    pub(super) fn look(&self) -> Result<(), String> {
        let _one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = (self.parts.witness)() {
            (self.parts.alarm)(why);
            return Err("error: path-gone".to_owned());
        }
        let (word, sentence) = match self.database() {
            Ok(()) => (Ok(()), None),
            Err((word, sentence)) => (Err(word.to_owned()), Some(sentence)),
        };
        if self.state.database(sentence) {
            (self.parts.bell)();
        }
        word
    }

    fn database(&self) -> Result<(), (&'static str, String)> {
        let Some(store) = self.authority.store() else {
            let store = (self.parts.open)().map_err(|why| ("error: unavailable", why))?;
            self.authority.attach(store);
            return Ok(());
        };
        match store.check() {
            Ok(()) => Ok(()),
            Err(Unwell::Lost(Lost::Gone)) => Err(self.lost("error: path-gone", "is gone")),
            Err(unwell @ Unwell::Lost(Lost::Replaced)) => self.again(&*store, "error: path-replaced", &unwell),
            Err(Unwell::Fault(fault)) if fault.class == FaultClass::Fatal => {
                self.again(&*store, "error: fatal", &Unwell::Fault(fault))
            }
            Err(Unwell::Fault(fault)) if fault.class == FaultClass::Transient => {
                Err(("error: transient", fault.message))
            }
            Err(Unwell::Fault(fault)) => Err(("error: other", fault.message)),
        }
    }

    /// Opens it once more.
    fn again(&self, store: &dyn TokenStore, word: &'static str, unwell: &Unwell) -> Result<(), (&'static str, String)> {
        match store.reopen().and_then(|()| store.check()) {
            Ok(()) => {
                tracing::warn!(%unwell, "opened anew, and it is well");
                self.anew.notify_one();
                Ok(())
            }
            Err(error) => Err(self.lost(word, &format!("cannot be used ({unwell}; opened anew: {error})"))),
        }
    }

    fn lost(&self, word: &'static str, why: &str) -> (&'static str, String) {
        let why = format!(
            "{} {why}: put it back from a backup with `trueup token restore FILE`, or make a new one with `trueup token reset`",
            self.parts.database
        );
        (self.parts.alarm)(why.clone());
        (word, why)
    }

    /// Waits until the database is opened anew. Cancel-safe; what happened since the last call counts.
    pub(super) async fn opened_anew(&self) {
        self.anew.notified().await;
    }

    /// Looks again and again. Never ends.
    pub(super) async fn watch(self) {
        let mut timer = tokio::time::interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            // Whoever asks for health is told; so is the engine.
            let _ = self.looked().await;
        }
    }

    /// [`Vital::look`] on a thread that may block.
    ///
    /// # Errors
    /// As [`Vital::look`].
    pub(super) async fn looked(&self) -> Result<(), String> {
        let own = self.clone();
        let look = tokio::task::spawn_blocking(move || own.look());
        look.await.unwrap_or_else(|_| Err("error: other".to_owned()))
    }
}
