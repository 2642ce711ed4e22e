//! What is to be done about a Connection. Pure. The order is: register a token, write the trigger, note it in the ledger, revoke what it
//! replaced; and when it goes: trigger, sink, tokens, and the ledger last. So every moment at which we may die leaves something that the
//! next look finds: a token in no record, or a trigger that is not as it was noted.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::{Inputs, Lend, Prepare, Unusable, Wire};
use super::record::{Place, Prepared, Record};
use crate::kinds::intent::{self, Trouble};
use crate::kinds::notes::StuckNote;
use crate::kinds::standing::Standing;
use crate::kinds::trigger::{Address, Seen, Vault};
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::id::Name;
use crate::model::problem::Code;
use crate::model::time::Timestamp;
use crate::model::wording::count;
use crate::ports::bearers::{Holdings, LIFE_SECONDS, Wanted as Token};
use crate::ports::deliveries::Tally;
use crate::ports::hub;
use crate::ports::tokens::TokenRow;

/// A token is renewed when a third of its life is left, in seconds: a vault that is down for a month loses nothing by that.
const RENEW_SECONDS: i64 = LIFE_SECONDS / 3;

/// One step on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The ledger learns of settings that are the hub's alone.
    Accept,
    /// A trigger is written, with a token: this one, or a new one.
    Wire(Box<Wiring>),
    /// A trigger is removed.
    Unwire(Box<Unwiring>),
    /// The sink is told what must be there.
    Prepare(Box<Preparing>),
    /// And that it is no longer needed.
    Unprepare(Box<Unpreparing>),
    /// Events that never arrived are brought on their way again.
    Rearm(Box<Rearming>),
    /// A module gets its token.
    Lend(Box<Lending>),
    /// And hears that it is taken back.
    Withdraw(Box<Withdrawing>),
    /// Tokens are revoked.
    Revoke { jtis: Vec<String> },
    /// What waits of its events goes to whoever took its trigger over, or becomes dead letters; the ledger lets go of it.
    Release { heir: Option<Name> },
}

/// See [`Action::Wire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    pub wire: Wire,
    pub at: Address,
    pub port: u16,
    /// A token that is good still.
    pub reuse: Option<String>,
    /// Who tokens say made them.
    pub issuer: String,
    /// What the ledger holds from the beginning of the step on.
    pub claim: Record,
}

/// See [`Action::Unwire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwiring {
    pub place: Place,
    /// `None` when nobody can be asked any more.
    pub port: Option<u16>,
    /// What the ledger holds afterwards; `None` when it holds nothing of it.
    pub then: Option<Record>,
}

/// See [`Action::Rearm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rearming {
    pub place: Place,
    pub port: u16,
    pub event: String,
    /// The hub takes them from the vault itself; else the vault sends them again.
    pub durable: bool,
    pub notes: Vec<StuckNote>,
}

/// See [`Action::Prepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparing {
    pub prepare: Prepare,
    pub reuse: Option<String>,
    pub claim: Record,
}

/// See [`Action::Unprepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpreparing {
    pub prepared: Prepared,
    pub port: Option<u16>,
    pub then: Record,
}

/// See [`Action::Lend`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lending {
    pub lend: Lend,
    pub at: Address,
    pub connection: Name,
    pub reuse: Option<String>,
    /// The module has had one.
    pub renews: bool,
    pub claim: Record,
}

/// See [`Action::Withdraw`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawing {
    pub lent: super::record::Lent,
    pub connection: Name,
    pub port: Option<u16>,
    pub then: Record,
}

impl Action {
    /// Its name in plans, journals and output.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Wire(_) => "wire",
            Self::Unwire(_) => "unwire",
            Self::Prepare(_) => "prepare",
            Self::Unprepare(_) => "unprepare",
            Self::Rearm(_) => "rearm",
            Self::Lend(_) => "lend",
            Self::Withdraw(_) => "withdraw",
            Self::Revoke { .. } => "revoke",
            Self::Release { .. } => "release",
        }
    }

    /// Whether a new token is registered for it.
    fn mints(&self) -> bool {
        match self {
            Self::Wire(wiring) => wiring.reuse.is_none(),
            Self::Prepare(preparing) => preparing.reuse.is_none() && preparing.prepare.token.is_some(),
            Self::Lend(lending) => lending.reuse.is_none(),
            _ => false,
        }
    }

    /// What the ledger holds from the beginning of the step on, when that is news.
    pub fn claim(&self) -> Option<&Record> {
        match self {
            Self::Wire(wiring) => Some(&wiring.claim),
            Self::Prepare(preparing) => Some(&preparing.claim),
            Self::Lend(lending) => Some(&lending.claim),
            _ => None,
        }
    }
}

