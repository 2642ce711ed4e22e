//! The continuous mode: tick, tell everybody who listens, wait for the bell.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::bell::Ringer;
use super::emit::{self, Shown};
use super::pulse::Pulse;
use super::verbs::{Reply, Verb};
use crate::cli::engine::Outcome;
use crate::engine::report::Report;
use crate::engine::run::{Bell, Rang, Totals};
use crate::engine::{Engine, EngineError, Mode, Verdict};
use crate::model::output::Line;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::clock::Clock;

/// After a tick that failed as a whole (the ledger cannot be written).
const AFTER_FAILURE: Millis = Millis(2_000);
/// The safety resync looks at everything; more often than this it would only burn a core.
const SHORTEST_INTERVAL: Millis = Millis(1_000);
/// The timer of a sleep does not count the time that the machine itself sleeps, and knows nothing of a clock that is set.
const SLICE: Millis = Millis(30_000);
/// How often history is trimmed.
const TRIM_EVERY: u64 = 256;

/// A client that waits for the machine to converge.
pub(super) struct Client {
    pub verb: Verb,
    pub reply: UnboundedSender<Reply>,
}

struct Waiting {
    client: Client,
    begun: Tick,
    totals: Totals,
    shown: Shown,
}

/// What the loop works with.
pub(super) struct Serving<'a> {
    pub engine: &'a mut Engine,
    pub bell: &'a dyn Bell,
    pub ringer: Ringer,
    pub clients: UnboundedReceiver<Client>,
    /// `--allow-prune N` of the daemon itself.
    pub allow_prune: Option<usize>,
    pub sink: &'a mut dyn FnMut(Line),
    /// Called after every tick with the paths outside the tree that matter.
    pub watched: &'a mut dyn FnMut(&Report),
}

/// How the loop ended.
pub(super) enum EndedBy {
    Cancel(Outcome),
    /// A client asked for `down`; everything is stopped, and it still waits for its answer.
    Down(Outcome, UnboundedSender<Reply>),
}

/// Serves until cancelled or told to go down.
pub(super) async fn serve(serving: Serving<'_>) -> EndedBy {
    let Serving { engine, bell, ringer: _ringer, mut clients, allow_prune, sink, watched } = serving;
    let clock = engine.world().clock.clone();
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut shown = Shown::default();
    let mut totals = Totals::from(clock.now());
    let mut ticks: u64 = 0;
    let mut ready = false;
    let mut pulse = Pulse::asked(clock.now());
    loop {
        let mut kick = false;
        while let Ok(client) = clients.try_recv() {
            kick |= matches!(client.verb, Verb::Reconcile { .. });
            if let Verb::Restart { names, .. } = &client.verb {
                engine.request_restart(names.iter().cloned());
            }
            if let Verb::Override { request, .. } = &client.verb
                && let Err(error) = engine.override_services(request)
            {
                let _ = client.reply.send(Reply::Failed { message: error.to_string() });
                continue;
            }
            let begun = clock.now();
            waiting.push(Waiting { client, begun, totals: Totals::from(begun), shown: Shown::default() });
        }
        let mode = Mode { kick, ..mode(&waiting, allow_prune) };
        let result = {
            let mut step = |line: &crate::model::output::StepLine| {
                sink(Line::Step(line.clone()));
                for w in &waiting {
                    let _ = w.client.reply.send(Reply::Line { line: Line::Step(line.clone()) });
                }
            };
            engine.tick(mode, &mut step).await
        };
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                failed(&error, &mut waiting);
                if pulse.wait(bell, &*clock, AFTER_FAILURE).await == Rang::Cancelled {
                    return EndedBy::Cancel(Outcome::default());
                }
                continue;
            }
        };
        totals.add(&report);
        shown.report(&report, sink);
        watched(&report);
        if !ready {
            ready = true;
            // Not under a service manager: nothing to tell.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
        if report.settled && totals.summary(&report, clock.now()).planned > 0 {
            sink(Line::Summary(totals.summary(&report, clock.now())));
            totals = Totals::from(clock.now());
        }
        if let Some(down) = answer(&mut waiting, &report, clock.now()) {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            return down;
        }
        ticks += 1;
        if ticks.is_multiple_of(TRIM_EVERY) {
            let _ = engine.trim();
        }
        let interval = report.interval.unwrap_or(Millis::secs(600)).max(SHORTEST_INTERVAL);
        let pause = report.next.unwrap_or(interval);
        let pause = waiting.iter().map(|w| left(w, clock.now())).fold(pause, Millis::min);
        // Asked even when there is no time to wait: a chain of steps must not hide a request to end.
        if pause_until(&mut pulse, bell, pause, report.wake, &*clock).await == Rang::Cancelled {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            let summary = totals.summary(&report, clock.now());
            return EndedBy::Cancel(emit::outcome(Verdict::Cancelled, &report, summary));
        }
    }
}

