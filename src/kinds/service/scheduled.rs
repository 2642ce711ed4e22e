//! What is done for a service that runs by the clock, and what the ledger keeps for it. Pure: the hour is part of what is looked at.
//!
//! A time is claimed in the ledger before its run is begun, so whatever crashes when, no time is run twice. A crash in between
//! loses that one run; a start that certainly did not happen gives its time back.

use serde::{Deserialize, Serialize};

use super::inputs::Inputs;
use super::observe::{Record, State};
use super::plan::{Action, Intent, View, is_live, port_taken, row, running, standing, step};
use super::schedule::{Missed, Overlap, ScheduleSpec, Timetable};
use crate::kinds::Spec;
use crate::kinds::standing::Standing;
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::keeper::{Phase, Unit};

/// A run that begins so much after its time is one that nobody was there for. The daemon wakes at the time itself, and at the
/// latest half a minute after the machine did.
const LATE: Millis = Millis(60_000);

/// A time of a schedule that is past, and lies further ahead of now than this, was noted while the clock was wrong. Less is a clock
/// that was set back a little, or by the hour that people set clocks back: no time is run twice because of that.
const AHEAD: Millis = Millis(3_600_000);

/// A schedule and the hour.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    pub spec: &'a ScheduleSpec,
    pub now: Timestamp,
}

/// What is past of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// Of which schedule: another one begins anew.
    pub of: String,
    /// The last time that was run or passed over; at first the moment it was first seen.
    pub slot: Timestamp,
    /// When a run last ended with success, as far as it was known when the next one began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub succeeded: Option<Timestamp>,
}

/// Decides.
pub(super) fn run(view: &View<'_>, state: &State, inputs: &Inputs, turn: &Turn<'_>) -> Intent {
    let Some(table) = turn.spec.timetable() else {
        return Intent::rest(Standing::down(Reason::Unknown, "its time zone is not known on this machine any more"));
    };
    let past = view.record.and_then(|record| record.past.as_ref());
    let unit = state.unit.as_ref();
    let live = unit.filter(|unit| is_live(unit) || unit.phase == Phase::Stopping);
    let mut intent = match live {
        // A run goes on with the settings it began with; the next one has the new ones.
        Some(unit) if unit.digest != inputs.launch.digest => Intent::rest(standing(state, unit)),
        Some(unit) => running(&View { requested: false, ..*view }, state, inputs, unit),
        None => Intent::rest(waiting(&table, turn.now, past, unit)),
    };
    intent.standing.completed |= success(past, unit).is_some();
    let known = past.filter(|past| past.of == turn.spec.key() && !is_ahead(past, turn.now));
    let due = known.and_then(|past| table.latest(turn.now).filter(|slot| *slot > past.slot));
    match due {
        _ if view.requested => begin(view, state, inputs, None, "asked for by a person", &mut intent),
        Some(slot) => {
            let late = turn.now.0.saturating_sub_unsigned(LATE.0) > slot.0;
            let shown = table.show(slot);
            if late && turn.spec.missed == Missed::Skip {
                pass_over(slot, Reason::Missed, format!("{shown}: passed while nobody looked"), &mut intent);
            } else if live.is_some() && turn.spec.overlap == Overlap::Forbid {
                pass_over(slot, Reason::Overlap, format!("{shown}: the last run still runs"), &mut intent);
            } else {
                let detail = if late { format!("{shown}, missed") } else { shown };
                begin(view, state, inputs, Some(slot), &detail, &mut intent);
            }
        }
        None if (known.is_none() || view.changed) && intent.steps.is_empty() => {
            let ahead = past.filter(|past| is_ahead(past, turn.now));
            let detail = ahead.map_or_else(|| "nothing runs before its time".to_owned(), begins_anew);
            intent.steps.push(step(Action::Accept, Reason::Changed, Cause::Intent, detail, "/spec/schedule"));
        }
        None => {}
    }
    row(view, state, &mut intent);
    intent
}

