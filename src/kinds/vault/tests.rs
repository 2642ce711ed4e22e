//! Every decision about a Vault, one by one, by the plan alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::plan::{Intent, View, plan};
use super::record::Record;
use super::spec::{DeletionPolicy, VaultSpec};
use crate::kinds::trigger::{Address, Vault};
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::id::{KindName, Name, ResourceId};
use crate::ports::keeper::Confinement;
use crate::ports::probes::Ask;

struct Case {
    policy: DeletionPolicy,
    leaves: bool,
    owned: bool,
    changed: bool,
    stripped: bool,
    seen: Vault,
    used_by: Vec<String>,
    namesake: Option<Address>,
    foreign: Vec<String>,
    heir: Option<ResourceId>,
    known: bool,
    command: Result<(), String>,
}

impl Case {
    fn new() -> Self {
        Self {
            policy: DeletionPolicy::Delete,
            leaves: false,
            owned: true,
            changed: false,
            stripped: false,
            seen: Vault::Present(BTreeMap::new()),
            used_by: Vec::new(),
            namesake: None,
            foreign: Vec::new(),
            heir: None,
            known: true,
            command: Ok(()),
        }
    }

    fn leaving() -> Self {
        Self { leaves: true, ..Self::new() }
    }

    fn plan(&self) -> Intent {
        let service = Name::new("vault").expect("a name");
        let (vault_name, commands) = Default::default();
        let spec = VaultSpec { service: service.clone(), vault_name, deletion_policy: self.policy, commands };
        let ask = Ask::Exec {
            program: PathBuf::from("/bin/vault"),
            argv: Vec::new(),
            dir: PathBuf::from("/"),
            env: Default::default(),
            confinement: Box::new(Confinement::default()),
        };
        let command = || self.command.as_ref().map(|()| &ask).map_err(String::as_str);
        plan(&View {
            spec: Some(&spec),
            at: Some(&Address { service, vault: "lab".to_owned() }),
            leaves: self.leaves,
            owned: self.owned,
            changed: self.changed,
            down: false,
            record: &Record { stripped: self.stripped },
            seen: Some(&self.seen),
            create: command(),
            remove: command(),
            used_by: &self.used_by,
            namesake: self.namesake.as_ref(),
            heir: self.heir.as_ref(),
            last: false,
            foreign: &self.foreign,
            known: self.known,
        })
    }

    fn steps(&self) -> Vec<String> {
        self.plan().steps.iter().map(|step| format!("{} {}", step.action.word(), step.reason)).collect()
    }
}

fn unknown() -> Vault {
    Vault::Unknown("it does not run".to_owned())
}

#[test]
fn what_is_there_is_adopted_and_then_needs_nothing() {
    assert_eq!(Case { owned: false, changed: true, ..Case::new() }.steps(), ["accept Absent"]);
    let intent = Case::new().plan();
    assert!(intent.steps.is_empty() && intent.standing.ready);
    assert_eq!(intent.standing.reason, Reason::Present);
}

#[test]
fn what_is_not_there_is_made_and_made_again() {
    let new = Case { owned: false, changed: true, seen: Vault::Absent, ..Case::new() };
    assert_eq!((new.steps(), new.plan().steps[0].cause), (vec!["create Absent".to_owned()], Cause::Intent));
    let lost = Case { seen: Vault::Absent, ..Case::new() };
    assert_eq!((lost.steps(), lost.plan().steps[0].cause), (vec!["create VaultMissing".to_owned()], Cause::Drift));
    let no_command = Case { seen: Vault::Absent, command: Err("there is none".to_owned()), ..Case::new() };
    assert!(no_command.steps().is_empty() && no_command.plan().standing.doomed);
}

#[test]
fn nothing_is_made_while_its_service_does_not_answer() {
    let case = Case { owned: false, changed: true, seen: unknown(), ..Case::new() };
    assert_eq!((case.steps(), case.plan().standing.reason), (vec![], Reason::DependencyNotReady));
}

#[test]
fn triggers_of_others_are_named() {
    let case = Case { foreign: vec!["conn_theirs".to_owned()], ..Case::new() };
    assert!(case.steps().is_empty() && case.plan().standing.message.contains("left alone: conn_theirs"));
}

#[test]
fn its_notes_stay_unless_the_document_says_otherwise() {
    assert_eq!(Case { policy: DeletionPolicy::Retain, ..Case::leaving() }.steps(), ["release NotDeclared"]);
}

#[test]
fn authority_goes_before_notes_and_the_ledger_last() {
    assert_eq!(Case::leaving().steps(), ["strip NotDeclared"]);
    assert_eq!(Case { stripped: true, ..Case::leaving() }.steps(), ["remove NotDeclared"]);
    assert_eq!(Case { stripped: true, seen: Vault::Absent, ..Case::leaving() }.steps(), ["release NotDeclared"]);
    assert!(Case { stripped: true, seen: unknown(), ..Case::leaving() }.steps().is_empty());
    assert_eq!(Case { known: false, ..Case::leaving() }.steps(), ["release NotDeclared"], "its service is gone");
}

#[test]
fn a_vault_in_use_is_not_removed() {
    let used = || vec!["Connection/inbox".to_owned()];
    let intent = Case { used_by: used(), ..Case::leaving() }.plan();
    assert!(intent.gate.is_some() && intent.standing.doomed);
    assert!(Case { used_by: used(), stripped: true, ..Case::leaving() }.steps().is_empty());
}

#[test]
fn tokens_are_not_taken_from_a_vault_of_the_same_name_in_another_service() {
    let other = || Some(Address { service: Name::new("other").expect("a name"), vault: "lab".to_owned() });
    let intent = Case { namesake: other(), ..Case::leaving() }.plan();
    let gate = "vault lab of Service/vault is removed when there is no vault lab of Service/other, whose tokens are by the same name";
    assert_eq!((intent.gate.as_deref(), intent.standing.doomed), (Some(gate), true));
    // They were taken before there was another one.
    assert_eq!(Case { namesake: other(), stripped: true, ..Case::leaving() }.steps(), ["remove NotDeclared"]);
    assert!(Case { namesake: other(), policy: DeletionPolicy::Retain, ..Case::leaving() }.plan().gate.is_none());
}

#[test]
fn a_vault_that_another_document_declares_is_not_removed() {
    let heir = ResourceId::new(KindName::Vault, Name::new("other").expect("a name"));
    for stripped in [false, true] {
        assert_eq!(Case { heir: Some(heir.clone()), stripped, ..Case::leaving() }.steps(), ["release NotDeclared"]);
    }
}

#[test]
fn a_removal_that_is_taken_back_begins_anew_the_next_time() {
    assert_eq!(Case { stripped: true, ..Case::new() }.steps(), ["accept Changed"]);
}
