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

/// A mint by somebody with these scopes; vaults `lab` and `b` are there.
fn mint(authority: &Authority, by: &Caller, scope: &str) -> Result<Registered, MintError> {
    let request = MintRequest { scope: scope.to_owned(), ..MintRequest::default() };
    authority.mint(request, by, &|vault| ["lab", "b"].contains(&vault), NOW)
}

#[test]
fn who_asks_gets_no_more_than_they_may_pass_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let (auth, admin) = (caller(&[scope::HOST_AUTH]), caller(&[scope::HOST_ADMIN]));
    let vault = caller(&["vault:lab:admin"]);
    let code = |by: &Caller, scope: &str| mint(&authority, by, scope).map_err(|error| error.code()).map(drop);

    for (by, scope, wanted) in [
        (&auth, "", Err("invalid_request")),
        (&auth, "   ", Err("invalid_request")),
        (&auth, "nonsense", Err("invalid_scope")),
        (&auth, "vault:admin", Err("invalid_scope")),
        (&auth, "vault:lab:delete", Err("invalid_scope")),
        (&auth, "agent:send PARACHUTE:host:admin", Err("invalid_scope")),
        (&auth, "hub:admin", Err("invalid_scope")),
        (&auth, "vault:nowhere:admin", Err("invalid_scope")),
        (&admin, "vault:nowhere:admin", Err("invalid_scope")),
        (&admin, "vault:lab:admin agent:send", Err("insufficient_scope")),
        (&vault, "vault:b:read", Err("insufficient_scope")),
        (&vault, "vault:lab:read agent:send", Err("insufficient_scope")),
        (&caller(&["agent:admin"]), "agent:send", Err("insufficient_scope")),
        (&auth, "vault:nowhere:read", Ok(())),
        (&auth, "agent:send scribe:read", Ok(())),
        (&admin, "vault:lab:admin", Ok(())),
        (&vault, "vault:lab:admin vault:lab:read", Ok(())),
    ] {
        assert_eq!(code(by, scope), wanted, "{:?} {scope}", by.scopes);
    }

    // Whose rights are those of a vault gets a token for that vault only, in their own name.
    let narrow = mint(&authority, &vault, "vault:lab:read").expect("minted");
    assert_eq!(narrow.row().vault_scope, ["lab"]);
    assert_eq!((narrow.row().audience.as_str(), narrow.row().subject.as_str()), ("vault.lab", "me"));
    assert_eq!(mint(&authority, &admin, "vault:b:admin").expect("minted").row().vault_scope, ["b"]);
    assert_eq!(mint(&authority, &auth, "vault:b:admin").expect("minted").row().vault_scope, [""; 0]);
    let request = MintRequest { scope: "vault:lab:read".into(), subject: Some("you".into()), ..MintRequest::default() };
    let refused = authority.mint(request.clone(), &vault, &|_| true, NOW).expect_err("not in other names");
    assert_eq!(refused.code(), "insufficient_scope");
    assert_eq!(authority.mint(request, &auth, &|_| true, NOW).expect("minted").row().subject, "you");
    let request =
        MintRequest { scope: "vault:lab:read".into(), audience: Some("hub".into()), ..MintRequest::default() };
    assert_eq!(authority.mint(request, &vault, &|_| true, NOW).expect_err("no").code(), "insufficient_scope");

    // How long it lives.
    for (seconds, wanted) in [(0, None), (-1, None), (31_536_001, None), (31_536_000, Some(31_536_000_000))] {
        let request = MintRequest { scope: "a:b".into(), expires_in: Some(seconds), ..MintRequest::default() };
        let made = authority.mint(request, &auth, &|_| true, NOW);
        assert_eq!(made.ok().map(|token| token.expires().0 - NOW.0), wanted, "{seconds}");
    }
    assert_eq!(narrow.expires(), after(90 * DAY));
    // Every one of them has its row.
    let all = authority.list(&ListRequest::default()).expect("a list").tokens;
    assert!(all.iter().all(|row| row.via == Via::CliMint && row.client == CLIENT), "{all:?}");
}

