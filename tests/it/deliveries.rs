//! Durable deliveries: from the POST of a vault to the sink, with nothing lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http_body_util::Full;
use hyper::Request;
use serde_json::json;
use trueup::adapters::clock::SystemClock;
use trueup::adapters::deliveries::Delivered;
use trueup::ports::clock::Clock;
use trueup::ports::deliveries::{Act, Bounds, Change, DeliveryStore, Done, Event, Pick, Stage as Far, event_id};
use trueup::ports::hub::State;

use crate::delivery_stage::{Depot, PATH, Says, Sink, event, name, says, wiring};
use crate::hub_stage::{get, send};
use crate::proxy_stage::Raw;
use crate::stage::{Stage, wait_until};
use crate::web::Hub;

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
    let letter = depot.letters().remove(0);
    assert_eq!((letter.note.as_deref(), letter.what.as_deref()), (Some("n1"), Some("note.updated")));
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
}

/// A depot with its sink and a bearer.
fn usual(dir: &tempfile::TempDir, sink: &Sink) -> (Depot, String) {
    let depot = Depot::new(dir.path()).with(sink).tell();
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    (depot, bearer)
}

fn post_all(depot: &Depot, bearer: &str, numbers: impl IntoIterator<Item = u64>, notes: u64) {
    for number in numbers {
        let reply = depot.send("box", bearer, &event(&format!("n{}", number % notes), number)).expect("an answer");
        assert_eq!(reply.status, 202, "{}", reply.text());
    }
}

/// Of every note the events came in their order; the same again may come, and nothing older than what came.
fn in_order(sink: &Sink) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for heard in sink.heard() {
        let note = heard.json()["note"]["id"].as_str().expect("a note").to_owned();
        let newest = last.entry(note).or_default();
        assert!(heard.number() >= *newest, "{} after {newest}", heard.number());
        *newest = heard.number();
    }
}

#[test]
fn events_wait_for_a_sink_that_is_away_and_come_in_the_order_of_their_notes() {
    let (dir, mut sink) = (folder(), Sink::new(|_| says(200)));
    sink.down();
    let (mut depot, bearer) = usual(&dir, &sink);
    depot.service_is("agent", |agent| agent.state = State::Starting);
    post_all(&depot, &bearer, 1..=60, 7);
    assert_eq!((depot.tally("box").waiting, sink.heard().len()), (60, 0));
    sink.up();
    depot.service_is("agent", |agent| agent.state = State::Ready);
    wait_until("all to be delivered", || depot.tally("box").delivered == 60);
    assert_eq!(sink.numbers(), (1..=60).map(|number| (number, 1)).collect());
    in_order(&sink);
}

#[test]
fn a_sink_that_goes_and_comes_back_unnoticed_gets_everything() {
    let (dir, mut sink) = (folder(), Sink::new(|_| says(200)));
    sink.down();
    let (depot, bearer) = usual(&dir, &sink);
    post_all(&depot, &bearer, 1..=40, 40);
    wait_until("it to be tried", || depot.tally("box").trouble.is_some() || depot.letters()[39].trouble.is_some());
    sink.up();
    wait_until("all to be delivered", || depot.tally("box").delivered == 40);
    assert!(depot.letters().iter().all(|letter| letter.attempts == 1), "what was not reached was not tried");
    in_order(&sink);
}

#[test]
fn a_sink_that_fails_is_left_in_peace_and_then_tried_again() {
    let (dir, sink) = (folder(), Sink::new(|_| says(500)));
    let (mut depot, bearer) = usual(&dir, &sink);
    post_all(&depot, &bearer, 1..=30, 30);
    // Eight may be under way when the fifth failure opens the breaker; after that it is one a second at most.
    wait_until("the breaker", || sink.heard().len() >= 5);
    wait_until("its failures to be written down", || depot.letters().iter().any(|letter| letter.status == Some(500)));
    assert!(sink.heard().len() <= 14, "{}", sink.heard().len());
    assert_eq!(depot.tally("box").waiting, 30);
    sink.plays(|_| says(200));
    // Another process of the service: whatever was wrong with the one before is over.
    depot.service_is("agent", |agent| agent.pid = Some(4_711));
    wait_until("all to be delivered", || depot.tally("box").delivered == 30);
    in_order(&sink);
}

