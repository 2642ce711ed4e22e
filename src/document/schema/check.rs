//! The walk over a tree by a schema.

use serde_json::{Map, Number, Value};

use super::super::compose::MAX_PROBLEMS;
use super::super::near::{listed, nearest};
use super::super::node::{Core, Key, Node, NodeKind, core};
use super::super::text::{Place, Text};
use super::{Checker, MapShape, RuleId, Shape, words};
use crate::model::problem::{Code, Problem};
use crate::model::span::Span;

/// More names than this are no longer read as an answer.
const MOST_NAMES: usize = 24;

pub(super) struct Walk<'a> {
    checker: &'a Checker,
    text: &'a Text,
    problems: &'a mut Vec<Problem>,
    path: Vec<Step<'a>>,
    /// The mappings that the walk is inside of, outermost first.
    around: Vec<&'a MapShape>,
    failed: bool,
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Walk<'a> {
    pub(super) fn new(checker: &'a Checker, text: &'a Text, problems: &'a mut Vec<Problem>) -> Self {
        Self { checker, text, problems, path: Vec::new(), around: Vec::new(), failed: false }
    }

    /// Checks the root; `None` when anything was wrong.
    pub(super) fn document(mut self, node: &'a Node) -> Option<Value> {
        let value = self.value(self.checker.root, node, node.begin());
        value.filter(|_| !self.failed)
    }

    /// Checks one value. `at` is the place to point at for what is missing: its key, where there is one.
    fn value(&mut self, rule: RuleId, node: &'a Node, at: Place) -> Option<Value> {
        let checker = self.checker;
        let rule_of = &checker.rules[rule];
        if rule_of.nullable && node.is_null() {
            return Some(Value::Null);
        }
        match (&rule_of.shape, &node.kind) {
            (Shape::Any | Shape::Open, _) => Some(free(node)),
            (Shape::Text { .. }, NodeKind::Scalar { text, .. }) if !node.is_null() => self.string(rule, node, text),
            (Shape::Choice(words), NodeKind::Scalar { text, .. }) if !node.is_null() => {
                self.choice(rule, node, words, text)
            }
            (Shape::Bool, NodeKind::Scalar { text, plain: true }) => match core(text) {
                Core::Bool(value) => Some(Value::Bool(value)),
                _ => self.wrong_type(rule, node),
            },
            (Shape::Integer { min, max }, NodeKind::Scalar { text, plain: true }) => match core(text) {
                Core::Integer(value) => self.integer(rule, node, value, *min, *max),
                // 5.0 is a whole number for JSON Schema; people who write 5.0 or 1e3 mean it.
                Core::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
                    self.integer(rule, node, value as i128, *min, *max)
                }
                _ => self.wrong_type(rule, node),
            },
            (Shape::Number { min, max }, NodeKind::Scalar { text, plain: true }) => {
                let value = match core(text) {
                    Core::Integer(value) => value as f64,
                    Core::Float(value) => value,
                    _ => return self.wrong_type(rule, node),
                };
                if min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max) {
                    return self.out_of_range(rule, node);
                }
                Number::from_f64(value).map(Value::Number)
            }
            (Shape::List { items, min, max }, NodeKind::Seq(nodes)) => {
                self.list(rule, node, nodes, (*items, *min, *max))
            }
            (Shape::Map(shape), NodeKind::Map(entries)) => self.map(rule, shape, entries, at),
            (Shape::Union(alternatives), _) => self.union(rule, alternatives, node, at),
            _ => self.wrong_type(rule, node),
        }
    }

    fn string(&mut self, rule: RuleId, node: &Node, text: &str) -> Option<Value> {
        let Shape::Text { pattern, min, max } = &self.checker.rules[rule].shape else { return None };
        let sized = *min > 0 || max.is_some();
        let length = if sized { text.chars().count() } else { 0 };
        let fits = length >= *min && max.is_none_or(|max| length <= max);
        if fits && pattern.as_ref().is_none_or(|pattern| pattern.matches(text)) {
            return Some(Value::String(text.to_owned()));
        }
        self.out_of_range(rule, node)
    }

    fn choice(&mut self, rule: RuleId, node: &Node, words: &[String], text: &str) -> Option<Value> {
        if words.iter().any(|word| word == text) {
            return Some(Value::String(text.to_owned()));
        }
        let mut problem = self.off_limits(rule, node);
        if let Some(near) = nearest(text, words.iter().map(String::as_str)) {
            problem = problem.hint(format!("did you mean `{near}`?"));
        }
        self.report(problem)
    }

    fn integer(
        &mut self,
        rule: RuleId,
        node: &Node,
        value: i128,
        min: Option<i128>,
        max: Option<i128>,
    ) -> Option<Value> {
        if min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max) {
            return self.out_of_range(rule, node);
        }
        let number = i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from));
        match number {
            Ok(number) => Some(Value::Number(number)),
            Err(_) => self.out_of_range(rule, node),
        }
    }

    fn list(
        &mut self,
        rule: RuleId,
        node: &Node,
        nodes: &'a [Node],
        wanted: (RuleId, usize, Option<usize>),
    ) -> Option<Value> {
        let (items, min, max) = wanted;
        let mut values = Vec::with_capacity(nodes.len());
        for (index, item) in nodes.iter().enumerate() {
            self.path.push(Step::Index(index));
            values.extend(self.value(items, item, item.begin()));
            self.path.pop();
        }
        if nodes.len() < min || max.is_some_and(|max| nodes.len() > max) {
            return self.out_of_range(rule, node);
        }
        Some(Value::Array(values))
    }

    fn map(&mut self, rule: RuleId, shape: &'a MapShape, entries: &'a [(Key, Node)], at: Place) -> Option<Value> {
        let mut map = Map::with_capacity(entries.len());
        self.around.push(shape);
        for (key, node) in entries {
            self.path.push(Step::Key(&key.text));
            if let Some(value) = self.entry(rule, shape, key, node) {
                map.insert(key.text.to_string(), value);
            }
            self.path.pop();
        }
        self.around.pop();
        for field in shape.fields.iter().filter(|field| field.required) {
            let there = entries.iter().find(|(key, _)| *key.text == *field.name);
            if there.is_none_or(|(_, node)| node.is_null()) {
                self.missing(rule, field.rule, &field.name, there.map_or(at, |(key, _)| key.place));
            }
        }
        if map.len() < shape.min || shape.max.is_some_and(|max| map.len() > max) {
            self.count_of_fields(shape, entries, &map, at);
        }
        Some(Value::Object(map))
    }

    /// One entry of a mapping; `None` when it is wrong, ignored, or given without a value.
    fn entry(&mut self, rule: RuleId, shape: &'a MapShape, key: &'a Key, node: &'a Node) -> Option<Value> {
        if let Some(field) = shape.field(&key.text) {
            // `env:` with everything below it commented out is the same as no `env` at all. What is required and
            // null is reported as missing.
            return if node.is_null() { None } else { self.value(field.rule, node, key.place) };
        }
        if let Some(pattern) = shape.patterns.iter().find(|pattern| pattern.pattern.matches(&key.text)) {
            return if pattern.ignored { None } else { self.value(pattern.rule, node, key.place) };
        }
        match shape.others {
            Some(others) => self.value(others, node, key.place),
            None => {
                self.unknown(rule, shape, key);
                None
            }
        }
    }

    /// The first alternative without a mistake; otherwise the mistakes of the one whose type fits, or one for all.
    fn union(&mut self, rule: RuleId, alternatives: &[RuleId], node: &'a Node, at: Place) -> Option<Value> {
        let (before, failed) = (self.problems.len(), self.failed);
        let mut fitting: Option<Vec<Problem>> = None;
        for &alternative in alternatives {
            self.failed = false;
            let value = self.value(alternative, node, at);
            let right = !std::mem::replace(&mut self.failed, failed);
            let mistakes = self.problems.split_off(before);
            if right {
                return value;
            }
            let typed =
                !mistakes.iter().any(|problem| problem.code == Code::WrongType && problem.span() == &self.here(node));
            if typed && fitting.is_none() {
                fitting = Some(mistakes);
            }
        }
        let described = self.checker.rules[rule].message.is_some();
        // A mapping where one is allowed: what is wrong in it says more than a sentence on all that is allowed.
        let inside = matches!(node.kind, NodeKind::Map(_));
        match fitting {
            Some(mistakes) if !described || inside => {
                self.failed = true;
                self.problems.extend(mistakes);
                None
            }
            _ if described && matches!(node.kind, NodeKind::Scalar { .. }) && !node.is_null() => {
                self.out_of_range(rule, node)
            }
            _ => self.wrong_type(rule, node),
        }
    }

    // From here on: what is said.

    fn here(&self, node: &Node) -> Span {
        self.text.span(node.place)
    }

    /// Always `None`, so that a check can end with its complaint.
    fn report(&mut self, problem: Problem) -> Option<Value> {
        self.failed = true;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
        None
    }

    /// The path as people write it: `spec.routes[0].path`.
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// "`spec.port`", or "the document" at the root.
    fn named(&self) -> String {
        if self.path.is_empty() { "the document".to_owned() } else { format!("`{}`", self.path()) }
    }

    fn wrong_type(&mut self, rule: RuleId, node: &Node) -> Option<Value> {
        let wanted = words::noun(self.checker, rule);
        let found = words::found(node);
        let message = format!("{} must be {wanted}, not {found}", self.named());
        let mut problem = Problem::error(Code::WrongType, self.here(node), message).label(format!("expected {wanted}"));
        let last = self.path.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(*key),
            Step::Index(_) => None,
        });
        if let Some(hint) = words::type_hint(self.checker, rule, node, last) {
            problem = problem.hint(hint);
        }
        self.report(problem)
    }

    fn out_of_range(&mut self, rule: RuleId, node: &Node) -> Option<Value> {
        let mut problem = self.off_limits(rule, node);
        if let Some(hint) = words::range_hint(self.checker, rule, node) {
            problem = problem.hint(hint);
        }
        self.report(problem)
    }

    fn off_limits(&self, rule: RuleId, node: &Node) -> Problem {
        let found = words::value(node);
        let message = match &self.checker.rules[rule].message {
            Some(sentence) => format!("{} cannot be {found}: {sentence}", self.named()),
            None => format!("{} must be {}, not {found}", self.named(), words::limits(self.checker, rule, node)),
        };
        Problem::error(Code::OutOfRange, self.here(node), message)
    }

    fn missing(&mut self, rule: RuleId, field: RuleId, name: &str, at: Place) {
        let message = match self.path.is_empty() {
            true => format!("the field `{name}` is missing"),
            false => format!("{} needs the field `{name}`", self.named()),
        };
        let problem = Problem::error(Code::MissingField, self.text.span(at), message)
            .label(format!("`{name}` is missing here"))
            .hint(words::missing_hint(self.checker, rule, field, name));
        self.report(problem);
    }

    fn count_of_fields(&mut self, shape: &MapShape, entries: &[(Key, Node)], given: &Map<String, Value>, at: Place) {
        let names = listed(shape.names(), "or", MOST_NAMES);
        let count = match (shape.min, shape.max) {
            (1, Some(1)) => "exactly one".to_owned(),
            (1, None) => "at least one".to_owned(),
            (0, Some(1)) => "at most one".to_owned(),
            (min, Some(max)) => format!("{min} to {max}"),
            (min, None) => format!("at least {min}"),
        };
        let of = if names.is_empty() { "entries".to_owned() } else { format!("of {names}") };
        let mut keys = entries.iter().map(|(key, _)| key).filter(|key| given.contains_key(&*key.text));
        let message = format!("{} needs {count} {of}", self.named());
        let problem = if given.len() < shape.min {
            // Where nothing usable was given because something unknown was, that one has been reported.
            if entries.iter().any(|(key, _)| shape.field(&key.text).is_none()) && shape.others.is_none() {
                return;
            }
            Problem::error(Code::Conflict, self.text.span(at), message).label("none of them is given")
        } else {
            let Some(first) = keys.next() else { return };
            let problem = Problem::error(Code::Conflict, self.text.span(first.place), message);
            let problem = problem.label(format!("`{}` is given here", first.text));
            keys.fold(problem, |problem, key| {
                problem.also(self.text.span(key.place), format!("and `{}` here", key.text))
            })
        };
        self.report(problem);
    }

    fn unknown(&mut self, rule: RuleId, shape: &MapShape, key: &'a Key) {
        // What is wrong is the mapping's, so its path is what is named.
        self.path.pop();
        let place = self.named();
        let refused_name = shape.fields.is_empty();
        let problem = if refused_name {
            let sentence = self.checker.rules[rule].message.clone();
            let message = match sentence {
                Some(sentence) => format!("`{}` cannot be a name in {place}: {sentence}", key.text),
                None => format!("`{}` cannot be a name in {place}", key.text),
            };
            let problem = Problem::error(Code::OutOfRange, self.text.span(key.place), message);
            let underscored = key.text.replace(['-', '.', ' '], "_");
            match shape.patterns.iter().any(|pattern| !pattern.ignored && pattern.pattern.matches(&underscored)) {
                true => problem.hint(format!("did you mean `{underscored}`?")),
                false => problem,
            }
        } else {
            let message = format!("{place} has no field `{}`", super::super::compose::shortened(&key.text));
            let problem = Problem::error(Code::UnknownField, self.text.span(key.place), message);
            problem.hint(self.unknown_hint(shape, &key.text))
        };
        self.report(problem);
        self.path.push(Step::Key(&key.text));
    }

    /// A near name here, the same name in a mapping inside or around this one, or all names.
    fn unknown_hint(&self, shape: &MapShape, name: &str) -> String {
        if let Some(near) = nearest(name, shape.names()) {
            return format!("did you mean `{near}`?");
        }
        let inside = shape
            .fields
            .iter()
            .find(|field| words::as_map(self.checker, field.rule).is_some_and(|inner| inner.field(name).is_some()));
        if let Some(field) = inside {
            return format!("`{name}` is a field of `{}`: indent it below that", field.name);
        }
        let path: Vec<&str> =
            self.path.iter().filter_map(|step| if let Step::Key(key) = step { Some(*key) } else { None }).collect();
        let outer = self.around.iter().rev().skip(1).position(|outer| outer.field(name).is_some());
        if let Some(levels) = outer {
            let keep = self.around.len().saturating_sub(levels + 2).min(path.len());
            let owner =
                if keep == 0 { "the document itself".to_owned() } else { format!("`{}`", path[..keep].join(".")) };
            return format!("`{name}` is a field of {owner}: indent it less");
        }
        let beside = self.around.iter().rev().skip(1).find_map(|outer| {
            outer.fields.iter().find(|f| words::as_map(self.checker, f.rule).is_some_and(|m| m.field(name).is_some()))
        });
        if let Some(field) = beside {
            return format!("`{name}` is a field of `{}`", field.name);
        }
        format!("its fields are {}", listed(shape.names(), "and", MOST_NAMES))
    }
}

/// Any value, by the core schema.
fn free(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Scalar { text, plain: false } => Value::String(text.to_string()),
        NodeKind::Scalar { text, plain: true } => match core(text) {
            Core::Null => Value::Null,
            Core::Bool(value) => Value::Bool(value),
            Core::Integer(value) => i64::try_from(value)
                .map(Value::from)
                .or_else(|_| u64::try_from(value).map(Value::from))
                .unwrap_or_else(|_| Value::String(text.to_string())),
            Core::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
            Core::Text => Value::String(text.to_string()),
        },
        NodeKind::Seq(nodes) => nodes.iter().map(free).collect(),
        NodeKind::Map(entries) => entries.iter().map(|(key, value)| (key.text.to_string(), free(value))).collect(),
    }
}
