//! Stories of the proxy with a real daemon and real modules: what a module gets, what a client gets, and what is never lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use crate::hub_stage::{Reply, get, send};
use crate::proxy_stage::{Raw, Room, echo, peak, sockets_to, status};
use crate::stage::{alive, free_port, wait_until};

fn ask(hub: u16, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(hub, request.body(Full::default()).expect("a request")).expect("an answer")
}

/// All values of a header that the module got.
fn got(answer: &Value, name: &str) -> Vec<String> {
    let pairs = answer["headers"].as_array().expect("headers");
    pairs.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().expect("text").to_owned()).collect()
}

#[test]
fn a_module_gets_what_is_true_and_not_what_a_client_claims() {
    let room = Room::usual();
    let answer = ask(
        room.hub,
        "/echo/ask/a%2Fb?x=1&y=%2e",
        &[
            ("accept-encoding", "br"),
            ("x-parachute-layer", "tailnet"),
            ("x-parachute-client-ip", "192.0.2.66"),
            ("connection", "keep-alive, x-drop"),
            ("x-drop", "1"),
            ("te", "trailers"),
            ("authorization", "Bearer abc"),
            ("x-request-id", "mine-1"),
        ],
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let body = answer.json();
    assert_eq!(body["target"], "/echo/ask/a%2Fb?x=1&y=%2e");
    let cases = [
        ("accept-encoding", "identity".to_owned()),
        ("x-parachute-layer", "loopback".to_owned()),
        ("x-parachute-client-ip", "127.0.0.1".to_owned()),
        ("x-forwarded-host", format!("127.0.0.1:{}", room.hub)),
        ("x-forwarded-proto", "http".to_owned()),
        ("host", format!("127.0.0.1:{}", room.port)),
        ("authorization", "Bearer abc".to_owned()),
        ("x-request-id", "mine-1".to_owned()),
    ];
    for (name, wanted) in cases {
        assert_eq!(got(&body, name), [wanted], "{name}");
    }
    for name in ["x-drop", "te", "connection", "upgrade", "transfer-encoding"] {
        assert_eq!(got(&body, name), [""; 0], "{name}");
    }
    let forged = ask(room.hub, "/echo/ask", &[("x-forwarded-for", "192.0.2.1, 10.0.0.1")]).json();
    assert_eq!(got(&forged, "x-parachute-layer"), ["public"]);
    assert_eq!(got(&forged, "x-parachute-client-ip"), ["192.0.2.1"]);
    let page = ask(room.hub, "/echo/page", &[]);
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert!(page.header("content-security-policy").contains("frame-ancestors 'self'"));
    assert_eq!(ask(room.hub, "/nowhere", &[]).json()["error"], "not_found");
    let lost = ask(room.hub, "/nowhere", &[("accept", "text/html,*/*")]);
    assert_eq!((lost.status, lost.header("content-type")), (404, "text/html; charset=utf-8"));
}

#[test]
fn mounts_that_are_not_for_everybody_are_not() {
    let room = Room::usual();
    let (near, shut) = (free_port(), free_port());
    let route = "[ { path: /echo/ask/near, exposure: loopback } ]";
    room.stage.write("near.yaml", &echo("near", near, route, ""));
    room.stage.write("shut.yaml", &echo("shut", shut, "[ { path: /shut, exposure: auth-required } ]", ""));
    wait_until("both", || room.stage.is_ready("near") && room.stage.is_ready("shut"));
    let from = [("x-forwarded-for", "192.0.2.1")];
    wait_until("the mount", || ask(room.hub, "/echo/ask/near", &from).status == 404);
    assert_eq!(ask(room.hub, "/echo/ask/near", &[]).status, 200);
    let hidden = ask(room.hub, "/echo/ask/near", &from);
    assert_eq!(hidden.text(), ask(room.hub, "/nowhere", &from).text(), "as if there were nothing");
    let spellings = [
        "/echo/ask/%6eear",
        "/echo/ask%2fnear",
        "/echo/ask//near",
        "/echo/ask/NEAR",
        "/echo/ask/x/../near",
        "/echo/ask/near;a",
    ];
    for path in spellings {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\nconnection: close\r\n\r\n");
        let answer = Raw::open(room.hub).say(request).all();
        assert_eq!(status(&answer), "400", "{path}: {answer}");
    }
    let refused = ask(room.hub, "/shut/x", &[]);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer realm=\"trueup\""));
    assert_ne!(ask(room.hub, "/shut/x", &[("authorization", "Bearer nonsense")]).status, 200);
}

