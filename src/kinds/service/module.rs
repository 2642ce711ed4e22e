//! What a module says of itself in `.parachute/module.json`. Pure: the text comes from outside.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::declares::{ActionSpec, CredentialNeed, EventSpec, TemplateSpec, flaws};
use crate::document::compose::compose;
use crate::document::node::{Node, descend};
use crate::document::schema::Checker;
use crate::document::text::{Place, Text};
use crate::model::problem::{Code, Problem};
use crate::model::source::SourceFile;
use crate::model::span::Span;

/// Where a module's manifest stands below its folder.
pub const MANIFEST: &str = ".parachute/module.json";

/// A module's manifest: what a Service needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The short name, `vault`.
    pub name: String,
    /// The name of its row in services.json, `parachute-vault`.
    pub manifest_name: String,
    pub port: u16,
    /// Mounts under the hub's origin.
    pub paths: Vec<String>,
    /// Path of the health check, asked for at the module's own port.
    pub health: String,
    /// The command, when the module brings one.
    pub start_cmd: Option<Vec<String>>,
    pub display_name: Option<String>,
    pub tagline: Option<String>,
    pub strip_prefix: bool,
    pub websocket: bool,
    /// Scopes that the module defines, `vault:read`.
    pub scopes: Vec<String>,
    pub events: Vec<EventSpec>,
    pub actions: Vec<ActionSpec>,
    pub credentials: Vec<CredentialNeed>,
    /// Connections that it proposes.
    pub templates: Vec<TemplateSpec>,
    /// The file it was read from.
    pub source: SourceFile,
    /// Where the port stands.
    pub port_at: Span,
}

/// Why a module folder cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleFault {
    /// There is no manifest.
    Missing,
    /// There is one and it cannot be read: why.
    Unreadable(String),
    /// It was read and has mistakes. Like all of them it is shown with its text.
    Invalid { source: SourceFile, problems: Vec<Problem> },
}

/// Modules by the path of their manifest.
pub type Modules = std::collections::BTreeMap<PathBuf, Result<Arc<Module>, ModuleFault>>;

/// The path of the manifest of a Service's `module` field.
pub fn manifest_path(folder: &Path, module: &str) -> PathBuf {
    folder.join(module).join(MANIFEST)
}

/// The file's shape. Fields that are not here belong to other readers and are let through.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[schemars(regex(pattern = r"^[a-z][a-z0-9-]*$"))]
    #[schemars(extend("errorMessage" = "a module's name is lower-case letters, digits and '-', and begins with a letter"))]
    name: String,
    #[schemars(length(min = 1))]
    manifest_name: String,
    #[schemars(range(min = 1))]
    port: u16,
    paths: Vec<String>,
    #[schemars(regex(pattern = "^/"))]
    #[schemars(extend("errorMessage" = "a health path begins with /"))]
    health: String,
    #[schemars(length(min = 1))]
    start_cmd: Option<Vec<String>>,
    display_name: Option<String>,
    tagline: Option<String>,
    strip_prefix: Option<bool>,
    websocket: Option<bool>,
    scopes: Option<Scopes>,
    #[serde(default)]
    events: Vec<EventSpec>,
    #[serde(default)]
    actions: Vec<ActionSpec>,
    #[serde(default)]
    credentials: Vec<CredentialNeed>,
    #[serde(default)]
    connection_templates: Vec<TemplateSpec>,
}

#[derive(Default, Deserialize, JsonSchema)]
struct Scopes {
    #[serde(default)]
    defines: Vec<String>,
}

static CHECKER: LazyLock<Checker> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Manifest).to_value();
    loosen(&mut schema);
    Checker::new(&schema).expect("the schema is made from our own type, and a test makes it")
});

/// In a Service, what is declared may have no field that we do not know, and needs no title. Here it is the other way round: other
/// readers may know more fields, and all of them want a title.
fn loosen(schema: &mut Value) {
    let shapes = schema.get_mut("$defs").and_then(Value::as_object_mut);
    let declared =
        |(name, _): &(&String, &mut Value)| ["EventSpec", "ActionSpec", "CredentialNeed"].contains(&name.as_str());
    for shape in shapes.into_iter().flatten().filter(declared).filter_map(|(_, shape)| shape.as_object_mut()) {
        shape.remove("additionalProperties");
        if let Some(Value::Array(required)) = shape.get_mut("required") {
            required.push("title".into());
        }
    }
}

