//! What `validate`, `plan`, `reconcile`, `restart` and `down` have in common: lines while it runs, then why, then the summary.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;

use super::Desk;
use super::engine::{Outcome, Sink};
use super::exit::{self, Failure};
use super::interrupt::Stop;
use super::render::screen::Screen;
use super::render::show::Show;
use crate::model::exit::Exit;
use crate::model::output::{Line, Summary};

/// What happens to the work when the user wants to leave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnCancel {
    /// It only looks: it is dropped.
    Drop,
    /// The same, and it only checks.
    Check,
    /// It changes things: it is told, and ends itself between two steps.
    Tell,
    /// The same, and being told by a service manager is its ordinary end.
    Serve,
}

/// Runs the work and prints its lines; the exit code follows from its outcome.
pub async fn run(
    desk: Desk<'_>,
    screen: &mut Screen,
    on_cancel: OnCancel,
    detailed: bool,
    work: impl AsyncFnOnce(&mut Sink<'_>) -> Result<Outcome, Failure>,
) -> Result<Exit, Failure> {
    let now = || desk.wiring.now();
    let screen_is_text = screen.is_text();
    let show = RefCell::new(Show::new(screen, &now));
    let started = desk.wiring.now();
    let mut sink = |line: Line| match line {
        // The summary of a single pass comes back in its outcome and is printed last, once.
        Line::Summary(_) if on_cancel != OnCancel::Serve => {}
        line => show.borrow_mut().line(&line),
    };
    let work = work(&mut sink);
    let result = match on_cancel {
        OnCancel::Drop | OnCancel::Check => super::unless_cancelled(desk.cancel, work).await,
        OnCancel::Tell | OnCancel::Serve => told(desk, &show, work).await,
    };
    let mut outcome = result?;
    if outcome.summary.duration_ms == 0 {
        outcome.summary.duration_ms = u64::try_from(desk.wiring.now().0 - started.0).unwrap_or(0);
    }
    let (mut exit, mut why) = exit::of(&outcome, detailed);
    if exit == Exit::Cancelled && on_cancel == OnCancel::Serve && desk.cancel.requested() == Some(Stop::Terminate) {
        (exit, why) = (Exit::Done, None);
    }
    if exit == Exit::Cancelled && on_cancel == OnCancel::Serve {
        let message = "stopped watching; modules run on";
        if screen_is_text {
            show.borrow_mut().note(message);
            why = None;
        } else if let Some(why) = &mut why {
            (why.message, why.hint) = (message.to_owned(), None);
        }
    }
    if on_cancel == OnCancel::Check && why.is_none() {
        show.borrow_mut().checking();
    }
    finish(&mut show.borrow_mut(), why.map(Line::Error), outcome.summary);
    Ok(exit)
}

/// For people the reason comes last, because the end of the output is what they read; for programs the summary does.
fn finish(show: &mut Show<'_>, why: Option<Line>, summary: Summary) {
    let mut last = vec![Line::Summary(summary)];
    if let Some(why) = why {
        last.insert(usize::from(show.is_text()), why);
    }
    last.iter().for_each(|line| show.line(line));
}

async fn told(
    desk: Desk<'_>,
    show: &RefCell<Show<'_>>,
    work: impl Future<Output = Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    let mut work = pin!(work);
    // Neither arm loses anything: the work is polled again below, and the request to end stays set.
    tokio::select! {
        biased;
        done = &mut work => return done,
        _ = desk.cancel.wait() => {}
    }
    show.borrow_mut().note("stopping after the step under way; Ctrl-C again stops at once");
    work.await
}
