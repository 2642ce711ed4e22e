//! Lines in the log format of the Container Runtime Interface: `2026-11-21T02:16:27.123456Z stdout F text`.

use crate::cli::render::printable;
use crate::model::output::LogLine;

/// A line longer than this is printed in pieces, so that no module can fill our memory.
pub const MAX_LINE: usize = 1 << 20;

/// One line of output, its parts joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Microseconds since 1970; `None` for a line that is not in the format.
    pub at: Option<i64>,
    /// The time as it was written.
    pub stamp: String,
    pub stream: String,
    pub text: Vec<u8>,
}

impl Record {
    pub fn line(self, unit: &str) -> LogLine {
        LogLine { unit: unit.to_owned(), at: self.stamp, stream: self.stream, text: printable::text(&self.text) }
    }
}

/// Joins parts (`P`) with the whole (`F`) that ends them, for each stream apart.
#[derive(Debug, Default)]
pub struct Joiner {
    open: Vec<Record>,
}

impl Joiner {
    /// Takes one raw line, without its newline.
    pub fn push(&mut self, raw: &[u8]) -> Option<Record> {
        let (record, whole) = parse(raw);
        let known = self.open.iter().position(|open| open.stream == record.stream && record.at.is_some());
        let joined = match known {
            Some(at) => {
                let mut open = self.open.swap_remove(at);
                open.text.extend_from_slice(&record.text);
                open
            }
            None => record,
        };
        if whole || joined.text.len() >= MAX_LINE {
            return Some(joined);
        }
        self.open.push(joined);
        None
    }

    /// What is left when nothing more will come.
    pub fn rest(&mut self) -> Option<Record> {
        self.open.pop()
    }
}

/// Whether a raw line ends a record. Only its first bytes are needed.
pub fn is_whole(head: &[u8]) -> bool {
    !head.split(|b| *b == b' ').nth(2).is_some_and(|tag| tag == b"P" || tag.starts_with(b"P:"))
}

fn parse(raw: &[u8]) -> (Record, bool) {
    let mut fields = raw.splitn(4, |b| *b == b' ');
    let [stamp, stream, tag] = [(); 3].map(|()| fields.next().and_then(|field| std::str::from_utf8(field).ok()));
    let text = fields.next().unwrap_or_default();
    if let (Some(stamp), Some(stream @ ("stdout" | "stderr")), Some(tag)) = (stamp, stream, tag)
        && let Ok(at) = stamp.parse::<jiff::Timestamp>()
    {
        // The tag may be a list (`P:x`); only its first word matters.
        let whole = tag.split(':').next() != Some("P");
        let (stamp, stream) = (stamp.to_owned(), stream.to_owned());
        return (Record { at: Some(at.as_microsecond()), stamp, stream, text: text.to_vec() }, whole);
    }
    let foreign = Record { at: None, stamp: String::new(), stream: "stdout".to_owned(), text: raw.to_vec() };
    (foreign, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[&str]) -> Vec<String> {
        let mut joiner = Joiner::default();
        let records = lines.iter().filter_map(|line| joiner.push(line.as_bytes()));
        records.map(|record| String::from_utf8_lossy(&record.text).into_owned()).collect()
    }

    #[test]
    fn parts_are_joined_for_each_stream_apart() {
        let lines = [
            "2026-11-21T02:16:27.000001Z stdout P one ",
            "2026-11-21T02:16:27.000002Z stderr F other",
            "2026-11-21T02:16:27.000003Z stdout P two ",
            "2026-11-21T02:16:27.000004Z stdout F three",
        ];
        assert_eq!(texts(&lines), ["other", "one two three"]);
    }

    #[test]
    fn a_record_has_the_time_of_its_first_part() {
        let mut joiner = Joiner::default();
        assert_eq!(joiner.push(b"2026-11-21T02:16:27.000001Z stdout P a"), None);
        let record = joiner.push(b"2026-11-21T02:16:28.000001Z stdout F b").expect("a record");
        assert_eq!(record.stamp, "2026-11-21T02:16:27.000001Z");
    }

    #[test]
    fn what_is_not_in_the_format_is_shown_as_it_is() {
        assert_eq!(
            texts(&["", "hello", "2026 stdout F x", "\u{0}\u{1}"]),
            ["", "hello", "2026 stdout F x", "\u{0}\u{1}"]
        );
        let empty = texts(&["2026-11-21T02:16:27Z stdout F", "2026-11-21T02:16:27Z stdout F "]);
        assert_eq!(empty, ["", ""]);
    }

    #[test]
    fn an_endless_line_comes_in_pieces() {
        let mut joiner = Joiner::default();
        let part = format!("2026-11-21T02:16:27Z stdout P {}", "x".repeat(300_000));
        let pieces: Vec<_> = (0..8).filter_map(|_| joiner.push(part.as_bytes())).collect();
        assert_eq!(pieces.len(), 2);
        assert!(pieces.iter().all(|piece| piece.text.len() < 2 * MAX_LINE));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(lines in proptest::collection::vec(proptest::collection::vec(0u8.., 0..80), 0..20)) {
            let mut joiner = Joiner::default();
            for line in lines {
                if let Some(record) = joiner.push(&line) {
                    record.line("x");
                }
            }
        }
    }
}
