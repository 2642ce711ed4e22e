//! How much work a JSON Schema is, before anything is made of it: a few lines in which each part refers twice to the next one are more
//! than any machine can do. Pure.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::keys;

/// Values in a schema, of whatever sort, and the bytes of all its texts.
const MOST_VALUES: usize = 10_000;
const MOST_BYTES: usize = 64 << 10;
/// References, and patterns: each of these may take a megabyte.
const MOST_REFERENCES: usize = 256;
const MOST_PATTERNS: usize = 64;
/// Schemas that look at one value, when every reference and every alternative is followed.
const MOST_EXPANDED: u64 = 10_000;
/// Schemas within schemas, references followed.
const DEEPEST: usize = 64;
/// A schema that refers to itself is followed into a value so deep; deeper values are not looked at.
pub const LEVELS: usize = 8;

/// Why a schema is too much: its sheer size.
pub fn too_large(schema: &Value) -> Option<String> {
    let mut sum = Sum::default();
    sum.add(schema, 0);
    let (what, most) = match sum {
        Sum { values, .. } if values > MOST_VALUES => ("values", MOST_VALUES),
        Sum { bytes, .. } if bytes > MOST_BYTES => ("bytes of text", MOST_BYTES),
        Sum { references, .. } if references > MOST_REFERENCES => ("references", MOST_REFERENCES),
        Sum { patterns, .. } if patterns > MOST_PATTERNS => ("patterns", MOST_PATTERNS),
        Sum { deepest, .. } if deepest > DEEPEST => ("levels", DEEPEST),
        _ => return None,
    };
    Some(format!("it has more than {most} {what}"))
}

/// Why a schema that is not too large is more work than its size tells.
pub fn too_much(schema: &Value) -> Option<String> {
    let inside = schema.as_object().into_iter().flat_map(Map::values);
    let nested = inside.into_iter().any(keys::has_identity);
    let mut weigh = Weigh { root: schema, nested, named: keys::has_identity(schema), known: HashMap::new() };
    weigh.all(schema, LEVELS, 0).err().map(str::to_owned)
}

/// How deep a value is.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[derive(Default)]
struct Sum {
    values: usize,
    bytes: usize,
    references: usize,
    patterns: usize,
    deepest: usize,
}

