//! Manifests as a person would have written them: short values on one line, and a comment where something was decided.

use std::fmt::Write as _;

use serde_json::Value;

/// One document that is being written.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub kind: &'static str,
    pub name: String,
    /// Where it comes from.
    pub from: String,
    /// Sentences above it.
    pub comments: Vec<String>,
    /// The lines of its spec.
    pub lines: Vec<String>,
    /// Why it is written as a comment only.
    pub left_out: Option<String>,
}

impl Draft {
    pub fn comment(&mut self, text: impl Into<String>) {
        self.comments.push(text.into());
    }

    /// `name: value` in its spec.
    pub fn field(&mut self, name: &str, value: &Value) {
        self.lines.push(format!("{name}: {}", flow(value)));
    }

    pub fn line(&mut self, text: impl Into<String>) {
        self.lines.push(text.into());
    }

    /// The document, without a separator.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "# {}", plain(&self.from));
        for comment in &self.comments {
            let _ = writeln!(text, "# {}", plain(comment));
        }
        let mark = match &self.left_out {
            Some(why) => {
                let _ = writeln!(text, "# Left out: {}", plain(why));
                "# "
            }
            None => "",
        };
        let _ = writeln!(text, "{mark}apiVersion: trueup/v1\n{mark}kind: {}", self.kind);
        let _ = writeln!(text, "{mark}metadata: {{ name: {} }}", scalar(&self.name));
        if !self.lines.is_empty() {
            let _ = writeln!(text, "{mark}spec:");
        }
        for line in &self.lines {
            let _ = writeln!(text, "{mark}  {line}");
        }
        text
    }
}

/// A comment is one line, whatever an old file put into a name.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c })
        .collect()
}

/// A value on one line.
pub fn flow(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", scalar(key), flow(value));
            format!("{{ {} }}", fields.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Text without quotes where every reader takes it for the same text.
fn scalar(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | '+');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let word =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if begins && !word && text.chars().all(safe) {
        return text.to_owned();
    }
    // JSON is YAML, but for characters that YAML wants escaped.
    let mut out = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for value in [
            json!("plain"),
            json!("/a/b.c"),
            json!("yes"),
            json!("5"),
            json!(""),
            json!("a: b"),
            json!("# x"),
            json!("a\nb\u{85}c\u{2028}"),
            json!("vault:{vault}:write"),
            json!({ "a b": [1, "no", null, true], "t": { "~": "{}" } }),
            json!([]),
            json!("- x"),
            json!("é"),
            json!("\u{7f}\u{feff}"),
            json!("null"),
            json!("@x"),
            json!("a,b"),
            json!("a]"),
        ] {
            let text = format!("v: {}\n", flow(&value));
            let read: Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read["v"], value, "{text}");
        }
    }

    #[test]
    fn what_is_left_out_is_a_comment_through_and_through() {
        let mut draft = Draft { kind: "Service", name: "a".to_owned(), from: "x\ny: z".to_owned(), ..Draft::default() };
        draft.field("command", &json!(["a\nb"]));
        draft.left_out = Some("because\nkind: Hub".to_owned());
        assert!(draft.text().lines().all(|line| line.starts_with("# ")), "{}", draft.text());
    }
}
