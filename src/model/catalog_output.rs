//! What services declare of themselves, as lines: the events they tell of, the actions they take, the credentials they want, and the
//! connections they propose.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::Name;

/// One declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum CatalogLine {
    /// Something that happens in a service.
    EventDeclared(EventLine),
    /// Something that it does when it is asked.
    ActionDeclared(ActionLine),
    /// A token for a vault that it wants to have.
    CredentialDeclared(CredentialLine),
    /// A connection that it proposes.
    TemplateDeclared(TemplateLine),
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    pub service: Name,
    /// The short name of its module; the service's own without one.
    pub module: String,
    pub key: String,
    pub title: String,
    /// What a connection may filter by, as far as the schema names it.
    pub filter: Vec<String>,
    pub filter_schema: Option<Value>,
    /// `file:line:column` of the declaration.
    pub source: String,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionLine {
    pub service: Name,
    pub module: String,
    pub key: String,
    pub title: String,
    /// Whether a connection can use it.
    pub connectable: bool,
    pub scope: Option<String>,
    pub endpoint: Option<String>,
    /// What a connection may give, as far as the schema names it.
    pub params: Vec<String>,
    pub input_schema: Option<Value>,
    pub provision: Option<Value>,
    pub source: String,
}

/// A credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialLine {
    pub service: Name,
    pub module: String,
    pub key: String,
    pub title: String,
    pub description: Option<String>,
    pub scope: String,
    pub endpoint: String,
    pub source: String,
}

/// A template of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateLine {
    pub service: Name,
    pub module: String,
    pub key: String,
    pub title: String,
    /// All of it, as the module has it.
    pub template: Value,
    pub source: String,
}
