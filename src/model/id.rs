//! Names and identities. Identity is kind + name; the file a resource stands in is provenance only.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The pattern of a [`Name`]: a DNS label (RFC 1123), as in Kubernetes.
pub const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";

/// A DNS label: lower-case letters, digits and `-`, 1 to 63 characters, no `-` at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 lower-case letters, digits and '-', with no '-' at either end")]
pub struct BadName;

impl Name {
    /// Checks the text and makes a name of it.
    ///
    /// # Errors
    /// [`BadName`] when the text is not a DNS label.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let bytes = text.as_bytes();
        let edges = bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-');
        if (1..=63).contains(&bytes.len()) && edges && bytes.iter().copied().all(inner) {
            Ok(Self(text.into()))
        } else {
            Err(BadName)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "A DNS label: lower-case letters, digits and '-', 1 to 63 characters.",
            "errorMessage": BadName.to_string()
        })
    }
}

/// The kinds of resource. Adding a kind starts here; the compiler names the other places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum KindName {
    /// The tree's settings, and the proof that a folder is a tree.
    Hub,
    /// One supervised module.
    Service,
    /// One vault of notes in a Service.
    Vault,
    /// When something happens in one module, something is done in another.
    Connection,
    /// Where blobs lie; there is one in a tree at most.
    Storage,
    /// A place where blobs can lie.
    StorageBackend,
}

impl KindName {
    pub const ALL: [Self; 6] =
        [Self::Hub, Self::Service, Self::Vault, Self::Connection, Self::Storage, Self::StorageBackend];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "Hub",
            Self::Service => "Service",
            Self::Vault => "Vault",
            Self::Connection => "Connection",
            Self::Storage => "Storage",
            Self::StorageBackend => "StorageBackend",
        }
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for KindName {
    type Err = UnknownKind;
    /// Reads a kind as people type it: case and a plural `s` do not matter, and `svc` is a Service.
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let plain = text.to_ascii_lowercase();
        let singular = match plain.strip_suffix('s').unwrap_or(&plain) {
            // As kubectl users write it.
            "svc" => "service",
            "conn" => "connection",
            "backend" => "storagebackend",
            word => word,
        };
        Self::ALL
            .into_iter()
            .find(|k| k.as_str().to_ascii_lowercase() == singular)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// A word that names no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a kind (Hub, Service, Vault, Connection, Storage, StorageBackend)")]
pub struct UnknownKind(pub String);

/// What a resource is called everywhere: `Service/vault`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    pub kind: KindName,
    pub name: Name,
}

impl ResourceId {
    pub fn new(kind: KindName, name: Name) -> Self {
        Self { kind, name }
    }

    pub fn service(name: &Name) -> Self {
        Self::new(KindName::Service, name.clone())
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.kind, self.name))
    }
}

/// Why a text is not a [`ResourceId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResourceId {
    #[error("write it as Kind/name, for example Service/vault")]
    NoSlash,
    #[error(transparent)]
    Kind(#[from] UnknownKind),
    #[error(transparent)]
    Name(#[from] BadName),
}

impl FromStr for ResourceId {
    type Err = BadResourceId;
    fn from_str(text: &str) -> Result<Self, BadResourceId> {
        let (kind, name) = text.split_once('/').ok_or(BadResourceId::NoSlash)?;
        Ok(Self::new(kind.parse()?, Name::new(name)?))
    }
}

impl Serialize for ResourceId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourceId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One journal line's identity; unique in a ledger for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
