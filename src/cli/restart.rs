//! `restart`: stops services and starts them again.

use super::engine::{Control, Sink};
use super::exit::Failure;
use super::names;
use super::pass::{self, OnCancel};
use super::render::screen::Screen;
use super::{Desk, args};
use crate::model::exit::Exit;

pub async fn run(
    args: &args::Restart,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let wanted = names::services(&args.names, control, desk).await?;
    let work = async |sink: &mut Sink<'_>| control.restart(&wanted, args.timeout, desk.cancel, sink).await;
    pass::run(desk, screen, OnCancel::Tell, false, work).await
}
