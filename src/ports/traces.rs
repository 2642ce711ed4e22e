//! What became of the spans of this process. One tally for the process, as there is one log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of this process.
pub static TALLY: Tally = Tally {
    begun: AtomicBool::new(false),
    ended: AtomicU64::new(0),
    sent: AtomicU64::new(0),
    dropped: AtomicU64::new(0),
};

/// Counts spans.
#[derive(Debug)]
pub struct Tally {
    begun: AtomicBool,
    ended: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Tally {
    /// From now on spans are sent.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether spans are sent at all.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// A span that is to be sent.
    pub fn add_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Those of which it is not known yet what becomes of them.
    pub fn under_way(&self) -> u64 {
        self.ended.load(Ordering::Relaxed).saturating_sub(self.sent() + self.dropped())
    }

    pub fn add_sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Ordering::Relaxed);
    }

    /// There was no room for them, or nobody who received them.
    pub fn add_dropped(&self, spans: u64) {
        self.dropped.fetch_add(spans, Ordering::Relaxed);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
