//! What the ledger keeps of a Connection: where its traces may be, and what was written last. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::kinds::trigger::Address;
use crate::model::digest::Digest;
use crate::model::id::Name;

/// The kind's own record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Where a trigger of it may be. Noted before one is written, and taken out when its vault said that it is not there.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub triggers: BTreeSet<Place>,
    /// The trigger as it was written last, and answered for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wired: Option<Wired>,
    /// Set while something may be at the sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Prepared>,
    /// What other sinks, or this one by another name, were told before, and is to be taken back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obsolete: Vec<Prepared>,
    /// The connection that took its trigger over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heir: Option<Name>,
    /// Set while a module may have a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lent: Option<Lent>,
}

/// A trigger at a vault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub at: Address,
    pub trigger: String,
}

/// A trigger that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wired {
    pub place: Place,
    /// What it is, but for the bearer.
    pub what: Digest,
    /// The token that it sends.
    pub jti: String,
    /// Who that token says made it.
    #[serde(default)]
    pub issuer: String,
    /// When it was written, in the vault's words.
    pub updated_at: String,
}

/// What a sink was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prepared {
    pub service: Name,
    pub what: Digest,
    /// The token that the sink got.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub jti: Option<String>,
    #[serde(default)]
    pub issuer: String,
    /// How it is taken back: the path, and the scope of the call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remove: Option<String>,
    pub scope: String,
    /// The sink said that it has it.
    #[serde(default)]
    pub done: bool,
}

/// A token that a module got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lent {
    pub service: Name,
    pub at: Address,
    pub what: Digest,
    /// The token that the module has as far as we know.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub jti: Option<String>,
    #[serde(default)]
    pub issuer: String,
    pub key: String,
    pub scope: String,
    pub tags: Vec<String>,
    /// Where the module is told.
    pub endpoint: String,
    /// The scope of the call.
    pub call: String,
    /// The module said that it has it.
    #[serde(default)]
    pub done: bool,
}

impl Prepared {
    /// Whether this is what a sink is told under the same name: telling it anew replaces it.
    pub fn is_at(&self, service: &Name, remove: Option<&String>) -> bool {
        self.service == *service && self.remove.as_ref() == remove
    }
}

impl Record {
    /// Reads what was stored; what cannot be read is an empty one, and everything is looked for anew.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("a record is plain data with string keys")
    }

    /// The tokens that are in use as far as we know.
    pub fn jtis(&self) -> impl Iterator<Item = &String> {
        let wired = self.wired.iter().map(|wired| &wired.jti);
        let prepared = self.prepared.iter().filter_map(|prepared| prepared.jti.as_ref());
        let lent = self.lent.iter().filter_map(|lent| lent.jti.as_ref());
        wired.chain(prepared).chain(lent)
    }
}
