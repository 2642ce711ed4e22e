//! How rules and values are called in messages, and what helps against the usual mistakes.

use super::super::compose::shortened;
use super::super::near::{listed, nearest};
use super::super::node::{Core, Node, NodeKind, core};
use super::{Checker, MapShape, RuleId, Shape};

/// "a list of strings".
pub(super) fn noun(checker: &Checker, rule: RuleId) -> String {
    match &checker.rules[rule].shape {
        Shape::Any | Shape::Open => "a value".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Integer { .. } => "a whole number".to_owned(),
        Shape::Number { .. } => "a number".to_owned(),
        Shape::Text { .. } => "a string".to_owned(),
        Shape::Choice(words) if words.len() == 1 => format!("`{}`", words[0]),
        Shape::Choice(words) => format!("one of {}", listed(words.iter().map(String::as_str), "or", 12)),
        Shape::List { items, .. } => format!("a list of {}", plural(checker, *items)),
        Shape::Map(_) => "a mapping".to_owned(),
        Shape::Union(alternatives) => {
            let nouns: Vec<String> = alternatives.iter().map(|rule| noun(checker, *rule)).collect();
            nouns.join(" or ")
        }
    }
}

fn plural(checker: &Checker, rule: RuleId) -> &'static str {
    match &checker.rules[rule].shape {
        Shape::Any | Shape::Open | Shape::Union(_) => "values",
        Shape::Bool => "true or false",
        Shape::Integer { .. } => "whole numbers",
        Shape::Number { .. } => "numbers",
        Shape::Text { .. } | Shape::Choice(_) => "strings",
        Shape::List { .. } => "lists",
        Shape::Map(_) => "mappings",
    }
}

/// "the number 5", "a list".
pub(super) fn found(node: &Node) -> String {
    match &node.kind {
        NodeKind::Scalar { text, plain: false } if text.is_empty() => "the empty string".to_owned(),
        NodeKind::Scalar { text, plain: false } => format!("the string \"{}\"", shortened(text)),
        NodeKind::Scalar { text, plain: true } => match core(text) {
            Core::Null => "nothing (null)".to_owned(),
            Core::Bool(_) => format!("`{text}`"),
            Core::Integer(_) | Core::Float(_) => format!("the number {text}"),
            Core::Text => format!("the string `{}`", shortened(text)),
        },
        NodeKind::Seq(_) => "a list".to_owned(),
        NodeKind::Map(_) => "a mapping".to_owned(),
    }
}

/// "`5`", "an empty list".
pub(super) fn value(node: &Node) -> String {
    match &node.kind {
        NodeKind::Scalar { text, .. } if text.is_empty() => "empty".to_owned(),
        NodeKind::Scalar { text, .. } => format!("`{}`", shortened(text)),
        NodeKind::Seq(items) if items.is_empty() => "an empty list".to_owned(),
        NodeKind::Seq(items) => format!("a list of {}", items.len()),
        NodeKind::Map(_) => "this mapping".to_owned(),
    }
}

/// What a rule allows, for schemas without a sentence of their own.
pub(super) fn limits(checker: &Checker, rule: RuleId, node: &Node) -> String {
    let between = |min: Option<String>, max: Option<String>| match (min, max) {
        (Some(min), Some(max)) => format!("from {min} to {max}"),
        (Some(min), None) => format!("{min} or more"),
        (None, Some(max)) => format!("{max} or less"),
        (None, None) => "within limits".to_owned(),
    };
    match &checker.rules[rule].shape {
        Shape::Integer { min, max } => {
            // That a number must fit into 32 bits is of interest only to those who passed that.
            let huge = node.text().and_then(|text| text.parse::<i128>().ok()).is_some_and(|v| v > i128::from(u32::MAX));
            let max = max.filter(|max| huge || *max < i128::from(u32::MAX));
            between(min.map(|v| v.to_string()), max.map(|v| v.to_string()))
        }
        Shape::Number { min, max } => between(min.map(|v| v.to_string()), max.map(|v| v.to_string())),
        Shape::Text { min, max, pattern: None } => {
            let min = Some(*min).filter(|min| *min > 0);
            format!("{} characters long", between(min.map(|v| v.to_string()), max.map(|v| v.to_string())))
        }
        Shape::Text { pattern: Some(pattern), .. } => format!("text of the form {}", pattern.source),
        Shape::List { min: 1, max: None, .. } => "a list with at least one item".to_owned(),
        Shape::List { min, max, .. } => {
            format!("a list with {} items", between(Some(min.to_string()), max.map(|v| v.to_string())))
        }
        _ => noun(checker, rule),
    }
}

