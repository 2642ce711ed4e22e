//! The database of events in SQLite, and the connections to sinks: [`crate::ports::deliveries`] made real.

/// What is changed.
mod act;
/// Requests to sinks.
pub mod carrier;
/// What is read.
mod look;
/// Opening, and the connections.
mod open;
/// The tables.
mod schema;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use rusqlite::{Connection, Error};

use crate::adapters::sqlite::open::explain;
use crate::model::id::Name;
use crate::ports::deliveries::{Act, Bounds, DeliveryStore, Done, Letter, LetterQuery, Parcel, Row, Stage, Tally};

/// An open database. Any number of processes may have it open.
#[derive(Debug)]
pub struct Delivered {
    path: PathBuf,
    /// Device and number of the file; `None` for who only looks.
    inode: Option<(u64, u64)>,
    bounds: Bounds,
    /// `None` for who only looks.
    writer: Mutex<Option<Connection>>,
    /// Those that nobody uses right now.
    readers: Mutex<Vec<Connection>>,
}

impl DeliveryStore for Delivered {
    fn write(&self, acts: &[Act]) -> Result<Vec<Done>, String> {
        // What is written to a file that nobody finds again is lost. Outcomes are written nevertheless: they are of what is in it.
        if acts.iter().any(|act| !matches!(act, Act::Settle { .. })) {
            self.witness()?;
        }
        self.change(|tx| acts.iter().map(|act| act::act(tx, act, &self.bounds)).collect())
    }
    fn waiting(&self, after: u64, limit: usize) -> Result<Vec<Row>, String> {
        self.read(|on| look::waiting(on, after, limit))
    }
    fn parcel(&self, seq: u64) -> Result<Option<Parcel>, String> {
        self.read(|on| look::parcel(on, seq))
    }
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, String> {
        self.read(|on| look::tallies(on, &self.bounds))
    }
    fn list(&self, query: &LetterQuery) -> Result<Vec<Letter>, String> {
        self.read(|on| look::list(on, query))
    }
    fn find(&self, seq: u64) -> Result<Option<(Letter, Option<bytes::Bytes>)>, String> {
        self.read(|on| look::find(on, seq))
    }
    fn version(&self) -> Result<i64, String> {
        self.seen_version()
    }
}

fn broken(error: Error) -> String {
    format!("the database of events: {}", explain(error).0)
}

/// SQLite's numbers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn code(stage: Stage) -> i64 {
    match stage {
        Stage::Waiting => 0,
        Stage::Dead => 1,
        Stage::Delivered => 2,
        Stage::Discarded => 3,
    }
}

fn stage(code: i64) -> Stage {
    match code {
        0 => Stage::Waiting,
        1 => Stage::Dead,
        2 => Stage::Delivered,
        _ => Stage::Discarded,
    }
}
