//! The pretend vaults and sinks, as they answer HTTP: what they keep, in which mood they are, and the events that vaults send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::earth::Earth;
use super::tokens::Tokens;
use super::world::Pretend;
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::hub::Wish;
use crate::ports::peers::{Call, Method, Peers, Reply};
use crate::ports::{Answer, PortError};

/// When a call that is applied late is applied.
const LATE: Millis = Millis(20_000);
/// What vaults show in place of a bearer.
const REDACTED: &str = "[REDACTED]";

/// How the next call is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Done, and the answer is lost.
    Lost,
    /// Done, and once more a while later.
    Twice,
    /// Not done yet when the patience of the caller ends; done a while later.
    Late,
    /// Not done, with this status.
    Status(u16),
    /// Done, with an answer that says nothing.
    Garbled,
    /// Nobody listens at this moment.
    Deaf,
}

/// A trigger as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    pub name: String,
    pub events: Vec<String>,
    pub when: Value,
    pub webhook: String,
    /// What it really sends.
    pub bearer: String,
    pub updated_at: String,
}

/// One vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    pub triggers: BTreeMap<String, Trigger>,
    /// Names of triggers that others wrote, and how they wrote them.
    pub foreign: BTreeMap<String, Trigger>,
    /// The moment of the last write, in milliseconds: no two are the same.
    last: i64,
}

/// One sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sink {
    /// Its channels, by name.
    pub entries: BTreeMap<String, Value>,
    /// The token of each credential, by key.
    pub credentials: BTreeMap<String, String>,
    /// What it was told of them, in order.
    pub told: Vec<String>,
}

/// An event that did not arrive: its note is stuck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub at: Tick,
    pub trigger: String,
    pub why: String,
}

/// Everything at the ends of connections.
#[derive(Clone, Debug, Default)]
pub struct Town {
    pub vaults: BTreeMap<(Name, String), Instance>,
    pub sinks: BTreeMap<Name, Sink>,
    /// What the hub was told to serve; `None` while nobody serves it.
    pub wish: Option<Wish>,
    /// Moods of the next calls that change something; each call takes one.
    pub moods: VecDeque<Mood>,
    /// Chance of a bad mood, in thousandths.
    pub moody: u64,
    late: Vec<(Tick, Call)>,
    /// Calls so far.
    pub calls: Vec<String>,
    /// While this is set, every vault makes a note before each call that counts.
    pub bustling: bool,
    notes: u64,
    pub refused: Vec<Refused>,
    /// Events that were accepted into the queue.
    pub accepted: u64,
    /// Events that the sink took straight from the vault.
    pub direct: u64,
    /// Vaults whose tokens and grants were taken away.
    pub stripped: Vec<String>,
}

/// A vault, by the service that keeps it and its name there.
fn key(service: &str, vault: &str) -> (Name, String) {
    (Name::new(service).expect("a name of a story"), vault.to_owned())
}

fn reply(status: u16, body: &Value) -> Reply {
    Reply { status, body: body.to_string().into_bytes() }
}

fn refusal((status, why): (u16, &str)) -> Reply {
    reply(status, &json!({ "error": "refused", "message": why }))
}

impl Trigger {
    fn read(body: &Value, updated_at: String) -> Option<Self> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let action = body.get("action")?;
        let events = body.get("events")?.as_array()?;
        Some(Self {
            name: text(body.get("name"))?,
            events: events.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            when: body.get("when").filter(|when| when.is_object())?.clone(),
            webhook: text(action.get("webhook"))?,
            bearer: text(action.pointer("/auth/bearer")).unwrap_or_default(),
            updated_at,
        })
    }

    fn shown(&self) -> Value {
        let mut action = json!({ "webhook": self.webhook, "send": "json" });
        if !self.bearer.is_empty() {
            action["auth"] = json!({ "bearer": REDACTED });
        }
        json!({
            "name": self.name, "events": self.events, "when": self.when, "action": action,
            "created_at": "then", "updated_at": self.updated_at,
        })
    }

    fn fires_for(&self, tags: &[&str]) -> bool {
        let wanted = self.when.get("tags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        self.events.iter().any(|event| event == "created")
            && wanted.iter().all(|tag| tag.as_str().is_some_and(|tag| tags.contains(&tag)))
    }
}

impl Instance {
    fn stamp(&mut self, now: Timestamp) -> String {
        self.last = (self.last + 1).max(now.0);
        Timestamp(self.last).to_string()
    }
}

/// What people, other programs and bad luck do at vaults.
impl Earth {
    /// A vault that is there; it is made when it is not.
    pub fn vault(&mut self, service: &str, vault: &str) -> &mut Instance {
        self.town.vaults.entry(key(service, vault)).or_default()
    }