/// Waits so long, or until the wall clock says that it is time. A machine that slept, and a clock that was set, are noticed within
/// [`SLICE`], without a look at everything in between.
async fn pause_until(
    pulse: &mut Pulse,
    bell: &dyn Bell,
    pause: Millis,
    wake: Option<Timestamp>,
    clock: &dyn Clock,
) -> Rang {
    let begun = clock.now();
    loop {
        let left = Millis(pause.0.saturating_sub((clock.now() - begun).0));
        let Some(wake) = wake else { return pulse.wait(bell, clock, left).await };
        let due = Millis(u64::try_from(wake.0.saturating_sub(clock.wall().0)).unwrap_or(0));
        let rang = pulse.wait(bell, clock, left.min(due).min(SLICE)).await;
        if rang != Rang::Time || clock.wall() >= wake || (clock.now() - begun) >= pause {
            return rang;
        }
    }
}

fn mode(waiting: &[Waiting], own: Option<usize>) -> Mode {
    let asked = waiting.iter().find_map(|w| match &w.client.verb {
        Verb::Reconcile { options } => options.allow_prune.map(|n| n as usize),
        Verb::Restart { .. } | Verb::Override { .. } | Verb::Down { .. } => None,
    });
    let down = waiting.iter().any(|w| matches!(w.client.verb, Verb::Down { .. }));
    Mode { dry: false, down, allow_prune: asked.or(own), kick: false }
}

fn left(waiting: &Waiting, now: Tick) -> Millis {
    Millis(waiting.client.verb.timeout().0.saturating_sub((now - waiting.begun).0))
}

fn failed(error: &EngineError, waiting: &mut Vec<Waiting>) {
    tracing::error!(%error, "the tick failed; modules are left as they are");
    for w in waiting.drain(..) {
        let _ = w.client.reply.send(Reply::Failed { message: error.to_string() });
    }
}

/// Tells the waiting clients how it stands, and lets go of those that are done.
fn answer(waiting: &mut Vec<Waiting>, report: &Report, now: Tick) -> Option<EndedBy> {
    let mut going = Vec::new();
    for mut w in waiting.drain(..) {
        w.totals.add(report);
        let reply = w.client.reply.clone();
        w.shown.report(report, &mut |line| {
            let _ = reply.send(Reply::Line { line });
        });
        let verdict = match report {
            r if r.settled => Verdict::Settled,
            r if r.doomed => Verdict::Doomed,
            _ if left(&w, now).0 == 0 => Verdict::TimedOut,
            _ => {
                going.push(w);
                continue;
            }
        };
        let down = matches!(w.client.verb, Verb::Down { .. });
        let outcome = emit::outcome(verdict, report, w.totals.summary(report, now));
        let outcome = outcome.of(Mode { down, ..Mode::default() });
        if matches!(w.client.verb, Verb::Down { .. }) && verdict == Verdict::Settled {
            return Some(EndedBy::Down(outcome, reply));
        }
        let _ = reply.send(Reply::Done { outcome });
    }
    *waiting = going;
    None
}