#[test]
fn a_sink_that_asks_for_time_gets_it() {
    let dir = folder();
    let begun = std::sync::Mutex::new(Vec::new());
    let times = std::sync::Arc::new(begun);
    let seen = times.clone();
    let sink = Sink::new(move |_| {
        let mut seen = seen.lock().expect("times");
        seen.push(SystemClock.now());
        let headers = vec![("retry-after", "2".to_owned())];
        if seen.len() == 1 { Says { headers, ..says(429) } } else { says(200) }
    });
    let (depot, bearer) = usual(&dir, &sink);
    post_all(&depot, &bearer, 1..=1, 1);
    wait_until("it to be asked for time", || depot.letters()[0].status == Some(429));
    post_all(&depot, &bearer, 2..=3, 9);
    wait_until("all to be delivered", || depot.tally("box").delivered == 3);
    let times = times.lock().expect("times").clone();
    assert!((times[1] - times[0]).0 >= 1_900, "{times:?}");
    assert_eq!(sink.heard()[1..].iter().map(|heard| heard.number()).collect::<BTreeSet<_>>(), [1, 2, 3].into());
}

#[test]
fn what_a_sink_refuses_becomes_a_dead_letter_at_once_and_attempts_are_bounded() {
    let (dir, sink) = (folder(), Sink::new(|heard| says(if heard.number() == 1 { 422 } else { 500 })));
    let mut wired = wiring("agent");
    wired.retry.max_attempts = 1;
    let depot = Depot::new(dir.path()).service("agent", sink.port).connection("box", wired).tell();
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    post_all(&depot, &bearer, 1..=2, 2);
    wait_until("two dead letters", || depot.tally("box").dead == 2);
    let letters = depot.letters();
    assert_eq!((letters[1].status, letters[0].status), (Some(422), Some(500)));
    assert!(letters[0].trouble.as_deref().is_some_and(|text| text.contains("the last")), "{letters:?}");
    // The same event again is no new one.
    let again = depot.send("box", &bearer, &event("n1", 1)).expect("an answer");
    assert_eq!(again.json()["duplicate"], json!(true));
    assert_eq!(depot.tally("box").dead, 2);
}

#[test]
fn a_suspended_connection_accepts_and_keeps() {
    let (dir, sink) = (folder(), Sink::new(|_| says(200)));
    let mut wired = wiring("agent");
    wired.suspended = true;
    let mut depot = Depot::new(dir.path()).service("agent", sink.port).connection("box", wired).tell();
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    post_all(&depot, &bearer, 1..=3, 3);
    depot.change(|wish| wish.connections.clear());
    let gone = depot.send("box", &bearer, &event("n", 9)).expect("an answer");
    assert_eq!(gone.status, 404, "{}", gone.text());
    assert_eq!((depot.tally("box").waiting, sink.heard().len()), (3, 0));
    depot.change(|wish| drop(wish.connections.insert(name("box"), Arc::new(wiring("agent")))));
    wait_until("all to be delivered", || depot.tally("box").delivered == 3);
}

#[test]
fn a_full_queue_says_so_and_takes_events_again_when_there_is_room() {
    let (dir, sink) = (folder(), Sink::new(|_| says(200)));
    let kept = Bounds { waiting: 5, bytes_of_one: 10_000, ..Bounds::default() };
    let mut depot = Depot::bounded(dir.path(), kept).with(&sink).tell();
    depot.service_is("agent", |agent| agent.state = State::Starting);
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    let large = json!({ "number": 99, "text": "x".repeat(10_000) });
    assert_eq!(depot.send("box", &bearer, &large).expect("an answer").status, 503);
    post_all(&depot, &bearer, 1..=5, 5);
    let full = depot.send("box", &bearer, &event("n", 6)).expect("an answer");
    assert_eq!(
        (full.status, full.header("retry-after"), full.json()["error"].as_str()),
        (503, "10", Some("queue_full"))
    );
    assert!(depot.tally("box").full);
    // The same event again needs no room.
    assert_eq!(depot.send("box", &bearer, &event("n1", 1)).expect("an answer").status, 202);
    depot.service_is("agent", |agent| agent.state = State::Ready);
    wait_until("all to be delivered", || depot.tally("box").delivered == 5);
    assert_eq!(depot.send("box", &bearer, &event("n", 6)).expect("an answer").status, 202);
    wait_until("the last one", || depot.tally("box").delivered == 6);
}

