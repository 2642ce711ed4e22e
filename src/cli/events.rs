//! `events`: what happened.

use std::cell::Cell;

use super::engine::{Control, EventRequest};
use super::exit::Failure;
use super::names::{self, Target};
use super::render::screen::Screen;
use super::render::show::Show;
use super::{Desk, args, unless_cancelled};
use crate::model::exit::Exit;
use crate::model::id::ResourceId;
use crate::model::output::Line;
use crate::model::time::Timestamp;

pub async fn run(
    args: &args::Events,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let resource = match &args.target {
        None => None,
        Some(target) => Some(resource(target, control, desk).await?),
    };
    let ago = |span: crate::model::unit::Millis| i64::try_from(span.0).unwrap_or(i64::MAX);
    let since = args.since.map(|span| Timestamp(desk.wiring.now().0.saturating_sub(ago(span))));
    let request = EventRequest { resource, since, limit: args.lines, follow: args.follow };
    let now = || desk.wiring.now();
    let mut show = Show::new(screen, &now);
    let seen = Cell::new(false);
    let (closer, closed) = tokio::sync::watch::channel(false);
    {
        let mut sink = |line: Line| {
            seen.set(true);
            show.line(&line);
            if show.closed() {
                closer.send_replace(true);
            }
        };
        let mut closed = closed.clone();
        // Following ends when the user or the reader of our output is gone; dropping it is safe because it only reads.
        tokio::select! {
            done = control.events(&request, desk.cancel, &mut sink) => done?,
            _ = desk.cancel.wait() => if !args.follow { return Err(Failure::cancelled()) },
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }
    if !seen.get() && !args.follow {
        show.note("no events");
    }
    Ok(Exit::Done)
}

/// An event may speak of a resource that is long gone, so a full identity is taken at its word.
async fn resource(target: &Target, control: &dyn Control, desk: Desk<'_>) -> Result<ResourceId, Failure> {
    match target {
        Target::Id(id) => Ok(id.clone()),
        other => names::one(&unless_cancelled(desk.cancel, control.get()).await?.resources, other),
    }
}
