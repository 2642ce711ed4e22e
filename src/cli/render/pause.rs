//! What the hour does to a service, in words for a table: `until 14:05, by trueup stop: disk swap`, `next run in 5h2m`.

use jiff::tz::TimeZone;

use super::human;
use crate::model::output::{By, Pause, ResourceLine};
use crate::model::time::Timestamp;

/// The state as the table shows it: one word, and why it is for a while only.
pub fn status(line: &ResourceLine, now: Timestamp) -> String {
    let more = match (&line.pause, line.next_run) {
        (Some(pause), _) => why(pause, now),
        (None, Some(next)) => Some(next_run(next, now)),
        (None, None) => None,
    };
    match more {
        Some(more) => format!("{} ({more})", line.phase),
        None => line.phase.clone(),
    }
}

fn why(pause: &Pause, now: Timestamp) -> Option<String> {
    let until = pause.until.map(|until| format!("until {}", clock(until, now)));
    let by = match pause.by {
        By::File => None,
        By::Stop => Some("by trueup stop".to_owned()),
        By::Start => Some("by trueup start".to_owned()),
    };
    let head = [until, by].into_iter().flatten().collect::<Vec<_>>().join(", ");
    match (head.is_empty(), pause.reason.is_empty()) {
        (true, true) => None,
        (true, false) => Some(pause.reason.clone()),
        (false, true) => Some(head),
        (false, false) => Some(format!("{head}: {}", pause.reason)),
    }
}

fn next_run(next: Timestamp, now: Timestamp) -> String {
    format!("next run in {}", human::age(u64::try_from(next.0 - now.0).unwrap_or(0)))
}

/// A moment on this machine's clock; with its day when that is another one.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let zone = TimeZone::system();
    let local = |at: Timestamp| jiff::Timestamp::from_millisecond(at.0).map(|at| at.to_zoned(zone.clone()));
    match (local(at), local(now)) {
        (Ok(at), Ok(now)) if at.date() == now.date() => at.strftime("%H:%M").to_string(),
        (Ok(at), _) => at.strftime("%Y-%m-%d %H:%M").to_string(),
        (Err(_), _) => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_says_who_and_why_as_far_as_there_is_something_to_say() {
        let now = Timestamp(1_800_000_000_000);
        let pause = |by, reason: &str| Pause { by, until: None, reason: reason.to_owned() };
        assert_eq!(why(&pause(By::File, ""), now), None);
        assert_eq!(why(&pause(By::File, "disk swap"), now).as_deref(), Some("disk swap"));
        let soon = Pause { until: Some(Timestamp(now.0 + 1_000)), ..pause(By::Stop, "disk swap") };
        let text = why(&soon, now).expect("words");
        assert!(text.starts_with("until ") && text.ends_with(", by trueup stop: disk swap"), "{text}");
        assert_eq!(next_run(Timestamp(now.0 + 18_120_000), now), "next run in 5h2m");
    }
}