/// A step to be.
pub type Wanted = intent::Wanted<Action>;

/// What the policy says.
pub type Intent = intent::Intent<Action>;

/// What was seen at a sink of what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtSink {
    There,
    Missing,
    /// Nobody asks, or it does not answer.
    Unknown,
}

/// Notes at the vault whose event never arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    pub notes: u64,
    /// The first of those that are to be brought on their way again.
    pub ripe: Vec<StuckNote>,
}

/// Everything that is known of one.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub name: &'a Name,
    /// `None` when no document declares it.
    pub inputs: Option<&'a Result<Inputs, Unusable>>,
    pub record: &'a Record,
    pub owned: bool,
    /// Its document is another one than the ledger's.
    pub changed: bool,
    /// Everything is to be left as it is.
    pub down: bool,
    /// Suspended: why.
    pub suspended: Option<&'a str>,
    pub vaults: &'a BTreeMap<Address, Vault>,
    /// The ports of services.
    pub ports: &'a BTreeMap<Name, u16>,
    /// Services that are declared or owned.
    pub services: &'a BTreeSet<Name>,
    /// Every trigger that a declared connection wants now, and whose it is.
    pub wished: &'a BTreeMap<Place, Name>,
    pub at_sink: &'a AtSink,
    pub holdings: Result<&'a Holdings, &'a str>,
    /// The live tokens of this connection.
    pub own: &'a [String],
    pub tally: Option<&'a Tally>,
    pub stuck: Option<&'a Stuck>,
    pub hub: &'a hub::Standing,
    /// The service of its vault is not to run, or cannot.
    pub stays_away: bool,
    /// A person asked for another token.
    pub renew: bool,
    pub now: Timestamp,
}

/// The other declared connection that wants this trigger.
fn heir<'a>(view: &View<'a>, place: &Place) -> Option<&'a Name> {
    view.wished.get(place).filter(|name| *name != view.name)
}

/// Decides.
pub fn plan(view: &View<'_>) -> Intent {
    if view.down {
        return Intent::rest(Standing::down(Reason::Down, "everything is stopped; triggers stay"));
    }
    let holdings = match view.holdings {
        Ok(holdings) => holdings,
        Err(why) => return Intent::rest(Standing::down(Reason::Unknown, why)),
    };
    let tokens = Tokens { holdings, own: own(view, holdings), now: view.now };
    match view.inputs {
        None => leave(view, &tokens),
        Some(Err(why)) => {
            let standing = Standing::down(Reason::BadInput, why.message.clone()).doomed();
            let (pointer, message) = (why.pointer, why.message.clone());
            let problem = Trouble::At { pointer, code: Code::BadReference, message, hint: why.hint.to_owned() };
            Intent { problem: Some(problem), ..Intent::rest(standing) }
        }
        Some(Ok(inputs)) => keep(view, inputs, &tokens),
    }
}

/// Live tokens of this connection.
fn own<'a>(view: &View<'_>, holdings: &'a Holdings) -> Vec<&'a TokenRow> {
    view.own.iter().filter_map(|jti| holdings.live.get(jti)).collect()
}

struct Tokens<'a> {
    holdings: &'a Holdings,
    own: Vec<&'a TokenRow>,
    now: Timestamp,
}

