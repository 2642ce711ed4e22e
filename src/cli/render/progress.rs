//! What is waited for: a line that moves on a terminal, a plain line now and then elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines;
use super::style::{self, paint};
use crate::model::condition::Reason;
use crate::model::id::ResourceId;
use crate::model::output::{ProgressLine, Waiting};
use crate::model::time::Timestamp;

/// Plain lines come no closer than this, so that a log of a build does not fill with them.
const QUIET_MS: i64 = 1_000;
/// Without a terminal, how far blobs are is said so often.
const SELDOM_MS: i64 = 10_000;
/// The spinner turns so often.
const TURN: Duration = Duration::from_millis(100);

/// The waiting as it was last shown.
#[derive(Default)]
pub struct Progress {
    spinner: Option<ProgressBar>,
    shown: Vec<(ResourceId, Reason)>,
    shown_at: Option<Timestamp>,
    /// What was not said because something was said a moment ago.
    unsaid: Option<String>,
    bar: Option<ProgressBar>,
    said_at: Option<Timestamp>,
}

impl Progress {
    /// Takes the new set; says what to print, if anything is to be printed.
    pub fn waiting(&mut self, waiting: &Waiting, now: Timestamp, lively: bool) -> Option<String> {
        if waiting.waits.is_empty() {
            self.end();
            self.shown.clear();
            self.unsaid = None;
            return None;
        }
        let text = lines::waiting(waiting);
        if lively {
            // While blobs are moved, their bar is the one moving line.
            if self.bar.is_none() {
                self.spinner.get_or_insert_with(spinner).set_message(text);
            }
            return None;
        }
        let set: Vec<_> = waiting.waits.iter().map(|wait| (wait.resource.clone(), wait.reason)).collect();
        let recent = self.shown_at.is_some_and(|at| now.0.saturating_sub(at.0) < QUIET_MS && now >= at);
        if set == self.shown {
            self.unsaid = None;
            return None;
        }
        if recent {
            self.unsaid = Some(format!("{} {text}\n", paint(style::WAIT, "…")));
            return None;
        }
        self.unsaid = None;
        self.shown = set;
        self.shown_at = Some(now);
        Some(format!("{} {text}\n", paint(style::WAIT, "…")))
    }

    /// Takes how far blobs are; says what to print, if anything is to be printed.
    pub fn moving(&mut self, progress: &ProgressLine, now: Timestamp, lively: bool) -> Option<String> {
        let text = lines::progress(progress);
        if lively {
            // One moving line at a time, and this one says more.
            if let Some(spinner) = self.spinner.take() {
                spinner.finish_and_clear();
            }
            let bar = self.bar.get_or_insert_with(bar);
            bar.set_length(progress.total_bytes.max(1));
            bar.set_position(progress.done_bytes);
            bar.set_message(lines::progress_short(progress));
            return None;
        }
        if self.said_at.is_some_and(|at| now.0.saturating_sub(at.0) < SELDOM_MS && now >= at) {
            return None;
        }
        self.said_at = Some(now);
        Some(format!("{} {text}\n", paint(style::WAIT, "…")))
    }

    /// Takes the moving line away while something is printed.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match self.bar.as_ref().or(self.spinner.as_ref()) {
            Some(spinner) => spinner.suspend(print),
            None => print(),
        }
    }

    /// What is still waited for and was not said.
    pub fn unsaid(&mut self) -> Option<String> {
        self.unsaid.take()
    }

    /// Takes the moving line away for good.
    pub fn end(&mut self) {
        for line in self.spinner.take().into_iter().chain(self.bar.take()) {
            line.finish_and_clear();
        }
    }
}

/// Fewer bytes than this are through before a bar could be read.
const WORTH_A_BAR: u64 = 8 << 20;

/// A bar of bytes that pass several times over: a put hashes, stores and reads back.
pub struct BytesBar {
    bar: Option<ProgressBar>,
    passes: u64,
}

impl BytesBar {
    /// Drawn only where it can be.
    pub fn new(lively: bool, passes: u64) -> Self {
        let bar = lively.then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = "{bar:24.cyan/dim} {percent:>3}% {binary_bytes_per_sec} {elapsed:.dim}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, passes }
    }

    pub fn passed(&self, bytes: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            let seen = bar.position() + bytes;
            let all = total.map_or(seen, |total| total.saturating_mul(self.passes).max(seen));
            if all >= WORTH_A_BAR {
                bar.set_length(all);
                bar.set_position(seen);
            } else {
                // Counted, and not drawn.
                bar.update(|state| state.set_pos(seen));
            }
        }
    }
}

impl Drop for BytesBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {bar:16.cyan/dim} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TURN);
    bar
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TURN);
    bar
}
