//! What hostile or broken clients and upstreams may do to the hub, and what comes of it: nothing for anybody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trueup::hub::Bounds;
use trueup::ports::hub::{Standing, State};

use crate::hub_stage::get;
use crate::proxy_stage::{Bare, Raw, head, pause, play, status};
use crate::stage::{free_port, wait_until};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers every request that has no body, on connections that stay open; remembers the heads.
fn listing() -> (u16, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let port = play(move |mut stream: TcpStream| {
        while let Some(head) = head(&mut stream) {
            kept.lock().expect("a list").push(head);
            let _ = stream.write_all(OK.as_bytes());
        }
    });
    (port, heads)
}

fn quick() -> Bounds {
    Bounds {
        head: Duration::from_millis(400),
        body_pause: Duration::from_millis(400),
        write_pause: Duration::from_millis(400),
        answer: Duration::from_millis(400),
        hold: Duration::from_millis(600),
        ..Bounds::default()
    }
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_not_passed_on() {
    let (port, heads) = listing();
    let hub = Bare::new(Bounds::default(), None).with("x", port, State::Ready).tell();
    let chunked = "transfer-encoding: chunked\r\n";
    let cases = [
        ("two lengths", "POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_owned()),
        ("a list of lengths", "POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 3, 4\r\n\r\nabcd".to_owned()),
        ("a signed length", "POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc".to_owned()),
        ("a huge length", "POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n".to_owned()),
        ("an unknown coding", "POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n".to_owned()),
        (
            "chunked is not last",
            "POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("a folded header", "GET /x HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n  2\r\n\r\n".to_owned()),
        (
            "a space before the colon",
            format!("POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n{chunked}\r\n0\r\n\r\n"),
        ),
        ("a nameless header", "GET /x HTTP/1.1\r\nhost: x\r\n: 1\r\n\r\n".to_owned()),
        ("a NUL", "GET /x HTTP/1.1\r\nhost: x\r\nx-a: a\0b\r\n\r\n".to_owned()),
        ("two hosts", "GET /x HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n".to_owned()),
        ("no host", "GET /x HTTP/1.1\r\n\r\n".to_owned()),
        ("no such version", "GET /x HTTP/3.9\r\nhost: x\r\n\r\n".to_owned()),
        ("a method of nonsense", "GE\x01T /x HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        ("chunked in HTTP/1.0", format!("POST /x HTTP/1.0\r\nhost: x\r\n{chunked}\r\n0\r\n\r\n")),
        ("a tunnel", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        ("a star", "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
    ];
    for (what, request) in cases {
        let answer = Raw::open(hub.hub).say(request).no_more().all();
        assert!(answer.is_empty() || status(&answer).starts_with(['4', '5']), "{what}: {answer}");
        assert!(!answer.contains("ok"), "{what}: {answer}");
        let passed = std::mem::take(&mut *heads.lock().expect("a list"));
        assert!(passed.is_empty(), "{what}: {passed:?}");
    }
    assert_eq!(get(hub.hub, "/x").expect("an answer").text(), "ok");
}

#[test]
fn a_length_beside_chunks_never_reaches_a_module() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let kept = bodies.clone();
    let port = play(move |mut stream: TcpStream| {
        let Some(head) = head(&mut stream) else { return };
        let mut body = String::new();
        let mut byte = [0];
        while !body.ends_with("0\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
            body.push(char::from(byte[0]));
        }
        kept.lock().expect("a list").push((head, body));
        let _ = stream.write_all(OK.as_bytes());
    });
    let hub = Bare::new(Bounds::default(), None).with("x", port, State::Ready).tell();
    let smuggled = "0\r\n\r\nGET /x/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let request = format!(
        "POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let answer = Raw::open(hub.hub).say(request).no_more().all();
    let seen = bodies.lock().expect("a list").clone();
    for (head, _) in &seen {
        let head = head.to_ascii_lowercase();
        assert!(!(head.contains("content-length") && head.contains("transfer-encoding")), "{head}");
    }
    assert!(!seen.iter().any(|(_, body)| body.contains("smuggled")), "{seen:?} {answer}");
}

#[test]
fn chunks_of_nonsense_are_cut_off() {
    let (port, _) = listing();
    let hub = Bare::new(Bounds::default(), None).with("x", port, State::Ready).tell();
    for size in ["fffffffffffffffff", "-1", "zz", "0x10", "1;ext=\"\n"] {
        let request =
            format!("POST /x/y HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\nabc\r\n0\r\n\r\n");
        // The upstream of this story answers before it reads; what counts is that nothing hangs and nobody else notices.
        let _ = Raw::open(hub.hub).say(request).no_more().all();
    }
    assert_eq!(get(hub.hub, "/x").expect("an answer").text(), "ok");
}

#[test]
fn heads_have_a_size() {
    let (port, heads) = listing();
    let hub = Bare::new(Bounds::default(), None).with("x", port, State::Ready).tell();
    let long = format!("GET /x HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(200 << 10));
    assert_eq!(status(&Raw::open(hub.hub).say(long).all()), "431");
    let many = format!("GET /x HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: 1\r\n".repeat(1_000));
    assert_eq!(status(&Raw::open(hub.hub).say(many).all()), "431");
    let path = format!("GET /x/{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(200 << 10));
    assert!(["414", "431"].contains(&status(&Raw::open(hub.hub).say(path).all())));
    assert!(heads.lock().expect("a list").is_empty());
}

#[test]
fn slow_clients_are_let_go_of() {
    let (port, _) = listing();
    let hub = Bare::new(quick(), None).with("x", port, State::Ready).tell();
    // Silence, half a word, half a head, and a header now and then.
    assert_eq!(Raw::open(hub.hub).all(), "");
    Raw::open(hub.hub).say("PRI").all();
    Raw::open(hub.hub).say("GET /x HTTP/1.1\r\nhost:").all();
    let mut slow = Raw::open(hub.hub).say("GET /x HTTP/1.1\r\n");
    let mut sent = 0;
    while slow.0.write_all(b"x-a: 1\r\n").is_ok() {
        sent += 1;
        assert!(sent < 200, "it may go on for ever");
        pause(Duration::from_millis(50));
    }
    // A body that stands still.
    let answer = Raw::open(hub.hub).say("POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").all();
    assert!(["200", "408"].contains(&status(&answer)), "{answer}");
    // A connection that was used and is silent now.
    assert!(Raw::open(hub.hub).say("GET /x HTTP/1.1\r\nhost: x\r\n\r\n").all().ends_with("ok"));
}

#[test]
fn a_body_that_stands_still_is_given_up_on_both_sides() {
    let gone = Arc::new(AtomicUsize::new(0));
    let counted = gone.clone();
    let port = play(move |mut stream: TcpStream| {
        if head(&mut stream).is_some() {
            while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let hub =
        Bare::new(Bounds { answer: Duration::from_secs(60), ..quick() }, None).with("x", port, State::Ready).tell();
    let answer = Raw::open(hub.hub).say("POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").all();
    assert_eq!(status(&answer), "408", "{answer}");
    wait_until("the upstream to be let go of", || gone.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_client_that_reads_nothing_is_let_go_of() {
    let gone = Arc::new(AtomicUsize::new(0));
    let counted = gone.clone();
    let port = play(move |mut stream: TcpStream| {
        if head(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let hub = Bare::new(quick(), None).with("x", port, State::Ready).tell();
    let client = Raw::open(hub.hub).say("GET /x HTTP/1.1\r\nhost: x\r\n\r\n");
    wait_until("it to be let go of", || gone.load(Ordering::SeqCst) == 1);
    drop(client);
}

#[test]
fn nobody_is_waited_for_before_it_is_known_who_it_is() {
    let hub = Bare::new(Bounds::default(), None).tell();
    for path in ["/api/auth/mint-token", "/api/auth/revoke-token", "/api/v1/plan", "/api/modules/x/upgrade"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{");
        let answer = Raw::open(hub.hub).say(head).until("\r\n\r\n");
        assert_eq!(status(&answer), "401", "{path}: {answer}");
    }
}

#[test]
fn one_client_does_not_take_all_that_a_module_can_do() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = asked.clone();
    let port = play(move |mut stream: TcpStream| {
        while head(&mut stream).is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
            // The answer begins, and does not end before the client has gone.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok");
        }
    });
    let bounds = Bounds { requests_per_client: 2, ..Bounds::default() };
    let hub = Bare::new(bounds, None).with("x", port, State::Ready).tell();
    let ask = |client: &str| {
        let forwarded = if client.is_empty() { String::new() } else { format!("x-forwarded-for: {client}\r\n") };
        let mut open = Raw::open(hub.hub).say(format!("GET /x HTTP/1.1\r\nhost: x\r\n{forwarded}\r\n"));
        let head = open.until("\r\n\r\n");
        (open, head)
    };
    let mut open: Vec<Raw> = Vec::new();
    for client in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "", "", ""] {
        let (one, head) = ask(client);
        assert_eq!(status(&head), "200", "{client}: {head}");
        open.push(one);
    }
    let (_, head) = ask("192.0.2.1");
    assert!(status(&head) == "429" && head.contains("retry-after: 2"), "{head}");
    assert_eq!(asked.load(Ordering::SeqCst), 6);
    open.remove(0);
    wait_until("room for one more", || status(&ask("192.0.2.1").1) == "200");
}

#[test]
fn half_a_preface_is_not_held_for_ever() {
    let (short, long) = (Duration::from_millis(100), Duration::from_secs(60));
    let all = Bounds { head: short, h2_idle: short, drain: short, ..Bounds::default() };
    let hub = Bare::new(all, None).tell();
    for half in ["P", "PRI", "PRI ", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        Raw::open(hub.hub).say(half).all();
    }
    // The rest may come late.
    let hub = Bare::new(Bounds { head: long, ..Bounds::default() }, None).tell();
    let client = Raw::open(hub.hub).say("PR");
    pause(Duration::from_millis(50));
    let mut frame = [0; 9];
    let mut client = client.say(b"I * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    client.0.read_exact(&mut frame).expect("settings");
    assert_eq!(frame[3], 4, "{frame:?}");
}

#[test]
fn connections_have_bounds() {
    let (port, _) = listing();
    let bounds = Bounds { connections: 3, head: Duration::from_secs(60), ..Bounds::default() };
    let hub = Bare::new(bounds, None).with("x", port, State::Ready).tell();
    let mut open = Vec::new();
    // The hub's own look at itself may have one for a moment.
    wait_until("three connections", || {
        let mut client = Raw::open(hub.hub).say("GET /x HTTP/1.1\r\nhost: x\r\n\r\n");
        let head = client.until("\r\n\r\n");
        if status(&head) == "200" {
            client.until("ok");
            open.push(client);
        }
        open.len() == 3
    });
    assert_eq!(status(&Raw::open(hub.hub).all()), "503");
    drop(open);
    wait_until("room", || get(hub.hub, "/x").is_ok_and(|answer| answer.status == 200));
}

#[test]
fn an_upstream_may_answer_nonsense() {
    let answers: [(&str, &[&str]); 10] = [
        ("nonsense\r\n\r\n", &["502"]),
        ("", &["502"]),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", &["502"]),
        ("HTTP/1.1 200 OK\r\nx-a", &["502"]),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", &["502"]),
        ("HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", &["999"]),
        ("HTTP/1.0 200 OK\r\n\r\nto the end", &["200"]),
        ("HTTP/1.1 204 No Content\r\n\r\n", &["204"]),
        ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", &["200"]),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            &["200", "502"],
        ),
    ];
    for (answer, wanted) in answers {
        let text = answer.to_owned();
        let port = play(move |mut stream: TcpStream| {
            if head(&mut stream).is_some() {
                let _ = stream.write_all(text.as_bytes());
            }
        });
        let hub = Bare::new(Bounds::default(), None).with("x", port, State::Ready).tell();
        let got = Raw::open(hub.hub).say("GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").all();
        assert!(wanted.contains(&status(&got)), "{answer:?}: {got}");
        let both = got.contains("content-length") && got.contains("transfer-encoding");
        assert!(!both, "{answer:?}: {got}");
    }
}

#[test]
fn who_never_answers_and_who_is_not_there_are_told_apart() {
    let silent = play(|mut stream: TcpStream| {
        head(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let hub = Bare::new(quick(), None)
        .with("silent", silent, State::Ready)
        .with("absent", free_port(), State::Ready)
        .with("starting", free_port(), State::Starting)
        .with("unwell", free_port(), State::Unwell)
        .with("failed", free_port(), State::Failed)
        .tell();
    let cases = [
        ("/silent", 504, "upstream_timeout"),
        ("/absent", 503, "upstream_starting"),
        ("/starting", 503, "upstream_starting"),
        ("/unwell", 502, "upstream_unreachable"),
        ("/failed", 502, "upstream_unreachable"),
    ];
    for (path, status, error) in cases {
        let answer = get(hub.hub, path).expect("an answer");
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(error)), "{}", answer.text());
        assert_eq!(answer.json()["error_type"], error);
        assert_eq!(answer.json()["service"], path[1..]);
        assert_eq!(answer.json()["reason"], "Testing");
        assert_eq!(answer.header("retry-after"), if status == 503 { "2" } else { "" }, "{path}");
        if status == 503 {
            let body = answer.json();
            assert_eq!((body["retry_after_ms"].as_u64(), body["max_attempts"].as_u64()), (Some(2_000), Some(5)));
        }
    }
}

#[test]
fn a_request_waits_for_a_module_that_becomes_ready() {
    let (port, _) = listing();
    let mut hub = Bare::new(Bounds::default(), None).with("x", port, State::Starting).tell();
    let waiting =
        Raw::open(hub.hub).say("POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    pause(Duration::from_millis(200));
    hub = hub.with("x", port, State::Ready).tell();
    assert!(waiting.all().ends_with("ok"));
    // And one that is ready, as far as is known, and listens in a moment.
    let late = free_port();
    let hub = hub.with("y", late, State::Ready).tell();
    let waiting =
        Raw::open(hub.hub).say("POST /y HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    pause(Duration::from_millis(200));
    let listener = std::net::TcpListener::bind(("127.0.0.1", late)).expect("the port");
    let (mut stream, _) = listener.accept().expect("a connection");
    head(&mut stream).expect("a head");
    stream.write_all(OK.as_bytes()).expect("answered");
    assert!(waiting.all().ends_with("ok"));
}

#[test]
fn only_what_can_happen_twice_is_sent_twice() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    // Answers the first request of every connection, and closes at the second without a word.
    let port = play(move |mut stream: TcpStream| {
        for turn in 0..2 {
            let Some(head) = head(&mut stream) else { return };
            kept.lock().expect("a list").push(head.lines().next().unwrap_or_default().to_owned());
            if turn == 0 {
                let _ = stream.write_all(OK.as_bytes());
            }
        }
    });
    let hub = Bare::new(Bounds::default(), None).with("x", port, State::Ready).tell();
    let mut client = Raw::open(hub.hub);
    let mut statuses = Vec::new();
    for request in ["GET /x/1", "GET /x/2", "POST /x/3", "POST /x/4"] {
        client = client.say(format!("{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"));
        let head = client.until("\r\n\r\n");
        statuses.push(status(&head).to_owned());
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).expect("a length");
        client.0.read_exact(&mut vec![0; length]).expect("the body");
    }
    let heads = heads.lock().expect("a list").clone();
    let count = |what: &str| heads.iter().filter(|head| head.starts_with(what)).count();
    assert_eq!(count("GET /x/2"), 2, "{heads:?}");
    assert!(statuses[..2] == ["200", "200"], "{statuses:?}");
    assert_eq!((count("POST /x/3"), count("POST /x/4")), (1, 1), "{heads:?}");
    assert!(statuses[2..].contains(&"502".to_owned()), "{statuses:?}");
}

#[test]
fn it_moves_without_a_gap_and_drains_what_it_leaves() {
    let slow = play(|mut stream: TcpStream| {
        while head(&mut stream).is_some() {
            pause(Duration::from_millis(500));
            let _ = stream.write_all(OK.as_bytes());
        }
    });
    let mut hub = Bare::new(Bounds::default(), None).with("x", slow, State::Ready).tell();
    let under_way = Raw::open(hub.hub).say("GET /x HTTP/1.1\r\nhost: x\r\n\r\n");
    pause(Duration::from_millis(100));
    let other = free_port();
    hub.wish.listen = Some(format!("127.0.0.1:{other}"));
    hub.server.tell(hub.wish.clone());
    wait_until("the new place", || hub.server.standing() == Standing::Serving(([127, 0, 0, 1], other).into()));
    assert!(under_way.all().ends_with("ok"), "answered, and then closed");
    // From everywhere to here on the same port: one is in the way of the other.
    hub.wish.listen = Some(format!("0.0.0.0:{other}"));
    hub.server.tell(hub.wish.clone());
    wait_until("everywhere", || hub.server.standing() == Standing::Serving(([0, 0, 0, 0], other).into()));
    assert_eq!(get(other, "/x").expect("an answer").status, 200);
    // A taken address does not take away the one that is served.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    hub.wish.listen = Some(taken.local_addr().expect("an address").to_string());
    hub.server.tell(hub.wish.clone());
    wait_until("the refusal", || matches!(hub.server.standing(), Standing::Refused { .. }));
    assert_eq!(get(other, "/x").expect("an answer").status, 200);
}