impl Sum {
    fn add(&mut self, value: &Value, level: usize) {
        self.values += 1;
        self.deepest = self.deepest.max(level);
        if self.values > MOST_VALUES || level > DEEPEST {
            return;
        }
        match value {
            Value::String(text) => self.bytes += text.len(),
            Value::Array(items) => items.iter().for_each(|item| self.add(item, level + 1)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.bytes += key.len();
                    match key.as_str() {
                        "$ref" | "$dynamicRef" | "$recursiveRef" => self.references += 1,
                        "pattern" => self.patterns += 1,
                        "patternProperties" => self.patterns += value.as_object().map_or(0, Map::len),
                        _ => {}
                    }
                    self.add(value, level + 1);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// What is known of one part, for a value of one depth.
#[derive(Clone, Copy)]
enum Known {
    /// It is being looked at: whoever comes back to it goes round in a circle.
    Begun,
    /// How many schemas it stands for, and how deep they are within each other.
    Done(u64, usize),
}

struct Weigh<'a> {
    root: &'a Value,
    /// A part has an identity: a reference in it may mean another part than the one that is found here.
    nested: bool,
    /// The whole or a part has one: references may go by it.
    named: bool,
    known: HashMap<(*const Value, usize), Known>,
}

const TOO_MUCH: &str = "its references and alternatives come to more than 10000 schemas";
const TOO_DEEP: &str = "its references lead through more than 64 schemas";
const CIRCLE: &str = "a part of it refers to itself without end";
const UNCLEAR: &str = "it has an `$id`, and references that cannot be followed because of it";

impl<'a> Weigh<'a> {
    /// The weight of a part for values of so many levels, and its height.
    fn all(&mut self, schema: &'a Value, levels: usize, above: usize) -> Result<(u64, usize), &'static str> {
        let Value::Object(object) = schema else { return Ok((1, 1)) };
        if above > DEEPEST {
            return Err(TOO_DEEP);
        }
        let key = (std::ptr::from_ref(schema), levels);
        match self.known.get(&key) {
            Some(Known::Begun) => return Err(CIRCLE),
            Some(Known::Done(_, height)) if above + height > DEEPEST => return Err(TOO_DEEP),
            Some(Known::Done(weight, height)) => return Ok((*weight, *height)),
            None => drop(self.known.insert(key, Known::Begun)),
        }
        let (weight, height) = self.object(object, levels, above + 1)?;
        if weight > MOST_EXPANDED {
            return Err(TOO_MUCH);
        }
        self.known.insert(key, Known::Done(weight, height + 1));
        Ok((weight, height + 1))
    }

    fn object(
        &mut self,
        object: &'a Map<String, Value>,
        levels: usize,
        above: usize,
    ) -> Result<(u64, usize), &'static str> {
        let (mut here, mut below) = (Vec::new(), Vec::new());
        let mut weight: u64 = 1;
        for (keyword, value) in object {
            match keyword.as_str() {
                "$ref" | "$dynamicRef" | "$recursiveRef" => match value.as_str().and_then(|to| self.target(to)) {
                    Some(target) => here.push(target),
                    None if self.named => return Err(UNCLEAR),
                    // It leads nowhere, and then it is no schema; or to one that everybody knows.
                    None => weight += 1,
                },
                "allOf" | "anyOf" | "oneOf" => here.extend(value.as_array().into_iter().flatten()),
                "not" | "if" | "then" | "else" => here.push(value),
                "dependentSchemas" | "dependencies" => here.extend(value.as_object().into_iter().flat_map(Map::values)),
                "properties" | "patternProperties" => {
                    below.extend(value.as_object().into_iter().flat_map(Map::values));
                }
                "items" | "prefixItems" | "additionalItems" | "unevaluatedItems" | "contains" => match value {
                    Value::Array(many) => below.extend(many),
                    one => below.push(one),
                },
                "additionalProperties" | "unevaluatedProperties" | "propertyNames" => below.push(value),
                // Each name in a list may be one more mistake.
                _ => weight += value.as_array().map_or(0, |list| list.len() as u64),
            }
        }
        // What was not looked at is found by looking once more.
        let again = object.contains_key("unevaluatedProperties") || object.contains_key("unevaluatedItems");
        let times = if again { 2 } else { 1 };
        let mut height = 0;
        for schema in here {
            let (one, high) = self.all(schema, levels, above)?;
            weight = weight.saturating_add(one.saturating_mul(times));
            height = height.max(high);
        }
        if levels > 0 {
            for schema in below {
                let (one, _) = self.all(schema, levels - 1, above)?;
                weight = weight.saturating_add(one);
            }
        }
        Ok((weight, height))
    }

    fn target(&self, reference: &str) -> Option<&'a Value> {
        if self.nested { None } else { keys::target(self.root, reference) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(length: usize, part: impl Fn(Value) -> Value) -> Value {
        let mut defs = Map::new();
        for index in 0..length {
            defs.insert(format!("a{index}"), part(json!({ "$ref": format!("#/$defs/a{}", index + 1) })));
        }
        defs.insert(format!("a{length}"), json!({ "required": ["zzz"] }));
        json!({ "$defs": defs, "$ref": "#/$defs/a0" })
    }

    #[test]
    fn what_doubles_again_and_again_is_too_much() {
        for keyword in ["anyOf", "allOf", "oneOf"] {
            let doubles = chain(26, |next| json!({ keyword: [next, next] }));
            assert_eq!(too_large(&doubles), None);
            assert_eq!(too_much(&doubles).as_deref(), Some(TOO_MUCH), "{keyword}");
            assert_eq!(too_much(&chain(10, |next| json!({ keyword: [next, next] }))), None);
        }
        let below = chain(26, |next| json!({ "if": next, "then": next, "else": next }));
        assert_eq!(too_much(&below).as_deref(), Some(TOO_MUCH));
        let unevaluated = chain(26, |next| json!({ "allOf": [next], "unevaluatedProperties": false }));
        assert_eq!(too_much(&unevaluated).as_deref(), Some(TOO_MUCH));
        // By going down into the value as well.
        let tree = json!({ "properties": { "x": { "anyOf": [{ "$ref": "#" }, { "$ref": "#" }, { "$ref": "#" }, { "$ref": "#" }] } } });
        assert_eq!(too_much(&tree).as_deref(), Some(TOO_MUCH));
    }

    #[test]
    fn circles_long_ways_and_sheer_size_are_too_much() {
        let circle = json!({ "$defs": { "a": { "anyOf": [{ "$ref": "#/$defs/a" }] } }, "$ref": "#/$defs/a" });
        assert_eq!(too_much(&circle).as_deref(), Some(CIRCLE));
        assert_eq!(too_much(&json!({ "$ref": "#" })).as_deref(), Some(CIRCLE));
        assert_eq!(too_much(&chain(200, |next| json!({ "allOf": [next] }))).as_deref(), Some(TOO_DEEP));
        let hidden = json!({ "$id": "http://x/y", "allOf": [{ "$ref": "y#/z" }, { "$ref": "y#/z" }], "z": {} });
        assert_eq!(too_much(&hidden).as_deref(), Some(UNCLEAR));
        // Within a part with an identity, `#` is that part.
        let inner = json!({ "a": { "$id": "http://x/a", "allOf": [{ "$ref": "#/z" }, { "$ref": "#/z" }], "z": {} }, "z": {}, "$ref": "#/a" });
        assert_eq!(too_much(&inner).as_deref(), Some(UNCLEAR));
        let large = |schema: Value| too_large(&schema).expect("too large");
        assert_eq!(large(json!({ "required": vec!["a"; 20_000] })), "it has more than 10000 values");
        assert_eq!(large(json!({ "title": "x".repeat(70_000) })), "it has more than 65536 bytes of text");
        assert_eq!(large(json!({ "anyOf": vec![json!({ "$ref": "#/a" }); 300] })), "it has more than 256 references");
        assert_eq!(large(json!({ "anyOf": vec![json!({ "pattern": "a" }); 65] })), "it has more than 64 patterns");
        let deep = (0..100).fold(json!({}), |inner, _| json!({ "not": inner }));
        assert_eq!(large(deep), "it has more than 64 levels");
    }

    #[test]
    fn what_modules_declare_is_not() {
        for fine in [
            json!({}),
            json!(true),
            json!({ "type": "object", "properties": { "tags": { "type": "array", "items": { "type": "string" } } }, "required": ["tags"] }),
            // A tree of any depth.
            json!({ "$defs": { "n": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "$ref": "#/$defs/n" } },
                { "type": "object", "additionalProperties": { "$ref": "#/$defs/n" } }] } }, "$ref": "#/$defs/n" }),
            json!({ "$id": "http://x/y", "$defs": { "a": {} }, "properties": { "a": { "$ref": "#/$defs/a" } } }),
            json!({ "$ref": "http://json-schema.org/draft-07/schema#" }),
        ] {
            assert_eq!((too_large(&fine), too_much(&fine)), (None, None), "{fine}");
        }
    }
}
