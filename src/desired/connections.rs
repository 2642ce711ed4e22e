//! What connections and vaults can say wrong together with the services that they name: events, actions and credentials that nobody
//! declares, filters and parameters that do not fit what was declared, and two that want the same thing of a vault.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::checks::{Finding, Part, dangling};
use super::link::{Candidates, Version};
use crate::document::near::{listed, nearest};
use crate::kinds::connection::fill::{Filler, KNOWN, Misfit, has_token};
use crate::kinds::connection::inputs::events;
use crate::kinds::connection::spec::{ConnectionSpec, CredentialSpec, Delivery, PrepareSpec, SinkSpec, SourceSpec};
use crate::kinds::service::accepts::{Accepts, Given, check_filter, check_params};
use crate::kinds::service::check::effective_routes;
use crate::kinds::service::declares::{ActionSpec, Declarations, VAULT_TRIGGER, declared};
use crate::kinds::trigger;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::own_scope::is_own;
use crate::model::problem::{Code, Problem};
use crate::model::span::Span;

/// More names than this are no longer read as an answer.
const MOST_NAMES: usize = 12;
/// Where a module speaks of itself; nothing is connected below it.
const ABOUT: &str = "/.parachute";

/// Whether modules can be wired to each other as the documents say.
pub(super) fn check(
    parts: &[Part<'_>],
    candidates: &Candidates<'_>,
    problems: &[Problem],
    findings: &mut Vec<Finding>,
) {
    for part in parts.iter().filter(|part| part.candidate.is_fresh()) {
        broken_schemas(part, findings);
    }
    if !parts.iter().any(|part| matches!(part.id.kind, KindName::Connection | KindName::Vault)) {
        return;
    }
    let by_id: BTreeMap<&ResourceId, &Part<'_>> = parts.iter().map(|part| (part.id, part)).collect();
    for part in parts.iter().filter(|part| part.candidate.is_fresh()) {
        let mut look = Look { part, parts, by_id: &by_id, candidates, problems, findings: &mut *findings };
        if let Some(vault) = part.version.spec.as_vault() {
            look.service(&vault.service, "/spec/service");
        }
        if let Some(connection) = part.version.spec.as_connection() {
            look.connection(connection);
        }
    }
    same_trigger(parts, findings);
    same_vault(parts, findings);
    same_name_elsewhere(parts, findings);
    same_entry(parts, findings);
}

/// A schema that is none is the module's mistake; connections are checked by what is left of it.
fn broken_schemas(part: &Part<'_>, findings: &mut Vec<Finding>) {
    let Some(says) = says(part) else { return };
    let events = says.events.iter().map(|event| (&event.key, &event.filter_schema));
    let actions = says.actions.iter().map(|action| (&action.key, &action.input_schema));
    let fields = [("events", "filterSchema"), ("actions", "inputSchema")];
    let all = events.enumerate().map(|it| (fields[0], it)).chain(actions.enumerate().map(|it| (fields[1], it)));
    for ((list, field), (index, (key, schema))) in all {
        let Some(fault) = schema.as_ref().and_then(Accepts::fault) else { continue };
        let at = place(part.version, &format!("/{list}/{index}/{field}"));
        let message = format!("the `{field}` of `{key}` is no JSON Schema: {fault}");
        let problem = Problem::error(Code::BrokenSchema, at, message).warning();
        let problem = problem.hint("only the names in it count until it is repaired");
        findings.push(Finding { problem, involved: Vec::new() });
    }
}

fn says<'a>(part: &Part<'a>) -> Option<Declarations<'a>> {
    let spec = part.version.spec.as_service()?;
    Some(declared(part.id.name.as_str(), spec, part.version.module.as_deref()))
}

/// Where a declaration stands: in module.json, or in the Service.
fn place(version: &Version, pointer: &str) -> Span {
    match &version.module {
        Some(module) => module.value_at(pointer),
        None => version.document.value_at(&format!("/spec{pointer}")),
    }
}

