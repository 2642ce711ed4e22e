//! What is to be done about a Vault. Pure. When one is removed, authority goes before data: tokens and grants first, then the triggers of
//! its connections, and the notes last.

use super::record::Record;
use super::spec::{DeletionPolicy, VaultSpec};
use crate::kinds::intent;
use crate::kinds::standing::Standing;
use crate::kinds::trigger::{Address, Vault};
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::id::ResourceId;
use crate::model::wording::count;
use crate::ports::probes::Ask;

/// One step on a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The ledger learns of it: it is there.
    Accept,
    /// The service's program makes it.
    Create { command: Box<Ask> },
    /// Every token and grant that names it is taken away.
    Strip { vault: String, then: Record },
    /// The service's program removes it, with all notes.
    Remove { command: Box<Ask> },
    /// The ledger lets go of it.
    Release,
}

impl Action {
    /// Its name in plans, journals and output.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Create { .. } => "create",
            Self::Strip { .. } => "strip",
            Self::Remove { .. } => "remove",
            Self::Release => "release",
        }
    }
}

/// A step to be.
pub type Wanted = intent::Wanted<Action>;

/// What the policy says.
pub type Intent = intent::Intent<Action>;

/// Everything that is known of one.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// `None` when its stored document cannot be read any more.
    pub spec: Option<&'a VaultSpec>,
    pub at: Option<&'a Address>,
    /// No document declares it.
    pub leaves: bool,
    pub owned: bool,
    pub changed: bool,
    pub down: bool,
    pub record: &'a Record,
    pub seen: Option<&'a Vault>,
    /// The commands that make and remove it, or why there is none.
    pub create: Result<&'a Ask, &'a str>,
    pub remove: Result<&'a Ask, &'a str>,
    /// Connections that use it: declared ones, and those that have a trigger there still.
    pub used_by: &'a [String],
    /// A vault of the same name in another service. Tokens know it by its name alone.
    pub namesake: Option<&'a Address>,
    /// Another document declares it.
    pub heir: Option<&'a ResourceId>,
    /// It is the last one of its service.
    pub last: bool,
    /// Triggers there that are no connection's of this tree.
    pub foreign: &'a [String],
    /// The service is declared or owned.
    pub known: bool,
}

/// Decides.
pub fn plan(view: &View<'_>) -> Intent {
    if view.down {
        return Intent::rest(Standing::down(Reason::Down, "everything is stopped"));
    }
    let (Some(spec), Some(at)) = (view.spec, view.at) else {
        let standing = Standing::down(Reason::NotDeclared, "no longer declared");
        return Intent::act(standing, step(Action::Release, Reason::NotDeclared, "its notes stay"));
    };
    if let Some(heir) = view.heir.filter(|_| view.leaves) {
        let standing = Standing::down(Reason::NotDeclared, format!("no longer declared; {at} is {heir}'s from now on"));
        return Intent::act(
            standing,
            step(Action::Release, Reason::NotDeclared, format!("{at} is {heir}'s from now on")),
        );
    }
    match (view.leaves, spec.deletion_policy) {
        (false, _) => keep(view, at),
        (true, DeletionPolicy::Retain) => {
            let standing = Standing::down(Reason::NotDeclared, "no longer declared; its notes stay");
            Intent::act(standing, step(Action::Release, Reason::NotDeclared, format!("{at} and its notes stay")))
        }
        (true, DeletionPolicy::Delete) => remove(view, at),
    }
}

fn step(action: Action, reason: Reason, detail: impl Into<String>) -> Wanted {
    Wanted { action, reason, cause: Cause::Intent, detail: detail.into(), pointer: String::new() }
}