    /// Somebody else's trigger.
    pub fn foreign_trigger(&mut self, service: &str, vault: &str, name: &str) {
        let now = self.wall();
        let instance = self.vault(service, vault);
        let trigger = Trigger {
            name: name.to_owned(),
            events: vec!["updated".to_owned()],
            when: json!({ "tags": ["theirs"] }),
            webhook: "http://127.0.0.1:9/theirs".to_owned(),
            bearer: "theirs".to_owned(),
            updated_at: instance.stamp(now),
        };
        instance.triggers.insert(name.to_owned(), trigger.clone());
        instance.foreign.insert(name.to_owned(), trigger);
    }

    /// Somebody writes all triggers of ours anew: `edit` changes what can be seen, and without it only the bearer is another one.
    pub fn meddle(&mut self, service: &str, vault: &str, edit: bool) {
        let now = self.wall();
        let instance = self.vault(service, vault);
        let names: Vec<String> =
            instance.triggers.keys().filter(|name| !instance.foreign.contains_key(*name)).cloned().collect();
        for name in names {
            let updated_at = instance.stamp(now);
            let Some(trigger) = instance.triggers.get_mut(&name) else { continue };
            trigger.updated_at = updated_at;
            trigger.bearer = "somebody's".to_owned();
            if edit {
                trigger.webhook = "http://127.0.0.1:9/elsewhere".to_owned();
            }
        }
    }

    /// All triggers of ours are gone.
    pub fn lose_triggers(&mut self, service: &str, vault: &str) {
        let instance = self.vault(service, vault);
        let foreign = instance.foreign.clone();
        instance.triggers.retain(|name, _| foreign.contains_key(name));
    }

    /// A copy of a vault takes its place, as when a backup is played back; what others have there stays.
    pub fn rewind(&mut self, service: &str, vault: &str, copy: &Instance) {
        let instance = self.vault(service, vault);
        let foreign = instance.foreign.clone();
        instance.triggers = copy.triggers.clone();
        instance.triggers.retain(|name, _| !copy.foreign.contains_key(name));
        instance.triggers.extend(foreign);
    }

    /// A person revokes every token of a connection.
    pub fn revoke_all(&mut self, connection: &str) {
        let (client, now) = (format!("connection/{connection}/"), self.wall());
        for row in
            self.tokens.rows.values_mut().filter(|row| row.client.starts_with(&client) && row.subject == "connection")
        {
            row.revoked.get_or_insert(now);
        }
    }

    /// The service whose process answers at a port.
    fn answers(&self, port: u16) -> Option<Name> {
        let up =
            |proc: &&super::earth::Proc| proc.port == Some(port) && proc.ready_at <= self.now && proc.ends.is_none();
        self.procs.values().find(up)?.unit.clone()
    }

    /// A note is made in a vault, and sent wherever triggers say.
    pub fn note(&mut self, service: &Name, vault: &str, tags: &[&str]) {
        self.town.notes += 1;
        let id = format!("note-{}", self.town.notes);
        let Some(instance) = self.town.vaults.get(&(service.clone(), vault.to_owned())) else { return };
        let fired: Vec<Trigger> = instance.triggers.values().filter(|t| t.fires_for(tags)).cloned().collect();
        for trigger in fired {
            if let Err(why) = self.send(&trigger, &id) {
                self.town.refused.push(Refused { at: self.now, trigger: trigger.name, why });
            }
        }
    }

    /// Every vault that answers makes a note.
    pub fn notes_everywhere(&mut self, tags: &[&str]) {
        let up: BTreeSet<Name> = self.procs.values().filter_map(|proc| self.answers(proc.port?)).collect();
        let all: Vec<(Name, String)> = self.town.vaults.keys().filter(|(name, _)| up.contains(name)).cloned().collect();
        for (service, vault) in all {
            self.note(&service, &vault, tags);
        }
    }

    fn send(&mut self, trigger: &Trigger, id: &str) -> Result<(), String> {
        let wish = self.town.wish.clone().ok_or("nobody serves the hub")?;
        let base = format!("http://{}", wish.listen.as_deref().unwrap_or("nowhere"));
        let path = trigger.webhook.strip_prefix(&base).ok_or("it sends to somebody else")?;
        let now = self.wall();
        let said = |(status, why): (u16, &str)| format!("{status}: {why}");
        if let Some(connection) = path.strip_prefix("/inbox/") {
            self.tokens.verify(&trigger.bearer, "inbox", &format!("inbox:{connection}"), now).map_err(said)?;
            let name = Name::new(connection).ok().filter(|name| wish.connections.contains_key(name));
            let name = name.ok_or_else(|| said((404, "there is no such durable connection")))?;
            self.queue.accept(&name, id, now);
            self.town.accepted += 1;
            return Ok(());
        }
        let fits = |mount: &str| path == mount || path.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'));
        let sink = wish.upstreams.iter().find(|(_, up)| up.routes.iter().any(|route| fits(&route.path)));
        let (name, up) = sink.ok_or("404: no such mount")?;
        let up = up.port.and_then(|port| self.answers(port)).as_ref() == Some(name);
        if !up {
            return Err("503: the sink does not answer".to_owned());
        }
        self.tokens.verify(&trigger.bearer, name.as_str(), &format!("{name}:send"), now).map_err(said)?;
        self.town.direct += 1;
        Ok(())
    }

