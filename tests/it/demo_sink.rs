//! Where notes arrive: the demo mailbox as a sink, with its channels and credentials, and the tiny sink in Python.

use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use crate::hub_stage::staged;
use crate::hub_stage::{Reply, send};
use crate::peers::{Hub, Peer, admin, python_words, token};
use crate::stage::{free_port, wait_until};

const DELIVER: &str = "/mailbox/api/deliver";
const MESSAGES: &str = "/mailbox/api/messages";

fn event(note: &str) -> Value {
    json!({ "trigger": "conn_a", "event": "created",
        "note": { "id": note, "content": format!("of {note}"), "metadata": { "channel": "side" } } })
}

fn deliver(port: u16, token: &str, key: &str, body: &Value) -> Result<Reply, String> {
    let mut request = Request::post(DELIVER).header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    send(port, request.body(Full::from(body.to_string())).expect("a request"))
}

fn sender() -> String {
    token("mailbox", "mailbox:send")
}

fn messages(peer: &Peer) -> Value {
    peer.ask("GET", MESSAGES, "", &Value::Null).1
}

#[test]
fn a_delivery_is_taken_once_and_outlives_a_kill() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let mut mailbox = Peer::demo(&hub, home.path(), &["mailbox"]);
    let take = |mailbox: &Peer, key: &str, body: &Value| {
        deliver(mailbox.port, &sender(), key, body).expect("an answer").json()
    };
    assert_eq!(take(&mailbox, "k1", &event("n1")), json!({ "ok": true }));
    assert_eq!(take(&mailbox, "k1", &event("n1")), json!({ "ok": true, "duplicate": true }));
    assert_eq!(take(&mailbox, "", &event("n2")), json!({ "ok": true }));
    assert_eq!(take(&mailbox, "", &event("n2")), json!({ "ok": true, "duplicate": true }));
    mailbox.again();
    assert_eq!(take(&mailbox, "k1", &event("n1")), json!({ "ok": true, "duplicate": true }));
    let mut with_params = event("n3");
    with_params["params"] = json!({ "channel": "main" });
    assert_eq!(take(&mailbox, "k3", &with_params), json!({ "ok": true }));
    let posted = mailbox.ask("POST", MESSAGES, "", &json!({ "channel": "c", "content": "posted" }));
    assert_eq!(posted, (201, json!({ "id": 4, "channel": "c", "content": "posted" })));
    let seen = messages(&mailbox);
    assert_eq!(
        seen[0],
        json!({ "id": 1, "channel": "side", "content": "of n1", "noteId": "n1", "idempotencyKey": "k1",
            "trigger": "conn_a", "event": "created", "arrival": 1, "times": 3 })
    );
    assert_eq!(
        (&seen[1]["arrival"], &seen[1]["times"], &seen[1]["idempotencyKey"]),
        (&json!(3), &json!(2), &Value::Null)
    );
    assert_eq!(
        (&seen[2]["arrival"], &seen[2]["channel"], &seen[3]["content"]),
        (&json!(6), &json!("main"), &json!("posted"))
    );
}

#[test]
fn whoever_bears_no_good_token_learns_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let mailbox = Peer::demo(&hub, home.path(), &["mailbox"]);
    let mut answers: Vec<(u16, String)> = Vec::new();
    for token in [
        String::new(),
        "x".to_owned(),
        token("mailbox", "mailbox:admin"),
        token("inbox", "mailbox:send"),
        token("mailbox", "vault:default:admin"),
        admin("default"),
    ] {
        let reply = deliver(mailbox.port, &token, "", &event("n")).expect("an answer");
        answers.push((reply.status, reply.text()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].0, 401);
    assert_eq!(messages(&mailbox), json!([]));
    assert_eq!(deliver(mailbox.port, &sender(), "", &json!({ "note": {} })).expect("an answer").status, 400);
}