impl Tokens<'_> {
    /// Why this token is not what is wanted any more.
    fn fault(&self, jti: &str, wanted: &Token) -> Option<Reason> {
        let Some(row) = self.own.iter().find(|row| row.jti == jti) else { return Some(Reason::BearerRevoked) };
        if !is_of(row, wanted) {
            Some(Reason::Changed)
        } else if self.holdings.kid.as_ref() != Some(&row.kid) {
            Some(Reason::KeyRotated)
        } else if row.expires.0 - self.now.0 < RENEW_SECONDS * 1_000 {
            Some(Reason::BearerExpiring)
        } else {
            None
        }
    }

    /// A token that a module has was made when we were somebody else.
    fn issued_by_another(&self, issuer: Option<&String>) -> Option<Reason> {
        issuer.filter(|issuer| **issuer != self.holdings.issuer).map(|_| Reason::Changed)
    }

    /// A token that is as wanted: the one that is in use (unless it is to be replaced), or one that an attempt left.
    fn spare(&self, first: Option<&str>, wanted: &Token, taken: &BTreeSet<&String>, renew: bool) -> Option<String> {
        let good = |jti: &str| self.fault(jti, wanted).is_none();
        if let Some(jti) = first.filter(|jti| !renew && good(jti)) {
            return Some(jti.to_owned());
        }
        let is_free = |row: &&&TokenRow| !taken.contains(&row.jti) && first != Some(row.jti.as_str());
        let mut free: Vec<&&TokenRow> = self.own.iter().filter(is_free).filter(|row| good(&row.jti)).collect();
        free.sort_by(|a, b| (b.created, &b.jti).cmp(&(a.created, &a.jti)));
        free.first().map(|row| row.jti.clone())
    }
}

fn is_of(row: &TokenRow, wanted: &Token) -> bool {
    let permissions = row.permissions.as_deref().and_then(|text| serde_json::from_str(text).ok());
    row.client == wanted.client
        && row.scopes == [wanted.scope.as_str()]
        && row.audience == wanted.audience
        && row.vault_scope == wanted.vault_scope
        && row.via == wanted.via
        && permissions == wanted.permissions
}

fn step(action: Action, reason: Reason, cause: Cause, detail: impl Into<String>) -> Wanted {
    Wanted { action, reason, cause, detail: detail.into(), pointer: String::new() }
}

/// It is declared.
fn keep(view: &View<'_>, inputs: &Inputs, tokens: &Tokens<'_>) -> Intent {
    let mut steps = Vec::new();
    let mut record = view.record.clone();
    let mut gate = None;
    let still = view.suspended.is_some() && inputs.direct;
    let wished: BTreeSet<Place> = inputs.wire.iter().filter(|_| !still).map(|wire| place(inputs, wire)).collect();
    let mut standing = Standing::down(Reason::Wired, String::new());
    // First what the sink must know, or it would get events that it can do nothing with.
    if let Some(prepare) = inputs.prepare.as_ref().filter(|_| !still) {
        steps.extend(prepared(view, prepare, tokens, &mut record));
    }
    match (&inputs.wire, &inputs.lend) {
        // One after the other: each notes what the one before it did.
        (Some(_), _) if !still && !steps.is_empty() => {
            standing = Standing::down(Reason::Wiring, "the sink is told what must be there");
        }
        (Some(wire), _) if !still => {
            let outcome = wired(view, inputs, wire, tokens, &mut record);
            standing = outcome.standing;
            steps.extend(outcome.step);
            gate = outcome.gate;
        }
        (_, Some(lend)) if view.suspended.is_none() => {
            match record.lent.take_if(|old| old.service != lend.service || old.key != lend.key) {
                Some(old) => steps.push(withdraw(view, old, &record, Reason::Changed)),
                None => steps.extend(lent(view, inputs, lend, tokens, &mut record)),
            }
            let to = &lend.service;
            let message = format!("Service/{to} may {} {}", verb(&lend.token.scope), inputs.at);
            standing = Standing { started: true, ready: steps.is_empty(), ..Standing::down(Reason::Lent, message) };
        }
        _ => {}
    }
    // What an earlier version left, when the new one stands.
    let busy = !steps.is_empty();
    let former: Vec<Place> = record.triggers.difference(&wished).cloned().collect();
    if !busy {
        for place in former {
            // A vault that does not answer holds nothing else up; it is asked again when it does.
            let silent = matches!(view.vaults.get(&place.at), Some(Vault::Unknown(_)));
            if silent && view.services.contains(&place.at.service) && heir(view, &place).is_none() {
                standing.message.push_str(&format!("; {} at {} is removed when that answers", place.trigger, place.at));
                continue;
            }
            steps.extend(unwire(view, place, &mut record, Reason::Changed));
        }
        if let Some(old) = record.lent.clone().filter(|_| inputs.lend.is_none() || view.suspended.is_some()) {
            record.lent = None;
            steps.push(withdraw(view, old, &record, Reason::Changed));
        }
        if let Some(old) = record.prepared.take_if(|_| inputs.prepare.is_none() || still) {
            record.obsolete.push(old);
        }
        // Before a sink is asked that may not answer.
        steps.extend(surplus(&record, tokens, Reason::Replaced));
        steps.extend(unprepare(view, &mut record, Reason::Changed));
    }
    if steps.iter().any(|step| step.action.mints()) {
        steps.extend(excess(view.record, inputs, tokens));
    }
    if steps.is_empty() && view.suspended.is_none() {
        steps.extend(inputs.wire.as_ref().and_then(|wire| rearm(view, inputs, wire)));
    }
    if view.changed && !steps.iter().any(|step| step.action.claim().is_some()) {
        let reason = if view.owned { Reason::Changed } else { Reason::Absent };
        steps.push(step(Action::Accept, reason, Cause::Intent, "settings"));
    }
    if let Some(why) = view.suspended {
        standing = Standing::down(Reason::Suspended, why);
    }
    Intent { steps, gate, standing, problem: None }
}

