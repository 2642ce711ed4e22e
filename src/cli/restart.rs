//! `restart`: stops services and starts them again.

use super::engine::{Control, Sink};
use super::exit::Failure;
use super::names;
use super::pass::{self, OnCancel};
use super::render::screen::Screen;
use super::{Desk, args, unless_cancelled};
use crate::model::exit::Exit;

pub async fn run(
    args: &args::Restart,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let mut wanted = Vec::new();
    for target in &args.names {
        let name = target.service()?;
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    // A name that is not there is better told before anything is stopped.
    let all = unless_cancelled(desk.cancel, control.get()).await?.resources;
    for name in &wanted {
        names::runnable(&all, name)?;
    }
    let work = async |sink: &mut Sink<'_>| control.restart(&wanted, args.timeout, desk.cancel, sink).await;
    pass::run(desk, screen, OnCancel::Tell, false, work).await
}
