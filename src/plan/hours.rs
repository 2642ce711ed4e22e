//! What the hour says of a service: suspended until then, stopped or started by a person for a while, due by its schedule. Pure:
//! the hour is part of the input.

use super::Input;
use crate::kinds::service::plan::{Intent, Wish};
use crate::kinds::service::schedule::Timetable;
use crate::kinds::service::spec::ServiceSpec;
use crate::model::condition::Reason;
use crate::model::id::ResourceId;
use crate::model::output::{By, NoteLine, Pause};
use crate::model::overriding::{Against, Override};
use crate::model::time::Timestamp;

/// What of a service depends on the hour.
#[derive(Clone, Debug, Default)]
pub struct Hours {
    /// It is as it is for a while only, or against its file.
    pub pause: Option<Pause>,
    /// When it runs next by its schedule.
    pub next_run: Option<Timestamp>,
    /// What a person should hear of it.
    pub note: Option<NoteLine>,
}

impl Hours {
    /// When it has to be looked at again because the hour changes something.
    pub fn wake(&self) -> Option<Timestamp> {
        self.pause.as_ref().and_then(|pause| pause.until).into_iter().chain(self.next_run).min()
    }

    pub(super) fn says_something(&self) -> bool {
        self.pause.is_some() || self.next_run.is_some() || self.note.is_some()
    }

    /// Whether a person keeps it from being what its file says.
    pub fn overridden(&self) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.by != By::File)
    }
}

/// Whether a declared service is to run at this time, unless everything is stopped.
pub(crate) fn is_to_run(spec: &ServiceSpec, over: Option<&Override>, now: Timestamp) -> bool {
    match over.map(|over| over.wish) {
        Some(Against::Stop) => false,
        Some(Against::Start) => true,
        None => !spec.suspend.holds(now),
    }
}

/// What is wished of a declared service now.
pub(super) fn wish(input: &Input<'_>, id: &ResourceId, spec: &ServiceSpec) -> (Wish, Hours) {
    let mut hours = Hours::default();
    if input.down {
        return (Wish::Stay(Reason::Down), hours);
    }
    let suspended = spec.suspend.holds(input.now);
    let over = input.overrides.get(id).filter(|over| over.wish == Against::Stop || suspended);
    let wish = match over.map(|over| over.wish) {
        Some(Against::Stop) => Wish::Stay(Reason::Overridden),
        Some(Against::Start) => Wish::Run,
        None if suspended => Wish::Stay(Reason::Suspended),
        None => Wish::Run,
    };
    if let Some(over) = over {
        hours.pause = Some(Pause {
            by: if over.wish == Against::Stop { By::Stop } else { By::Start },
            until: Some(over.until),
            reason: over.reason.clone(),
        });
        hours.note = Some(NoteLine { resource: id.clone(), reason: Reason::Overridden, message: note(over) });
    } else if suspended {
        let reason = spec.suspend.reason().unwrap_or_default().to_owned();
        hours.pause = Some(Pause { by: By::File, until: spec.suspend.until(), reason });
    }
    if wish == Wish::Run {
        let table = spec.schedule.as_ref().and_then(|schedule| schedule.timetable());
        hours.next_run = table.and_then(|table: Timetable| table.next(input.now));
    }
    (wish, hours)
}

fn note(over: &Override) -> String {
    let reason = if over.reason.is_empty() { String::new() } else { format!(" ({})", over.reason) };
    match over.wish {
        Against::Stop => format!(
            "kept stopped by `trueup stop` until {}{reason}, although its file says run; `trueup start {}` takes it back",
            over.until, over.resource.name
        ),
        Against::Start => format!(
            "kept running by `trueup start` until {}{reason}, although its file suspends it; `trueup stop {}` stops it",
            over.until, over.resource.name
        ),
    }
}

/// Says in the standing why a service stays stopped, and what a wish of a person came to.
pub(super) fn explain(hours: &mut Hours, id: &ResourceId, requested: bool, intent: &mut Intent) {
    let Some(pause) = hours.pause.as_ref().filter(|pause| pause.by != By::Start) else { return };
    let message = pause.sentence();
    if matches!(intent.standing.reason, Reason::Suspended | Reason::Overridden) && pause.by_more_than_a_word() {
        intent.standing.message.clone_from(&message);
    }
    if requested {
        let name = &id.name;
        let way = match pause.by {
            By::File => format!("`trueup start {name}` runs it for a while"),
            By::Stop | By::Start => format!("`trueup start {name}` takes that back"),
        };
        let reason = intent.standing.reason;
        let message = format!("not restarted: it is {message}; {way}");
        hours.note = Some(NoteLine { resource: id.clone(), reason, message });
    }
}
