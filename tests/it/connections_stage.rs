//! What tests of connections in the pretend world share: documents, what must be true when all has come to rest, and who looks.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};

use super::sim::{fresh, ledger};
use trueup::adapters::sqlite::Ledger;
use trueup::engine::{Bell, Engine, Mode, Verdict};
use trueup::kinds::connection::record::Record;
use trueup::kinds::trigger;
use trueup::model::id::{KindName, Name};
use trueup::model::unit::Millis;
use trueup::ports::store::Store;
use trueup::sim::fate::Side;
use trueup::sim::story::{Story, hub};
use trueup::sim::tokens::Tokens;
use trueup::sim::town::Instance;

/// Where the hub of these stories listens, for whoever is on its machine.
const BASE: &str = "http://127.0.0.1:1939";
/// Longer than any pause of a step.
const PATIENCE: Millis = Millis(3_600_000);

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A service that keeps vaults.
pub fn vault_service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [ sim, well, {name} ]\n  \
         port: {port}\n  routes: [ {{ path: /vault-of-{name} }} ]\n  events: [ {{ key: note.created }}, {{ key: note.updated }} ]\n"
    )
}

/// A service that takes messages, keeps channels, and wants to read notes.
pub fn sink_service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: [ sim, well, {name} ]\n  \
         port: {port}\n  routes: [ {{ path: /{name} }} ]\n  \
         actions: [ {{ key: message.deliver, endpoint: /api/inbound, scope: \"{name}:send\" }} ]\n  \
         credentials:\n  - {{ key: notes, scope: \"vault:{{vault}}:read\", endpoint: /api/credential }}\n  \
         - {{ key: drafts, scope: \"vault:{{vault}}:write\", endpoint: /api/credential }}\n"
    )
}

pub fn vault(name: &str, service: &str, policy: &str) -> String {
    format!(
        "apiVersion: trueup/v1\nkind: Vault\nmetadata: {{ name: {name} }}\nspec: {{ service: {service}, deletionPolicy: {policy} }}\n"
    )
}

/// A connection of notes to messages, as a story declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    pub name: String,
    pub service: String,
    pub vault: String,
    pub sink: String,
    pub filter: String,
    pub direct: bool,
    pub suspended: bool,
    pub trigger_name: Option<String>,
    /// A channel that the sink is told of.
    pub channel: Option<String>,
}

impl Tie {
    pub fn new(name: &str, vault: &str) -> Self {
        Self {
            name: name.to_owned(),
            service: "vault".to_owned(),
            vault: vault.to_owned(),
            sink: "mailbox".to_owned(),
            filter: "{ tags: [ in ] }".to_owned(),
            direct: false,
            suspended: false,
            trigger_name: None,
            channel: None,
        }
    }

    pub fn text(&self) -> String {
        let Self { name, service, vault, sink, filter, .. } = self;
        let delivery = if self.direct { "direct" } else { "durable" };
        let own = self.trigger_name.as_ref().map(|name| format!("  triggerName: {name}\n")).unwrap_or_default();
        let to = match &self.channel {
            Some(channel) => format!(
                "    params: {{ channel: {channel} }}\n    prepare:\n      scope: {sink}:admin\n      put: {{ path: /api/channels, body: {{ name: \"{{params.channel}}\", token: \"{{token}}\" }} }}\n      \
                 check: {{ path: /api/channels, list: channels, entry: {{ name: \"{{params.channel}}\" }} }}\n      \
                 remove: /api/channels/{{params.channel}}\n      token: \"vault:{{vault}}:write\"\n"
            ),
            None => String::new(),
        };
        format!(
            "apiVersion: trueup/v1\nkind: Connection\nmetadata: {{ name: {name} }}\nspec:\n  \
             source: {{ service: {service}, vault: {vault}, event: note.created, filter: {filter} }}\n  \
             sink:\n    service: {sink}\n    action: message.deliver\n{to}  delivery: {delivery}\n{own}  suspend: {}\n",
            self.suspended
        )
    }

    pub fn trigger(&self) -> String {
        let derived = || trigger::name(&name("home"), &self.vault, &name(&self.name));
        self.trigger_name.clone().unwrap_or_else(derived)
    }

    fn webhook(&self) -> String {
        match self.direct {
            true => format!("{BASE}/{}/api/inbound", self.sink),
            false => format!("{BASE}/inbox/{}", self.name),
        }
    }

    /// Whom its token is for, and what it may do.
    fn bearer(&self) -> (String, String) {
        match self.direct {
            true => (self.sink.clone(), format!("{}:send", self.sink)),
            false => ("inbox".to_owned(), format!("inbox:{}", self.name)),
        }
    }

