//! A JSON Schema made ready to check located trees: one walk converts to JSON and says everything that is wrong, with the
//! exact place and in words. The schema stays the only description of what is allowed; what it says by errorMessage,
//! title and description is what people read.

mod check;
mod compile;
mod words;

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use super::node::Node;
use super::text::Text;
use crate::model::problem::Problem;

/// A schema uses something that the checker does not know. Only our own schemas come here, so this is a mistake of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema at {at}: {what}")]
pub struct UnsupportedSchema {
    at: String,
    what: String,
}

/// Checks and converts values by one schema.
#[derive(Debug)]
pub struct Checker {
    rules: Vec<Rule>,
    root: RuleId,
}

impl Checker {
    /// Makes a schema (draft 2020-12, the subset that schemars writes) ready.
    ///
    /// # Errors
    /// [`UnsupportedSchema`] when it uses a keyword that would otherwise silently check nothing.
    pub fn new(schema: &Value) -> Result<Self, UnsupportedSchema> {
        compile::compile(schema)
    }

    /// Converts a tree to JSON as the schema wants it. Plain text where a string is wanted is taken as it is written
    /// (`no`, `1.10`), an optional field without a value counts as not given, and fields marked as ignored are left out.
    ///
    /// Every mistake goes to `problems`; with none of them the answer is `Some`, and valid.
    pub fn check(&self, text: &Text, node: &Node, problems: &mut Vec<Problem>) -> Option<Value> {
        check::Walk::new(self, text, problems).document(node)
    }
}

type RuleId = usize;

/// What is allowed at one place.
#[derive(Debug)]
struct Rule {
    nullable: bool,
    shape: Shape,
    /// A sentence that says what is allowed, better than any keyword could.
    message: Option<String>,
}

#[derive(Debug)]
enum Shape {
    Any,
    Bool,
    Integer {
        min: Option<i128>,
        max: Option<i128>,
    },
    Number {
        min: Option<f64>,
        max: Option<f64>,
    },
    Text {
        pattern: Option<Pattern>,
        min: usize,
        max: Option<usize>,
    },
    Choice(Vec<String>),
    List {
        items: RuleId,
        min: usize,
        max: Option<usize>,
    },
    Map(MapShape),
    Union(Vec<RuleId>),
    /// Stands for a rule that is still being compiled; never met afterwards.
    Open,
}

#[derive(Debug, Default)]
struct MapShape {
    /// Sorted by name.
    fields: Vec<Field>,
    /// Rules for keys by pattern.
    patterns: Vec<KeyPattern>,
    /// The rule for all other keys; `None` refuses them.
    others: Option<RuleId>,
    min: usize,
    max: Option<usize>,
}

#[derive(Debug)]
struct Field {
    name: String,
    rule: RuleId,
    required: bool,
}

#[derive(Debug)]
struct KeyPattern {
    pattern: Pattern,
    rule: RuleId,
    /// Keys of this pattern are free for people's own use and are left out of the JSON.
    ignored: bool,
}

impl MapShape {
    fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok().map(|at| &self.fields[at])
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }
}

/// A regular expression that is compiled when it is first needed: most runs need few of them.
#[derive(Debug)]
struct Pattern {
    source: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(source: &str) -> Self {
        Self { source: source.to_owned(), compiled: OnceLock::new() }
    }

    /// A pattern that is no regular expression matches nothing; [`Checker::new`] refuses such schemas in tests.
    fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.source).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}
