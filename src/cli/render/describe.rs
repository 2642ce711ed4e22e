//! Everything known of one resource, in sections.

use super::show::yaml;
use super::style::{self, paint};
use super::table::{grid, status_word};
use super::{human, printable};
use crate::model::condition::{Condition, ConditionType};
use crate::model::output::{DependencyLine, Description, ResourceLine};
use crate::model::time::Timestamp;

/// The text of `describe`.
pub fn text(description: &Description, now: Timestamp) -> String {
    let line = &description.resource;
    let mut text = String::new();
    facts(
        &mut text,
        &[
            ("Resource", format!("{}/{}", line.kind, line.name)),
            ("Status", printable::line(&line.phase).into_owned()),
            ("Source", printable::line(&line.source).into_owned()),
            ("Generation", line.generation.to_string()),
        ],
    );
    let next = line.next_run.map(|next| format!("{} ({next})", super::pause::clock(next, Timestamp(0))));
    facts(&mut text, &next.map(|next| ("Next run", next)).into_iter().collect::<Vec<_>>());
    let until = line.pause.as_ref().and_then(|pause| pause.until);
    let until = until.map(|until| format!("{} ({until})", super::pause::clock(until, Timestamp(0))));
    facts(&mut text, &until.map(|until| ("Until", until)).into_iter().collect::<Vec<_>>());
    let pause = line.pause.as_ref().filter(|pause| pause.by_more_than_a_word());
    facts(&mut text, &pause.map(|pause| ("Why", pause.sentence())).into_iter().collect::<Vec<_>>());
    section(&mut text, "Conditions", conditions(&line.conditions, now));
    section(&mut text, "Process", process(line));
    section(&mut text, "Depends on", dependencies(&description.depends_on));
    section(&mut text, "Required by", description.required_by.iter().map(ToString::to_string).collect());
    let spec = if description.spec.is_null() { String::new() } else { yaml(&description.spec) };
    section(&mut text, "Spec", printable::block(&spec).lines().map(str::to_owned).collect());
    let events = description.events.iter().map(|event| super::lines::event(event).trim_end().to_owned());
    section(&mut text, "Events", events.collect());
    let log = description.log.iter().map(|log| {
        let at = paint(style::QUIET, printable::line(&log.at));
        format!("{at} {}", printable::output(&log.text))
    });
    section(&mut text, "Last output", log.collect());
    text
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("\n{}\n", paint(style::STRONG, title)));
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
}

fn facts(text: &mut String, facts: &[(&str, String)]) {
    for (name, value) in facts {
        text.push_str(&format!("{} {value}\n", paint(style::STRONG, format!("{:<11}", format!("{name}:")))));
    }
}

fn conditions(all: &[Condition], now: Timestamp) -> Vec<String> {
    let rows = all.iter().map(|condition| {
        let kind = match condition.kind {
            ConditionType::Ready => "Ready",
            ConditionType::Reconciling => "Reconciling",
            ConditionType::Stalled => "Stalled",
            ConditionType::Drifted => "Drifted",
        };
        [
            kind.to_owned(),
            status_word(condition.status).to_owned(),
            condition.reason.to_string(),
            human::moment(condition.last_transition_time, now),
            printable::line(&human::moments(&condition.message, now)).into_owned(),
        ]
    });
    if all.is_empty() { Vec::new() } else { grid(Some(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]), rows) }
}

fn process(line: &ResourceLine) -> Vec<String> {
    let known = [
        ("pid", line.pid.map(|pid| pid.to_string())),
        ("port", line.port.map(|port| port.to_string())),
        ("running for", line.uptime_ms.map(human::age)),
        ("restarts", line.restarts.map(|restarts| restarts.to_string())),
        ("says", line.says.as_deref().map(|says| printable::line(says).into_owned())),
        ("last exit", line.last_exit.as_deref().map(|exit| printable::line(exit).into_owned())),
    ];
    let rows = known.into_iter().filter_map(|(name, value)| value.map(|value| [name.to_owned(), value]));
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { Vec::new() } else { grid(None, rows.into_iter()) }
}

fn dependencies(all: &[DependencyLine]) -> Vec<String> {
    let rows = all.iter().map(|line| {
        let met = if line.met { "met" } else { "not met" };
        let message = printable::line(&line.message).into_owned();
        [line.resource.to_string(), line.condition.clone(), met.to_owned(), message]
    });
    if all.is_empty() { Vec::new() } else { grid(None, rows) }
}
