//! The continuous mode: tick, tell everybody who listens, wait for the bell.
//!
//! A request lives as long as its client waits, with one exception: when the time of a `down` is over, its client is told so and
//! stopping goes on until the daemon can end, because nobody who asked for the end wants everything started again. Whoever
//! calls it off (Ctrl-C) gets that.

use std::collections::BTreeSet;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::bell::Ringer;
use super::emit::{self, Shown};
use super::pulse::Pulse;
use super::verbs::{Reply, Verb};
use crate::cli::engine::Outcome;
use crate::engine::report::Report;
use crate::engine::run::{Bell, Patience, Rang, Totals, glance_every};
use crate::engine::{Engine, EngineError, Mode, Verdict};
use crate::model::id::Name;
use crate::model::output::{About, Line, NoticeLine};
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::clock::Clock;

/// After a tick that failed as a whole (the ledger cannot be written).
const AFTER_FAILURE: Millis = Millis(2_000);
/// The safety resync looks at everything; more often than this it would only burn a core.
const SHORTEST_INTERVAL: Millis = Millis(1_000);
/// The timer of a sleep does not count the time that the machine itself sleeps, and knows nothing of a clock that is set.
const SLICE: Millis = Millis(30_000);
/// After so long the first pass counts as over, whatever is still waited for.
const FIRST_PASS: Millis = Millis(10_000);
/// How often history is trimmed.
const TRIM_EVERY: u64 = 256;

/// A client that waits for the machine to converge.
pub(super) struct Client {
    pub verb: Verb,
    pub reply: UnboundedSender<Reply>,
}

struct Waiting {
    client: Client,
    patience: Patience,
    totals: Totals,
    shown: Shown,
}

/// What the loop works with.
pub(super) struct Serving<'a> {
    pub engine: &'a mut Engine,
    /// The folder of manifests, as the user named it.
    pub tree: String,
    pub bell: &'a dyn Bell,
    pub ringer: Ringer,
    pub clients: UnboundedReceiver<Client>,
    /// `--allow-prune N` of the daemon itself; used up by its first use.
    pub allow_prune: Option<usize>,
    pub sink: &'a mut dyn FnMut(Line),
    /// Says why it cannot go on, if it cannot.
    pub lost: &'a dyn Fn() -> Option<String>,
    /// Called after every tick with what it found and how long it took.
    pub watched: &'a mut dyn FnMut(&Report, Millis),
}

/// How the loop ended.
pub(super) enum EndedBy {
    Cancel(Outcome),
    /// It cannot go on: what it writes down is lost. Modules are left as they are.
    Lost(String),
    /// A client asked for `down`; everything is stopped, and it may still wait for its answer.
    Down(Outcome, Option<UnboundedSender<Reply>>),
}