#[test]
fn who_could_not_have_made_a_token_cannot_revoke_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let read = authority.mint_own(own("vault:lab:read", 3_600), NOW).expect("minted");
    let host = authority.mint_own(own(scope::HOST_AUTH, 3_600), NOW).expect("minted");
    let (auth, vault) = (caller(&[scope::HOST_AUTH]), caller(&["vault:lab:admin"]));
    let other = caller(&["vault:b:admin"]);
    assert_eq!(authority.revoke(read.jti(), Some(&other), NOW), Err(Unrevoked::Forbidden));
    assert_eq!(authority.revoke(host.jti(), Some(&auth), NOW), Err(Unrevoked::Forbidden));
    assert_eq!(authority.revoke("nothing", Some(&auth), NOW), Err(Unrevoked::NotFound));
    assert_eq!(authority.revoke("nothing", None, NOW), Err(Unrevoked::NotFound));
    assert_eq!(authority.revoke(read.jti(), Some(&vault), NOW).expect("revoked").at, NOW);
    authority.revoke(host.jti(), None, NOW).expect("the owner may");
}

/// The two makers have private fields, and their constructors are seen only in this room: [`Registered::register`] returns after the
/// commit, [`Brief::sign`] refuses more than ten minutes. So whatever lives longer was registered, in whichever way it came to be.
#[test]
fn every_token_that_lives_longer_than_ten_minutes_has_a_row_however_it_came_to_be() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    for via in Via::ALL {
        let token = authority.mint_own(OwnRequest { via, ..own("a:b", 601) }, NOW).expect("minted");
        let row = authority.find(token.jti()).expect("read").expect("its row");
        assert_eq!((row.via, &row), (via, token.row()));
        assert_eq!(
            authority.mint_brief(OwnRequest { via, ..own("a:b", 601) }, NOW).expect_err("too long").code(),
            "invalid_request"
        );
        let brief = authority.mint_brief(OwnRequest { via, ..own("a:b", 600) }, NOW).expect("minted");
        authority.verify(brief.token().reveal(), after(1)).expect("accepted");
    }
    let listed = authority.list(&ListRequest::default()).expect("a list").tokens;
    assert_eq!(listed.len(), Via::ALL.len());

    // What is not written is not handed out.
    let broken = rusqlite::Connection::open(dir.path().join("hub.db")).expect("opened");
    broken
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON tokens BEGIN SELECT RAISE(ABORT, 'no'); END")
        .expect("a trigger");
    assert_eq!(authority.mint_own(own("a:b", 601), NOW).expect_err("no row, no token").code(), "db_unavailable");
}

#[test]
fn pages_follow_one_another_and_a_bad_cursor_is_the_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    for at in 0..120 {
        let request = OwnRequest { subject: format!("s{}", at % 2), ..own("a:b", 3_600) };
        // Three at each moment: the id decides between them.
        authority.mint_own(request, after(at / 3)).expect("minted");
    }
    let mut request = ListRequest::default();
    let mut seen = Vec::new();
    loop {
        let page = authority.list(&request).expect("a page");
        assert!(page.tokens.len() <= PAGE);
        seen.extend(page.tokens);
        match page.next_cursor {
            None => break,
            next => request.cursor = next,
        }
    }
    assert_eq!(seen.len(), 120);
    assert!(seen.windows(2).all(|pair| (pair[0].created, &pair[0].jti) > (pair[1].created, &pair[1].jti)));
    for cursor in ["", "x", "bm90IGpzb24", "e30="] {
        let request = ListRequest { cursor: Some(cursor.to_owned()), ..ListRequest::default() };
        assert_eq!(authority.list(&request).expect("a page").tokens[0], seen[0], "{cursor}");
    }
    let of = |filter| authority.list(&ListRequest { filter, cursor: None }).expect("a page").tokens.len();
    assert_eq!(of(TokenFilter { subject: Some("s1".to_owned()), ..TokenFilter::default() }), 50);
    assert_eq!(of(TokenFilter { subject: Some("s2".to_owned()), ..TokenFilter::default() }), 0);
    assert_eq!(of(TokenFilter { via: Some(Via::AgentGrant), ..TokenFilter::default() }), 0);
    authority.revoke(&seen[3].jti, None, NOW).expect("revoked");
    assert_eq!(of(TokenFilter { revoked: Some(true), ..TokenFilter::default() }), 1);
}

