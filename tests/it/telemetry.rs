//! Requests have ids, steps are told of with their resources, nothing that is told holds a secret, and traces reach a collector.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

use crate::hub_stage::{Reply, send, staged};
use crate::stage::{Stage, free_port, listens, wait_until};

const SECRETS: [&str; 2] = ["SECRET-123", "SECRET-456"];

fn ask(port: u16, path: &str, id: Option<&str>) -> Reply {
    let request = Request::get(path).header("authorization", "Bearer SECRET-123");
    let request = id.into_iter().fold(request, |request, id| request.header("x-request-id", id));
    send(port, request.body(Full::<Bytes>::default()).expect("a request")).expect("an answer")
}

/// The daemon's lines that are JSON, which with `-o json` are all of them.
fn told(stage: &Stage) -> Vec<Value> {
    let output = stage.daemon_output();
    // The last one may be half written.
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The line of a request.
fn answered(stage: &Stage, id: &str) -> Option<Value> {
    told(stage).into_iter().find(|line| line["message"] == "answered" && line["spans"][0]["request_id"] == id)
}

#[test]
fn every_answer_has_the_id_of_its_request() {
    let (stage, port) = staged();
    let _daemon = stage.daemon_with(&["-vv"]);
    wait_until("the hub", || listens(port));
    let id = |reply: &Reply| reply.header("x-request-id").to_owned();
    let [one, two] = [0, 1].map(|_| id(&ask(port, "/healthz", None)));
    assert!(!one.is_empty() && one != two, "{one} {two}");
    assert_eq!(id(&ask(port, "/healthz", Some("mine-1"))), "mine-1");
    let long = "x".repeat(65);
    for wrong in ["two words", "<b>", &long] {
        let made = id(&ask(port, "/healthz", Some(wrong)));
        assert!(!made.is_empty() && made != wrong, "{made}");
    }
    assert_eq!(id(&ask(port, "/nowhere", Some("mine-2"))), "mine-2", "also of what is not there");
    assert_eq!(id(&ask(port, "/api/v1/resources", Some("mine-3"))), "mine-3", "and of what is refused");
    wait_until("their lines", || ["mine-1", "mine-2", "mine-3"].iter().all(|id| answered(&stage, id).is_some()));
    let line = answered(&stage, "mine-1").expect("a line");
    let span = &line["spans"][0];
    assert_eq!((&line["level"], &line["status"]), (&"DEBUG".into(), &200.into()), "{line}");
    assert_eq!((&span["method"], &span["path"]), (&"GET".into(), &"/healthz".into()), "{line}");
    assert!(span["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    assert!(line["ms"].is_number(), "{line}");
}

#[test]
fn what_is_told_of_a_step_names_its_resource() {
    let (stage, _port) = staged();
    stage.mailbox("one", free_port(), "");
    let _daemon = stage.daemon_with(&["-vv"]);
    let done = || {
        told(&stage).into_iter().find(|line| {
            let names = |span: &Value| span["resource"] == "Service/one" && span["step"].is_string();
            line["message"] == "done" && line["spans"].as_array().is_some_and(|spans| spans.iter().any(names))
        })
    };
    wait_until("the step", || done().is_some());
    assert_eq!(done().expect("a line")["outcome"], "changed");
}

fn files(folder: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a type");
        // The keeper's FIFOs are no files: reading one would wait for ever.
        if kind.is_dir() {
            files(&entry.path(), out);
        } else if kind.is_file() {
            out.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap_or_default()));
        }
    }
}

fn holds_no_secret(place: &str, bytes: &[u8]) {
    for secret in SECRETS {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} stands in {place}");
    }
}

