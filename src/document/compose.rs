//! Events of the YAML parser to located trees: one per document, within limits, with everything refused that would make
//! a document mean something else than it seems to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_yaml::granit_parser::{self, Event, Options, Parser, ScalarStyle, StrInput, Tag};

use super::node::{Key, Node, NodeKind};
use super::syntax::{self, Known};
use super::text::{Place, Text};
use crate::model::problem::{Code, Problem};

/// A manifest nests about eight deep; 64 leaves room for every use and keeps all recursion over trees shallow.
pub const MAX_DEPTH: usize = 64;

/// A manifest has about fifty nodes; the largest sensible one (a module with thousands of variables) stays below this.
pub const MAX_NODES: usize = 20_000;

/// Aliases save typing; a document that uses more of them than this is an attack ("billion laughs").
pub const MAX_ALIASES: usize = 1_000;

/// Nobody reads more problems of one document than this; a wrong file (a log, a picture) would have thousands.
pub const MAX_PROBLEMS: usize = 100;

/// One document of a file.
pub struct Composed {
    /// What could be read. With a syntax error it is what stood before the error.
    pub root: Option<Node>,
    /// From its first to its last node.
    pub place: Place,
    pub problems: Vec<Problem>,
}

/// Reads all documents of a text. A broken document does not hide what is wrong with the others.
///
/// `source` is as long as `text` and differs from it only where something had to be blanked.
pub fn compose(text: &Text, source: &str) -> Vec<Composed> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let first = text.first();
    let parser = Parser::new_from_str_with_options(&source[first..], options);
    Composer { text, first, parser, builder: Builder::default(), documents: Vec::new() }.run()
}

struct Composer<'a> {
    text: &'a Text,
    /// Length of the byte-order mark, which the parser does not see.
    first: usize,
    parser: Parser<'a, StrInput<'a>>,
    builder: Builder,
    documents: Vec<Composed>,
}

/// The document that is being built.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Frame>,
    nodes: usize,
    aliases: usize,
    anchors: BTreeMap<usize, Anchored>,
    problems: Vec<Problem>,
    start: Option<Place>,
    end: Place,
}

/// A collection whose end has not come yet.
struct Frame {
    start: Place,
    anchor: usize,
    /// The height of the tallest child, which counts when the whole is used through an alias.
    height: usize,
    nodes_before: usize,
    held: Held,
}

enum Held {
    Seq(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, merges: Vec<(Place, Node)> },
}

/// An anchored node with its price.
struct Anchored {
    node: Node,
    nodes: usize,
    height: usize,
}

/// Why a document is given up.
struct GiveUp;

impl Composer<'_> {
    fn run(mut self) -> Vec<Composed> {
        loop {
            match self.parser.next_event() {
                None => break,
                Some(Ok((Event::DocumentStart(..), span))) => {
                    self.builder = Builder::default();
                    self.builder.end = self.place(&span);
                }
                Some(Ok((Event::DocumentEnd, _))) => self.finish(),
                Some(Ok((Event::StreamEnd, _))) => break,
                Some(Ok((event, span))) => {
                    let place = self.place(&span);
                    let tag = span.tag_span().map(|tag| self.place(&tag));
                    if self.builder.event(event, place, tag, self.text).is_err() && !self.next_document() {
                        break;
                    }
                }
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().unwrap_or(0) + self.first;
                    let known =
                        Known { read: self.builder.end.end as usize, open: self.builder.open_bracket(self.text) };
                    self.builder.problems.push(syntax::explain(self.text, at, error.kind(), known));
                    if !self.next_document() {
                        break;
                    }
                }
            }
        }
        self.documents
    }

    fn place(&self, span: &granit_parser::Span) -> Place {
        let range = span.byte_range().unwrap_or(0..0);
        Place::new(range.start + self.first, range.end + self.first)
    }

    /// Gives the current document up and goes on with the next; `false` when there is none.
    fn next_document(&mut self) -> bool {
        self.finish();
        self.parser.proceed_next_document().unwrap_or(false)
    }

    fn finish(&mut self) {
        let mut builder = std::mem::take(&mut self.builder);
        builder.close_all(self.text);
        let start = builder.start.unwrap_or(builder.end);
        if builder.root.is_some() || !builder.problems.is_empty() {
            let place = start.to(builder.end);
            self.documents.push(Composed { root: builder.root, place, problems: builder.problems });
        }
    }
}

