//! Spans, moments, sizes and counts as people read them.

use crate::model::time::Timestamp;
pub use crate::model::wording::{count, size, span};

/// How long ago, in whole seconds: `0s`, `12s`, `5m12s`.
pub fn age(ms: u64) -> String {
    if ms < 60_000 { format!("{}s", ms / 1_000) } else { span(ms) }
}

/// A moment as people think of it: `in 5m12s`, `2h3m ago`.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    match at.0.saturating_sub(now.0) {
        0 => "just now".to_owned(),
        ahead @ 1.. => format!("in {}", age(ahead.unsigned_abs())),
        past => format!("{} ago", age(past.unsigned_abs())),
    }
}

/// A text in which `at 2026-...Z` says how far away that is.
pub fn moments(text: &str, now: Timestamp) -> String {
    const AT: &str = "at ";
    let mut out = String::new();
    let mut rest = text;
    while let Some(place) = rest.find(AT) {
        let (before, from) = rest.split_at(place);
        let word = &from[AT.len()..];
        let end = word.find('Z').map_or(0, |end| end + 1);
        let at = word.get(..end).and_then(|stamp| stamp.parse::<jiff::Timestamp>().ok());
        out.push_str(before);
        match at {
            Some(at) => {
                out.push_str(&moment(Timestamp(at.as_millisecond()), now));
                rest = &word[end..];
            }
            None => {
                out.push_str(AT);
                rest = word;
            }
        }
    }
    out + rest
}

/// A text of at most so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_never_lie_upwards() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (1_299, "1.2s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (312_000, "5m12s"),
            (3_599_999, "59m59s"),
            (11_040_000, "3h4m"),
            (190_800_000, "2d5h"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
        assert_eq!(age(400), "0s");
        assert_eq!(age(312_000), "5m12s");
        span(u64::MAX);
    }

    #[test]
    fn moments_are_as_far_away_as_they_are() {
        let now = Timestamp(1_795_227_000_000);
        assert_eq!(moments("crashed, tried again at 2026-11-21T02:15:00.000Z", now), "crashed, tried again in 5m0s");
        assert_eq!(moments("died at 2026-11-21T02:08:00.000Z, looked at since", now), "died 2m0s ago, looked at since");
        assert_eq!(moments("at once, at Zürich", now), "at once, at Zürich");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }

    #[test]
    fn sizes_use_binary_units() {
        for (bytes, text) in
            [(0, "0B"), (1_023, "1023B"), (1_024, "1KiB"), (1_536, "1.5KiB"), (10 << 20, "10MiB"), (3 << 30, "3GiB")]
        {
            assert_eq!(size(bytes), text);
        }
        size(u64::MAX);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "resource"), "1 resource");
        assert_eq!(count(0, "resource"), "0 resources");
    }
}