#[test]
fn no_secret_of_a_request_is_told_or_kept() {
    let (stage, port) = staged();
    stage.mailbox("one", free_port(), "");
    let daemon = stage.daemon_with(&["-vvv"]);
    wait_until("the hub", || listens(port));
    wait_until("the service", || stage.is_ready("one"));
    let paths =
        ["/healthz", "/health", "/readyz", "/api/ready", "/metrics", "/api/v1/resources", "/SECRET-123/SECRET-456"];
    for (number, path) in paths.iter().enumerate() {
        let path =
            if path.contains("SECRET") { (*path).replacen("/SECRET-123", "/nowhere", 1) } else { (*path).to_owned() };
        let id = format!("asked-{number}");
        ask(port, &format!("{path}?token=SECRET-456"), Some(&id));
        wait_until("its line", || answered(&stage, &id).is_some());
    }
    let events = stage.run(&["events", "-o", "json"]).code(0);
    holds_no_secret("the events", events.out.as_bytes());
    stage.run(&["down"]).code(0);
    drop(daemon);
    let mut all = Vec::new();
    files(stage.dir.path(), &mut all);
    assert!(all.iter().any(|(path, _)| path.ends_with("daemon.out")) && all.len() > 5, "{}", all.len());
    for (path, bytes) in all {
        holds_no_secret(&path, &bytes);
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::python;
    use crate::stage::kill;

    const PACKAGES: [&str; 2] = ["opentelemetry-proto==1.45.2", "protobuf==7.36.2"];

    const SCRIPT: &str = "
import json, sys
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
spans = []
for line in json.load(sys.stdin):
    message = ExportTraceServiceRequest.FromString(bytes.fromhex(line))
    for resource in MessageToDict(message)['resourceSpans']:
        for scope in resource['scopeSpans']:
            for span in scope['spans']:
                spans.append({'resource': resource['resource'], **span})
print(json.dumps(spans))
";

    /// What a collector was sent: the head of each request, and its body.
    type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

    /// A collector that keeps what it gets, until the test is over.
    fn collector() -> (u16, Received) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let received = Received::default();
        let all = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = receive(stream) {
                    all.lock().expect("unpoisoned").push(request);
                }
            }
        });
        (port, received)
    }

    fn receive(stream: TcpStream) -> Option<(String, Vec<u8>)> {
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
        Some((head, body))
    }

    fn spans(received: &Received) -> Option<Vec<Value>> {
        let python = python::with(&PACKAGES)?;
        let bodies: Vec<String> = received.lock().expect("unpoisoned").iter().map(|(_, body)| hex(body)).collect();
        let spans = python::ask(&python, SCRIPT, &bodies.into());
        Some(spans.as_array().expect("a list").clone())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn attribute<'a>(of: &'a Value, key: &str) -> &'a Value {
        let all = of["attributes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let value = all.iter().find(|attribute| attribute["key"] == key).map(|attribute| &attribute["value"]);
        value.and_then(|value| value.as_object()?.values().next()).unwrap_or(&Value::Null)
    }

    /// Spans that were given up, as `/metrics` says.
    fn dropped(port: u16) -> u64 {
        let text = ask(port, "/metrics", None).text();
        let line = text.lines().find(|line| line.starts_with("trueup_trace_spans_total{outcome=\"dropped\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }

    /// One request after the other, on one connection.
    fn ask_again_and_again(port: u16, times: usize) {
        let mut reader = BufReader::new(TcpStream::connect(("127.0.0.1", port)).expect("the hub"));
        for _ in 0..times {
            reader.get_mut().write_all(b"GET /api/ready HTTP/1.1\r\nhost: hub\r\n\r\n").expect("sent");
            let mut length = 0;
            loop {
                let mut line = String::new();
                assert!(reader.read_line(&mut line).expect("an answer") > 0, "the hub closed the connection");
                let line = line.trim_end().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().expect("a length");
                }
                if line.is_empty() {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length]).expect("a body");
        }
    }

    #[test]
    fn spans_of_requests_and_steps_reach_a_collector_and_hold_no_secret() {
        let (mut stage, port) = staged();
        stage.mailbox("one", free_port(), "");
        let (at, received) = collector();
        stage.env.push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), format!("http://127.0.0.1:{at}")));
        stage.env.push(("OTEL_EXPORTER_OTLP_HEADERS".into(), "authorization=Basic%20abc,x-tenant=home".into()));
        stage.env.push(("OTEL_SERVICE_NAME".into(), "trueup-at-home".into()));
        let mut daemon = stage.daemon();
        wait_until("the service", || stage.is_ready("one"));
        ask(port, "/healthz?token=SECRET-456", Some("traced-1"));
        wait_until("the first group", || !received.lock().expect("unpoisoned").is_empty());
        ask(port, "/readyz?token=SECRET-456", Some("traced-2"));
        kill(u64::from(daemon.0.id()), "TERM");
        assert_eq!(daemon.0.wait().expect("reaped").code(), Some(0), "{}", stage.daemon_output());

        for (head, body) in received.lock().expect("unpoisoned").iter() {
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert!(
                head.contains("\r\nauthorization: basic abc\r\n") && head.contains("\r\nx-tenant: home\r\n"),
                "{head}"
            );
            assert!(head.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{head}");
            holds_no_secret("a body", body);
        }
        assert!(!stage.daemon_output().contains("Basic"), "{}", stage.daemon_output());
        let Some(spans) = spans(&received) else { return };
        let named = |id: &str| spans.iter().find(|span| attribute(span, "request_id") == id);
        let request = named("traced-1").unwrap_or_else(|| panic!("{spans:#?}"));
        assert_eq!((&request["name"], &request["kind"]), (&"GET /healthz".into(), &"SPAN_KIND_SERVER".into()));
        assert_eq!(attribute(request, "url.path"), "/healthz");
        assert_eq!(attribute(request, "http.response.status_code"), "200");
        assert_eq!(attribute(&request["resource"], "service.name"), "trueup-at-home");
        assert_eq!(attribute(&request["resource"], "service.version"), env!("CARGO_PKG_VERSION"));
        assert!(named("traced-2").is_some(), "what was under way at the end: {spans:#?}");
        let step = spans.iter().find(|span| {
            span["name"] == "step"
                && attribute(span, "resource") == "Service/one"
                && attribute(span, "outcome") == "changed"
        });
        let step = step.unwrap_or_else(|| panic!("{spans:#?}"));
        let tick = spans.iter().find(|span| span["spanId"] == step["parentSpanId"]).expect("its tick");
        assert_eq!(tick["name"], "tick");
    }

    #[test]
    fn a_collector_that_is_not_there_slows_nothing_and_is_told_of_once() {
        let (mut stage, port) = staged();
        stage.mailbox("one", free_port(), "");
        let nowhere = free_port();
        let endpoint = format!("http://somebody:SECRET-123@127.0.0.1:{nowhere}");
        stage.env.push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint));
        let mut daemon = stage.daemon();
        wait_until("the service", || stage.is_ready("one"));
        let dropped = || dropped(port);
        wait_until("spans to be given up", || dropped() > 0);
        let before = dropped();
        wait_until("more of them", || dropped() > before);
        kill(u64::from(daemon.0.id()), "TERM");
        assert_eq!(daemon.0.wait().expect("reaped").code(), Some(0), "{}", stage.daemon_output());
        let output = stage.daemon_output();
        assert_eq!(output.matches("traces are not received").count(), 1, "{output}");
        assert!(output.contains(&format!("127.0.0.1:{nowhere}")), "{output}");
        holds_no_secret("the output", output.as_bytes());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "how long the end takes is what is tested")]
    fn a_collector_that_does_not_answer_does_not_hold_up_the_end() {
        let (mut stage, port) = staged();
        // It accepts, by its backlog, and says nothing.
        let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let endpoint = format!("http://127.0.0.1:{}/", silent.local_addr().expect("an address").port());
        stage.env.push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint));
        let mut daemon = stage.daemon();
        wait_until("the hub", || listens(port));
        // More than the queue and one group hold.
        ask_again_and_again(port, 3_000);
        let dropped = dropped(port);
        assert!((1..3_000).contains(&dropped), "{dropped}");
        kill(u64::from(daemon.0.id()), "TERM");
        let begun = Instant::now();
        assert_eq!(daemon.0.wait().expect("reaped").code(), Some(0), "{}", stage.daemon_output());
        // The patience of one request is ten seconds.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert!(stage.daemon_output().contains("spans were not sent"), "{}", stage.daemon_output());
    }

    #[test]
    fn what_the_environment_says_wrongly_is_told_and_nothing_is_sent() {
        let (mut stage, port) = staged();
        stage.env.push(("OTEL_EXPORTER_OTLP_ENDPOINT".into(), "not a URL".into()));
        let _daemon = stage.daemon();
        wait_until("the hub", || listens(port));
        wait_until("the warning", || stage.daemon_output().contains("no traces are sent"));
    }
}
