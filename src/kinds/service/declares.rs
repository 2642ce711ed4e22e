//! What a service says of itself to others: the events it tells of, the actions it takes, the credentials it wants, and templates for
//! connections. It stands in module.json, or in the Service itself when there is no module.json. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accepts::Accepts;
use super::module::Module;
use super::spec::ServiceSpec;
use crate::model::own_scope::{is_own, is_reserved};
use crate::ports::hub::Declared;

/// The way to provision an action that there is: a trigger at a vault.
pub const VAULT_TRIGGER: &str = "vault-trigger";

const KEY: &str = "a key has no spaces";
const SCOPE: &str = "a scope is the module's own name, ':' and a verb, such as agent:send";
const ENDPOINT: &str = "an endpoint is a path that begins with / and has no spaces";
const CREDENTIAL_SCOPE: &str = "a credential is vault:{vault}:read or vault:{vault}:write, with these very braces";

/// Something that happens in a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct EventSpec {
    /// What it is called, such as `note.created`.
    #[schemars(regex(pattern = r"^\S+$"), extend("errorMessage" = KEY))]
    pub key: String,
    /// What it is called for people. Default: its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A JSON Schema of what a connection may filter by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_schema: Option<Accepts>,
}

/// Something that a service does when it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ActionSpec {
    /// What it is called, such as `message.deliver`.
    #[schemars(regex(pattern = r"^\S+$"), extend("errorMessage" = KEY))]
    pub key: String,
    /// What it is called for people. Default: its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A JSON Schema of the parameters that a connection may give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Accepts>,
    /// The path below the service's mount that is asked. Without it no connection can use the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/\S*$"), extend("errorMessage" = ENDPOINT))]
    pub endpoint: Option<String>,
    /// The scope that the caller's token has. Without it no connection can use the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[^\s:]+:[^\s:]+$"), extend("errorMessage" = SCOPE))]
    pub scope: Option<String>,
    /// How it is connected: `{ type: vault-trigger }`, which is also the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provision: Option<Value>,
}

/// A token for a vault that a service wants to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct CredentialNeed {
    /// What it is called.
    #[schemars(regex(pattern = r"^\S+$"), extend("errorMessage" = KEY))]
    pub key: String,
    /// What it is called for people. Default: its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `vault:{vault}:read` or `vault:{vault}:write`; the connection says which vault.
    #[schemars(regex(pattern = r"^vault:\{vault\}:(read|write)$"), extend("errorMessage" = CREDENTIAL_SCOPE))]
    pub scope: String,
    /// The path at the service's own port, without a mount, to which it is delivered.
    #[schemars(regex(pattern = r"^/\S*$"), extend("errorMessage" = ENDPOINT))]
    pub endpoint: String,
}

/// A connection that a module proposes; only module.json has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSpec {
    #[schemars(length(min = 1))]
    pub key: String,
    pub title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<TemplateSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<TemplateSink>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<TemplateParameter>,
}

/// What a proposed connection listens to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSource {
    pub module: String,
    pub event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
}

/// What it causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSink {
    pub module: String,
    pub action: String,
}

/// What a person fills in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateParameter {
    pub key: String,
    /// A dotted path into the connection, such as `sink.params.channel`.
    pub target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<Value>,
}

impl EventSpec {
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.key)
    }
}

impl ActionSpec {
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.key)
    }

    /// The way it asks to be provisioned; [`VAULT_TRIGGER`] when it says nothing.
    pub fn provision_type(&self) -> &str {
        self.provision.as_ref().and_then(|how| how.get("type")?.as_str()).unwrap_or(VAULT_TRIGGER)
    }
}

impl CredentialNeed {
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.key)
    }

    /// Whether it may write, and not only read.
    pub fn writes(&self) -> bool {
        self.scope.ends_with(":write")
    }

    /// The scope for one vault.
    pub fn scope_for(&self, vault: &str) -> String {
        self.scope.replace("{vault}", vault)
    }
}

/// All that a service declares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declarations<'a> {
    /// The module that the declarations speak of; scopes are in its name space.
    pub module: &'a str,
    pub events: &'a [EventSpec],
    pub actions: &'a [ActionSpec],
    pub credentials: &'a [CredentialNeed],
    pub templates: &'a [TemplateSpec],
}

/// The one place that knows where declarations stand. `name` is the service's own.
pub fn declared<'a>(name: &'a str, spec: &'a ServiceSpec, module: Option<&'a Module>) -> Declarations<'a> {
    match module.filter(|_| spec.module.is_some()) {
        Some(module) => Declarations {
            module: &module.name,
            events: &module.events,
            actions: &module.actions,
            credentials: &module.credentials,
            templates: &module.templates,
        },
        None => Declarations {
            module: name,
            events: &spec.events,
            actions: &spec.actions,
            credentials: &spec.credentials,
            templates: &[],
        },
    }
}