struct Look<'a> {
    part: &'a Part<'a>,
    parts: &'a [Part<'a>],
    by_id: &'a BTreeMap<&'a ResourceId, &'a Part<'a>>,
    candidates: &'a Candidates<'a>,
    problems: &'a [Problem],
    findings: &'a mut Vec<Finding>,
}

impl<'a> Look<'a> {
    fn connection(&mut self, spec: &'a ConnectionSpec) {
        if let Some(source) = &spec.source {
            self.source(source);
        }
        if let Some(sink) = &spec.sink {
            self.sink(sink, spec.delivery);
        }
        if let Some(credential) = &spec.credential {
            self.credential(credential);
        }
    }

    fn at(&self, pointer: &str) -> Span {
        self.part.version.document.value_at(pointer)
    }

    /// Remembers a mistake. Where the connection stayed as it was and the service did not, the service is to blame.
    fn blame(&mut self, problem: Problem, service: Option<&Part<'_>>) {
        let mut involved = vec![self.part.id.clone()];
        if self.part.candidate.is_unchanged()
            && let Some(service) = service.filter(|service| service.candidate.is_fresh())
            && !service.candidate.is_unchanged()
        {
            involved.push(service.id.clone());
        }
        self.findings.push(Finding { problem, involved });
    }

    /// The service of that name. A name that no manifest declares is told.
    fn service(&mut self, name: &Name, pointer: &str) -> Option<&'a Part<'a>> {
        let target = ResourceId::service(name);
        let known =
            self.candidates.get(&target).is_some_and(|other| other.declared) || self.by_id.contains_key(&target);
        if !known {
            let problem = dangling(self.part.id, self.part.version, pointer, &target, self.candidates, self.problems);
            self.blame(problem, None);
        }
        self.by_id.get(&target).copied()
    }

    fn source(&mut self, source: &'a SourceSpec) {
        let Some(service) = self.service(&source.service, "/spec/source/service") else { return };
        self.vault(&source.service, &source.vault, "/spec/source/vault");
        let Some(says) = says(service) else { return };
        let Some(index) = says.events.iter().position(|event| event.key == source.event) else {
            let keys = says.events.iter().map(|event| event.key.as_str()).collect();
            let problem = self.undeclared(service, ("event", "events"), &source.event, "/spec/source/event", keys);
            return self.blame(problem, Some(service));
        };
        if events(&source.event).is_none() {
            let why = match source.event.as_str() {
                // Its triggers run when a note is written, and then there is none.
                "note.deleted" => "a vault has no trigger for deleted notes: there is no note left to mark as sent",
                _ => "no trigger of a vault listens to it",
            };
            let message = format!("{} cannot listen to `{}`: {why}", self.part.id, source.event);
            let problem = Problem::error(Code::NoTrigger, self.at("/spec/source/event"), message)
                .hint("triggers are for `note.created` and `note.updated`");
            return self.blame(problem, Some(service));
        }
        let pointer = format!("/events/{index}/filterSchema");
        let schema = says.events[index].filter_schema.as_ref();
        self.values(service, "/spec/source/filter", &source.filter, schema, &pointer, check_filter);
    }

    fn sink(&mut self, sink: &'a SinkSpec, delivery: Delivery) {
        let Some(service) = self.service(&sink.service, "/spec/sink/service") else { return };
        let Some(says) = says(service) else { return };
        let Some(index) = says.actions.iter().position(|action| action.key == sink.action) else {
            let keys = says.actions.iter().map(|action| action.key.as_str()).collect();
            let problem = self.undeclared(service, ("action", "actions"), &sink.action, "/spec/sink/action", keys);
            return self.blame(problem, Some(service));
        };
        let action = &says.actions[index];
        if let Some((field, why, hint)) = unconnectable(action) {
            let message = format!("no connection can use the action `{}` of {}: {why}", action.key, service.id);
            let at = place(service.version, &format!("/actions/{index}/{field}"));
            let problem = Problem::error(Code::NotConnectable, self.at("/spec/sink/action"), message)
                .also(at, "this is what it declares")
                .hint(hint);
            self.blame(problem, Some(service));
        }
        self.reachable(service, "/spec/sink/service", delivery == Delivery::Direct);
        let pointer = format!("/actions/{index}/inputSchema");
        self.values(service, "/spec/sink/params", &sink.params, action.input_schema.as_ref(), &pointer, check_params);
        if let Some(prepare) = &sink.prepare {
            self.prepare(service, says, sink, prepare);
        }
    }

