//! Deliveries as text.

use super::human;
use super::printable;
use super::style::{self, paint};
use super::table::grid;
use crate::model::delivery_output::{DeliveryDetail, DeliveryLine, DeliveryOutput};
use crate::model::time::Timestamp;
use crate::model::wording::size;

/// What went wrong would push the other columns off the screen.
const WIDEST_TROUBLE: usize = 60;
const WIDEST_NOTE: usize = 24;

/// One line of output, or a few.
pub fn text(line: &DeliveryOutput, now: Timestamp) -> String {
    match line {
        DeliveryOutput::Delivery(line) => table(std::slice::from_ref(line), now),
        DeliveryOutput::DeliveryDetail(detail) => show(detail, now),
        DeliveryOutput::Replayed(changed) => format!("{} is tried again\n", changed.id),
        DeliveryOutput::Discarded(changed) => format!("discarded {}\n", changed.id),
    }
}

/// Events in columns.
pub fn table(lines: &[DeliveryLine], now: Timestamp) -> String {
    let short = |text: &str, most| human::shortened(&printable::line(text), most);
    let rows = lines.iter().map(|line| {
        [
            line.id.clone(),
            line.connection.to_string(),
            line.state.clone(),
            line.event.as_deref().map(|what| short(what, WIDEST_NOTE)).unwrap_or_default(),
            line.note.as_deref().map(|note| short(note, WIDEST_NOTE)).unwrap_or_default(),
            human::moment(line.accepted_at, now),
            line.attempts.to_string(),
            short(&last(line, now), WIDEST_TROUBLE),
        ]
    });
    let header = ["ID", "CONNECTION", "STATE", "EVENT", "NOTE", "ACCEPTED", "ATTEMPTS", "LAST"];
    let drawn = grid(Some(&header), rows);
    let mut text = String::new();
    for (at, row) in drawn.iter().enumerate() {
        let painted = match at.checked_sub(1).and_then(|at| lines.get(at)) {
            None => paint(style::STRONG, row),
            Some(line) if line.state == "dead" => paint(style::BAD, row),
            Some(_) => row.clone(),
        };
        text.push_str(&painted);
        text.push('\n');
    }
    text
}

fn last(line: &DeliveryLine, now: Timestamp) -> String {
    match (&line.trouble, line.status, line.settled_at) {
        (Some(trouble), ..) => trouble.clone(),
        (None, Some(status), Some(at)) => format!("{status} {}", human::moment(at, now)),
        (None, ..) => String::new(),
    }
}

fn show(detail: &DeliveryDetail, now: Timestamp) -> String {
    let line = &detail.line;
    let at = |time: Timestamp| format!("{time} ({})", human::moment(time, now));
    let mut rows: Vec<(&str, String)> = vec![
        ("Id", line.id.clone()),
        ("Connection", line.connection.to_string()),
        ("State", line.state.clone()),
        ("Accepted", at(line.accepted_at)),
    ];
    let mut more = |name: &'static str, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    more("Event", line.event.clone());
    more("Note", line.note.clone());
    more("Settled", line.settled_at.map(at));
    more("Attempts", Some(line.attempts.to_string()));
    more("Next attempt", line.next_attempt_at.map(at));
    more("Last status", line.status.map(|status| status.to_string()));
    more("Last trouble", line.trouble.clone());
    more("Idempotency-Key", Some(line.key.clone()));
    more("Content-Type", Some(detail.content_type.clone()));
    more("Size", Some(size(line.bytes)));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
    let mut text = String::new();
    for (name, value) in &rows {
        let name = format!("{name}:");
        text.push_str(&format!("{} {}\n", paint(style::STRONG, format!("{name:<width$}")), printable::line(value)));
    }
    match &detail.body {
        None => text.push_str("\nThe body is not kept any more: it goes when an event was delivered or discarded.\n"),
        Some(body) => {
            let pretty = serde_json::to_string_pretty(body).unwrap_or_default();
            text.push('\n');
            pretty.lines().for_each(|line| text.push_str(&format!("{}\n", printable::line(line))));
        }
    }
    text
}