#[test]
fn bodies_of_any_size_pass_in_little_memory() {
    let room = Room::usual();
    let daemon = room.daemon.0.id();
    let size = 1_u64 << 30;
    let mut upload = Raw::open(room.hub);
    let head = format!("POST /echo/count HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n");
    upload.0.write_all(head.as_bytes()).expect("sent");
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..size >> 20 {
        upload.0.write_all(&chunk).expect("sent");
    }
    let answer = upload.all();
    assert!(answer.ends_with(&format!("{{\"bytes\":{size}}}")), "{answer}");
    let request = format!("GET /echo/bytes/{size} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut download = Raw::open(room.hub).say(request);
    let head = download.until("\r\n\r\n");
    assert!(head.contains(&format!("content-length: {size}")), "{head}");
    let (mut received, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match download.0.read(&mut buffer).expect("more") {
            0 => break,
            count => received += count as u64,
        }
    }
    assert_eq!(received, size);
    let peak = peak(daemon);
    assert!(peak < 128, "{peak} MiB");
}

#[test]
fn an_answer_streams_and_a_client_that_leaves_is_told_to_the_module() {
    let room = Room::usual();
    let mut stream = Raw::open(room.hub).say("GET /echo/drip/1000000/20 HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.until("line 3\n");
    drop(stream);
    wait_until("the module to notice the end of the stream", || room.seen("left") == 1);
    let slow = Raw::open(room.hub).say("GET /echo/slow/600000 HTTP/1.1\r\nhost: x\r\n\r\n");
    wait_until("the module to have it", || room.seen("begun") == 1);
    drop(slow);
    wait_until("the module to notice that nobody waits", || room.seen("left") == 2);
    let begun = Raw::open(room.hub).say("POST /echo/count HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\nabc");
    wait_until("the body to have begun", || room.seen("bytes") == 3);
    drop(begun);
    let again = Raw::open(room.hub)
        .say("POST /echo/count HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    wait_until("the other body to have begun", || room.seen("bytes") == 6);
    drop(again);
    let listed = get(room.hub, "/echo/seen").expect("an answer").json();
    assert_eq!(listed["requests"], 0, "a body that broke off is not taken for a whole one: {listed}");
}

#[test]
fn a_module_that_dies_in_the_middle_is_never_taken_for_a_whole_answer() {
    let room = Room::usual();
    let answer = Raw::open(room.hub).say("GET /echo/cut/5000 HTTP/1.1\r\nhost: x\r\n\r\n").all();
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("xxxxx") && !answer.ends_with("0\r\n\r\n"), "the end of the chunks is missing");
    let before = room.stage.pid("echo");
    let answer =
        send(room.hub, Request::post("/echo/die").body(Full::default()).expect("a request")).expect("an answer");
    assert_eq!(answer.status, 502);
    let body = answer.json();
    assert_eq!((&body["error"], &body["service"]), (&json!("upstream_unreachable"), &json!("echo")));
    assert_eq!(body["commands"], json!(["trueup describe Service/echo", "trueup logs echo"]));
    assert_eq!(answer.header("retry-after"), "");
    // It is started again by its keeper; whoever asks meanwhile waits.
    let next = ask(room.hub, "/echo/ask", &[]);
    assert_eq!(next.status, 200, "{}", next.text());
    assert!(!alive(before));
}

#[test]
fn who_does_not_run_is_said_and_who_starts_is_waited_for() {
    let room = Room::usual();
    room.stage.run(&["stop", "echo"]).code(0);
    let gone = ask(room.hub, "/echo/ask", &[]);
    assert_eq!((gone.status, &gone.json()["error_type"]), (502, &json!("upstream_unreachable")));
    assert_eq!(gone.json()["admin_url"], "/admin/modules");
    let page = ask(room.hub, "/echo/ask", &[("accept", "text/html")]);
    assert_eq!((page.status, page.header("content-type")), (502, "text/html; charset=utf-8"));
    assert!(page.text().contains("trueup describe Service/echo"), "{}", page.text());
    assert!(!page.text().contains("refresh"));
    let late = free_port();
    let slow = echo("late", late, "[ { path: /late } ]", "").replace("--row,", "--listen-after, '1500', --row,");
    room.stage.write("late.yaml", &slow);
    wait_until("the mount", || ask(room.hub, "/late", &[]).status == 404 && room.stage.is_ready("late"));
    let never = echo("never", free_port(), "[ { path: /never } ]", "");
    room.stage.write("never.yaml", &never.replace("--row,", "--listen-after, '600000', --row,"));
    wait_until("the service", || room.stage.run(&["get", "Service/never"]).out.contains("never"));
    let request = "GET /never/x HTTP/1.1\r\nhost: x\r\naccept: text/html\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    // Before the mount is known there is nothing there; afterwards the request waits.
    wait_until("the mount", || {
        answer = Raw::open(room.hub).say(request).all();
        status(&answer) != "404"
    });
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("retry-after: 2"), "{answer}");
    assert!(answer.contains("http-equiv=\"refresh\""));
}

#[test]
fn many_requests_take_few_connections() {
    let room = Room::usual();
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut client = Raw::open(room.hub);
                for _ in 0..20 {
                    client = client.say("GET /echo/ask HTTP/1.1\r\nhost: x\r\n\r\n");
                    client.until("}");
                }
            });
        }
    });
    let sockets = sockets_to(room.port);
    let all: usize = sockets.values().sum();
    assert!(all <= 220, "of 2000 requests: {sockets:?}");
    // A client that closes after every request costs the module no connection either.
    for _ in 0..50 {
        Raw::open(room.hub).say("GET /echo/ask HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").all();
    }
    let after: usize = sockets_to(room.port).values().sum();
    assert!(after <= all + 10, "{sockets:?}, then {:?}", sockets_to(room.port));
}

