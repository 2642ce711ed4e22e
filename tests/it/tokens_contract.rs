//! The calls for tokens that clients of the older hub make: paths, shapes, words and rules.

use std::fs;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use crate::hub_stage::{Reply, get, post, send, staged};
use crate::stage::{Own, Stage, free_port, wait_until};

struct Hub {
    stage: Stage,
    port: u16,
    operator: String,
    _daemon: Own,
}

/// A hub with a vault `lab`, and its operator token.
fn hub() -> Hub {
    let (stage, port) = staged();
    stage.mailbox("one", free_port(), "  routes: [ { path: /vault/lab } ]\n");
    let daemon = stage.daemon();
    let path = stage.path(".trueup/home/operator.token");
    wait_until("the operator token", || fs::read_to_string(&path).is_ok_and(|token| !token.is_empty()));
    wait_until("the vault", || get(port, "/api/ready").is_ok_and(|answer| answer.json()["ready"] == true));
    let operator = fs::read_to_string(&path).expect("a token").trim().to_owned();
    Hub { stage, port, operator, _daemon: daemon }
}

impl Hub {
    fn mint(&self, by: &str, body: &Value) -> Reply {
        post(self.port, "/api/auth/mint-token", by, body).expect("an answer")
    }

    fn minted(&self, scope: &str) -> (String, String) {
        let reply = self.mint(&self.operator, &json!({ "scope": scope }));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let text = |name: &str| reply.json()[name].as_str().expect("text").to_owned();
        (text("token"), text("jti"))
    }

    fn revoke(&self, by: &str, jti: &str) -> Reply {
        post(self.port, "/api/auth/revoke-token", by, &json!({ "jti": jti })).expect("an answer")
    }

    fn list(&self, by: &str, query: &str) -> Reply {
        let request = Request::get(format!("/api/auth/tokens{query}"))
            .header("authorization", format!("Bearer {by}"))
            .body(Full::<Bytes>::default());
        send(self.port, request.expect("a request")).expect("an answer")
    }

    fn revocations(&self) -> Vec<String> {
        let reply = get(self.port, "/.well-known/parachute-revocation.json").expect("an answer");
        assert_eq!((reply.status, reply.header("cache-control")), (200, "max-age=60"));
        assert!(reply.json()["generated_at"].is_string());
        serde_json::from_value(reply.json()["jtis"].clone()).expect("a list")
    }
}

#[track_caller]
fn refused(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(error)), "{}", reply.text());
    assert!(reply.json()["error_description"].as_str().is_some_and(|text| !text.is_empty()));
}

#[test]
fn a_minted_token_has_its_row_before_anybody_has_it() {
    let hub = hub();
    let reply =
        hub.mint(&hub.operator, &json!({ "scope": "vault:lab:write", "permissions": { "scoped_tags": ["a"] } }));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let minted = reply.json();
    assert_eq!(
        (&minted["scope"], &minted["permissions"]),
        (&json!("vault:lab:write"), &json!({ "scoped_tags": ["a"] }))
    );
    assert!(minted["token"].as_str().is_some_and(|token| token.split('.').count() == 3));
    let rows = hub.list(&hub.operator, "?created_via=cli_mint").json();
    let row = &rows["tokens"][0];
    assert_eq!((&row["jti"], &row["expires_at"]), (&minted["jti"], &minted["expires_at"]));
    assert_eq!((&row["client_id"], &row["created_via"]), (&json!("parachute-hub"), &json!("cli_mint")));
    assert_eq!((&row["scopes"], &row["revoked_at"]), (&json!(["vault:lab:write"]), &Value::Null));
    assert!(!rows.to_string().contains(minted["token"].as_str().expect("a token")), "a list never carries a token");
}

#[test]
fn what_may_be_asked_for_depends_on_who_asks() {
    let hub = hub();
    let mint = |by: &str, scope: &str| hub.mint(by, &json!({ "scope": scope }));
    refused(&post(hub.port, "/api/auth/mint-token", "", &json!({})).expect("an answer"), 401, "unauthenticated");
    refused(&mint("a.b.c", "vault:lab:read"), 401, "unauthenticated");
    for never in ["parachute:host:admin", "PARACHUTE:HOST:AUTH", "hub:admin", "Scribe:Admin"] {
        let reply = mint(&hub.operator, never);
        assert!((400..=403).contains(&reply.status), "{never}: {}", reply.text());
    }
    for bad in ["", "vault", "vault:admin", "vault:nowhere:admin", "vault:lab:drop", "vault:../x:read"] {
        let reply = mint(&hub.operator, bad);
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text());
    }
    refused(
        &hub.mint(&hub.operator, &json!({ "scope": "vault:lab:read", "expires_in": 31_536_001 })),
        400,
        "invalid_request",
    );
    refused(&hub.mint(&hub.operator, &json!({ "scope": 7 })), 400, "invalid_request");
    // Whoever has a vault's admin scope may pass on that vault, and nothing else.
    let (admin, _) = hub.minted("vault:lab:admin");
    assert_eq!(mint(&admin, "vault:lab:read").status, 200);
    refused(&mint(&admin, "vault:other:read"), 403, "insufficient_scope");
    refused(&mint(&admin, "agent:send"), 403, "insufficient_scope");
    refused(&hub.mint(&admin, &json!({ "scope": "vault:lab:read", "subject": "somebody" })), 403, "insufficient_scope");
    let (read, _) = hub.minted("vault:lab:read");
    refused(&mint(&read, "vault:lab:read"), 403, "insufficient_scope");
}

