//! Whether a trigger wants a note.

use serde_json::{Map, Value};

use super::note::Note;
use super::operators;
use super::triggers::Trigger;

/// The mark of a delivery that has begun.
pub(super) fn pending(trigger: &str) -> String {
    format!("{trigger}_pending_at")
}

/// The mark of a delivery that was taken.
pub(super) fn rendered(trigger: &str) -> String {
    format!("{trigger}_rendered_at")
}

/// Whether a note bears a mark of this trigger. A mark that is null, empty, 0 or false is none.
pub(super) fn is_marked(trigger: &str, metadata: &Map<String, Value>) -> bool {
    [pending(trigger), rendered(trigger)].iter().any(|mark| metadata.get(mark).is_some_and(is_truthy))
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// Whether the trigger fires for this note. What has no meaning in its filter matches nothing.
pub(super) fn matches(trigger: &Trigger, note: &Note) -> bool {
    let when = &trigger.when;
    let list = |name: &str| when.get(name).filter(|value| !value.is_null()).map(texts);
    let lacks = |key: &str| note.metadata.get(key).is_none_or(Value::is_null);
    let tags = |tags: Option<Vec<&str>>| tags.is_some_and(|tags| tags.iter().all(|tag| note.has_tag(tag)));
    let missing = |keys: Option<Vec<&str>>| keys.is_some_and(|keys| keys.iter().all(|key| lacks(key)));
    let present = |keys: Option<Vec<&str>>| keys.is_some_and(|keys| !keys.iter().any(|key| lacks(key)));
    let has_content = !note.content.trim().is_empty();
    !is_marked(&trigger.name, &note.metadata)
        && list("tags").is_none_or(tags)
        && when.get("has_content").and_then(Value::as_bool).is_none_or(|wanted| wanted == has_content)
        && list("missing_metadata").is_none_or(missing)
        && list("has_metadata").is_none_or(present)
        && when.get("metadata").filter(|value| !value.is_null()).is_none_or(|fields| stand(fields, note))
}

fn texts(list: &Value) -> Option<Vec<&str>> {
    list.as_array()?.iter().map(Value::as_str).collect()
}

fn stand(fields: &Value, note: &Note) -> bool {
    let field = |(name, operators): (&String, &Value)| {
        let operators = operators.as_object();
        operators.is_some_and(|operators| operators::stands(note.metadata.get(name), operators) == Ok(true))
    };
    fields.as_object().is_some_and(|fields| fields.iter().all(field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn note(content: &str, tags: &[&str], metadata: &Value) -> Note {
        let note = json!({ "id": "n", "content": content, "tags": tags, "metadata": metadata, "createdAt": "", "updatedAt": "" });
        serde_json::from_value(note).expect("a note")
    }

    fn fires(when: &Value, note: &Note) -> bool {
        let trigger = json!({ "name": "t", "when": when, "action": { "webhook": "http://127.0.0.1:1/" } });
        matches(&Trigger::of(&trigger).expect("a trigger"), note)
    }

    #[test]
    fn every_part_of_a_filter_is_held_against_the_note() {
        let seen = note("hello", &["a", "b"], &json!({ "n": 5, "s": "x", "nil": null, "yes": true, "list": [1] }));
        let cases = [
            (json!({}), true),
            (json!({ "color": "red" }), true),
            (json!({ "tags": [] }), true),
            (json!({ "tags": ["a"] }), true),
            (json!({ "tags": ["b", "a"] }), true),
            (json!({ "tags": ["a", "c"] }), false),
            (json!({ "tags": "a" }), false),
            (json!({ "has_content": true }), true),
            (json!({ "has_content": false }), false),
            (json!({ "has_content": "no" }), true),
            (json!({ "missing_metadata": ["other", "nil"] }), true),
            (json!({ "missing_metadata": ["n"] }), false),
            (json!({ "has_metadata": ["n", "yes"] }), true),
            (json!({ "has_metadata": ["n", "nil"] }), false),
            (json!({ "has_metadata": ["other"] }), false),
            (json!({ "metadata": { "n": { "eq": 5 } } }), true),
            (json!({ "metadata": { "n": { "eq": 5.0 }, "s": { "eq": "x" } } }), true),
            (json!({ "metadata": { "n": { "eq": "5" } } }), false),
            (json!({ "metadata": { "n": { "gt": 4, "lt": 6 } } }), true),
            (json!({ "metadata": { "n": { "gt": 5 } } }), false),
            (json!({ "metadata": { "n": { "gte": 5, "lte": 5 } } }), true),
            (json!({ "metadata": { "s": { "gt": "w" } } }), true),
            (json!({ "metadata": { "s": { "gt": 1_000 } } }), true),
            (json!({ "metadata": { "other": { "lt": 9 } } }), false),
            (json!({ "metadata": { "n": { "ne": 4 }, "other": { "ne": 4 } } }), true),
            (json!({ "metadata": { "n": { "ne": 5 } } }), false),
            (json!({ "metadata": { "nil": { "eq": null }, "other": { "eq": null } } }), true),
            (json!({ "metadata": { "n": { "ne": null } } }), true),
            (json!({ "metadata": { "n": { "in": [1, 5] } } }), true),
            (json!({ "metadata": { "n": { "in": [] } } }), false),
            (json!({ "metadata": { "n": { "not_in": [] }, "other": { "not_in": [1] } } }), true),
            (json!({ "metadata": { "n": { "not_in": [5] } } }), false),
            (json!({ "metadata": { "n": { "exists": true }, "nil": { "exists": false } } }), true),
            (json!({ "metadata": { "yes": { "eq": true }, "list": { "exists": true } } }), true),
            (json!({ "metadata": { "n": { "in": 5 } } }), false),
            (json!({ "metadata": { "n": { "exists": "yes" } } }), false),
            (json!({ "metadata": { "n": { "eq": [5] } } }), false),
            (json!({ "tags": ["a"], "has_metadata": ["s"], "missing_metadata": ["t"], "has_content": true }), true),
        ];
        for (when, wanted) in cases {
            assert_eq!(fires(&when, &seen), wanted, "{when}");
        }
        let empty = note(" \n", &[], &json!({}));
        assert!(fires(&json!({ "has_content": false }), &empty) && !fires(&json!({ "has_content": true }), &empty));
    }

    #[test]
    fn a_mark_of_its_own_keeps_a_trigger_from_firing() {
        for (metadata, wanted) in [
            (json!({ "t_pending_at": "2026-01-01T00:00:00Z" }), false),
            (json!({ "t_rendered_at": "2026-01-01T00:00:00Z" }), false),
            (json!({ "t_rendered_at": [] }), false),
            (json!({ "t_pending_at": null, "t_rendered_at": "" }), true),
            (json!({ "t_pending_at": 0, "t_rendered_at": false }), true),
            (json!({ "other_pending_at": "x" }), true),
        ] {
            assert_eq!(fires(&json!({}), &note("x", &[], &metadata)), wanted, "{metadata}");
        }
    }
}
