//! `get`: the resources, and how they are.

use super::engine::Control;
use super::exit::Failure;
use super::render::screen::Screen;
use super::render::show::write_data;
use super::render::table;
use super::{Desk, args, names, unless_cancelled};
use crate::model::condition::{ConditionStatus, ConditionType};
use crate::model::exit::Exit;
use crate::model::output::{By, Line, ResourceLine, Summary};

pub async fn run(
    args: &args::Get,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let started = desk.wiring.now();
    let all = unless_cancelled(desk.cancel, control.get()).await?;
    let chosen = names::select(all, &args.targets)?;
    if screen.is_text() {
        if chosen.is_empty() {
            screen.err("no resources\n");
        } else {
            screen.out(&table::resources(&chosen, desk.wiring.now()));
        }
        return Ok(Exit::Done);
    }
    let mut summary = summary_of(&chosen);
    summary.duration_ms = u64::try_from(desk.wiring.now().0 - started.0).unwrap_or(0);
    for line in chosen {
        write_data(screen, &Line::Resource(line));
    }
    write_data(screen, &Line::Summary(summary));
    Ok(Exit::Done)
}

/// What can be said of resources without planning.
pub fn summary_of(lines: &[ResourceLine]) -> Summary {
    let count = |kind, status| {
        let has = |line: &&ResourceLine| line.conditions.iter().any(|c| c.kind == kind && c.status == status);
        lines.iter().filter(has).count()
    };
    let ready = count(ConditionType::Ready, ConditionStatus::True);
    let drift = count(ConditionType::Drifted, ConditionStatus::True);
    Summary {
        resources: lines.len(),
        drift,
        failed: count(ConditionType::Stalled, ConditionStatus::True),
        waiting: count(ConditionType::Reconciling, ConditionStatus::True),
        held: lines.iter().filter(|line| line.phase.ends_with("Held")).count(),
        overridden: lines.iter().filter(|l| l.pause.as_ref().is_some_and(|pause| pause.by != By::File)).count(),
        in_sync: ready == lines.len() && drift == 0,
        ..Summary::default()
    }
}