#[test]
fn a_token_that_was_made_for_a_module_makes_and_revokes_none() {
    let hub = hub();
    let (_, victim) = hub.minted("agent:send");
    for (scope, audience) in [("vault:lab:admin", "vault"), ("vault:lab:admin", "agent"), ("inbox:one", "inbox")] {
        let made = hub.stage.run(&["token", "mint", "-o", "json", "--scope", scope, "--audience", audience]).code(0);
        let line = made.typed("minted").pop().expect("a line");
        let token = line["token"].as_str().expect("a token").to_owned();
        for scope in ["vault:lab:admin", "agent:send"] {
            refused(&hub.mint(&token, &json!({ "scope": scope })), 401, "unauthenticated");
        }
        refused(&hub.revoke(&token, &victim), 401, "unauthenticated");
        refused(&hub.list(&token, ""), 401, "unauthenticated");
    }
    assert!(!hub.revocations().contains(&victim));
}

#[test]
fn a_revoked_token_counts_no_more_and_is_on_the_list() {
    let hub = hub();
    let (token, jti) = hub.minted("vault:lab:admin");
    let (_, other) = hub.minted("agent:send");
    refused(&hub.revoke(&hub.operator, "no-such-token"), 404, "not_found");
    refused(&hub.revoke(&hub.operator, &"x".repeat(257)), 400, "invalid_request");
    refused(&hub.revoke(&token, &other), 403, "insufficient_scope");
    assert!(!hub.revocations().contains(&jti));
    let first = hub.revoke(&hub.operator, &jti);
    assert_eq!((first.status, &first.json()["jti"]), (200, &json!(jti)));
    let again = hub.revoke(&hub.operator, &jti);
    assert_eq!((again.status, again.json()), (200, first.json()), "again changes nothing");
    assert_eq!(hub.revocations(), std::slice::from_ref(&jti));
    refused(&hub.mint(&token, &json!({ "scope": "vault:lab:read" })), 401, "unauthenticated");
    let listed = |query: &str| hub.list(&hub.operator, query).json()["tokens"].as_array().expect("rows").clone();
    assert!(listed("?revoked=true").iter().all(|row| row["jti"] == json!(jti)));
    assert!(listed("?revoked=false").iter().all(|row| row["jti"] != json!(jti)));
    assert!(listed("?revoked=all").len() >= 3);
}

#[test]
fn lists_come_in_pages_and_a_bad_cursor_is_the_first_one() {
    let hub = hub();
    for _ in 0..55 {
        hub.minted("vault:lab:read");
    }
    let query = "?created_via=cli_mint";
    let first = hub.list(&hub.operator, query).json();
    assert_eq!(first["tokens"].as_array().map(Vec::len), Some(50));
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = hub.list(&hub.operator, &format!("{query}&cursor={cursor}")).json();
    assert_eq!((second["tokens"].as_array().map(Vec::len), &second["next_cursor"]), (Some(5), &Value::Null));
    assert_eq!(hub.list(&hub.operator, &format!("{query}&cursor=nonsense")).json()["tokens"], first["tokens"]);
    refused(&hub.list(&hub.operator, "?created_via=surface_token"), 400, "invalid_request");
    refused(&hub.list(&hub.operator, "?revoked=maybe"), 400, "invalid_request");
    let (token, _) = hub.minted("vault:lab:admin");
    refused(&hub.list(&token, ""), 403, "insufficient_scope");
    assert_eq!(hub.list(&hub.operator, "?subject=nobody").json()["tokens"], json!([]));
}

#[test]
fn keys_are_public_and_have_no_private_part() {
    let hub = hub();
    let reply = get(hub.port, "/.well-known/jwks.json").expect("an answer");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, "*"));
    let keys = reply.json()["keys"].as_array().expect("keys").clone();
    assert_eq!(keys.len(), 1);
    let mut members: Vec<&str> = keys[0].as_object().expect("a key").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]);
    assert_eq!((&keys[0]["alg"], &keys[0]["kty"], &keys[0]["use"]), (&json!("RS256"), &json!("RSA"), &json!("sig")));
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(hub.stage.path(name)).expect("a file").permissions().mode() & 0o777
    };
    assert_eq!((mode(".trueup/hub.db"), mode(".trueup/home/operator.token")), (0o600, 0o600));
}
