//! From the specs to what the mover is told. Pure.

use std::collections::BTreeMap;

use super::spec::StorageSpec;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::storage::{Intent, Place, Settings};

/// What the storage is to be now. Without a spec nothing but the backends themselves is looked at.
pub fn intent(spec: Option<&StorageSpec>, places: BTreeMap<Name, Place>, still: bool, now: Timestamp) -> Intent {
    let settings = match spec {
        Some(spec) => Settings {
            suspended: still || spec.suspend.holds(now),
            concurrency: spec.concurrency.fixed(),
            bandwidth: spec.bandwidth,
            gc_source: spec.gc_source.map(|gc| gc.after),
            orphans: spec.gc_orphans.map(|gc| gc.after),
            scrub: Some(spec.scrub.every).filter(|every| every.0 > 0),
            scrub_bandwidth: Some(spec.scrub.bandwidth),
            abandon: spec.abandon.iter().cloned().collect(),
        },
        None => Settings { suspended: true, ..Settings::default() },
    };
    Intent { places, settings }
}
