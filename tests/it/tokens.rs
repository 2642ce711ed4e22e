//! Stories of tokens and grants by the command line: with no daemon, beside one, and after a kill.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::Value;
use trueup::adapters::clock::SystemClock;
use trueup::adapters::hubdb::HubDb;
use trueup::authority::{Authority, Denied};
use trueup::ports::clock::Clock;

use crate::stage::Stage;

const ORIGIN: &str = "http://127.0.0.1:1939";

fn accepted() -> Stage {
    let stage = Stage::new();
    stage.hub();
    stage.once(&[]).code(0);
    stage
}

/// Whoever verifies, in a process that was there before the command ran.
fn verifier(stage: &Stage) -> Authority {
    let authority = Authority::new(Arc::new(HubDb::open(&stage.path(".trueup/hub.db"), true).expect("a database")));
    authority.set_origins(ORIGIN, &[]);
    authority
}

fn mint(stage: &Stage, more: &[&str]) -> Value {
    let args = [&["token", "mint", "-o", "json"][..], more].concat();
    stage.run(&args).code(0).typed("minted").pop().expect("a line")
}

fn list(stage: &Stage, more: &[&str]) -> Vec<Value> {
    stage.run(&[&["token", "list", "-o", "json"][..], more].concat()).code(0).typed("token")
}

#[test]
fn a_token_is_printed_alone_listed_without_itself_and_revoked_at_once() {
    let stage = accepted();
    let authority = verifier(&stage);
    let answer = stage.run(&["token", "mint", "--scope", "vault:lab:read"]).code(0);
    let token = answer.out.trim().to_owned();
    assert_eq!(answer.out, format!("{token}\n"), "nothing else is on the standard output");
    assert!(!answer.err.contains(&token) && answer.err.contains("token revoke"), "{}", answer.err);
    let caller = authority.verify(&token, SystemClock.wall()).expect("accepted");
    assert_eq!((caller.audience.as_str(), caller.subject.as_str()), ("vault.lab", "operator"));

    let rows = list(&stage, &[]);
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["jti"], &rows[0]["created_via"]), (&caller.jti.clone().into(), &"cli_mint".into()));
    let whole = stage.run(&["token", "list"]).code(0).out + &stage.run(&["token", "list", "-o", "yaml"]).code(0).out;
    assert!(!whole.contains(&token) && whole.contains(&caller.jti));

    stage.run(&["token", "revoke", &caller.jti]).code(0);
    assert_eq!(authority.verify(&token, SystemClock.wall()), Err(Denied::Revoked), "another process counts at once");
    let first = list(&stage, &[])[0]["revoked_at"].clone();
    stage.run(&["token", "revoke", &caller.jti]).code(0);
    assert_eq!(list(&stage, &["--revoked", "true"])[0]["revoked_at"], first, "again changes nothing");
    assert_eq!(list(&stage, &["--revoked", "false"]), [] as [Value; 0]);
}

#[test]
fn what_cannot_be_done_is_said_with_a_hint() {
    let stage = Stage::new();
    let answer = stage.run(&["token", "list"]).code(1);
    assert!(answer.err.contains("holds no Hub yet") && answer.err.contains("help:"), "{}", answer.err);
    stage.hub();
    stage.once(&[]).code(0);
    for (args, code, said) in [
        (&["token", "mint"][..], 64, "--scope"),
        (&["token", "mint", "--scope", "nonsense"], 64, "is no scope"),
        (&["token", "mint", "--scope", "Parachute:host:AUTH"], 64, "never given by request"),
        (&["token", "mint", "--scope", "a:b", "--expires-in", "366d"], 64, "expires_in"),
        (&["token", "mint", "--scope", "a:b", "--permissions", "[]"], 64, "not a JSON object"),
        (&["token", "revoke", "nothing"], 1, "there is no token 'nothing'"),
        (&["token", "list", "--created-via", "magic"], 64, "cli_mint"),
        (&["grant", "add", "a", "b", "hub:admin"], 64, "can be granted to nobody"),
        (&["grant", "revoke", "a", "b"], 1, "granted b nothing"),
    ] {
        let answer = stage.run(args).code(code);
        assert!(answer.err.contains(said), "{args:?}: {}", answer.err);
    }
    assert_eq!(list(&stage, &[]), [] as [Value; 0]);
    let answer = stage.run(&["token", "revoke", "nothing", "-o", "json"]).code(1);
    assert_eq!(answer.typed("error").len(), 1, "{}{}", answer.out, answer.err);
}

