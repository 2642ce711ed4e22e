//! The located tree: what a YAML document says, with the place of every key and value.

use super::text::Place;

/// One value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: NodeKind,
    pub place: Place,
}

/// What a value is, before a schema says what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// `plain` is set for text without quotes, which the core schema may read as a number, a bool or null.
    Scalar {
        text: Box<str>,
        plain: bool,
    },
    Seq(Vec<Node>),
    /// In the order of the file, every key once.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping; always text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub text: Box<str>,
    pub place: Place,
}

/// What a plain scalar says by the YAML 1.2 core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Core {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text,
}

impl Node {
    /// The entry of a mapping.
    pub fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        match &self.kind {
            NodeKind::Map(entries) => entries.iter().find(|(k, _)| &*k.text == key),
            NodeKind::Scalar { .. } | NodeKind::Seq(_) => None,
        }
    }

    /// The value of a mapping's entry.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The item of a list.
    pub fn item(&self, index: usize) -> Option<&Self> {
        match &self.kind {
            NodeKind::Seq(items) => items.get(index),
            NodeKind::Scalar { .. } | NodeKind::Map(_) => None,
        }
    }

    /// Where to point at when the whole is meant: a mapping's first key, else the value.
    pub fn begin(&self) -> Place {
        match &self.kind {
            NodeKind::Map(entries) => entries.first().map_or(self.place, |(key, _)| key.place),
            NodeKind::Scalar { .. } | NodeKind::Seq(_) => self.place,
        }
    }

    /// The text of a scalar, whatever its style.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            NodeKind::Seq(_) | NodeKind::Map(_) => None,
        }
    }

    /// Whether nothing stands here: `~`, `null`, or no text at all, without quotes.
    pub fn is_null(&self) -> bool {
        match &self.kind {
            NodeKind::Scalar { text, plain } => *plain && is_null(text),
            NodeKind::Seq(_) | NodeKind::Map(_) => false,
        }
    }
}

/// Follows a JSON pointer as far as it leads: the value there, and the place of its key if it has one.
pub fn descend<'a>(root: &'a Node, pointer: &str) -> (Option<Place>, &'a Node) {
    let (mut key, mut node) = (None, root);
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        let next = match &node.kind {
            NodeKind::Map(_) => node.entry(&segment).map(|(key, value)| (Some(key.place), value)),
            NodeKind::Seq(items) => segment.parse().ok().and_then(|at: usize| items.get(at)).map(|item| (None, item)),
            NodeKind::Scalar { .. } => None,
        };
        let Some(next) = next else { break };
        (key, node) = next;
    }
    (key, node)
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Reads plain text by the YAML 1.2 core schema (chapter 10.3): `no`, `on` and `1_000` are text.
pub fn core(text: &str) -> Core {
    if is_null(text) {
        return Core::Null;
    }
    match text {
        "true" | "True" | "TRUE" => return Core::Bool(true),
        "false" | "False" | "FALSE" => return Core::Bool(false),
        _ => {}
    }
    // Only these can begin a number, so that most text is settled by one byte.
    if !matches!(text.as_bytes()[0], b'0'..=b'9' | b'+' | b'-' | b'.') {
        return Core::Text;
    }
    integer(text).map(Core::Integer).or_else(|| float(text).map(Core::Float)).unwrap_or(Core::Text)
}

fn integer(text: &str) -> Option<i128> {
    let radix = |digits: &str, radix: u32| {
        let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        all.then(|| i128::from_str_radix(digits, radix).ok()).flatten()
    };
    if let Some(octal) = text.strip_prefix("0o") {
        return radix(octal, 8);
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return radix(hexadecimal, 16);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value = radix(digits, 10)?;
    Some(if text.starts_with('-') { -value } else { value })
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.bytes().filter(u8::is_ascii_digit).count();
    let shape = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    // `.inf` and `.nan` are left as text: no field of ours can use them, and JSON cannot carry them.
    (digits > 0 && shape).then(|| text.parse().ok()).flatten().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_reads_as_the_core_schema_says() {
        for (text, expected) in [
            ("", Core::Null),
            ("~", Core::Null),
            ("null", Core::Null),
            ("nULL", Core::Text),
            ("true", Core::Bool(true)),
            ("no", Core::Text),
            ("on", Core::Text),
            ("12", Core::Integer(12)),
            ("-7", Core::Integer(-7)),
            ("+7", Core::Integer(7)),
            ("0o17", Core::Integer(15)),
            ("0x1F", Core::Integer(31)),
            ("017", Core::Integer(17)),
            ("1_000", Core::Text),
            ("1.10", Core::Float(1.1)),
            ("1e3", Core::Float(1000.0)),
            (".5", Core::Float(0.5)),
            ("-", Core::Text),
            (".", Core::Text),
            ("1.2.3", Core::Text),
            ("12:30", Core::Text),
            ("1e999", Core::Text),
        ] {
            assert_eq!(core(text), expected, "{text:?}");
        }
    }
}
