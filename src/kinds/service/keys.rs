//! Which keys of a value a JSON Schema speaks of. A schema that does not close an object lets every other key through; here such a key is
//! a slip that somebody should hear of. In doubt (a reference that leads nowhere, a pattern that cannot be read) a key counts as known.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value};

/// How the outermost object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `additionalProperties` lets keys through when it stands there.
    AsDeclared,
    /// Only keys that are named count.
    Strict,
}

/// A key that the schema does not speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where its object stands in the value, as JSON pointer; empty for the value itself.
    pub parent: String,
    pub key: String,
    /// The keys that the schema names there.
    pub known: Vec<String>,
}

/// References and alternatives are followed so far; a schema with more is no longer judged.
const MOST_SCHEMAS: usize = 10_000;
/// More strays say no more.
const MOST_STRAYS: usize = 64;

type Object = Map<String, Value>;

/// The keys of the outermost object that the schema names, in its order.
pub fn named(schema: &Value) -> Vec<&str> {
    let walk = Walk::new(schema);
    names(&walk.all([schema]))
}

/// Every key of the value, at any depth, that the schema does not speak of.
pub fn unknown(schema: &Value, value: &Value, root: Root) -> Vec<Stray> {
    let walk = Walk::new(schema);
    let mut strays = Vec::new();
    walk.value(&walk.all([schema]), value, "", root, &mut strays);
    strays
}

fn names<'a>(reach: &Reach<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    let all = reach.objects.iter().filter_map(|object| object.get("properties")?.as_object());
    for name in all.flat_map(|properties| properties.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

struct Walk<'a> {
    root: &'a Value,
    /// It has schemas with an identity of their own inside, which references may mean.
    nested: bool,
}

/// All schemas that may have a say at one place.
struct Reach<'a> {
    objects: Vec<&'a Object>,
    /// One of them could not be found.
    open: bool,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Value) -> Self {
        let inside = root.as_object().into_iter().flat_map(|object| object.values());
        Self { root, nested: inside.into_iter().any(has_identity) }
    }

    /// Follows references, and whatever combines schemas.
    fn all(&self, seeds: impl IntoIterator<Item = &'a Value>) -> Reach<'a> {
        let mut reach = Reach { objects: Vec::new(), open: false };
        let mut seen: BTreeSet<*const Object> = BTreeSet::new();
        let mut next: Vec<&'a Value> = seeds.into_iter().collect();
        next.reverse();
        while let Some(schema) = next.pop() {
            let Value::Object(object) = schema else { continue };
            if !seen.insert(std::ptr::from_ref(object)) {
                continue;
            }
            if seen.len() > MOST_SCHEMAS {
                reach.open = true;
                break;
            }
            reach.objects.push(object);
            for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
                let Some(reference) = object.get(keyword) else { continue };
                match reference.as_str().and_then(|reference| self.target(reference)) {
                    Some(target) => next.push(target),
                    None => reach.open = true,
                }
            }
            for keyword in ["allOf", "anyOf", "oneOf"] {
                next.extend(object.get(keyword).and_then(Value::as_array).into_iter().flatten());
            }
            next.extend(["if", "then", "else"].into_iter().filter_map(|keyword| object.get(keyword)));
            for keyword in ["dependentSchemas", "dependencies"] {
                next.extend(object.get(keyword).and_then(Value::as_object).into_iter().flat_map(Map::values));
            }
        }
        reach
    }

    fn target(&self, reference: &str) -> Option<&'a Value> {
        if self.nested { None } else { target(self.root, reference) }
    }

    fn value(&self, reach: &Reach<'a>, value: &Value, at: &str, root: Root, strays: &mut Vec<Stray>) {
        if reach.open || reach.objects.is_empty() {
            return;
        }
        match value {
            Value::Object(entries) => self.entries(reach, entries, at, root, strays),
            Value::Array(items) => {
                let schemas: Vec<&'a Value> = reach.objects.iter().flat_map(|object| item_schemas(object)).collect();
                let inner = self.all(schemas);
                for (index, item) in items.iter().enumerate() {
                    self.value(&inner, item, &format!("{at}/{index}"), Root::AsDeclared, strays);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn entries(&self, reach: &Reach<'a>, entries: &Object, at: &str, root: Root, strays: &mut Vec<Stray>) {
        const SPEAK: [&str; 5] =
            ["properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"];
        if !reach.objects.iter().any(|object| SPEAK.iter().any(|keyword| object.contains_key(*keyword))) {
            return;
        }
        for (key, value) in entries {
            let mut schemas = Vec::new();
            let mut known = false;
            for object in &reach.objects {
                let before = schemas.len();
                schemas.extend(object.get("properties").and_then(|properties| properties.get(key)));
                let patterns = object.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
                schemas.extend(patterns.filter(|(pattern, _)| fits(pattern, key)).map(|(_, schema)| schema));
                known |= schemas.len() > before;
                if schemas.len() > before {
                    continue;
                }
                for keyword in ["additionalProperties", "unevaluatedProperties"] {
                    let others = object.get(keyword).filter(|others| **others != Value::Bool(false));
                    known |= others.is_some() && root == Root::AsDeclared;
                    schemas.extend(others);
                }
                known |= object.contains_key("propertyNames") && root == Root::AsDeclared;
            }
            if known {
                let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                self.value(&self.all(schemas), value, &path, Root::AsDeclared, strays);
            } else if strays.len() < MOST_STRAYS {
                let known = names(reach).into_iter().map(str::to_owned).collect();
                strays.push(Stray { parent: at.to_owned(), key: key.clone(), known });
            }
        }
    }
}

/// Where a reference within a schema leads, when no part of it has an identity of its own.
pub(super) fn target<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let fragment = unescaped(reference.strip_prefix('#')?)?;
    match fragment.is_empty() || fragment.starts_with('/') {
        true => root.pointer(&fragment),
        false => anchored(root, &fragment),
    }
}

/// The schemas of a list's items.
fn item_schemas(object: &Object) -> Vec<&Value> {
    let mut schemas = Vec::new();
    for keyword in ["items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"] {
        match object.get(keyword) {
            Some(Value::Array(many)) => schemas.extend(many),
            Some(one) => schemas.push(one),
            None => {}
        }
    }
    schemas
}

fn fits(pattern: &str, key: &str) -> bool {
    Regex::new(pattern).map_or(true, |pattern| pattern.is_match(key))
}

/// Whether some part of it has an identity: references may be relative to that.
pub(super) fn has_identity(value: &Value) -> bool {
    match value {
        Value::Object(object) => {
            object.get("$id").or_else(|| object.get("id")).is_some_and(Value::is_string)
                || object.values().any(has_identity)
        }
        Value::Array(items) => items.iter().any(has_identity),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn anchored<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => {
            let named = |keyword: &str| object.get(keyword).and_then(Value::as_str) == Some(name);
            if named("$anchor") || named("$dynamicAnchor") {
                return Some(value);
            }
            object.values().find_map(|inner| anchored(inner, name))
        }
        Value::Array(items) => items.iter().find_map(|inner| anchored(inner, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Takes percent-encoding out of a fragment.
fn unescaped(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, ..]) => {
                let digits =
                    std::str::from_utf8(&[*high, *low]).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
                bytes.push(digits?);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}
