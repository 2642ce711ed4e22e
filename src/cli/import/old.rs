//! The files of an older hub's home, read with the place of everything in them. Pure: the texts come from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::note::{Level, Note};
use crate::document::compose::compose;
use crate::document::node::{Node, NodeKind};
use crate::document::schema::Checker;
use crate::document::text::{Place, Text};
use crate::kinds::service::module::Modules;
use crate::model::problem::Problem;
use crate::model::route::Exposure;
use crate::model::source::SourceFile;

/// All of it, as far as it matters here.
#[derive(Default)]
pub struct Home {
    /// Absolute.
    pub folder: PathBuf,
    pub rows: Vec<Found<Row>>,
    pub records: Vec<Found<Record>>,
    /// By the path of their manifest.
    pub modules: Modules,
    /// The `.env` files, by the folder's name.
    pub envs: BTreeMap<String, EnvFile>,
    /// The origin under which it was exposed.
    pub origin: Option<String>,
    /// Files that hold something and are not read.
    pub unread: Vec<&'static str>,
}

/// A module's own variables.
pub struct EnvFile {
    pub path: PathBuf,
    /// Lines that are not `KEY=VALUE`.
    pub bad: Vec<usize>,
}

/// Something, and where it stands (`file:line:column`).
pub struct Found<T> {
    pub what: T,
    pub at: String,
}

/// A row of services.json.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    #[schemars(length(min = 1))]
    pub name: String,
    #[schemars(range(min = 1))]
    pub port: u16,
    pub paths: Vec<String>,
    #[schemars(regex(pattern = r"^/\S*$"))]
    pub health: String,
    pub public_exposure: Option<Exposure>,
    #[schemars(length(min = 1))]
    pub install_dir: Option<String>,
    pub strip_prefix: Option<bool>,
    pub websocket: Option<bool>,
    #[serde(default)]
    pub uis: Map<String, Value>,
}

/// A record of connections.json.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    #[schemars(length(min = 1))]
    pub id: String,
    pub kind: Option<String>,
    pub status: Option<String>,
    pub source: RecordSource,
    pub sink: RecordSink,
    #[serde(default)]
    pub provisioned: Provisioned,
    pub created_at: Option<String>,
    pub requested_by: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub struct RecordSource {
    pub module: String,
    pub vault: Option<String>,
    pub event: String,
    pub filter: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
pub struct RecordSink {
    pub module: String,
    pub action: String,
    pub params: Option<Value>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Provisioned {
    pub vault: Option<String>,
    pub trigger_name: Option<String>,
    pub minted_jtis: Option<Vec<String>>,
    pub scope: Option<String>,
    pub scoped_tags: Option<Vec<String>>,
    pub credential_key: Option<String>,
}

static ROW: LazyLock<Checker> = LazyLock::new(checker::<Row>);
static RECORD: LazyLock<Checker> = LazyLock::new(checker::<Record>);

fn checker<T: JsonSchema>() -> Checker {
    Checker::new(&schemars::schema_for!(T).to_value())
        .expect("the schema is made from our own type, and a test makes it")
}

/// The rows of services.json. A bad one is told and left out, as the older hub does.
pub fn rows(file: &SourceFile, notes: &mut Vec<Note>) -> Vec<Found<Row>> {
    entries(file, "services", &ROW, "the row", notes)
}

/// The records of connections.json. Those that the older hub would not have read are told.
pub fn records(file: &SourceFile, notes: &mut Vec<Note>) -> Vec<Found<Record>> {
    entries(file, "connections", &RECORD, "the record", notes)
}

fn entries<T: DeserializeOwned>(
    file: &SourceFile,
    field: &str,
    checker: &Checker,
    what: &str,
    notes: &mut Vec<Note>,
) -> Vec<Found<T>> {
    let text = Text::new(file);
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text.as_str().trim_start_matches('\u{feff}')) {
        let at = format!("{}:{}:{}", file.shown, error.line().max(1), error.column().max(1));
        notes.push(Note::new(
            Level::LeftOut,
            at,
            format!("the file is no JSON, so nothing of it can be taken over: {error}"),
        ));
        return Vec::new();
    }
    let mut composed = compose(&text, text.as_str());
    let mut problems: Vec<Problem> = composed.iter_mut().flat_map(|document| document.problems.drain(..)).collect();
    let root = composed.into_iter().next().and_then(|document| document.root);
    let list = root.as_ref().and_then(|root| root.get(field));
    let Some(NodeKind::Seq(nodes)) = list.map(|list| &list.kind) else {
        let at = text.span(root.as_ref().map_or(Place::new(0, 0), |root| root.place)).to_string();
        let why = problems.first().map_or_else(|| format!("it has no list `{field}`"), |first| first.message.clone());
        notes.push(Note::new(Level::LeftOut, at, format!("nothing can be taken over: {why}")));
        return Vec::new();
    };
    for problem in problems.drain(..) {
        notes.push(Note::new(Level::Warning, problem.span().to_string(), problem.message));
    }
    let mut found = Vec::new();
    for node in nodes {
        let at = text.span(node.begin()).to_string();
        let mut wrong = Vec::new();
        let value = match node.kind {
            NodeKind::Map(_) => checker.check(&text, node, &mut wrong),
            _ => None,
        };
        match value.and_then(|value| serde_json::from_value(value).ok()) {
            Some(what) => found.push(Found { what, at }),
            None => {
                let first = wrong.into_iter().next();
                let message = first.as_ref().map_or("it is no mapping", |first| first.message.as_str());
                let name = name_of(node).map(|name| format!(" `{name}`")).unwrap_or_default();
                let place = first.as_ref().map_or(at, |first| first.span().to_string());
                notes.push(Note::new(Level::LeftOut, place, format!("{what}{name} cannot be read: {message}")));
            }
        }
    }
    found
}

fn name_of(node: &Node) -> Option<&str> {
    ["name", "id"].into_iter().find_map(|field| node.get(field)?.text())
}
