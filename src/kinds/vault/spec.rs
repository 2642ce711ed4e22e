//! What a Vault asks for. Pure. Every doc comment here is the field's description in the schema and in `trueup explain`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::id::Name;

const VAULT: &str = "a vault's name has 2 to 32 lower-case letters, digits, '_' and '-'";

/// One vault of notes in a Service that keeps vaults. It is made when it is not there; one that is there is adopted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultSpec {
    /// The Service that keeps it.
    pub service: Name,
    /// Its name there. Default: the name of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^[a-z0-9_-]+$"), extend("errorMessage" = VAULT))]
    pub vault_name: Option<String>,
    /// What becomes of the vault when it is no longer declared.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How the service's program makes and removes a vault.
    #[serde(default)]
    pub commands: CommandsSpec,
}

/// What becomes of notes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay, and trueup forgets about them.
    #[default]
    Retain,
    /// Every token and grant for the vault is taken away, and then the vault with all its notes.
    Delete,
}

/// Arguments in which `{name}` stands for the vault's name; run with the environment of the service. No shell is involved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CommandsSpec {
    /// Default: the service's own command, without a last word `serve`, and `create {name} --json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub create: Option<Vec<String>>,
    /// Default: the same with `remove {name} --yes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub remove: Option<Vec<String>>,
}

impl VaultSpec {
    /// Its name in the service.
    pub fn vault<'a>(&'a self, name: &'a Name) -> &'a str {
        self.vault_name.as_deref().unwrap_or(name.as_str())
    }
}
