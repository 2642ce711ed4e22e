//! `get`: the resources, and how they are.

use super::engine::{Control, Listing};
use super::exit::Failure;
use super::render::human::count;
use super::render::lines;
use super::render::screen::Screen;
use super::render::show::write_data;
use super::render::table;
use super::{Desk, args, catalog, names, unless_cancelled};
use crate::model::condition::{ConditionStatus, ConditionType};
use crate::model::exit::Exit;
use crate::model::output::{By, ErrorLine, Line, ProblemLine, ResourceLine, Summary};
use crate::model::problem::Severity;

/// So many mistakes are named below the table.
const MISTAKES_SHOWN: usize = 3;

pub async fn run(
    args: &args::Get,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if let Some((first, of)) = args.targets.split_first()
        && let Some(what) = catalog::What::of(first)
    {
        return catalog::run(what, of, control, desk, screen).await;
    }
    let started = desk.wiring.now();
    let Listing { resources, problems, unreadable } = unless_cancelled(desk.cancel, control.get()).await?;
    let chosen = names::select(resources, &args.targets)?;
    let why = unreadable.then(|| {
        let message = format!("the folder of manifests cannot be read: {}", desk.place.manifests.display());
        let exit = Exit::Invalid.as_str().to_owned();
        let hint = "what is listed is what runs from before; name the folder with --manifests".to_owned();
        ErrorLine { code: exit, message, causes: Vec::new(), hint: Some(hint) }
    });
    let exit = if unreadable { Exit::Invalid } else { Exit::Done };
    if screen.is_text() {
        if chosen.is_empty() {
            screen.err("no resources\n");
        } else {
            screen.out(&table::resources(&chosen, desk.wiring.now()));
        }
        screen.flush();
        screen.err(&mistakes(&problems));
        if let Some(why) = why {
            screen.err(&lines::error(&why));
        }
        return Ok(exit);
    }
    let mut summary = summary_of(&chosen);
    summary.duration_ms = u64::try_from(desk.wiring.now().0 - started.0).unwrap_or(0);
    for problem in problems {
        write_data(screen, &Line::Problem(problem));
    }
    for line in chosen {
        write_data(screen, &Line::Resource(line));
    }
    if let Some(why) = why {
        write_data(screen, &Line::Error(why));
    }
    write_data(screen, &Line::Summary(summary));
    Ok(exit)
}

/// Each mistake on one line; the rest is what `validate` is for.
pub(super) fn mistakes(problems: &[ProblemLine]) -> String {
    let errors: Vec<&ProblemLine> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let mut text: String = errors.iter().take(MISTAKES_SHOWN).map(|problem| lines::brief(problem)).collect();
    if let Some(more @ 1..) = errors.len().checked_sub(MISTAKES_SHOWN) {
        text.push_str(&format!("... and {}\n", count(more, "more mistake")));
    }
    if !errors.is_empty() {
        text.push_str("'trueup validate' shows what is wrong in the manifests\n");
    }
    text
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