    fn has_trigger(&self) -> bool {
        !(self.direct && self.suspended)
    }
}

/// Standing access, as a story declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loan {
    pub name: String,
    pub to: String,
    pub key: String,
    pub vault: String,
}

impl Loan {
    pub fn text(&self) -> String {
        let Self { name, to, key, vault } = self;
        format!(
            "apiVersion: trueup/v1\nkind: Connection\nmetadata: {{ name: {name} }}\nspec:\n  \
             credential: {{ service: {to}, key: {key}, vaultService: vault, vault: {vault}, tags: [ dictation ] }}\n"
        )
    }
}

/// What a story declares at the moment.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    pub ties: BTreeMap<String, Tie>,
    pub loans: BTreeMap<String, Loan>,
}

/// A story with a ledger that can be copied, and what it declares.
pub struct Scene<'a> {
    pub story: Story,
    pub declared: Declared,
    dir: &'a Path,
    path: PathBuf,
    /// Refusals that were looked at already.
    told: Cell<usize>,
    seed: u64,
}

impl<'a> Scene<'a> {
    pub fn new(seed: u64, dir: &'a Path) -> Self {
        let path = dir.join(format!("{:x}.db", fresh()));
        let story = Story::new(seed, ledger(path.clone()));
        Self { story, declared: Declared::default(), dir, path, told: Cell::new(0), seed }
    }

    /// From here on the two go apart.
    pub fn fork(&self) -> Self {
        let path = self.dir.join(format!("{:x}.db", fresh()));
        if self.path.exists() {
            std::fs::copy(&self.path, &path).expect("the ledger is copied");
        }
        let story = self.story.fork(ledger(path.clone()));
        Self { story, declared: self.declared.clone(), dir: self.dir, path, told: self.told.clone(), seed: self.seed }
    }

    /// Services, a vault, and others that have something there too.
    pub fn begin(&self) {
        let story = &self.story;
        story.write("hub.yaml", &hub());
        story.write("vault.yaml", &vault_service("vault", 2001));
        story.write("mailbox.yaml", &sink_service("mailbox", 2003));
        let mut earth = story.earth.borrow_mut();
        earth.vault("vault", "default");
        earth.vault("vault", "lab");
        for (vault, trigger) in [("default", "conn_theirs"), ("default", "their-own"), ("lab", "conn_inbox_tu00000000")]
        {
            earth.foreign_trigger("vault", vault, trigger);
        }
        let now = earth.wall();
        earth.tokens.foreign("person", "inbox:inbox", now);
        earth.tokens.foreign("agent", "vault:default:read", now);
    }