#[test]
fn a_vault_takes_its_rights_along_and_no_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let pinned = OwnRequest { vault_scope: vec!["lab".to_owned()], ..own("agent:send", 3_600) };
    let gone = [
        authority.mint_own(own("vault:lab:read", 3_600), NOW).expect("minted"),
        authority.mint_own(pinned, NOW).expect("minted"),
    ];
    let stays = authority.mint_own(own("vault:lab2:read", 3_600), NOW).expect("minted");
    let grant = |client, scopes: &[&str]| {
        let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
        authority.grant("me", client, &scopes, NOW).expect("granted")
    };
    grant("only", &["vault:lab:read", "vault:lab:write"]);
    grant("both", &["vault:lab:read", "vault:lab2:read"]);
    grant("other", &["vault:lab2:admin"]);
    let whole = grant("other", &["a:b"]);
    assert_eq!(whole.scopes, BTreeSet::from(["a:b".to_owned(), "vault:lab2:admin".to_owned()]));

    let done = authority.strip_vault("lab", after(1)).expect("stripped");
    assert_eq!((done.tokens_revoked, done.grants_rewritten, done.grants_dropped), (2, 1, 1));
    for token in &gone {
        assert_eq!(authority.verify(token.token().reveal(), after(2)), Err(Denied::Revoked));
    }
    authority.verify(stays.token().reveal(), after(2)).expect("another vault");
    assert_eq!(authority.granted("me", "only").expect("read"), None);
    assert_eq!(
        authority.granted("me", "both").expect("read").expect("a grant").scopes,
        ["vault:lab2:read".to_owned()].into()
    );
    assert_eq!(authority.strip_vault("lab", after(2)).expect("again"), crate::ports::tokens::Stripped::default());
    assert!(authority.grant("me", "x", &["parachute:host:admin".to_owned()], NOW).is_err());
    assert!(authority.revoke_grant("me", "both").expect("removed"));
    assert!(!authority.revoke_grant("me", "both").expect("again"));
}

#[test]
fn the_operator_token_is_kept_good_and_only_one_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let file = OwnFile::new(dir.path().join("operator.token"));
    let keep = |now| authority.keep_operator_token(&file, now).expect("kept");
    let text = || file.read().expect("read").expect("a token").reveal().to_owned();
    let live = |now| {
        let filter = TokenFilter { via: Some(Via::OperatorMint), revoked: Some(false), ..TokenFilter::default() };
        let all = authority.list(&ListRequest { filter, cursor: None }).expect("a list").tokens;
        all.into_iter().filter(|row| row.expires > now).map(|row| row.jti).collect::<Vec<_>>()
    };

    let first = keep(NOW);
    assert!(first.renewed.is_some());
    let caller = authority.verify_for(&text(), &[operator::OPERATOR], NOW).expect("accepted");
    assert!(caller.holds(scope::HOST_AUTH) && caller.holds(scope::HOST_ADMIN) && caller.is_operator());
    assert_eq!(caller.scope_set.as_deref(), Some("admin"));
    assert_eq!(caller.expires, after(90 * DAY));
    assert_eq!(keep(after(DAY)).renewed, None);

    // A week before its end.
    let second = keep(after(84 * DAY));
    assert!(second.renewed.is_some() && second.revoked == 1);
    assert_eq!(live(after(84 * DAY)), [second.jti.as_str()]);
    assert_eq!(authority.verify(&text(), after(84 * DAY)).expect("accepted").jti, second.jti);

    // The origin moved; an origin that is still accepted is no reason.
    authority.set_origins("https://new.example.org", &[ORIGIN.to_owned()]);
    assert_eq!(keep(after(84 * DAY)).renewed, None);
    authority.set_origins("https://new.example.org", &[]);
    let third = keep(after(85 * DAY));
    assert_ne!(third.jti, second.jti);

    // The key is gone.
    authority.rotate(true, after(85 * DAY)).expect("rotated");
    let fourth = keep(after(85 * DAY));
    assert_eq!(live(after(85 * DAY)), [fourth.jti.as_str()]);

    // Killed after the row was written, and after the file was: in both cases rows that nobody holds.
    let lost = OwnRequest { subject: operator::OPERATOR.to_owned(), via: Via::OperatorMint, ..own("hub:admin", 3_600) };
    authority.mint_own(lost, after(85 * DAY)).expect("minted");
    assert_eq!(live(after(85 * DAY)).len(), 2);
    let after_crash = keep(after(85 * DAY));
    assert_eq!((after_crash.renewed, after_crash.revoked), (None, 1));
    assert_eq!(live(after(85 * DAY)), [fourth.jti]);

    // Somebody opened the file to others, or wrote nonsense into it.
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join("operator.token");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("mode");
    assert_eq!(keep(after(85 * DAY)).mode_was, Some(0o644));
    let mode = || std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::write(&path, "nonsense").expect("written");
    assert!(keep(after(86 * DAY)).renewed.is_some());
    assert_eq!(mode(), 0o600);
    assert_eq!(live(after(86 * DAY)).len(), 1);

    // A file that cannot be written: no token stays behind.
    let nowhere = OwnFile::new(dir.path().join("nowhere/deeper/operator.token"));
    authority.keep_operator_token(&nowhere, after(86 * DAY)).expect_err("no folder");
    assert_eq!(live(after(86 * DAY)).len(), 1);
}

