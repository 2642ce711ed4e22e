//! How fast tokens are verified and made, beside a bare loop of `ring` over the same key in the same run.
//!
//! `cargo bench --bench tokens`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures, prints and stops"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey};
use rsa::pkcs8::SecretDocument;
use trueup::adapters::hubdb::HubDb;
use trueup::authority::{Authority, OwnRequest};
use trueup::model::time::Timestamp;
use trueup::ports::tokens::TokenStore;

/// How long each loop runs.
const SPAN: Duration = Duration::from_secs(3);
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn rate(what: &str, mut work: impl FnMut()) -> f64 {
    work();
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < SPAN {
        work();
        count += 1;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(count);
    println!("{what:<58} {:>9.1} us  {:>9.0} /s", each * 1e6, 1.0 / each);
    each
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(HubDb::open(&dir.path().join("hub.db"), true).unwrap());
    let authority = Authority::new(store.clone());
    authority.set_origins("http://127.0.0.1:1939", &[]);
    let request = |seconds| OwnRequest {
        scopes: vec!["vault:lab:read".to_owned()],
        subject: "bench".to_owned(),
        seconds,
        ..OwnRequest::default()
    };
    let token = authority.mint_own(request(86_400), NOW).unwrap();
    let brief = authority.mint_brief(request(60), NOW).unwrap();

    let pem = store.keys().unwrap().remove(0).private_pem.unwrap();
    let (_, der) = SecretDocument::from_pem(pem.reveal()).unwrap();
    let pair = RsaKeyPair::from_pkcs8(der.as_bytes()).unwrap();
    let (message, seal) = token.token().reveal().rsplit_once('.').unwrap();
    let seal = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, seal).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref().to_vec());
    let mut space = vec![0; pair.public().modulus_len()];
    let chance = SystemRandom::new();

    let bare = rate("ring alone: verify", || public.verify(message.as_bytes(), &seal).unwrap());
    let ours = rate("verify a registered token", || drop(authority.verify(token.token().reveal(), NOW).unwrap()));
    println!("{:<58} {:>9.2} x", "  of the bare loop", ours / bare);
    rate("verify a brief token", || drop(authority.verify(brief.token().reveal(), NOW).unwrap()));
    let bare =
        rate("ring alone: sign", || pair.sign(&RSA_PKCS1_SHA256, &chance, message.as_bytes(), &mut space).unwrap());
    let ours = rate("make a brief token", || drop(authority.mint_brief(request(60), NOW).unwrap()));
    println!("{:<58} {:>9.2} x", "  of the bare loop", ours / bare);
    rate("make and register a token (waits for the disk)", || drop(authority.mint_own(request(86_400), NOW).unwrap()));
    rate("verify a registered token, among those just made", || {
        drop(authority.verify(token.token().reveal(), NOW).unwrap());
    });
    rate("a page of 50", || drop(authority.list(&trueup::authority::ListRequest::default()).unwrap()));
}
