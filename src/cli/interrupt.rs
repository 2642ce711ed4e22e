//! Ctrl-C and SIGTERM: the first asks for a clean end between two steps, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::model::exit::Exit;

/// Who asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A person at the keyboard.
    Interrupt,
    /// A service manager: for the continuous mode this is the ordinary end.
    Terminate,
}

/// Asks a command to end.
#[derive(Debug)]
pub struct CancelTrigger(watch::Sender<Option<Stop>>);

/// Tells a command whether it should end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cancel(watch::Receiver<Option<Stop>>);

/// A trigger and what it triggers.
pub fn cancel() -> (CancelTrigger, Cancel) {
    let (sender, receiver) = watch::channel(None);
    (CancelTrigger(sender), Cancel(receiver))
}

impl CancelTrigger {
    /// Asks for the end. The first reason stays.
    pub fn stop(&self, why: Stop) {
        self.0.send_if_modified(|now| now.is_none() && now.replace(why).is_none());
    }
}

impl Cancel {
    /// Who asked for the end, if anybody did.
    pub fn requested(&self) -> Option<Stop> {
        *self.0.borrow()
    }

    /// Ends when somebody asks for the end. Cancel-safe.
    pub async fn wait(&self) -> Stop {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await {
            Ok(why) => why.unwrap_or(Stop::Interrupt),
            // The trigger is gone, so nobody can ask any more.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Where requests to end come from.
pub enum Interrupts {
    /// From the signals of this process.
    Signals,
    /// From a test.
    Given(Cancel),
}

/// Whether an end was asked for, for commands that look now and then.
pub enum Asked {
    Flag(Arc<AtomicBool>),
    Given(Cancel),
}

impl Asked {
    pub fn for_end(&self) -> bool {
        match self {
            Self::Flag(flag) => flag.load(Ordering::Relaxed),
            Self::Given(cancel) => cancel.requested().is_some(),
        }
    }
}

impl Interrupts {
    /// Starts to watch, without a runtime.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn watch(self) -> io::Result<Asked> {
        match self {
            Self::Given(given) => Ok(Asked::Given(given)),
            Self::Signals => arm().map(Asked::Flag),
        }
    }

    /// Starts to listen. Must be called within a tokio runtime and `LocalSet`.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn listen(self) -> io::Result<Cancel> {
        let trigger_and_cancel = match self {
            Self::Given(given) => return Ok(given),
            Self::Signals => cancel(),
        };
        let (trigger, cancel) = trigger_and_cancel;
        arm()?;
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        tokio::task::spawn_local(async move {
            // Both arms are cancel-safe: tokio keeps a signal that was not received yet.
            let why = tokio::select! {
                _ = interrupts.recv() => Stop::Interrupt,
                _ = terminations.recv() => Stop::Terminate,
            };
            trigger.stop(why);
            // Kept, so that `Cancel::wait` of late comers still sees the value.
            std::future::pending::<()>().await;
        });
        Ok(cancel)
    }
}

/// A flag that is set by the first signal and read by the second, inside the signal handler itself, so that the second Ctrl-C works
/// even while this thread is stuck in a system call. Order matters: first read, then set.
fn arm() -> io::Result<Arc<AtomicBool>> {
    let armed = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(number, Exit::Cancelled as i32, Arc::clone(&armed))?;
        signal_hook::flag::register(number, Arc::clone(&armed))?;
    }
    Ok(armed)
}
