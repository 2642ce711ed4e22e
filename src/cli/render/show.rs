//! Lines to the screen, in the form that was asked for.

use super::lines;
use super::printable;
use super::progress::Progress;
use super::screen::Screen;
use crate::cli::args::Format;
use crate::model::id::ResourceId;
use crate::model::output::{ErrorLine, Line, LogLine, Summary, WaitLine, Waiting};
use crate::model::time::Timestamp;

/// Prints lines. It remembers what is being waited for, so that nothing is said twice.
pub struct Show<'a> {
    screen: &'a mut Screen,
    now: &'a dyn Fn() -> Timestamp,
    progress: Progress,
    waits: Vec<(ResourceId, String)>,
    /// The messages of problems that were shown.
    told: Vec<String>,
    /// Nothing is planned, so a summary speaks of mistakes only.
    checks: bool,
}

impl<'a> Show<'a> {
    pub fn new(screen: &'a mut Screen, now: &'a dyn Fn() -> Timestamp) -> Self {
        Self { screen, now, progress: Progress::default(), waits: Vec::new(), told: Vec::new(), checks: false }
    }

    /// The command only checks.
    pub fn checking(&mut self) {
        self.checks = true;
    }

    /// Prints one line and sends it on at once: whoever waits for it should see it now.
    pub fn line(&mut self, line: &Line) {
        if self.repeated(line) {
            return;
        }
        match self.screen.format() {
            Format::Text => self.text(line),
            Format::Json | Format::Yaml => write_data(self.screen, line),
        }
        self.screen.flush();
    }

    /// Something about the command itself: only for people.
    pub fn note(&mut self, text: &str) {
        if self.screen.is_text() {
            let screen = &mut *self.screen;
            self.progress.aside(|| screen.err(&format!("{text}\n")));
        }
    }

    pub fn is_text(&self) -> bool {
        self.screen.is_text()
    }

    /// Whether nobody reads any more.
    pub fn closed(&self) -> bool {
        self.screen.closed()
    }

    fn text(&mut self, line: &Line) {
        let (to_err, text) = match line {
            Line::Problem(problem) => (true, lines::problem(problem)),
            Line::Error(error) => (true, lines::error(error)),
            Line::Waiting(waiting) => {
                let waiting = &Waiting { waits: waiting.waits.iter().map(|wait| self.shorter(wait)).collect() };
                let lively = self.screen.lively();
                match self.progress.waiting(waiting, (self.now)(), lively) {
                    Some(text) => (false, text),
                    None => return,
                }
            }
            Line::Progress(progress) => {
                let lively = self.screen.lively();
                match self.progress.moving(progress, (self.now)(), lively) {
                    Some(text) => (false, text),
                    None => return,
                }
            }
            Line::Step(step) => (false, lines::step(step)),
            Line::Wait(wait) => (false, lines::wait(&self.shorter(wait))),
            Line::Resource(resource) => (false, lines::resource(resource)),
            Line::Description(description) => (false, super::describe::text(description, (self.now)())),
            Line::Event(event) => (false, lines::event(event)),
            Line::Log(log) => (false, plain_log(log)),
            Line::Note(note) => (false, lines::note(note)),
            Line::Notice(notice) => (false, lines::notice(notice)),
            Line::Summary(summary) if self.checks => (false, lines::no_mistakes(summary)),
            Line::Summary(summary) => (false, lines::summary(summary)),
        };
        let mut text = text;
        if matches!(line, Line::Summary(_) | Line::Error(_)) {
            self.progress.end();
            if let Some(unsaid) = self.progress.unsaid() {
                text = if to_err { text } else { unsaid + &text };
            }
        }
        let screen = &mut *self.screen;
        // Sent on before the moving line comes back, or the two would share a line.
        self.progress.aside(|| {
            if to_err {
                screen.err(&text)
            } else {
                screen.out(&text)
            }
            screen.flush();
        });
    }

    /// A wait without the words of a problem that was shown already.
    fn shorter(&self, wait: &WaitLine) -> WaitLine {
        let told = self.told.iter().any(|told| wait.message.contains(told.as_str()));
        let message = if told { String::new() } else { super::human::moments(&wait.message, (self.now)()) };
        WaitLine { message, ..wait.clone() }
    }

    /// Whether this wait was said before and nothing about it has changed.
    fn repeated(&mut self, line: &Line) -> bool {
        match line {
            Line::Wait(wait) => {
                let said = said(wait);
                let known = self.waits.iter().position(|(id, _)| *id == wait.resource);
                match known {
                    Some(at) if self.waits[at].1 == said => true,
                    Some(at) => {
                        self.waits[at].1 = said;
                        false
                    }
                    None => {
                        self.waits.push((wait.resource.clone(), said));
                        false
                    }
                }
            }
            Line::Problem(problem) => {
                self.told.push(problem.message.clone());
                false
            }
            Line::Step(step) => {
                self.waits.retain(|(id, _)| *id != step.resource);
                false
            }
            _ => false,
        }
    }
}

fn said(wait: &WaitLine) -> String {
    format!("{} {} {}", wait.reason, wait.doomed, wait.message)
}

fn plain_log(log: &LogLine) -> String {
    format!("{} | {}\n", log.unit, printable::output(&log.text))
}

/// A line for programs.
pub fn write_data(screen: &mut Screen, line: &impl serde::Serialize) {
    let mut value = match serde_json::to_value(line) {
        Ok(value) => value,
        Err(error) => {
            screen.err(&format!("error: a line could not be written: {error}\n"));
            return;
        }
    };
    // Drawn for eyes; programs get the fields.
    if let Some(problem) = value.as_object_mut().filter(|o| o.get("type").is_some_and(|t| t == "problem")) {
        problem.shift_remove("rendered");
    }
    match screen.format() {
        Format::Yaml => screen.data(&format!("---\n{}", yaml(&value))),
        Format::Json | Format::Text => screen.data(&format!("{value}\n")),
    }
}

/// JSON as YAML, with a newline at the end.
pub fn yaml(value: &serde_json::Value) -> String {
    let mut text = serde_yaml::to_string(value).unwrap_or_else(|_| value.to_string());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Prints why a command failed. For programs, a command that looks at the tree still ends with a summary.
pub fn error(screen: &mut Screen, error: &ErrorLine, with_summary: Option<&Summary>) {
    if screen.is_text() {
        screen.flush();
        screen.err(&lines::error(error));
        return;
    }
    write_data(screen, &Line::Error(error.clone()));
    if let Some(summary) = with_summary {
        write_data(screen, &Line::Summary(summary.clone()));
    }
    screen.flush();
}