#[test]
fn a_sink_can_fail_and_be_slow_and_lose_its_answers() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let words = ["mailbox", "--fail-deliver", "503:2", "--lose-deliver-answers", "1", "--deliver-delay", "5"];
    let mailbox = Peer::demo(&hub, home.path(), &words);
    for _ in 0..2 {
        assert_eq!(deliver(mailbox.port, &sender(), "k", &event("n")).expect("an answer").status, 503);
    }
    assert_eq!(messages(&mailbox), json!([]));
    assert!(deliver(mailbox.port, &sender(), "k", &event("n")).is_err(), "the answer is lost");
    assert_eq!(messages(&mailbox)[0]["times"], 1, "and the message is kept");
    assert_eq!(deliver(mailbox.port, &sender(), "k", &event("n")).expect("an answer").json()["duplicate"], true);
    let never = Peer::demo(&hub, &home.path().join("never"), &["mailbox", "--fail-deliver", "410"]);
    for _ in 0..3 {
        assert_eq!(deliver(never.port, &sender(), "k", &event("n")).expect("an answer").status, 410);
    }
}

#[test]
fn channels_and_credentials_are_kept_and_tokens_shown_to_nobody() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let mut mailbox = Peer::demo(&hub, home.path(), &["mailbox"]);
    let (channels, credential) = ("/mailbox/api/channels", "/mailbox/api/credential");
    let boss = token("mailbox", "mailbox:admin");
    let channel = json!({ "name": "main", "transport": "vault",
        "config": { "vault": "default", "vaultUrl": "http://127.0.0.1:1940", "token": "reply-token" } });
    assert_eq!(mailbox.ask("POST", channels, &sender(), &channel).0, 401);
    let made = json!({ "ok": true, "name": "main", "transport": "vault", "live": true });
    assert_eq!(mailbox.ask("POST", channels, &boss, &channel), (200, made.clone()));
    assert_eq!(mailbox.ask("POST", channels, &boss, &channel), (200, made));
    assert_eq!(mailbox.ask("POST", channels, &boss, &json!({ "name": "no slug" })).0, 400);
    let given = json!({ "kind": "credential", "op": "provisioned", "connection_id": "scribe-notes", "key": "notes", "vault": "default",
        "scope": "vault:default:read", "scoped_tags": ["dictation"], "token": "credential-token", "jti": "J1" });
    assert_eq!(mailbox.ask("POST", credential, &sender(), &given).0, 401);
    assert_eq!(mailbox.ask("POST", credential, &boss, &given), (200, json!({ "ok": true })));
    assert_eq!(
        mailbox
            .ask("POST", credential, &boss, &json!({ "kind": "credential", "connection_id": "x", "op": "renewed" }))
            .0,
        400
    );

    mailbox.again();
    let shown = mailbox.ask("GET", channels, &boss, &Value::Null).1;
    assert_eq!(shown, json!({ "channels": [{ "name": "main", "transport": "vault", "vault": "default" }] }));
    let shown = mailbox.ask("GET", "/mailbox/api/credentials", &boss, &Value::Null).1;
    assert_eq!((&shown["credentials"][0]["jti"], shown["credentials"][0].get("token")), (&json!("J1"), None));
    let kept = std::fs::read_to_string(home.path().join("mailbox/credentials.json")).expect("a file");
    assert!(kept.contains("credential-token"));

    let item = format!("{channels}/main");
    assert_eq!(
        mailbox.ask("DELETE", &item, &boss, &Value::Null),
        (200, json!({ "ok": true, "name": "main", "removed": true }))
    );
    assert_eq!(mailbox.ask("DELETE", &item, &boss, &Value::Null).0, 404);
    let removed = json!({ "kind": "credential", "op": "removed", "connection_id": "scribe-notes" });
    assert_eq!(mailbox.ask("POST", credential, &boss, &removed).0, 200);
    assert_eq!(mailbox.ask("GET", "/mailbox/api/credentials", &boss, &Value::Null).1, json!({ "credentials": [] }));
}

