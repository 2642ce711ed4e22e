//! Our tokens and those of PyJWT, a library that knows nothing of ours: it accepts what we make by the keys that we publish, and each of us
//! refuses what a forger makes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use trueup::adapters::clock::SystemClock;
use trueup::adapters::hubdb::HubDb;
use trueup::authority::{Authority, OwnRequest};
use trueup::model::time::Timestamp;
use trueup::ports::clock::Clock;
use trueup::ports::tokens::TokenStore;

use crate::hub_stage::{send, staged};
use crate::python;
use crate::stage::{Stage, wait_until};

/// PyJWT and what it needs for RSA.
const PACKAGES: [&str; 4] = ["pyjwt==2.15.1", "cryptography==50.0.2", "cffi==2.1.1", "pycparser==3.12"];

const ISSUER: &str = "https://hub.example.org";

/// Accepts or refuses tokens by a key set, as a module does.
const JUDGE: &str = r#"
import json, sys, jwt
ask = json.load(sys.stdin)
keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(ask["jwks"]).keys}
def judge(token):
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        claims = jwt.decode(token, keys[kid], algorithms=["RS256"], audience=ask["audience"], issuer=ask["issuer"],
                            options={"require": ["exp", "iat", "sub", "jti", "iss", "aud"]})
        return {"claims": claims}
    except Exception as error:
        return {"refused": type(error).__name__}
print(json.dumps({name: judge(token) for name, token in ask["tokens"].items()}))
"#;

/// Makes what a forger would: with no key, with what is public, with a key of their own, and with ours.
const FORGE: &str = r#"
import base64, hashlib, hmac, json, sys, time, jwt
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives import hashes, serialization
ask = json.load(sys.stdin)
private, kid, good, claims = ask["private"], ask["kid"], ask["good"], ask["claims"]
other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = serialization.load_pem_private_key(private.encode(), None).public_key()
pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
now = int(time.time())
def b64(data): return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
def part(value): return b64(json.dumps(value).encode())
def sign(change={}, key=private, headers=None, algorithm="RS256"):
    return jwt.encode({**claims, **change}, key, algorithm=algorithm, headers={"kid": kid} if headers is None else headers)
def hs256(secret):
    message = part({"alg": "HS256", "typ": "JWT", "kid": kid}) + "." + part(claims)
    return message + "." + b64(hmac.new(secret, message.encode(), hashlib.sha256).digest())
def sealed(claims):
    message = part({"alg": "RS256", "typ": "JWT", "kid": kid}) + "." + part(claims)
    ours = serialization.load_pem_private_key(private.encode(), None)
    return message + "." + b64(ours.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))
