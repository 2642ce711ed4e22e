//! The triggers of a vault: how they are named, asked for and compared. Pure: the calls are made elsewhere. Facts of the API are those of
//! the vault's own `/vault/<name>/api/triggers`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::unit::Millis;
use crate::ports::peers::{Call, Method, Reply};

/// A list is answered from memory.
const LIST_LIMIT: Millis = Millis::secs(2);
/// A trigger is written to a disk.
const WRITE_LIMIT: Millis = Millis::secs(5);
/// What a hub of this world names its triggers by.
const PREFIX: &str = "conn_";
/// So much is said of a foreign answer.
const MOST_SAID: usize = 300;

/// A vault in a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    pub service: Name,
    pub vault: String,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vault {} of Service/{}", self.vault, self.service)
    }
}

impl Address {
    /// The scope with which triggers are read and written, and for whom such a token is.
    pub fn admin(&self) -> (String, String, [String; 1]) {
        (format!("vault:{}:admin", self.vault), self.audience(), [self.vault.clone()])
    }

    pub fn audience(&self) -> String {
        format!("vault.{}", self.vault)
    }

    /// Below the vault's own port.
    pub fn path(&self) -> String {
        format!("/vault/{}", self.vault)
    }
}

/// A trigger as it is wished, but for its bearer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trigger {
    pub name: String,
    pub events: Vec<String>,
    /// Which notes.
    pub when: Map<String, Value>,
    pub webhook: String,
}

/// A trigger as a vault tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub events: Vec<String>,
    pub when: Value,
    pub webhook: String,
    pub send: Option<String>,
    pub has_bearer: bool,
    /// As the vault writes it: it is only compared.
    pub updated_at: String,
}

/// What is known of a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vault {
    /// Its triggers, by name.
    Present(BTreeMap<String, Seen>),
    /// Its service answers, and has no such vault.
    Absent,
    /// It was not looked at, or did not answer: why.
    Unknown(String),
}

/// The mark in the name of a trigger of ours: another hub, another vault or another connection has another one. Eight hexadecimal digits.
fn mark(hub: &Name, vault: &str, connection: &str) -> String {
    Digest::of(format!("trigger\0{hub}\0{vault}\0{connection}").as_bytes()).as_str()[..8].to_owned()
}

/// The name of the trigger of a connection.
pub fn name(hub: &Name, vault: &str, connection: &Name) -> String {
    format!("{PREFIX}{connection}_tu{}", mark(hub, vault, connection.as_str()))
}

/// The connection whose trigger this is, if it is one that this hub made.
pub fn owner(hub: &Name, vault: &str, trigger: &str) -> Option<Name> {
    let (connection, found) = trigger.strip_prefix(PREFIX)?.rsplit_once("_tu")?;
    (found == mark(hub, vault, connection)).then(|| Name::new(connection).ok()).flatten()
}

/// Whether it looks like the trigger of some hub.
pub fn is_of_a_hub(trigger: &str) -> bool {
    trigger.starts_with(PREFIX)
}

/// The metadata field that a vault sets on a note while it sends it, and leaves there when that fails.
pub fn pending_marker(trigger: &str) -> String {
    format!("{trigger}_pending_at")
}

/// The metadata field that a vault sets on a note that was sent.
pub fn rendered_marker(trigger: &str) -> String {
    format!("{trigger}_rendered_at")
}

fn call(method: Method, port: u16, path: String, bearer: &Secret, body: Option<Secret>) -> Call {
    let timeout = if method == Method::Get { LIST_LIMIT } else { WRITE_LIMIT };
    Call { method, port, path, bearer: Some(bearer.clone()), body, timeout }
}

/// Asks for all triggers.
pub fn list(port: u16, at: &Address, bearer: &Secret) -> Call {
    call(Method::Get, port, format!("{}/api/triggers", at.path()), bearer, None)
}

