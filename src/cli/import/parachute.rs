//! From the home of an older hub to manifests. Pure. Whatever is decided on the way is said: in a note, and in a comment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::check::settle;
use super::note::{Level, Note};
use super::old::{Found, Home, Record, Row};
use super::yaml::Draft;
use crate::kinds::service::declares::{ActionSpec, Declarations};
use crate::kinds::service::module::{MANIFEST, Module, ModuleFault};
use crate::model::id::Name;
use crate::model::route::is_own;

/// What an import comes to.
#[derive(Debug, Default)]
pub struct Translation {
    /// File names and texts.
    pub files: Vec<(&'static str, String)>,
    pub notes: Vec<Note>,
    /// How many resources the files declare.
    pub resources: usize,
}

/// Programs of modules whose module.json does not say how they start, as the older hub knows them.
const STARTS: [(&str, [&str; 2]); 2] =
    [("vault", ["parachute-vault", "serve"]), ("scribe", ["parachute-scribe", "serve"])];
/// Modules that newer versions of the older hub do not install any more.
const RETIRED: [&str; 6] = ["runner", "agent", "channel", "scribe", "notes", "claw"];
/// What the triggers of a vault tell of, for a vault that declares no events.
const VAULT_EVENTS: [(&str, &str); 2] = [("note.created", "A note was made"), ("note.updated", "A note was changed")];
/// What the older hub made of a filter.
const LISTS: [&str; 3] = ["tags", "has_metadata", "missing_metadata"];
/// So long a name may be, with room for a number behind it.
const LONGEST_NAME: usize = 58;

/// Makes manifests of everything that can be taken over.
pub fn translate(home: &Home, notes: Vec<Note>) -> Translation {
    let mut work = Work { home, notes, names: BTreeMap::new(), services: Vec::new(), drafts: Vec::new() };
    work.hub();
    work.rows();
    work.vaults();
    work.records();
    work.unread();
    let Work { notes, drafts, .. } = work;
    settle(drafts, notes, home)
}

/// A row that became a Service.
struct Service<'a> {
    name: Name,
    /// The short name of its module.
    short: String,
    row: &'a Row,
    at: &'a str,
    module: Option<&'a Module>,
    /// Every path of its row or rows.
    paths: Vec<String>,
}

struct Work<'a> {
    home: &'a Home,
    notes: Vec<Note>,
    /// Names that are given away, by kind.
    names: BTreeMap<&'static str, BTreeSet<String>>,
    services: Vec<Service<'a>>,
    drafts: Vec<Draft>,
}

impl<'a> Work<'a> {
    fn note(&mut self, level: Level, at: &str, message: impl Into<String>) {
        self.notes.push(Note::new(level, at, message));
    }

    /// A DNS label made of a name, and not given away yet. Says so when it is another one.
    fn name(&mut self, kind: &'static str, old: &str, at: &str) -> Name {
        let mut label: String = old
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(LONGEST_NAME)
            .collect();
        label = label.trim_matches('-').to_owned();
        if label.is_empty() {
            label = kind.to_ascii_lowercase();
        }
        let taken = self.names.entry(kind).or_default();
        let mut name = label.clone();
        for number in 2.. {
            if taken.insert(name.clone()) {
                break;
            }
            name = format!("{label}-{number}");
        }
        if name != old {
            let why = if name == label { "which is no DNS label" } else { "which is taken" };
            self.note(Level::Note, at, format!("`{old}`, {why}, is {kind}/{name} here"));
        }
        Name::new(&name).unwrap_or_else(|_| Name::new("imported").expect("a DNS label"))
    }

