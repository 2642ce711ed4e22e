//! What a vault is to a client: its triggers, their marks and deliveries, and whom it believes. One suite, held against the demo vault and
//! against a second one in Python that knows nothing of ours.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::peers::{self, Hub, ISSUER, KEYS, Kind, Peer, Receiver, admin, claims, seconds, token};
use crate::stage::wait_until;

const NOTES: &str = "/vault/default/api/notes";
const TRIGGERS: &str = "/vault/default/api/triggers";

/// Runs a part of the suite against both.
fn with_each(part: fn(Kind, &Hub, &Path, &Peer), more: &[(&str, &str)]) {
    for kind in [Kind::Demo, Kind::Python] {
        let home = tempfile::tempdir().expect("a folder");
        let hub = Hub::start(Some(&[]));
        if let Some(peer) = Peer::vault(kind, &hub, home.path(), more) {
            part(kind, &hub, home.path(), &peer);
        }
    }
}

fn trigger(name: &str, events: &[&str], webhook: &str) -> Value {
    json!({ "name": name, "events": events, "when": { "tags": ["in"] },
        "action": { "webhook": webhook, "send": "json", "auth": { "bearer": "the-bearer" }, "timeout": 20_000 } })
}

fn put(peer: &Peer, trigger: &Value) -> Value {
    let (status, answer) = peer.ask("POST", TRIGGERS, &admin("default"), trigger);
    assert_eq!(status, 200, "{answer}");
    answer["trigger"].clone()
}

fn note(peer: &Peer, tags: &[&str], metadata: &Value) -> String {
    let sent = json!({ "content": "hello", "path": "in/x", "tags": tags, "metadata": metadata });
    let (status, note) = peer.ask("POST", NOTES, "", &sent);
    assert_eq!(status, 201, "{note}");
    note["id"].as_str().expect("an id").to_owned()
}

fn metadata(peer: &Peer, id: &str) -> Value {
    peer.ask("GET", &format!("{NOTES}/{id}"), "", &Value::Null).1["metadata"].clone()
}

fn until_marked(peer: &Peer, id: &str, mark: &str) -> Value {
    wait_until(mark, || metadata(peer, id)[mark].is_string());
    metadata(peer, id)
}

fn patch(peer: &Peer, id: &str, change: &Value) -> Value {
    let (status, note) = peer.ask("PATCH", &format!("{NOTES}/{id}"), "", change);
    assert_eq!(status, 200, "{note}");
    note
}