fn verb(scope: &str) -> &str {
    scope.rsplit(':').next().unwrap_or_default()
}

fn place(inputs: &Inputs, wire: &Wire) -> Place {
    Place { at: inputs.at.clone(), trigger: wire.trigger.name.clone() }
}

struct Outcome {
    standing: Standing,
    step: Option<Wanted>,
    gate: Option<String>,
}

/// Whether the trigger is there, as we would write it, with a token that counts.
fn wired(view: &View<'_>, inputs: &Inputs, wire: &Wire, tokens: &Tokens<'_>, record: &mut Record) -> Outcome {
    let place = place(inputs, wire);
    let at = &inputs.at;
    let written = record.wired.clone().filter(|wired| wired.place == place);
    let what = wire.trigger.digest();
    let token = written.as_ref().map_or(Some(Reason::Absent), |wired| tokens.fault(&wired.jti, &wire.bearer));
    let token = token.or_else(|| tokens.issued_by_another(written.as_ref().map(|wired| &wired.issuer)));
    let token = token.or(view.renew.then_some(Reason::Requested));
    let unknown = Vault::Unknown("it was not looked at".to_owned());
    let vault = view.vaults.get(at).unwrap_or(&unknown);
    let seen = match vault {
        Vault::Present(all) => all.get(&place.trigger),
        Vault::Absent | Vault::Unknown(_) => None,
    };
    let finding = match (&written, seen) {
        _ if matches!(vault, Vault::Unknown(_)) => None,
        (Some(_), None) if *vault == Vault::Absent => {
            Some((Reason::VaultMissing, Cause::Drift, "the vault is gone".to_owned()))
        }
        (None, _) if view.owned && view.record.wired.is_some() => Some((Reason::Changed, Cause::Intent, String::new())),
        (None, None) => Some((Reason::Absent, Cause::Intent, String::new())),
        // After a crash, or with a new ledger: whatever is there under our name is ours to write.
        (None, Some(_)) => Some((Reason::Adopted, Cause::Intent, "it is there already".to_owned())),
        (Some(_), None) => Some((Reason::TriggerMissing, Cause::Drift, "somebody removed it".to_owned())),
        (Some(wired), Some(_)) if wired.what != what => Some((Reason::Changed, Cause::Intent, String::new())),
        (Some(wired), Some(seen)) => drift(wire, wired, seen),
    };
    let finding = finding.or_else(|| {
        let reason = token?;
        let cause = if matches!(reason, Reason::Changed | Reason::Absent | Reason::Requested) {
            Cause::Intent
        } else {
            Cause::Drift
        };
        Some((reason, cause, if reason == Reason::Absent { String::new() } else { why(reason).to_owned() }))
    });
    let ready = |standing: Standing| Standing { started: true, ready: true, ..standing };
    let Some((reason, cause, detail)) = finding else {
        let standing = match vault {
            Vault::Present(_) => ready(well(view, inputs, &place)),
            // It was there when it was last looked at.
            Vault::Unknown(why) => unreachable(view, at, why),
            Vault::Absent => Standing::down(Reason::VaultMissing, format!("there is no {at}")),
        };
        return Outcome { standing, step: None, gate: None };
    };
    let mut claim = record.clone();
    claim.triggers.insert(place.clone());
    let taken: BTreeSet<&String> = record.prepared.iter().filter_map(|prepared| prepared.jti.as_ref()).collect();
    let first = written.as_ref().map(|wired| wired.jti.as_str());
    let reuse = tokens.spare(first, &wire.bearer, &taken, view.renew);
    let with = if reuse.is_some() { "the same token" } else { "a new token" };
    let text = match detail.is_empty() {
        true => format!("{} at {at}, with {with}", place.trigger),
        false => format!("{} at {at}: {detail}; with {with}", place.trigger),
    };
    *record = claim.clone();
    let issuer = tokens.holdings.issuer.clone();
    let wiring = Wiring { wire: wire.clone(), at: at.clone(), port: inputs.vault_port, reuse, issuer, claim };
    let step = step(Action::Wire(Box::new(wiring)), reason, cause, text);
    let drifted = (cause == Cause::Drift).then_some((reason, detail));
    match vault {
        Vault::Present(_) => {
            let standing = Standing::down(Reason::Wiring, format!("{} is written", place.trigger));
            Outcome { standing: Standing { drifted, ..standing }, step: Some(step), gate: None }
        }
        Vault::Absent => {
            let message = format!("there is no {at}");
            let gate = Some(format!("{message}; a document of kind Vault makes one"));
            Outcome { standing: Standing::down(Reason::VaultMissing, message), step: Some(step), gate }
        }
        Vault::Unknown(why) => {
            let standing = unreachable(view, at, why);
            Outcome { gate: Some(standing.message.clone()), standing, step: Some(step) }
        }
    }
}

