//! What a Connection asks for. Pure. Every doc comment here is the field's description in the schema and in `trueup explain`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kinds::suspend::Suspend;
use crate::model::id::Name;
use crate::model::unit::Millis;

const VAULT: &str = "a vault's name has 2 to 32 lower-case letters, digits, '_' and '-'";
const TRIGGER: &str = "a trigger's name has letters, digits, '_' and '-', and begins with a letter or digit";
const PATH: &str = "a path begins with / and has no spaces";
const KEY: &str = "a key has letters, digits, '.', '_' and '-'";

/// When something happens in one module, something is done in another. It is kept so: what its vault forgets or somebody else changes is
/// put back, and its token is renewed before it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionSpec {
    /// What happens, and where. With `sink`; either these two or `credential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceSpec>,
    /// What is done then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkSpec>,
    /// Gives a module standing access to a vault, instead of `source` and `sink`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialSpec>,
    /// How events get there.
    pub delivery: Delivery,
    /// What becomes of notes whose event never arrived, because no hub was there to take it. Default: with `delivery: durable` they are
    /// brought on their way again after five minutes, unless they are older than `retry.maxAge`; otherwise they are counted and shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rearm: Option<Rearm>,
    /// How long the delivery of an event is tried. For `delivery: durable`.
    pub retry: RetrySpec,
    /// The name of the trigger at the vault. A vault remembers by this name which notes it has sent already. Default: made from the names
    /// of the hub, the vault and this connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"), extend("errorMessage" = TRIGGER))]
    pub trigger_name: Option<String>,
    /// With `delivery: durable` events are accepted and kept, and delivered when this is over. With `delivery: direct` the vault sends
    /// none.
    pub suspend: Suspend,
}

/// Where events come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSpec {
    /// The Service of the vault.
    pub service: Name,
    /// The vault in it.
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^[a-z0-9_-]+$"), extend("errorMessage" = VAULT))]
    pub vault: String,
    /// What happens there: an event that the service declares, such as `note.created`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._-]+$"), extend("errorMessage" = KEY))]
    pub event: String,
    /// Which notes count. Checked against the event's `filterSchema`. Default: all.
    #[serde(default)]
    pub filter: Map<String, Value>,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SinkSpec {
    /// The Service that does something.
    pub service: Name,
    /// What it does: an action that the service declares.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._-]+$"), extend("errorMessage" = KEY))]
    pub action: String,
    /// Further input of the action. Checked against its `inputSchema`; a durable delivery hands it over with every event.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// What must be there at the sink before events come, such as the entry of a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare: Option<PrepareSpec>,
}

/// Something that the sink must be told once, and told again when it forgets. In paths and bodies `{connection}`, `{vault}`, `{vaultUrl}`,
/// `{token}` and `{params.NAME}` stand for what they say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrepareSpec {
    /// The scope with which the sink is called; it is one of the sink's own, such as `agent:admin`.
    #[schemars(length(min = 3, max = 128))]
    pub scope: String,
    /// What is sent with POST.
    pub put: PutSpec,
    /// How it is seen whether it is there. Default: it is taken for granted once it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpec>,
    /// The path that is called with DELETE when the connection goes. Default: nothing is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/\S*$"), extend("errorMessage" = PATH))]
    pub remove: Option<String>,
    /// The scope of the token that the sink gets as `{token}`, such as `vault:{vault}:write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 128))]
    pub token: Option<String>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutSpec {
    /// At the sink's own port.
    #[schemars(regex(pattern = r"^/\S*$"), extend("errorMessage" = PATH))]
    pub path: String,
    /// JSON.
    pub body: Map<String, Value>,
}

/// A list in which something is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckSpec {
    /// At the sink's own port; called with GET.
    #[schemars(regex(pattern = r"^/\S*$"), extend("errorMessage" = PATH))]
    pub path: String,
    /// The field of the answer that holds the list. Default: the answer is the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Fields that an entry has when it is the one.
    pub entry: Map<String, Value>,
}

/// Standing access of a module to a vault. The token is delivered to the module, renewed before it ends, and taken back with notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialSpec {
    /// The Service that gets access.
    pub service: Name,
    /// Which of the credentials that it declares.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._-]+$"), extend("errorMessage" = KEY))]
    pub key: String,
    /// The Service of the vault.
    pub vault_service: Name,
    /// The vault in it.
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^[a-z0-9_-]+$"), extend("errorMessage" = VAULT))]
    pub vault: String,
    /// Only notes with these tags. A credential that may write needs at least one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub tags: Vec<String>,
}

/// How events get from the vault to the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Delivery {
    /// The hub stores each event, and delivers it until the sink has taken it.
    #[default]
    Durable,
    /// The vault sends each event through the hub to the sink, once, and gets the sink's answer.
    Direct,
}

/// `false`, `true`, or when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rearm {
    Plain(bool),
    For(RearmSpec),
}

impl JsonSchema for Rearm {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Rearm".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let when = generator.subschema_for::<RearmSpec>();
        json_schema!({
            "anyOf": [{ "type": "boolean" }, when],
            "errorMessage": "rearm is true, false, or { after: 5m }"
        })
    }
}

impl Rearm {
    /// So long after the vault tried it; `None` for never.
    pub fn after(&self) -> Option<Millis> {
        match self {
            Self::Plain(on) => on.then(rearm_after),
            Self::For(spec) => Some(spec.after),
        }
    }
}

impl ConnectionSpec {
    /// How long after its vault tried it an event that never arrived is brought on its way again; `None` for never.
    pub fn rearm_after(&self) -> Option<Millis> {
        let usual = (self.delivery == Delivery::Durable).then(rearm_after);
        self.rearm.as_ref().map_or(usual, Rearm::after)
    }
}

/// When an event that never arrived is brought on its way again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RearmSpec {
    /// So long after the vault tried it.
    #[serde(default = "rearm_after")]
    pub after: Millis,
}

fn rearm_after() -> Millis {
    Millis::secs(300)
}

/// When an event that the sink does not take becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetrySpec {
    /// After so many answers that are no success. A sink that cannot be reached does not count.
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: u32,
    /// So long after it was accepted.
    pub max_age: Millis,
    /// How long an answer of the sink is waited for.
    pub timeout: Millis,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { max_attempts: 20, max_age: Millis::secs(7 * 86_400), timeout: Millis::secs(60) }
    }
}
