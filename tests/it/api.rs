//! The API for people and programs: a real daemon, real HTTP.

use serde_json::{Value, json};
use trueup::model::blob::{Integrity, Sha256};

use crate::stage::{Stage, alive, free_port, listens, shell, wait_until};
use crate::web::{Call, Hub, minted, ready};

#[test]
fn without_a_good_token_nothing_is_said() {
    let hub = Hub::start(Stage::new());
    let bare =
        |method, path, headers: &[(&str, &str)]| Call { port: hub.port, method, path, headers, body: None }.send();
    for path in ["/api/v1/resources", "/api/v1/nothing", "/api/v1", "/api/v1/openapi.json"] {
        let answer = bare("GET", path, &[("Origin", "https://elsewhere.example")]).status(401);
        assert_eq!(answer.json()["error"], "unauthorized");
        assert!(answer.json()["error_description"].as_str().is_some_and(|text| text.contains("token")));
        assert!(answer.header("www-authenticate").is_some_and(|text| text.starts_with("Bearer")), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{answer:?}");
        assert!(answer.header("set-cookie").is_none());
    }
    let wrong = bare("GET", "/api/v1/resources", &[("Authorization", "Bearer not.a.token")]).status(401);
    assert!(wrong.header("www-authenticate").is_some_and(|text| text.contains("invalid_token")), "{wrong:?}");
    assert!(!wrong.text().contains("not.a.token"));
    let stranger = minted(&hub.stage, "a:b");
    hub.call(&stranger, "GET", "/resources", None).status(403);
    let refused = hub.call(&stranger, "POST", "/reconcile", None).status(403);
    assert_eq!(refused.json()["error"], "insufficient_scope");
    let challenge = refused.header("www-authenticate").unwrap_or_default();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("parachute:host:admin"), "{challenge}");
    let mut last = bare("GET", "/api/v1/resources", &[]);
    for _ in 0..100 {
        if last.status == 429 {
            break;
        }
        last = bare("GET", "/api/v1/resources", &[]);
    }
    assert_eq!(last.status, 429);
    assert!(last.header("retry-after").and_then(|text| text.parse::<u32>().ok()).is_some_and(|seconds| seconds > 0));
    hub.get("/resources").status(200);
}

