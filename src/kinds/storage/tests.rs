//! What is decided of the Storage.

use std::collections::BTreeMap;

use super::plan::{Action, View, plan};
use super::spec::StorageSpec;
use crate::kinds::standing::Standing;
use crate::model::condition::Reason;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::time::Timestamp;
use crate::ports::blobs::{Standing as Index, Tally};
use crate::ports::storage::{Motion, Status};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn spec(active: &str, more: serde_json::Value) -> StorageSpec {
    let mut value = serde_json::json!({ "activeBackend": active });
    value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    serde_json::from_value(value).expect("a spec")
}

/// An index with `a` and `b` objects, where blobs go, and where they come from.
fn status(active: Option<&str>, target: Option<&str>, a: u64, b: u64) -> Status {
    let tally = |objects| Tally { objects, bytes: objects * 1_024, ..Tally::default() };
    Status {
        standing: Index {
            active: active.map(name),
            target: target.map(name),
            tallies: BTreeMap::from([(name("a"), tally(a)), (name("b"), tally(b))]),
            blobs: a + b,
            ..Index::default()
        },
        health: BTreeMap::new(),
        motion: Motion::Idle,
        busy: false,
        progress: None,
        troubled: Vec::new(),
    }
}

struct Case {
    spec: StorageSpec,
    status: Result<Status, String>,
    usable: Vec<&'static str>,
    leaves: bool,
    changed: bool,
    down: bool,
}

impl Case {
    fn of(spec: StorageSpec, status: Status) -> Self {
        Self { spec, status: Ok(status), usable: vec!["a", "b"], leaves: false, changed: false, down: false }
    }

    fn decide(&self) -> super::plan::Intent {
        let standing = Standing { started: true, ready: true, ..Standing::down(Reason::Usable, "") };
        let standings: BTreeMap<ResourceId, Standing> = ["a", "b"]
            .into_iter()
            .map(|word| {
                let refused = Standing::down(Reason::BackendRefused, "no such bucket").doomed();
                let one = if self.usable.contains(&word) { standing.clone() } else { refused };
                (ResourceId::new(KindName::StorageBackend, name(word)), one)
            })
            .collect();
        plan(&View {
            spec: Some(&self.spec),
            leaves: self.leaves,
            owned: true,
            changed: self.changed,
            fields: &[],
            status: &self.status,
            standings: &standings,
            down: self.down,
            now: Timestamp(1_000),
        })
    }

    /// The actions, what they wait for, and how it stands.
    fn sum(&self) -> (Vec<Action>, Option<String>, Reason, bool) {
        let intent = self.decide();
        let actions = intent.steps.into_iter().map(|step| step.action).collect();
        (actions, intent.gate, intent.standing.reason, intent.standing.settled())
    }
}

fn none() -> serde_json::Value {
    serde_json::json!({})
}

#[test]
fn a_first_backend_becomes_the_active_one_when_it_can_be_used() {
    let mut case = Case::of(spec("a", none()), status(None, None, 0, 0));
    assert_eq!(case.sum(), (vec![Action::Activate { to: name("a") }], None, Reason::Absent, false));
    case.usable.clear();
    let (actions, gate, reason, _) = case.sum();
    assert_eq!((actions.len(), reason), (1, Reason::DependencyNotReady));
    assert_eq!(gate.as_deref(), Some("StorageBackend/a cannot be used yet: no such bucket"));
    assert!(case.decide().standing.doomed, "nothing comes of waiting for a bucket that is not there");
}

#[test]
fn what_lies_where_it_should_is_left_alone() {
    let case = Case::of(spec("a", none()), status(Some("a"), None, 3, 0));
    assert_eq!(case.sum(), (vec![], None, Reason::Settled, true));
    assert_eq!(case.decide().standing.message, "3 blobs on a (3KiB)");
}

#[test]
fn another_active_backend_moves_everything_and_says_how_much() {
    let case = Case::of(spec("b", none()), status(Some("a"), None, 3, 0));
    let step = case.decide().steps.remove(0);
    assert_eq!(step.action, Action::Migrate { from: name("a"), to: name("b") });
    assert_eq!(step.detail, "activeBackend a → b, 3 objects to copy (3KiB)");
    assert_eq!(step.pointer, "/spec/activeBackend");
}

