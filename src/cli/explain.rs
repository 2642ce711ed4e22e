//! `explain`: the fields of manifests from their schemas, and the codes of problems from their own words.

use std::fmt::Write as _;

use clap_complete::CompletionCandidate;
use serde_json::{Map, Value, json};

use super::args;
use super::exit::Failure;
use super::names::nearest;
use super::render::screen::Screen;
use super::render::show::write_data;
use super::render::style::{self, paint};
use super::schema::kind_schema;
use crate::model::condition::Reason;
use crate::model::exit::Exit;
use crate::model::id::KindName;
use crate::model::problem::Code;

/// Texts are broken at this width: two columns of it fit on a wide terminal.
const WIDTH: usize = 96;
/// References and alternatives are followed so deep; schemas that are made from types nest two or three.
const MAX_REFERENCES: usize = 8;

pub fn run(args: &args::Explain, screen: &mut Screen) -> Result<Exit, Failure> {
    let (text, data) = match args.what.as_deref() {
        None => overview(),
        Some(word) if is_code(word) => code(word)?,
        Some(word) if state(word).is_some() => state(word).unwrap_or_else(overview),
        Some(path) => field(path)?,
    };
    if screen.is_text() {
        screen.out(&text)
    } else {
        write_data(screen, &data)
    }
    Ok(Exit::Done)
}

fn overview() -> (String, Value) {
    let mut text = format!("{}\n", paint(style::STRONG, "KINDS"));
    let kinds = KindName::ALL.map(|kind| (kind.as_str(), described(&kind_schema(kind))));
    for (kind, about) in &kinds {
        paragraph(&mut text, &format!("  {kind:<9}"), about);
    }
    let _ = writeln!(text, "\n{}", paint(style::STRONG, "CODES OF PROBLEMS"));
    for code in Code::ALL {
        paragraph(&mut text, &format!("  {code}  "), &words(code.explain()));
    }
    text.push_str("\nA field: trueup explain service.readiness    A code: trueup explain E0102    A state: trueup explain CrashLoop\n");
    let kinds: Map<String, Value> = kinds.into_iter().map(|(kind, about)| (kind.to_owned(), json!(about))).collect();
    let codes: Map<String, Value> =
        Code::ALL.iter().map(|code| (code.to_string(), json!(words(code.explain())))).collect();
    (text, json!({"type": "explanation", "kinds": kinds, "codes": codes}))
}

/// States of resources that are no reasons: the types of condition, and what `get` makes of several.
const STATES: [(&str, &str); 6] = [
    (
        "Ready",
        "The resource is as its file asks, and works: a service answers its readiness probe, or has run for a second.",
    ),
    ("Reconciling", "Something is being done for it or waited for; it gets further by itself."),
    ("Stalled", "It cannot get further by itself, or only by slow retries: somebody must look. The message says why."),
    ("Drifted", "It was seen to differ from what was last applied, while its file did not change. It is put right."),
    ("Stopped", "A person stopped it for a while with 'trueup stop'; it runs again when the time is over."),
    ("Planned", "A step that 'trueup plan' shows and nobody has done yet."),
];

/// A state or reason, in any case.
fn state(word: &str) -> Option<(String, Value)> {
    let reasons = Reason::ALL.iter().map(|reason| (reason.as_str(), reason.explain()));
    let (name, about) = STATES.into_iter().chain(reasons).find(|(name, _)| name.eq_ignore_ascii_case(word))?;
    let about = words(about);
    let mut text = format!("{}\n\n", paint(style::STRONG, name));
    paragraph(&mut text, "  ", &about);
    Some((text, json!({"type": "explanation", "state": name, "description": about})))
}

/// What can be explained, for shell completion.
pub fn candidates() -> Vec<CompletionCandidate> {
    let kinds = KindName::ALL.into_iter().flat_map(|kind| {
        let word = kind.as_str().to_lowercase();
        let root = kind_schema(kind);
        let names = fields(&root, &resolved(&root, &root)).into_iter().map(|(name, _)| name);
        let under: Vec<String> = names.map(|name| format!("{word}.{name}")).collect();
        std::iter::once(word).chain(under)
    });
    let codes = Code::ALL.iter().map(ToString::to_string);
    let reasons = Reason::ALL.iter().map(ToString::to_string);
    let states = STATES.iter().map(|(name, _)| (*name).to_owned());
    kinds.chain(codes).chain(states).chain(reasons).map(CompletionCandidate::new).collect()
}