def without(name): return {key: value for key, value in claims.items() if key != name}
head, body, seal = good.split(".")
short = {"iat": now, "exp": now + 300}
forged = {
    "expired": sign({"iat": now - 700, "exp": now - 100, "jti": "e"}),
    "expired and registered": sign({"exp": now - 100}),
    "wrong issuer": sign({**short, "jti": "i", "iss": "https://evil.example.org"}),
    "no issuer": jwt.encode({**without("iss"), **short, "jti": "i2"}, private, algorithm="RS256", headers={"kid": kid}),
    "alg none": jwt.encode(claims, None, algorithm="none", headers={"kid": kid}),
    "alg none, signed": part({"alg": "none", "kid": kid}) + "." + body + "." + seal,
    "alg None": part({"alg": "None", "kid": kid}) + "." + body + ".",
    "HS256 with the public PEM": hs256(pem),
    "HS256 with the public DER": hs256(der),
    "HS256 with the empty secret": hs256(b""),
    "RS512 with the right key": sign(algorithm="RS512"),
    "PS256 with the right key": sign(algorithm="PS256"),
    "unknown kid": sign(key=other, headers={"kid": "unknown"}),
    "no kid": sign(headers={}),
    "kid of another key": sign(key=other),
    "other kid of ours": sign(headers={"kid": ask["other_kid"]}),
    "jwk in the header": sign(key=other, headers={"kid": kid, "jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(other.public_key()))}),
    "crit in the header": sign(short, headers={"kid": kid, "crit": ["exp"]}),
    "tampered payload": head + "." + part({**claims, "scope": "vault:lab:admin"}) + "." + seal,
    "tampered header": part({"alg": "RS256", "kid": kid, "typ": "JWT", "x": 1}) + "." + body + "." + seal,
    "tampered signature": head + "." + body + "." + ("A" if seal[0] != "A" else "B") + seal[1:],
    "stripped signature": head + "." + body + ".",
    "two parts": head + "." + body,
    "four parts": good + "." + seal,
    "signature of another token": head + "." + part({**claims, "jti": "z"}) + "." + seal,
    "nothing": "",
    "dots": "..",
    "stolen key, long and not registered": sign({"jti": "stolen"}),
    "stolen key, long that looks short": sign({"jti": "stolen", "iat": claims["exp"] - 300}),
    "stolen key, from the future": sign({"jti": "stolen", "iat": now + 3600, "exp": now + 3900}),
    "stolen key, registered jti with more scopes": sign({"scope": "vault:lab:admin"}),
    "stolen key, registered jti with another subject": sign({"sub": "root"}),
    "stolen key, registered jti that lives longer": sign({"exp": claims["exp"] + 86400}),
    "stolen key, registered jti for another audience": sign({"aud": "hub"}),
    "stolen key, registered jti without its pins": sign({"vault_scope": []}),
    "stolen key, registered jti without its permissions": jwt.encode(without("permissions"), private, algorithm="RS256", headers={"kid": kid}),
    "no subject": jwt.encode({**without("sub"), **short, "jti": "s"}, private, algorithm="RS256", headers={"kid": kid}),
    "no jti": jwt.encode({**without("jti"), **short}, private, algorithm="RS256", headers={"kid": kid}),
    "no expiry": jwt.encode({key: value for key, value in without("exp").items()}, private, algorithm="RS256", headers={"kid": kid}),
    "expiry that is text": sealed({**claims, "exp": "tomorrow"}),
    "expiry that is far away": sealed({**claims, "exp": 2**62, "jti": "f"}),
    "expiry with a fraction": sealed({**claims, "exp": claims["exp"] + 0.5}),
    "claims that are a list": sealed([claims]),
    "scopes that are a list": sealed({**claims, "scope": ["vault:lab:read"]}),
    "audiences that are a list": sealed({**claims, "aud": ["vault.lab", "hub"]}),
    "revoked": ask["revoked"],
}
print(json.dumps(forged))
"#;

/// As a module judges: keys and revocations come from the hub, over HTTP.
const MODULE: &str = r#"
import json, sys, urllib.request, jwt
ask = json.load(sys.stdin)
keys = jwt.PyJWKClient(ask["hub"] + "/.well-known/jwks.json", cache_keys=False)
with urllib.request.urlopen(ask["hub"] + "/.well-known/parachute-revocation.json", timeout=10) as answer:
    revoked = json.load(answer)["jtis"]
def judge(token):
    try:
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, algorithms=["RS256"], audience=ask["audience"], issuer=ask["hub"],
                            options={"require": ["exp", "iat", "sub", "jti", "iss", "aud"]})
        return "revoked" if claims["jti"] in revoked else "accepted"
    except Exception as error:
        return type(error).__name__
print(json.dumps({name: judge(token) for name, token in ask["tokens"].items()}))
"#;

fn now() -> Timestamp {
    SystemClock.wall()
}

fn python() -> Option<PathBuf> {
    python::with(&PACKAGES)
}

fn judged(python: &PathBuf, jwks: &Value, audience: &str, tokens: &BTreeMap<String, String>) -> Value {
    python::ask(python, JUDGE, &json!({ "jwks": jwks, "issuer": ISSUER, "audience": audience, "tokens": tokens }))
}

#[test]
fn pyjwt_accepts_what_the_command_makes_and_sees_what_it_revokes() {
    let Some(python) = python() else { return };
    let stage = Stage::new();
    let spec = format!("spec: {{ listen: none, origin: {ISSUER} }}");
    stage.write("hub.yaml", &format!("apiVersion: trueup/v1\nkind: Hub\nmetadata: {{ name: home }}\n{spec}\n"));
    stage.once(&[]).code(0);
    let mint = |scope: &str| {
        stage.run(&["token", "mint", "--scope", scope, "--expires-in", "1h"]).code(0).out.trim().to_owned()
    };
    let jwks =
        || serde_json::from_str::<Value>(&stage.run(&["token", "jwks", "-o", "json"]).code(0).out).expect("JSON");
    let mut tokens = BTreeMap::from([("first".to_owned(), mint("vault:lab:read"))]);
    stage.run(&["token", "rotate"]).code(0);
    tokens.insert("second".to_owned(), mint("vault:lab:write"));
    let keys = jwks();
    assert_eq!(keys["keys"].as_array().expect("keys").len(), 2, "the old key is served while its tokens live");
    let seen = judged(&python, &keys, "vault.lab", &tokens);
    assert_eq!(seen["first"]["claims"]["scope"], "vault:lab:read", "{seen}");
    assert_eq!(seen["second"]["claims"]["scope"], "vault:lab:write", "{seen}");
    assert_eq!(seen["second"]["claims"]["vault_scope"], json!([]));
    let seen = judged(&python, &keys, "vault.other", &tokens);
    assert_eq!(seen["first"]["refused"], "InvalidAudienceError");

    // The keys of a thief are not served any more, so nobody accepts what they signed.
    stage.run(&["token", "rotate", "--compromised"]).code(0);
    let seen = judged(&python, &jwks(), "vault.lab", &tokens);
    assert_eq!((&seen["first"]["refused"], &seen["second"]["refused"]), (&json!("KeyError"), &json!("KeyError")));
}

#[test]
fn a_module_knows_our_tokens_by_what_the_hub_serves() {
    let Some(python) = python() else { return };
    let (stage, port) = staged();
    let _daemon = stage.daemon();
    let file = stage.path(".trueup/home/operator.token");
    wait_until("the operator token", || std::fs::read_to_string(&file).is_ok_and(|token| !token.is_empty()));
    let mint = || {
        let args = ["token", "mint", "--scope", "vault:lab:read", "-o", "json"];
        stage.run(&args).code(0).typed("minted").pop().expect("a line")
    };
    let (one, two) = (mint(), mint());
    let tokens = json!({ "one": one["token"], "two": two["token"] });
    let ask = |tokens: &Value| {
        let hub = format!("http://127.0.0.1:{port}");
        python::ask(&python, MODULE, &json!({ "hub": hub, "audience": "vault.lab", "tokens": tokens }))
    };
    assert_eq!(ask(&tokens), json!({ "one": "accepted", "two": "accepted" }));
    stage.run(&["token", "revoke", one["jti"].as_str().expect("an id")]).code(0);
    assert_eq!(ask(&tokens), json!({ "one": "revoked", "two": "accepted" }));
    stage.run(&["token", "rotate"]).code(0);
    assert_eq!(ask(&tokens), json!({ "one": "revoked", "two": "accepted" }));
    stage.run(&["token", "rotate", "--compromised"]).code(0);
    let new = mint();
    let tokens = json!({ "two": two["token"], "new": new["token"] });
    assert_eq!(ask(&tokens), json!({ "two": "PyJWKClientError", "new": "accepted" }));

    // The hub itself heeds what a command revoked: the very next call is refused.
    let operator = || std::fs::read_to_string(&file).expect("a token").trim().to_owned();
    let list = |token: &str| {
        let request = Request::get("/api/auth/tokens").header("authorization", format!("Bearer {token}"));
        send(port, request.body(Full::default()).expect("a request")).expect("an answer").status
    };
    assert_eq!(list(&operator()), 200);
    let rows = stage.run(&["token", "list", "--created-via", "operator_mint", "--revoked", "false", "-o", "json"]);
    let rows = rows.code(0).typed("token");
    assert_eq!(rows.len(), 1, "{rows:?}");
    stage.run(&["token", "revoke", rows[0]["jti"].as_str().expect("an id")]).code(0);
    assert_eq!(list(&operator()), 401);
}

#[test]
fn each_refuses_what_a_forger_makes() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(HubDb::open(&dir.path().join("hub.db"), true).expect("a database"));
    let authority = Authority::new(store.clone());
    authority.set_origins(ISSUER, &["http://127.0.0.1:1939".to_owned()]);
    let request = OwnRequest {
        scopes: vec!["vault:lab:read".to_owned()],
        subject: "alice".to_owned(),
        seconds: 86_400,
        vault_scope: vec!["lab".to_owned()],
        permissions: json!({ "scoped_tags": ["inbox"] }).as_object().cloned(),
        ..OwnRequest::default()
    };
    let first = authority.mint_own(request.clone(), now()).expect("minted");
    authority.rotate(false, now()).expect("rotated");
    let good = authority.mint_own(request.clone(), now()).expect("minted");
    let revoked = authority.mint_own(request.clone(), now()).expect("minted");
    authority.revoke(revoked.jti(), None, now()).expect("revoked");
    let brief = authority.mint_brief(OwnRequest { seconds: 60, ..request }, now()).expect("minted");

    let keys = store.keys().expect("keys");
    let active = keys.iter().find(|key| key.retired.is_none()).expect("an active key");
    let private = active.private_pem.as_ref().expect("its private half").reveal();
    let jwks = serde_json::to_value(authority.jwks(now()).expect("keys")).expect("JSON");
    let fine = BTreeMap::from([
        ("good".to_owned(), good.token().reveal().to_owned()),
        ("of the old key".to_owned(), first.token().reveal().to_owned()),
        ("brief".to_owned(), brief.token().reveal().to_owned()),
    ]);
    let seen = judged(&python, &jwks, "vault.lab", &fine);
    for (name, token) in &fine {
        authority.verify_for(token, &["vault.lab"], now()).unwrap_or_else(|denied| panic!("{name}: {denied}"));
        assert!(seen[name]["claims"].is_object(), "{name}: {seen}");
    }
    let claims = &seen["good"]["claims"];
    assert_eq!(claims["permissions"], json!({ "scoped_tags": ["inbox"] }));
    assert_eq!(claims["exp"].as_i64().expect("a number") - claims["iat"].as_i64().expect("a number"), 86_400);

    let old = first.row().kid.clone();
    let ask = json!({ "private": private, "kid": active.kid, "other_kid": old, "good": good.token().reveal(),
        "claims": claims, "revoked": revoked.token().reveal() });
    let forged: BTreeMap<String, String> = serde_json::from_value(python::ask(&python, FORGE, &ask)).expect("tokens");
    assert!(forged.len() >= 38, "{}", forged.len());
    let seen = judged(&python, &jwks, "vault.lab", &forged);
    let listed = authority.revocation_list(now()).expect("a list");
    let mut wrong = Vec::new();
    for (name, token) in &forged {
        match authority.verify_for(token, &["vault.lab"], now()) {
            Ok(_) => wrong.push(format!("we accept: {name}")),
            Err(denied) => {
                let wanted = code(name);
                if wanted.is_some_and(|wanted| wanted != denied.code()) {
                    wrong.push(format!("{name}: {} instead of {wanted:?}", denied.code()));
                }
                // What is said goes into logs and answers.
                let parts = token.split('.').filter(|part| part.len() > 8);
                assert!(parts.into_iter().all(|part| !denied.to_string().contains(part)), "{name}: {denied}");
            }
        }
        // Who has our key makes tokens that are right to everybody who cannot ask us; the list of revocations is all they have.
        let only_we_can_tell = ["stolen key", "revoked", "four parts", "expiry", "scopes", "audiences"]
            .iter()
            .any(|own| name.starts_with(own));
        if !only_we_can_tell && seen[name]["refused"].is_null() {
            wrong.push(format!("PyJWT accepts: {name}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(listed, [revoked.jti()]);
    assert_eq!(seen["revoked"]["claims"]["jti"], revoked.jti(), "a module sees it by the list");
}

/// The word for a refusal, where it is not only a question of form.
fn code(name: &str) -> Option<&'static str> {
    Some(match name {
        "expired" | "expired and registered" => "expired",
        "wrong issuer" => "issuer",
        "unknown kid" => "kid",
        "revoked" => "revoked",
        "kid of another key" | "other kid of ours" | "jwk in the header" | "tampered payload"
        | "tampered signature" => "signature",
        "stolen key, from the future" | "stolen key, long that looks short" => "shape",
        name if name.starts_with("stolen key") => "unregistered",
        _ => return None,
    })
}
