//! The hub with a certificate: from its files, renewed when they change, and never in the open for want of a good one.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use trueup::hub::Bounds;
use trueup::ports::hub::{Standing, State, Tls, Trouble};

use crate::proxy_stage::{Bare, Raw, echo};
use crate::stage::{Stage, free_port, listens, wait_until};

/// The certificates of these stories are valid from 2026 to 2126; whatever clock this machine has.
#[derive(Debug)]
struct Then;

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000)))
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Asks with trust in one certificate only; the answer, and the protocol that was agreed on.
fn ask(port: u16, trusted: &str, path: &str, protocols: &[&str]) -> Result<(String, String), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file(trusted)).expect("a certificate")).expect("added");
    let builder = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(Then));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let mut stream = Raw::open(port).0;
    let mut tls = Stream::new(&mut connection, &mut stream);
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    // What is not closed by the book is an end as well.
    let _ = tls.read_to_end(&mut text);
    let protocol = connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    Ok((String::from_utf8_lossy(&text).into_owned(), protocol.unwrap_or_default()))
}

fn place(folder: &Path, name: &str) {
    for (from, to) in [(format!("{name}.pem"), "hub.pem"), (format!("{name}.key"), "hub.key")] {
        let new = folder.join("new");
        fs::copy(file(&from), &new).expect("copied");
        fs::rename(new, folder.join(to)).expect("in its place");
    }
}

fn of(folder: &Path) -> Tls {
    Tls { certificate: folder.join("hub.pem"), key: folder.join("hub.key") }
}

#[test]
fn a_daemon_serves_https_and_modules_know_it() {
    let stage = Stage::new();
    let (port, echo_port) = (free_port(), free_port());
    place(&stage.path("manifests"), "one");
    stage.write(
        "hub.yaml",
        &format!(
            "apiVersion: trueup/v1\nkind: Hub\nmetadata: {{ name: home }}\nspec:\n  listen: 127.0.0.1:{port}\n  \
             tls: {{ certificate: hub.pem, key: hub.key }}\n"
        ),
    );
    stage.write("echo.yaml", &echo("echo", echo_port, "[ { path: /echo } ]", ""));
    let _daemon = stage.daemon();
    wait_until("the hub", || listens(port));
    wait_until("an answer", || ask(port, "one.pem", "/echo/ask", &[]).is_ok_and(|(text, _)| text.contains(" 200 OK")));
    let (text, _) = ask(port, "one.pem", "/echo/ask", &["http/1.1"]).expect("an answer");
    assert!(text.contains("[\"x-forwarded-proto\",\"https\"]"), "{text}");
    let (_, protocol) = ask(port, "one.pem", "/healthz", &["h2", "http/1.1"]).expect("a handshake");
    assert_eq!(protocol, "h2");
    assert!(ask(port, "two.pem", "/healthz", &[]).is_err());
    let open = Raw::open(port).say("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").all();
    assert!(!open.contains("200"), "{open}");
}

#[test]
fn files_that_change_are_read_again_and_bad_ones_are_not_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    place(folder.path(), "one");
    let hub = Bare::new(Bounds::default(), Some(of(folder.path()))).with("x", free_port(), State::Failed).tell();
    let serves =
        |name: &str| ask(hub.hub, &format!("{name}.pem"), "/healthz", &[]).is_ok_and(|(text, _)| text.contains("200"));
    assert!(serves("one") && !serves("two"));
    fs::write(folder.path().join("hub.pem"), "no certificate").expect("written");
    crate::proxy_stage::pause(Duration::from_secs(3));
    assert!(serves("one"), "the old one is kept");
    let refused = |trouble| matches!(hub.server.standing(), Standing::Refused { trouble: now, .. } if now == trouble);
    assert!(refused(Trouble::Certificate), "{:?}", hub.server.standing());
    place(folder.path(), "two");
    wait_until("the new one", || serves("two"));
    assert!(!serves("one"));
    wait_until("its word", || matches!(hub.server.standing(), Standing::Serving(_)));
}

#[test]
fn without_a_good_certificate_nothing_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    place(folder.path(), "one");
    fs::copy(file("two.key"), folder.path().join("hub.key")).expect("the key of the other");
    let hub = Bare::new(Bounds::default(), Some(of(folder.path())));
    hub.server.tell(hub.wish.clone());
    let refused = || match hub.server.standing() {
        Standing::Refused { trouble: Trouble::Certificate, message } => Some(message),
        _ => None,
    };
    wait_until("the refusal", || refused().is_some());
    assert!(!listens(hub.hub));
    let message = refused().expect("a message");
    assert!(message.contains("hub.key") && message.contains("hub.pem"), "{message}");
    fs::remove_file(folder.path().join("hub.key")).expect("removed");
    wait_until("the other trouble", || refused().is_some_and(|message| message.contains("No such file")));
    place(folder.path(), "one");
    wait_until("the hub", || listens(hub.hub));
}
