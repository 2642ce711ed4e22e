//! What services declare, from the files alone: `get events`, `get actions`, `get credentials`, `get templates`.

use std::fs;

use http_body_util::Full;
use hyper::Request;

use super::hub_stage::send;
use super::stage::{Stage, free_port, wait_until};

const AGENT: &str = r#"{
  "name": "agent", "manifestName": "parachute-agent", "port": 1941, "paths": ["/agent"], "health": "/health",
  "startCmd": ["agent"],
  "events": [{ "key": "message.sent", "title": "Message sent" }],
  "actions": [
    { "key": "message.deliver", "title": "Deliver a message", "endpoint": "/api/in", "scope": "agent:send",
      "inputSchema": { "type": "object", "properties": { "channel": { "type": "string" } }, "required": ["channel"] } },
    { "key": "internal", "title": "Of no use to connections" }
  ],
  "credentials": [{ "key": "notes", "title": "Notes", "scope": "vault:{vault}:write", "endpoint": "/api/credentials" }],
  "connectionTemplates": [{ "key": "link", "title": "Link",
    "source": { "module": "vault", "event": "note.created" }, "sink": { "module": "agent", "action": "message.deliver" },
    "parameters": [{ "key": "channel", "target": "sink.params.channel" }] }]
}"#;

fn stage() -> Stage {
    let stage = Stage::new();
    stage.hub();
    let folder = stage.path("manifests/modules/agent/.parachute");
    fs::create_dir_all(&folder).expect("a module folder");
    fs::write(folder.join("module.json"), AGENT).expect("a module.json");
    stage.write(
        "agent.yaml",
        "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: agent }\nspec: { module: modules/agent }\n",
    );
    stage.write(
        "vault.yaml",
        "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: vault }\nspec:\n  command: [sleep, '60']\n  events:\n    \
         - key: note.created\n      title: A note was made\n      filterSchema: { type: object, properties: { tags: { type: array }, color: {} } }\n",
    );
    stage
}

#[test]
fn what_services_declare_is_listed_without_a_daemon() {
    let stage = stage();
    let events = stage.run(&["get", "events"]).code(0).out;
    let rows: Vec<Vec<&str>> =
        events.lines().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["SERVICE", "EVENT", "TITLE", "FILTER"],
            vec!["agent", "message.sent", "Message sent", "-"],
            vec!["vault", "note.created", "A note was made", "color, tags"],
        ]
    );
    let actions = stage.run(&["get", "actions", "-o", "json"]).code(0).typed("actionDeclared");
    assert_eq!(actions.len(), 2);
    assert_eq!((&actions[0]["key"], &actions[0]["connectable"]), (&"message.deliver".into(), &true.into()));
    assert_eq!((&actions[1]["key"], &actions[1]["connectable"]), (&"internal".into(), &false.into()));
    assert_eq!(actions[0]["params"], serde_json::json!(["channel"]));
    assert!(actions[0]["source"].as_str().expect("a place").ends_with("module.json:6:14"), "{}", actions[0]["source"]);
    assert!(stage.run(&["get", "actions", "agent"]).code(0).out.contains("agent:send"));
    assert!(stage.run(&["get", "credentials"]).code(0).out.contains("vault:{vault}:write"));
    let templates = stage.run(&["get", "templates"]).code(0).out;
    assert!(templates.contains("vault note.created") && templates.contains("agent message.deliver"), "{templates}");
    assert!(stage.run(&["get", "events", "-o", "yaml"]).code(0).out.contains("key: note.created"));
    assert_eq!(
        stage.run(&["get", "events", "vualt"]).code(1).err.lines().last(),
        Some("  help: did you mean 'vault'?")
    );
    assert_eq!(stage.run(&["get", "templates", "vault"]).code(0).err, "no templates\n");
    assert!(!stage.path(".trueup").exists(), "looking leaves nothing behind");
}

#[test]
fn a_module_json_with_a_mistake_is_told_and_the_rest_is_listed() {
    let stage = stage();
    let file = stage.path("manifests/modules/agent/.parachute/module.json");
    fs::write(&file, AGENT.replace("\"agent:send\"", "\"vault:admin\"")).expect("a module.json");
    let answer = stage.run(&["get", "events"]).code(0);
    assert!(answer.out.contains("note.created") && !answer.out.contains("message.sent"), "{}", answer.out);
    assert!(answer.err.contains("the scope `vault:admin` is not one of `agent`"), "{}", answer.err);
    let told = stage.run(&["validate"]).code(0);
    assert!(told.err.contains("did you mean `agent:admin`?"), "{}", told.err);
}

#[test]
fn clients_of_the_older_hub_find_the_catalog_where_it_was() {
    let stage = stage();
    let port = free_port();
    stage.write(
        "hub.yaml",
        &format!(
            "apiVersion: trueup/v1\nkind: Hub\nmetadata: {{ name: home }}\nspec: {{ listen: '127.0.0.1:{port}' }}\n"
        ),
    );
    stage.write("agent.yaml", "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: agent }\nspec: { module: modules/agent, suspend: true }\n");
    let _daemon = stage.daemon();
    let ask = |token: &str| {
        let request = Request::get("/api/connections/catalog").header("authorization", format!("Bearer {token}"));
        send(port, request.body(Full::default()).expect("a request"))
    };
    wait_until("the hub", || ask("none").is_ok_and(|reply| reply.status == 401));
    let file = stage.path(".trueup/home/operator.token");
    wait_until("the operator's token", || fs::read_to_string(&file).is_ok_and(|token| !token.is_empty()));
    let token = fs::read_to_string(&file).expect("the operator's token");
    wait_until("the module", || {
        ask(token.trim()).is_ok_and(|reply| reply.json()["actions"].as_array().is_some_and(|all| all.len() == 2))
    });
    let catalog = ask(token.trim()).expect("an answer").json();
    assert_eq!(
        catalog["events"],
        serde_json::json!([{ "module": "agent", "key": "message.sent", "title": "Message sent", "filterSchema": null }])
    );
    assert_eq!(
        catalog["actions"][1],
        serde_json::json!({ "module": "agent", "key": "internal", "title": "Of no use to connections", "inputSchema": null, "provision": null })
    );
    assert_eq!(catalog["credentials"][0]["description"], serde_json::Value::Null);
    assert_eq!(catalog["templates"][0]["key"], "link");
}
