//! `stop` and `start`: a person overrides what a service's file says, for a while.

use super::engine::{Control, Sink};
use super::exit::Failure;
use super::names::{self, Target};
use super::pass::{self, OnCancel};
use super::render::screen::Screen;
use super::{Desk, args};
use crate::model::exit::Exit;
use crate::model::overriding::{Against, OverrideRequest};
use crate::model::unit::Millis;

/// An override is for a while: what is meant for longer belongs into the file, where others see it.
const LONGEST: Millis = Millis(7 * 86_400_000);
/// Less than this would be over before it is done.
const SHORTEST: Millis = Millis(1_000);

pub async fn stop(
    args: &args::Stop,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let reason = args.reason.clone().unwrap_or_default();
    ask(Against::Stop, &args.names, args.span, reason, args.timeout, control, desk, screen).await
}

pub async fn start(
    args: &args::Start,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let reason = args.reason.clone().unwrap_or_default();
    ask(Against::Start, &args.names, args.span, reason, args.timeout, control, desk, screen).await
}

#[expect(clippy::too_many_arguments, reason = "the words of two commands that differ in one of them")]
async fn ask(
    wish: Against,
    targets: &[Target],
    span: Millis,
    reason: String,
    timeout: Millis,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    if !(SHORTEST..=LONGEST).contains(&span) {
        let failure = Failure::new(Exit::Usage, format!("--for cannot be {span}: it is from {SHORTEST} to {LONGEST}"));
        return Err(failure.hint("for longer, write `suspend: true` into its file, where others see it"));
    }
    let wanted = names::services(targets, control, desk).await?;
    let request = OverrideRequest { names: wanted, wish, span, reason };
    let work = async |sink: &mut Sink<'_>| control.override_services(&request, timeout, desk.cancel, sink).await;
    pass::run(desk, screen, OnCancel::Tell, false, work).await
}