    /// What is called must have a port; and through the hub's proxy, a route.
    fn reachable(&mut self, service: &'a Part<'a>, pointer: &str, proxied: bool) {
        let Some(spec) = service.version.spec.as_service() else { return };
        let module = service.version.module.as_deref();
        if spec.port.is_none() && module.is_none() {
            let message = format!("{} has no port, so nobody can call it", service.id);
            let problem = Problem::error(Code::Unreachable, self.at(pointer), message)
                .also(service.version.document.key_at("/spec"), "no `port` is given here")
                .hint(format!("add `port: auto` to {}", service.id));
            return self.blame(problem, Some(service));
        }
        let mounted = effective_routes(spec, module).iter().any(|route| !route.path.starts_with(ABOUT));
        if proxied && !mounted {
            let message = format!("{} has no route, so the hub cannot pass on what a vault sends to it", service.id);
            let problem = Problem::error(Code::Unreachable, self.at(pointer), message)
                .also(self.part.version.document.value_at("/spec/delivery"), "a direct delivery goes by its route")
                .hint("use `delivery: durable`, or give the service a route");
            self.blame(problem, Some(service));
        }
    }

    fn prepare(&mut self, service: &'a Part<'a>, says: Declarations<'a>, sink: &SinkSpec, prepare: &PrepareSpec) {
        let at = "/spec/sink/prepare";
        if !is_own(says.module, &prepare.scope) {
            // Or one module's connection would get a token that governs another.
            let message = format!("`{}` is no scope of {}", prepare.scope, service.id);
            let problem = Problem::error(Code::OutOfRange, self.at(&format!("{at}/scope")), message)
                .hint(format!("it is `{}:` and a verb", says.module));
            self.blame(problem, None);
        }
        if let Some(token) = &prepare.token
            && !["vault:{vault}:read", "vault:{vault}:write"].contains(&token.as_str())
        {
            let message = format!("`{token}` is no scope of the vault that the events come from");
            let problem = Problem::error(Code::OutOfRange, self.at(&format!("{at}/token")), message)
                .hint("write `vault:{vault}:read` or `vault:{vault}:write`, with these very braces");
            self.blame(problem, None);
        }
        let vault = self.part.version.spec.as_connection().and_then(|spec| spec.source.as_ref());
        let vault = vault.map_or("", |source| source.vault.as_str());
        let fill = Filler { connection: &self.part.id.name, vault, vault_port: 0, params: &sink.params };
        let check = prepare.check.as_ref();
        let remove = prepare.remove.as_ref().map(|path| ("remove", path));
        let paths = [("put/path", &prepare.put.path)].into_iter().chain(check.map(|check| ("check/path", &check.path)));
        for (field, path) in paths.chain(remove) {
            if let Err(why) = fill.path(path) {
                self.misfit(&format!("{at}/{field}"), &why);
            }
        }
        let mut texts = Vec::new();
        collect(&Value::Object(prepare.put.body.clone()), &format!("{at}/put/body"), &mut texts);
        let sent = texts.len();
        if let Some(check) = check {
            collect(&Value::Object(check.entry.clone()), &format!("{at}/check/entry"), &mut texts);
        }
        for (index, (pointer, text)) in texts.into_iter().enumerate() {
            if let Err(why) = fill.text(&text) {
                self.misfit(&pointer, &why);
            }
            if !has_token(&text) {
                continue;
            }
            if index >= sent {
                let problem = Problem::error(Code::OutOfRange, self.at(&pointer), "no entry can be known by `{token}`")
                    .hint("it is another one each time; name fields that stay");
                self.blame(problem, None);
            } else if prepare.token.is_none() {
                let problem = Problem::error(Code::MissingField, self.at(&pointer), "there is no `{token}` to send")
                    .hint("add `token: vault:{vault}:write` to `spec.sink.prepare`");
                self.blame(problem, None);
            }
        }
    }

