//! From the home of an older hub to a tree that plans: everything that is there is taken over or told, and the home stays as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::stage::Stage;

const VAULT: &str = r#"{
  "name": "vault", "manifestName": "parachute-vault", "port": 1940, "paths": ["/vault/default"],
  "health": "/vault/default/health", "startCmd": ["parachute-vault", "serve"],
  "events": [
    { "key": "note.created", "title": "A note was made" }, { "key": "note.updated", "title": "A note was changed" },
    { "key": "note.deleted", "title": "A note is gone" }
  ]
}"#;

const AGENT: &str = r#"{
  "name": "agent", "manifestName": "parachute-agent", "port": 1950, "paths": ["/agent"], "health": "/agent/health",
  "startCmd": ["parachute-agent"], "websocket": true,
  "actions": [
    { "key": "message.deliver", "title": "Deliver", "endpoint": "/api/vault/inbound", "scope": "agent:send", "provision": { "type": "vault-trigger" } },
    { "key": "definition.reload", "title": "Reload", "endpoint": "/api/vault/agent-def", "scope": "agent:send", "provision": { "type": "vault-trigger" } }
  ],
  "credentials": [{ "key": "notes", "title": "Notes", "scope": "vault:{vault}:write", "endpoint": "/api/credentials" }]
}"#;

/// A home as the older hub leaves it, with modules beside it.
fn home(stage: &Stage) -> PathBuf {
    let home = stage.path("old");
    fs::create_dir_all(home.join("vault")).expect("the home");
    for (name, text) in [("vault", VAULT), ("agent", AGENT)] {
        let folder = stage.path(&format!("m/{name}/.parachute"));
        fs::create_dir_all(&folder).expect("a module");
        fs::write(folder.join("module.json"), text).expect("a module.json");
    }
    home
}

fn write(home: &Path, name: &str, value: &Value) {
    fs::write(home.join(name), format!("{value:#}\n")).expect("a file of the home");
}

fn rows(stage: &Stage) -> Value {
    let dir = |name: &str| stage.path(&format!("m/{name}")).display().to_string();
    json!({ "services": [
        { "name": "parachute-vault", "port": 1940, "paths": ["/vault/default", "/vault/lab_2"],
          "health": "/vault/default/health", "version": "0.7.0", "installDir": dir("vault") },
        { "name": "parachute-agent", "port": 1941, "paths": ["/agent"], "health": "/agent/health",
          "version": "0.3.0", "installDir": dir("agent"), "websocket": true },
    ] })
}

fn record(id: &str, vault: &str, action: &str, more: Value) -> Value {
    let mut record = json!({
        "id": id, "source": { "module": "vault", "vault": vault, "event": "note.created", "filter": { "tags": ["in"] } },
        "sink": { "module": "agent", "action": action },
        "provisioned": { "type": "vault-trigger", "vault": vault, "triggerName": format!("conn_{id}"), "mintedJtis": ["J1"] },
        "createdAt": "2026-08-01T00:00:00.000Z", "requestedBy": "agent",
    });
    for (pointer, value) in more.as_object().expect("an object") {
        match record.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => panic!("{pointer}"),
        }
    }
    record
}

/// Every file below a folder, with its bytes and times.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    let mut next = vec![folder.to_owned()];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            let changed = entry.metadata().and_then(|about| about.modified()).expect("a time");
            match path.is_dir() {
                true => next.push(path.clone()),
                false => drop(all.insert(path.clone(), (fs::read(&path).expect("a file"), changed))),
            }
            all.entry(path).or_insert((Vec::new(), changed));
        }
    }
    all
}

fn notes(answer: &super::stage::Answer, level: &str) -> Vec<String> {
    let short = |at: &str| at.rsplit('/').next().unwrap_or_default().to_owned();
    let all = answer.typed("importNote").into_iter().filter(|note| note["level"] == level);
    all.map(|note| {
        format!("{} {}", short(note["source"].as_str().expect("a place")), note["message"].as_str().expect("words"))
    })
    .collect()
}