/// The mapping that a rule wants, if it wants one.
pub(super) fn as_map(checker: &Checker, rule: RuleId) -> Option<&MapShape> {
    match &checker.rules[rule].shape {
        Shape::Map(shape) => Some(shape),
        Shape::Union(alternatives) => alternatives.iter().find_map(|rule| as_map(checker, *rule)),
        _ => None,
    }
}

/// What to do about a value of the wrong type.
pub(super) fn type_hint(checker: &Checker, rule: RuleId, node: &Node, field: Option<&str>) -> Option<String> {
    let field = field.unwrap_or("field");
    match (&checker.rules[rule].shape, &node.kind) {
        (Shape::Bool, NodeKind::Scalar { text, .. }) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "1" | "true" => Some("write `true`".to_owned()),
            "no" | "off" | "n" | "0" | "false" => Some("write `false`".to_owned()),
            _ => None,
        },
        (Shape::Integer { .. } | Shape::Number { .. }, NodeKind::Scalar { text, plain: false }) => {
            let number = matches!(core(text), Core::Integer(_) | Core::Float(_));
            number.then(|| format!("take the quotes away: {text}"))
        }
        (Shape::Text { .. } | Shape::Choice(_), NodeKind::Scalar { .. }) => {
            Some("write \"\" for an empty string, or remove the line".to_owned())
        }
        (Shape::List { items, .. }, NodeKind::Scalar { text, .. }) => {
            let item = &checker.rules[*items].shape;
            let inline = matches!(item, Shape::Text { .. } | Shape::Choice(_)) && !node.is_null() && text.len() < 60;
            inline.then(|| format!("write it as a list: `{field}: [{}]`", inline_list(text)))
        }
        (Shape::List { .. }, NodeKind::Map(_)) => Some("begin each item with `- `".to_owned()),
        (Shape::Map(shape), NodeKind::Scalar { text, .. }) => {
            let mut required = shape.fields.iter().filter(|field| field.required);
            match (required.next(), required.next()) {
                (Some(only), None) if !node.is_null() => {
                    Some(format!("write `{{ {}: {} }}`", only.name, shortened(text)))
                }
                _ => Some(fields_hint(shape)),
            }
        }
        (Shape::Map(shape), NodeKind::Seq(_)) => Some(fields_hint(shape)),
        _ => None,
    }
}

fn fields_hint(shape: &MapShape) -> String {
    if shape.fields.is_empty() {
        return "write one `name: value` on each line, without `- `".to_owned();
    }
    format!("its fields are {}", listed(shape.names(), "and", 24))
}

/// Words of a command line as items of a flow list.
fn inline_list(text: &str) -> String {
    let item = |word: &str| {
        let safe = word.chars().all(|c| c.is_alphanumeric() || "-_./=+@%~".contains(c))
            && !word.starts_with(['-', '@', '%', '=']);
        let dashed =
            word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'));
        if safe || dashed && word.chars().all(|c| c.is_alphanumeric() || "-_./=".contains(c)) {
            word.to_owned()
        } else {
            format!("{word:?}")
        }
    };
    let words: Vec<String> = text.split_whitespace().map(item).collect();
    words.join(", ")
}