/// `E0102`, in any case: a letter and digits. No kind looks like that.
fn is_code(word: &str) -> bool {
    let digits = word.strip_prefix(['E', 'e', 'W', 'w']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn code(word: &str) -> Result<(String, Value), Failure> {
    let upper = word.to_ascii_uppercase();
    let Some(code) = Code::ALL.iter().find(|code| code.as_str() == upper) else {
        let failure = Failure::new(Exit::Usage, format!("there is no problem with the code '{word}'"));
        return Err(match nearest(&upper, Code::ALL.iter().map(|code| code.as_str())) {
            Some(near) => failure.hint(format!("did you mean '{near}'? 'trueup explain' lists all")),
            None => failure.hint("'trueup explain' lists all"),
        });
    };
    let about = words(code.explain());
    let name = format!("{code:?}");
    let mut text = format!("{}  {name}\n\n", paint(style::STRONG, code));
    paragraph(&mut text, "  ", &about);
    Ok((text, json!({"type": "explanation", "code": code.as_str(), "name": name, "description": about})))
}

/// A place in the schema of a kind.
struct Field {
    schema: Value,
    required: bool,
}

fn field(path: &str) -> Result<(String, Value), Failure> {
    let mut segments = path.split('.').filter(|segment| !segment.is_empty()).peekable();
    let word = segments.next().unwrap_or_default();
    let kind: KindName = word.parse().map_err(|_| {
        let failure = Failure::new(Exit::Usage, format!("'{word}' is neither a kind, a code nor a state"));
        match nearest(word, KindName::ALL.iter().map(|kind| kind.as_str())) {
            Some(near) => failure.hint(format!("did you mean '{}'?", near.to_lowercase())),
            None => failure.hint("'trueup explain' lists kinds and codes"),
        }
    })?;
    // `service.spec.port` is how kubectl users write it; the spec is where the fields are.
    segments.next_if_eq(&"spec");
    let root = kind_schema(kind);
    let mut here = Field { schema: resolved(&root, &root), required: false };
    let mut walked = kind.as_str().to_owned();
    for segment in segments {
        here = step(&root, &here, segment).map_err(|names| no_field(&walked, segment, &names))?;
        walked = format!("{walked}.{}", segment.trim_end_matches("[]"));
    }
    Ok(show(&root, &walked, &here))
}

fn no_field(walked: &str, segment: &str, names: &[String]) -> Failure {
    let failure = Failure::new(Exit::Usage, format!("{walked} has no field '{segment}'"));
    if names.is_empty() {
        return failure.hint("it has no fields");
    }
    match nearest(segment, names.iter().map(String::as_str)) {
        Some(near) => failure.hint(format!("did you mean '{near}'?")),
        None => failure.hint(format!("its fields are {}", names.join(", "))),
    }
}

/// One field further. Lists are passed through; any word is a key of a map.
fn step(root: &Value, from: &Field, segment: &str) -> Result<Field, Vec<String>> {
    let segment = segment.trim_end_matches("[]");
    let mut schema = from.schema.clone();
    for _ in 0..MAX_REFERENCES {
        match schema.get("items") {
            Some(items) => schema = resolved(root, items),
            None => break,
        }
    }
    let schema = object_among(root, &schema).unwrap_or(schema);
    let properties = schema.get("properties").and_then(Value::as_object);
    if let Some(next) = properties.and_then(|properties| properties.get(segment)) {
        return Ok(Field { schema: resolved(root, next), required: is_required(&schema, segment) });
    }
    if let Some(value) = map_value(&schema) {
        return Ok(Field { schema: resolved(root, value), required: false });
    }
    Err(properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default())
}

/// The alternative that has fields: of `true or { reason, until }` the second.
fn object_among(root: &Value, schema: &Value) -> Option<Value> {
    let alternatives = schema.get("anyOf")?.as_array()?;
    alternatives.iter().map(|one| resolved(root, one)).find(|one| one.get("properties").is_some())
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|one| one == name))
}

/// What the values of a map look like, when the schema is one of a map.
fn map_value(schema: &Value) -> Option<&Value> {
    let by_pattern = schema.get("patternProperties").and_then(Value::as_object).and_then(|all| all.values().next());
    by_pattern.or_else(|| schema.get("additionalProperties")).filter(|value| value.is_object())
}

/// The schema with references followed and `or null` taken away. What stands beside a reference wins over what it leads to.
fn resolved(root: &Value, schema: &Value) -> Value {
    let mut here = schema.clone();
    for _ in 0..MAX_REFERENCES {
        let Some(object) = here.as_object_mut() else { break };
        let target = match object.shift_remove("$ref") {
            Some(reference) => reference.as_str().and_then(|at| root.pointer(at.trim_start_matches('#'))).cloned(),
            None => only_alternative(object),
        };
        let Some(Value::Object(mut target)) = target else { break };
        target.extend(std::mem::take(object));
        here = Value::Object(target);
    }
    here
}

/// `anyOf: [X, null]` is an optional X: takes the alternatives away and gives X.
fn only_alternative(object: &mut Map<String, Value>) -> Option<Value> {
    let alternatives = object.get("anyOf")?.as_array()?;
    let real: Vec<&Value> = alternatives.iter().filter(|one| one["type"] != "null").collect();
    let [only] = real.as_slice() else { return None };
    let only = (*only).clone();
    object.shift_remove("anyOf");
    Some(only)
}

