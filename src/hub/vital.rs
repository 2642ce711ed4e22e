//! Whether what the hub lives on is still there and well: files that are open and were removed go on working, and nobody would notice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// As often as the older hub looked.
const EVERY: Duration = Duration::from_secs(15);

/// Says what became of files that must be there, if anything did.
pub type Witness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
/// Told when the process cannot go on.
pub type Alarm = Arc<dyn Fn(String) + Send + Sync>;

/// Looks, and raises the alarm. Cheap to clone.
#[derive(Clone)]
pub struct Vital {
    witness: Witness,
    alarm: Alarm,
}

impl Vital {
    pub(super) fn new(witness: Witness, alarm: Alarm) -> Self {
        Self { witness, alarm }
    }

    /// `ok`, or what is wrong: `error: path-gone`.
    ///
    /// # Errors
    /// When it is not well; if it cannot become well by itself, the alarm was raised.
    pub(super) fn look(&self) -> Result<(), String> {
        (self.witness)().map_err(|why| {
            (self.alarm)(why);
            "error: path-gone".to_owned()
        })
    }

    /// Looks again and again. Never ends.
    pub(super) async fn watch(self) {
        let mut timer = tokio::time::interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            // Whoever asks for health is told.
            let _ = self.look();
        }
    }
}