/// Brings a note through a trigger that was made after all others: what the others were to do is under way then.
fn settle(peer: &Peer, receiver: &Receiver) {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let name = format!("zz_settle{}", LAST.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
    let mut last = trigger(&name, &["created"], &format!("http://127.0.0.1:{}/settle", receiver.port));
    last["when"] = json!({ "tags": [name] });
    put(peer, &last);
    let id = note(peer, &[&name], &json!({}));
    wait_until("the last delivery", || {
        let marks = metadata(peer, &id);
        !marks[format!("{name}_rendered_at")].is_null() || !marks[format!("{name}_pending_at")].is_null()
    });
    assert_eq!(peer.ask("DELETE", &format!("{TRIGGERS}/{name}"), &admin("default"), &Value::Null).0, 200);
}

/// How often the webhook of these triggers was called for this note.
fn times(receiver: &Receiver, id: &str) -> usize {
    receiver.got().iter().filter(|got| got.body["note"]["id"] == id).count()
}

#[test]
fn triggers_are_kept_shown_without_their_bearer_and_removed() {
    with_each(
        |kind, _, _, peer| {
            let token = admin("default");
            let sent = json!({ "name": "conn_b", "when": { "tags": ["in"], "color": "red" },
                "action": { "webhook": "http://127.0.0.1:9/x", "later": 1, "auth": { "bearer": "secret-bearer" } } });
            let first = put(peer, &sent);
            assert_eq!(first["events"], json!(["created", "updated"]));
            assert_eq!(
                first["action"],
                json!({ "webhook": "http://127.0.0.1:9/x", "later": 1, "auth": { "bearer": "[REDACTED]" } })
            );
            assert_eq!(first["when"], sent["when"]);
            put(peer, &trigger("conn_a", &["created"], "http://127.0.0.1:9/y"));
            let mut changed = sent.clone();
            changed["events"] = json!(["updated"]);
            let second = put(peer, &changed);
            assert_eq!((&second["created_at"], &second["events"]), (&first["created_at"], &json!(["updated"])));
            assert!(second["updated_at"].as_str() > first["updated_at"].as_str(), "{second}");

            let (status, all) = peer.ask("GET", TRIGGERS, &token, &Value::Null);
            assert_eq!((status, &all["triggers"][0]["name"], &all["triggers"][1]), (200, &json!("conn_a"), &second));
            assert!(!all.to_string().contains("secret-bearer"), "{kind:?}");
            let one = peer.ask("GET", &format!("{TRIGGERS}/conn_b"), &token, &Value::Null);
            assert_eq!(one, (200, json!({ "trigger": second })));
            let item = format!("{TRIGGERS}/conn_b");
            assert_eq!(peer.ask("DELETE", &item, &token, &Value::Null), (200, json!({ "deleted": "conn_b" })));
            let gone = (404, json!({ "error": "Not found", "name": "conn_b" }));
            assert_eq!(peer.ask("DELETE", &item, &token, &Value::Null), gone);
            assert_eq!(peer.ask("GET", &item, &token, &Value::Null), gone);
            let wrong = (405, json!({ "error": "Method not allowed" }));
            assert_eq!(peer.ask("PUT", TRIGGERS, &token, &sent), wrong);
            assert_eq!(peer.ask("PATCH", &item, &token, &sent), wrong);
        },
        &[],
    );
}

#[test]
fn what_is_no_trigger_is_refused() {
    with_each(
        |kind, _, _, peer| {
            let good = trigger("conn_a", &["created"], "http://127.0.0.1:9/x");
            for (place, value, part) in [
                ("/name", json!("a b"), "`name`"),
                ("/name", Value::Null, "`name`"),
                ("/events", json!(["deleted"]), "`events`"),
                ("/events", json!("created"), "`events`"),
                ("/when", Value::Null, "`when`"),
                ("/when", json!({ "metadata": { "state": { "equals": 1 } } }), "`when.metadata.state`"),
                ("/when", json!({ "metadata": { "state": 1 } }), "`when.metadata.state`"),
                ("/action", json!([]), "`action`"),
                ("/action/webhook", json!(""), "`action.webhook`"),
                ("/action/webhook", json!("nowhere"), "not a valid URL"),
                ("/action/webhook", json!("ftp://127.0.0.1/x"), "http or https"),
                ("/action/auth", json!("x"), "`action.auth`"),
                ("/action/auth/bearer", json!(""), "`action.auth.bearer`"),
            ] {
                let mut bad = good.clone();
                *bad.pointer_mut(place).expect("a place") = value;
                let (status, answer) = peer.ask("POST", TRIGGERS, &admin("default"), &bad);
                let error = answer["error"].as_str().unwrap_or_default();
                assert!(status == 400 && error.contains(part), "{kind:?} {bad}: {status} {answer}");
            }
            let (status, answer) = peer.ask("POST", TRIGGERS, &admin("default"), &json!("no object"));
            assert_eq!(status, 400, "{answer}");
        },
        &[],
    );
}

#[test]
fn a_note_is_delivered_once_with_its_marks() {
    with_each(
        |kind, _, _, peer| {
            let receiver = Receiver::start();
            receiver.answers(200, r#"{"ok":true,"metadata":{"seen":1}}"#);
            put(peer, &trigger("conn_a", &["created"], &receiver.url()));
            let other = note(peer, &["out"], &json!({}));
            let id = note(peer, &["in"], &json!({ "k": 1 }));
            let marked = until_marked(peer, &id, "conn_a_rendered_at");
            assert_eq!((&marked["k"], &marked["seen"], marked.get("conn_a_pending_at")), (&json!(1), &json!(1), None));
            let got = receiver.until(1).remove(0);
            assert_eq!(got.bearer, "Bearer the-bearer");
            assert_eq!((&got.body["trigger"], &got.body["event"]), (&json!("conn_a"), &json!("created")));
            let sent = &got.body["note"];
            assert_eq!((&sent["id"], &sent["content"], &sent["path"]), (&json!(id), &json!("hello"), &json!("in/x")));
            assert_eq!(
                (&sent["tags"], &sent["metadata"], &sent["attachments"]),
                (&json!(["in"]), &json!({ "k": 1 }), &json!([]))
            );
            assert!(sent["createdAt"].is_string() && sent["updatedAt"].is_string(), "{sent}");
            let whole = peer.ask("GET", &format!("{NOTES}/{id}"), "", &Value::Null).1;
            assert_eq!(whole["updatedAt"], sent["updatedAt"], "marks do not count as a change");

            // `created` is over for good: neither a change nor a note without its marks brings it back.
            patch(peer, &id, &json!({ "content": "more", "force": true }));
            patch(peer, &id, &json!({ "metadata": { "conn_a_rendered_at": null }, "force": true }));
            settle(peer, &receiver);
            assert_eq!((times(&receiver, &id), times(&receiver, &other)), (1, 0), "{kind:?}");
        },
        &[],
    );
}

#[test]
fn marks_block_a_second_delivery_until_somebody_clears_them_or_the_trigger_has_another_name() {
    with_each(
        |kind, _, _, peer| {
            let receiver = Receiver::start();
            put(peer, &trigger("conn_u", &["created", "updated"], &receiver.url()));
            let id = note(peer, &["in"], &json!({}));
            until_marked(peer, &id, "conn_u_rendered_at");
            patch(peer, &id, &json!({ "content": "more", "force": true }));
            settle(peer, &receiver);
            assert_eq!(times(&receiver, &id), 1, "{kind:?}");
            // The same name again remembers; another one does not.
            assert_eq!(peer.ask("DELETE", &format!("{TRIGGERS}/conn_u"), &admin("default"), &Value::Null).0, 200);
            put(peer, &trigger("conn_u", &["created", "updated"], &receiver.url()));
            patch(peer, &id, &json!({ "content": "again", "force": true }));
            settle(peer, &receiver);
            assert_eq!(times(&receiver, &id), 1, "{kind:?}");
            put(peer, &trigger("conn_v", &["updated"], &receiver.url()));
            patch(peer, &id, &json!({ "content": "renamed", "force": true }));
            until_marked(peer, &id, "conn_v_rendered_at");
            assert_eq!(times(&receiver, &id), 2, "{kind:?}");
            // Clearing a mark is a change, and so an event.
            patch(peer, &id, &json!({ "metadata": { "conn_u_rendered_at": null }, "force": true }));
            until_marked(peer, &id, "conn_u_rendered_at");
            assert_eq!(times(&receiver, &id), 3, "{kind:?}");
            assert_eq!(receiver.got().pop().expect("a webhook").body["event"], "updated");
        },
        &[],
    );
}

#[test]
fn a_delivery_that_fails_leaves_its_note_pending() {
    with_each(
        |kind, _, _, peer| {
            let receiver = Receiver::start();
            let closed = crate::stage::free_port();
            for (name, status, text, webhook) in [
                ("conn_500", 500, "", receiver.url()),
                ("conn_401", 401, "{}", receiver.url()),
                ("conn_text", 200, "thanks", receiver.url()),
                ("conn_down", 200, "", format!("http://127.0.0.1:{closed}/")),
            ] {
                receiver.answers(status, text);
                put(peer, &trigger(name, &["created"], &webhook));
                let id = note(peer, &["in"], &json!({}));
                let (pending, rendered) = (format!("{name}_pending_at"), format!("{name}_rendered_at"));
                until_marked(peer, &id, &pending);
                settle(peer, &receiver);
                let marks = metadata(peer, &id);
                assert!(marks[&pending].is_string() && marks.get(&rendered).is_none(), "{kind:?} {name}: {marks}");
                patch(peer, &id, &json!({ "content": "more", "force": true }));
                assert_eq!(peer.ask("DELETE", &format!("{TRIGGERS}/{name}"), &admin("default"), &Value::Null).0, 200);
            }
            // An answer that comes too late is none.
            receiver.answers(200, "");
            let held = receiver.hold();
            let mut late = trigger("conn_late", &["created"], &receiver.url());
            late["action"]["timeout"] = json!(150);
            put(peer, &late);
            let id = note(peer, &["in"], &json!({}));
            wait_until("the webhook", || times(&receiver, &id) == 1);
            let quick = Receiver::start();
            settle(peer, &quick);
            drop(held);
            settle(peer, &quick);
            let marks = metadata(peer, &id);
            assert!(marks["conn_late_pending_at"].is_string(), "{marks}");
            // What the webhook does not want is marked as done.
            receiver.answers(200, r#"{"skipped_reason":"not for me"}"#);
            put(peer, &trigger("conn_skip", &["created"], &receiver.url()));
            let id = note(peer, &["in"], &json!({}));
            let marks = until_marked(peer, &id, "conn_skip_rendered_at");
            assert_eq!(marks["conn_skip_skipped_reason"], "not for me");
        },
        // One after the other: when the next is sent, the one before is over.
        &[("HOOK_CONCURRENCY", "1")],
    );
}

#[test]
fn deliveries_are_few_at_once_and_keep_nobody_waiting() {
    with_each(
        |kind, _, _, peer| {
            let receiver = Receiver::start();
            let held = receiver.hold();
            put(peer, &trigger("conn_a", &["created"], &receiver.url()));
            let ids: Vec<String> = (0..8).map(|_| note(peer, &["in"], &json!({}))).collect();
            receiver.until(3);
            // The API answers meanwhile.
            assert_eq!(peer.ask("GET", TRIGGERS, &admin("default"), &Value::Null).0, 200);
            assert_eq!(receiver.got().len(), 3, "{kind:?}");
            drop(held);
            for id in &ids {
                until_marked(peer, id, "conn_a_rendered_at");
            }
            assert_eq!(receiver.most_at_once(), 3);
            assert!(ids.iter().all(|id| times(&receiver, id) == 1), "{kind:?}");
        },
        &[("HOOK_CONCURRENCY", "3")],
    );
}

#[test]
fn a_filter_chooses_notes() {
    with_each(
        |kind, _, _, peer| {
            let receiver = Receiver::start();
            let filters = [
                ("f_tags", json!({ "tags": ["in", "b"] })),
                ("f_has", json!({ "has_metadata": ["k"] })),
                ("f_missing", json!({ "missing_metadata": ["k"] })),
                ("f_empty", json!({ "has_content": false })),
                ("f_gte", json!({ "metadata": { "k": { "gte": 2, "lt": 5 } } })),
                ("f_not_in", json!({ "metadata": { "k": { "not_in": [1, 2] } } })),
                ("f_all", json!({ "unknown": true })),
            ];
            for (name, when) in &filters {
                let mut one = trigger(name, &["created"], &receiver.url());
                one["when"] = when.clone();
                put(peer, &one);
            }
            let cases = [
                (vec!["in", "b"], json!({}), vec!["f_tags", "f_missing", "f_not_in", "f_all"]),
                (vec!["in"], json!({ "k": 1 }), vec!["f_has", "f_all"]),
                (vec![], json!({ "k": 3 }), vec!["f_has", "f_gte", "f_not_in", "f_all"]),
                (vec!["b"], json!({ "k": null }), vec!["f_missing", "f_not_in", "f_all"]),
            ];
            for (tags, sent, wanted) in cases {
                let id = note(peer, &tags, &sent);
                settle(peer, &receiver);
                wait_until("the deliveries", || times(&receiver, &id) >= wanted.len());
                let of_it = |got: &peers::Got| got.body["note"]["id"] == id;
                let mut fired: Vec<String> =
                    receiver.got().into_iter().filter(of_it).map(|got| got.body["trigger"].to_string()).collect();
                fired.sort();
                let mut wanted: Vec<String> = wanted.into_iter().map(|name| json!(name).to_string()).collect();
                wanted.sort();
                assert_eq!(fired, wanted, "{kind:?} {tags:?} {sent}");
            }
        },
        &[],
    );
}

#[test]
fn a_kill_loses_no_trigger() {
    for kind in [Kind::Demo, Kind::Python] {
        let home = tempfile::tempdir().expect("a folder");
        let hub = Hub::start(Some(&[]));
        let Some(mut peer) = Peer::vault(kind, &hub, home.path(), &[]) else { continue };
        let receiver = Receiver::start();
        let stored = put(&peer, &trigger("conn_a", &["created"], &receiver.url()));
        peer.again();
        let (_, all) = peer.ask("GET", TRIGGERS, &admin("default"), &Value::Null);
        assert_eq!(all["triggers"], json!([stored]), "{kind:?}");
        let id = note(&peer, &["in"], &json!({}));
        until_marked(&peer, &id, "conn_a_rendered_at");
        assert_eq!(receiver.until(1).remove(0).bearer, "Bearer the-bearer", "{kind:?}");
    }
}

#[test]
fn only_good_tokens_open_the_triggers() {
    for kind in [Kind::Demo, Kind::Python] {
        let home = tempfile::tempdir().expect("a folder");
        let hub = Hub::start(Some(&["revoked"]));
        let Some(peer) = Peer::vault(kind, &hub, home.path(), &[("PEER_VAULTS", "lab")]) else { continue };
        let ask = |token: &str| peer.ask("GET", TRIGGERS, token, &Value::Null);
        let good = claims("good", "vault.default", "vault:default:admin");
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims["jti"] = json!(format!("with {name}"));
            claims[name] = value;
            KEYS[0].sign(&claims)
        };
        assert_eq!(ask("").0, 401);
        assert_eq!(ask(&KEYS[0].sign(&good)).0, 200, "{kind:?}");
        assert_eq!(ask(&with("aud", json!(["x", "vault.default"]))).0, 200);
        assert_eq!(ask(&with("iss", json!("https://other.example.org"))).0, 200, "a further origin of the hub");
        let unsigned =
            KEYS[0].sign(&good).rsplit_once('.').map(|(signed, _)| format!("{signed}.")).expect("three parts");
        for (what, token) in [
            ("signature", KEYS[2].sign(&good)),
            ("no signature", unsigned),
            ("kid", KEYS[1].sign(&good)),
            ("issuer", with("iss", json!("https://evil.example.org"))),
            ("expired", with("exp", json!(seconds() - 5))),
            ("audience", with("aud", json!("vault.lab"))),
            ("no audience", with("aud", json!([]))),
            ("revoked", with("jti", json!("revoked"))),
            ("no subject", with("sub", json!(""))).clone(),
            ("no jti", with("jti", json!(""))).clone(),
            ("broad scope", with("scope", json!("vault:admin"))),
            ("no token", "x".to_owned()),
            ("no JWT", "eyJhbGciOiJSUzI1NiJ9.x".to_owned()),
        ] {
            // PyJWT asks that they are there, not that they say something.
            if kind == Kind::Python && ["no subject", "no jti"].contains(&what) {
                continue;
            }
            let (status, answer) = ask(&token);
            assert_eq!((status, &answer["error"]), (401, &json!("Unauthorized")), "{kind:?} {what}: {answer}");
        }
        for scope in ["vault:default:read vault:default:write", "vault:lab:admin", "mailbox:admin", ""] {
            let (status, answer) = ask(&with("scope", json!(scope)));
            assert_eq!((status, &answer["error_type"]), (403, &json!("insufficient_scope")), "{kind:?} {scope}");
            let granted: Vec<&str> = scope.split_whitespace().collect();
            assert_eq!((&answer["error"], &answer["granted_scopes"]), (&json!("Forbidden"), &json!(granted)));
            assert_eq!(answer["required_scope"], "vault:admin");
        }
        let (status, answer) = ask(&with("vault_scope", json!(["lab"])));
        assert_eq!((status, &answer["error_type"]), (403, &json!("vault_scope_mismatch")), "{kind:?}");
        let (status, _) = peer.ask("GET", "/vault/nowhere/api/triggers", &admin("nowhere"), &Value::Null);
        assert_eq!(status, 404, "{kind:?}");
        // The hub changed its key: the old tokens are good, and so are the new ones, after the keys were fetched once more. That was done
        // for the wrong signatures above, and is done again no sooner than after ten seconds.
        hub.rotate();
        wait_until("the new key", || ask(&KEYS[1].sign(&good)).0 == 200);
        assert_eq!(ask(&KEYS[0].sign(&good)).0, 200);
        assert!(ISSUER.starts_with("https://"));
    }
}

#[test]
fn nobody_is_believed_while_the_hub_says_nothing_of_revocations() {
    for kind in [Kind::Demo, Kind::Python] {
        let home = tempfile::tempdir().expect("a folder");
        let hub = Hub::start(None);
        let Some(peer) = Peer::vault(kind, &hub, home.path(), &[]) else { continue };
        let (status, answer) = peer.ask("GET", TRIGGERS, &admin("default"), &Value::Null);
        assert_eq!(status, 401, "{answer}");
        assert!(
            answer["message"].as_str().is_some_and(|text| text.contains("revocation list unavailable")),
            "{answer}"
        );
    }
}

#[test]
fn notes_can_be_read_and_changed_as_a_reconciler_does() {
    with_each(
        |kind, _, _, peer| {
            let ids: Vec<String> = (0..3)
                .map(|number| note(peer, &["in"], &json!({ "number": number, "t_pending_at": "then" })))
                .collect();
            note(peer, &["out"], &json!({}));
            let list = |query: &str| peer.ask("GET", &format!("{NOTES}?{query}"), "", &Value::Null);
            let (status, page) = list("tag=in&limit=2&offset=1&include_metadata=t_pending_at,t_rendered_at");
            assert_eq!(
                (status, page.as_array().map(Vec::len), &page[0]["id"]),
                (200, Some(2), &json!(ids[1])),
                "{kind:?}"
            );
            assert_eq!((&page[0]["metadata"], page[0].get("content")), (&json!({ "t_pending_at": "then" }), None));
            let (status, refused) = list("meta[t_pending_at][exists]=true");
            assert_eq!((status, &refused["code"]), (400, &json!("FIELD_NOT_INDEXED")));

            let item = format!("{NOTES}/{}", ids[0]);
            let clear = json!({ "metadata": { "t_pending_at": null, "t_rendered_at": "now" } });
            assert_eq!(peer.ask("PATCH", &item, "", &clear).0, 428);
            let seen = peer.ask("GET", &item, "", &Value::Null).1["updatedAt"].clone();
            let with = |field: &str, value: &Value| {
                let mut change = clear.clone();
                change[field] = value.clone();
                peer.ask("PATCH", &item, "", &change)
            };
            let (status, stale) = with("if_updated_at", &json!("2020-01-01T00:00:00.000Z"));
            assert_eq!((status, &stale["error_type"], &stale["current_updated_at"]), (409, &json!("conflict"), &seen));
            let (status, changed) = with("if_updated_at", &seen);
            assert_eq!(
                (status, &changed["metadata"]),
                (200, &json!({ "number": 0, "t_rendered_at": "now" })),
                "{kind:?}"
            );
            assert_eq!(peer.ask("PUT", &item, "", &clear).0, 405);
            assert_eq!(peer.ask("PATCH", &format!("{NOTES}/note-99"), "", &json!({ "force": true })).0, 404);
            assert_eq!(peer.ask("DELETE", &item, "", &Value::Null), (200, json!({ "deleted": true, "id": ids[0] })));
            assert_eq!(peer.ask("GET", &item, "", &Value::Null).0, 404);
        },
        &[],
    );
}

#[test]
fn a_note_that_is_delivered_is_an_update_for_other_triggers() {
    with_each(
        |kind, _, _, peer| {
            let receiver = Receiver::start();
            put(peer, &trigger("conn_a", &["created"], &receiver.url()));
            put(peer, &trigger("conn_b", &["updated"], &receiver.url()));
            let id = note(peer, &["in"], &json!({}));
            until_marked(peer, &id, "conn_a_rendered_at");
            until_marked(peer, &id, "conn_b_rendered_at");
            settle(peer, &receiver);
            assert_eq!(times(&receiver, &id), 2, "{kind:?}");
        },
        &[],
    );
}

fn verb(home: &Path, words: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trueup"))
        .args(["demo", "vault"])
        .args(words)
        .env_clear()
        .env("PARACHUTE_HOME", home)
        .output()
        .expect("our own binary");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn vaults_come_and_go_beside_a_server_that_runs() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let peer = Peer::vault(Kind::Demo, &hub, home.path(), &[("PARACHUTE_VAULT_NAME", "main")]).expect("ours");
    let paths = || {
        let text = std::fs::read_to_string(home.path().join("services.json")).unwrap_or_default();
        let root: Value = serde_json::from_str(&text).unwrap_or_default();
        root["services"][0]["paths"].clone()
    };
    assert_eq!(paths(), json!(["/vault/main"]));
    let lab = |path: &str, token: &str| peer.ask("GET", &format!("/vault/lab{path}"), token, &Value::Null);
    assert_eq!(lab("/health", ""), (404, json!({ "error": "Vault not found", "vault": "lab" })));

    let (code, said) = verb(home.path(), &["create", "lab", "--json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (code, &said["name"], &said["created"], &said["path"]),
        (0, &json!("lab"), &json!(true), &json!("/vault/lab"))
    );
    assert_eq!((lab("/health", "").0, lab("/api/triggers", &admin("lab")).0), (200, 200));
    assert_eq!(lab("/api/triggers", &admin("main")).0, 401, "each vault has an audience of its own");
    wait_until("the paths", || paths() == json!(["/vault/lab", "/vault/main"]));
    let receiver = Receiver::start();
    let path = "/vault/lab/api/triggers";
    assert_eq!(peer.ask("POST", path, &admin("lab"), &trigger("conn_a", &["created"], &receiver.url())).0, 200);
    let sent = json!({ "content": "x", "tags": ["in"] });
    assert_eq!(peer.ask("POST", "/vault/main/api/notes", "", &sent).0, 201);
    assert_eq!(peer.ask("POST", "/vault/lab/api/notes", "", &sent).0, 201);
    assert_eq!(receiver.until(1).len(), 1, "a trigger belongs to one vault");

    let (code, said) = verb(home.path(), &["create", "lab", "--json"]);
    assert!(code == 0 && said.contains("\"created\":false"), "{code} {said}");
    assert_eq!(lab("/api/count", "").1["notes"], 1);
    let (code, said) = verb(home.path(), &["remove", "lab"]);
    assert!(code != 0 && said.contains("--yes"), "{code} {said}");
    assert_eq!(verb(home.path(), &["remove", "lab", "--yes"]).0, 0);
    assert_eq!(lab("/api/notes", "").0, 404);
    wait_until("the paths", || paths() == json!(["/vault/main"]));
    let (code, said) = verb(home.path(), &["remove", "lab", "--yes"]);
    assert!(code != 0 && said.contains("no vault 'lab'"), "{code} {said}");
    assert_eq!(verb(home.path(), &["create", "lab"]).0, 0);
    assert_eq!(lab("/api/count", "").1["notes"], 0, "what was removed does not come back");
    assert_eq!(lab("/api/triggers", &admin("lab")).1["triggers"], json!([]));
    for name in ["admin", "x", "Lab", "../lab"] {
        assert_ne!(verb(home.path(), &["create", name]).0, 0, "{name}");
    }
    let late = verb(home.path(), &["--port", "0", "--require-token", "--lose-answers", "create", "lab", "--json"]);
    assert!(late.0 == 0 && late.1.contains("\"created\":false"), "the words may follow those of the server: {late:?}");
    assert_eq!(verb(home.path(), &["list", "--json"]), (0, "{\"vaults\":[\"lab\",\"main\"]}\n".to_owned()));
}

#[test]
fn tokens_bind_a_reader_to_its_tags_and_strict_notes_ask_for_one() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let open = Peer::vault(Kind::Demo, &hub, home.path(), &[]).expect("ours");
    note(&open, &["dictation/draft"], &json!({}));
    note(&open, &["diary"], &json!({}));
    let with_tags = |tags: Value| {
        let mut claims = claims("tagged", "vault.default", "vault:default:read");
        claims["permissions"] = json!({ "scoped_tags": tags });
        KEYS[0].sign(&claims)
    };
    let bound = with_tags(json!(["dictation"]));
    let list = open.ask("GET", NOTES, &bound, &Value::Null).1;
    assert_eq!((list.as_array().map(Vec::len), &list[0]["tags"]), (Some(1), &json!(["dictation/draft"])));
    assert_eq!(open.ask("GET", &format!("{NOTES}/note-2"), &bound, &Value::Null).0, 404);
    assert_eq!(open.ask("GET", NOTES, &with_tags(json!([])), &Value::Null).0, 401);
    let sent = json!({ "content": "x" });
    assert_eq!(open.ask("POST", NOTES, &bound, &sent).0, 403);
    assert_eq!(open.ask("GET", NOTES, "nonsense", &Value::Null).0, 401);

    let strict = Peer::demo(&hub, &home.path().join("strict"), &["vault", "--require-token"]);
    assert_eq!(strict.ask("POST", NOTES, "", &sent).0, 401);
    assert_eq!(strict.ask("POST", NOTES, &token("vault.default", "vault:default:read"), &sent).0, 403);
    assert_eq!(strict.ask("POST", NOTES, &token("vault.default", "vault:default:write"), &sent).0, 201);
    assert_eq!(strict.ask("GET", "/vault/default/health", "", &Value::Null).0, 200);
}

#[test]
fn faults_do_what_they_say() {
    let home = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(Some(&[]));
    let start = |name: &str, words: &[&str]| Peer::demo(&hub, &home.path().join(name), &[&["vault"], words].concat());
    let sent = trigger("conn_a", &["created"], "http://127.0.0.1:9/");
    let token = admin("default");

    let failing = start("failing", &["--triggers-fail", "503"]);
    assert_eq!(failing.ask("GET", TRIGGERS, &token, &Value::Null).0, 503);

    let losing = start("losing", &["--lose-answers=2"]);
    assert!(losing.try_ask("POST", TRIGGERS, &token, &sent).is_err(), "the answer is lost");
    assert_eq!(losing.ask("GET", &format!("{TRIGGERS}/conn_a"), &token, &Value::Null).0, 200, "the work is done");
    assert!(losing.try_ask("DELETE", &format!("{TRIGGERS}/conn_a"), &token, &Value::Null).is_err());
    assert_eq!(losing.ask("GET", TRIGGERS, &token, &Value::Null).1["triggers"], json!([]));
    assert_eq!(losing.ask("POST", TRIGGERS, &token, &sent).0, 200, "only so many are lost");

    let flag = home.path().join("forget");
    let forgetful = start("forgetful", &["--forget-triggers-while", flag.to_str().expect("a path"), "--slow-api", "5"]);
    assert_eq!(forgetful.ask("POST", TRIGGERS, &token, &sent).0, 200);
    std::fs::write(&flag, "").expect("a file");
    assert_eq!(forgetful.ask("GET", TRIGGERS, &token, &Value::Null).1["triggers"], json!([]));
    assert_eq!(forgetful.ask("GET", &format!("{TRIGGERS}/conn_a"), &token, &Value::Null).0, 404);
    std::fs::remove_file(&flag).expect("removed");
    assert_eq!(forgetful.ask("GET", &format!("{TRIGGERS}/conn_a"), &token, &Value::Null).0, 200);
    assert!(forgetful.pid() > 0);
}
