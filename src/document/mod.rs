//! Text in, located documents out. Collects problems and never fails; knows no kind, no file system and no graph.

pub mod compose;
pub mod envelope;
pub mod near;
pub mod node;
pub mod schema;
pub mod text;

mod canonical;
mod raw;
mod syntax;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use self::compose::MAX_PROBLEMS;
use self::envelope::{Metadata, Read, Schemas};
use self::node::{Node, descend};
use self::text::{Place, Text};
use crate::model::digest::Digest;
use crate::model::id::{KindName, ResourceId};
use crate::model::problem::{Code, Problem};
use crate::model::source::SourceFile;
use crate::model::span::Span;

/// A manifest has a few hundred lines; a file beyond 1 MiB is something else, and would cost every tick.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// One resource as a file (or the ledger) has it: valid by its schema, not yet by its meaning.
#[derive(Debug)]
pub struct Document {
    pub id: ResourceId,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The whole document in canonical JSON: keys sorted, nothing optional that is null, no fields for free use.
    pub json: String,
    /// Where the document begins.
    pub origin: Span,
    /// The folder that relative paths in the document start from.
    pub folder: PathBuf,
    /// Where the spec begins in `json`; it goes on to the last brace.
    spec_at: usize,
    /// The file it came from; `None` for a document out of the ledger.
    source: Option<(Arc<Text>, Place)>,
}

/// An identity that could be read in a document that has errors, so that what it names can be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub id: ResourceId,
    /// Where its name stands.
    pub origin: Span,
    /// Where its first error is.
    pub at: Span,
    /// The message of that error.
    pub message: String,
}

/// All that was read of one file.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// In the order of the file.
    pub documents: Vec<Arc<Document>>,
    pub problems: Vec<Problem>,
    pub named: Vec<Named>,
}

/// Why a stored document cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    #[error("a stored document is no JSON of ours")]
    NotJson,
    #[error("a stored document has an apiVersion or kind that this version of trueup does not know")]
    Unknown,
}

/// Reads one file. Every mistake in it is in the answer; documents without one are usable.
pub fn parse(file: &SourceFile, schemas: &Schemas) -> Parsed {
    let mut parsed = Parsed::default();
    if file.text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
        let at = Span::file_start(Arc::clone(&file.shown));
        parsed
            .problems
            .push(Problem::error(Code::TooLarge, at, message).hint("split it, or move data to another file"));
        return parsed;
    }
    let text = Arc::new(Text::new(file));
    let raw = raw::look(&text);
    let folder = file.path.parent().unwrap_or(Path::new("")).to_owned();
    for mut composed in compose::compose(&text, &raw.text) {
        let place = composed.place;
        let touched = raw.problems.iter().find(|(bad, _)| bad.start <= place.end && bad.end >= place.start);
        let read = envelope::read(schemas, &text, &mut composed);
        let id = match read {
            Read::Empty => continue,
            Read::Good(id, value) if touched.is_none() => {
                parsed.documents.extend(Document::new(id, &value, &text, place, &folder).map(Arc::new));
                continue;
            }
            Read::Good(id, _) => Some(id),
            Read::Bad(id) => id,
        };
        let first = touched.map(|(_, problem)| problem).or(composed.problems.first());
        if let (Some(id), Some(first)) = (id, first) {
            let (at, message) = (first.span().clone(), first.message.clone());
            let name =
                composed.root.as_ref().and_then(|root| root.get("metadata")).and_then(|metadata| metadata.get("name"));
            let origin = text.span(name.map_or(place, |name| name.place));
            parsed.named.push(Named { id, origin, at, message });
        }
        parsed.problems.append(&mut composed.problems);
    }
    parsed.problems.extend(raw.problems.into_iter().map(|(_, problem)| problem));
    parsed.problems.sort_by_key(|problem| problem.span().start);
    shorten(&mut parsed.problems, &file.shown);
    parsed
}

/// Keeps what a person will read.
fn shorten(problems: &mut Vec<Problem>, shown: &Arc<str>) {
    if problems.len() > MAX_PROBLEMS {
        let rest = problems.len() - MAX_PROBLEMS;
        problems.truncate(MAX_PROBLEMS);
        let at = problems.last().map_or_else(|| Span::file_start(Arc::clone(shown)), |last| last.span().clone());
        problems.push(Problem::error(
            Code::LimitExceeded,
            at,
            format!("{rest} more problems in this file are not shown"),
        ));
    }
}