/// Nothing can be said before the vault answers. Whether that is to be hoped for, its service says.
fn unreachable(view: &View<'_>, at: &Address, why: &str) -> Standing {
    let standing = Standing::down(Reason::DependencyNotReady, format!("{at}: {why}"));
    Standing { doomed: view.stays_away, ..standing }
}

/// What somebody else did to it.
fn drift(wire: &Wire, wired: &super::record::Wired, seen: &Seen) -> Option<(Reason, Cause, String)> {
    if let Some(difference) = wire.trigger.difference(seen) {
        return Some((Reason::TriggerEdited, Cause::Drift, format!("somebody changed it: {difference}")));
    }
    (seen.updated_at != wired.updated_at).then(|| {
        let text = "it was written at another time than we wrote it, so its token may be another one";
        (Reason::TriggerOverwritten, Cause::Drift, text.to_owned())
    })
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::BearerRevoked => "its token was revoked, or has expired",
        Reason::KeyRotated => "its token is signed by a key that was retired",
        Reason::BearerExpiring => "its token ends soon",
        Reason::Requested => "another token was asked for",
        _ => "its token is to be another one",
    }
}

/// Everything is as it should be; what is to be said about its events.
fn well(view: &View<'_>, inputs: &Inputs, place: &Place) -> Standing {
    let mut parts = vec![format!("{} at {}", place.trigger, inputs.at)];
    let mut reason = Reason::Wired;
    if let Some(tally) = view.tally {
        if tally.waiting > 0 {
            let trouble = tally.trouble.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            parts.push(format!("{} on the way{trouble}", count(tally.waiting, "event")));
        }
        if tally.dead > 0 {
            reason = Reason::DeadLetters;
            parts.push(format!(
                "{} (`trueup deliveries list --connection {}`)",
                count(tally.dead, "dead letter"),
                view.name
            ));
        }
        if tally.full {
            reason = Reason::QueueFull;
            parts.push("no more events are accepted before some are delivered".to_owned());
        }
    }
    if let Some(stuck) = view.stuck.filter(|stuck| stuck.notes > 0) {
        parts.push(format!("{} at the vault whose event never arrived", count(stuck.notes, "note")));
        reason = if reason == Reason::Wired { Reason::StuckNotes } else { reason };
    }
    match view.hub {
        hub::Standing::Refused { message, .. } => {
            reason = Reason::HubNotServing;
            parts.push(format!("no event can arrive: {message}"));
        }
        hub::Standing::Idle => parts.push("no hub is running, so events that are sent now do not arrive".to_owned()),
        hub::Standing::Starting | hub::Standing::Serving(_) => {}
    }
    Standing::down(reason, parts.join("; "))
}