    /// What was to be applied late and is due.
    pub fn apply_late(&mut self) {
        let now = self.now;
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.town.late).into_iter().partition(|(at, _)| *at <= now);
        self.town.late = rest;
        for (_, call) in due {
            let _ = self.answer(&call);
        }
    }

    /// Whether a call is still to be applied.
    pub fn is_late(&self) -> bool {
        !self.town.late.is_empty()
    }

    /// The answer of whoever listens at the port.
    fn answer(&mut self, call: &Call) -> Option<Reply> {
        let service = self.answers(call.port)?;
        Some(match call.path.strip_prefix("/vault/").and_then(|rest| rest.split_once("/api/triggers")) {
            Some((vault, rest)) => self.answer_of_vault(&service, vault, rest, call),
            None => self.answer_of_sink(&service, call),
        })
    }

    fn answer_of_vault(&mut self, service: &Name, vault: &str, rest: &str, call: &Call) -> Reply {
        let now = self.wall();
        let at = (service.clone(), vault.to_owned());
        let Some(instance) = self.town.vaults.get_mut(&at) else {
            return reply(404, &json!({ "error": "Not found" }));
        };
        let bearer = call.bearer.as_ref().map(|bearer| bearer.reveal()).unwrap_or_default();
        let scope = format!("vault:{vault}:admin");
        if let Err(why) = self.tokens.verify(bearer, &format!("vault.{vault}"), &scope, now) {
            return refusal(why);
        }
        let named = rest.strip_prefix('/');
        match (call.method, named) {
            (Method::Get, None) => {
                let all: Vec<Value> = instance.triggers.values().map(Trigger::shown).collect();
                reply(200, &json!({ "triggers": all }))
            }
            (Method::Get, Some(name)) => match instance.triggers.get(name) {
                Some(trigger) => reply(200, &json!({ "trigger": trigger.shown() })),
                None => reply(404, &json!({ "error": "Not found", "name": name })),
            },
            (Method::Post, None) => {
                let stamp = instance.stamp(now);
                let body = call.body.as_ref().and_then(|body| serde_json::from_str(body.reveal()).ok());
                let Some(trigger) = body.and_then(|body: Value| Trigger::read(&body, stamp)) else {
                    return reply(400, &json!({ "error": "this is no trigger" }));
                };
                if instance.foreign.contains_key(&trigger.name) {
                    self.broken.push(format!("{} of somebody else was overwritten", trigger.name));
                }
                let shown = json!({ "trigger": trigger.shown() });
                instance.triggers.insert(trigger.name.clone(), trigger);
                reply(200, &shown)
            }
            (Method::Delete, Some(name)) => {
                if instance.foreign.contains_key(name) {
                    self.broken.push(format!("{name} of somebody else was removed"));
                }
                match instance.triggers.remove(name) {
                    Some(_) => reply(200, &json!({ "deleted": name })),
                    None => reply(404, &json!({ "error": "Not found", "name": name })),
                }
            }
            _ => reply(405, &json!({ "error": "Method not allowed" })),
        }
    }

    fn answer_of_sink(&mut self, service: &Name, call: &Call) -> Reply {
        let now = self.wall();
        let bearer = call.bearer.as_ref().map(|bearer| bearer.reveal()).unwrap_or_default();
        if let Err(why) = self.tokens.verify(bearer, service.as_str(), &format!("{service}:admin"), now) {
            return refusal(why);
        }
        let sink = self.town.sinks.entry(service.clone()).or_default();
        let body: Option<Value> = call.body.as_ref().and_then(|body| serde_json::from_str(body.reveal()).ok());
        let text = |field: &str| body.as_ref().and_then(|body| body.get(field)?.as_str().map(str::to_owned));
        match (call.method, call.path.as_str()) {
            (Method::Get, "/api/channels") => {
                let all: Vec<Value> = sink.entries.keys().map(|name| json!({ "name": name, "live": true })).collect();
                reply(200, &json!({ "channels": all }))
            }
            (Method::Post, "/api/channels") => match (text("name"), body.as_ref()) {
                (Some(name), Some(body)) => {
                    sink.entries.insert(name, body.clone());
                    reply(200, &json!({ "ok": true }))
                }
                _ => reply(400, &json!({ "error": "no name" })),
            },
            (Method::Post, "/api/credential") => {
                let (op, key) = (text("op").unwrap_or_default(), text("key").unwrap_or_default());
                match text("token") {
                    Some(token) => drop(sink.credentials.insert(key, token)),
                    None => drop(sink.credentials.remove(&key)),
                }
                sink.told.push(op);
                reply(200, &json!({ "ok": true }))
            }
            (Method::Delete, path) => match path.strip_prefix("/api/channels/").map(|name| sink.entries.remove(name)) {
                Some(Some(_)) => reply(200, &json!({ "ok": true })),
                _ => reply(404, &json!({ "error": "not found" })),
            },
            _ => reply(404, &json!({ "error": "not found" })),
        }
    }

    /// A command of the program of a vault's service: `... SERVICE create NAME --json`, `... SERVICE remove NAME --yes`.
    pub(super) fn command(&mut self, argv: &[String]) -> Result<(), String> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        match words[..] {
            [.., service, "create", name, "--json"] => {
                self.vault(service, name);
                Ok(())
            }
            [.., service, "remove", name, "--yes"] => match self.town.vaults.remove(&key(service, name)) {
                Some(_) => Ok(()),
                None => Err(format!("there is no vault {name}")),
            },
            _ => Ok(()),
        }
    }

    /// What a sink does late stays there, when its connection is gone: nothing says whose it is.
    fn mood(&mut self, call: &Call) -> Option<Mood> {
        let late = |mood: &Mood| matches!(mood, Mood::Twice | Mood::Late) && !call.path.starts_with("/vault/");
        self.any_mood(call).filter(|mood| !late(mood))
    }

    fn any_mood(&mut self, call: &Call) -> Option<Mood> {
        if call.method == Method::Get && self.town.moods.front().is_some_and(|mood| !matches!(mood, Mood::Deaf)) {
            return None;
        }
        if let Some(mood) = self.town.moods.pop_front() {
            return Some(mood);
        }
        if self.town.moody == 0 || self.roll() % 1_000 >= self.town.moody {
            return None;
        }
        let statuses = [401, 403, 404, 409, 429, 500];
        Some(match self.roll() % 7 {
            0 => Mood::Lost,
            1 => Mood::Twice,
            2 => Mood::Late,
            3 => Mood::Garbled,
            4 => Mood::Deaf,
            _ => Mood::Status(statuses[(self.roll() % 6) as usize]),
        })
    }

    fn take(&mut self, call: &Call) -> Result<Reply, PortError> {
        self.apply_late();
        let deaf = || PortError::Retry("connection refused".to_owned());
        self.town.calls.push(format!("{} {}", call.method.as_str(), call.path));
        let mood = self.mood(call);
        let later = (self.now + LATE, call.clone());
        let unsure = Err(PortError::Unsure("no answer in time".to_owned()));
        match mood {
            Some(Mood::Deaf) => return Err(deaf()),
            Some(Mood::Status(status)) if self.answers(call.port).is_some() => {
                return Ok(refusal((status, "not today")));
            }
            Some(Mood::Late) => {
                self.town.late.push(later);
                return unsure;
            }
            _ => {}
        }
        let reply = self.answer(call).ok_or_else(deaf)?;
        match mood {
            Some(Mood::Lost) => unsure,
            Some(Mood::Garbled) => Ok(Reply { status: 200, body: b"<html>".to_vec() }),
            Some(Mood::Twice) => {
                self.town.late.push(later);
                Ok(reply)
            }
            _ => Ok(reply),
        }
    }

    /// The id of the token that a trigger really sends.
    pub fn sent_by(&self, service: &str, vault: &str, trigger: &str) -> Option<String> {
        Tokens::jti(&self.town.vaults.get(&key(service, vault))?.triggers.get(trigger)?.bearer)
    }
}

impl Pretend {
    /// Somebody makes notes while we work; nobody takes them in when we are dead.
    pub(super) fn bustle(&self) {
        let earth = &mut *self.earth.borrow_mut();
        if earth.town.bustling && earth.town.wish.is_some() && !self.fate.dead() {
            earth.notes_everywhere(&["in"]);
        }
    }
}

impl Peers for Pretend {
    fn call(&self, call: Call) -> Answer<'_, Result<Reply, PortError>> {
        self.bustle();
        let name = match (call.method, call.path.starts_with("/vault/")) {
            (Method::Get, true) => "peers.list",
            (Method::Delete, true) => "peers.delete",
            (_, true) => "peers.put",
            (Method::Get, false) => "peers.check",
            (_, false) => "peers.tell",
        };
        let answer = self.fate.effect(name, || self.earth.borrow_mut().take(&call));
        Box::pin(std::future::ready(answer))
    }
}
