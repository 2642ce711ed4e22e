//! From a spec and what both ends declare to what exactly is wired. Pure.

use serde_json::{Map, Value};

use super::spec::{ConnectionSpec, CredentialSpec, Delivery, PrepareSpec, SinkSpec, SourceSpec};
use crate::kinds::trigger::{self, Address, Trigger};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::ports::bearers::Wanted;
use crate::ports::hub;
use crate::ports::tokens::Via;

/// What the hub and the services at both ends say.
#[derive(Clone, Debug, Default)]
pub struct Ends<'a> {
    /// The name of the Hub.
    pub hub: Option<&'a Name>,
    /// Where modules of this machine reach the hub; `None` when it serves nothing.
    pub base: Option<&'a str>,
    /// The port of the vault's service.
    pub vault_port: Option<u16>,
    pub sink: Option<SinkEnd<'a>>,
}

/// The service that does something, or gets a credential.
#[derive(Clone, Debug, Default)]
pub struct SinkEnd<'a> {
    pub port: Option<u16>,
    /// The name space of its scopes.
    pub space: &'a str,
    /// Its first mount under the hub's origin, and whether that is taken off on the way.
    pub mount: Option<(&'a str, bool)>,
    /// Path and scope of the action.
    pub action: Option<(&'a str, &'a str)>,
    /// Scope and path of the credential.
    pub credential: Option<(&'a str, &'a str)>,
}

/// What exactly is wired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    pub at: Address,
    pub vault_port: u16,
    pub wire: Option<Wire>,
    pub prepare: Option<Prepare>,
    pub lend: Option<Lend>,
    /// The vault sends events through the hub to the sink, and not into the inbox.
    pub direct: bool,
    /// What the hub is told: where events go that are in the inbox. A direct connection may have some from when it was durable.
    pub wiring: Option<hub::Wiring>,
}

/// A trigger, and the token that it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    pub trigger: Trigger,
    pub bearer: Wanted,
}

/// What the sink is told first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    pub service: Name,
    pub port: u16,
    /// The scope and audience of our calls.
    pub scope: String,
    pub audience: String,
    pub put: String,
    /// With `{token}` still in it.
    pub body: Value,
    /// Path, field, and the entry that is looked for.
    pub check: Option<(String, Option<String>, Map<String, Value>)>,
    pub remove: Option<String>,
    pub token: Option<Wanted>,
    pub what: Digest,
}

/// A token for a module, and how it gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lend {
    pub service: Name,
    pub port: u16,
    pub key: String,
    pub endpoint: String,
    /// The scope and audience of our calls.
    pub call: String,
    pub audience: String,
    pub tags: Vec<String>,
    pub token: Wanted,
    pub what: Digest,
}

/// Why it cannot be said what to wire: a mistake that linking did not find, or that came after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    pub pointer: &'static str,
    pub message: String,
    pub hint: &'static str,
}

fn unusable(pointer: &'static str, message: impl Into<String>, hint: &'static str) -> Unusable {
    Unusable { pointer, message: message.into(), hint }
}

/// The client of the tokens of a connection.
pub fn client(connection: &Name) -> String {
    format!("connection/{connection}")
}

/// The client of a token that one of those gets whom the connection gives tokens to. What one has got is never given to another.
fn client_at(connection: &Name, place: &str) -> String {
    format!("{}/{place}", client(connection))
}

/// Whether a client is this connection's.
pub fn is_client_of(client: &str, connection: &Name) -> bool {
    connection_of(client).is_some_and(|name| name == *connection)
}

/// The connection of a client, if it is one.
pub fn connection_of(client: &str) -> Option<Name> {
    Name::new(client.strip_prefix("connection/")?.split('/').next()?).ok()
}

/// The scope of whoever may put events into the inbox of a connection, and nothing else.
pub fn inbox_scope(connection: &Name) -> String {
    format!("{INBOX}:{connection}")
}

/// The audience of such a token, and the path under which the hub takes events.
pub const INBOX: &str = "inbox";