/// Events that never arrived, if they are to be brought on their way again.
fn rearm(view: &View<'_>, inputs: &Inputs, wire: &Wire) -> Option<Wanted> {
    let stuck = view.stuck.filter(|stuck| !stuck.ripe.is_empty())?;
    // Without a hub they would be stuck again.
    if !matches!(view.hub, hub::Standing::Serving(_)) || view.tally.is_some_and(|tally| tally.full) {
        return None;
    }
    let rearming = Rearming {
        place: place(inputs, wire),
        port: inputs.vault_port,
        event: wire.trigger.events.first().cloned().unwrap_or_default(),
        durable: inputs.wiring.is_some(),
        notes: stuck.ripe.clone(),
    };
    let detail = format!("{} whose event never arrived", count(stuck.notes, "note"));
    Some(step(Action::Rearm(Box::new(rearming)), Reason::StuckNotes, Cause::Drift, detail))
}

/// What the sink must know, if it has to be told.
fn prepared(view: &View<'_>, prepare: &Prepare, tokens: &Tokens<'_>, record: &mut Record) -> Option<Wanted> {
    let old = record.prepared.clone().filter(|old| old.is_at(&prepare.service, prepare.remove.as_ref()));
    let token = |jti: &Option<String>| match (&prepare.token, jti) {
        (Some(wanted), Some(jti)) => tokens.fault(jti, wanted),
        (Some(_), None) => Some(Reason::Absent),
        (None, _) => None,
    };
    let finding = match &old {
        None => Some((Reason::Absent, Cause::Intent)),
        Some(old) if old.what != prepare.what => Some((Reason::Changed, Cause::Intent)),
        Some(old) if !old.done => Some((Reason::Absent, Cause::Intent)),
        Some(_) if *view.at_sink == AtSink::Missing => Some((Reason::SinkForgot, Cause::Drift)),
        Some(old) => token(&old.jti)
            .map(|reason| (reason, Cause::Drift))
            .or_else(|| Some((tokens.issued_by_another(old.jti.as_ref().map(|_| &old.issuer))?, Cause::Intent))),
    };
    let (reason, cause) = finding?;
    let taken: BTreeSet<&String> = record.wired.iter().map(|wired| &wired.jti).collect();
    let first = old.as_ref().and_then(|old| old.jti.as_deref());
    let reuse = prepare.token.as_ref().and_then(|wanted| tokens.spare(first, wanted, &taken, false));
    let mut claim = record.clone();
    // It is taken back when the new one stands: a sink that is gone holds nothing up.
    claim.obsolete.extend(claim.prepared.take_if(|_| old.is_none()));
    claim.obsolete.retain(|other| !other.is_at(&prepare.service, prepare.remove.as_ref()));
    claim.prepared = Some(Prepared {
        service: prepare.service.clone(),
        what: prepare.what.clone(),
        jti: first.map(str::to_owned),
        issuer: tokens.holdings.issuer.clone(),
        remove: prepare.remove.clone(),
        scope: prepare.scope.clone(),
        done: false,
    });
    *record = claim.clone();
    let detail = format!("{} at Service/{}", prepare.put, prepare.service);
    let preparing = Preparing { prepare: prepare.clone(), reuse, claim };
    Some(step(Action::Prepare(Box::new(preparing)), reason, cause, detail))
}

