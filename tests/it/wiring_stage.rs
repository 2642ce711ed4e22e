//! A stage with a vault, a mailbox and a hub, and eyes and hands for what lies between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::{Value, json};

use crate::hub_stage::{Reply, send};
use crate::stage::{Answer, Own, Stage, free_port, wait_until};

/// The vault's own token for its owner. It stays good whatever becomes of the hub and its keys, so what is seen with it does not depend on
/// what is tested.
pub const OWNER: &str = "the-owner-of-the-vaults";

pub struct Tree {
    pub stage: Stage,
    pub hub: u16,
    pub vault: u16,
    pub mailbox: u16,
    /// What the stage itself shows at the vault.
    pub bearer: String,
}

impl Tree {
    /// A Hub, a vault and a mailbox; nothing runs yet.
    pub fn new() -> Self {
        Self::with_hub("")
    }

    /// With further lines of the Hub's spec.
    pub fn with_hub(more: &str) -> Self {
        let tree = Self {
            stage: Stage::new(),
            hub: free_port(),
            vault: free_port(),
            mailbox: free_port(),
            bearer: OWNER.to_owned(),
        };
        tree.write_hub(tree.hub, more);
        tree.write_vault("");
        tree.write_mailbox("");
        tree
    }

    pub fn write_hub(&self, port: u16, more: &str) {
        let text = "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec:\n";
        self.stage.write("hub.yaml", &format!("{text}  listen: \"127.0.0.1:{port}\"\n{more}"));
    }

    /// Another program in the place of a demo module: its words, in the document of that module.
    pub fn played_by(&self, file: &str, words: &[String]) {
        let path = self.stage.tree(file);
        let text = fs::read_to_string(&path).expect("the document");
        let words = serde_json::to_string(words).expect("JSON");
        let line =
            |line: &str| if line.starts_with("  command:") { format!("  command: {words}") } else { line.to_owned() };
        fs::write(path, text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n").expect("written");
    }

    /// The vault's document, with further words of its command.
    pub fn write_vault(&self, words: &str) {
        self.stage.write(
            "vault.yaml",
            &format!(
                "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: vault }}\nspec:\n  command: [trueup, demo, vault{words}]\n  \
                 port: {}\n  registersAs: parachute-vault\n  routes: [ {{ path: /vault }} ]\n  env: {{ VAULT_AUTH_TOKEN: {OWNER} }}\n  \
                 events:\n    - key: note.created\n      filterSchema: {{ type: object, properties: {{ tags: {{ type: array, items: {{ type: string }} }} }} }}\n    \
                 - key: note.updated\n",
                self.vault
            ),
        );
    }

    /// The mailbox's document, with further words of its command.
    pub fn write_mailbox(&self, words: &str) {
        self.mailbox_as(words, "/mailbox", "/api/deliver", "mailbox:send");
    }

    /// The same, with another mount, endpoint and scope.
    pub fn mailbox_as(&self, words: &str, mount: &str, endpoint: &str, scope: &str) {
        self.stage.write(
            "mailbox.yaml",
            &format!(
                "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: mailbox }}\nspec:\n  command: [trueup, demo, mailbox{words}]\n  \
                 port: {}\n  registersAs: mailbox\n  routes: [ {{ path: {mount} }} ]\n  \
                 readiness: {{ http: {{ path: /mailbox/health }}, period: 200ms }}\n  \
                 actions: [ {{ key: message.deliver, endpoint: {endpoint}, scope: \"{scope}\", inputSchema: {{ type: object, properties: {{ channel: {{ type: string }} }} }} }} ]\n  \
                 credentials: [ {{ key: notes, scope: \"vault:{{vault}}:read\", endpoint: /mailbox/api/credential }}, \
                 {{ key: pen, scope: \"vault:{{vault}}:write\", endpoint: /mailbox/api/credential }} ]\n",
                self.mailbox
            ),
        );
    }

    /// A connection from notes with a tag in the vault `default` to the mailbox, with further lines of its spec.
    pub fn connect(&self, name: &str, tag: &str, more: &str) {
        self.connect_from(name, "default", tag, more);
    }

    pub fn connect_from(&self, name: &str, vault: &str, tag: &str, more: &str) {
        self.connection(
            name,
            &format!(
                "  source: {{ service: vault, vault: {vault}, event: note.created, filter: {{ tags: [{tag}] }} }}\n  \
                 sink: {{ service: mailbox, action: message.deliver, params: {{ channel: main }} }}\n{more}"
            ),
        );
    }

    pub fn connection(&self, name: &str, spec: &str) {
        let text = format!("apiVersion: trueup/v1\nkind: Connection\nmetadata: {{ name: {name} }}\nspec:\n{spec}");
        self.stage.write(&format!("{name}.yaml"), &text);
    }

    /// A Vault, with further lines of its spec.
    pub fn declare_vault(&self, name: &str, more: &str) {
        let text = "apiVersion: trueup/v1\nkind: Vault\nmetadata: { name: ";
        self.stage.write(&format!("vault-{name}.yaml"), &format!("{text}{name} }}\nspec:\n  service: vault\n{more}"));
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.stage.tree(file)).expect("the document is removed");
    }