impl Document {
    /// Makes a document of checked JSON. `None` only when the JSON lacks what its schema requires.
    fn new(id: ResourceId, value: &Value, text: &Arc<Text>, place: Place, folder: &Path) -> Option<Self> {
        let origin = text.span(place);
        Self::build(id, value, origin, folder.to_owned(), Some((Arc::clone(text), place)))
    }

    fn build(
        id: ResourceId,
        value: &Value,
        origin: Span,
        folder: PathBuf,
        source: Option<(Arc<Text>, Place)>,
    ) -> Option<Self> {
        let strings = |name: &str| -> BTreeMap<String, String> {
            let map = value.pointer("/metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_object);
            let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
            map.into_iter().flatten().filter_map(text).collect()
        };
        let object = value.as_object()?;
        let mut json = String::with_capacity(512);
        let mut spec_at = 0;
        // "spec" is written last, as the sorted order has it: no other field of a document comes after it.
        for name in ["apiVersion", "kind", "metadata", "spec"] {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push_str(&format!("\"{name}\":"));
            spec_at = json.len();
            match object.get(name) {
                Some(value) if !value.is_null() => canonical::write(value, &mut json),
                _ => json.push_str("{}"),
            }
        }
        json.push('}');
        let (labels, annotations) = (strings("labels"), strings("annotations"));
        json.shrink_to_fit();
        Some(Self { id, labels, annotations, json, origin, folder, spec_at, source })
    }

    /// Reads a document that the ledger kept. `shown` is where it stood (`manifests/a.yaml:1:1`); every span points there.
    ///
    /// # Errors
    /// [`StoredError`] when this version of trueup cannot read it.
    pub fn from_stored(json: &str, folder: PathBuf, shown: &str) -> Result<Self, StoredError> {
        let value: Value = serde_json::from_str(json).map_err(|_| StoredError::NotJson)?;
        let value = envelope::upgrade(value).ok_or(StoredError::Unknown)?;
        let word = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        let kind = KindName::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or(StoredError::Unknown)?;
        let metadata = value.get("metadata").cloned().unwrap_or_default();
        let metadata: Metadata = serde_json::from_value(metadata).map_err(|_| StoredError::NotJson)?;
        let id = ResourceId::new(kind, metadata.name);
        Self::build(id, &value, stored_span(shown), folder, None).ok_or(StoredError::NotJson)
    }

    /// The spec as canonical JSON.
    pub fn spec_json(&self) -> &str {
        &self.json[self.spec_at..self.json.len() - 1]
    }

    /// The spec as a value. Made anew for each call: documents are many, and few are asked.
    pub fn spec(&self) -> Value {
        serde_json::from_str(self.spec_json()).expect("the document wrote this JSON itself")
    }

    /// Says whether two documents declare the same.
    pub fn digest(&self) -> Digest {
        Digest::of(self.json.as_bytes())
    }

    /// Where a value stands, by JSON pointer (`/spec/env/LOG_LEVEL`); the nearest value around it when it is not there.
    pub fn value_at(&self, pointer: &str) -> Span {
        self.find(pointer, |_, node| node.place)
    }

    /// Where the key of a value stands; the value itself where it has no key (an item of a list).
    pub fn key_at(&self, pointer: &str) -> Span {
        self.find(pointer, |key, node| key.unwrap_or(node.place))
    }

    /// The tree is made anew from the text: keeping one for each of ten thousand documents would cost more memory than
    /// the rest of the program, and only messages ask.
    fn find(&self, pointer: &str, pick: impl Fn(Option<Place>, &Node) -> Place) -> Span {
        let Some((text, place)) = &self.source else { return self.origin.clone() };
        let raw = raw::look(text);
        let all = compose::compose(text, &raw.text);
        let root = all.iter().find(|composed| composed.place == *place).and_then(|composed| composed.root.as_ref());
        let Some(root) = root else { return self.origin.clone() };
        let (key, node) = descend(root, pointer);
        text.span(pick(key, node))
    }
}

/// Reads `file:line:column` back into a span.
fn stored_span(shown: &str) -> Span {
    let mut parts = shown.rsplitn(3, ':');
    let (column, line, file) = (parts.next(), parts.next(), parts.next());
    let number = |part: Option<&str>| part.and_then(|digits| digits.parse::<u32>().ok());
    match (file, number(line), number(column)) {
        (Some(file), Some(line), Some(column)) => Span { file: file.into(), line, column, start: 0, end: 0 },
        _ => Span::file_start(shown.into()),
    }
}