fn show(root: &Value, path: &str, field: &Field) -> (String, Value) {
    let schema = &field.schema;
    let kind = type_of(root, schema);
    let about = described(schema);
    let mut text = format!("{}  {}\n", paint(style::STRONG, path), paint(style::WAIT, format!("<{kind}>")));
    let mut data = json!({"type": "explanation", "path": path, "schemaType": kind, "description": about});
    if field.required {
        text.push_str("  required\n");
    }
    data["required"] = json!(field.required);
    if let Some(default) = default_of(schema) {
        let _ = writeln!(text, "  default: {default}");
        data["default"] = default.clone();
    }
    for limit in limits(schema) {
        let _ = writeln!(text, "  {limit}");
    }
    if !about.is_empty() {
        text.push('\n');
        paragraph(&mut text, "  ", &about);
    }
    let values = named_values(schema);
    if !values.is_empty() {
        let _ = writeln!(text, "\n{}", paint(style::STRONG, "VALUES"));
        for (value, about) in &values {
            paragraph(&mut text, &format!("  {value:<14}  "), about);
        }
        data["values"] = values.iter().map(|(value, _)| value.clone()).collect();
    }
    let fields = fields(root, schema);
    if !fields.is_empty() {
        let _ = writeln!(text, "\n{}", paint(style::STRONG, "FIELDS"));
        for (name, field) in &fields {
            let more = match default_of(&field.schema) {
                _ if field.required => ", required".to_owned(),
                Some(default) => format!(", default {default}"),
                None => String::new(),
            };
            let kind = paint(style::WAIT, format!("<{}{more}>", type_of(root, &field.schema)));
            let _ = writeln!(text, "  {}  {kind}", paint(style::STRONG, name));
            paragraph(&mut text, "      ", &described(&field.schema));
        }
        let listed = fields.iter().map(|(name, field)| {
            let schema = &field.schema;
            let kind = type_of(root, schema);
            let mut listed = json!({"name": name, "schemaType": kind, "required": field.required});
            listed["description"] = json!(described(schema));
            if let Some(default) = default_of(schema) {
                listed["default"] = default.clone();
            }
            listed
        });
        data["fields"] = listed.collect();
    }
    (text, data)
}

/// The default, if it says something: no value, and the defaults of a whole group that are shown at its fields, do not.
fn default_of(schema: &Value) -> Option<&Value> {
    schema.get("default").filter(|default| match default {
        Value::Null | Value::Object(_) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    })
}

fn fields(root: &Value, schema: &Value) -> Vec<(String, Field)> {
    let mut schema = schema.clone();
    for _ in 0..MAX_REFERENCES {
        let inner = schema.get("items").or_else(|| map_value(&schema));
        match inner {
            Some(inner) => schema = resolved(root, inner),
            None => break,
        }
    }
    let schema = object_among(root, &schema).unwrap_or(schema);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let field = |(name, inner): (&String, &Value)| {
        (name.clone(), Field { schema: resolved(root, inner), required: is_required(&schema, name) })
    };
    properties.iter().map(field).collect()
}

/// The limits that a schema states, in words.
fn limits(schema: &Value) -> Vec<String> {
    let words = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minItems", "entries: at least"),
        ("maxItems", "entries: at most"),
        ("minLength", "characters: at least"),
        ("maxLength", "characters: at most"),
        ("pattern", "must match"),
    ];
    let stated = words.iter().filter_map(|(key, word)| schema.get(key).map(|value| (word, value)));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut limits: Vec<String> = stated.map(|(word, value)| format!("{word} {}", text(value))).collect();
    if let Some(example) = schema.get("examples").and_then(|examples| examples.get(0)) {
        limits.push(format!("for example {}", text(example)));
    }
    limits
}

/// The values of an enumeration, with what each means.
fn named_values(schema: &Value) -> Vec<(String, String)> {
    let plain = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let plain = plain.filter_map(|value| Some((value.as_str()?.to_owned(), String::new())));
    let told = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let told = told.flat_map(|one| match one.get("const").and_then(Value::as_str) {
        Some(value) => vec![(value.to_owned(), described(one))],
        None => named_values(one),
    });
    plain.chain(told).collect()
}

/// The type in words: `string`, `list of string`, `map of object`, `integer or "auto"`.
fn type_of(root: &Value, schema: &Value) -> String {
    if let Some(items) = schema.get("items") {
        return format!("list of {}", type_of(root, &resolved(root, items)));
    }
    if schema.get("properties").is_none()
        && let Some(value) = map_value(schema)
    {
        return format!("map of {}", type_of(root, &resolved(root, value)));
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array) {
        let real = alternatives.iter().filter(|one| one["type"] != "null");
        return real.map(|one| type_of(root, &resolved(root, one))).collect::<Vec<_>>().join(" or ");
    }
    match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(" or ")
        }
        _ if !named_values(schema).is_empty() => "string".to_owned(),
        _ => "any".to_owned(),
    }
}

fn described(schema: &Value) -> String {
    words(schema.get("description").and_then(Value::as_str).unwrap_or_default())
}

/// A doc comment as one line of text.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text broken at the width; the first line begins with `lead`, the others are set in as far.
fn paragraph(to: &mut String, lead: &str, text: &str) {
    let indent = " ".repeat(lead.chars().count());
    let mut line = lead.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(to, "{}", line.trim_end());
            line = indent.clone();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    if !line.trim().is_empty() {
        let _ = writeln!(to, "{}", line.trim_end());
    }
}
