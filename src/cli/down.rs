//! `down`: stops every module, then the keeper.

use super::Desk;
use super::args;
use super::engine::{Control, Sink};
use super::exit::Failure;
use super::pass::{self, OnCancel};
use super::render::screen::Screen;
use crate::model::exit::Exit;

pub async fn run(
    args: &args::Down,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let work = async |sink: &mut Sink<'_>| control.down(args.timeout, desk.cancel, sink).await;
    pass::run(desk, screen, OnCancel::Tell, false, work).await
}
