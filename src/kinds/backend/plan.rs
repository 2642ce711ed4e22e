//! What is to be done about a StorageBackend. Pure.

use super::inputs::where_is;
use super::spec::{DeletionPolicy, StorageBackendSpec};
use crate::kinds::intent::{self, Trouble};
use crate::kinds::standing::Standing;
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::problem::{Code, Problem};
use crate::model::wording::{count, size};
use crate::ports::blobs::Tally;
use crate::ports::storage::{Health, Place};

/// What the ledger learns; the bytes are the mover's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It may be used from now on, as its document says.
    Accept,
    /// It is not ours any more. What lies there stays.
    Release,
}

impl Action {
    /// Its name in plans, journals and output.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Release => "release",
        }
    }
}

/// A step to be.
pub type Wanted = intent::Wanted<Action>;

/// What the policy says.
pub type Intent = intent::Intent<Action>;

/// Everything that is known of one.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// `None` when its stored document cannot be read any more.
    pub spec: Option<&'a StorageBackendSpec>,
    /// No document declares it.
    pub leaves: bool,
    pub owned: bool,
    /// Its document is another one than the ledger's.
    pub changed: bool,
    /// Where it is, or the secret that is not to be had.
    pub place: Option<&'a Result<Place, Box<Problem>>>,
    /// Its secrets were not asked for, so its place is not known exactly.
    pub assumed: bool,
    pub health: Option<&'a Health>,
    pub tally: Tally,
    /// Blobs lie there, or go there.
    pub in_use: bool,
    /// Blobs are on their way from there to another backend.
    pub drains: bool,
}

/// Decides.
pub fn plan(view: &View<'_>) -> Intent {
    if view.leaves {
        return leave(view);
    }
    let mut intent = Intent::rest(standing(view));
    if let Some(Err(problem)) = view.place {
        intent.problem = Some(Trouble::Placed(problem.clone()));
        return intent;
    }
    if let Some(Health::Refused(why)) = view.health {
        intent.problem = Some(Trouble::At {
            pointer: "/spec",
            code: Code::BackendRefused,
            message: format!("it cannot be used: {why}"),
            hint: "it is tried again now and then, and at once when its file or a secret changes".to_owned(),
        });
    }
    if view.changed {
        let detail = match view.place {
            Some(Ok(place)) => where_is(&place.location),
            _ => String::new(),
        };
        let reason = if view.owned { Reason::Changed } else { Reason::Absent };
        intent.steps.push(step(Action::Accept, reason, detail));
    }
    intent
}

fn step(action: Action, reason: Reason, detail: String) -> Wanted {
    Wanted { action, reason, cause: Cause::Intent, detail, pointer: String::new() }
}

fn standing(view: &View<'_>) -> Standing {
    let place = match view.place {
        Some(Ok(place)) => place,
        Some(Err(problem)) => return Standing::down(Reason::BadInput, problem.message.clone()).doomed(),
        None => return Standing::down(Reason::Unknown, "not looked at"),
    };
    match view.health {
        Some(Health::Proven(digest)) if view.assumed || *digest == place.digest => {
            let message = match view.tally.objects {
                0 => "can be used".to_owned(),
                objects => format!("holds {} ({})", count(objects, "object"), size(view.tally.bytes)),
            };
            Standing { started: true, ready: true, ..Standing::down(Reason::Usable, message) }
        }
        None | Some(Health::Unproven | Health::Proven(_)) => {
            Standing::down(Reason::Unproven, "being tried: something is written, read back and deleted")
        }
        Some(Health::Refused(why)) => Standing::down(Reason::BackendRefused, why).doomed(),
        Some(Health::Failing { why, retry_at }) => {
            Standing::down(Reason::BackendFailing, format!("{why}; tried again at {retry_at}"))
        }
    }
}

/// It goes when nothing relies on it.
fn leave(view: &View<'_>) -> Intent {
    let needed = match view.tally.objects {
        0 if view.in_use => Some("no longer declared; let go of when another backend is the active one".to_owned()),
        0 => None,
        objects => Some(format!(
            "no longer declared; let go of when its {} ({}) have been moved",
            count(objects, "object"),
            size(view.tally.bytes)
        )),
    };
    if let Some(message) = needed {
        let standing = Standing::down(Reason::StillNeeded, message);
        return Intent::rest(if view.drains { standing } else { standing.doomed() });
    }
    let delete = view.spec.is_some_and(|spec| spec.deletion_policy == DeletionPolicy::Delete);
    if delete && view.tally.spares > 0 && !matches!(view.health, Some(Health::Refused(_))) {
        let message =
            format!("no longer declared; {} that nobody needs are removed first", count(view.tally.spares, "object"));
        return Intent::rest(Standing::down(Reason::StillNeeded, message));
    }
    let detail = match view.tally.spares {
        0 => String::new(),
        spares => format!("{} that nobody needs stay there", count(spares, "object")),
    };
    let standing = Standing::down(Reason::NotDeclared, "no longer declared");
    Intent::act(standing, step(Action::Release, Reason::NotDeclared, detail))
}
