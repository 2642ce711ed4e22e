//! What the ledger keeps of a Vault. Pure.

use serde::{Deserialize, Serialize};

/// The kind's own record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Every token and grant for it was taken away: it is being removed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stripped: bool,
}

impl Record {
    /// Reads what was stored; what cannot be read is an empty one.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("a record is plain data with string keys")
    }
}
