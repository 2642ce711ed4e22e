//! What a module accepts, by a JSON Schema that it declared: any draft, broken ones included. Says what is wrong with a value where it
//! stands in its document. Pure: nothing that a schema refers to is fetched.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::keys::{self, Root};
use super::weight;
use crate::document::Document;
use crate::document::near::{listed, nearest};
use crate::model::problem::{Code, Problem};

/// More mistakes in one value are not told one by one.
const MOST_PROBLEMS: usize = 16;
/// Alternatives within alternatives are followed so deep.
const DEEPEST: usize = 4;
/// More names than this are no longer read as an answer.
const MOST_NAMES: usize = 12;
/// A longer value is not shown whole.
const LONGEST_VALUE: usize = 40;
/// A pattern of a module may take so many steps back, and so much memory, before it counts as not matching.
const BACKTRACKS: usize = 100_000;
const PATTERN_BYTES: usize = 1 << 20;

/// What a vault's triggers can look at, for vaults that declare nothing better.
static VAULT_FILTER: LazyLock<Accepts> = LazyLock::new(|| {
    let strings = json!({ "type": "array", "items": { "type": "string", "minLength": 1 } });
    Accepts::new(json!({
        "type": "object",
        "properties": {
            "tags": strings, "has_metadata": strings, "missing_metadata": strings,
            "has_content": { "type": "boolean" },
            "metadata": { "type": "object", "additionalProperties": { "type": "object", "minProperties": 1 } },
        },
    }))
});

/// A schema that a module declared, made ready when it is first needed.
#[derive(Clone)]
pub struct Accepts(Arc<Inner>);

struct Inner {
    schema: Value,
    /// Why it is too large to be looked at.
    too_large: OnceLock<Option<String>>,
    ready: OnceLock<Result<Validator, String>>,
}

/// What stands for a schema that nobody looks at: everything is let through.
static ANYTHING: Value = Value::Bool(true);

/// A panic while it is made ready leaves it as it was.
impl std::panic::RefUnwindSafe for Inner {}

impl Accepts {
    pub fn new(schema: Value) -> Self {
        Self(Arc::new(Inner { schema, too_large: OnceLock::new(), ready: OnceLock::new() }))
    }

    /// As it was declared.
    pub fn schema(&self) -> &Value {
        &self.0.schema
    }

    /// Why it is no schema, if it is none.
    pub fn fault(&self) -> Option<&str> {
        self.ready().as_ref().err().map(String::as_str)
    }

    /// The keys that it names, in its order.
    pub fn keys(&self) -> Vec<&str> {
        keys::named(self.names())
    }

    /// What its names are looked for in.
    fn names(&self) -> &Value {
        if self.too_large().is_some() { &ANYTHING } else { &self.0.schema }
    }

    fn too_large(&self) -> Option<&String> {
        self.0.too_large.get_or_init(|| weight::too_large(&self.0.schema)).as_ref()
    }

    fn ready(&self) -> &Result<Validator, String> {
        self.0.ready.get_or_init(|| {
            // A module wrote it. What is made of it below is as large as it comes to, and nothing there stops it.
            if let Some(why) = self.too_large().cloned().or_else(|| weight::too_much(&self.0.schema)) {
                return Err(why);
            }
            let patterns = jsonschema::PatternOptions::fancy_regex()
                .backtrack_limit(BACKTRACKS)
                .size_limit(PATTERN_BYTES)
                .dfa_size_limit(PATTERN_BYTES);
            let options = jsonschema::options().with_pattern_options(patterns).should_validate_formats(true);
            let made = options.offline().build(&self.0.schema);
            made.map_err(|error| brief(&error.to_string()).into_owned())
        })
    }
}

impl fmt::Debug for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accepts({})", self.0.schema)
    }
}

impl PartialEq for Accepts {
    fn eq(&self, other: &Self) -> bool {
        self.0.schema == other.0.schema
    }
}

impl Eq for Accepts {}

impl Serialize for Accepts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.schema.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Accepts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Value::deserialize(from).map(Self::new)
    }
}

impl JsonSchema for Accepts {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "JsonSchema".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}

/// A value in a document, for which a module declared a schema.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub document: &'a Document,
    /// Where it stands, as JSON pointer.
    pub pointer: &'a str,
    /// `None` when nothing is given there.
    pub value: Option<&'a Value>,
}

/// Checks a filter. A key that nobody names is an error whatever the schema lets through: the vault would ignore it, and so tell of more
/// than was asked. What names no key at all is completed with what every vault knows.
pub fn check_filter(schema: Option<&Accepts>, given: Given<'_>) -> Vec<Problem> {
    let sound = schema.filter(|schema| schema.fault().is_none());
    let names = sound.filter(|schema| !schema.keys().is_empty());
    let mut problems = check(names.unwrap_or(&VAULT_FILTER), given, Root::Strict);
    if let (Some(sound), None) = (sound, names) {
        problems.extend(check(sound, given, Root::AsDeclared));
    }
    problems.truncate(MOST_PROBLEMS);
    problems
}

/// Checks the parameters of an action. Without a schema nobody can say what it takes, and that is told; of a broken one only the names
/// count.
pub fn check_params(schema: Option<&Accepts>, given: Given<'_>) -> Vec<Problem> {
    if let Some(schema) = schema {
        return check(schema, given, Root::AsDeclared);
    }
    let params = given.value.and_then(Value::as_object).into_iter().flat_map(|params| params.keys());
    let unknown = |key: &String| {
        let at = given.document.key_at(&format!("{}/{}", given.pointer, escaped(key)));
        let message = format!("{} has the parameter `{key}`, and the action declares none", dotted(given.pointer));
        let hint = "its module has no `inputSchema`, so nobody can say whether it takes it";
        Problem::error(Code::UnknownField, at, message).warning().hint(hint)
    };
    params.take(MOST_PROBLEMS).map(unknown).collect()
}

