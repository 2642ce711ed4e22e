//! JSON Schemas, made from the spec types: for the checker, for editors (`schemas/*.json`), and for `trueup schema`.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::backend::spec::StorageBackendSpec;
use super::connection::spec::ConnectionSpec;
use super::hub::spec::HubSpec;
use super::service::spec::ServiceSpec;
use super::storage::spec::StorageSpec;
use super::vault::spec::VaultSpec;
use crate::document::envelope::{API_VERSION, Metadata, Schemas};
use crate::document::schema::Checker;
use crate::model::id::KindName;

/// Where the schemas would be found on the web; their identity, nothing is fetched from there.
const BASE: &str = "https://trueup.dev/schemas/v1";

/// Fields that begin so at the top of a document are people's own: for anchors, and for other tools.
const FREE_FIELDS: &str = "^x-";

/// A kind with what its schema is made of.
struct Entry {
    kind: KindName,
    title: &'static str,
    /// Whether a document of the kind says anything without a spec.
    needs_spec: bool,
    spec: fn() -> Schema,
}

const KINDS: [Entry; 6] = [
    Entry { kind: KindName::Hub, title: "Hub", needs_spec: false, spec: root::<HubSpec> },
    Entry { kind: KindName::Service, title: "Service", needs_spec: true, spec: root::<ServiceSpec> },
    Entry { kind: KindName::Vault, title: "Vault", needs_spec: true, spec: root::<VaultSpec> },
    Entry { kind: KindName::Connection, title: "Connection", needs_spec: true, spec: root::<ConnectionSpec> },
    Entry { kind: KindName::Storage, title: "Storage", needs_spec: true, spec: root::<StorageSpec> },
    Entry {
        kind: KindName::StorageBackend,
        title: "StorageBackend",
        needs_spec: true,
        spec: root::<StorageBackendSpec>,
    },
];

/// The checkers, made once.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas {
    kinds: KINDS.iter().map(|entry| (entry.kind, checker(&document(entry)))).collect(),
    envelope: checker(&envelope()),
});

/// The checkers of all kinds.
pub fn schemas() -> &'static Schemas {
    &SCHEMAS
}

fn checker(schema: &Value) -> Checker {
    Checker::new(schema).expect("the schemas are made from our own types, and a test makes them all")
}

/// The published schema of one kind.
pub fn schema(kind: KindName) -> Value {
    let entry = KINDS.iter().find(|entry| entry.kind == kind);
    document(entry.expect("the table has every kind, and a test counts them"))
}

/// The published schema of any document: one of the kinds.
pub fn any_schema() -> Value {
    let mut defs = Map::new();
    let mut alternatives = Vec::new();
    for entry in &KINDS {
        let mut one = document(entry);
        if let Some(object) = one.as_object_mut() {
            object.remove("$schema");
            object.remove("$id");
            if let Some(Value::Object(inner)) = object.remove("$defs") {
                defs.extend(inner);
            }
        }
        defs.insert(entry.title.to_owned(), one);
        alternatives.push(json!({ "$ref": format!("#/$defs/{}", entry.title) }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("{BASE}/trueup.json"),
        "title": "trueup",
        "description": "A document of a trueup manifest folder.",
        "oneOf": alternatives,
        "$defs": defs,
    })
}

/// Every published schema by file name.
pub fn published() -> Vec<(String, Value)> {
    let file = |kind: KindName| format!("{}.json", kind.as_str().to_ascii_lowercase());
    let mut all: Vec<(String, Value)> = KindName::ALL.into_iter().map(|kind| (file(kind), schema(kind))).collect();
    all.push(("trueup.json".to_owned(), any_schema()));
    all
}

/// The schema of a whole document of one kind.
fn document(entry: &Entry) -> Value {
    let mut spec = (entry.spec)().to_value();
    let mut metadata = root::<Metadata>().to_value();
    let mut defs = Map::new();
    for part in [&mut spec, &mut metadata] {
        if let Some(object) = part.as_object_mut() {
            object.remove("$schema");
            object.remove("title");
            if let Some(Value::Object(inner)) = object.remove("$defs") {
                defs.extend(inner);
            }
        }
    }
    let description = spec.get("description").cloned().unwrap_or_default();
    let mut required = vec!["apiVersion", "kind", "metadata"];
    if entry.needs_spec {
        required.push("spec");
    }
    let word = entry.kind.as_str();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("{BASE}/{}.json", word.to_ascii_lowercase()),
        "title": entry.title,
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": { "const": API_VERSION, "description": "The version of the manifest format." },
            "kind": { "const": word, "description": "What this document declares." },
            "metadata": metadata,
            "spec": spec,
        },
        "patternProperties": free_fields(),
        "additionalProperties": false,
        "required": required,
        "$defs": defs,
    })
}

/// What holds for a document of whatever kind.
fn envelope() -> Value {
    let mut metadata = root::<Metadata>().to_value();
    let defs = metadata.as_object_mut().and_then(|object| object.remove("$defs"));
    json!({
        "type": "object",
        "properties": {
            "apiVersion": { "const": API_VERSION },
            "kind": { "type": "string", "errorMessage": kinds_sentence() },
            "metadata": metadata,
            "spec": true,
        },
        "patternProperties": free_fields(),
        "additionalProperties": false,
        "required": ["apiVersion", "kind", "metadata"],
        "$defs": defs,
    })
}

fn free_fields() -> Value {
    json!({ FREE_FIELDS: { "description": "Free for your own use.", "x-ignored": true } })
}

fn kinds_sentence() -> String {
    format!("the kinds are {}", KindName::ALL.map(KindName::as_str).join(", "))
}

/// The schema of one type with its definitions.
fn root<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(flow_text))
        .with_transform(RecursiveTransform(Bounds))
        .into_generator()
        .into_root_schema_for::<T>()
}

/// Doc comments are broken into lines for the source's sake; descriptions are sentences.
fn flow_text(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

/// Gives a format's bound as a number, so that every reader of the schema checks it.
#[derive(Clone, Debug)]
struct Bounds;

impl Transform for Bounds {
    fn transform(&mut self, schema: &mut Schema) {
        if schema.get("format").and_then(Value::as_str) == Some("uint32") && schema.get("maximum").is_none() {
            schema.insert("maximum".to_owned(), u32::MAX.into());
        }
    }
}