#[test]
fn going_back_in_mid_way_is_a_migration_like_any_other() {
    let case = Case::of(spec("a", none()), status(Some("a"), Some("b"), 2, 1));
    let step = case.decide().steps.remove(0);
    assert_eq!(step.action, Action::Migrate { from: name("b"), to: name("a") });
    assert_eq!(step.detail, "activeBackend back to a (on the way to b), 1 object to copy (1KiB)");
    let under_way = Case::of(spec("b", none()), status(Some("a"), Some("b"), 2, 1));
    assert_eq!(under_way.sum(), (vec![], None, Reason::Migrating, false));
    assert_eq!(under_way.decide().standing.message, "1 of 3 objects on b, 1KiB of 3KiB");
}

#[test]
fn suspended_nothing_begins_and_what_began_waits() {
    let held = serde_json::json!({ "suspend": { "reason": "backup" } });
    let case = Case::of(spec("b", held.clone()), status(Some("a"), None, 3, 0));
    let (actions, gate, reason, settled) = case.sum();
    assert_eq!(
        (actions.len(), gate.as_deref(), reason, settled),
        (1, Some("it is suspended"), Reason::Suspended, true)
    );
    let under_way = Case::of(spec("b", held), status(Some("a"), Some("b"), 2, 1));
    assert_eq!(under_way.sum(), (vec![], None, Reason::Suspended, true));
    let message = under_way.decide().standing.message;
    assert_eq!(message, "suspended: backup; reads and writes go on, 1 of 3 objects on b, 1KiB of 3KiB");
}

#[test]
fn blobs_without_a_good_copy_hold_the_end_and_nothing_else() {
    let mut seen = status(Some("a"), Some("b"), 1, 2);
    seen.standing.tallies.get_mut(&name("a")).expect("a").troubled = 1;
    let case = Case::of(spec("b", none()), seen);
    let intent = case.decide();
    assert_eq!(
        (intent.standing.reason, intent.standing.ready, intent.standing.doomed),
        (Reason::Quarantined, false, true)
    );
    assert!(intent.problem.is_some(), "people are told what to do");
    let mut rest = status(Some("a"), Some("b"), 2, 2);
    rest.standing.tallies.get_mut(&name("a")).expect("a").troubled = 1;
    assert_eq!(Case::of(spec("b", none()), rest).sum().2, Reason::Migrating, "the others go on");
    let mut at_rest = status(Some("a"), None, 3, 0);
    at_rest.standing.tallies.get_mut(&name("a")).expect("a").troubled = 1;
    let intent = Case::of(spec("a", none()), at_rest).decide();
    assert!(intent.standing.ready && intent.standing.doomed, "what is there is read and written");
}

#[test]
fn settings_are_taken_over_without_moving_anything() {
    let mut case = Case::of(spec("a", serde_json::json!({ "bandwidth": "1MiB" })), status(Some("a"), None, 3, 0));
    case.changed = true;
    assert_eq!(case.sum(), (vec![Action::Accept], None, Reason::Settled, true));
}

#[test]
fn a_storage_that_is_gone_from_the_files_is_kept_while_it_holds_blobs() {
    let mut case = Case::of(spec("a", none()), status(Some("a"), None, 3, 0));
    case.leaves = true;
    let (actions, _, reason, _) = case.sum();
    assert_eq!((actions, reason), (vec![], Reason::StillNeeded));
    case.status = Ok(status(Some("a"), None, 0, 0));
    assert_eq!(case.sum().0, vec![Action::Release]);
}

#[test]
fn what_cannot_be_seen_is_not_decided_on() {
    let mut case = Case::of(spec("b", none()), status(Some("a"), None, 3, 0));
    case.status = Err("the blob index: locked".to_owned());
    assert_eq!(case.sum(), (vec![], None, Reason::Unknown, false));
    case.down = true;
    case.status = Ok(status(Some("a"), None, 3, 0));
    assert_eq!(case.sum(), (vec![], None, Reason::Down, true));
}