/// A run, unless something it needs is not there yet: then it begins as soon as it is.
fn begin(view: &View<'_>, state: &State, inputs: &Inputs, slot: Option<Timestamp>, detail: &str, intent: &mut Intent) {
    if let Some(blocked) = port_taken(state) {
        *intent = blocked;
        return;
    }
    let reason = if slot.is_some() { Reason::Scheduled } else { Reason::Requested };
    let action = Action::Run { inputs: Box::new(inputs.clone()), slot };
    let completed = intent.standing.completed;
    let mut next = Standing::down(Reason::Absent, "to be run");
    if let Some(unmet) = view.unmet {
        next = Standing::down(Reason::DependencyNotReady, unmet.message.clone());
        next.doomed = unmet.doomed;
        intent.gate = Some(unmet.message.clone());
    }
    next.completed = completed;
    intent.standing = next;
    intent.steps = vec![step(action, reason, Cause::Intent, detail, "/spec/schedule")];
}

fn pass_over(slot: Timestamp, reason: Reason, detail: String, intent: &mut Intent) {
    intent.steps.push(step(Action::PassOver { slot }, reason, Cause::Intent, detail, "/spec/schedule"));
}

/// How it stands between two runs. The text names the next time and no span: it is the same until then.
fn waiting(table: &Timetable, now: Timestamp, past: Option<&Past>, unit: Option<&Unit>) -> Standing {
    let next = match table.next(now) {
        Some(next) => format!("next run at {}", table.show(next)),
        None => "no next run".to_owned(),
    };
    let ended = unit.filter(|unit| unit.phase == Phase::Ended).and_then(|unit| unit.last_exit.as_ref());
    let well = unit.is_some_and(ended_well);
    match ended {
        Some(_) if well => Standing::down(Reason::Scheduled, format!("the last run succeeded; {next}")),
        Some(exit) => Standing::down(Reason::LastRunFailed, format!("the last run ended with {exit}; {next}")),
        None if past.is_some_and(|past| past.succeeded.is_some()) => {
            Standing::down(Reason::Scheduled, format!("an earlier run succeeded; {next}"))
        }
        None => Standing::down(Reason::Scheduled, next),
    }
}

/// Whether its last run ended as its policy calls success.
fn ended_well(unit: &Unit) -> bool {
    unit.last_exit.as_ref().is_some_and(|exit| unit.policy.restart.succeeded(exit))
}

/// When a run last ended well, as far as is known.
fn success(past: Option<&Past>, unit: Option<&Unit>) -> Option<Timestamp> {
    let now = unit.filter(|unit| ended_well(unit)).map(|u| u.last_exit_at.unwrap_or_default());
    now.or_else(|| past.and_then(|past| past.succeeded))
}

fn is_ahead(past: &Past, now: Timestamp) -> bool {
    past.slot.0 > now.0.saturating_add_unsigned(AHEAD.0)
}

fn begins_anew(past: &Past) -> String {
    format!(
        "its last time is noted as {}, which is still to come: the clock was ahead; its schedule begins anew now",
        past.slot
    )
}

/// What a person should hear about what is noted of a schedule.
pub(crate) fn note(record: Option<&Record>, now: Timestamp) -> Option<String> {
    record?.past.as_ref().filter(|past| is_ahead(past, now)).map(begins_anew)
}

/// What the ledger holds from the beginning of a step on: the time is claimed before the run.
pub(crate) fn claim(record: &mut Record, spec: &Spec, action: Option<&Action>, unit: Option<&Unit>, wall: Timestamp) {
    let Some(schedule) = spec.as_service().and_then(|spec| spec.schedule.as_ref()) else {
        record.past = None;
        return;
    };
    let before = record.past.take();
    let succeeded = success(before.as_ref(), unit);
    let of = schedule.key();
    let kept = before.filter(|past| past.of == of && !is_ahead(past, wall)).map_or(wall, |past| past.slot);
    let slot = match action {
        Some(Action::Run { slot: Some(slot), .. } | Action::PassOver { slot }) => (*slot).max(kept),
        _ => kept,
    };
    record.past = Some(Past { of, slot, succeeded });
}

/// The run certainly did not begin.
pub(crate) fn give_back(record: &mut Record, before: Option<Past>) {
    if let (Some(past), Some(before)) = (&mut record.past, before)
        && past.of == before.of
    {
        past.slot = before.slot;
    }
}