#[test]
fn a_home_becomes_a_tree_that_plans_and_stays_as_it_was() {
    let stage = Stage::new();
    let home = home(&stage);
    write(&home, "services.json", &rows(&stage));
    fs::write(home.join("vault/.env"), "LOG=info\nPORT=9\n").expect("an .env");
    write(&home, "expose-state.json", &json!({ "version": 1, "hubOrigin": "https://hub.example" }));
    let mut legacy = record("old-one", "default", "definition.reload", json!({}));
    legacy["provisioned"].as_object_mut().expect("an object").remove("mintedJtis");
    let mut credential = record("cred-agent-notes-default", "default", "credential.notes", json!({}));
    credential["kind"] = json!("credential");
    credential["source"] = json!({ "module": "vault", "vault": "default", "event": "credential" });
    credential["provisioned"] = json!({ "type": "credential", "vault": "default", "scope": "vault:default:write", "scopedTags": ["mine"], "credentialKey": "notes", "mintedJtis": ["J2"] });
    write(
        &home,
        "connections.json",
        &json!({ "version": 1, "connections": [
            record("vault-note-created-agent-definition-reload", "lab_2", "definition.reload",
                json!({ "/source/filter": { "tags": ["in", 5], "color": "red", "has_content": true } })),
            record("agent-main", "default", "message.deliver", json!({ "/sink": { "module": "agent", "action": "message.deliver", "params": { "channel": "main" } } })),
            legacy,
            credential,
        ] }),
    );
    let before = snapshot(&home);

    let dry = stage.run(&["import", "parachute", "old", "--dry-run", "-o", "json"]).code(0);
    assert!(stage.tree("hub.yaml").symlink_metadata().is_err(), "nothing is written");
    assert_eq!(dry.typed("file").len(), 4);
    let done = stage.run(&["import", "parachute", "old", "-o", "json"]).code(0);
    assert_eq!((&done.summary()["resources"], &done.summary()["failed"]), (&json!(9), &json!(0)));
    assert_eq!(notes(&done, "leftOut"), [""; 0]);
    let warnings = notes(&done, "warning");
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("ignored the entries of `tags` that are no text and `color`"), "{}", warnings[0]);
    assert!(warnings[0].starts_with("connections.json:5:7 "), "{}", warnings[0]);
    assert!(warnings[1].contains("`old-one` is from before tokens were registered"), "{}", warnings[1]);
    let said = notes(&done, "note");
    assert!(said.iter().any(|note| note.contains("`lab_2`, which is no DNS label, is Vault/lab-2 here")), "{said:#?}");
    assert!(
        said.iter()
            .any(|note| note.contains("the port is 1941 as services.json has it; the module's own would be 1950"))
    );

    stage.run(&["validate"]).code(0);
    let connections = fs::read_to_string(stage.tree("connections.yaml")).expect("written");
    assert!(connections.contains("triggerName: conn_agent-main\n"), "{connections}");
    assert!(connections.contains("# The older hub ignored this part of the filter: color: red\n"));
    assert!(connections.contains("filter: { tags: [in], has_content: true }\n"));
    assert!(connections.contains("scope: \"agent:admin\"") && connections.contains("remove: /api/channels/main"));
    let hub = fs::read_to_string(stage.tree("hub.yaml")).expect("written");
    assert!(
        hub.contains("origin: \"https://hub.example\"") && hub.contains(&format!("home: {}", home.display())),
        "{hub}"
    );
    let services = fs::read_to_string(stage.tree("services.yaml")).expect("written");
    assert!(services.contains("vault/.env") && services.contains("websocket: true"), "{services}");
    assert_eq!(snapshot(&home), before, "the home is only read");

    let again = stage.run(&["import", "parachute", "old"]).code(4);
    assert!(again.err.contains("has a Hub already"), "{}", again.err);
    assert_eq!(fs::read_to_string(stage.tree("connections.yaml")).expect("written"), connections);
    let plan = stage.run(&["plan", "-o", "json"]);
    assert_eq!(
        plan.typed("problem").iter().filter(|p| !p["code"].as_str().is_some_and(|c| c.starts_with("E03"))).count(),
        0,
        "{}",
        plan.out
    );
}