    pub fn declare(&mut self, tie: Tie) {
        self.story.write(&format!("c-{}.yaml", tie.name), &tie.text());
        self.declared.ties.insert(tie.name.clone(), tie);
    }

    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Tie)) {
        let mut tie = self.declared.ties.get(name).expect("it is declared").clone();
        change(&mut tie);
        self.declare(tie);
    }

    pub fn lend(&mut self, loan: Loan) {
        self.story.write(&format!("c-{}.yaml", loan.name), &loan.text());
        self.declared.loans.insert(loan.name.clone(), loan);
    }

    pub fn remove(&mut self, name: &str) {
        self.unlink(&format!("c-{name}.yaml"));
        self.declared.ties.remove(name);
        self.declared.loans.remove(name);
    }

    pub fn unlink(&self, file: &str) {
        self.story.earth.borrow_mut().tree.as_mut().expect("a tree").remove(file);
    }

    /// Dies at a call, if at all, and comes back to a kind world.
    pub fn live(&self, die: Option<(u64, Side)>, fail: u64) -> Result<(), String> {
        self.story.fate.reborn(die, fail, self.seed);
        let _ = self.story.run(Mode::default(), Millis(30_000));
        self.story.check()?;
        self.rest()
    }

    /// The faults stop: nothing is moody or late any more, and in the end all has come to rest.
    pub fn rest(&self) -> Result<(), String> {
        self.story.fate.reborn(None, 0, self.seed);
        {
            let mut earth = self.story.earth.borrow_mut();
            earth.town.moods.clear();
            earth.town.moody = 0;
            earth.settle();
        }
        // One engine for all of it: to read the tree anew each time takes longer than everything else.
        let mut engine = self.story.engine();
        for _ in 0..4 {
            let (verdict, report, _) = self.story.go(&mut engine, Mode::default(), PATIENCE)?;
            self.story.check()?;
            if verdict != Verdict::Settled {
                let problems: Vec<_> = report.problems.iter().map(|problem| &problem.message).collect();
                return Err(format!("{verdict:?}: {:?} {problems:?}", report.waits));
            }
            if !self.story.earth.borrow().is_late() {
                break;
            }
            self.story.pass(Millis(30_000));
            self.story.earth.borrow_mut().apply_late();
        }
        // What waits is delivered with the next look.
        if self.waiting() > 0 {
            self.story.go(&mut engine, Mode::default(), Millis(0))?;
        }
        self.at_rest()?;
        self.quiet(&mut engine)
    }

    /// Events that wait for a connection which is declared and not suspended, or for none at all.
    fn waiting(&self) -> u64 {
        let suspended = |name: &Name| self.declared.ties.get(name.as_str()).is_some_and(|tie| tie.suspended);
        let earth = self.story.earth.borrow();
        earth.queue.tallies.iter().filter(|(name, _)| !suspended(name)).map(|(_, tally)| tally.waiting).sum()
    }

    /// A look at a world at rest plans nothing, asks each vault and each sink once, and does nothing else.
    fn quiet(&self, engine: &mut (Engine, Rc<dyn Bell>)) -> Result<(), String> {
        let bustling = std::mem::take(&mut self.story.earth.borrow_mut().town.bustling);
        self.story.earth.borrow_mut().town.calls.clear();
        let reached = self.story.fate.reached.borrow().clone();
        let (verdict, _, summary) = self.story.go(engine, Mode::default(), Millis(1_000))?;
        if verdict != Verdict::Settled || summary.planned != 0 || summary.changed != 0 {
            return Err(format!("not quiet: {verdict:?} {summary:?}"));
        }
        self.story.earth.borrow_mut().town.bustling = bustling;
        let calls = self.story.earth.borrow().town.calls.clone();
        let once: BTreeSet<&String> = calls.iter().collect();
        if once.len() != calls.len() || calls.iter().any(|call| !call.starts_with("GET ")) {
            return Err(format!("a quiet look made these calls: {calls:?}"));
        }
        let after = self.story.fate.reached.borrow().clone();
        for call in ["bearers.register", "bearers.revoke", "bearers.again", "deliveries.retire", "store.begin"] {
            if reached.get(call) != after.get(call) {
                return Err(format!("a quiet look called {call}"));
            }
        }
        Ok(())
    }

    /// Events that were refused since the last time this was asked.
    pub fn refused(&self) -> Vec<String> {
        let earth = self.story.earth.borrow();
        let from = self.told.replace(earth.town.refused.len());
        earth.town.refused[from..].iter().map(|refused| format!("{}: {}", refused.trigger, refused.why)).collect()
    }

    fn records(&self) -> BTreeMap<String, Record> {
        let owned = Ledger::open(&self.path).expect("the ledger").owned().expect("what it owns");
        let of = |kind: KindName| kind == KindName::Connection;
        owned
            .iter()
            .filter(|(id, _)| of(id.kind))
            .map(|(id, o)| (id.name.to_string(), Record::read(&o.record)))
            .collect()
    }

    /// What must be true whenever all has come to rest, however it came about.
    pub fn at_rest(&self) -> Result<(), String> {
        let earth = self.story.earth.borrow();
        let (town, tokens, now) = (&earth.town, &earth.tokens, earth.wall());
        let mut wrong = Vec::new();
        // At every vault: what others wrote, to the letter, and one trigger for each connection.
        for ((service, vault), instance) in &town.vaults {
            let here = |tie: &&Tie| tie.service == service.as_str() && tie.vault == *vault && tie.has_trigger();
            let ties: BTreeMap<String, &Tie> =
                self.declared.ties.values().filter(here).map(|tie| (tie.trigger(), tie)).collect();
            let found: BTreeSet<&String> = instance.triggers.keys().collect();
            let wanted: BTreeSet<&String> = ties.keys().chain(instance.foreign.keys()).collect();
            if found != wanted {
                wrong.push(format!("at {vault} there are {found:?} instead of {wanted:?}"));
            }
            wrong.extend(foreign_changed(instance));
            for (trigger, tie) in ties {
                let Some(seen) = instance.triggers.get(&trigger) else { continue };
                let (audience, scope) = tie.bearer();
                if let Err((_, why)) = tokens.verify(&seen.bearer, &audience, &scope, now) {
                    wrong.push(format!("{trigger} sends a token that is not taken: {why}"));
                }
                if Tokens::issuer_of(&seen.bearer).as_ref() != Some(&tokens.issuer) {
                    wrong.push(format!("{trigger} sends a token of another issuer"));
                }
                let when: Value = yaml(&tie.filter);
                if (&seen.webhook, &seen.when) != (&tie.webhook(), &when) || seen.events != ["created"] {
                    wrong.push(format!("{trigger} is {seen:?}"));
                }
            }
        }
        let records = self.records();
        let declared: BTreeSet<&String> = self.declared.ties.keys().chain(self.declared.loans.keys()).collect();
        if records.keys().collect::<BTreeSet<_>>() != declared {
            wrong.push(format!("the ledger knows {:?} and declared are {declared:?}", records.keys()));
        }
        let noted: BTreeSet<&String> = records.values().flat_map(Record::jtis).collect();
        let live: BTreeSet<&String> =
            tokens.live(now).filter(|row| row.subject == "connection").map(|row| &row.jti).collect();
        if noted != live {
            wrong.push(format!("live tokens are {live:?}, and noted are {noted:?}"));
        }
        if tokens.live(now).filter(|row| row.subject != "connection").count() != 2 {
            wrong.push("tokens of others are gone".to_owned());
        }
        self.sinks_at_rest(town, tokens, now, &mut wrong);
        let taken: usize = earth.queue.taken.values().map(BTreeSet::len).sum();
        let gone: u64 = earth.queue.tallies.values().map(|tally| tally.delivered + tally.dead).sum();
        drop(earth);
        let suspended = self.declared.ties.values().any(|tie| tie.suspended);
        if self.waiting() > 0 || !suspended && gone != taken as u64 {
            wrong.push(format!("of {taken} events {gone} were delivered or given up"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
    }

    fn sinks_at_rest(
        &self,
        town: &trueup::sim::town::Town,
        tokens: &Tokens,
        now: trueup::model::time::Timestamp,
        wrong: &mut Vec<String>,
    ) {
        for (service, sink) in &town.sinks {
            let told = |tie: &&Tie| tie.sink == service.as_str() && tie.channel.is_some() && tie.has_trigger();
            let ties: BTreeMap<&String, &Tie> =
                self.declared.ties.values().filter(told).filter_map(|tie| Some((tie.channel.as_ref()?, tie))).collect();
            let found: BTreeSet<&String> = sink.entries.keys().collect();
            if found != ties.keys().copied().collect() {
                wrong.push(format!("{service} has the channels {found:?} instead of {:?}", ties.keys()));
            }
            for (channel, tie) in ties {
                let token =
                    sink.entries.get(channel).and_then(|entry| entry.get("token")?.as_str()).unwrap_or_default();
                let (audience, scope) = (format!("vault.{}", tie.vault), format!("vault:{}:write", tie.vault));
                if let Err((_, why)) = tokens.verify(token, &audience, &scope, now) {
                    wrong.push(format!("the channel {channel} has a token that is not taken: {why}"));
                }
            }
            let loans: BTreeMap<&String, &Loan> = self
                .declared
                .loans
                .values()
                .filter(|loan| loan.to == service.as_str())
                .map(|loan| (&loan.key, loan))
                .collect();
            // Who did not hear that one was taken back has one that is refused.
            let counts = |token: &String| Tokens::jti(token).is_some_and(|jti| tokens.live(now).any(|row| row.jti == jti));
            let found: BTreeSet<&String> =
                sink.credentials.iter().filter(|(_, token)| counts(token)).map(|(key, _)| key).collect();
            if found != loans.keys().copied().collect() {
                wrong.push(format!("{service} has the credentials {found:?} instead of {:?}", loans.keys()));
            }
            for (key, loan) in loans {
                let verb = if key == "notes" { "read" } else { "write" };
                let (audience, scope) = (format!("vault.{}", loan.vault), format!("vault:{}:{verb}", loan.vault));
                let token = sink.credentials.get(key).map(String::as_str).unwrap_or_default();
                if let Err((_, why)) = tokens.verify(token, &audience, &scope, now) {
                    wrong.push(format!("the credential {key} is not taken: {why}"));
                }
            }
        }
    }
}

fn foreign_changed(instance: &Instance) -> Vec<String> {
    let changed =
        |(name, theirs)| (instance.triggers.get(name) != Some(theirs)).then(|| format!("{name} of others changed"));
    instance.foreign.iter().filter_map(changed).collect()
}

/// The few filters of these stories.
fn yaml(filter: &str) -> Value {
    match filter {
        "{ tags: [ in ] }" => json!({ "tags": ["in"] }),
        "{ tags: [ in ], has_content: true }" => json!({ "tags": ["in"], "has_content": true }),
        other => panic!("{other} is no filter of these stories"),
    }
}