/// Puts everything together.
///
/// # Errors
/// Says what is missing, and where in the document.
pub fn resolve(name: &Name, spec: &ConnectionSpec, ends: &Ends<'_>) -> Result<Inputs, Unusable> {
    if let Some(credential) = &spec.credential {
        return lend(name, credential, ends);
    }
    let (Some(source), Some(sink)) = (&spec.source, &spec.sink) else {
        return Err(unusable("/spec", "it does not say what it connects", "give `source` and `sink`, or `credential`"));
    };
    let at = Address { service: source.service.clone(), vault: source.vault.clone() };
    let vault_port = ends.vault_port.ok_or_else(|| no_port("/spec/source/service", &source.service))?;
    let hub = ends.hub.ok_or_else(|| unusable("", "the tree has no Hub", "add one"))?;
    let base = ends.base.ok_or_else(|| {
        unusable("/spec/delivery", "the hub listens nowhere, so no event can reach it", "give the Hub a `listen`")
    })?;
    let end = ends.sink.clone().unwrap_or_default();
    let (endpoint, scope) = end.action.ok_or_else(|| {
        let message = format!("Service/{} declares no action `{}` that can be called", sink.service, sink.action);
        unusable("/spec/sink/action", message, "an action has an `endpoint` and a `scope`")
    })?;
    let (mount, strip) = end.mount.unwrap_or(("", false));
    let mount = mount.trim_end_matches('/');
    let direct = format!("{mount}{endpoint}");
    let webhook = match spec.delivery {
        Delivery::Durable => format!("{base}/{INBOX}/{name}"),
        Delivery::Direct if end.mount.is_none() => {
            let message = format!("Service/{} has no route, so the hub cannot pass anything on to it", sink.service);
            return Err(unusable("/spec/sink/service", message, "give it a route, or use `delivery: durable`"));
        }
        Delivery::Direct => format!("{base}{direct}"),
    };
    let bearer = |scope: String, audience: &str| Wanted {
        client: client_at(name, &format!("vault/{}/{}", at.service, at.vault)),
        via: Via::ConnectionProvision,
        scope,
        audience: audience.to_owned(),
        vault_scope: Vec::new(),
        permissions: None,
    };
    let wiring = hub::Wiring {
        path: if strip || end.mount.is_none() { endpoint.to_owned() } else { direct },
        scope: scope.to_owned(),
        audience: space(scope).to_owned(),
        suspended: false,
        ..held(spec, sink)
    };
    let token = match spec.delivery {
        Delivery::Durable => bearer(inbox_scope(name), INBOX),
        Delivery::Direct => bearer(scope.to_owned(), space(scope)),
    };
    let trigger = Trigger {
        name: spec.trigger_name.clone().unwrap_or_else(|| trigger::name(hub, &source.vault, name)),
        events: events(&source.event).ok_or_else(|| unmappable(source))?,
        when: source.filter.clone(),
        webhook,
    };
    let prepare = sink.prepare.as_ref().map(|wish| prepare(name, &at, vault_port, sink, wish, &end)).transpose()?;
    let direct = spec.delivery == Delivery::Direct;
    let wire = Some(Wire { trigger, bearer: token });
    Ok(Inputs { at, vault_port, wire, prepare, lend: None, direct, wiring: Some(wiring) })
}

/// What the hub is told while it is not clear where events go: they are accepted and kept.
pub fn held(spec: &ConnectionSpec, sink: &SinkSpec) -> hub::Wiring {
    hub::Wiring {
        sink: sink.service.clone(),
        path: "/".to_owned(),
        scope: String::new(),
        audience: String::new(),
        params: sink.params.clone(),
        suspended: true,
        retry: hub::Retry {
            max_attempts: spec.retry.max_attempts,
            max_age: spec.retry.max_age,
            timeout: spec.retry.timeout,
        },
    }
}

/// The events of a trigger, by the vault's words for them.
pub fn events(event: &str) -> Option<Vec<String>> {
    match event {
        "note.created" => Some(vec!["created".to_owned()]),
        "note.updated" => Some(vec!["updated".to_owned()]),
        _ => None,
    }
}

fn unmappable(source: &SourceSpec) -> Unusable {
    let message = format!("a vault has no trigger for `{}`", source.event);
    unusable("/spec/source/event", message, "triggers are for `note.created` and `note.updated`")
}

fn no_port(pointer: &'static str, service: &Name) -> Unusable {
    unusable(pointer, format!("Service/{service} has no port, so nobody can call it"), "give it a `port`")
}

/// The name space of a scope.
fn space(scope: &str) -> &str {
    scope.split(':').next().unwrap_or_default()
}

