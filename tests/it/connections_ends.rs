//! What lies at the ends of a connection: where the hub and the sink are, what a sink must know first, what it gets, and what stands still.

use std::fs;

use serde_json::{Value, json};

use crate::stage::wait_until;
use crate::wiring_stage::Tree;

const DIRECT: &str = "  delivery: direct\n";

fn webhook(tree: &Tree) -> String {
    tree.trigger()["action"]["webhook"].as_str().expect("an address").to_owned()
}

#[test]
fn the_trigger_follows_the_hub_to_another_port_and_another_origin() {
    let tree = Tree::new();
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let port = crate::stage::free_port();
    tree.write_hub(port, "");
    tree.pass();
    assert_eq!(webhook(&tree), format!("http://127.0.0.1:{port}/inbox/inbox"));
    let note = tree.note("at the other port", "in");
    tree.all_arrive_once([&note]);
    for origin in ["https://one.example", "https://two.example"] {
        tree.write_hub(port, &format!("  origin: {origin}\n"));
        tree.pass();
        // Nothing of it leaves the machine: the name may not be known here.
        assert_eq!(webhook(&tree), format!("http://127.0.0.1:{port}/inbox/inbox"));
        let note = tree.note(origin, "in");
        tree.all_arrive_once([&note]);
        assert_eq!(tree.tokens().len(), 1);
    }
}

#[test]
fn a_direct_trigger_follows_the_origin() {
    let tree = Tree::new();
    tree.connect("inbox", "in", DIRECT);
    let _daemon = tree.daemon();
    for origin in ["https://one.example", "https://two.example"] {
        tree.write_hub(tree.hub, &format!("  origin: {origin}\n"));
        tree.pass();
        let note = tree.note(origin, "in");
        tree.all_arrive_once([&note]);
    }
}