#[test]
fn a_vault_delivers_straight_to_a_mailbox() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let mailbox = Peer::demo(&hub, home.path(), &["mailbox"]);
    let vault = Peer::demo(&hub, home.path(), &["vault"]);
    let webhook = format!("http://127.0.0.1:{}{DELIVER}", mailbox.port);
    let trigger = json!({ "name": "conn_a", "events": ["created"], "when": {},
        "action": { "webhook": webhook, "send": "json", "auth": { "bearer": sender() } } });
    assert_eq!(vault.ask("POST", "/vault/default/api/triggers", &admin("default"), &trigger).0, 200);
    for number in 0..5 {
        let note = json!({ "content": format!("note {number}"), "metadata": { "agent": "main" } });
        assert_eq!(vault.ask("POST", "/vault/default/api/notes", "", &note).0, 201);
    }
    wait_until("the messages", || messages(&mailbox).as_array().map(Vec::len) == Some(5));
    assert!(
        messages(&mailbox)
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["channel"] == "main" && one["times"] == 1))
    );
}

#[test]
fn the_tiny_sink_in_python_tells_what_came() {
    let Some(sink) = Peer::sink(&[("SINK_FAIL", "503:1")]) else { return };
    let post = || sink.ask("POST", "/sink/api/deliver", &sender(), &event("n"));
    assert_eq!(post().0, 503);
    assert_eq!(post(), (200, json!({ "ok": true })));
    assert_eq!(post(), (200, json!({ "ok": true, "duplicate": true })));
    let seen = sink.ask("GET", "/sink/messages", "", &Value::Null).1;
    assert_eq!(
        (&seen[0]["noteId"], &seen[0]["times"], &seen[0]["claims"]["scope"]),
        (&json!("n"), &json!(2), &json!("mailbox:send"))
    );
    assert!(seen[0].get("token").is_none());
}

#[test]
fn tokens_of_the_real_hub_open_the_peers_and_no_longer_when_they_are_revoked() {
    let (stage, hub) = staged();
    let (demo, python, mailbox) = (free_port(), free_port(), free_port());
    let service = |name: &str, port: u16, command: &str, health: &str| {
        let text = format!(
            "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  command: {command}\n  port: {port}\n  \
             readiness: {{ http: {{ path: {health} }}, period: 200ms }}\n"
        );
        stage.write(&format!("{name}.yaml"), &text);
    };
    service("vault", demo, "[trueup, demo, vault]", "/vault/default/health");
    service("mailbox", mailbox, "[trueup, demo, mailbox]", "/mailbox/health");
    let words = python_words("vault.py");
    if let Some(words) = &words {
        service("other", python, &serde_json::to_string(words).expect("JSON"), "/vault/default/health");
    }
    let _daemon = stage.daemon();
    wait_until("the services", || ["vault", "mailbox"].iter().all(|name| stage.is_ready(name)));
    let mint = |scope: &str| {
        let answer = stage.run(&["token", "mint", "--scope", scope, "-o", "json"]).code(0);
        let minted = answer.typed("minted").pop().expect("a line");
        (minted["token"].as_str().expect("a token").to_owned(), minted["jti"].as_str().expect("an id").to_owned())
    };
    let ask = |port: u16, path: &str, token: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        send(port, request.body(Full::default()).expect("a request")).map(|reply| reply.status)
    };
    let triggers = "/vault/default/api/triggers";
    let (good, _) = mint("vault:default:admin");
    wait_until("a hub that serves its keys", || ask(hub, "/.well-known/jwks.json", "") == Ok(200));
    assert_eq!(ask(demo, triggers, &good), Ok(200));
    assert_eq!(ask(demo, triggers, &mint("vault:default:read").0), Ok(403));
    if words.is_some() {
        wait_until("the vault in Python", || stage.is_ready("other"));
        assert_eq!(ask(python, triggers, &good), Ok(200));
    }
    // Revoked before anybody asked for the list of those.
    let (revoked, jti) = mint("mailbox:send");
    stage.run(&["token", "revoke", &jti]).code(0);
    assert_eq!(deliver(mailbox, &revoked, "", &event("n")).expect("an answer").status, 401);
    assert_eq!(deliver(mailbox, &mint("mailbox:send").0, "", &event("n")).expect("an answer").status, 200);
}
