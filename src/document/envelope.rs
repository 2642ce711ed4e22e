//! What every document has: apiVersion, kind, metadata, spec.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::compose::{Composed, shortened};
use super::near::nearest;
use super::node::{Node, NodeKind};
use super::schema::Checker;
use super::text::{Place, Text};
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::problem::{Code, Problem};

/// The apiVersion that this version of trueup writes, and the newest that it reads.
pub const API_VERSION: &str = "trueup/v1";

/// The apiVersions that can be read.
pub const API_VERSIONS: [&str; 1] = [API_VERSION];

/// The name of a resource, and what people note about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name. Kind and name together are the identity; the file they stand in is not.
    pub name: Name,
    /// Short marks to select by, such as `tier: data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("errorMessage" = LABEL_KEY))]
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// Notes for people and tools. trueup keeps them and does not read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("errorMessage" = LABEL_KEY))]
    pub annotations: BTreeMap<LabelKey, String>,
}

const LABEL_KEY: &str =
    "a label has letters, digits, '-', '_', '.' and '/', at most 253, and begins and ends with a letter or digit";

/// The key of a label or annotation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LabelKey(#[schemars(regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_./]{0,251}[A-Za-z0-9])?$"))] pub String);

/// The value of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("errorMessage" = "a label's value has letters, digits, '-', '_' and '.', at most 63, and begins and ends with a letter or digit"))]
pub struct LabelValue(#[schemars(regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"))] pub String);

/// The checkers of whole documents, one for each kind.
#[derive(Debug)]
pub struct Schemas {
    /// In the order of [`KindName::ALL`].
    pub kinds: Vec<(KindName, Checker)>,
    /// For documents whose kind is missing or unknown: what can be said about them all the same.
    pub envelope: Checker,
}

/// The fields at the top of a document.
const ENVELOPE: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// What could be read of a document.
pub(super) enum Read {
    /// Nothing but comments.
    Empty,
    Good(ResourceId, Value),
    Bad(Option<ResourceId>),
}

/// Reads the envelope and checks the whole document by the schema of its kind.
pub(super) fn read(schemas: &Schemas, text: &Text, composed: &mut Composed) -> Read {
    let Composed { root, place, problems } = composed;
    let Some(root) = root else { return if problems.is_empty() { Read::Empty } else { Read::Bad(None) } };
    let broken = !problems.is_empty();
    if root.is_null() && !broken {
        return Read::Empty;
    }
    let identity = identity(root);
    let syntax = problems.iter().any(|problem| matches!(problem.code, Code::Syntax | Code::LimitExceeded));
    if syntax {
        // What stands before the error is only a part; to complain of what it lacks would mislead.
        return Read::Bad(identity);
    }
    if !matches!(root.kind, NodeKind::Map(_)) {
        problems.push(not_a_mapping(text, root, *place));
        return Read::Bad(None);
    }
    if !broken && ENVELOPE.iter().all(|key| root.get(key).is_none()) {
        problems.push(not_ours(text, root));
        return Read::Bad(None);
    }
    if let Some(problem) = unknown_version(text, root) {
        problems.push(problem);
        return Read::Bad(identity);
    }
    let kind = root.get("kind").filter(|node| !node.is_null());
    let known = kind.and_then(Node::text).and_then(|word| schemas.kinds.iter().find(|(kind, _)| kind.as_str() == word));
    let value = match (known, kind) {
        (Some((_, checker)), _) => checker.check(text, root, problems),
        (None, kind) => {
            problems.extend(kind.and_then(|node| unknown_kind(text, node)));
            schemas.envelope.check(text, root, problems);
            None
        }
    };
    match (value, identity) {
        (Some(value), Some(id)) if !broken => Read::Good(id, value),
        (_, identity) => Read::Bad(identity),
    }
}

/// Kind and name, when both are right, whatever else is wrong.
fn identity(root: &Node) -> Option<ResourceId> {
    let word = root.get("kind")?.text()?;
    let kind = KindName::ALL.into_iter().find(|kind| kind.as_str() == word)?;
    let name = root.get("metadata")?.get("name")?.text()?;
    Some(ResourceId::new(kind, Name::new(name).ok()?))
}

/// A document of something else: one mistake, not one for each thing it lacks.
fn not_ours(text: &Text, root: &Node) -> Problem {
    let message = "this is not a document of trueup: it has no apiVersion, kind, metadata or spec";
    Problem::error(Code::MissingField, text.span(root.begin()), message)
        .label("all four are missing")
        .hint("`trueup init` shows how one looks; files that are no manifests need another suffix, or another folder")
}

fn not_a_mapping(text: &Text, root: &Node, place: Place) -> Problem {
    let what = match root.kind {
        NodeKind::Seq(_) => "a list",
        NodeKind::Scalar { .. } | NodeKind::Map(_) => "plain text",
    };
    Problem::error(Code::WrongType, text.span(place), format!("a manifest is a mapping, not {what}"))
        .label("expected apiVersion, kind, metadata and spec")
        .hint("separate several resources with lines `---`; files that are no manifests need another suffix")
}

fn unknown_version(text: &Text, root: &Node) -> Option<Problem> {
    let node = root.get("apiVersion").filter(|node| !node.is_null())?;
    // A list or a mapping is a wrong type, which the schema will say.
    let word = node.text()?;
    if API_VERSIONS.contains(&word) {
        return None;
    }
    let message = format!("unknown apiVersion `{}`", shortened(word));
    let problem = Problem::error(Code::UnknownApiVersion, text.span(node.place), message);
    Some(problem.hint(format!("this version of trueup reads `apiVersion: {API_VERSION}`")))
}

fn unknown_kind(text: &Text, node: &Node) -> Option<Problem> {
    let word = node.text()?;
    let problem =
        Problem::error(Code::UnknownKind, text.span(node.place), format!("unknown kind `{}`", shortened(word)));
    let names = KindName::ALL.map(KindName::as_str);
    Some(match nearest(word, names) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint(format!("the kinds are {}", super::near::listed(names, "and", names.len()))),
    })
}

/// Brings a document to the newest apiVersion. `None` when its apiVersion is unknown.
pub(super) fn upgrade(document: Value) -> Option<Value> {
    match document.get("apiVersion").and_then(Value::as_str)? {
        API_VERSION => Some(document),
        _ => None,
    }
}