#[test]
fn the_trigger_follows_endpoint_mount_and_scope_of_its_sink() {
    let tree = Tree::new();
    tree.connect("inbox", "in", DIRECT);
    tree.connect("kept", "kept", "");
    let _daemon = tree.daemon();
    tree.pass();
    let find = |tree: &Tree, part: &str| {
        let all = tree.triggers();
        let one = all.values().find(|one| one["when"]["tags"] == json!([part]));
        one.unwrap_or_else(|| panic!("{all:?}"))["action"]["webhook"].as_str().expect("an address").to_owned()
    };
    let origin = format!("http://127.0.0.1:{}", tree.hub);
    assert_eq!(find(&tree, "in"), format!("{origin}/mailbox/api/deliver"));
    tree.mailbox_as("", "/mailbox/api", "/deliver", "mailbox:send");
    tree.pass();
    assert_eq!(find(&tree, "in"), format!("{origin}/mailbox/api/deliver"));
    tree.mailbox_as("", "/mailbox/", "/api/deliver", "mailbox:send");
    tree.pass();
    assert_eq!(find(&tree, "in"), format!("{origin}/mailbox/api/deliver"), "one slash and not two");
    tree.mailbox_as("", "/mailbox", "/api/deliver?channel=other", "mailbox:send");
    tree.pass();
    assert_eq!(find(&tree, "in"), format!("{origin}/mailbox/api/deliver?channel=other"));
    let notes = [tree.note("a", "in"), tree.note("b", "kept")];
    tree.all_arrive_once(&notes);
    let channels: Vec<Value> = tree.messages().iter().map(|message| message["channel"].clone()).collect();
    assert!(channels.contains(&json!("other")) && channels.contains(&json!("main")), "{channels:?}");
    let before = tree.jtis();
    tree.mailbox_as("", "/mailbox", "/api/deliver", "mailbox:drop");
    tree.pass();
    let rows = tree.tokens();
    let scopes: Vec<String> = rows.iter().map(|row| row["scopes"].to_string()).collect();
    assert!(scopes.contains(&r#"["mailbox:drop"]"#.to_owned()) && scopes.len() == 2, "{scopes:?}");
    assert_eq!(tree.jtis().intersection(&before).count(), 1, "only the token of the direct one is another");
    assert_eq!(find(&tree, "kept"), format!("{origin}/inbox/kept"));
}

#[test]
fn the_answer_of_the_sink_of_a_direct_connection_reaches_the_note() {
    let tree = Tree::new();
    let answer = json!({ "content": "heard", "metadata": { "said": "yes" } });
    tree.write_mailbox(&format!(", --deliver-answer, '{answer}'"));
    tree.connect("inbox", "in", DIRECT);
    let _daemon = tree.daemon();
    tree.pass();
    let note = tree.note("hello", "in");
    wait_until("the answer in the note", || tree.read_note(&note)["content"] == "heard");
    let note = tree.read_note(&note);
    assert_eq!(note["metadata"]["said"], "yes");
    let marks: Vec<&String> = note["metadata"].as_object().expect("metadata").keys().collect();
    assert!(marks.iter().any(|key| key.ends_with("_rendered_at")), "{marks:?}");
    assert!(!marks.iter().any(|key| key.ends_with("_pending_at")), "{marks:?}");
    // Through the proxy, which counts it.
    assert_eq!(webhook(&tree), format!("http://127.0.0.1:{}/mailbox/api/deliver", tree.hub));
    assert_eq!(tree.tokens()[0]["scopes"], json!(["mailbox:send"]));
}

#[test]
fn a_durable_connection_that_is_suspended_keeps_its_events_for_later() {
    let tree = Tree::new();
    tree.connect("inbox", "in", "  suspend: true\n");
    let _daemon = tree.daemon();
    tree.pass();
    assert_eq!(tree.ready("Connection/inbox")["reason"], "Suspended");
    let notes = tree.notes(5, "in");
    wait_until("the hub to have taken them", || {
        let all = tree.stage.run(&["deliveries", "list", "--only", "waiting", "-o", "json"]).code(0);
        all.typed("delivery").len() == 5
    });
    wait_until("the vault to know", || tree.pending().is_empty());
    assert_eq!(tree.messages(), [] as [Value; 0]);
    tree.connect("inbox", "in", "");
    tree.pass();
    tree.all_arrive_once(&notes);
}

#[test]
fn a_direct_connection_that_is_suspended_has_no_trigger() {
    let tree = Tree::new();
    tree.connect("inbox", "in", DIRECT);
    let _daemon = tree.daemon();
    tree.pass();
    let name = tree.trigger()["name"].clone();
    tree.connect("inbox", "in", &format!("{DIRECT}  suspend: {{ reason: moving }}\n"));
    tree.pass();
    assert_eq!(tree.triggers().len(), 0);
    let ready = tree.ready("Connection/inbox");
    assert!(ready["message"].as_str().expect("text").contains("moving"), "{ready}");
    let note = tree.note("unheard", "in");
    tree.connect("inbox", "in", DIRECT);
    tree.pass();
    assert_eq!(tree.trigger()["name"], name);
    let after = tree.note("heard", "in");
    tree.all_arrive_once([&after]);
    assert!(!tree.arrived().contains_key(&note));
}

const PREPARED: &str = "  source: { service: vault, vault: default, event: note.created, filter: { tags: [in] } }
  sink:
    service: mailbox
    action: message.deliver
    params: { channel: main }
    prepare:
      scope: mailbox:admin
      token: \"vault:{vault}:write\"
      put:
        path: /mailbox/api/channels
        body: { name: \"{params.channel}\", transport: vault, config: { vault: \"{vault}\", vaultUrl: \"{vaultUrl}\", token: \"{token}\" } }
      check: { path: /mailbox/api/channels, list: channels, entry: { name: \"{params.channel}\" } }
      remove: /mailbox/api/channels/{params.channel}
";

/// What the mailbox was told, from its own file.
fn kept(tree: &Tree, file: &str) -> Value {
    let text = fs::read_to_string(tree.stage.path(&format!(".trueup/home/mailbox/{file}.json"))).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn a_sink_is_told_what_it_must_know_and_told_again_and_forgets_it_with_the_connection() {
    let tree = Tree::new();
    tree.connection("inbox", PREPARED);
    let _daemon = tree.daemon();
    tree.pass();
    let channel = kept(&tree, "channels")["main"].clone();
    assert_eq!(channel["config"]["vault"], "default");
    assert_eq!(channel["config"]["vaultUrl"], format!("http://127.0.0.1:{}", tree.vault));
    let rows = tree.tokens();
    let reply = rows.iter().find(|row| row["scopes"] == json!(["vault:default:write"])).expect("a token for answers");
    assert_eq!((rows.len(), &reply["audience"]), (2, &json!("vault.default")));
    // What the sink got is good for what it is for.
    let token = channel["config"]["token"].as_str().expect("a token");
    let answer = json!({ "content": "an answer", "tags": ["out"] });
    let said =
        crate::hub_stage::post(tree.vault, "/vault/default/api/notes", token, &answer).expect("the vault answers");
    assert_eq!(said.status, 201, "{}", said.text());

    tree.stop("mailbox");
    fs::remove_file(tree.stage.path(".trueup/home/mailbox/channels.json")).expect("forgotten");
    tree.start("mailbox");
    tree.pass();
    assert_eq!(kept(&tree, "channels")["main"], channel, "with the same token");
    assert_eq!(tree.tokens(), rows);
    let note = tree.note("hello", "in");
    tree.all_arrive_once([&note]);

    tree.remove("inbox.yaml");
    tree.pass();
    assert_eq!(kept(&tree, "channels"), json!({}));
    assert_eq!((tree.tokens().len(), tree.triggers().len()), (0, 0));
}

#[test]
fn another_channel_of_a_connection_replaces_the_one_before() {
    let tree = Tree::new();
    tree.connection("inbox", PREPARED);
    let _daemon = tree.daemon();
    tree.pass();
    tree.connection("inbox", &PREPARED.replace("channel: main", "channel: other"));
    tree.pass();
    let channels = kept(&tree, "channels");
    let names: Vec<&String> = channels.as_object().expect("channels").keys().collect();
    assert_eq!(names, ["other"], "the one before is taken back");
    assert_eq!(tree.tokens().len(), 2);
    tree.connect("inbox", "in", "");
    tree.pass();
    assert_eq!((kept(&tree, "channels"), tree.tokens().len()), (json!({}), 1));
}

fn credential(tree: &Tree, key: &str, more: &str) {
    let wish = format!("  credential: {{ service: mailbox, key: {key}, vaultService: vault, vault: default{more} }}\n");
    tree.connection("notes", &wish);
}

#[test]
fn a_credential_is_delivered_renewed_and_taken_back_with_notice() {
    let tree = Tree::new();
    credential(&tree, "notes", ", tags: [dictation]");
    let _daemon = tree.daemon();
    tree.pass();
    let first = kept(&tree, "credentials")["notes"].clone();
    assert_eq!(
        (&first["op"], &first["key"], &first["vault"]),
        (&json!("provisioned"), &json!("notes"), &json!("default"))
    );
    assert_eq!((&first["scope"], &first["scoped_tags"]), (&json!("vault:default:read"), &json!(["dictation"])));
    let row = &tree.tokens()[0];
    assert_eq!((&row["jti"], &row["created_via"]), (&first["jti"], &json!("connection_credential")));
    let visible = |token: &Value| {
        let token = token.as_str().expect("a token");
        let request =
            hyper::Request::get("/vault/default/api/notes").header("authorization", format!("Bearer {token}"));
        let reply = crate::hub_stage::send(tree.vault, request.body(Default::default()).expect("a request"));
        let reply = reply.expect("the vault answers");
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json().as_array().expect("notes").len()
    };
    tree.note("secret", "other");
    assert_eq!(visible(&first["token"]), 0);
    tree.note("said", "dictation");
    assert_eq!(visible(&first["token"]), 1);

    let database = rusqlite::Connection::open(tree.stage.path(".trueup/hub.db")).expect("the database");
    database.execute("UPDATE tokens SET expires_at = expires_at - 80 * 86400000", []).expect("older");
    drop(database);
    tree.pass();
    let second = kept(&tree, "credentials")["notes"].clone();
    assert_eq!(second["op"], "renewed");
    assert_ne!(second["jti"], first["jti"]);
    assert_eq!(visible(&second["token"]), 1);
    assert_eq!(tree.tokens().len(), 1, "the one before is revoked");

    tree.remove("notes.yaml");
    tree.pass();
    assert_eq!((kept(&tree, "credentials"), tree.tokens().len()), (json!({}), 0));
}

#[test]
fn a_credential_that_may_write_needs_tags() {
    let tree = Tree::new();
    credential(&tree, "pen", "");
    let refused = tree.stage.run(&["validate"]).code(3);
    let text = refused.out + &refused.err;
    assert!(text.contains("`tags` is missing") && text.contains("notes.yaml"), "{text}");
    credential(&tree, "pen", ", tags: [dictation]");
    tree.stage.run(&["validate"]).code(0);
    let _daemon = tree.daemon();
    tree.pass();
    assert_eq!(tree.tokens()[0]["scopes"], json!(["vault:default:write"]));
}