impl<'a> Declarations<'a> {
    pub fn event(&self, key: &str) -> Option<&'a EventSpec> {
        self.events.iter().find(|event| event.key == key)
    }

    pub fn action(&self, key: &str) -> Option<&'a ActionSpec> {
        self.actions.iter().find(|action| action.key == key)
    }

    /// For lists, in the shape of the older hub.
    pub fn listed(&self) -> Declared {
        let module = self.module;
        let schema = |schema: &Option<Accepts>| schema.as_ref().map(|schema| schema.schema().clone());
        let events = self.events.iter().map(|event| {
            let filter = schema(&event.filter_schema);
            json!({ "module": module, "key": event.key, "title": event.title(), "filterSchema": filter })
        });
        let actions = self.actions.iter().map(|action| {
            let (input, provision) = (schema(&action.input_schema), &action.provision);
            json!({ "module": module, "key": action.key, "title": action.title(), "inputSchema": input, "provision": provision })
        });
        let credentials = self.credentials.iter().map(|credential| {
            let CredentialNeed { key, description, scope, endpoint, .. } = credential;
            let title = credential.title();
            json!({ "module": module, "key": key, "title": title, "description": description, "scope": scope, "endpoint": endpoint })
        });
        Declared {
            events: events.collect(),
            actions: actions.collect(),
            credentials: credentials.collect(),
            templates: self.templates.iter().map(|template| json!(template)).collect(),
        }
    }

    pub fn credential(&self, key: &str) -> Option<&'a CredentialNeed> {
        self.credentials.iter().find(|credential| credential.key == key)
    }
}

/// What is wrong with declarations that a schema cannot tell, each with its JSON pointer below what declares them.
pub struct Flaw {
    pub pointer: String,
    pub message: String,
    pub hint: Option<String>,
    /// The pointer of what it collides with.
    pub other: Option<String>,
}

/// Scopes out of the name space of `name`, paths that lead out of the mount, and keys that stand twice.
pub fn flaws(
    name: &str,
    events: &[EventSpec],
    actions: &[ActionSpec],
    credentials: &[CredentialNeed],
    templates: &[TemplateSpec],
) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    twice("events", events.iter().map(|event| event.key.as_str()), &mut flaws);
    twice("actions", actions.iter().map(|action| action.key.as_str()), &mut flaws);
    twice("credentials", credentials.iter().map(|credential| credential.key.as_str()), &mut flaws);
    twice("connectionTemplates", templates.iter().map(|template| template.key.as_str()), &mut flaws);
    let reserved = is_reserved(name) && !(actions.is_empty() && credentials.is_empty());
    if reserved {
        // Or the tokens with which it is called would be good at the hub.
        flaws.push(Flaw {
            pointer: "/name".to_owned(),
            message: format!(
                "what is called `{name}` can have no actions and no credentials: the name is the hub's own"
            ),
            hint: Some("give it another name".to_owned()),
            other: None,
        });
    }
    for (index, action) in actions.iter().enumerate() {
        if let Some(scope) = action.scope.as_ref().filter(|scope| !reserved && !is_own(name, scope)) {
            // With it, the module would be sent tokens that are good at another one.
            let verb = scope.rsplit(':').next().unwrap_or_default();
            flaws.push(Flaw {
                pointer: format!("/actions/{index}/scope"),
                message: format!("the scope `{scope}` is not one of `{name}`: an action has a scope of its own module"),
                hint: Some(format!("did you mean `{name}:{verb}`?")),
                other: None,
            });
        }
        leads_out(&action.endpoint, format!("/actions/{index}/endpoint"), &mut flaws);
    }
    for (index, credential) in credentials.iter().enumerate() {
        leads_out(&Some(credential.endpoint.clone()), format!("/credentials/{index}/endpoint"), &mut flaws);
    }
    flaws
}

fn twice<'a>(field: &str, keys: impl Iterator<Item = &'a str>, flaws: &mut Vec<Flaw>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, key) in keys.enumerate() {
        if let Some(first) = seen.iter().position(|other| *other == key) {
            flaws.push(Flaw {
                pointer: format!("/{field}/{index}/key"),
                message: format!("`{key}` stands twice in `{field}`"),
                hint: None,
                other: Some(format!("/{field}/{first}/key")),
            });
        }
        seen.push(key);
    }
}

fn leads_out(endpoint: &Option<String>, pointer: String, flaws: &mut Vec<Flaw>) {
    let Some(endpoint) = endpoint else { return };
    let path = endpoint.split(['?', '#']).next().unwrap_or_default();
    if path.contains("//") || path.split(['/', '\\']).any(|segment| matches!(segment, "." | "..")) {
        flaws.push(Flaw {
            pointer,
            message: format!("no request can have the path `{endpoint}`"),
            hint: Some("write it without `.`, `..` and empty segments".to_owned()),
            other: None,
        });
    }
}
