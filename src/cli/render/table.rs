//! Resources as a table without borders, as kubectl draws it.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::human;
use super::pause;
use super::printable;
use super::style::{self, paint};
use crate::model::condition::{ConditionStatus, ConditionType};
use crate::model::output::ResourceLine;
use crate::model::time::Timestamp;

const HEADER: [&str; 9] = ["KIND", "NAME", "READY", "STATUS", "RESTARTS", "PORT", "PID", "AGE", "SOURCE"];

/// A longer status would push the other columns off the screen; `describe` has the whole.
const WIDEST_STATUS: usize = 48;

/// The table of `get`. Widths are those of a terminal, so wide characters stay in line.
pub fn resources(all: &[ResourceLine], now: Timestamp) -> String {
    let rows = all.iter().map(|line| {
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
        [
            line.kind.to_string(),
            line.name.to_string(),
            ready_word(line).to_owned(),
            human::shortened(&printable::line(&pause::status(line, now)), WIDEST_STATUS),
            number(line.restarts.map(u64::from)),
            number(line.port.map(u64::from)),
            number(line.pid.map(u64::from)),
            line.uptime_ms.map_or_else(|| "-".to_owned(), human::age),
            printable::line(&line.source).into_owned(),
        ]
    });
    let drawn = grid(Some(&HEADER), rows);
    let mut text = String::new();
    for (at, row) in drawn.iter().enumerate() {
        let painted = match at.checked_sub(1).and_then(|at| all.get(at)) {
            None => paint(style::STRONG, row),
            Some(line) => match ready(line) {
                Some(ConditionStatus::True) => row.clone(),
                Some(ConditionStatus::False) => paint(style::BAD, row),
                Some(ConditionStatus::Unknown) | None => paint(style::CHANGE, row),
            },
        };
        text.push_str(&painted);
        text.push('\n');
    }
    text
}

/// Rows in columns, two spaces apart; each row is one line.
pub fn grid<const N: usize>(header: Option<&[&str; N]>, rows: impl Iterator<Item = [String; N]>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if let Some(header) = header {
        table.set_header(header.to_vec());
    }
    for row in rows {
        table.add_row(row.to_vec());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let trimmed: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    trimmed
}

/// The status of the `Ready` condition.
pub fn ready(line: &ResourceLine) -> Option<ConditionStatus> {
    line.conditions.iter().find(|condition| condition.kind == ConditionType::Ready).map(|condition| condition.status)
}

fn ready_word(line: &ResourceLine) -> &'static str {
    ready(line).map_or("-", status_word)
}

/// `True`, `False`, `Unknown`.
pub fn status_word(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}