/// What to do about a value that is out of range.
pub(super) fn range_hint(checker: &Checker, rule: RuleId, node: &Node) -> Option<String> {
    let text = node.text()?;
    let pattern = match &checker.rules[rule].shape {
        Shape::Text { pattern: Some(pattern), .. } => pattern,
        Shape::Union(alternatives) => return union_hint(checker, alternatives, node, text),
        _ => return None,
    };
    // `5` for `5s`, `10 MB` for `10MiB`, `/x` for `x`: the first change that makes it fit.
    // Blanks are a slip in `10 s`; in a path or a name they are not.
    let squeezed: String = match text.starts_with(|c: char| c.is_ascii_digit()) {
        true => text.split_whitespace().collect(),
        false => text.to_owned(),
    };
    let lower = squeezed.to_ascii_lowercase();
    let binary = squeezed.strip_suffix(['B', 'b']).unwrap_or(&squeezed).trim_end_matches(['i', 'I']);
    let mut tries = vec![squeezed.clone(), lower.clone(), lower.replace(['_', '.', ' '], "-"), format!("/{squeezed}")];
    if binary.ends_with(['k', 'K', 'm', 'M', 'g', 'G']) {
        let (number, unit) = binary.split_at(binary.len() - 1);
        tries.insert(0, format!("{number}{}iB", unit.to_ascii_uppercase()));
    }
    for (long, short) in [
        ("seconds", "s"),
        ("second", "s"),
        ("sec", "s"),
        ("minutes", "m"),
        ("minute", "m"),
        ("min", "m"),
        ("hours", "h"),
        ("hour", "h"),
        ("days", "d"),
        ("day", "d"),
    ] {
        if let Some(number) = lower.strip_suffix(long) {
            tries.push(format!("{number}{short}"));
        }
    }
    tries.extend([
        format!("{squeezed}s"),
        format!("{squeezed}%"),
        format!("{squeezed}MiB"),
        format!("http://{squeezed}"),
    ]);
    tries
        .into_iter()
        .find(|attempt| attempt != text && pattern.matches(attempt))
        .map(|fit| format!("did you mean `{fit}`?"))
}

/// For a value that fits no alternative: quotes around a number, or a word misspelt.
fn union_hint(checker: &Checker, alternatives: &[RuleId], node: &Node, text: &str) -> Option<String> {
    for rule in alternatives {
        match &checker.rules[*rule].shape {
            Shape::Integer { min, max } if matches!(&node.kind, NodeKind::Scalar { plain: false, .. }) => {
                if let Core::Integer(value) = core(text)
                    && min.is_none_or(|min| value >= min)
                    && max.is_none_or(|max| value <= max)
                {
                    return Some(format!("take the quotes away: {text}"));
                }
            }
            Shape::Bool => match core(text) {
                Core::Text if matches!(text.to_ascii_lowercase().as_str(), "yes" | "on" | "y") => {
                    return Some("write `true`".to_owned());
                }
                Core::Text if matches!(text.to_ascii_lowercase().as_str(), "no" | "off" | "n") => {
                    return Some("write `false`".to_owned());
                }
                _ => {}
            },
            Shape::Choice(words) => {
                if let Some(near) = nearest(text, words.iter().map(String::as_str)) {
                    return Some(format!("did you mean `{near}`?"));
                }
            }
            _ => {}
        }
    }
    None
}

/// How to write a field that is missing.
pub(super) fn missing_hint(checker: &Checker, _around: RuleId, field: RuleId, name: &str) -> String {
    match &checker.rules[field].shape {
        Shape::Choice(words) if words.len() == 1 => format!("add `{name}: {}`", words[0]),
        Shape::Choice(words) => format!("add `{name}:` with {}", listed(words.iter().map(String::as_str), "or", 12)),
        Shape::Map(_) => format!("add `{name}:` and its fields below it"),
        _ => match &checker.rules[field].message {
            Some(sentence) => format!("add `{name}: ...`; {sentence}"),
            None => format!("add `{name}: ...` ({})", noun(checker, field)),
        },
    }
}