#[test]
fn resources_are_listed_and_described() {
    let stage = Stage::new();
    stage.mailbox("box", free_port(), "");
    stage.write("bad.yaml", "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: bad }\nspec: { comand: [x] }\n");
    let hub = Hub::start(stage);
    wait_until("the mailbox", || hub.resource("box").is_some_and(|r| ready(&r)));
    let list = hub.get("/resources").status(200).json();
    assert!(list["version"].is_string() && list["at"].is_string(), "{list}");
    assert!(list["problems"].as_array().is_some_and(|all| all.iter().any(|p| p["code"] == "E0102")), "{list}");
    let names = |path: &str| -> Vec<String> {
        let list = hub.get(path).status(200).json();
        let all = list["resources"].as_array().expect("a list").iter();
        all.map(|r| r["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names("/resources?kind=Service&ready=true"), ["box"]);
    assert_eq!(names("/resources?kind=Service&ready=false"), ["bad"]);
    assert_eq!(names("/resources?kind=Hub"), ["home"]);

    let one = hub.get("/resources/Service/box").status(200).json();
    assert_eq!(one["resource"]["name"], "box");
    assert!(one["spec"]["command"].is_array() && one["events"].as_array().is_some_and(|all| !all.is_empty()), "{one}");
    let command = hub.stage.run(&["describe", "Service/box", "-o", "json"]).code(0).typed("description").remove(0);
    let fields = |value: &Value| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
    assert_eq!(fields(&one), fields(&command).into_iter().filter(|f| f != "type").collect::<Vec<_>>());

    let near = hub.get("/resources/Service/bx").status(404).json();
    assert!(near["error_description"].as_str().is_some_and(|text| text.contains("Service/box")), "{near}");
    hub.get("/resources/Servce/box").status(404);
    let typo = hub.get("/resources?knd=Service").status(400).json();
    assert_eq!(typo["error"], "unknown_parameter");
    assert!(typo["error_description"].as_str().is_some_and(|text| text.contains("'kind'")), "{typo}");
    hub.get("/resources?kind=Nothing").status(400);
    hub.get("/resources?ready=true&ready=true").status(400);
    assert_eq!(hub.get("/nothing").status(404).json()["error"], "not_found");
    let wrong = hub.call(&hub.admin, "DELETE", "/resources", None).status(405);
    assert!(wrong.header("allow").is_some_and(|text| text.contains("GET")), "{wrong:?}");
    assert_eq!(wrong.json()["error"], "method_not_allowed");
    let document = hub.get("/openapi.json").status(200).json();
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn a_plan_says_what_would_be_done_and_reconcile_does_it() {
    let hub = Hub::start(Stage::new());
    let plan = hub.post("/plan", Some(&json!({}))).status(200).json();
    assert_eq!(plan["conclusion"]["exit"], "done");
    assert_eq!(plan["conclusion"]["summary"]["planned"], 0, "{plan}");
    let port = free_port();
    hub.stage.mailbox("box", port, "");
    let done = hub.post("/reconcile?wait=60s", None).status(200);
    let location = done.header("location").expect("a location").to_owned();
    let done = done.json();
    assert_eq!(done["status"], "succeeded", "{done}");
    assert_eq!(done["verb"], "reconcile");
    assert!(listens(port));
    let again = hub.get(location.strip_prefix("/api/v1").expect("below the API")).status(200).json();
    assert_eq!(again, done);
    let list = hub.get("/operations?limit=1").status(200).json();
    assert_eq!(list["operations"][0]["id"], done["id"]);
    assert!(list["operations"][0].get("lines").is_none());
    hub.get("/operations/none").status(404);

    assert_eq!(hub.post("/plan", Some(&json!({ "alowPrune": 1 }))).status(422).json()["error"], "invalid_body");
    let bearer = format!("Bearer {}", hub.admin);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain")];
    let plain = Call { port: hub.port, method: "POST", path: "/api/v1/plan", headers: &headers, body: Some(b"{}") };
    plain.send().status(415);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let large = vec![b' '; 100_000];
    let large = Call { port: hub.port, method: "POST", path: "/api/v1/plan", headers: &headers, body: Some(&large) };
    large.send().status(413);
    let broken = Call { port: hub.port, method: "POST", path: "/api/v1/plan", headers: &headers, body: Some(b"{") };
    assert_eq!(broken.send().status(400).json()["error"], "invalid_json");
}

#[test]
fn services_are_stopped_started_and_restarted() {
    let stage = Stage::new();
    let port = free_port();
    stage.mailbox("box", port, "");
    let hub = Hub::start(stage);
    wait_until("the mailbox", || hub.resource("box").is_some_and(|r| ready(&r)));
    let pid = hub.resource("box").and_then(|r| r["pid"].as_u64()).expect("a process");

    let stopped = hub.post("/services/box/stop?wait=60s", Some(&json!({ "for": "10m", "reason": "disk swap" })));
    let stopped = stopped.status(200).json();
    assert_eq!((&stopped["status"], &stopped["verb"]), (&json!("succeeded"), &json!("stop")), "{stopped}");
    assert!(!alive(pid) && !listens(port));
    wait_until("the board", || hub.resource("box").is_some_and(|r| r["pause"]["reason"] == "disk swap"));

    let started = hub.post("/services/box/start?wait=60s", None).status(200).json();
    assert_eq!(started["status"], "succeeded", "{started}");
    wait_until("the mailbox", || hub.resource("box").is_some_and(|r| ready(&r)));
    let pid = hub.resource("box").and_then(|r| r["pid"].as_u64()).expect("a process");

    let begun = hub.post("/services/box/restart", None);
    assert!([200, 202].contains(&begun.status), "{begun:?}");
    let id = begun.json()["id"].as_str().expect("an id").to_owned();
    wait_until("the restart", || hub.get(&format!("/operations/{id}")).status(200).json()["status"] == "succeeded");
    assert!(!alive(pid) && listens(port));

    hub.post("/services/bx/restart", None).status(404);
    hub.post("/services/home/restart", None).status(404);
    assert_eq!(
        hub.post("/services/box/stop", Some(&json!({ "for": "8d" }))).status(422).json()["error"],
        "invalid_body"
    );
    hub.post("/services/box/restart?wait=1h", None).status(400);
    hub.post("/services/box/restart?wait=soon", None).status(400);
}

#[test]
fn resources_are_watched_as_they_change() {
    let stage = Stage::new();
    stage.mailbox("box", free_port(), "");
    let hub = Hub::start(stage);
    wait_until("the mailbox", || hub.resource("box").is_some_and(|r| ready(&r)));
    let mut watch = hub.stream("/watch?kind=Service", &[]);
    assert_eq!(watch.status, 200);
    assert!(watch.headers.iter().any(|(name, value)| name == "content-type" && value == "text/event-stream"));
    let (name, first, snapshot) = watch.event().expect("a snapshot");
    assert_eq!((name.as_str(), snapshot["resources"][0]["name"].as_str()), ("snapshot", Some("box")));
    assert_eq!(snapshot["version"], first.as_str());

    hub.stage.mailbox("other", free_port(), "");
    let mut version = String::new();
    loop {
        let (name, id, line) = watch.event().expect("a change");
        assert_eq!(name, "changed");
        if !id.is_empty() {
            version = id;
        }
        if line["name"] == "other" && ready(&line) {
            break;
        }
    }
    assert!(!version.is_empty() && version != first);
    std::fs::remove_file(hub.stage.tree("other.yaml")).expect("removed");
    loop {
        let (name, _, line) = watch.event().expect("a change");
        if name == "removed" {
            assert_eq!(line, json!({ "kind": "Service", "name": "other" }));
            break;
        }
    }

    // What changes between the two calls is missed, and leads to a snapshot: then it is tried once more.
    let mut tries = 0;
    wait_until("no second snapshot, since nothing was missed", || {
        tries += 1;
        let version = hub.get("/resources").status(200).json()["version"].as_str().unwrap_or_default().to_owned();
        let mut again = hub.stream("/watch", &[("Last-Event-ID", &version)]);
        hub.stage.mailbox(&format!("third-{tries}"), free_port(), "");
        again.event().expect("a change").0 == "changed"
    });
    let mut late = hub.stream("/watch", &[("Last-Event-ID", "another-1")]);
    assert_eq!(late.event().expect("a snapshot").0, "snapshot");

    hub.stage.run(&["down"]).code(0);
    let last = std::iter::from_fn(|| late.event()).last();
    assert_eq!(last.map(|(name, _, _)| name).as_deref(), Some("end"), "it says why it ends");
}

#[test]
fn events_and_output_are_read_and_followed() {
    let stage = Stage::new();
    stage.write("talk.yaml", &shell("talk", "echo one; echo two; exec sleep 1000", ""));
    let hub = Hub::start(stage);
    let lines = || hub.get("/services/talk/logs?tail=10").json();
    wait_until("its output", || lines()["lines"].as_array().is_some_and(|all| all.len() >= 2));
    let texts: Vec<Value> = lines()["lines"].as_array().expect("lines").iter().map(|l| l["text"].clone()).collect();
    assert_eq!(texts, ["one", "two"]);
    let last = hub.get("/services/talk/logs?tail=1").status(200).json();
    assert_eq!(last["lines"][0]["text"], "two");
    let mut plain = hub.stream("/services/talk/logs?follow=true&tail=1", &[]);
    assert_eq!(plain.line().as_deref(), Some("two"));
    let mut events = hub.stream("/services/talk/logs?follow=true&tail=2", &[("Accept", "text/event-stream")]);
    assert_eq!(events.event().expect("a line").2["text"], "one");
    hub.get("/services/tolk/logs").status(404);
    hub.get("/services/Not_A_Name/logs").status(404);
    hub.get("/services/talk/logs?tail=0").status(400);

    let list = hub.get("/events?resource=Service/talk").status(200).json();
    let events = list["events"].as_array().expect("events").clone();
    assert!(!events.is_empty() && events.iter().all(|e| e["resource"] == "Service/talk"), "{list}");
    let next = list["next"].as_u64().expect("a number");
    assert_eq!(hub.get(&format!("/events?after={next}&resource=Service/talk")).json()["events"], json!([]));
    let mut follow = hub.stream("/events?follow=true&resource=Service/talk", &[("Last-Event-ID", &next.to_string())]);
    hub.post("/services/talk/restart?wait=60s", None).status(200);
    let (name, id, event) = follow.event().expect("an event");
    assert_eq!((name.as_str(), event["seq"].to_string()), ("event", id));
    assert!(event["seq"].as_u64() > Some(next));
    hub.get("/events?limit=1001").status(400);
    hub.get("/events?after=99999999999999999999").status(400);
    hub.get("/events?resource=vault").status(400);
}

/// A tree with a folder that holds blobs.
fn storage(stage: &Stage) {
    stage.write(
        "storage.yaml",
        "apiVersion: trueup/v1\nkind: StorageBackend\nmetadata: { name: disk }\nspec: { fs: { path: ../blobs } }\n---\n\
         apiVersion: trueup/v1\nkind: Storage\nmetadata: { name: main }\nspec: { activeBackend: disk }\n",
    );
}

/// Any bytes, which do not repeat soon.
fn bytes(count: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn blobs_are_stored_read_in_part_and_removed() {
    let stage = Stage::new();
    storage(&stage);
    let hub = Hub::start(stage);
    wait_until("the storage", || hub.resource("main").is_some_and(|r| ready(&r)));
    let large = bytes(5_000_000);
    let key = Integrity::of(&Sha256::of(&large)).to_string();
    let path = format!("/api/v1/blobs/{}", key.replace('/', "%2F").replace('+', "%2B"));
    let (admin, reader) = (format!("Bearer {}", hub.admin), format!("Bearer {}", hub.reader));
    let send = |token: &str, method, more: &[(&str, &str)], body: Option<&[u8]>| {
        let headers = [&[("Authorization", token)], more].concat();
        Call { port: hub.port, method, path: &path, headers: &headers, body }.send()
    };
    send(&reader, "GET", &[], None).status(404);
    send(&reader, "HEAD", &[], None).status(404);
    let stored = send(&admin, "PUT", &[], Some(&large)).status(201).json();
    assert_eq!(
        (&stored["outcome"], &stored["key"], &stored["size"]),
        (&json!("stored"), &json!(key), &json!(5_000_000))
    );
    assert_eq!(send(&admin, "PUT", &[], Some(&large)).status(200).json()["outcome"], "known");
    assert_eq!(send(&admin, "PUT", &[], Some(b"other")).status(409).json()["error"], "other_bytes");

    let head = send(&reader, "HEAD", &[], None).status(200);
    assert_eq!((head.header("content-length"), head.body.len()), (Some("5000000"), 0));
    let whole = send(&reader, "GET", &[], None).status(200);
    assert!(whole.body == large && whole.header("accept-ranges") == Some("bytes"));
    let part = send(&reader, "GET", &[("Range", "bytes=100-199")], None).status(206);
    assert_eq!(part.header("content-range"), Some("bytes 100-199/5000000"));
    assert_eq!(part.body, large[100..200]);
    assert_eq!(send(&reader, "GET", &[("Range", "bytes=-7")], None).status(206).body, large[large.len() - 7..]);
    assert_eq!(send(&reader, "GET", &[("Range", "bytes=0-1,5-6")], None).status(200).body.len(), large.len());
    let none = send(&reader, "GET", &[("Range", "bytes=5000000-")], None).status(416);
    assert_eq!(none.header("content-range"), Some("bytes */5000000"));
    let etag = head.header("etag").expect("a tag").to_owned();
    send(&reader, "GET", &[("Range", "bytes=0-0"), ("If-Range", &etag)], None).status(206);
    send(&reader, "GET", &[("Range", "bytes=0-0"), ("If-Range", "\"another\"")], None).status(200);

    let list = hub.get("/blobs?limit=1").status(200).json();
    assert_eq!((&list["blobs"][0]["key"], list.get("next")), (&json!(key), None));
    hub.get("/blobs/nothing").status(400);
    // Half of a body is not a blob.
    let half = Integrity::of(&Sha256::of(b"half")).to_string().replace('/', "%2F").replace('+', "%2B");
    let mut broken = std::net::TcpStream::connect(("127.0.0.1", hub.port)).expect("the hub listens");
    let text = format!(
        "PUT /api/v1/blobs/{half} HTTP/1.1\r\nHost: x\r\nAuthorization: {admin}\r\nContent-Length: 4\r\n\r\nha"
    );
    std::io::Write::write_all(&mut broken, text.as_bytes()).expect("it listens");
    drop(broken);
    assert_eq!(send(&admin, "DELETE", &[], None).status(200).json()["key"], key.as_str());
    send(&admin, "DELETE", &[], None).status(404);
    assert_eq!(hub.get("/blobs").status(200).json(), json!({ "blobs": [] }));
}

#[test]
fn without_a_storage_no_blob_is_stored() {
    let hub = Hub::start(Stage::new());
    let key = Integrity::of(&Sha256::of(b"any")).to_string().replace('/', "%2F").replace('+', "%2B");
    let (bearer, path) = (format!("Bearer {}", hub.admin), format!("/api/v1/blobs/{key}"));
    let headers = [("Authorization", bearer.as_str())];
    let put = Call { port: hub.port, method: "PUT", path: &path, headers: &headers, body: Some(b"any") }.send();
    assert_eq!(put.status(409).json()["error"], "no_storage");
    assert_eq!(hub.get("/blobs").status(200).json(), json!({ "blobs": [] }));
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let hub = Hub::start(Stage::new());
    let minted = hub.post("/tokens", Some(&json!({ "scope": "a:b", "audience": "hub", "expires_in": 3600 })));
    let minted = minted.status(201).json();
    let (jti, token) = (minted["jti"].as_str().expect("an id"), minted["token"].as_str().expect("a token"));
    let list = hub.get("/tokens?revoked=false").status(200);
    assert!(list.text().contains(jti) && !list.text().contains(token));
    assert_eq!(hub.get(&format!("/tokens/{jti}")).status(200).json()["scopes"], json!(["a:b"]));
    hub.call(token, "GET", "/tokens", None).status(403);
    let path = format!("/tokens/{jti}");
    let revoked = hub.call(&hub.admin, "DELETE", &path, None).status(200).json();
    assert_eq!(revoked["jti"], jti);
    assert_eq!(hub.call(&hub.admin, "DELETE", &path, None).status(200).json(), revoked, "again changes nothing");
    hub.call(token, "GET", "/tokens", None).status(401);
    hub.get("/tokens/none").status(404);
    let governing = json!({ "scope": "parachute:host:admin" });
    assert_eq!(hub.post("/tokens", Some(&governing)).status(400).json()["error"], "invalid_scope");
    assert_eq!(hub.post("/tokens", Some(&json!({ "scop": "a:b" }))).status(422).json()["error"], "invalid_body");
    hub.get("/tokens?created_via=magic").status(400);
}