/// Reads a manifest. Other programs read the same file as strict JSON, so it must be that.
///
/// # Errors
/// Every mistake in it, each with its place.
pub fn parse(file: &SourceFile) -> Result<Module, Vec<Problem>> {
    let text = Text::new(file);
    let mut problems = Vec::new();
    let module = read(file, &text, &mut problems);
    for problem in &mut problems {
        problem.code = Code::BadModule;
    }
    match module {
        Some(module) if problems.is_empty() => Ok(module),
        _ => Err(problems),
    }
}

fn read(file: &SourceFile, text: &Text, problems: &mut Vec<Problem>) -> Option<Module> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text.as_str().trim_start_matches('\u{feff}')) {
        problems.push(not_json(text, &error));
        return None;
    }
    let mut documents = compose(text, text.as_str());
    problems.append(&mut documents.iter_mut().flat_map(|document| document.problems.drain(..)).collect());
    let root = documents.into_iter().next().and_then(|document| document.root)?;
    let value = CHECKER.check(text, &root, problems)?;
    let manifest: Manifest = serde_json::from_value(value).ok()?;
    let scopes = manifest.scopes.as_ref().map_or_else(Vec::new, |scopes| scopes.defines.clone());
    let prefix = format!("{}:", manifest.name);
    for (index, scope) in scopes.iter().enumerate() {
        if scope.strip_prefix(&prefix).is_some_and(|verb| !verb.is_empty()) {
            continue;
        }
        let node = root.get("scopes").and_then(|scopes| scopes.get("defines")).and_then(|list| list.item(index));
        let at = text.span(node.map_or(root.place, |node| node.place));
        let message =
            format!("`scopes.defines[{index}]` cannot be `{scope}`: a module defines scopes of its own name only");
        problems.push(Problem::error(Code::BadModule, at, message).hint(format!("write `{prefix}<verb>`")));
    }
    let Manifest { events, actions, credentials, connection_templates: templates, .. } = &manifest;
    for flaw in flaws(&manifest.name, events, actions, credentials, templates) {
        let at = |pointer: &str| text.span(descend(&root, pointer).1.place);
        let mut problem = Problem::error(Code::BadModule, at(&flaw.pointer), flaw.message);
        if let Some(other) = flaw.other {
            problem = problem.label("again here").also(at(&other), "first here");
        }
        problem.hint = flaw.hint;
        problems.push(problem);
    }
    let port_at = text.span(root.get("port").map_or(root.place, |node| node.place));
    Some(Module {
        name: manifest.name,
        manifest_name: manifest.manifest_name,
        port: manifest.port,
        paths: manifest.paths,
        health: manifest.health,
        start_cmd: manifest.start_cmd,
        display_name: manifest.display_name,
        tagline: manifest.tagline,
        strip_prefix: manifest.strip_prefix.unwrap_or(false),
        websocket: manifest.websocket.unwrap_or(false),
        scopes,
        events: manifest.events,
        actions: manifest.actions,
        credentials: manifest.credentials,
        templates: manifest.connection_templates,
        source: file.clone(),
        port_at,
    })
}

impl Module {
    /// Where a value stands in the file, by JSON pointer; the nearest value around it when it is not there. The file is read again
    /// for it, because only messages ask.
    pub fn value_at(&self, pointer: &str) -> Span {
        let text = Text::new(&self.source);
        let documents = compose(&text, text.as_str());
        let root: Option<&Node> = documents.first().and_then(|document| document.root.as_ref());
        root.map_or_else(|| self.port_at.clone(), |root| text.span(descend(root, pointer).1.place))
    }
}

/// serde_json's complaint, at its line and column (which counts bytes).
fn not_json(text: &Text, error: &serde_json::Error) -> Problem {
    let whole = error.to_string();
    let message = whole.split(" at line ").next().unwrap_or(&whole);
    let before: usize = text.as_str().split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = before + error.column().saturating_sub(1);
    Problem::error(Code::BadModule, text.span(Place::new(at, at + 1)), format!("module.json is no JSON: {message}"))
}
