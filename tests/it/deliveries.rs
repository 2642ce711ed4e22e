//! Durable deliveries: from the POST of a vault to the sink, with nothing lost.

use serde_json::json;
use trueup::model::unit::Millis;

use crate::delivery_stage::{Depot, PATH, Sink, event, name, says, wiring};
use crate::stage::wait_until;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn an_event_arrives_as_the_vault_sent_it_with_a_brief_token() {
    let (dir, sink) = (folder(), Sink::new(|_| says(200)));
    let depot = Depot::new(dir.path()).with(&sink).tell();
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    let sent = event("n1", 1);
    let reply = depot.send("box", &bearer, &sent).expect("an answer");
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!((&reply.json()["accepted"], &reply.json()["duplicate"]), (&json!(true), &json!(false)));
    let id = reply.json()["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with('e') && id.len() == 8, "{id}");
    wait_until("the event at its sink", || sink.heard().len() == 1);
    let heard = sink.heard().remove(0);
    assert_eq!((heard.path.as_str(), String::from_utf8_lossy(&heard.body).into_owned()), (PATH, sent.to_string()));
    assert_eq!((heard.header("trueup-connection"), heard.header("trueup-attempt")), ("box", "1"));
    assert_eq!(heard.header("idempotency-key").len(), 32);
    let token = heard.header("authorization").strip_prefix("Bearer ").expect("a bearer");
    let caller = depot.accepts(token).expect("a token of ours");
    assert_eq!(
        (caller.audience.as_str(), caller.scopes.into_iter().collect::<Vec<_>>()),
        ("agent", vec!["agent:send".to_owned()])
    );

    wait_until("it to be written down as delivered", || depot.tally("box").delivered == 1);
    let again = depot.send("box", &bearer, &sent).expect("an answer");
    assert_eq!((again.status, &again.json()["duplicate"], &again.json()["id"]), (202, &json!(true), &json!(id)));
    let more = depot.send("box", &bearer, &event("n1", 2)).expect("an answer");
    assert_eq!(more.json()["duplicate"], json!(false));
    wait_until("the second event", || sink.heard().len() == 2);
    assert_eq!(sink.numbers(), [(1, 1), (2, 1)].into());
    let (letter, body) = (&depot.letters()[0], Millis(0));
    assert_eq!((letter.note.as_deref(), letter.what.as_deref(), body), (Some("n1"), Some("note.updated"), Millis(0)));
}

#[test]
fn parameters_of_the_connection_go_along() {
    let (dir, sink) = (folder(), Sink::new(|_| says(204)));
    let mut wired = wiring("agent");
    wired.params = json!({ "channel": "main" }).as_object().expect("an object").clone();
    let depot = Depot::new(dir.path()).service("agent", sink.port).connection("box", wired).tell();
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    depot.send("box", &bearer, &event("n1", 1)).expect("an answer");
    wait_until("the event", || sink.heard().len() == 1);
    assert_eq!(sink.heard()[0].json()["params"], json!({ "channel": "main" }));
    assert_eq!(name("box").as_str(), "box");
}