impl Builder {
    fn event(&mut self, event: Event<'_>, place: Place, tag_at: Option<Place>, text: &Text) -> Result<(), GiveUp> {
        self.start.get_or_insert(place);
        self.end = if place.end >= self.end.end { place } else { self.end };
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                let plain = self.is_plain(style, tag.as_deref(), tag_at, text);
                let node = Node { kind: NodeKind::Scalar { text: value.into(), plain }, place };
                self.count(1, 1, place, text)?;
                self.anchor(anchor, &node, 1, 1);
                self.put(node, 1, text);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.wants_tag("seq", tag.as_deref(), tag_at.unwrap_or(place), text);
                self.open(place, anchor, Held::Seq(Vec::new()), text)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.wants_tag("map", tag.as_deref(), tag_at.unwrap_or(place), text);
                self.open(place, anchor, Held::Map { entries: Vec::new(), key: None, merges: Vec::new() }, text)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place, text),
            Event::Alias(id) => self.alias(id, place, text)?,
            Event::UnresolvedAlias(name) => self.unknown_alias(&name, place, text),
            // Stream events are the composer's, comments and anchor events are switched off, and the enum may grow.
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, start: Place, anchor: usize, held: Held, text: &Text) -> Result<(), GiveUp> {
        let nodes_before = self.nodes;
        self.count(1, 1, start, text)?;
        self.open.push(Frame { start, anchor, height: 0, nodes_before, held });
        Ok(())
    }

    /// The innermost bracket that is still open.
    fn open_bracket(&self, text: &Text) -> Option<Place> {
        let start = self.open.last()?.start;
        let bracket = text.as_str().as_bytes().get(start.start as usize).copied();
        matches!(bracket, Some(b'[' | b'{')).then_some(Place { end: start.start + 1, ..start })
    }

    /// Makes a node of the innermost collection and puts it into the one around it.
    fn close(&mut self, end: Place, text: &Text) {
        let Some(frame) = self.open.pop() else { return };
        let kind = match frame.held {
            Held::Seq(items) => NodeKind::Seq(items),
            Held::Map { mut entries, merges, .. } => {
                self.refuse_duplicates(&mut entries, text);
                for (place, merged) in merges {
                    self.merge(&mut entries, place, merged, text);
                }
                NodeKind::Map(entries)
            }
        };
        // A block collection ends where its last child does; the parser's end event stands at the next token.
        let last = match &kind {
            NodeKind::Seq(items) => items.last().map(|node| node.place),
            NodeKind::Map(entries) => entries.last().map(|(key, node)| key.place.to(node.place)),
            NodeKind::Scalar { .. } => None,
        };
        let flow = end.end > end.start;
        let place = if flow { frame.start.to(end) } else { frame.start.to(last.unwrap_or(frame.start)) };
        let node = Node { kind, place };
        let height = frame.height + 1;
        self.anchor(frame.anchor, &node, self.nodes - frame.nodes_before, height);
        self.put(node, height, text);
    }

    /// After an error: closes what is open, so that what was read so far can be looked at.
    fn close_all(&mut self, text: &Text) {
        while !self.open.is_empty() {
            self.close(Place::default(), text);
        }
    }

    fn put(&mut self, node: Node, height: usize, text: &Text) {
        let problem = match self.open.last_mut() {
            None => {
                self.root = Some(node);
                None
            }
            Some(frame) => {
                frame.height = frame.height.max(height);
                match &mut frame.held {
                    Held::Seq(items) => {
                        items.push(node);
                        None
                    }
                    Held::Map { entries, key, merges } => match key.take() {
                        Some(name) if &*name.text == "<<" => {
                            merges.push((name.place, node));
                            None
                        }
                        Some(name) => {
                            entries.push((name, node));
                            None
                        }
                        None => {
                            let (name, problem) = into_key(node, text);
                            *key = Some(name);
                            problem
                        }
                    },
                }
            }
        };
        if let Some(problem) = problem {
            self.report(problem);
        }
    }

    fn anchor(&mut self, id: usize, node: &Node, nodes: usize, height: usize) {
        if id != 0 {
            self.anchors.insert(id, Anchored { node: node.clone(), nodes, height });
        }
    }

    fn alias(&mut self, id: usize, place: Place, text: &Text) -> Result<(), GiveUp> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            let message = format!("more than {MAX_ALIASES} aliases in one document");
            return self.give_up(Problem::error(Code::LimitExceeded, text.span(place), message));
        }
        let Some(anchored) = self.anchors.get(&id) else {
            let problem =
                Problem::error(Code::Syntax, text.span(place), "an alias inside the very value it stands for");
            return self.give_up(problem.label("this would contain itself"));
        };
        let (nodes, height) = (anchored.nodes, anchored.height);
        // The copy stands where the alias stands; what is inside it stays where it was written.
        let node = Node { kind: NodeKind::Seq(Vec::new()), place };
        self.count(nodes, height, place, text)?;
        let kind = self.anchors.get(&id).map(|anchored| anchored.node.kind.clone());
        self.put(Node { kind: kind.unwrap_or(node.kind), place }, height, text);
        Ok(())
    }

    fn unknown_alias(&mut self, name: &str, place: Place, text: &Text) {
        let message = format!("`*{name}` stands for an anchor `&{name}` that this document does not have before it");
        let problem = Problem::error(Code::Syntax, text.span(place), message)
            .label("no such anchor")
            .hint(format!("for the text itself, put it between quotes: \"*{name}\""));
        self.report(problem);
        self.nodes += 1;
        self.put(Node { kind: NodeKind::Scalar { text: "".into(), plain: false }, place }, 1, text);
    }

    /// Books nodes against the limits.
    fn count(&mut self, nodes: usize, height: usize, place: Place, text: &Text) -> Result<(), GiveUp> {
        self.nodes += nodes;
        let over = |message: String| Problem::error(Code::LimitExceeded, text.span(place), message);
        if self.nodes > MAX_NODES {
            let problem = over(format!("more than {MAX_NODES} values in one document"));
            return self.give_up(if nodes > 1 {
                problem.label("an alias counts with all that it stands for")
            } else {
                problem
            });
        }
        if self.open.len() + height > MAX_DEPTH {
            return self.give_up(over(format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    fn give_up(&mut self, problem: Problem) -> Result<(), GiveUp> {
        self.problems.push(problem);
        Err(GiveUp)
    }

    fn report(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// Whether the core schema decides what the scalar is; a tag overrules the quotes.
    fn is_plain(&mut self, style: ScalarStyle, tag: Option<&Tag>, at: Option<Place>, text: &Text) -> bool {
        let Some(tag) = tag else { return style == ScalarStyle::Plain };
        match tag.core_suffix() {
            Some("str") => false,
            Some("int" | "float" | "bool" | "null") => true,
            _ if tag.original() == "!" => false,
            _ => {
                self.refuse_tag(tag, at.unwrap_or(self.end), text);
                false
            }
        }
    }

    fn wants_tag(&mut self, wanted: &str, tag: Option<&Tag>, at: Place, text: &Text) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(wanted) && tag.original() != "!") {
            self.refuse_tag(tag, at, text);
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, at: Place, text: &Text) {
        let message = format!("the tag `{}` is not supported here", tag.original());
        let problem = Problem::error(Code::Syntax, text.span(at), message);
        self.report(problem.hint("remove it; text that begins with ! needs quotes"));
    }

    /// Readers of YAML disagree on which of two equal keys counts, so none does. The first stays, to be looked at further.
    fn refuse_duplicates(&mut self, entries: &mut Vec<(Key, Node)>, text: &Text) {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by(|a, b| entries[*a].0.text.cmp(&entries[*b].0.text).then(a.cmp(b)));
        let mut doubles = Vec::new();
        let mut first = order.first().copied().unwrap_or(0);
        for &index in order.iter().skip(1) {
            if entries[index].0.text == entries[first].0.text {
                doubles.push((index, first));
            } else {
                first = index;
            }
        }
        doubles.sort_unstable();
        for (index, first) in &doubles {
            let (again, before) = (&entries[*index].0, &entries[*first].0);
            let message = format!("the key `{}` stands twice in one mapping", shortened(&again.text));
            let problem = Problem::error(Code::DuplicateKey, text.span(again.place), message)
                .label("again here")
                .also(text.span(before.place), "first here")
                .hint("keep one of them; two values for one key have no agreed meaning");
            self.report(problem);
        }
        for (index, _) in doubles.iter().rev() {
            entries.remove(*index);
        }
    }

    /// `<<: *defaults`: entries that are not there yet. What stands in the mapping itself wins, earlier sources before later.
    fn merge(&mut self, entries: &mut Vec<(Key, Node)>, at: Place, merged: Node, text: &Text) {
        let sources = match merged.kind {
            NodeKind::Seq(items) => items,
            kind => vec![Node { kind, place: merged.place }],
        };
        for source in sources {
            let NodeKind::Map(more) = source.kind else {
                let message = "`<<` takes a mapping, or a list of mappings, to merge in";
                let problem = Problem::error(Code::WrongType, text.span(source.place), message);
                self.report(problem.also(text.span(at), "merged in here"));
                continue;
            };
            for (key, value) in more {
                if !entries.iter().any(|(there, _)| there.text == key.text) {
                    entries.push((key, value));
                }
            }
        }
    }
}

/// Takes a node as a key. Lists and mappings are no keys; the value is still looked at.
fn into_key(node: Node, text: &Text) -> (Key, Option<Problem>) {
    let place = node.place;
    match node.kind {
        NodeKind::Scalar { text: name, .. } if !name.is_empty() => (Key { text: name, place }, None),
        NodeKind::Scalar { .. } => {
            let problem = Problem::error(Code::Syntax, text.span(place), "a key is missing before `:`");
            (Key { text: "".into(), place }, Some(problem))
        }
        NodeKind::Seq(_) | NodeKind::Map(_) => {
            let problem = Problem::error(Code::Syntax, text.span(place), "a key must be text, not a list or a mapping")
                .hint("text that begins with [ or { needs quotes; templates such as {{ name }} are not filled in");
            (Key { text: "".into(), place }, Some(problem))
        }
    }
}

/// A text for a message: not longer than a line can show, without line breaks.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 40;
    if text.len() <= LONGEST && !text.contains(['\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let mut short: String =
        text.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    Cow::Owned(short)
}