#[test]
fn only_the_bearer_of_the_connection_may_and_only_from_this_machine() {
    let (dir, sink) = (folder(), Sink::new(|_| says(200)));
    let (depot, bearer) = usual(&dir, &sink);
    let status = |token: &str, connection: &str| {
        let reply = depot.send(connection, token, &event("n", 1)).expect("an answer");
        (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    let unauthorized = (401, "unauthorized".to_owned());
    let forbidden = (403, "insufficient_scope".to_owned());
    assert_eq!(status("nonsense", "box"), unauthorized);
    assert_eq!(status(&depot.bearer("hub", "inbox:box").0, "box"), unauthorized);
    assert_eq!(status(&depot.bearer("agent", "agent:send").0, "box"), unauthorized);
    assert_eq!(status(&depot.bearer("inbox", "inbox:other").0, "box"), forbidden);
    assert_eq!(status(&bearer, "other"), forbidden);
    let (other, _) = depot.bearer("inbox", "inbox:bix");
    assert_eq!(status(&other, "bix"), (404, "not_found".to_owned()));
    assert!(depot.send("bix", &other, &json!({})).expect("an answer").text().contains("did you mean 'box'"));
    let (revoked, jti) = depot.bearer("inbox", "inbox:box");
    depot.authority.revoke(&jti, None, SystemClock.wall()).expect("revoked");
    assert_eq!(status(&revoked, "box"), unauthorized);
    for (header, value) in
        [("x-forwarded-for", "192.0.2.1"), ("host", "hub.example.org"), ("origin", "https://evil.example")]
    {
        let request =
            Request::post("/inbox/box").header("authorization", format!("Bearer {bearer}")).header(header, value);
        let reply = send(depot.hub, request.body(Full::from("{}")).expect("a request")).expect("an answer");
        assert_eq!(reply.status, 404, "{header}");
    }
    for body in ["[]", "7", "{", ""] {
        let request = Request::post("/inbox/box").header("authorization", format!("Bearer {bearer}"));
        let reply = send(depot.hub, request.body(Full::from(body)).expect("a request")).expect("an answer");
        assert_eq!(reply.status, 400, "{body}");
    }
    let request = Request::post("/inbox/box").header("authorization", format!("Bearer {bearer}"));
    let large = send(depot.hub, request.body(Full::from(vec![b' '; (8 << 20) + 1])).expect("a request"));
    assert!(large.is_err() || large.is_ok_and(|reply| reply.status == 413));
    assert_eq!((depot.letters().len(), sink.heard().len()), (0, 0));
    let metrics = get(depot.hub, "/metrics").expect("metrics").text();
    assert!(metrics.contains("trueup_deliveries_refused_total{connection=\"box\",reason=\"revoked\"} 1"), "{metrics}");
    assert!(!metrics.contains("\"bix\""), "nobody outside names a label");
}

#[test]
fn an_event_is_taken_in_though_its_client_leaves() {
    let (dir, sink) = (folder(), Sink::new(|_| says(200)));
    let (depot, bearer) = usual(&dir, &sink);
    for number in 0..20 {
        let body = event(&format!("n{number}"), number).to_string();
        let head = format!(
            "POST /inbox/box HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {bearer}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        drop(Raw::open(depot.hub).say(head + &body));
    }
    // Whether it was still there when the event was read is up to the machine; a whole event is taken in or not, and is not lost between.
    post_all(&depot, &bearer, 100..=100, 1_000);
    wait_until("what was taken in", || {
        let tally = depot.tally("box");
        tally.waiting == 0 && tally.delivered as usize == depot.letters().len() && sink.numbers().contains_key(&100)
    });
    assert_eq!(sink.heard().len(), depot.letters().len());
}

#[test]
fn a_database_that_goes_away_is_said_loudly_and_nothing_is_accepted_into_it() {
    let (dir, sink) = (folder(), Sink::new(|_| says(200)));
    let (depot, bearer) = usual(&dir, &sink);
    post_all(&depot, &bearer, 1..=1, 1);
    assert_eq!(get(depot.hub, "/healthz").expect("an answer").json()["deliveries"], json!("ok"));
    std::fs::rename(dir.path().join("deliveries.db"), dir.path().join("elsewhere.db")).expect("moves");
    let lost = depot.send("box", &bearer, &event("n", 2)).expect("an answer");
    assert_eq!((lost.status, lost.json()["error"].as_str()), (503, Some("deliveries_unavailable")));
    let health = get(depot.hub, "/healthz").expect("an answer");
    assert_eq!(health.status, 503, "{}", health.text());
    assert_eq!(get(depot.hub, "/readyz").expect("an answer").status, 503);
    std::fs::rename(dir.path().join("elsewhere.db"), dir.path().join("deliveries.db")).expect("moves");
    wait_until("it to be well again", || get(depot.hub, "/healthz").is_ok_and(|reply| reply.status == 200));
    post_all(&depot, &bearer, 2..=2, 1);
    wait_until("both events", || sink.numbers().len() == 2);
}

#[test]
fn what_is_counted_says_how_it_goes() {
    let (dir, sink) = (folder(), Sink::new(|heard| says(if heard.number() == 2 { 400 } else { 200 })));
    let (mut depot, bearer) = usual(&dir, &sink);
    post_all(&depot, &bearer, 1..=2, 2);
    wait_until("both to be settled", || depot.tally("box").delivered == 1 && depot.tally("box").dead == 1);
    depot.service_is("agent", |agent| agent.state = State::Starting);
    post_all(&depot, &bearer, 3..=3, 2);
    let metrics = get(depot.hub, "/metrics").expect("metrics").text();
    for line in [
        "trueup_deliveries_accepted_total{connection=\"box\"} 3",
        "trueup_deliveries_delivered_total{connection=\"box\"} 1",
        "trueup_deliveries_given_up_total{connection=\"box\"} 1",
        "trueup_deliveries_waiting{connection=\"box\"} 1",
        "trueup_deliveries_dead{connection=\"box\"} 1",
        "trueup_delivery_duration_seconds_count{connection=\"box\"} 1",
        "trueup_deliveries_oldest_timestamp_seconds{connection=\"box\"}",
        "trueup_deliveries_up 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

const ROOM: &str = "TRUEUP_TEST_DEPOT";

/// Not a test by itself: the process that [`nothing_is_lost_when_the_process_is_killed`] kills.
#[test]
#[ignore = "part of another test"]
#[expect(clippy::disallowed_methods, reason = "how one test process tells another where to work")]
fn the_process_that_has_the_queue() {
    let Ok(room) = std::env::var(ROOM) else { return };
    let (dir, port) = room.rsplit_once(':').expect("a folder and a port");
    let dir = std::path::Path::new(dir);
    let depot =
        Depot::new(dir).service("agent", port.parse().expect("a port")).connection("box", wiring("agent")).tell();
    std::fs::write(dir.join("port.new"), depot.hub.to_string()).expect("writes");
    std::fs::rename(dir.join("port.new"), dir.join("port")).expect("moves");
    loop {
        std::thread::park();
    }
}

fn begin(dir: &std::path::Path, sink: &Sink) -> (std::process::Child, u16) {
    let _ = std::fs::remove_file(dir.join("port"));
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["deliveries::the_process_that_has_the_queue", "--exact", "--ignored"])
        .env(ROOM, format!("{}:{}", dir.display(), sink.port))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let port = dir.join("port");
    wait_until("the process that has the queue", || port.exists());
    (child, std::fs::read_to_string(port).expect("a port").parse().expect("a port"))
}

#[test]
fn nothing_is_lost_when_the_process_is_killed() {
    const EVENTS: u64 = 1_000;
    let (dir, sink) = (folder(), Sink::new(|_| Says { after: std::time::Duration::from_millis(2), ..says(200) }));
    let mut depot = Depot::new(dir.path());
    let (bearer, _) = depot.bearer("inbox", "inbox:box");
    let (mut child, port) = begin(dir.path(), &sink);
    depot.hub = port;
    let (mut accepted, mut kills) = (BTreeSet::new(), 0);
    for number in 1..=EVENTS {
        // An answer that did not come is no acceptance: the vault sends it again, and the key makes it one event.
        let body = event(&format!("n{}", number % 17), number);
        while !accepted.contains(&number) {
            match depot.send("box", &bearer, &body) {
                Ok(reply) => {
                    assert_eq!(reply.status, 202, "{}", reply.text());
                    accepted.insert(number);
                }
                Err(_) => wait_until("the process that has the queue", || crate::stage::listens(depot.hub)),
            }
        }
        if number % 300 == 0 {
            child.kill().expect("killed");
            child.wait().expect("ended");
            (child, depot.hub) = begin(dir.path(), &sink);
            kills += 1;
        }
    }
    wait_until("all to be delivered", || depot.tally("box").waiting == 0);
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(kills, 3);
    assert_eq!((depot.tally("box").delivered, depot.tally("box").dead), (EVENTS, 0));
    let numbers = sink.numbers();
    assert_eq!(numbers.keys().copied().collect::<BTreeSet<_>>(), accepted);
    let twice = numbers.values().filter(|count| **count > 1).count();
    assert!(twice <= 8 * kills, "only what was under way comes twice: {twice}");
    in_order(&sink);
}

#[test]
fn what_another_process_replays_or_discards_is_noticed() {
    let (dir, sink) = (folder(), Sink::new(|_| says(400)));
    let (depot, bearer) = usual(&dir, &sink);
    post_all(&depot, &bearer, 1..=3, 3);
    wait_until("dead letters", || depot.tally("box").dead == 3);
    sink.plays(|_| says(200));
    let seqs: Vec<u64> = depot.letters().iter().map(|letter| letter.seq).collect();
    let at = SystemClock.wall();
    depot.store.write(&[Act::Discard { pick: Pick::Seqs(vec![seqs[0]]), at }]).expect("written");
    depot.store.write(&[Act::Replay { pick: Pick::AllDead(name("box")), at }]).expect("written");
    // As the daemon does when its socket wakes it.
    depot.server.tell(depot.wish.clone());
    wait_until("the others", || depot.tally("box").delivered == 2);
    assert_eq!((sink.heard().len(), depot.tally("box").dead), (5, 0));
    let discarded = depot.store.find(seqs[0]).expect("read").expect("remembered");
    assert_eq!((discarded.0.stage, discarded.1), (Far::Discarded, None));
}

/// Three dead letters, written down in a state folder.
fn dead_letters(state: &std::path::Path) -> Vec<String> {
    std::fs::create_dir_all(state).expect("a folder");
    let store = Delivered::open(&state.join("deliveries.db"), Bounds::default()).expect("a database");
    let at = SystemClock.wall();
    let mut ids = Vec::new();
    for number in 1..=3 {
        let event = Event {
            connection: name("box"),
            key: format!("key{number}"),
            note: Some(format!("n{number}")),
            what: Some("note.created".to_owned()),
            content_type: "application/json".to_owned(),
            body: json!({ "number": number, "text": "\u{1b}[31mred" }).to_string().into(),
        };
        let done = store.write(&[Act::Accept { event, at }]).expect("written");
        let Done::Accepted(row) = &done[0] else { panic!("accepted") };
        let change = Change::Dead { attempts: 1, status: Some(422), trouble: "422: no".to_owned() };
        store.write(&[Act::Settle { seq: row.seq, change, at }]).expect("written");
        ids.push(event_id(row.seq));
    }
    ids
}

#[test]
fn people_list_show_replay_and_discard_without_a_daemon() {
    let stage = Stage::new();
    stage.hub();
    assert!(stage.run(&["deliveries", "list"]).code(0).out.is_empty());
    assert!(!stage.path(".trueup/deliveries.db").exists(), "looking makes nothing");
    stage.once(&[]).code(0);
    let ids = dead_letters(&stage.path(".trueup"));
    let table = stage.run(&["deliveries", "list"]).code(0).out;
    assert!(ids.iter().all(|id| table.contains(id.as_str())) && table.contains("422: no"), "{table}");
    assert_eq!(stage.run(&["deliveries", "list", "--limit", "1", "-o", "json"]).code(0).typed("delivery").len(), 1);
    assert!(stage.run(&["deliveries", "list", "--only", "waiting", "-o", "json"]).code(0).typed("delivery").is_empty());
    let shown = stage.run(&["deliveries", "show", &ids[0]]).code(0).out;
    assert!(shown.contains("\"number\": 1") && !shown.contains('\u{1b}'), "{shown}");
    let shown = stage.run(&["deliveries", "show", &ids[0], "-o", "json"]).code(0).typed("deliveryDetail").remove(0);
    assert_eq!((&shown["body"]["number"], &shown["state"], &shown["status"]), (&json!(1), &json!("dead"), &json!(422)));

    // Nobody would deliver it: its connection is not declared.
    for which in [vec![ids[0].as_str()], vec!["--connection", "box", "--all-dead"]] {
        let refused = stage.run(&[vec!["deliveries", "replay"], which].concat()).code(1);
        assert!(refused.err.contains("there is no connection 'box' any more"), "{}", refused.err);
    }
    stage.write("box.yaml", "apiVersion: trueup/v1\nkind: Connection\nmetadata: { name: box }\n");
    let replayed = stage.run(&["deliveries", "replay", &ids[0], "-o", "json"]).code(0).typed("replayed");
    assert_eq!(replayed[0]["id"], json!(ids[0]));
    let refused = stage.run(&["deliveries", "discard", "--connection", "box", "--all-dead"]).code(4);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    stage.run(&["deliveries", "discard", &ids[1], "e00000zz"]).code(7);
    stage.run(&["deliveries", "discard", "--connection", "box", "--all-dead", "--yes"]).code(0);
    stage.run(&["deliveries", "replay", &ids[1]]).code(1);
    stage.run(&["deliveries", "replay", "nonsense"]).code(64);
    stage.run(&["deliveries", "show", "e00000zz"]).code(1);
    let states =
        |state: &str| stage.run(&["deliveries", "list", "--only", state, "-o", "json"]).typed("delivery").len();
    assert_eq!((states("waiting"), states("dead"), states("discarded"), states("all")), (1, 0, 2, 3));
}

#[test]
fn the_api_does_what_the_commands_do() {
    let stage = Stage::new();
    let ids = dead_letters(&stage.path(".trueup"));
    let hub = Hub::start(stage);
    let list = hub.get("/deliveries?limit=2").status(200).json();
    assert_eq!(list["deliveries"].as_array().map(Vec::len), Some(2), "{list}");
    let cursor = list["nextCursor"].as_str().expect("a cursor").to_owned();
    let rest = hub.get(&format!("/deliveries?limit=2&cursor={cursor}")).status(200).json();
    assert_eq!((&rest["deliveries"][0]["id"], &rest["nextCursor"]), (&json!(ids[0]), &json!(null)));
    assert_eq!(hub.get("/deliveries?state=waiting").status(200).json()["deliveries"], json!([]));
    for wrong in ["state=gone", "connection=A", "limit=0", "cursor=7", "stat=dead"] {
        hub.get(&format!("/deliveries?{wrong}")).status(400);
    }
    assert_eq!(hub.get(&format!("/deliveries/{}", ids[0])).status(200).json()["body"]["number"], json!(1));
    hub.get("/deliveries/e00000zz").status(404);
    let refused = hub.post(&format!("/deliveries/{}/replay", ids[0]), None).status(409).json();
    assert_eq!(refused["error"], json!("no_connection"), "nobody would deliver it: {refused}");
    let operator = hub.admin.clone();
    let delete = |id: &str| hub.call(&operator, "DELETE", &format!("/deliveries/{id}"), None);
    delete(&ids[1]).status(200);
    delete(&ids[1]).status(409);
    let states: Vec<String> = hub.get("/deliveries").json()["deliveries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| line["state"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(states, ["dead", "discarded", "dead"]);
}