    /// Starts the daemon, and waits until the hub answers.
    pub fn daemon(&self) -> Own {
        let own = self.stage.daemon();
        wait_until("the hub", || self.is_served());
        own
    }

    pub fn is_served(&self) -> bool {
        crate::hub_stage::get(self.hub, "/health").is_ok_and(|reply| reply.status == 200)
    }

    /// One pass to convergence: the daemon's, if one runs.
    #[track_caller]
    pub fn pass(&self) -> Answer {
        self.stage.once(&[]).code(0)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply, String> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.bearer))
            .header("content-type", "application/json")
            .body(body.map_or_else(Full::default, |body| Full::from(Bytes::from(body.to_string()))));
        send(self.vault, request.expect("a request"))
    }

    #[track_caller]
    fn vault_says(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let reply = self.ask(method, path, body).expect("the vault answers");
        assert!(reply.status < 300, "{path}: {} {}", reply.status, reply.text());
        reply.json()
    }

    /// Whether the vault lets anybody in.
    pub fn vault_answers(&self, vault: &str) -> bool {
        self.ask(Method::GET, &format!("/vault/{vault}/api/count"), None).is_ok_and(|reply| reply.status == 200)
    }

    /// Makes a note in the vault `default`; its id.
    #[track_caller]
    pub fn note(&self, content: &str, tag: &str) -> String {
        self.note_in("default", content, tag)
    }

    #[track_caller]
    pub fn note_in(&self, vault: &str, content: &str, tag: &str) -> String {
        let body = json!({ "content": content, "tags": [tag] });
        let made = self.vault_says(Method::POST, &format!("/vault/{vault}/api/notes"), Some(&body));
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Makes many notes at once; their ids.
    #[track_caller]
    pub fn notes(&self, count: usize, tag: &str) -> BTreeSet<String> {
        let notes: Vec<Value> =
            (0..count).map(|number| json!({ "content": format!("note {number}"), "tags": [tag] })).collect();
        let made = self.vault_says(Method::POST, "/vault/default/api/notes", Some(&json!({ "notes": notes })));
        let ids = made.as_array().expect("a list").iter().map(|note| note["id"].as_str().expect("an id").to_owned());
        ids.collect()
    }

    /// Changes a note; its metadata is merged.
    #[track_caller]
    pub fn change_note(&self, id: &str, change: &Value) -> Value {
        let mut body = change.clone();
        body["force"] = true.into();
        self.vault_says(Method::PATCH, &format!("/vault/default/api/notes/{id}"), Some(&body))
    }

    #[track_caller]
    pub fn read_note(&self, id: &str) -> Value {
        self.vault_says(Method::GET, &format!("/vault/default/api/notes/{id}"), None)
    }

    #[track_caller]
    pub fn all_notes(&self) -> Vec<Value> {
        let all = self.vault_says(Method::GET, "/vault/default/api/notes?limit=10000", None);
        all.as_array().expect("a list").clone()
    }

    /// Notes of the vault `default` that bear the mark of a delivery that has begun and not ended.
    #[track_caller]
    pub fn pending(&self) -> BTreeSet<String> {
        let is_pending = |note: &&Value| {
            note["metadata"].as_object().is_some_and(|metadata| metadata.keys().any(|key| key.ends_with("_pending_at")))
        };
        let all = self.all_notes();
        all.iter().filter(is_pending).map(|note| note["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// The triggers of the vault `default`, by name.
    #[track_caller]
    pub fn triggers(&self) -> BTreeMap<String, Value> {
        self.triggers_of("default")
    }

    #[track_caller]
    pub fn triggers_of(&self, vault: &str) -> BTreeMap<String, Value> {
        let all = self.vault_says(Method::GET, &format!("/vault/{vault}/api/triggers"), None);
        let all = all["triggers"].as_array().expect("a list").iter();
        all.map(|trigger| (trigger["name"].as_str().expect("a name").to_owned(), trigger.clone())).collect()
    }

    /// For whoever acts while things are down: the vault may not answer.
    pub fn try_triggers(&self) -> Option<BTreeMap<String, Value>> {
        let reply =
            self.ask(Method::GET, "/vault/default/api/triggers", None).ok().filter(|reply| reply.status == 200)?;
        let all = reply.json()["triggers"].as_array()?.clone();
        all.into_iter().map(|trigger| Some((trigger["name"].as_str()?.to_owned(), trigger))).collect()
    }

    pub fn try_note(&self, tag: &str) -> Result<Reply, String> {
        self.ask(Method::POST, "/vault/default/api/notes", Some(&json!({ "content": "a note", "tags": [tag] })))
    }

    pub fn try_delete(&self, trigger: &str) -> Result<Reply, String> {
        self.ask(Method::DELETE, &format!("/vault/default/api/triggers/{trigger}"), None)
    }

    pub fn try_put(&self, trigger: &Value) -> Result<Reply, String> {
        self.ask(Method::POST, "/vault/default/api/triggers", Some(trigger))
    }

    /// The only trigger of the vault `default`.
    #[track_caller]
    pub fn trigger(&self) -> Value {
        let mut all = self.triggers();
        assert_eq!(all.len(), 1, "{all:?}");
        all.pop_first().expect("one").1
    }

    #[track_caller]
    pub fn delete_trigger(&self, name: &str) {
        self.vault_says(Method::DELETE, &format!("/vault/default/api/triggers/{name}"), None);
    }

    #[track_caller]
    pub fn put_trigger(&self, trigger: &Value) -> Value {
        self.vault_says(Method::POST, "/vault/default/api/triggers", Some(trigger))["trigger"].clone()
    }

    /// Everything in the mailbox.
    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        let reply = crate::hub_stage::get(self.mailbox, "/mailbox/api/messages").expect("the mailbox answers");
        reply.json().as_array().expect("a list").clone()
    }

    /// The notes that arrived, and how often the mailbox took each for a new one.
    #[track_caller]
    pub fn arrived(&self) -> BTreeMap<String, usize> {
        let mut arrived = BTreeMap::new();
        for message in self.messages() {
            *arrived.entry(message["noteId"].as_str().expect("a note").to_owned()).or_default() += 1;
        }
        arrived
    }

    /// Waits until these notes are in the mailbox, and asserts that none is there twice.
    #[track_caller]
    pub fn all_arrive_once<'a>(&self, notes: impl IntoIterator<Item = &'a String>) {
        let notes: BTreeSet<&String> = notes.into_iter().collect();
        wait_until("the notes in the mailbox", || {
            let arrived = self.arrived();
            notes.iter().all(|note| arrived.contains_key(*note))
        });
        let twice: Vec<_> = self.arrived().into_iter().filter(|(_, times)| *times > 1).collect();
        assert_eq!(twice, [], "the mailbox took them for new ones more than once");
    }

    /// Rows of tokens of connections that are neither revoked nor expired.
    #[track_caller]
    pub fn tokens(&self) -> Vec<Value> {
        self.tokens_by(&["--revoked", "false"])
    }

    /// Rows of all tokens of connections.
    #[track_caller]
    pub fn all_tokens(&self) -> Vec<Value> {
        self.tokens_by(&[])
    }

    #[track_caller]
    fn tokens_by(&self, more: &[&str]) -> Vec<Value> {
        let args = [&["token", "list", "--subject", "connection", "-o", "json"][..], more].concat();
        self.stage.run(&args).code(0).typed("token")
    }

    /// The ids of the live tokens.
    #[track_caller]
    pub fn jtis(&self) -> BTreeSet<String> {
        self.tokens().iter().map(|row| row["jti"].as_str().expect("an id").to_owned()).collect()
    }

    /// A row of `get`; `None` when there is no such resource.
    #[track_caller]
    pub fn resource(&self, id: &str) -> Option<Value> {
        let (kind, name) = id.split_once('/').expect("kind and name");
        let all = self.stage.run(&["get", "-o", "json"]).code(0).typed("resource");
        all.into_iter().find(|row| row["kind"] == kind && row["name"] == name)
    }

    #[track_caller]
    pub fn ready(&self, id: &str) -> Value {
        let row = self.resource(id).unwrap_or_else(|| panic!("there is no {id}"));
        let conditions = row["conditions"].as_array().expect("conditions");
        conditions.iter().find(|one| one["type"] == "Ready").unwrap_or_else(|| panic!("{row}")).clone()
    }

    pub fn stop(&self, service: &str) {
        self.stage.run(&["stop", service]).code(0);
    }

    pub fn start(&self, service: &str) {
        self.stage.run(&["start", service]).code(0);
    }
}
