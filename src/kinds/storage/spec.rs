//! What a Storage asks for. Pure.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::kinds::suspend::Suspend;
use crate::model::blob::Integrity;
use crate::model::id::Name;
use crate::model::unit::{Bytes, Millis};

/// Where blobs lie. There is one in a tree at most. Changing `activeBackend` moves every blob: each is read, checked, written, read back
/// and compared before it counts as moved, reads go on all the time, and new blobs go to the new backend from the first moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageSpec {
    /// The StorageBackend on which all blobs are to lie. Naming another one moves them; naming the old one again while they move takes
    /// them back.
    pub active_backend: Name,
    /// How a copy is proved right before it counts.
    #[serde(default)]
    pub verify: Verify,
    /// How many blobs are moved at once. Default: `auto`, as many as make it faster.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// How many bytes are copied per second at most. Default: as many as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// Removes the old copies of blobs that were moved. Default: they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_source: Option<After>,
    /// Removes what lies on a backend and belongs to no blob, such as what a crash left. Default: it is counted and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_orphans: Option<After>,
    /// Reads every blob from time to time and checks it; what is damaged is replaced from a good copy if there is one.
    #[serde(default)]
    pub scrub: ScrubSpec,
    /// Blobs that may be lost: those without a good copy anywhere are given up, so that a migration can end. Others are not touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abandon: Vec<Integrity>,
    /// Holds everything as it is: nothing is moved, checked or removed. Reads and writes go on.
    #[serde(default)]
    pub suspend: Suspend,
}

/// How copies are proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verify {
    /// Each copy is read back from where it was written, and its SHA-256 compared.
    #[default]
    ReadBack,
}

/// A number, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Concurrency {
    Fixed(u32),
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Auto {
    Auto,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::Auto(Auto::Auto)
    }
}

impl Concurrency {
    /// The number, if one is given.
    pub fn fixed(self) -> Option<u32> {
        match self {
            Self::Fixed(number) => Some(number),
            Self::Auto(_) => None,
        }
    }
}

impl JsonSchema for Concurrency {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Concurrency".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 64 }, { "const": "auto" }],
            "errorMessage": "concurrency is auto, or a number from 1 to 64"
        })
    }
}

/// How long to wait first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct After {
    /// So long after the bytes were needed last.
    pub after: Millis,
}

/// Checking at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScrubSpec {
    /// Every blob is checked this often; `0s` never does.
    pub every: Millis,
    /// How many bytes are read for it per second at most.
    pub bandwidth: Bytes,
}

impl Default for ScrubSpec {
    fn default() -> Self {
        Self { every: Millis::secs(30 * 24 * 3_600), bandwidth: Bytes(10 << 20) }
    }
}