#[test]
fn nothing_is_lost_without_a_word() {
    let stage = Stage::new();
    let home = home(&stage);
    let mut all = rows(&stage);
    let list = all["services"].as_array_mut().expect("a list");
    list.push(json!({ "name": "parachute-runner", "port": 1945, "paths": [], "health": "/h", "version": "1" }));
    list.push(json!({ "name": "twin", "port": 1941, "paths": ["/twin"], "health": "/h", "version": "1" }));
    list.push(json!({ "name": "bad", "port": "x", "paths": [], "health": "/h", "version": "1" }));
    list.push(json!(7));
    list.push(json!({ "name": "parachute-scribe", "port": 1943, "paths": ["/scribe", "/api/x"], "health": "/scribe/health", "version": "1",
        "publicExposure": "loopback", "stripPrefix": true, "uis": { "desk": { "displayName": "D", "path": "/scribe/ui", "audience": "operator" } } }));
    write(&home, "services.json", &all);
    fs::write(home.join("vault/.env"), "LOG=info\nexport A=b\n").expect("an .env");
    let mut pending = record("waiting", "default", "credential.notes", json!({}));
    pending["kind"] = json!("credential");
    pending["status"] = json!("pending");
    write(
        &home,
        "connections.json",
        &json!({ "connections": [
            { "source": {}, "sink": {} },
            record("gone", "nowhere", "definition.reload", json!({})),
            record("odd", "default", "message.juggle", json!({})),
            record("deleted", "default", "definition.reload", json!({ "/source/event": "note.deleted" })),
            record("A_B", "default", "definition.reload", json!({})),
            record("a-b", "default", "definition.reload", json!({ "/sink": { "module": "agent", "action": "definition.reload", "params": { "as": "x" } } })),
            pending,
        ] }),
    );
    let before = snapshot(&home);
    let done = stage.run(&["import", "parachute", "old", "--to", "new", "-o", "json"]).code(7);
    let left_out = notes(&done, "leftOut");
    for wanted in [
        "services.json:",
        "the row `parachute-runner`: nothing says how it starts",
        "the row `twin` has port 1941, which `parachute-agent` has already",
        "the row `bad` cannot be read: `port` must be a whole number",
        "the row cannot be read: it is no mapping",
        "the path `/api/x` of `parachute-scribe`: the hub answers it itself",
        ".env:2:1 the line is not KEY=VALUE",
        "the record cannot be read",
        "the connection `gone`: no row of services.json has the vault `nowhere`",
        "Connection/odd: Service/agent declares no action `message.juggle`",
        "Connection/deleted cannot listen to `note.deleted`",
        "the connection `waiting`: it waits for approval",
    ] {
        assert!(left_out.iter().any(|note| note.contains(wanted)), "{wanted} in {left_out:#?}");
    }
    let warnings = notes(&done, "warning");
    assert!(
        warnings.iter().any(|note| note.contains("the page `desk` of `parachute-scribe` was for operator only")),
        "{warnings:#?}"
    );
    assert!(
        warnings.iter().any(|note| note.contains("the parameter `as`, which the action does not declare")),
        "{warnings:#?}"
    );
    let said = notes(&done, "note");
    assert!(said.iter().any(|note| note.contains("`A_B`, which is no DNS label, is Connection/a-b here")), "{said:#?}");
    assert!(said.iter().any(|note| note.contains("`a-b`, which is taken, is Connection/a-b-2 here")), "{said:#?}");
    stage.run(&["validate", "-f", "new"]).code(0);
    let connections = fs::read_to_string(stage.path("new/connections.yaml")).expect("written");
    assert!(connections.contains("# kind: Connection\n# metadata: { name: odd }"), "{connections}");
    let services = fs::read_to_string(stage.path("new/services.yaml")).expect("written");
    assert!(
        services.contains("command: [parachute-scribe, serve]") && services.contains("exposure: loopback"),
        "{services}"
    );
    assert!(services.contains("# envFile: "), "{services}");
    assert_eq!(snapshot(&home), before, "the home is only read");
}

#[test]
fn what_is_no_home_and_where_nothing_may_be_written_is_told() {
    let stage = Stage::new();
    assert!(stage.run(&["import", "parachute", "nothing"]).code(1).err.contains("no home of a Parachute hub"));
    let home = home(&stage);
    fs::write(home.join("services.json"), "{ \"services\": [").expect("garbage");
    fs::write(home.join("connections.json"), "[]").expect("garbage");
    let garbage = stage.run(&["import", "parachute", "old", "--to", "g"]).code(7);
    assert!(
        garbage.err.contains("services.json:1:") && garbage.err.contains("it has no list `connections`"),
        "{}",
        garbage.err
    );

    write(&home, "services.json", &rows(&stage));
    let before = snapshot(&home);
    assert!(
        stage.run(&["import", "parachute", "old", "--to", "old/sub/manifests"]).code(4).err.contains("does not touch")
    );
    fs::create_dir_all(stage.path("there")).expect("a folder");
    fs::write(stage.path("there/vaults.yaml"), "mine").expect("a file");
    let refused = stage.run(&["import", "parachute", "old", "--to", "there"]).code(4);
    assert!(refused.err.contains("there/vaults.yaml"), "{}", refused.err);
    assert_eq!(fs::read_dir(stage.path("there")).expect("a folder").count(), 1, "all files or none");
    assert_eq!(fs::read_to_string(stage.path("there/vaults.yaml")).expect("a file"), "mine");
    assert_eq!(snapshot(&home), before);
}