    fn hub(&mut self) {
        let name = self.name("Hub", "home", "");
        let from = format!("The older hub at {}", self.home.folder.display());
        let mut draft = Draft { kind: "Hub", name: name.to_string(), from, ..Draft::default() };
        draft.comment("Modules keep their home, and with it services.json and what they store there.");
        draft.field("listen", &json!("127.0.0.1:1939"));
        draft.field("home", &json!(self.home.folder.to_string_lossy()));
        match &self.home.origin {
            Some(origin) => draft.field("origin", &json!(origin)),
            None => {
                draft.line("# origin: https://hub.example.org   # the issuer of tokens, where others reach the hub")
            }
        }
        self.drafts.push(draft);
    }

    /// What the home holds and this does not read.
    fn unread(&mut self) {
        let home = self.home.folder.display().to_string();
        for file in &self.home.unread {
            let what = match *file {
                "hub.db" => {
                    "keys, tokens, users and grants stay with the older hub; trueup makes keys and tokens of its own"
                }
                "operator.token" => "trueup writes its own operator token there when it runs first",
                _ => "it is not read",
            };
            self.notes.push(Note::new(Level::Note, format!("{home}/{file}"), what));
        }
    }

    fn rows(&mut self) {
        let mut ports: BTreeMap<u16, String> = BTreeMap::new();
        let mut routes: BTreeMap<String, String> = BTreeMap::new();
        for Found { what: row, at } in &self.home.rows {
            if self.services.iter().any(|service| service.row.name == row.name) {
                self.note(Level::LeftOut, at, format!("the row `{}` stands twice; the first one counts", row.name));
                continue;
            }
            if let Some(holder) = ports.get(&row.port) {
                let holder = holder.clone();
                let vault = |name: &str| name == "parachute-vault" || name.starts_with("parachute-vault-");
                let owner = self.services.iter_mut().find(|service| service.row.name == holder);
                match owner.filter(|_| vault(&row.name) && vault(&holder)) {
                    Some(owner) => {
                        owner.paths.extend(
                            row.paths.iter().filter(|path| !owner.paths.contains(path)).cloned().collect::<Vec<_>>(),
                        );
                        let message =
                            format!("the row `{}` is the same program as `{holder}`; its paths are there", row.name);
                        self.note(Level::Note, at, message);
                    }
                    None => {
                        let message =
                            format!("the row `{}` has port {}, which `{holder}` has already", row.name, row.port);
                        self.note(Level::LeftOut, at, message);
                    }
                }
                continue;
            }
            ports.insert(row.port, row.name.clone());
            let module = self.module(row, at);
            let short = match module {
                Some(module) => module.name.clone(),
                None => row.name.strip_prefix("parachute-").unwrap_or(&row.name).to_owned(),
            };
            if RETIRED.contains(&short.as_str()) {
                self.note(
                    Level::Note,
                    at,
                    format!("`{short}` is retired in newer versions of the older hub; here it runs on"),
                );
            }
            let name = self.name("Service", &short, at);
            self.services.push(Service { name, short, row, at, module, paths: row.paths.clone() });
        }
        for index in 0..self.services.len() {
            let draft = self.service(index, &mut routes);
            self.drafts.extend(draft);
        }
    }