    fn misfit(&mut self, pointer: &str, why: &Misfit) {
        let code = if matches!(why, Misfit::NoParam(_)) { Code::MissingField } else { Code::OutOfRange };
        let problem = Problem::error(code, self.at(pointer), why.to_string());
        self.blame(
            match why {
                Misfit::NoParam(name) => problem.hint(format!("add `{name}: ...` to `spec.sink.params`")),
                Misfit::Unknown(word) => match nearest(word, KNOWN) {
                    Some(near) => problem.hint(format!("did you mean `{{{near}}}`?")),
                    None => {
                        let all = KNOWN.into_iter().chain(["params.NAME"]);
                        problem.hint(format!("there is {}", listed(all, "and", MOST_NAMES)))
                    }
                },
                Misfit::TokenInPath => problem.hint("send it in `body`"),
                Misfit::Astray(_) | Misfit::FalseToken => problem.hint("change the parameter in `spec.sink.params`"),
            },
            None,
        );
    }

    fn credential(&mut self, wish: &'a CredentialSpec) {
        if self.service(&wish.vault_service, "/spec/credential/vaultService").is_some() {
            self.vault(&wish.vault_service, &wish.vault, "/spec/credential/vault");
        }
        let Some(service) = self.service(&wish.service, "/spec/credential/service") else { return };
        let Some(says) = says(service) else { return };
        let Some(index) = says.credentials.iter().position(|credential| credential.key == wish.key) else {
            let keys = says.credentials.iter().map(|credential| credential.key.as_str()).collect();
            let pointer = "/spec/credential/key";
            let problem = self.undeclared(service, ("credential", "credentials"), &wish.key, pointer, keys);
            return self.blame(problem, Some(service));
        };
        self.reachable(service, "/spec/credential/service", false);
        if says.credentials[index].writes() && wish.tags.is_empty() {
            let message = format!("{} lets {} write every note of {}", self.part.id, service.id, wish.vault);
            let problem = Problem::error(Code::MissingField, self.at("/spec/credential"), message)
                .label("`tags` is missing here")
                .also(place(service.version, &format!("/credentials/{index}/scope")), "this credential may write")
                .hint("add `tags: [...]`: a credential that may write is for notes with at least one tag");
            self.blame(problem, Some(service));
        }
    }

    /// A vault that is declared, and for another service, is not the one that was meant: tokens know it by its name alone.
    fn vault(&mut self, service: &Name, vault: &str, pointer: &str) {
        let declared =
            |part: &&Part<'_>| part.version.spec.as_vault().is_some_and(|spec| spec.vault(&part.id.name) == vault);
        let all: Vec<&Part<'_>> = self.parts.iter().filter(declared).collect();
        let here = |part: &&Part<'_>| part.version.spec.as_vault().is_some_and(|spec| spec.service == *service);
        let Some(other) = all.first().filter(|_| !all.iter().any(here)) else { return };
        let Some(spec) = other.version.spec.as_vault() else { return };
        // A Vault of a service that is not there is wrong itself, and that is told.
        if !self.by_id.contains_key(&ResourceId::service(&spec.service)) {
            return;
        }
        let message = format!("{} is declared for Service/{}, and not for Service/{service}", other.id, spec.service);
        let problem = Problem::error(Code::OtherVault, self.at(pointer), message)
            .also(other.version.document.value_at("/spec/service"), "it is this service's")
            .hint(format!("name Service/{}; two vaults of one name would share every token", spec.service));
        self.blame(problem, None);
    }

    fn undeclared(
        &self,
        service: &Part<'_>,
        (one, many): (&str, &str),
        key: &str,
        pointer: &str,
        keys: Vec<&str>,
    ) -> Problem {
        let code = match one {
            "event" => Code::UnknownEvent,
            "action" => Code::UnknownAction,
            _ => Code::UnknownCredential,
        };
        let problem = Problem::error(code, self.at(pointer), format!("{} declares no {one} `{key}`", service.id));
        let from = match &service.version.module {
            Some(module) => module.value_at(&format!("/{many}")),
            None => service.version.document.value_at(&format!("/spec/{many}")),
        };
        if keys.is_empty() {
            let what = if service.version.module.is_some() { "its module.json" } else { "the Service" };
            return problem.hint(format!("it declares none; {what} would say so under `{many}`"));
        }
        let problem = problem.also(from, format!("these are the {many} that it declares"));
        match nearest(key, keys.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint(format!("it declares {}", listed(keys, "and", MOST_NAMES))),
        }
    }

