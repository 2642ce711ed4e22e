//! What an answer of a sink means for the event and for the sink. Pure.

use super::backoff;
use super::breaker::Heard;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::deliveries::{Arrival, Change};
use crate::ports::hub::Retry;

/// Where nobody listens, the breaker of the sink says when to try again.
const UNREACHED: Millis = Millis(1_000);
/// What is kept of what a sink says.
const MOST_TEXT: usize = 500;

/// What becomes of an event, what is known of its sink, and when it is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub change: Change,
    pub sink: Heard,
    pub pause: Option<Millis>,
}

/// What is known of the event.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// Before this attempt.
    pub attempts: u32,
    pub age: Millis,
    pub now: Timestamp,
    pub roll: u64,
}

/// Judges.
pub fn judge(arrival: &Arrival, tried: Tried, retry: Retry) -> Verdict {
    match arrival {
        Arrival::Answered { status, .. } if (200..300).contains(status) => {
            Verdict { change: Change::Delivered { status: *status }, sink: Heard::Works, pause: None }
        }
        Arrival::Answered { status, retry_after, text } => {
            let said = cut(format!("{status}{}{text}", if text.is_empty() { "" } else { ": " }));
            let attempts = tried.attempts.saturating_add(1);
            if is_final(*status) {
                let change = Change::Dead { attempts, status: Some(*status), trouble: said };
                return Verdict { change, sink: Heard::Works, pause: None };
            }
            let sink = match (status, retry_after) {
                (429 | 503, Some(span)) => Heard::Asks((*span).min(backoff::MOST_ASKED)),
                (408 | 409 | 425, _) => Heard::Works,
                _ => Heard::Fails,
            };
            again(attempts, Some(*status), said, *retry_after, sink, tried, retry)
        }
        Arrival::Lost(why) => {
            again(tried.attempts.saturating_add(1), None, cut(why.clone()), None, Heard::Fails, tried, retry)
        }
        Arrival::Unreached(why) => {
            let trouble = cut(why.clone());
            if tried.age >= retry.max_age {
                let change = Change::Dead { attempts: tried.attempts, status: None, trouble: too_old(&trouble, retry) };
                return Verdict { change, sink: Heard::Unreached, pause: None };
            }
            let due = later(tried.now, UNREACHED);
            let change = Change::Again { due, attempts: tried.attempts, status: None, trouble };
            Verdict { change, sink: Heard::Unreached, pause: Some(UNREACHED) }
        }
    }
}

fn again(
    attempts: u32,
    status: Option<u16>,
    trouble: String,
    asked: Option<Millis>,
    sink: Heard,
    tried: Tried,
    retry: Retry,
) -> Verdict {
    if attempts >= retry.max_attempts.max(1) {
        let change = Change::Dead { attempts, status, trouble: format!("{trouble} (attempt {attempts}, the last)") };
        return Verdict { change, sink, pause: None };
    }
    if tried.age >= retry.max_age {
        let change = Change::Dead { attempts, status, trouble: too_old(&trouble, retry) };
        return Verdict { change, sink, pause: None };
    }
    let pause = backoff::asked(asked, backoff::pause(attempts, tried.roll));
    let change = Change::Again { due: later(tried.now, pause), attempts, status, trouble };
    Verdict { change, sink, pause: Some(pause) }
}

/// The event is older than it may be.
pub fn too_old(trouble: &str, retry: Retry) -> String {
    let age = format!("it was not delivered within {}", retry.max_age);
    if trouble.is_empty() { age } else { format!("{trouble}; {age}") }
}

/// An answer that will be the same the next time: the event is not for this sink.
fn is_final(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 401 | 403 | 404 | 408 | 409 | 425 | 429)
}

fn later(now: Timestamp, pause: Millis) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::try_from(pause.0).unwrap_or(i64::MAX)))
}

fn cut(mut text: String) -> String {
    text.retain(|c| !c.is_control());
    while text.len() > MOST_TEXT {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { max_attempts: 3, max_age: Millis(60_000), timeout: Millis(1_000) };

    fn tried(attempts: u32, age: u64) -> Tried {
        Tried { attempts, age: Millis(age), now: Timestamp(1_000_000), roll: 0 }
    }

    fn answered(status: u16, after: Option<u64>) -> Arrival {
        Arrival::Answered { status, retry_after: after.map(Millis), text: "no\n".to_owned() }
    }

    #[test]
    fn an_answer_is_a_success_final_or_tried_again() {
        for status in [200, 202, 204] {
            assert!(matches!(judge(&answered(status, None), tried(0, 0), RETRY).change, Change::Delivered { .. }));
        }
        for status in [400, 405, 410, 413, 415, 418, 422, 451] {
            let verdict = judge(&answered(status, None), tried(0, 0), RETRY);
            assert!(matches!(verdict.change, Change::Dead { attempts: 1, .. }), "{status}");
            assert_eq!(verdict.sink, Heard::Works);
        }
        for status in [301, 401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504] {
            let verdict = judge(&answered(status, None), tried(0, 0), RETRY);
            assert!(matches!(verdict.change, Change::Again { attempts: 1, .. }), "{status}");
        }
    }

    #[test]
    fn attempts_and_age_are_bounded_and_what_did_not_arrive_is_no_attempt() {
        assert!(matches!(judge(&answered(500, None), tried(2, 0), RETRY).change, Change::Dead { attempts: 3, .. }));
        assert!(matches!(
            judge(&answered(500, None), tried(0, 60_000), RETRY).change,
            Change::Dead { attempts: 1, .. }
        ));
        let lost = Arrival::Lost("the connection broke".to_owned());
        assert!(matches!(judge(&lost, tried(1, 0), RETRY).change, Change::Again { attempts: 2, .. }));
        let unreached = Arrival::Unreached("refused".to_owned());
        assert!(matches!(judge(&unreached, tried(2, 59_999), RETRY).change, Change::Again { attempts: 2, .. }));
        assert!(matches!(judge(&unreached, tried(2, 60_000), RETRY).change, Change::Dead { attempts: 2, .. }));
    }

    #[test]
    fn a_sink_that_asks_to_wait_is_waited_for() {
        let verdict = judge(&answered(429, Some(7_000)), tried(0, 0), RETRY);
        assert_eq!(verdict.sink, Heard::Asks(Millis(7_000)));
        assert_eq!(verdict.pause, Some(Millis(7_000)));
        let Change::Again { due, trouble, .. } = verdict.change else { panic!("again") };
        assert_eq!((due, trouble.as_str()), (Timestamp(1_007_000), "429: no"));
        assert_eq!(judge(&answered(409, Some(7_000)), tried(0, 0), RETRY).sink, Heard::Works);
    }
}