fn check(schema: &Accepts, given: Given<'_>, root: Root) -> Vec<Problem> {
    let nothing = Value::Object(serde_json::Map::new());
    let value = given.value.unwrap_or(&nothing);
    let mut problems = Vec::new();
    let unknown = keys::unknown(schema.names(), value, root);
    for stray in unknown.iter().take(MOST_PROBLEMS) {
        let inside = format!("{}{}", given.pointer, stray.parent);
        let at = given.document.key_at(&format!("{inside}/{}", escaped(&stray.key)));
        let message = format!("{} has no field `{}`", dotted(&inside), brief(&stray.key));
        let names = stray.known.iter().map(String::as_str);
        let problem = Problem::error(Code::UnknownField, at, message);
        problems.push(match nearest(&stray.key, names.clone()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None if stray.known.is_empty() => problem.hint("none is declared for it; remove it"),
            None => problem.hint(format!("what is declared is {}", listed(names, "and", MOST_NAMES))),
        });
    }
    if weight::depth(value) > weight::LEVELS {
        let message = format!("{} has more than {} levels", dotted(given.pointer), weight::LEVELS);
        problems.push(Problem::error(Code::OutOfRange, given.document.value_at(given.pointer), message));
    } else if let Ok(validator) = schema.ready()
        // All mistakes are made before the first one is told.
        && !validator.is_valid(value)
    {
        for error in validator.iter_errors(value).take(MOST_PROBLEMS) {
            say(&error, given, !unknown.is_empty(), 0, &mut problems);
        }
    }
    problems.sort_by_key(|problem| problem.span().start);
    problems.truncate(MOST_PROBLEMS);
    problems
}

/// One mistake that the validator found, in our words.
fn say(error: &ValidationError<'_>, given: Given<'_>, strays: bool, depth: usize, problems: &mut Vec<Problem>) {
    use ValidationErrorKind as Kind;
    let pointer = format!("{}{}", given.pointer, error.instance_path().as_str());
    let name = dotted(&pointer);
    let found = found(error.instance());
    let must = |what: String| format!("{name} must be {what}, not {found}");
    let (code, message, hint) = match error.kind() {
        // They were told with a better hint.
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } if strays => return,
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            let wrong_type = |error: &ValidationError<'_>, at: &str| {
                matches!(error.kind(), Kind::Type { .. }) && error.instance_path().as_str() == at
            };
            let here = error.instance_path().as_str();
            let mut fitting = context.iter().filter(|errors| !errors.iter().any(|inner| wrong_type(inner, here)));
            if let (Some(only), None, true) = (fitting.next(), fitting.next(), depth < DEEPEST) {
                return only.iter().for_each(|inner| say(inner, given, strays, depth + 1, problems));
            }
            (Code::OutOfRange, format!("{name} cannot be {found}: it fits none of the declared alternatives"), None)
        }
        Kind::Type { kind } => {
            let wanted: Vec<String> = match kind {
                TypeKind::Single(one) => vec![noun(&one.to_string())],
                TypeKind::Multiple(many) => many.iter().map(|one| noun(&one.to_string())).collect(),
            };
            let hint = match (error.instance(), &wanted[..]) {
                (Cow::Borrowed(Value::String(text)) | Cow::Owned(Value::String(text)), [one]) if one == "a list" => {
                    Some(format!("write it as a list: `[{}]`", brief(text)))
                }
                _ => None,
            };
            (Code::WrongType, must(wanted.join(" or ")), hint)
        }
        Kind::Enum { options } => {
            let words: Vec<String> = options.as_array().into_iter().flatten().map(plain).collect();
            let near = error.instance().as_str().and_then(|text| nearest(text, words.iter().map(String::as_str)));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let words = listed(words.iter().map(String::as_str), "or", MOST_NAMES);
            (Code::OutOfRange, must(words), hint)
        }
        Kind::Constant { expected_value } => (Code::OutOfRange, must(format!("`{}`", plain(expected_value))), None),
        Kind::Required { property } => {
            let field = plain(property);
            (Code::MissingField, format!("{name} needs the field `{field}`"), Some(format!("add `{field}: ...`")))
        }
        Kind::Pattern { pattern } => (Code::OutOfRange, must(format!("text of the form {}", brief(pattern))), None),
        _ => {
            // The library's own words; they begin with the value.
            let words = error.masked_with("the value").to_string();
            (Code::OutOfRange, format!("{name} cannot be {found}: {}", brief(&words)), None)
        }
    };
    let at = given.document.value_at(&pointer);
    let problem = Problem::error(code, at, message);
    problems.push(match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    });
}

fn noun(kind: &str) -> String {
    match kind {
        "array" => "a list",
        "object" => "a mapping",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a string",
        "null" => "nothing",
        other => other,
    }
    .to_owned()
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(text) => format!("the string `{}`", brief(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| brief(&value.to_string()).into_owned(), |text| brief(text).into_owned())
}

fn brief(text: &str) -> Cow<'_, str> {
    let longest = LONGEST_VALUE * 4;
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// `/spec/source/filter/tags/0` as people write it, between back quotes.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        match segment.bytes().all(|b| b.is_ascii_digit()) && !segment.is_empty() {
            true => path.push_str(&format!("[{segment}]")),
            false if path.is_empty() => path.push_str(&segment),
            false => path.push_str(&format!(".{segment}")),
        }
    }
    format!("`{}`", brief(&path))
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