/// Whoever is killed after the commit and before the token was handed out leaves a row that anybody can find and revoke.
#[test]
fn a_row_whose_token_nobody_has_is_listed_and_can_be_revoked() {
    let stage = accepted();
    let first = mint(&stage, &["--scope", "a:b"]);
    // As the killed process leaves it: the row is there, the token was never printed.
    let database = rusqlite::Connection::open(stage.path(".trueup/hub.db")).expect("opened");
    let sql = "INSERT INTO tokens SELECT 'lost', subject, client_id, audience, scopes, vault_scope, permissions, created_via, kid,
        created_at + 1, expires_at, revoked_at FROM tokens WHERE jti = ?1";
    database.execute(sql, [first["jti"].as_str().expect("an id")]).expect("a row");
    drop(database);
    assert_eq!(list(&stage, &[])[0]["jti"], "lost");
    stage.run(&["token", "revoke", "lost"]).code(0);
    assert!(list(&stage, &[])[0]["revoked_at"].is_string());
}

/// Commands that are killed at any moment: what was printed is registered, and the database is whole.
#[test]
fn killed_at_any_moment_a_token_that_was_printed_has_its_row() {
    let stage = accepted();
    mint(&stage, &["--scope", "a:b"]);
    let mut printed = Vec::new();
    for pause in 0..24 {
        let mut child = stage
            .command(&["token", "mint", "--scope", "a:b", "-o", "json"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary starts");
        // Busy for a while that differs from turn to turn: no two kills meet the same moment.
        let mut work = 0_u64;
        for step in 0..pause * 400_000_u64 {
            work = std::hint::black_box(work.wrapping_add(step));
        }
        child.kill().expect("killed");
        let out = child.wait_with_output().expect("ended").stdout;
        if let Ok(line) = serde_json::from_slice::<Value>(&out) {
            printed.push(line["jti"].clone());
        }
    }
    let rows: Vec<Value> = list(&stage, &[]).into_iter().map(|row| row["jti"].clone()).collect();
    assert!(printed.iter().all(|jti| rows.contains(jti)), "printed {printed:?}, registered {rows:?}");
    mint(&stage, &["--scope", "a:b"]);
}

#[test]
fn many_are_listed_and_those_that_are_asked_for() {
    let stage = accepted();
    let authority = verifier(&stage);
    for at in 0..60 {
        let request = trueup::authority::OwnRequest {
            scopes: vec!["a:b".to_owned()],
            subject: if at % 3 == 0 { "three" } else { "other" }.to_owned(),
            ..Default::default()
        };
        authority.mint_own(request, SystemClock.wall()).expect("minted");
    }
    assert_eq!(list(&stage, &[]).len(), 60, "more than one page");
    assert_eq!(list(&stage, &["--subject", "three"]).len(), 20);
    assert_eq!(list(&stage, &["--created-via", "operator_mint"]), [] as [Value; 0]);
    assert_eq!(list(&stage, &["--client", "nobody"]), [] as [Value; 0]);
}

#[test]
fn a_database_that_others_could_read_is_closed_to_them() {
    let stage = accepted();
    mint(&stage, &["--scope", "a:b"]);
    let path = stage.path(".trueup/hub.db");
    let mode = || fs::metadata(&path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("mode");
    list(&stage, &[]);
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_compromised_key_takes_everything_along_and_says_what() {
    let stage = accepted();
    let lost = mint(&stage, &["--scope", "agent:send", "--subject", "bridge"]);
    let done = stage.run(&["token", "rotate", "-o", "json"]).code(0).typed("rotated").pop().expect("a line");
    assert_eq!((&done["tokens"], &done["compromised"]), (&1.into(), &false.into()));
    let done =
        stage.run(&["token", "rotate", "--compromised", "-o", "json"]).code(0).typed("rotated").pop().expect("a line");
    assert_eq!(done["orphaned"][0]["jti"], lost["jti"]);
    assert_eq!(done["orphaned"][0]["subject"], "bridge");
    let denied = verifier(&stage).verify(lost["token"].as_str().expect("text"), SystemClock.wall());
    assert_eq!(denied, Err(Denied::UnknownKey));
}

#[test]
fn grants_are_added_to_and_taken_back() {
    let stage = accepted();
    stage.run(&["grant", "add", "alice", "notes", "vault:lab:read"]).code(0);
    let whole = stage.run(&["grant", "add", "alice", "notes", "a:b", "-o", "json"]).code(0).typed("grant");
    assert_eq!(whole[0]["scopes"], serde_json::json!(["a:b", "vault:lab:read"]));
    assert_eq!(stage.run(&["grant", "list", "-o", "json"]).code(0).typed("grant"), whole);
    assert!(stage.run(&["grant", "list"]).code(0).out.contains("alice"));
    stage.run(&["grant", "revoke", "alice", "notes"]).code(0);
    assert_eq!(stage.run(&["grant", "list"]).code(0).err, "no grants\n");
}

#[test]
fn a_database_is_made_anew_only_when_it_is_gone_or_damaged() {
    let stage = accepted();
    let token = mint(&stage, &["--scope", "a:b"]);
    let answer = stage.run(&["token", "reset"]).code(4);
    assert!(answer.err.contains("whole"), "{}", answer.err);
    let path = stage.path(".trueup/hub.db");
    fs::write(&path, "x".repeat(50_000)).expect("damaged");
    stage.run(&["token", "list"]).code(1);
    let done = stage.run(&["token", "reset", "-o", "json"]).code(0).typed("reset").pop().expect("a line");
    assert_eq!(fs::read(done["moved_to"].as_str().expect("a path")).expect("kept").len(), 50_000);
    assert_eq!(list(&stage, &[]), [] as [Value; 0]);
    fs::remove_file(&path).expect("gone");
    stage.run(&["token", "reset"]).code(0);
    let denied = verifier(&stage).verify(token["token"].as_str().expect("text"), SystemClock.wall());
    assert_eq!(denied, Err(Denied::UnknownKey));
}

#[test]
fn the_state_of_another_tree_and_a_tree_that_is_not_there_are_refused() {
    let (stage, other) = (accepted(), Stage::new());
    other.hub();
    let state = stage.path(".trueup");
    let state = state.to_str().expect("text");
    for verb in [&["list"][..], &["mint", "--scope", "a:b"], &["reset"], &["rotate"]] {
        let refused = other.run(&[&["token"][..], verb, &["--state", state]].concat()).code(4);
        assert!(refused.err.contains("belongs to the tree"), "{}", refused.err);
    }
    let none = stage.path("nonexist");
    let refused = stage.run(&["token", "list", "-f", none.to_str().expect("text"), "--state", "elsewhere"]).code(1);
    assert!(refused.err.contains("nonexist does not exist"), "{}", refused.err);
}

#[test]
fn what_is_revoked_already_is_said() {
    let stage = accepted();
    let jti = mint(&stage, &["--scope", "a:b"])["jti"].as_str().expect("an id").to_owned();
    let first = stage.run(&["token", "revoke", &jti]).code(0);
    assert!(!first.out.contains("already"), "{}", first.out);
    let again = stage.run(&["token", "revoke", &jti]).code(0);
    assert!(again.out.contains("revoked already"), "{}", again.out);
}
