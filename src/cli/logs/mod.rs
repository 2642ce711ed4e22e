//! `logs`: what modules wrote, from the keeper's log files; several units are merged by time.

mod cri;
mod present;
#[cfg(test)]
mod tests;
mod unit;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use regex::bytes::Regex;

use self::cri::Record;
use self::unit::UnitLog;
use super::engine::Place;
use super::exit::Failure;
use super::names::nearest;
use super::render::printable;
use super::render::screen::Screen;
use super::render::show::write_data;
use super::render::style::{self, paint};
use super::{Desk, args};
use crate::model::exit::Exit;
use crate::model::output::{Line, LogLine};
use crate::model::time::Timestamp;
use crate::model::unit::Millis;

/// While following, files are looked at so often: below what a person notices, and far above what it costs.
const LOOK: Duration = Duration::from_millis(100);
/// While following, new units are looked for every so many looks (once a second).
const LOOKS_PER_SCAN: u32 = 10;
/// While following, the user's wish to leave is looked at every so many lines.
const BATCH: usize = 1_000;
/// While following, so much of the past is shown first, unless asked otherwise.
const FOLLOW_LINES: usize = 10;

/// Prints what is kept, and ends.
pub(super) fn print(args: &args::Logs, place: &Place, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    let logs = place.state.join("logs");
    allow_many_files();
    let units = wanted_units(args, &logs)?;
    let units = if units.is_empty() { present::shown(place, all_units(&logs), screen) } else { units };
    if units.is_empty() {
        screen.err(&format!("no output under {}\n", logs.display()));
        return Ok(Exit::Done);
    }
    present::mark(place, &args.names, screen);
    let mut reader = Merged::new(logs.clone(), after(args.since, now), args.grep.clone());
    for unit in &units {
        reader.add(unit, args.lines)?;
    }
    if let Some(name) = reader.without_files().filter(|name| !args.names.is_empty() && !is_kept(name, &logs)) {
        return Err(nothing_of(name, &logs));
    }
    let mut writer = Writer::new(args, units.len());
    while let Some((unit, record)) = reader.next(true)? {
        writer.write(screen, unit, record);
        if screen.closed() {
            break;
        }
    }
    screen.flush();
    Ok(Exit::Done)
}

/// Prints the last lines, and goes on until the user leaves or nobody reads any more.
pub(super) async fn follow(args: &args::Logs, desk: Desk<'_>, screen: &mut Screen) -> Result<Exit, Failure> {
    let logs = desk.place.state.join("logs");
    allow_many_files();
    let named = wanted_units(args, &logs)?;
    let at_first = all_units(&logs);
    let units = if named.is_empty() { present::shown(desk.place, at_first.clone(), screen) } else { named.clone() };
    present::mark(desk.place, &args.names, screen);
    let mut reader = Merged::new(logs.clone(), after(args.since, desk.wiring.now()), args.grep.clone());
    // With a time given, all since then is meant, not the last few lines of it.
    let lines = args.lines.or(if args.since.is_none() { Some(FOLLOW_LINES) } else { None });
    for unit in &units {
        reader.add(unit, lines)?;
    }
    if let Some(name) = reader.without_files().filter(|_| !named.is_empty()) {
        screen.err(&format!("no output of '{name}' yet, waiting for it\n"));
    }
    let many = if named.is_empty() { usize::MAX } else { units.len() };
    let mut writer = Writer::new(args, many);
    let mut looks = 0;
    loop {
        let mut printed = 0;
        while printed < BATCH
            && let Some((unit, record)) = reader.next(false)?
        {
            writer.write(screen, unit, record);
            printed += 1;
        }
        screen.flush();
        if screen.closed() || desk.cancel.requested().is_some() {
            return Ok(Exit::Done);
        }
        // Cancel-safe: nothing is under way while it sleeps. A full batch goes on at once, after giving others their turn.
        let pause = if printed == BATCH { Duration::ZERO } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = desk.cancel.wait() => return Ok(Exit::Done),
        }
        looks += 1;
        if named.is_empty() && looks % LOOKS_PER_SCAN == 0 {
            // What was left out at first is shown when it runs again; what is new runs.
            let runs = |unit: &String| !at_first.contains(unit) || present::is_kept(desk.place, unit);
            for unit in all_units(&logs).into_iter().filter(runs) {
                reader.add(&unit, None)?;
            }
        }
        reader.refresh()?;
    }
}