#[test]
fn who_is_given_less_does_not_get_more_by_waiting() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let file = OwnFile::new(dir.path().join("operator.token"));
    let request = OwnRequest {
        subject: operator::OPERATOR.to_owned(),
        audience: Some(operator::OPERATOR.to_owned()),
        via: Via::OperatorMint,
        scope_set: Some("auth".to_owned()),
        ..own(scope::HOST_AUTH, 3_600)
    };
    file.write(authority.mint_own(request, NOW).expect("minted").token()).expect("written");
    assert!(authority.keep_operator_token(&file, NOW).expect("kept").renewed.is_some());
    let text = file.read().expect("read").expect("a token");
    let caller = authority.verify(text.reveal(), NOW).expect("accepted");
    assert_eq!(caller.scope_set.as_deref(), Some("auth"));
    assert_eq!(caller.scopes, [scope::HOST_AUTH.to_owned()].into());
}

#[test]
fn nothing_shows_a_token_or_a_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let token = authority.mint_own(own("a:b", 3_600), NOW).expect("minted");
    let brief = authority.mint_brief(own("a:b", 60), NOW).expect("minted");
    let keys = authority.store().expect("a store").keys().expect("keys");
    let signing = authority.signing(NOW).expect("a key");
    let line = lines::minted_line(&token);
    let shown = format!("{token:?} {brief:?} {keys:?} {signing:?} {authority:?} {line:?}");
    for secret in [token.token().reveal(), brief.token().reveal(), "PRIVATE"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn without_a_database_nothing_is_accepted() {
    let authority = Authority::default();
    authority.set_origins(ORIGIN, &[]);
    let header =
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, r#"{"alg":"RS256","kid":"k"}"#);
    assert!(matches!(authority.verify(&format!("{header}.e30.AAAA"), NOW), Err(Denied::Unavailable(_))));
    assert_eq!(authority.mint_own(own("a:b", 60), NOW).expect_err("no").code(), "db_unavailable");
}

#[test]
fn a_narrow_operator_token_stays_narrow_whatever_ends_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let file = OwnFile::new(dir.path().join("operator.token"));
    let narrow = |now| {
        let request = OwnRequest {
            subject: operator::OPERATOR.to_owned(),
            audience: Some(operator::OPERATOR.to_owned()),
            scope_set: Some("auth".to_owned()),
            via: Via::OperatorMint,
            ..own("parachute:host:auth", 86_400)
        };
        let token = authority.mint_own(request, now).expect("minted");
        file.write(token.token()).expect("written");
        token
    };
    let renewed = |now| {
        assert!(authority.keep_operator_token(&file, now).expect("kept").renewed.is_some());
        let token = file.read().expect("read").expect("a token");
        authority.verify(token.reveal(), now).expect("accepted").scope_set
    };
    let auth = Some("auth".to_owned());
    narrow(NOW);
    assert_eq!(renewed(after(2 * DAY)), auth, "expired");
    let token = narrow(after(3 * DAY));
    authority.revoke(token.jti(), None, after(3 * DAY)).expect("revoked");
    assert_eq!(renewed(after(3 * DAY)), auth, "revoked");
    narrow(after(4 * DAY));
    authority.set_origins("https://new.example.org", &[]);
    assert_eq!(renewed(after(4 * DAY)), auth, "of an old issuer");
    narrow(after(5 * DAY));
    authority.rotate(true, after(5 * DAY)).expect("rotated");
    assert_eq!(renewed(after(5 * DAY)), auth, "of a dropped key");
    file.write(&crate::model::secret::Secret::new("somebody's".to_owned())).expect("written");
    assert_eq!(renewed(after(6 * DAY)), Some("admin".to_owned()), "never ours");
}