/// Serves until cancelled or told to go down.
pub(super) async fn serve(serving: Serving<'_>) -> EndedBy {
    let Serving { engine, tree, bell, ringer: _ringer, mut clients, mut allow_prune, sink, lost, watched } = serving;
    let clock = engine.world().clock.clone();
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut shown = Shown::default();
    let mut totals = Totals::from(clock.now());
    let begun = clock.now();
    let mut ticks: u64 = 0;
    let mut ready = false;
    let mut watching = false;
    let mut served = None;
    let mut woke = "the start";
    let mut pulse = Pulse::asked(clock.now());
    // Somebody asked just now; kept until a tick could look.
    let mut kick = false;
    // A `down` whose client was told that its time is over.
    let mut going_down = false;
    loop {
        if let Some(why) = lost() {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            for w in &waiting {
                let _ = w.client.reply.send(Reply::Failed { message: why.clone() });
            }
            return EndedBy::Lost(why);
        }
        while let Ok(client) = clients.try_recv() {
            kick |= matches!(client.verb, Verb::Reconcile { .. });
            if let Verb::Restart { names, .. } = &client.verb {
                engine.request_restart(names.iter().cloned());
            }
            if let Verb::Renew { connections, .. } = &client.verb {
                engine.renew(connections.iter().cloned());
            }
            if let Verb::Override { request, .. } = &client.verb
                && let Err(error) = engine.override_services(request)
            {
                let _ = client.reply.send(Reply::Failed { message: error.to_string() });
                continue;
            }
            let begun = clock.now();
            waiting.push(Waiting {
                client,
                patience: Patience::new(begun),
                totals: Totals::from(begun),
                shown: Shown::default(),
            });
        }
        let (gone, here) = waiting.into_iter().partition(|w: &Waiting| w.client.reply.is_closed());
        waiting = here;
        withdraw(engine, &gone, &waiting);
        let looked = clock.now();
        let mut mode = Mode { kick, ..mode(&waiting, allow_prune) };
        mode.down |= going_down;
        if totals.is_empty() {
            totals = Totals::from(clock.now());
        }
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
                let (gone, here) = failed(&error, waiting, clock.now());
                waiting = here;
                withdraw(engine, &gone, &waiting);
                going_down |= gone.iter().any(|w| is_down(w) && !w.client.reply.is_closed());
                let pause = waiting.iter().map(|w| left(w, clock.now())).fold(AFTER_FAILURE, Millis::min);
                if pulse.wait(bell, &*clock, pause).await == Rang::Cancelled {
                    return EndedBy::Cancel(Outcome::default());
                }
                continue;
            }
        };
        kick &= report.busy.is_some();
        totals.add(&report);
        if report.by_number && mode.allow_prune == allow_prune {
            // A number is for one removal, not for every later one of its size.
            allow_prune = None;
        }
        shown.report(&report, sink);
        shown.refusal(&report, sink);
        let ms = (clock.now() - looked).0;
        watched(&report, Millis(ms));
        if !ready {
            ready = true;
            // Not under a service manager: nothing to tell.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
        if report.settled && !mode.down && !totals.is_empty() {
            sink(Line::Summary(totals.summary(&report, clock.now())));
            totals = Totals::from(clock.now());
        }
        let serving = emit::serving(&report);
        if let Some(message) = serving.clone().filter(|_| serving != served) {
            sink(Line::Notice(NoticeLine { about: About::Serving, message }));
        }
        served = serving;
        let passed = report.settled || report.doomed || clock.now() - begun >= FIRST_PASS;
        if passed && report.busy.is_none() && !mode.down && !std::mem::replace(&mut watching, true) {
            sink(Line::Notice(emit::watching(&tree, &report)));
        }
        let steps = report.steps.len();
        tracing::info!(woken_by = woke, steps, ms, settled = report.settled, "looked");
        let (gone, here) = answer(waiting, &report, mode, clock.now(), &|name| engine.renews(name));
        waiting = here;
        withdraw(engine, &gone, &waiting);
        if mode.down && report.settled {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            let reply = end_all(&gone, waiting);
            let outcome = emit::outcome(Verdict::Settled, &report, totals.summary(&report, clock.now())).of(mode);
            return EndedBy::Down(outcome, reply);
        }
        going_down |= gone.iter().any(|w| is_down(w) && !w.client.reply.is_closed());
        ticks += 1;
        if ticks.is_multiple_of(TRIM_EVERY) {
            let _ = engine.trim();
        }
        let interval = report.interval.unwrap_or(Millis::secs(600)).max(SHORTEST_INTERVAL);
        let pause = report.next.unwrap_or(interval);
        let watched = report.progress.is_some() && !waiting.is_empty();
        let pause = if watched { pause.min(glance_every(Millis(ms))) } else { pause };
        let pause = waiting.iter().map(|w| left(w, clock.now())).fold(pause, Millis::min);
        // Asked even when there is no time to wait: a chain of steps must not hide a request to end.
        let rang = pause_until(&mut pulse, bell, pause, report.wake, &*clock).await;
        woke = woken_by(rang, report.settled);
        if rang == Rang::Cancelled {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            let summary = totals.summary(&report, clock.now());
            return EndedBy::Cancel(emit::outcome(Verdict::Cancelled, &report, summary));
        }
    }
}

/// For whoever wants to know more (`-v`).
fn woken_by(rang: Rang, settled: bool) -> &'static str {
    match rang {
        Rang::Woken => "a file, a process, a probe or a request",
        Rang::Time if settled => "the interval",
        Rang::Time => "something unfinished",
        Rang::Cancelled => "the end",
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
        Verb::Restart { .. } | Verb::Override { .. } | Verb::Renew { .. } | Verb::Down { .. } => None,
    });
    let down = waiting.iter().any(|w| matches!(w.client.verb, Verb::Down { .. }));
    Mode { down, allow_prune: asked.or(own), ..Mode::default() }
}