/// The last lines of one unit, oldest first.
///
/// # Errors
/// When its files cannot be read.
pub fn last(place: &Place, unit: &str, lines: usize) -> io::Result<Vec<LogLine>> {
    let mut log = UnitLog::open(&place.state.join("logs"), unit, Some(lines))?;
    let mut all = Vec::new();
    while let Some(record) = log.next()? {
        all.push(record.line(unit));
    }
    all.extend(log.rest().map(|record| record.line(unit)));
    let surplus = all.len().saturating_sub(lines);
    all.drain(..surplus);
    Ok(all)
}

/// Whether a unit ever wrote anything, or is kept and may.
pub fn known(place: &Place, unit: &str) -> bool {
    let logs = place.state.join("logs");
    is_kept(unit, &logs) || logs.join(unit).is_dir()
}

/// The last lines of one unit, and what comes after them.
pub struct Tail {
    unit: String,
    reader: Merged,
}

impl Tail {
    /// Begins with so many of the last lines.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn open(place: &Place, unit: &str, lines: usize) -> Result<Self, Failure> {
        let mut reader = Merged::new(place.state.join("logs"), None, None);
        reader.add(unit, Some(lines))?;
        Ok(Self { unit: unit.to_owned(), reader })
    }

    /// The whole lines that were not given out yet, a batch at most.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn more(&mut self) -> Result<Vec<LogLine>, Failure> {
        self.reader.refresh()?;
        let mut lines = Vec::new();
        while lines.len() < BATCH
            && let Some((_, record)) = self.reader.next(false)?
        {
            lines.push(record.line(&self.unit));
        }
        Ok(lines)
    }
}

fn after(since: Option<Millis>, now: Timestamp) -> Option<i64> {
    since.map(|span| now.0.saturating_sub_unsigned(span.0).saturating_mul(1_000))
}

fn wanted_units(args: &args::Logs, logs: &Path) -> Result<Vec<String>, Failure> {
    let mut units: Vec<String> = Vec::new();
    for target in &args.names {
        let name = target.service()?.to_string();
        let known = all_units(logs);
        // What runs and said nothing yet has an empty log, and is no mistake.
        if !args.follow && !known.contains(&name) && !is_kept(&name, logs) {
            return Err(nothing_of(&name, logs));
        }
        if !units.contains(&name) {
            units.push(name);
        }
    }
    Ok(units)
}

/// Whether the keeper knows a unit of this name.
fn is_kept(name: &str, logs: &Path) -> bool {
    logs.parent().is_some_and(|state| state.join("run").join(format!("{name}.json")).is_file())
}

fn nothing_of(name: &str, logs: &Path) -> Failure {
    let failure = Failure::new(Exit::Error, format!("there is no output of '{name}'"));
    let others = all_units(logs);
    match nearest(name, others.iter().map(String::as_str).filter(|other| *other != name)) {
        Some(near) => failure.hint(format!("did you mean '{near}'?")),
        None if others.is_empty() => failure.hint(format!("nothing is kept under {} yet", logs.display())),
        None => failure.hint(format!("there is output of {}", others.join(", "))),
    }
}

/// Units that have a folder of logs, by name.
fn all_units(logs: &Path) -> Vec<String> {
    let entries = fs::read_dir(logs).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut units: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    units.sort();
    units
}

/// Every unit holds a few files open; with hundreds of units the soft limit of 1024 would not do.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it, opening says what is wrong.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Several units as one stream, by time.
struct Merged {
    logs: PathBuf,
    after: Option<i64>,
    units: Vec<UnitLog>,
    by_name: BTreeMap<String, usize>,
    /// The next record of each unit that has one: earliest first, then by unit.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    held: Vec<Option<Record>>,
    /// Units that may have a record to be read ahead; the others were found at their end.
    hungry: Vec<usize>,
    /// A line without a time belongs to the one before it.
    clock: Vec<i64>,
    /// Only lines that match.
    grep: Option<Regex>,
    /// So many lines of each unit that would be shown come too early to be among the last ones.
    early: Vec<usize>,
}

impl Merged {
    fn new(logs: PathBuf, after: Option<i64>, grep: Option<Regex>) -> Self {
        let (units, by_name, heads) = (Vec::new(), BTreeMap::new(), BinaryHeap::new());
        let (held, hungry, clock) = (Vec::new(), Vec::new(), Vec::new());
        Self { logs, after, units, by_name, heads, held, hungry, clock, grep, early: Vec::new() }
    }

