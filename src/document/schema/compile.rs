//! From JSON Schema to rules. Keywords that are not known here are refused, so that no schema checks less than it says.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Checker, Field, KeyPattern, MapShape, Pattern, Rule, RuleId, Shape, UnsupportedSchema};

/// Keywords that say something to people or tools and check nothing here.
const SILENT: [&str; 13] = [
    "$schema",
    "$id",
    "$defs",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "errorMessage",
    "deprecated",
    "x-ignored",
    "readOnly",
    "$comment",
];

pub(super) fn compile(schema: &Value) -> Result<Checker, UnsupportedSchema> {
    let mut compiler = Compiler { schema, rules: Vec::new(), named: BTreeMap::new() };
    let root = compiler.rule(schema, "#")?;
    Ok(Checker { rules: compiler.rules, root })
}

struct Compiler<'a> {
    schema: &'a Value,
    rules: Vec<Rule>,
    /// Definitions that have a rule already (or are getting one: schemas may be recursive).
    named: BTreeMap<String, RuleId>,
}

type Object = Map<String, Value>;

impl Compiler<'_> {
    fn add(&mut self, rule: Rule) -> RuleId {
        self.rules.push(rule);
        self.rules.len() - 1
    }

    fn rule(&mut self, schema: &Value, at: &str) -> Result<RuleId, UnsupportedSchema> {
        let Value::Object(object) = schema else {
            return match schema {
                Value::Bool(true) => Ok(self.add(Rule { nullable: true, shape: Shape::Any, message: None })),
                _ => Err(refuse(at, "neither an object nor true")),
            };
        };
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            known(object, &["$ref"], at)?;
            return self.reference(reference, at);
        }
        let message = object.get("errorMessage").and_then(Value::as_str).map(str::to_owned);
        let (shape, nullable) = self.shape(object, at)?;
        // What is said of a list of words is said of each of them.
        if let (Shape::List { items, .. }, Some(sentence)) = (&shape, &message) {
            self.rules[*items].message.get_or_insert_with(|| sentence.clone());
        }
        Ok(self.add(Rule { nullable, shape, message }))
    }

    fn reference(&mut self, reference: &str, at: &str) -> Result<RuleId, UnsupportedSchema> {
        if let Some(id) = self.named.get(reference) {
            return Ok(*id);
        }
        let pointer = reference.strip_prefix('#').ok_or_else(|| refuse(at, "a $ref out of the schema"))?;
        let target = self.schema.pointer(pointer).ok_or_else(|| refuse(at, "a $ref to nothing"))?;
        let id = self.add(Rule { nullable: false, shape: Shape::Open, message: None });
        self.named.insert(reference.to_owned(), id);
        let made = self.rule(target, reference)?;
        if made <= id || made + 1 != self.rules.len() {
            return Err(refuse(at, "a $ref to a $ref"));
        }
        // The rule takes the reserved place, so that references made meanwhile hold.
        self.rules.swap(id, made);
        self.rules.truncate(made);
        Ok(id)
    }

    fn shape(&mut self, object: &Object, at: &str) -> Result<(Shape, bool), UnsupportedSchema> {
        if let Some(value) = object.get("const") {
            known(object, &["const", "type"], at)?;
            return Ok((Shape::Choice(vec![word(value, at)?]), false));
        }
        if let Some(values) = object.get("enum").and_then(Value::as_array) {
            known(object, &["enum", "type"], at)?;
            let nullable = values.iter().any(Value::is_null);
            let words = values.iter().filter(|value| !value.is_null()).map(|value| word(value, at));
            return Ok((Shape::Choice(words.collect::<Result<_, _>>()?), nullable));
        }
        if let Some(alternatives) = object.get("anyOf").or_else(|| object.get("oneOf")).and_then(Value::as_array) {
            known(object, &["anyOf", "oneOf"], at)?;
            return self.union(alternatives, at);
        }
        let mut types: Vec<&str> = match object.get("type") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err(refuse(at, "a type that is no name")),
        };
        let before = types.len();
        types.retain(|name| *name != "null");
        let nullable = types.len() != before;
        let shape = match types[..] {
            [] if before == 0 => {
                known(object, &[], at)?;
                return Ok((Shape::Any, true));
            }
            ["boolean"] => {
                known(object, &["type"], at)?;
                Shape::Bool
            }
            ["integer"] => {
                known(object, &["type", "minimum", "maximum"], at)?;
                let bound = |name| object.get(name).and_then(Value::as_i64).map(i128::from);
                Shape::Integer { min: bound("minimum"), max: bound("maximum") }
            }
            ["number"] => {
                known(object, &["type", "minimum", "maximum"], at)?;
                let bound = |name| object.get(name).and_then(Value::as_f64);
                Shape::Number { min: bound("minimum"), max: bound("maximum") }
            }
            ["string"] => {
                known(object, &["type", "pattern", "minLength", "maxLength"], at)?;
                let pattern = object.get("pattern").and_then(Value::as_str).map(|p| pattern(p, at)).transpose()?;
                Shape::Text { pattern, min: size(object, "minLength").unwrap_or(0), max: size(object, "maxLength") }
            }
            ["array"] => self.list(object, at)?,
            ["object"] => Shape::Map(self.map(object, at)?),
            _ => return Err(refuse(at, "several types at once")),
        };
        Ok((shape, nullable))
    }

    /// Alternatives. Those that are only words become one choice, and `null` makes the rest optional.
    fn union(&mut self, alternatives: &[Value], at: &str) -> Result<(Shape, bool), UnsupportedSchema> {
        let is_null = |schema: &&Value| schema.get("type").and_then(Value::as_str) == Some("null");
        let nullable = alternatives.iter().any(|schema| is_null(&schema));
        let rest: Vec<&Value> = alternatives.iter().filter(|schema| !is_null(schema)).collect();
        let words: Option<Vec<String>> =
            rest.iter().map(|schema| schema.get("const").and_then(Value::as_str).map(str::to_owned)).collect();
        if let Some(words) = words.filter(|words| !words.is_empty()) {
            return Ok((Shape::Choice(words), nullable));
        }
        let mut rules = Vec::new();
        for (index, schema) in rest.iter().enumerate() {
            rules.push(self.rule(schema, &format!("{at}/{index}"))?);
        }
        Ok((Shape::Union(rules), nullable))
    }

    fn list(&mut self, object: &Object, at: &str) -> Result<Shape, UnsupportedSchema> {
        known(object, &["type", "items", "minItems", "maxItems"], at)?;
        let items = self.rule(object.get("items").unwrap_or(&Value::Bool(true)), &format!("{at}/items"))?;
        Ok(Shape::List { items, min: size(object, "minItems").unwrap_or(0), max: size(object, "maxItems") })
    }

    fn map(&mut self, object: &Object, at: &str) -> Result<MapShape, UnsupportedSchema> {
        let allowed = [
            "type",
            "properties",
            "patternProperties",
            "additionalProperties",
            "required",
            "minProperties",
            "maxProperties",
        ];
        known(object, &allowed, at)?;
        let required: Vec<&str> =
            object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut shape = MapShape { min: size(object, "minProperties").unwrap_or(0), ..MapShape::default() };
        shape.max = size(object, "maxProperties");
        for (name, schema) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let rule = self.rule(schema, &format!("{at}/{name}"))?;
            shape.fields.push(Field { name: name.clone(), rule, required: required.contains(&name.as_str()) });
        }
        shape.fields.sort_by(|a, b| a.name.cmp(&b.name));
        for (key, schema) in object.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
            let ignored = schema.get("x-ignored").and_then(Value::as_bool).unwrap_or(false);
            let rule = self.rule(schema, &format!("{at}/{key}"))?;
            shape.patterns.push(KeyPattern { pattern: pattern(key, at)?, rule, ignored });
        }
        shape.others = match object.get("additionalProperties") {
            Some(Value::Bool(false)) => None,
            None => Some(self.rule(&Value::Bool(true), at)?),
            Some(schema) => Some(self.rule(schema, &format!("{at}/*"))?),
        };
        Ok(shape)
    }
}

fn known(object: &Object, allowed: &[&str], at: &str) -> Result<(), UnsupportedSchema> {
    match object.keys().find(|key| !allowed.contains(&key.as_str()) && !SILENT.contains(&key.as_str())) {
        Some(key) => Err(refuse(at, &format!("the keyword {key} is not checked here"))),
        None => Ok(()),
    }
}

fn size(object: &Object, name: &str) -> Option<usize> {
    object.get(name).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok())
}

fn word(value: &Value, at: &str) -> Result<String, UnsupportedSchema> {
    value.as_str().map(str::to_owned).ok_or_else(|| refuse(at, "a constant that is no string"))
}

fn pattern(source: &str, at: &str) -> Result<Pattern, UnsupportedSchema> {
    if cfg!(test) && regex::Regex::new(source).is_err() {
        return Err(refuse(at, "a pattern that is no regular expression"));
    }
    Ok(Pattern::new(source))
}

fn refuse(at: &str, what: &str) -> UnsupportedSchema {
    UnsupportedSchema { at: at.to_owned(), what: what.to_owned() }
}