    fn values(
        &mut self,
        service: &'a Part<'a>,
        pointer: &str,
        given: &Map<String, Value>,
        schema: Option<&Accepts>,
        declared: &str,
        check: fn(Option<&Accepts>, Given<'_>) -> Vec<Problem>,
    ) {
        let value = Value::Object(given.clone());
        let document = &self.part.version.document;
        let problems = check(schema, Given { document, pointer, value: Some(&value) });
        for problem in problems {
            let problem = match schema {
                Some(_) => problem.also(place(service.version, declared), "declared here"),
                None => problem,
            };
            self.blame(problem, Some(service));
        }
    }
}

/// Why no connection can use an action: the field, in words, and what to do.
fn unconnectable(action: &ActionSpec) -> Option<(&'static str, String, &'static str)> {
    let hint = "the module has to declare it; a connection can do nothing about it";
    match (&action.endpoint, &action.scope, action.provision_type()) {
        (_, _, other) if other != VAULT_TRIGGER => {
            Some(("provision", format!("it is provisioned by `{other}`, and only `{VAULT_TRIGGER}` is known"), hint))
        }
        (None, _, _) => Some(("key", "it has no `endpoint`".to_owned(), hint)),
        (_, None, _) => Some(("key", "it has no `scope`".to_owned(), hint)),
        (Some(_), Some(_), _) => None,
    }
}

/// Every text in a value, with its pointer.
fn collect(value: &Value, at: &str, texts: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => texts.push((at.to_owned(), text.clone())),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| collect(item, &format!("{at}/{index}"), texts));
        }
        Value::Object(fields) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            fields.iter().for_each(|(key, value)| collect(value, &format!("{at}/{}", escaped(key)), texts));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A vault knows one trigger of a name: of two connections, the later one would take the other's away, again and again.
