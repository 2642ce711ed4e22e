//! `plan`: what would change, and why.

use super::Desk;
use super::args;
use super::engine::{Control, PlanOptions};
use super::exit::Failure;
use super::pass::{self, OnCancel};
use super::render::screen::Screen;
use crate::model::exit::Exit;

pub async fn run(
    args: &args::Plan,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let options = PlanOptions { allow_prune: args.allow_prune, adopt_state: args.adopt_state };
    pass::run(desk, screen, OnCancel::Drop, args.detailed_exitcode, async |sink| control.plan(&options, sink).await)
        .await
}