fn keep(view: &View<'_>, at: &Address) -> Intent {
    let reason = if view.owned { Reason::Changed } else { Reason::Absent };
    match view.seen {
        Some(Vault::Present(triggers)) => {
            let foreign = match view.foreign {
                [] => String::new(),
                some => format!("; not of this tree, and left alone: {}", some.join(", ")),
            };
            let message = format!("{at}, {}{foreign}", count(triggers.len() as u64, "trigger"));
            let standing = Standing { started: true, ready: true, ..Standing::down(Reason::Present, message) };
            let mut intent = Intent::rest(standing);
            // It was about to be removed, and is not any more: what was taken away then is not what is noted now.
            if view.changed || view.record.stripped {
                intent.steps.push(step(
                    Action::Accept,
                    reason,
                    if view.owned { "settings" } else { "it is there already" },
                ));
            }
            intent
        }
        Some(Vault::Absent) => {
            let cause = if view.owned && !view.changed { Cause::Drift } else { Cause::Intent };
            let message = format!("there is no {at}");
            match view.create {
                Ok(command) => {
                    let detail =
                        if cause == Cause::Drift { format!("{at}, which was there before") } else { at.to_string() };
                    let action = Action::Create { command: Box::new(command.clone()) };
                    let standing = Standing::down(Reason::VaultMissing, message.clone());
                    let drifted = (cause == Cause::Drift).then_some((Reason::VaultMissing, message));
                    let reason = if cause == Cause::Drift { Reason::VaultMissing } else { reason };
                    Intent::act(Standing { drifted, ..standing }, Wanted { cause, ..step(action, reason, detail) })
                }
                Err(why) => Intent::rest(Standing::down(Reason::VaultMissing, format!("{message}: {why}")).doomed()),
            }
        }
        Some(Vault::Unknown(why)) => Intent::rest(Standing::down(Reason::DependencyNotReady, format!("{at}: {why}"))),
        None => Intent::rest(Standing::down(Reason::DependencyNotReady, format!("{at} was not looked at"))),
    }
}

fn remove(view: &View<'_>, at: &Address) -> Intent {
    let going = |message: String| Standing::down(Reason::NotDeclared, message);
    if !view.known {
        let message = format!("no longer declared; Service/{} is gone, and what it kept stays", at.service);
        return Intent::act(going(message), step(Action::Release, Reason::NotDeclared, "its service is gone"));
    }
    if !view.record.stripped {
        let then = Record { stripped: true };
        let last = if view.last { "; it is the last vault of its service" } else { "" };
        let detail = format!("every token and grant for {at}{last}");
        let mut intent = Intent::act(
            going(format!("{at} is removed")),
            step(Action::Strip { vault: at.vault.clone(), then }, Reason::NotDeclared, detail),
        );
        if let Some(text) = in_use(view, at) {
            intent.gate = Some(text.clone());
            intent.standing = going(text).doomed();
        }
        return intent;
    }
    match view.seen {
        Some(Vault::Absent) => {
            Intent::act(going(format!("{at} is gone")), step(Action::Release, Reason::NotDeclared, "it is gone"))
        }
        Some(Vault::Present(_)) => match (view.remove, in_use(view, at)) {
            (_, Some(text)) => Intent::rest(going(text)),
            (Ok(command), None) => {
                let detail = format!("{at}, with all its notes");
                Intent::act(
                    going(format!("{at} is removed")),
                    step(Action::Remove { command: Box::new(command.clone()) }, Reason::NotDeclared, detail),
                )
            }
            (Err(why), None) => Intent::rest(going(format!("{at} cannot be removed: {why}")).doomed()),
        },
        Some(Vault::Unknown(why)) => Intent::rest(going(format!("{at} is removed when it answers ({why})"))),
        None => Intent::rest(going(format!("{at} is removed when it answers"))),
    }
}

fn in_use(view: &View<'_>, at: &Address) -> Option<String> {
    if let Some(other) = view.namesake.filter(|_| !view.record.stripped) {
        return Some(format!("{at} is removed when there is no {other}, whose tokens are by the same name"));
    }
    (!view.used_by.is_empty()).then(|| format!("{at} is removed when {} no longer use it", view.used_by.join(", ")))
}