fn prepare(
    name: &Name,
    at: &Address,
    vault_port: u16,
    sink: &SinkSpec,
    wish: &PrepareSpec,
    end: &SinkEnd<'_>,
) -> Result<Prepare, Unusable> {
    let port = end.port.ok_or_else(|| no_port("/spec/sink/service", &sink.service))?;
    if space(&wish.scope) != end.space {
        // Or one module's connection would get a token that governs another.
        let message = format!("`{}` is no scope of Service/{}", wish.scope, sink.service);
        return Err(unusable("/spec/sink/prepare/scope", message, "it begins with the sink's own name and a colon"));
    }
    let fill = |text: &str| {
        let mut text = text.replace("{connection}", name.as_str()).replace("{vault}", &at.vault);
        text = text.replace("{vaultUrl}", &format!("http://127.0.0.1:{vault_port}"));
        for (key, value) in &sink.params {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text = text.replace(&format!("{{params.{key}}}"), &value);
        }
        text
    };
    let token = wish.token.as_ref().map(|scope| {
        let scope = fill(scope);
        let vault = scope.strip_prefix("vault:").and_then(|rest| rest.split(':').next());
        let audience = vault.map_or_else(|| space(&scope).to_owned(), |vault| format!("vault.{vault}"));
        Wanted {
            client: client_at(name, &format!("sink/{}", sink.service)),
            via: Via::ConnectionProvision,
            vault_scope: vault.map(str::to_owned).into_iter().collect(),
            scope,
            audience,
            permissions: None,
        }
    });
    if let Some(wanted) = &token
        && wanted.vault_scope.first() != Some(&at.vault)
    {
        let message = format!("`{}` is no scope of the vault {}", wanted.scope, at.vault);
        return Err(unusable(
            "/spec/sink/prepare/token",
            message,
            "write `vault:{vault}:read` or `vault:{vault}:write`",
        ));
    }
    let mut prepare = Prepare {
        service: sink.service.clone(),
        port,
        scope: wish.scope.clone(),
        audience: end.space.to_owned(),
        put: fill(&wish.put.path),
        body: filled(&Value::Object(wish.put.body.clone()), &fill),
        check: wish.check.as_ref().map(|check| {
            let entry = check.entry.iter().map(|(key, value)| (key.clone(), filled(value, &fill))).collect();
            (fill(&check.path), check.list.clone(), entry)
        }),
        remove: wish.remove.as_deref().map(fill),
        token,
        what: Digest::of(b""),
    };
    let token = prepare.token.as_ref().map(|token| &token.scope);
    let said = format!("{}\0{}\0{token:?}\0{:?}", prepare.put, prepare.body, prepare.remove);
    prepare.what = Digest::of(said.as_bytes());
    Ok(prepare)
}

/// Every text in a value, filled.
fn filled(value: &Value, fill: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(items) => items.iter().map(|item| filled(item, fill)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), filled(value, fill))).collect())
        }
        other => other.clone(),
    }
}

fn lend(name: &Name, wish: &CredentialSpec, ends: &Ends<'_>) -> Result<Inputs, Unusable> {
    let at = Address { service: wish.vault_service.clone(), vault: wish.vault.clone() };
    let vault_port = ends.vault_port.ok_or_else(|| no_port("/spec/credential/vaultService", &wish.vault_service))?;
    let end = ends.sink.clone().unwrap_or_default();
    let port = end.port.ok_or_else(|| no_port("/spec/credential/service", &wish.service))?;
    let (template, endpoint) = end.credential.ok_or_else(|| {
        let message = format!("Service/{} declares no credential `{}`", wish.service, wish.key);
        unusable("/spec/credential/key", message, "its module.json, or the Service, declares `credentials`")
    })?;
    let verb = ["read", "write"].into_iter().find(|verb| template == format!("vault:{{vault}}:{verb}"));
    let verb = verb.ok_or_else(|| {
        unusable(
            "/spec/credential/key",
            format!("its scope `{template}` is none of a vault"),
            "it is vault:{vault}:read or vault:{vault}:write",
        )
    })?;
    if verb == "write" && wish.tags.is_empty() {
        let message = "a credential that may write needs at least one tag";
        return Err(unusable(
            "/spec/credential/tags",
            message,
            "add `tags: [...]`: only notes with them can be written",
        ));
    }
    let permissions = (!wish.tags.is_empty()).then(|| {
        Map::from_iter([("scoped_tags".to_owned(), wish.tags.iter().map(|tag| Value::from(tag.as_str())).collect())])
    });
    let token = Wanted {
        client: client_at(name, &format!("module/{}", wish.service)),
        via: Via::ConnectionCredential,
        scope: format!("vault:{}:{verb}", at.vault),
        audience: at.audience(),
        vault_scope: vec![at.vault.clone()],
        permissions,
    };
    let said = format!("{}\0{}\0{endpoint}\0{}\0{}", wish.service, wish.key, token.scope, wish.tags.join("\0"));
    let lend = Lend {
        service: wish.service.clone(),
        port,
        key: wish.key.clone(),
        endpoint: endpoint.to_owned(),
        call: format!("{}:admin", end.space),
        audience: end.space.to_owned(),
        tags: wish.tags.clone(),
        token,
        what: Digest::of(said.as_bytes()),
    };
    Ok(Inputs { at, vault_port, wire: None, prepare: None, lend: Some(lend), direct: false, wiring: None })
}