fn left(waiting: &Waiting, now: Tick) -> Millis {
    waiting.patience.left(waiting.client.verb.timeout(), now)
}

/// What clients that are gone asked for is asked for no more, unless somebody else asks for it too.
fn withdraw(engine: &mut Engine, gone: &[Waiting], here: &[Waiting]) {
    let names = |w: &Waiting| match &w.client.verb {
        Verb::Restart { names, .. } => names.clone(),
        Verb::Reconcile { .. } | Verb::Override { .. } | Verb::Renew { .. } | Verb::Down { .. } => Vec::new(),
    };
    let wanted: BTreeSet<Name> = here.iter().flat_map(names).collect();
    engine.withdraw_restart(gone.iter().flat_map(names).filter(|name| !wanted.contains(name)));
}

fn is_down(w: &Waiting) -> bool {
    matches!(w.client.verb, Verb::Down { .. })
}

/// Tells everybody of a tick that failed; only who wants everything stopped goes on waiting while there is time. Answered and
/// waiting clients.
fn failed(error: &EngineError, waiting: Vec<Waiting>, now: Tick) -> (Vec<Waiting>, Vec<Waiting>) {
    tracing::error!(%error, "the tick failed; modules are left as they are");
    let (here, gone): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|w| is_down(w) && left(w, now).0 > 0);
    for w in &gone {
        let reply = if is_down(w) {
            let report = Report::default();
            let outcome = emit::outcome(Verdict::TimedOut, &report, w.totals.summary(&report, now));
            Reply::Done { outcome: Outcome { goes_on: true, ..outcome } }
        } else {
            Reply::Failed { message: error.to_string() }
        };
        let _ = w.client.reply.send(reply);
    }
    (gone, here)
}

/// Tells the waiting clients how it stands. Answered and waiting clients; who wanted everything stopped, and got it, is among the
/// answered, and hears it when the daemon ends.
fn answer(
    waiting: Vec<Waiting>,
    report: &Report,
    mode: Mode,
    now: Tick,
    renews: &dyn Fn(&Name) -> bool,
) -> (Vec<Waiting>, Vec<Waiting>) {
    let (mut gone, mut here) = (Vec::new(), Vec::new());
    for mut w in waiting {
        w.totals.add(report);
        w.patience.saw(report, now);
        let reply = w.client.reply.clone();
        let only = w.client.verb.only();
        let own = if only.is_empty() { report } else { &report.of(only) };
        w.shown.report(own, &mut |line| {
            let _ = reply.send(Reply::Line { line });
        });
        let renewed = matches!(&w.client.verb, Verb::Renew { connections, .. } if !connections.iter().any(renews));
        let verdict = match own {
            _ if renewed => Some(Verdict::Settled),
            // While everything is stopped, nothing that others wait for comes to be.
            r if r.settled && (is_down(&w) || !mode.down) => Some(Verdict::Settled),
            r if r.doomed && !mode.down => Some(Verdict::Doomed),
            _ if left(&w, now).0 == 0 => Some(Verdict::TimedOut),
            _ => None,
        };
        let Some(verdict) = verdict else {
            here.push(w);
            continue;
        };
        if !(is_down(&w) && verdict == Verdict::Settled) {
            let outcome = emit::outcome(verdict, own, w.totals.summary(own, now));
            let outcome = outcome.of(Mode { down: is_down(&w), ..Mode::default() });
            let goes_on = is_down(&w);
            let _ = reply.send(Reply::Done { outcome: Outcome { goes_on, ..outcome } });
        }
        gone.push(w);
    }
    (gone, here)
}

/// Everything is stopped. The first who asked for it is answered when the keeper has ended too, the others now.
fn end_all(stopped: &[Waiting], waiting: Vec<Waiting>) -> Option<UnboundedSender<Reply>> {
    for w in &waiting {
        let message = "everything was stopped by 'trueup down'".to_owned();
        let _ = w.client.reply.send(Reply::Failed { message });
    }
    let mut asked = stopped.iter().filter(|w| is_down(w)).map(|w| w.client.reply.clone());
    let first = asked.next();
    for reply in asked {
        let _ = reply.send(Reply::Failed { message: "everything was stopped by another 'trueup down'".to_owned() });
    }
    first
}
