//! Tests of the authority on a real database.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::adapters::hubdb::HubDb;
use crate::adapters::hubdb::file::OwnFile;
use crate::ports::tokens::{SecretFile, TokenFilter, Via};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ORIGIN: &str = "http://127.0.0.1:1939";
const DAY: i64 = 86_400_000;

fn after(ms: i64) -> Timestamp {
    Timestamp(NOW.0 + ms)
}

fn authority(folder: &Path) -> Authority {
    let db = HubDb::open(&folder.join("hub.db"), true).expect("a database");
    let authority = Authority::new(Arc::new(db));
    authority.set_origins(ORIGIN, &["https://hub.example.org".to_owned()]);
    authority
}

fn own(scope: &str, seconds: i64) -> OwnRequest {
    OwnRequest { scopes: vec![scope.to_owned()], subject: "me".to_owned(), seconds, ..OwnRequest::default() }
}

fn caller(scopes: &[&str]) -> Caller {
    Caller {
        subject: "me".to_owned(),
        client: "c".to_owned(),
        jti: "j".to_owned(),
        audience: "hub".to_owned(),
        scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        vault_scope: Vec::new(),
        permissions: None,
        scope_set: None,
        expires: after(DAY),
    }
}

#[test]
fn a_token_is_accepted_until_it_ends_or_is_revoked_and_never_before_its_row_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let token = authority.mint_own(own("vault:lab:write", 3_600), NOW).expect("minted");
    let text = token.token().reveal();
    let seen = authority.verify(text, after(5_000)).expect("accepted");
    assert_eq!((seen.subject.as_str(), seen.audience.as_str()), ("me", "vault.lab"));
    assert_eq!(authority.verify(text, after(3_600_000)), Err(Denied::Expired(after(3_600_000))));
    assert_eq!(authority.verify_for(text, &["hub"], NOW), Err(Denied::Audience("vault.lab".to_owned())));

    // Another process, such as a command.
    let other = self::authority(dir.path());
    assert_eq!(other.revoke(token.jti(), None, after(1)).expect("revoked").at, after(1));
    assert_eq!(authority.revoke(token.jti(), None, after(2)).expect("again").at, after(1));
    assert_eq!(authority.verify(text, after(3)), Err(Denied::Revoked));
    assert_eq!(authority.revocation_list(after(3)).expect("a list"), [token.jti()]);
    assert_eq!(authority.revocation_list(after(3_600_000)).expect("a list"), [""; 0]);
}

#[test]
fn the_keys_of_live_tokens_stay_and_those_of_thieves_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let token = authority.mint_own(own("a:b", 3_600), NOW).expect("minted");
    let first = authority.jwks(NOW).expect("keys").keys;
    let done = authority.rotate(false, after(1)).expect("rotated");
    assert_eq!(done.retired, [first[0].kid.clone()]);
    assert_eq!(done.tokens.len(), 1);
    assert_eq!(authority.jwks(after(2)).expect("keys").keys.len(), 2);
    authority.verify(token.token().reveal(), after(3_599_000)).expect("still good");
    assert_eq!(authority.jwks(after(3_600_001)).expect("keys").keys.len(), 1);

    let second = authority.mint_own(own("a:b", 3_600), after(3)).expect("minted");
    let done = authority.rotate(true, after(4)).expect("rotated");
    assert_eq!(done.tokens.len(), 2);
    for token in [&token, &second] {
        assert_eq!(authority.verify(token.token().reveal(), after(5)), Err(Denied::UnknownKey));
    }
    assert_eq!(authority.jwks(after(5)).expect("keys").keys.len(), 1);
    assert_eq!(authority.revocation_list(after(5)).expect("list").len(), 2);
}