    /// Adds a unit, unless it is there already.
    fn add(&mut self, unit: &str, lines: Option<usize>) -> Result<(), Failure> {
        if self.by_name.contains_key(unit) {
            return Ok(());
        }
        let log = match (lines, &self.grep) {
            // The last lines are the last ones that match, so all have to be looked at: once to count, once to show.
            (Some(lines), Some(_)) => self.count(unit).map(|count| {
                self.early.push(count.saturating_sub(lines));
                UnitLog::open(&self.logs, unit, None)
            }),
            _ => {
                self.early.push(0);
                Ok(UnitLog::open(&self.logs, unit, lines))
            }
        };
        let log = log.and_then(|log| log);
        self.units.push(log.with_context(|| format!("the output of '{unit}' cannot be read"))?);
        self.by_name.insert(unit.to_owned(), self.units.len() - 1);
        self.hungry.push(self.held.len());
        self.held.push(None);
        self.clock.push(i64::MIN);
        Ok(())
    }

    /// How many lines of a unit would be shown.
    fn count(&self, unit: &str) -> io::Result<usize> {
        let mut log = UnitLog::open(&self.logs, unit, None)?;
        let (mut count, mut clock) = (0, i64::MIN);
        while let Some(record) = log.next()?.or_else(|| log.rest()) {
            clock = record.at.unwrap_or(clock);
            count += usize::from(self.wants(&record, clock));
        }
        Ok(count)
    }

    fn wants(&self, record: &Record, clock: i64) -> bool {
        self.after.is_none_or(|after| clock >= after)
            && self.grep.as_ref().is_none_or(|grep| grep.is_match(&record.text))
    }

    fn without_files(&self) -> Option<&str> {
        self.units.iter().find(|unit| unit.is_empty()).map(|unit| unit.unit.as_str())
    }

    fn refresh(&mut self) -> Result<(), Failure> {
        self.hungry = (0..self.units.len()).filter(|at| self.held[*at].is_none()).collect();
        for unit in &mut self.units {
            unit.refresh().with_context(|| format!("the output of '{}' cannot be read", unit.unit))?;
        }
        Ok(())
    }

    /// The earliest record of all units. With `to_the_end`, unfinished lines are given out too.
    fn next(&mut self, to_the_end: bool) -> Result<Option<(&str, Record)>, Failure> {
        while let Some(at) = self.hungry.pop() {
            self.fill(at, to_the_end)?;
        }
        let Some(Reverse((_, at))) = self.heads.pop() else { return Ok(None) };
        let Some(record) = self.held[at].take() else { return Ok(None) };
        self.hungry.push(at);
        Ok(Some((&self.units[at].unit, record)))
    }

    /// Reads one record ahead, past those that are too old.
    fn fill(&mut self, at: usize, to_the_end: bool) -> Result<(), Failure> {
        while self.held[at].is_none() {
            let log = &mut self.units[at];
            let next = log.next().with_context(|| format!("the output of '{}' cannot be read", log.unit))?;
            let Some(record) = next.or_else(|| if to_the_end { log.rest() } else { None }) else { return Ok(()) };
            self.clock[at] = record.at.unwrap_or(self.clock[at]);
            let clock = self.clock[at];
            if self.wants(&record, clock) && self.early[at] > 0 {
                self.early[at] -= 1;
            } else if self.wants(&record, clock) {
                self.heads.push(Reverse((self.clock[at], at)));
                self.held[at] = Some(record);
            }
        }
        Ok(())
    }
}

/// Prints records in the form that was asked for.
struct Writer {
    timestamps: bool,
    /// The names are shown when there can be more than one.
    named: bool,
    width: usize,
    colours: BTreeMap<String, anstyle::Style>,
}

impl Writer {
    fn new(args: &args::Logs, units: usize) -> Self {
        let width = args.names.iter().filter_map(|name| name.service().ok()).map(|name| name.as_str().len());
        Self {
            timestamps: args.timestamps,
            named: units > 1,
            width: width.max().unwrap_or_default(),
            colours: BTreeMap::new(),
        }
    }

    fn write(&mut self, screen: &mut Screen, unit: &str, record: Record) {
        let line = record.line(unit);
        if !screen.is_text() {
            write_data(screen, &Line::Log(line));
            return;
        }
        let mut text = String::new();
        if self.named {
            self.width = self.width.max(unit.chars().count());
            let next = style::UNITS[self.colours.len() % style::UNITS.len()];
            let colour = *self.colours.entry(unit.to_owned()).or_insert(next);
            text.push_str(&paint(colour, format!("{:<1$} | ", printable::line(unit), self.width)));
        }
        if self.timestamps {
            text.push_str(&paint(style::QUIET, format!("{} ", printable::line(&line.at))));
        }
        text.push_str(&printable::output(&line.text));
        text.push('\n');
        screen.out(&text);
    }
}
