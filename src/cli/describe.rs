//! `describe`: everything known of one resource.

use super::engine::Control;
use super::exit::Failure;
use super::render::screen::Screen;
use super::render::show::write_data;
use super::{Desk, args, logs, names, render, unless_cancelled};
use crate::model::exit::Exit;
use crate::model::id::KindName;
use crate::model::output::Line;

/// So many lines of output are shown: enough for a stack trace's end, and the rest is one command away.
const LOG_LINES: usize = 10;

pub async fn run(
    args: &args::Describe,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let all = unless_cancelled(desk.cancel, control.get()).await?.resources;
    let id = names::one(&all, &args.target)?;
    let mut description = unless_cancelled(desk.cancel, control.describe(&id)).await?;
    if description.log.is_empty() && id.kind == KindName::Service {
        // The output is an extra: a resource without any, or with an unreadable one, is described all the same.
        description.log = logs::last(desk.place, id.name.as_str(), LOG_LINES).unwrap_or_default();
    }
    if screen.is_text() {
        screen.out(&render::describe::text(&description, desk.wiring.now()));
    } else {
        let summary = super::get::summary_of(std::slice::from_ref(&description.resource));
        write_data(screen, &Line::Description(Box::new(description)));
        write_data(screen, &Line::Summary(summary));
    }
    Ok(Exit::Done)
}