#[test]
fn two_who_renew_the_operator_token_at_once_leave_a_good_one() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(authority(dir.path()).jwks(NOW).expect("a key"));
    let file = || OwnFile::new(dir.path().join("operator.token"));
    for round in 0..10 {
        // Each round all of them find a token that ends soon.
        let now = after(round * 85 * DAY);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| authority(dir.path()).keep_operator_token(&file(), now).expect("kept"));
            }
        });
        let judge = authority(dir.path());
        let token = file().read().expect("read").expect("a token");
        judge.verify(token.reveal(), now).expect("the one in the file is good");
        let live = judge.counts(now).expect("counted").into_iter().filter(|(_, revoked, _)| !revoked);
        assert_eq!(live.map(|(_, _, count)| count).sum::<u64>(), 1, "and it is the only one");
    }
}

#[test]
fn one_subject_cannot_use_up_the_room_of_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = authority(dir.path());
    let greedy = caller(&["vault:lab:admin"]);
    drop(mint(&authority, &greedy, "vault:lab:read").expect("the first"));
    let fill = |sql: &str, count: i64| {
        let own = rusqlite::Connection::open(dir.path().join("hub.db")).expect("opened");
        own.execute(
            &format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) {sql}"),
            [],
        )
        .expect("filled");
    };
    let row = |prefix: &str, subject: &str, revoked: &str| {
        format!(
            "INSERT INTO tokens SELECT '{prefix}' || i, {subject}, client_id, audience, scopes, vault_scope, permissions, created_via, kid,
                created_at, expires_at, {revoked} FROM n, (SELECT * FROM tokens ORDER BY jti LIMIT 1)"
        )
    };
    fill(&row("a", "subject", "NULL"), 999);
    let refused = mint(&authority, &greedy, "vault:lab:read").expect_err("too many");
    assert_eq!(refused.code(), "too_many_tokens");
    // Others are not touched, nor whoever governs the machine; what is revoked makes room.
    let other = Caller { subject: "other".to_owned(), ..greedy.clone() };
    mint(&authority, &other, "vault:lab:read").expect("another subject");
    mint(&authority, &caller(&[scope::HOST_AUTH]), "vault:lab:read").expect("the owner");
    authority.revoke("a7", None, NOW).expect("revoked");
    authority.revoke("a8", None, NOW).expect("revoked");
    mint(&authority, &greedy, "vault:lab:read").expect("room again");

    // All the room is used up; the operator token is made all the same.
    fill(&row("b", "'s' || i", "NULL"), 100_000);
    let owner = caller(&[scope::HOST_AUTH]);
    assert_eq!(mint(&authority, &owner, "a:b").expect_err("full").code(), "db_unavailable");
    let file = OwnFile::new(dir.path().join("operator.token"));
    authority.keep_operator_token(&file, NOW).expect("kept");
    let own = rusqlite::Connection::open(dir.path().join("hub.db")).expect("opened");
    own.execute("UPDATE tokens SET revoked_at = 1 WHERE jti LIKE 'b%'", []).expect("revoked");
    mint(&authority, &owner, "a:b").expect("revoked ones do not count");
}