/// Asks without a pause until it is told to stop; says what went wrong.
fn load(hub: u16, post: bool, done: &AtomicBool, answered: &AtomicU64, lost: &Mutex<Vec<String>>) {
    let mut connection: Option<TcpStream> = None;
    let mut number = 0_u64;
    while !done.load(Ordering::SeqCst) {
        number += 1;
        let word = format!("word-{number}");
        let request = match post {
            true => format!("POST /echo/body HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{word}", word.len()),
            false => format!("GET /echo/ask/{word} HTTP/1.1\r\nhost: x\r\n\r\n"),
        };
        let mut client = Raw(connection.take().unwrap_or_else(|| Raw::open(hub).0)).say(request);
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        let whole = loop {
            match client.0.read(&mut buffer) {
                Ok(0) | Err(_) => break false,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
            }
            let so_far = String::from_utf8_lossy(&text);
            let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let chunked = head.contains("transfer-encoding: chunked") && body.ends_with("0\r\n\r\n");
            if chunked || length.is_some_and(|length| body.len() >= length) {
                break head.starts_with("HTTP/1.1 200") && body.contains(&word);
            }
        };
        match whole {
            true => {
                answered.fetch_add(1, Ordering::SeqCst);
                connection = Some(client.0);
            }
            false => lost.lock().expect("a list").push(format!("{word}: {}", String::from_utf8_lossy(&text))),
        }
    }
}

#[test]
fn no_request_is_lost_while_a_module_that_hands_its_socket_over_is_restarted() {
    let room = Room::new("[ { path: /echo } ]", "  passSocket: true\n");
    let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let lost = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for post in [false, true, false, true] {
            let (done, answered, lost) = (&done, &answered, &lost);
            scope.spawn(move || load(room.hub, post, done, answered, lost));
        }
        for _ in 0..5 {
            let before = (room.stage.pid("echo"), answered.load(Ordering::SeqCst));
            let result = room.stage.run(&["restart", "echo"]);
            assert_eq!(result.code, 0, "{}", result.err);
            assert_ne!(room.stage.pid("echo"), before.0);
            wait_until("more answers", || {
                answered.load(Ordering::SeqCst) > before.1 + 50 || !lost.lock().expect("a list").is_empty()
            });
        }
        done.store(true, Ordering::SeqCst);
    });
    let lost = lost.into_inner().expect("a list");
    assert!(lost.is_empty(), "{} of {}: {lost:#?}", lost.len(), answered.load(Ordering::SeqCst));
}

#[test]
fn the_daemon_ends_after_what_is_under_way() {
    let mut room = Room::usual();
    let answer = Arc::new(Mutex::new(None));
    let (hub, told) = (room.hub, answer.clone());
    let asking = std::thread::spawn(move || {
        *told.lock().expect("a place") = Some(get(hub, "/echo/slow/1500"));
    });
    wait_until("the request to be under way", || !sockets_to(room.port).is_empty());
    crate::stage::kill(u64::from(room.daemon.0.id()), "INT");
    wait_until("the end", || room.daemon.0.try_wait().expect("its status").is_some());
    asking.join().expect("asked");
    let answer = answer.lock().expect("a place").take().expect("an answer").expect("a whole one");
    assert_eq!(answer.status, 200, "{:?}", Bytes::from(answer.text()));
}
