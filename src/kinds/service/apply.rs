//! Does one action. No decisions here: every action is idempotent, short, and answers what came of it.

use super::inputs::{Inputs, Reload, ReloadWay, WantedRow};
use super::plan::Action;
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::unit::Millis;
use crate::ports::keeper::{Exit, Unit};
use crate::ports::probes::Ask;
use crate::ports::{Hand, PortError};

/// A reload command that takes longer holds everything else up.
const RELOAD_LIMIT: Millis = Millis::secs(10);

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the unit as it is now, where the action has one.
    Changed(Option<Box<Unit>>),
    /// Done, and this is the kind's record in the ledger from now on.
    Recorded(String),
    /// It was so already.
    Already,
    /// Not done; later it may work.
    Retry(String),
    /// Not done, and will not work until something else changes.
    Never(String),
    /// It may or may not have been done.
    Unsure(String),
}

impl From<PortError> for Outcome {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Retry(why) => Self::Retry(why),
            PortError::Never(why) => Self::Never(why),
            PortError::Unsure(why) => Self::Unsure(why),
        }
    }
}

/// Does it.
pub async fn apply(hand: &Hand<'_>, name: &Name, action: &Action) -> Outcome {
    match action {
        Action::Spawn(inputs) | Action::Update(inputs) => ensure(hand, name, inputs, false).await,
        // A run that another follows at once is replaced; one that ended is begun anew.
        Action::Run { inputs, .. } => ensure(hand, name, inputs, true).await,
        Action::PassOver { .. } => Outcome::Changed(None),
        Action::Restart { inputs, again } => ensure(hand, name, inputs, *again).await,
        Action::Reload { pid, reload } => tell(hand, name, *pid, reload).await,
        Action::Prove | Action::Refuse { .. } => Outcome::Changed(None),
        Action::Heal { pid, why } => done(hand.keeper().unwell(name, *pid, why).await),
        Action::Stop => {
            hand.probes().drop_probe(name);
            done(hand.keeper().stop(name).await)
        }
        Action::StopStrays => done(hand.keeper().stop_strays(name).await),
        Action::PutRow { home, row } => put_row(hand, home, row),
        Action::RemoveRow { home, row } => match hand.registry().remove(home, row) {
            Ok(true) => Outcome::Changed(None),
            Ok(false) => Outcome::Already,
            Err(error) => error.into(),
        },
        Action::Accept => Outcome::Changed(None),
        Action::Release { home, row } => release(hand, name, home.as_deref(), row.as_deref()).await,
    }
}

async fn ensure(hand: &Hand<'_>, name: &Name, inputs: &Inputs, again: bool) -> Outcome {
    match hand.keeper().ensure(name, &inputs.launch, &inputs.policy, again).await {
        Ok(unit) => match (&unit.process, &unit.last_exit) {
            // The keeper keeps trying; that this attempt failed is still worth a line.
            (None, Some(Exit::NotSpawned(why))) => Outcome::Retry(format!("could not be started: {why}")),
            _ => Outcome::Changed(Some(Box::new(unit))),
        },
        Err(error) => error.into(),
    }
}

async fn tell(hand: &Hand<'_>, name: &Name, pid: u32, reload: &Reload) -> Outcome {
    match &reload.way {
        ReloadWay::Signal(number) => done(hand.keeper().signal(name, pid, *number).await),
        ReloadWay::Exec(ask) => match hand.probes().run(&with_main_pid(ask, pid), RELOAD_LIMIT).await {
            Ok(()) => Outcome::Changed(None),
            Err(why) => Outcome::Retry(format!("the reload command failed: {why}")),
        },
    }
}

fn with_main_pid(ask: &Ask, pid: u32) -> Ask {
    let mut ask = ask.clone();
    if let Ask::Exec { env, .. } = &mut ask {
        env.insert("MAINPID".to_owned(), Secret::new(pid.to_string()));
    }
    ask
}

fn done(result: Result<(), PortError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Changed(None),
        Err(error) => error.into(),
    }
}

fn put_row(hand: &Hand<'_>, home: &std::path::Path, row: &WantedRow) -> Outcome {
    match hand.registry().put(home, &row.name, &row.fields, &row.seed) {
        Ok(true) => Outcome::Changed(None),
        Ok(false) => Outcome::Already,
        Err(error) => error.into(),
    }
}

async fn release(hand: &Hand<'_>, name: &Name, home: Option<&std::path::Path>, row: Option<&str>) -> Outcome {
    hand.probes().drop_probe(name);
    if let Err(error) = hand.keeper().forget(name).await {
        return error.into();
    }
    if let (Some(home), Some(row)) = (home, row)
        && let Err(error) = hand.registry().remove(home, row)
    {
        return error.into();
    }
    Outcome::Changed(None)
}
