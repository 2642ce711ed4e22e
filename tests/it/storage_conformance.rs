//! What the storage promises, case by case, with real folders and databases and the real index.

use trueup::ports::storage::{Finding, Motion, Settings, Storage};

use crate::storage_stage::{Stage, has, name, until};

#[test]
fn a_migration_copies_verifies_flips_rows_and_then_the_active_backend_once() {
    let stage = Stage::new();
    let mover = stage.mover();
    mover.activate(&name("a")).expect("activates");
    let blobs: Vec<_> = (0..600_u32).map(|n| stage.put(&n.to_le_bytes().repeat(1 + n as usize % 900))).collect();
    mover.tell(&stage.intent(&["a", "b"], Settings::default()));
    mover.migrate(&name("b")).expect("begins");
    let status = until(&mover, "the migration", |status| status.standing.active == Some(name("b")));
    assert_eq!(status.standing.tallies[&name("b")].objects, 600);
    assert_eq!(status.standing.target, None);
    let target = stage.backend("b");
    assert!(blobs.iter().all(|(_, object)| has(target.as_ref(), object)));
    let told = mover.told().expect("told");
    let ends = told.iter().filter(|told| matches!(told.what, Finding::Migrated { objects: 600, .. })).count();
    assert_eq!(ends, 1, "{told:?}");
    assert!(!mover.told().expect("told").iter().any(|told| matches!(told.what, Finding::Migrated { .. })));
    until(&mover, "rest", |status| status.motion == Motion::Idle);
}