    /// The module.json of a row, if it has a usable one.
    fn module(&mut self, row: &Row, at: &str) -> Option<&'a Module> {
        let Some(dir) = &row.install_dir else {
            let message = format!("the row `{}` has no installDir, so nothing is known of what it declares", row.name);
            self.note(Level::Warning, at, message);
            return None;
        };
        let why = match self.home.modules.get(&self.folder(dir).join(MANIFEST)) {
            Some(Ok(module)) => return Some(module),
            Some(Err(ModuleFault::Invalid { problems, .. })) => {
                for problem in problems {
                    let message = format!("the module.json of `{}` cannot be used: {}", row.name, problem.message);
                    self.note(Level::Warning, &problem.span().to_string(), message);
                }
                return None;
            }
            Some(Err(ModuleFault::Unreadable(why))) => format!("its module.json cannot be read: {why}"),
            Some(Err(ModuleFault::Missing)) | None => "it has no module.json".to_owned(),
        };
        self.note(Level::Warning, at, format!("the row `{}`: {why} ({dir}/{MANIFEST})", row.name));
        None
    }

    fn folder(&self, dir: &str) -> PathBuf {
        self.home.folder.join(dir)
    }

    /// Whether a connection listens to a vault of this service.
    fn is_heard(&self, service: &Service<'_>) -> bool {
        let vaults: Vec<&str> = service.paths.iter().filter_map(|path| vault_of(path)).collect();
        let of = |record: &Record| record.source.vault.clone().or_else(|| record.provisioned.vault.clone());
        let listens =
            |record: &Record| record.kind.is_none() && of(record).is_some_and(|v| vaults.contains(&v.as_str()));
        self.home.records.iter().any(|record| listens(&record.what))
    }

    fn service(&mut self, index: usize, taken: &mut BTreeMap<String, String>) -> Option<Draft> {
        let service = &self.services[index];
        let (row, at, module) = (service.row, service.at, service.module);
        let (name, short, paths) = (service.name.to_string(), service.short.clone(), service.paths.clone());
        let mut draft = Draft { kind: "Service", name, from: format!("{at} {}", row.name), ..Draft::default() };
        let known = STARTS.iter().find(|(known, _)| *known == short).map(|(_, argv)| argv.map(str::to_owned).to_vec());
        let start = module.and_then(|module| module.start_cmd.clone());
        // A vault that declares no events would have no connections; what its triggers tell of is known.
        let mute = short == "vault" && module.is_none_or(|module| module.events.is_empty()) && self.is_heard(service);
        let as_module = start.is_some() && !mute;
        let dir = row.install_dir.as_ref().map(|dir| self.folder(dir));
        match (as_module, start.or(known), &dir) {
            (true, _, Some(dir)) => draft.field("module", &json!(dir.to_string_lossy())),
            (_, Some(argv), _) => {
                draft.field("command", &json!(argv));
                if let Some(dir) = &dir {
                    draft.field("workingDir", &json!(dir.to_string_lossy()));
                }
                if mute {
                    draft.comment("The module declares no events, so those of a vault's triggers are declared here, and `command` stands for `module`.");
                }
            }
            (_, None, _) => {
                let why = "nothing says how it starts: it has no module.json with a startCmd";
                self.note(Level::LeftOut, at, format!("the row `{}`: {why}", row.name));
                draft.left_out = Some(why.to_owned());
                draft.line("command: [PROGRAM, ARGUMENT]");
            }
        }
        draft.field("port", &json!(row.port));
        if let Some(module) = module.filter(|module| module.port != row.port) {
            let message =
                format!("the port is {} as services.json has it; the module's own would be {}", row.port, module.port);
            self.note(Level::Note, at, message.clone());
            draft.comment(message);
        }
        if !as_module || module.is_some_and(|module| module.manifest_name != row.name) {
            draft.field("registersAs", &json!(row.name));
        }
        self.env(&short, &mut draft);
        self.routes(row, at, as_module.then_some(module).flatten(), &paths, taken, &mut draft);
        if !as_module || module.is_some_and(|module| module.health != row.health) {
            draft.field("readiness", &json!({ "http": { "path": row.health } }));
        }
        if !as_module {
            declarations(module, mute, &mut draft);
        }
        for (slug, ui) in &row.uis {
            let audience = ui.get("audience").and_then(Value::as_str).unwrap_or("hub-users");
            if audience != "public" {
                let message = format!(
                    "the page `{slug}` of `{}` was for {audience} only, which trueup does not enforce",
                    row.name
                );
                self.note(Level::Warning, at, format!("{message}: see to its `exposure`"));
                draft.comment(message);
            }
        }
        Some(draft)
    }

    fn env(&mut self, short: &str, draft: &mut Draft) {
        let Some(env) = self.home.envs.get(short) else { return };
        let list = json!([env.path.to_string_lossy()]);
        match env.bad.first() {
            None => draft.field("envFile", &list),
            Some(first) => {
                let at = format!("{}:{first}:1", env.path.display());
                let message = "the line is not KEY=VALUE, so the file cannot be an envFile before it is repaired";
                self.note(Level::LeftOut, &at, message);
                draft.line(format!("# envFile: {}   # line {first} is not KEY=VALUE", super::yaml::flow(&list)));
            }
        }
    }

    fn routes(
        &mut self,
        row: &Row,
        at: &str,
        module: Option<&Module>,
        paths: &[String],
        taken: &mut BTreeMap<String, String>,
        draft: &mut Draft,
    ) {
        let mut routes = Vec::new();
        for path in paths {
            let mount = match path.trim_end_matches('/') {
                "" => "/",
                mount => mount,
            };
            if !path.starts_with('/') || path.contains(char::is_whitespace) || is_own(mount) {
                let why = if is_own(mount) { "the hub answers it itself" } else { "it is no path" };
                self.note(Level::LeftOut, at, format!("the path `{path}` of `{}`: {why}", row.name));
                continue;
            }
            if let Some(other) = taken.insert(mount.to_owned(), row.name.clone()) {
                self.note(
                    Level::LeftOut,
                    at,
                    format!("the path `{path}` of `{}` belongs to `{other}` already", row.name),
                );
                taken.insert(mount.to_owned(), other);
                continue;
            }
            let mut route = Map::new();
            route.insert("path".to_owned(), json!(mount));
            let strip = row.strip_prefix.or(module.map(|module| module.strip_prefix)).unwrap_or_default();
            let websocket = row.websocket.or(module.map(|module| module.websocket)).unwrap_or_default();
            if strip {
                route.insert("stripPrefix".to_owned(), json!(true));
            }
            if websocket {
                route.insert("websocket".to_owned(), json!(true));
            }
            if let Some(exposure) = row.public_exposure.filter(|exposure| *exposure != Default::default()) {
                route.insert("exposure".to_owned(), json!(exposure));
            }
            routes.push(Value::Object(route));
        }
        if !routes.is_empty() {
            draft.line("routes:");
            routes.iter().for_each(|route| draft.line(format!("  - {}", super::yaml::flow(route))));
        } else if module.is_some() {
            draft.comment("Its row has no paths; without routes here, those of its module.json count.");
        }
    }

    fn vaults(&mut self) {
        let found: Vec<(String, String, String, String)> = self
            .services
            .iter()
            .flat_map(|service| {
                let own = service.paths.iter().filter_map(|path| vault_of(path));
                own.map(|vault| {
                    (vault.to_owned(), service.name.to_string(), service.at.to_owned(), service.row.name.clone())
                })
            })
            .collect();
        let mut seen = BTreeSet::new();
        for (vault, service, at, row) in found {
            if !seen.insert((service.clone(), vault.clone())) {
                continue;
            }
            if !is_vault(&vault) {
                self.note(Level::LeftOut, &at, format!("`{vault}` in the paths of `{row}` is no name of a vault"));
                continue;
            }
            let name = self.name("Vault", &vault, &at);
            let mut draft = Draft {
                kind: "Vault",
                name: name.to_string(),
                from: format!("{at} /vault/{vault}"),
                ..Draft::default()
            };
            draft.field("service", &json!(service));
            if name.as_str() != vault {
                draft.field("vaultName", &json!(vault));
            }
            draft.line("deletionPolicy: Retain");
            self.drafts.push(draft);
        }
    }

    /// The service of a module, by the short name that records have.
    fn of_module(&self, module: &str) -> Option<&Service<'a>> {
        // The same module, before and after it was renamed.
        let aliases: &[&str] = if ["agent", "channel"].contains(&module) { &["agent", "channel"] } else { &[] };
        let by = |short: &str| self.services.iter().find(|service| service.short == short);
        by(module).or_else(|| aliases.iter().find_map(|alias| by(alias)))
    }

    fn of_vault(&self, vault: &str) -> Option<&Service<'a>> {
        self.services.iter().find(|service| service.paths.iter().any(|path| vault_of(path) == Some(vault)))
    }

    fn records(&mut self) {
        let mut seen = BTreeSet::new();
        for Found { what: record, at } in &self.home.records {
            if !seen.insert(record.id.clone()) {
                self.note(Level::LeftOut, at, format!("the record `{}` stands twice; the first one counts", record.id));
                continue;
            }
            let draft = match record.kind.as_deref() {
                Some("credential") => self.credential(record, at),
                None => self.connection(record, at),
                Some(other) => Err(format!("its kind `{other}` is not known")),
            };
            match draft {
                Ok(draft) => self.drafts.push(draft),
                Err(why) => self.note(Level::LeftOut, at, format!("the connection `{}`: {why}", record.id)),
            }
        }
    }

    fn begin(&mut self, record: &Record, at: &str) -> Draft {
        let name = self.name("Connection", &record.id, at);
        let mut draft = Draft {
            kind: "Connection",
            name: name.to_string(),
            from: format!("{at} {}", record.id),
            ..Draft::default()
        };
        let by = record.requested_by.as_deref().map(|by| format!("Requested by {by}"));
        let when = record.created_at.as_deref().map(|when| format!("made {when}"));
        let said: Vec<String> = by.into_iter().chain(when).collect();
        if !said.is_empty() {
            draft.comment(format!("{}.", said.join(", ")));
        }
        draft
    }

    fn connection(&mut self, record: &Record, at: &str) -> Result<Draft, String> {
        let vault = record.source.vault.as_deref().or(record.provisioned.vault.as_deref());
        let vault = vault.ok_or("it names no vault")?.to_owned();
        if record.source.module != "vault" {
            return Err(format!(
                "its source is the module `{}`, and only vaults can be listened to",
                record.source.module
            ));
        }
        let from = self.of_vault(&vault).map(|service| service.name.clone());
        let from = from.ok_or_else(|| format!("no row of services.json has the vault `{vault}`"))?;
        let sink = self.of_module(&record.sink.module);
        let sink = sink.ok_or_else(|| format!("no row of services.json is the module `{}`", record.sink.module))?;
        let (to, space, module) = (sink.name.clone(), sink.short.clone(), sink.module);
        let mut draft = self.begin(record, at);
        if record.provisioned.minted_jtis.is_none() {
            let message = format!(
                "`{}` is from before tokens were registered: the one its trigger sends cannot be revoked, and ends by itself",
                record.id
            );
            self.note(Level::Warning, at, message);
            draft.comment("Its old token was never registered; it is replaced, and ends by itself.");
        }
        draft.line("source:");
        draft.line(format!("  service: {from}"));
        draft.line(format!("  vault: {}", super::yaml::flow(&json!(vault))));
        draft.line(format!("  event: {}", super::yaml::flow(&json!(record.source.event))));
        self.filter(record, at, &mut draft);
        draft.line("sink:");
        draft.line(format!("  service: {to}"));
        draft.line(format!("  action: {}", super::yaml::flow(&json!(record.sink.action))));
        let action = module.and_then(|module| module.actions.iter().find(|action| action.key == record.sink.action));
        self.params(record, at, action, &space, &mut draft);
        draft.comment(
            "The older hub sent events once and directly; now the hub stores each and delivers it until it is taken.",
        );
        draft.line("delivery: durable");
        // By this name the vault remembers which notes it has sent.
        let trigger = record.provisioned.trigger_name.clone().unwrap_or_else(|| format!("conn_{}", record.id));
        draft.field("triggerName", &json!(trigger));
        let message = format!(
            "the trigger `{trigger}` keeps its name, and so the notes that were sent; it gets a new webhook (the hub's own inbox, from this machine) and a new token"
        );
        self.note(Level::Note, at, message);
        Ok(draft)
    }

    /// What the older hub made of the filter, which is less than what stands there.
    fn filter(&mut self, record: &Record, at: &str, draft: &mut Draft) {
        let Some(Value::Object(filter)) = &record.source.filter else { return };
        let (mut kept, mut dropped) = (Map::new(), Vec::new());
        for (key, value) in filter {
            let made = match (key.as_str(), value) {
                (list, Value::Array(items)) if LISTS.contains(&list) => {
                    let texts: Vec<&Value> = items.iter().filter(|item| item.is_string()).collect();
                    if texts.len() < items.len() {
                        dropped.push(format!("the entries of `{key}` that are no text"));
                    }
                    (!texts.is_empty()).then(|| json!(texts))
                }
                ("has_content", Value::Bool(has)) => Some(json!(has)),
                _ => {
                    dropped.push(format!("`{key}`"));
                    draft.comment(format!(
                        "The older hub ignored this part of the filter: {key}: {}",
                        super::yaml::flow(value)
                    ));
                    None
                }
            };
            kept.extend(made.map(|made| (key.clone(), made)));
        }
        if !dropped.is_empty() {
            let message = format!(
                "the older hub ignored {} in the filter of `{}`, so more notes were sent than it says; it is left out",
                dropped.join(" and "),
                record.id
            );
            self.note(Level::Warning, at, message);
        }
        if !kept.is_empty() {
            draft.line(format!("  filter: {}", super::yaml::flow(&Value::Object(kept))));
        }
    }

    /// The parameters that the action declares, and what the agent was told beside.
    fn params(&mut self, record: &Record, at: &str, action: Option<&ActionSpec>, space: &str, draft: &mut Draft) {
        let empty = Map::new();
        let params = record.sink.params.as_ref().and_then(Value::as_object).unwrap_or(&empty);
        let declared = |key: &str| {
            let schema = action.and_then(|action| action.input_schema.as_ref());
            schema.is_some_and(|schema| schema.keys().is_empty() || schema.keys().contains(&key))
        };
        let delivers = ["agent", "channel"].contains(&space) && record.sink.action == "message.deliver";
        let kept: Map<String, Value> =
            params.iter().filter(|(key, _)| declared(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in params.iter().filter(|(key, _)| !declared(key)) {
            if delivers && key == "channel" {
                continue;
            }
            let message = format!(
                "`{}` gives the parameter `{key}`, which the action does not declare; it is left out",
                record.id
            );
            self.note(Level::Warning, at, message);
            draft.comment(format!("The action does not declare this parameter: {key}: {}", super::yaml::flow(value)));
        }
        if !kept.is_empty() {
            draft.line(format!("  params: {}", super::yaml::flow(&json!(kept))));
        }
        let Some(channel) = params.get("channel").and_then(Value::as_str).filter(|_| delivers) else { return };
        let channel = if kept.contains_key("channel") { "{params.channel}" } else { channel };
        let body = json!({
            "name": channel, "transport": "vault",
            "config": { "vault": "{vault}", "vaultUrl": "{vaultUrl}", "token": "{token}" },
        });
        draft.comment("The channel of the agent, with the token by which it replies, is written anew.");
        draft.line("  prepare:");
        draft.line(format!("    scope: {}", super::yaml::flow(&json!(format!("{space}:admin")))));
        draft.line("    token: \"vault:{vault}:write\"");
        draft.line("    put:");
        draft.line("      path: /api/channels");
        draft.line(format!("      body: {}", super::yaml::flow(&body)));
        let check = json!({ "path": "/api/channels", "list": "channels", "entry": { "name": channel } });
        draft.line(format!("    check: {}", super::yaml::flow(&check)));
        draft.line(format!("    remove: {}", super::yaml::flow(&json!(format!("/api/channels/{channel}")))));
        let message = format!("the channel of `{}` is written anew at the agent, with a new token", record.id);
        self.note(Level::Note, at, message);
    }

    fn credential(&mut self, record: &Record, at: &str) -> Result<Draft, String> {
        if record.status.as_deref() == Some("pending") {
            return Err("it waits for approval, and nobody gave it".to_owned());
        }
        let vault = record.provisioned.vault.as_deref().or(record.source.vault.as_deref());
        let vault = vault.ok_or("it names no vault")?.to_owned();
        let key = record.provisioned.credential_key.as_deref().or(record.sink.action.strip_prefix("credential."));
        let key = key.ok_or("it names no credential")?.to_owned();
        let from = self.of_vault(&vault).map(|service| service.name.clone());
        let from = from.ok_or_else(|| format!("no row of services.json has the vault `{vault}`"))?;
        let to = self.of_module(&record.sink.module).map(|service| service.name.clone());
        let to = to.ok_or_else(|| format!("no row of services.json is the module `{}`", record.sink.module))?;
        let listed = record.sink.params.as_ref().and_then(|params| params.get("tags")?.as_array());
        let listed =
            || listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<String>>();
        let tags = record.provisioned.scoped_tags.clone().unwrap_or_else(listed);
        let mut draft = self.begin(record, at);
        draft.line("credential:");
        for (name, value) in
            [("service", to.as_str()), ("key", &key), ("vaultService", from.as_str()), ("vault", &vault)]
        {
            draft.line(format!("  {name}: {}", super::yaml::flow(&json!(value))));
        }
        if !tags.is_empty() {
            draft.line(format!("  tags: {}", super::yaml::flow(&json!(tags))));
        }
        let message = format!(
            "the module of `{}` is given a new token; the old one is not known here, and ends by itself",
            record.id
        );
        self.note(Level::Note, at, message);
        Ok(draft)
    }
}

/// What a module declares, where `command` stands for it.
fn declarations(module: Option<&Module>, mute: bool, draft: &mut Draft) {
    let says = module.map(|module| Declarations {
        module: &module.name,
        events: &module.events,
        actions: &module.actions,
        credentials: &module.credentials,
        templates: &[],
    });
    let Declarations { events, actions, credentials, .. } = says.unwrap_or_default();
    let lists = [("events", json!(events)), ("actions", json!(actions)), ("credentials", json!(credentials))];
    for (field, list) in lists {
        let mut entries: Vec<Value> = list.as_array().cloned().unwrap_or_default();
        if field == "events" && mute {
            entries = VAULT_EVENTS.iter().map(|(key, title)| json!({ "key": key, "title": title })).collect();
        }
        if !entries.is_empty() {
            draft.line(format!("{field}:"));
            entries.iter().for_each(|entry| draft.line(format!("  - {}", super::yaml::flow(entry))));
        }
    }
}

/// The vault of a path, `/vault/<name>`.
pub fn vault_of(path: &str) -> Option<&str> {
    path.trim_end_matches('/').strip_prefix("/vault/").filter(|vault| !vault.is_empty() && !vault.contains('/'))
}

fn is_vault(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    (2..=32).contains(&name.len()) && name.chars().all(fits)
}

/// Where a row's module.json would be.
pub fn manifest_of(home: &Path, row: &Row) -> Option<PathBuf> {
    row.install_dir.as_ref().map(|dir| home.join(dir).join(MANIFEST))
}

/// The folders that may hold a row's `.env`.
pub fn shorts_of(row: &Row, module: Option<&Module>) -> Vec<String> {
    let by_row = row.name.strip_prefix("parachute-").unwrap_or(&row.name).to_owned();
    module.map(|module| module.name.clone()).into_iter().chain([by_row]).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::old::{records, rows};
    use super::*;
    use crate::kinds::service::module::parse;
    use crate::model::source::SourceFile;

    fn source(name: &str, text: &str) -> SourceFile {
        SourceFile { shown: name.into(), path: format!("/old/{name}").into(), text: text.into() }
    }

    fn home(services: &str, connections: &str, modules: &[(&str, &str)]) -> (Home, Vec<Note>) {
        let mut notes = Vec::new();
        let read = |(dir, text): &(&str, &str)| {
            let path = Path::new("/old").join(dir).join(MANIFEST);
            let file = SourceFile { path: path.clone(), ..source("module.json", text) };
            let parsed = parse(&file).map(Arc::new);
            (path, parsed.map_err(|problems| ModuleFault::Invalid { source: file, problems }))
        };
        let home = Home {
            folder: "/old".into(),
            rows: rows(&source("services.json", services), &mut notes),
            records: records(&source("connections.json", connections), &mut notes),
            modules: modules.iter().map(read).collect(),
            ..Home::default()
        };
        (home, notes)
    }

    fn file<'a>(made: &'a Translation, name: &str) -> &'a str {
        made.files.iter().find(|(file, _)| *file == name).map_or("", |(_, text)| text)
    }

    const VAULT: &str = r#"{"name":"vault","manifestName":"parachute-vault","port":1940,"paths":["/vault/default"],"health":"/h","startCmd":["v","serve"]}"#;
    const SINK: &str = r#"{"name":"sink","manifestName":"sink","port":1950,"paths":["/sink"],"health":"/h","startCmd":["s"],
        "actions":[{"key":"a","title":"A","endpoint":"/in","scope":"sink:send"}]}"#;
    const ROWS: &str = r#"{"services":[
        {"name":"parachute-vault","port":1940,"paths":["/vault/default"],"health":"/h","version":"1","installDir":"/m/vault"},
        {"name":"parachute-vault-b","port":1940,"paths":["/vault/two"],"health":"/h","version":"1","installDir":"/m/vault"},
        {"name":"sink","port":1950,"paths":["/sink"],"health":"/h","version":"1","installDir":"m/sink"}]}"#;
    const RECORDS: &str = r#"{"connections":[{"id":"c","source":{"module":"vault","vault":"two","event":"note.updated"},
        "sink":{"module":"sink","action":"a"},"provisioned":{"mintedJtis":[]}}]}"#;

    #[test]
    fn a_vault_that_declares_no_events_can_be_listened_to_all_the_same() {
        let modules = [("/m/vault", VAULT), ("m/sink", SINK)];
        let (heard, notes) = home(ROWS, RECORDS, &modules);
        let made = translate(&heard, notes);
        assert_eq!(made.notes.iter().filter(|note| note.level != Level::Note).count(), 0, "{:?}", made.notes);
        assert!(made.notes.iter().any(|note| note.message.contains("`parachute-vault-b` is the same program")));
        let services = file(&made, "services.yaml");
        assert!(
            services.contains("command: [v, serve]\n") && services.contains("{ key: note.updated, title: "),
            "{services}"
        );
        assert!(services.contains("module: /old/m/sink\n") && services.contains("{ path: /vault/two }"), "{services}");
        assert!(file(&made, "connections.yaml").contains("triggerName: conn_c\n"));
        assert_eq!(made.resources, 6);

        let (unheard, notes) = home(ROWS, r#"{"connections":[]}"#, &modules);
        assert!(file(&translate(&unheard, notes), "services.yaml").contains("module: /m/vault\n"));
    }

    #[test]
    fn a_module_json_with_a_mistake_is_told_and_what_needs_it_is_left_out() {
        let modules = [("/m/vault", VAULT), ("m/sink", &*SINK.replace("sink:send", "vault:admin"))];
        let (home, notes) = home(ROWS, RECORDS, &modules);
        let made = translate(&home, notes);
        let left_out: Vec<&str> =
            made.notes.iter().filter(|note| note.level == Level::LeftOut).map(|note| note.message.as_str()).collect();
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(made.notes.iter().any(|note| note.at.starts_with("module.json:2:") && note.level == Level::Warning));
        assert!(file(&made, "connections.yaml").lines().all(|line| line.starts_with('#')));
    }
}