fn lent(view: &View<'_>, inputs: &Inputs, lend: &Lend, tokens: &Tokens<'_>, record: &mut Record) -> Option<Wanted> {
    let old = record.lent.clone();
    let (reason, cause) = match &old {
        None => (Reason::Absent, Cause::Intent),
        Some(old) if old.what != lend.what => (Reason::Changed, Cause::Intent),
        Some(old) if !old.done => (Reason::Absent, Cause::Intent),
        Some(old) if old.issuer != tokens.holdings.issuer => (Reason::Changed, Cause::Intent),
        Some(old) => match old.jti.as_deref().map(|jti| tokens.fault(jti, &lend.token)) {
            None => (Reason::Absent, Cause::Intent),
            Some(Some(reason)) => (reason, Cause::Drift),
            Some(None) if view.renew => (Reason::Requested, Cause::Intent),
            Some(None) => return None,
        },
    };
    let first = old.as_ref().and_then(|old| old.jti.as_deref());
    let reuse = tokens.spare(first, &lend.token, &BTreeSet::new(), view.renew);
    let mut claim = record.clone();
    claim.lent = Some(super::record::Lent {
        service: lend.service.clone(),
        at: inputs.at.clone(),
        what: lend.what.clone(),
        jti: first.map(str::to_owned),
        issuer: tokens.holdings.issuer.clone(),
        key: lend.key.clone(),
        scope: lend.token.scope.clone(),
        tags: lend.tags.clone(),
        endpoint: lend.endpoint.clone(),
        call: lend.call.clone(),
        done: false,
    });
    *record = claim.clone();
    let detail = format!("{} to Service/{}", lend.token.scope, lend.service);
    let lending = Lending {
        lend: lend.clone(),
        at: inputs.at.clone(),
        connection: view.name.clone(),
        reuse,
        renews: first.is_some(),
        claim,
    };
    Some(step(Action::Lend(Box::new(lending)), reason, cause, detail))
}

/// One trigger is taken away, unless another connection goes on with it.
fn unwire(view: &View<'_>, place: Place, record: &mut Record, reason: Reason) -> Option<Wanted> {
    let reachable = view.services.contains(&place.at.service);
    let port = view.ports.get(&place.at.service).copied().filter(|_| reachable);
    record.triggers.remove(&place);
    record.wired.take_if(|wired| wired.place == place);
    let heir = heir(view, &place);
    if reason == Reason::NotDeclared {
        record.heir = heir.cloned().or(record.heir.take());
    }
    let detail = match (&heir, reachable) {
        (Some(heir), _) => format!("{} at {} is Connection/{heir}'s from now on", place.trigger, place.at),
        (None, true) => format!("{} at {}", place.trigger, place.at),
        (None, false) => format!("{} at {}, which is gone; nobody accepts its token any more", place.trigger, place.at),
    };
    let port = port.filter(|_| heir.is_none());
    let unwiring = Unwiring { place, port, then: Some(record.clone()) };
    Some(step(Action::Unwire(Box::new(unwiring)), reason, Cause::Intent, detail))
}

fn withdraw(view: &View<'_>, lent: super::record::Lent, then: &Record, reason: Reason) -> Wanted {
    let port = view.ports.get(&lent.service).copied().filter(|_| view.services.contains(&lent.service));
    let detail = format!("{} from Service/{}", lent.scope, lent.service);
    let action = Withdrawing { lent, connection: view.name.clone(), port, then: then.clone() };
    step(Action::Withdraw(Box::new(action)), reason, Cause::Intent, detail)
}

/// What sinks were told and need not know any more is taken back.
fn unprepare(view: &View<'_>, record: &mut Record, reason: Reason) -> Vec<Wanted> {
    let mut steps = Vec::new();
    while !record.obsolete.is_empty() {
        let old = record.obsolete.remove(0);
        let port = view.ports.get(&old.service).copied().filter(|_| view.services.contains(&old.service));
        let detail = format!("{} at Service/{}", old.remove.as_deref().unwrap_or("nothing"), old.service);
        let action = Unpreparing { prepared: old, port, then: record.clone() };
        steps.push(step(Action::Unprepare(Box::new(action)), reason, Cause::Intent, detail));
    }
    steps
}

/// Live tokens that no record names: what a newer one replaced, or a crash left.
fn surplus(record: &Record, tokens: &Tokens<'_>, reason: Reason) -> Option<Wanted> {
    let used: BTreeSet<&String> = record.jtis().collect();
    let jtis: Vec<String> = tokens.own.iter().map(|row| &row.jti).filter(|jti| !used.contains(jti)).cloned().collect();
    let detail = count(jtis.len() as u64, "token");
    (!jtis.is_empty()).then(|| step(Action::Revoke { jtis }, reason, Cause::Intent, detail))
}