/// Writes one, with what it sends as its bearer. An older one of the same name is replaced.
pub fn put(port: u16, at: &Address, bearer: &Secret, trigger: &Trigger, sends: &Secret) -> Call {
    let body = json!({
        "name": trigger.name,
        "events": trigger.events,
        "when": trigger.when,
        "action": { "webhook": trigger.webhook, "send": "json", "auth": { "bearer": sends.reveal() } },
    });
    call(Method::Post, port, format!("{}/api/triggers", at.path()), bearer, Some(Secret::new(body.to_string())))
}

/// Removes one.
pub fn delete(port: u16, at: &Address, bearer: &Secret, trigger: &str) -> Call {
    call(Method::Delete, port, format!("{}/api/triggers/{trigger}", at.path()), bearer, None)
}

/// What the answer to [`list`] says.
pub fn read_list(reply: &Reply) -> Vault {
    match reply.status {
        200 => read_triggers(&reply.body).map_or_else(
            || Vault::Unknown("it answered the question for its triggers with something else".to_owned()),
            Vault::Present,
        ),
        404 => Vault::Absent,
        _ => Vault::Unknown(refused(reply)),
    }
}

/// When the trigger was written, as the answer to [`put`] says.
pub fn read_put(reply: &Reply) -> Option<String> {
    let body: Value = serde_json::from_slice(&reply.body).ok()?;
    Some(body.get("trigger")?.get("updated_at")?.as_str()?.to_owned())
}

/// An answer that is no success, in words.
pub fn refused(reply: &Reply) -> String {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let word = |field: &str| body.get(field).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let said = ["message", "error_description", "error"].into_iter().find_map(word);
    match said {
        Some(said) => {
            let said: String = said.chars().filter(|c| !c.is_control()).take(MOST_SAID).collect();
            format!("it answered {}: {said}", reply.status)
        }
        None => format!("it answered {}", reply.status),
    }
}

fn read_triggers(body: &[u8]) -> Option<BTreeMap<String, Seen>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let all = body.get("triggers")?.as_array()?;
    // One that cannot be read would look as if it were not there.
    all.iter().map(|one| Some((one.get("name")?.as_str()?.to_owned(), read(one)))).collect()
}

fn read(one: &Value) -> Seen {
    let action = one.get("action").unwrap_or(&Value::Null);
    let text = |from: &Value, field: &str| from.get(field).and_then(Value::as_str).map(str::to_owned);
    let events = one.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Seen {
        events: events.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        when: one.get("when").cloned().unwrap_or_default(),
        webhook: text(action, "webhook").unwrap_or_default(),
        send: text(action, "send"),
        has_bearer: action.get("auth").and_then(|auth| text(auth, "bearer")).is_some_and(|bearer| !bearer.is_empty()),
        updated_at: text(one, "updated_at").unwrap_or_default(),
    }
}

impl Trigger {
    /// What of it somebody changed, in words; `None` when it is as it was written, as far as can be seen.
    pub fn difference(&self, seen: &Seen) -> Option<String> {
        let sorted = |events: &[String]| {
            let mut events = events.to_vec();
            events.sort();
            events
        };
        if seen.webhook != self.webhook {
            return Some(format!("it sends to {}", shown(&seen.webhook)));
        }
        if sorted(&seen.events) != sorted(&self.events) {
            return Some(format!("its events are {}", seen.events.join(", ")));
        }
        if bare(&seen.when) != bare(&Value::Object(self.when.clone())) {
            return Some("its filter is another one".to_owned());
        }
        if !seen.has_bearer {
            return Some("it sends no bearer".to_owned());
        }
        seen.send.as_deref().filter(|send| *send != "json").map(|send| format!("it sends {send}"))
    }

    /// Of everything in it.
    pub fn digest(&self) -> Digest {
        Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// An address without what may be secret in it.
fn shown(webhook: &str) -> String {
    webhook.split(['?', '#']).next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(120).collect()
}

/// Without what says nothing: a vault may or may not keep empty lists.
fn bare(when: &Value) -> Value {
    match when {
        Value::Object(fields) => {
            let says = |value: &Value| !matches!(value, Value::Null) && value != &json!([]) && value != &json!({});
            Value::Object(fields.iter().filter(|(_, v)| says(v)).map(|(k, v)| (k.clone(), v.clone())).collect())
        }
        Value::Null => json!({}),
        other => other.clone(),
    }
}