fn same_trigger(parts: &[Part<'_>], findings: &mut Vec<Finding>) {
    // A name that is given may be the one that another has by itself.
    let hub = parts.iter().find(|part| part.id.kind == KindName::Hub).map(|part| &part.id.name);
    let mut triggers: BTreeMap<(&Name, &str, String), Vec<&Part<'_>>> = BTreeMap::new();
    for part in parts {
        let Some(spec) = part.version.spec.as_connection() else { continue };
        let Some(source) = &spec.source else { continue };
        let derived = || Some(trigger::name(hub?, &source.vault, &part.id.name));
        if let Some(trigger) = spec.trigger_name.clone().or_else(derived) {
            triggers.entry((&source.service, &source.vault, trigger)).or_default().push(part);
        }
    }
    for ((service, vault, trigger), parts) in triggers.into_iter().filter(|(_, parts)| parts.len() > 1) {
        let what = format!("the trigger `{trigger}` at vault {vault} of Service/{service}");
        let hint = "give one of them another `triggerName`, or none";
        findings.extend(clash(parts, Code::TriggerClash, &what, "/spec/triggerName", hint));
    }
}

fn same_vault(parts: &[Part<'_>], findings: &mut Vec<Finding>) {
    let mut vaults: BTreeMap<(&Name, &str), Vec<&Part<'_>>> = BTreeMap::new();
    for part in parts {
        if let Some(spec) = part.version.spec.as_vault() {
            vaults.entry((&spec.service, spec.vault(&part.id.name))).or_default().push(part);
        }
    }
    for ((service, vault), parts) in vaults.into_iter().filter(|(_, parts)| parts.len() > 1) {
        let what = format!("the vault `{vault}` of Service/{service}");
        let hint = "declare it once, or give one of them another `vaultName`";
        findings.extend(clash(parts, Code::VaultClash, &what, "/spec", hint));
    }
}

/// Tokens and grants know a vault by its name alone: what is taken from one would be taken from the other, and what is good for one is
/// good for the other. A connection and a Vault that disagree on the service are told of at the connection.
fn same_name_elsewhere(parts: &[Part<'_>], findings: &mut Vec<Finding>) {
    type Services<'a> = BTreeMap<&'a Name, Vec<&'a Part<'a>>>;
    let (mut declared, mut named): (BTreeMap<&str, Services<'_>>, BTreeMap<&str, Services<'_>>) = Default::default();
    for part in parts {
        if let Some(spec) = part.version.spec.as_vault() {
            let vaults = declared.entry(spec.vault(&part.id.name)).or_default();
            vaults.entry(&spec.service).or_default().push(part);
        }
        if let Some(spec) = part.version.spec.as_connection() {
            let source = spec.source.as_ref().map(|source| (&source.service, &source.vault));
            let credential = spec.credential.as_ref().map(|wish| (&wish.vault_service, &wish.vault));
            if let Some((service, vault)) = source.or(credential) {
                named.entry(vault).or_default().entry(service).or_default().push(part);
            }
        }
    }
    named.retain(|vault, _| !declared.contains_key(vault));
    for (all, pointer) in [(declared, "/spec"), (named, "/spec")] {
        for (vault, services) in all.into_iter().filter(|(_, services)| services.len() > 1) {
            let of = listed(services.keys().map(|name| name.as_str()), "and", MOST_NAMES);
            let what = format!("a vault `{vault}`, of the services {of}: tokens know a vault by its name alone");
            let hint = "give one of the vaults another name";
            findings.extend(clash(services.into_values().flatten().collect(), Code::VaultClash, &what, pointer, hint));
        }
    }
}

/// What one connection takes back from a sink when it goes, another one would miss.
fn same_entry(parts: &[Part<'_>], findings: &mut Vec<Finding>) {
    let mut entries: BTreeMap<(&Name, String), Vec<&Part<'_>>> = BTreeMap::new();
    for part in parts {
        let Some(spec) = part.version.spec.as_connection() else { continue };
        let (Some(source), Some(sink)) = (&spec.source, &spec.sink) else { continue };
        let Some(remove) = sink.prepare.as_ref().and_then(|prepare| prepare.remove.as_ref()) else { continue };
        let name = &part.id.name;
        let fill = Filler { connection: name, vault: &source.vault, vault_port: 0, params: &sink.params };
        if let Ok(path) = fill.path(remove) {
            entries.entry((&sink.service, path)).or_default().push(part);
        }
    }
    for ((service, path), parts) in entries.into_iter().filter(|(_, parts)| parts.len() > 1) {
        let what = format!("what is removed from Service/{service} by `{path}`");
        let hint = "give each of them an entry of its own, such as one with `{connection}` in its path";
        findings.extend(clash(parts, Code::Conflict, &what, "/spec/sink/prepare/remove", hint));
    }
}

/// Reported at whoever came last: what was there before is seldom what has to change.
fn clash(mut parts: Vec<&Part<'_>>, code: Code, what: &str, pointer: &str, hint: &str) -> Option<Finding> {
    let at = |part: &Part<'_>| part.version.document.value_at(pointer);
    parts.sort_by_cached_key(|part| {
        let candidate = part.candidate;
        (!candidate.is_fresh(), candidate.is_unchanged(), candidate.kept.is_some(), std::cmp::Reverse(at(part)))
    });
    let mut names: Vec<String> = parts.iter().map(|part| part.id.to_string()).collect();
    names.sort();
    let both = if names.len() == 2 { "both want" } else { "all want" };
    let (first, more) = parts.split_first()?;
    let message = format!("{} {both} {what}", names.join(" and "));
    let mut problem = Problem::error(code, at(first), message).label(format!("{} wants it", first.id));
    for part in more {
        problem = problem.also(at(part), format!("{} wants it", part.id));
    }
    let involved = parts.iter().map(|part| part.id.clone()).collect();
    Some(Finding { problem: problem.hint(hint), involved })
}