/// Attempts that did not succeed leave a token each, and the newest may be the one that a trigger sends. The others would become more and
/// more while a vault takes nothing and a person goes on editing.
fn excess(record: &Record, inputs: &Inputs, tokens: &Tokens<'_>) -> Option<Wanted> {
    let used: BTreeSet<&String> = record.jtis().collect();
    let wire = inputs.wire.iter().map(|wire| &wire.bearer);
    let prepare = inputs.prepare.iter().filter_map(|prepare| prepare.token.as_ref());
    let wanted: Vec<&Token> = wire.chain(prepare).chain(inputs.lend.iter().map(|lend| &lend.token)).collect();
    let mut free: Vec<&&TokenRow> = tokens.own.iter().filter(|row| !used.contains(&row.jti)).collect();
    free.sort_by(|a, b| (b.created, &b.jti).cmp(&(a.created, &a.jti)));
    // The newest that its own receiver got may be the one in use. What somebody else had goes at once, whether or not the next one answers.
    let is_spare = |row: &&&TokenRow| wanted.iter().any(|wanted| wanted.client == row.client);
    let (spare, others): (Vec<&&TokenRow>, Vec<&&TokenRow>) = free.into_iter().partition(is_spare);
    let jtis: Vec<String> = spare.into_iter().skip(1).chain(others).map(|row| row.jti.clone()).collect();
    let detail = count(jtis.len() as u64, "token");
    (!jtis.is_empty()).then(|| step(Action::Revoke { jtis }, Reason::Replaced, Cause::Intent, detail))
}

/// Nobody declares it.
fn leave(view: &View<'_>, tokens: &Tokens<'_>) -> Intent {
    let mut record = view.record.clone();
    let mut steps = Vec::new();
    let mut unreachable = None;
    for place in view.record.triggers.clone() {
        match view.vaults.get(&place.at) {
            Some(seen) if hands_over(view, &place, seen) => {
                let message =
                    format!("no longer declared; {} is taken over by another connection first", place.trigger);
                return Intent::rest(Standing::down(Reason::NotDeclared, message));
            }
            // Its service may answer again; until then nobody can say that the trigger is gone.
            Some(Vault::Unknown(why)) if view.services.contains(&place.at.service) => {
                unreachable = Some(format!("{}: {why}", place.at));
            }
            _ => steps.extend(unwire(view, place, &mut record, Reason::NotDeclared)),
        }
    }
    if let Some(old) = record.lent.take() {
        steps.push(withdraw(view, old, &record, Reason::NotDeclared));
    }
    // Even while the trigger is there still: what its vault sends is refused then. And before a sink is asked that may not answer.
    steps.extend(surplus(&Record::default(), tokens, Reason::NotDeclared));
    record.obsolete.extend(record.prepared.take());
    steps.extend(unprepare(view, &mut record, Reason::NotDeclared));
    let mut standing = Standing::down(Reason::NotDeclared, "no longer declared");
    if let Some(why) = unreachable {
        standing.message = format!("no longer declared; its trigger is removed when the vault answers ({why})");
    } else if steps.is_empty() {
        let heir = view.record.heir.clone();
        let detail =
            heir.as_ref().map(|heir| format!("what waits of its events is Connection/{heir}'s")).unwrap_or_default();
        steps.push(step(Action::Release { heir }, Reason::NotDeclared, Cause::Intent, detail));
    }
    Intent { steps, gate: None, standing, problem: None }
}

/// Another connection wants this very trigger, and has not written it yet.
fn hands_over(view: &View<'_>, place: &Place, vault: &Vault) -> bool {
    let ours = view.record.wired.as_ref().filter(|wired| wired.place == *place);
    let still = |wired: &super::record::Wired| match vault {
        Vault::Present(all) => all.get(&place.trigger).is_some_and(|seen| seen.updated_at == wired.updated_at),
        Vault::Absent => false,
        Vault::Unknown(_) => view.services.contains(&place.at.service),
    };
    heir(view, place).is_some() && ours.is_some_and(still)
}
