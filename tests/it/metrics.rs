//! What `/metrics` says is understood by the strict parsers of Prometheus' own client, and by `promtool` where there is one.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use crate::hub_stage::{Reply, get, send, staged};
use crate::python;
use crate::stage::{free_port, wait_until};

const PACKAGES: [&str; 1] = ["prometheus_client==0.26.0"];

/// Every sample by family, of the parser that is named.
const SCRIPT: &str = "
import json, sys
from importlib import import_module
asked = json.load(sys.stdin)
families = import_module(asked['parser']).text_string_to_metric_families(asked['text'])
print(json.dumps({f.name: {
    'type': f.type, 'help': f.documentation, 'unit': f.unit,
    'samples': [[s.name, s.labels, s.value] for s in f.samples],
} for f in families}))
";

fn scrape(port: u16, accept: &str) -> Reply {
    let request = Request::get("/metrics").header("accept", accept).body(Full::<Bytes>::default());
    let reply = send(port, request.expect("a request")).expect("an answer");
    assert_eq!(reply.status, 200);
    reply
}

fn parsed(parser: &str, text: &str) -> Option<Value> {
    let python = python::with(&PACKAGES)?;
    Some(python::ask(&python, SCRIPT, &json!({ "parser": parser, "text": text })))
}

#[test]
fn both_forms_of_the_metrics_are_parsed_by_others() {
    let (stage, port) = staged();
    stage.mailbox("one", free_port(), "");
    stage.mailbox("two", free_port(), "");
    let _daemon = stage.daemon();
    wait_until("everything", || get(port, "/readyz").is_ok_and(|answer| answer.status == 200));

    let open = scrape(port, "application/openmetrics-text; version=1.0.0");
    assert!(open.header("content-type").starts_with("application/openmetrics-text"), "{:?}", open.headers);
    let plain = scrape(port, "text/plain");
    assert!(plain.header("content-type").starts_with("text/plain"), "{:?}", plain.headers);
    lint(&plain.body);

    let Some(families) = parsed("prometheus_client.openmetrics.parser", &open.text()) else { return };
    for (name, family) in families.as_object().expect("families") {
        assert!(name.starts_with("trueup_"), "{name}");
        assert_ne!(family["type"], "unknown", "{name}");
        assert_ne!(family["help"], "", "{name}");
    }
    let value = |families: &Value, family: &str, label: &str| {
        let samples = families[family]["samples"].as_array().cloned().unwrap_or_default();
        samples.iter().filter(|s| label.is_empty() || s[1].to_string().contains(label)).find_map(|s| s[2].as_f64())
    };
    assert_eq!(value(&families, "trueup_settled", ""), Some(1.0));
    for service in ["\"one\"", "\"two\""] {
        assert_eq!(value(&families, "trueup_resource_ready", service), Some(1.0), "{families}");
        assert_eq!(value(&families, "trueup_service_restarts", service), Some(0.0), "{families}");
    }
    assert_eq!(families["trueup_tick_duration_seconds"]["unit"], "seconds");

    let Some(plain) = parsed("prometheus_client.parser", &plain.text()) else { return };
    assert_eq!(value(&plain, "trueup_settled", ""), Some(1.0), "{plain}");
    assert_eq!(plain["trueup_ticks"]["type"], "counter", "{plain}");
}

/// Passed over where there is no `promtool` (Debian has it in `prometheus`).
fn lint(text: &[u8]) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else { return };
    promtool.stdin.take().expect("a pipe").write_all(text).expect("it reads");
    let said = promtool.wait_with_output().expect("it ends");
    let complaint = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && complaint.is_empty(), "{}", String::from_utf8_lossy(&complaint));
}
