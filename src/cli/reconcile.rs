//! `reconcile`: once, or for as long as it lives.

use super::Desk;
use super::args;
use super::engine::{Control, ReconcileOptions, Sink};
use super::exit::Failure;
use super::pass::{self, OnCancel};
use super::render::screen::Screen;
use crate::model::exit::Exit;

pub async fn run(
    args: &args::Reconcile,
    control: &dyn Control,
    desk: Desk<'_>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let options = ReconcileOptions {
        allow_prune: args.allow_prune,
        adopt_state: args.adopt_state,
        timeout: args.timeout,
        lock_timeout: args.lock_timeout,
    };
    let cancel = desk.cancel;
    if args.once {
        let work = async |sink: &mut Sink<'_>| control.reconcile_once(&options, cancel, sink).await;
        pass::run(desk, screen, OnCancel::Tell, args.detailed_exitcode, work).await
    } else {
        let work = async |sink: &mut Sink<'_>| control.run_daemon(&options, cancel, sink).await;
        pass::run(desk, screen, OnCancel::Serve, false, work).await
    }
}
