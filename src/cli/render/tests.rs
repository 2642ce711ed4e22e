//! Golden tests of the renderers: `UPDATE=1 cargo test` rewrites the texts under `tests/golden/`, and the difference is reviewed.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use serde_json::json;

use super::screen::Screen;
use super::show::Show;
use super::{describe, lines, table};
use crate::cli::args::{Color, Format};
use crate::model::condition::{Condition, ConditionStatus, ConditionType, Reason};
use crate::model::event::{Cause, Event};
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::output::{
    DependencyLine, Description, ErrorLine, Line, LogLine, OutcomeWord, ProblemLine, Related, ResourceLine, StepLine,
    Summary, WaitLine, Waiting,
};
use crate::model::problem::Severity;
use crate::model::time::Timestamp;

/// A writer whose bytes can be read afterwards.
#[derive(Clone, Default)]
pub(crate) struct Captured(Rc<RefCell<Vec<u8>>>);

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).expect("output is UTF-8")
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A screen, and what was written to its two streams.
pub(crate) fn captured() -> (Screen, Captured, Captured) {
    let (out, err) = (Captured::default(), Captured::default());
    (Screen::plain(Box::new(out.clone()), Box::new(err.clone())), out, err)
}

/// Compares with `tests/golden/NAME`, or rewrites it when UPDATE is set.
#[expect(clippy::disallowed_methods, reason = "a switch of the test itself, not of the program")]
pub(crate) fn golden(name: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, actual).expect("the golden file can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs (UPDATE=1 rewrites it):\n--- expected\n{expected}\n--- actual\n{actual}"
    );
}

pub(crate) fn service(name: &str) -> ResourceId {
    ResourceId::service(&Name::new(name).expect("a name"))
}

pub(crate) fn step(name: &str, action: &str, reason: Reason, cause: Cause, outcome: OutcomeWord) -> StepLine {
    StepLine {
        resource: service(name),
        action: action.to_owned(),
        reason,
        cause,
        detail: String::new(),
        source: format!("manifests/{name}.yaml:3:1"),
        outcome,
        message: String::new(),
        duration_ms: 12,
    }
}

pub(crate) fn wait(name: &str, reason: Reason, message: &str) -> WaitLine {
    WaitLine {
        resource: service(name),
        reason,
        message: message.to_owned(),
        source: format!("manifests/{name}.yaml:3:1"),
        doomed: false,
    }
}

pub(crate) fn resource(name: &str, ready: ConditionStatus, phase: &str) -> ResourceLine {
    ResourceLine {
        kind: KindName::Service,
        name: Name::new(name).expect("a name"),
        source: format!("manifests/{name}.yaml:3:1"),
        generation: 2,
        conditions: vec![Condition {
            kind: ConditionType::Ready,
            status: ready,
            reason: Reason::ProbeSucceeded,
            message: "GET /health answered 200".to_owned(),
            last_transition_time: Timestamp(1_795_227_387_123),
            observed_generation: 2,
        }],
        phase: phase.to_owned(),
        pid: Some(4_711),
        port: Some(1_940),
        restarts: Some(3),
        uptime_ms: Some(312_000),
        last_exit: Some("exit code 1".to_owned()),
        says: None,
        pause: None,
        next_run: None,
    }
}

fn event(seq: u64, cause: Cause, reason: Reason, message: &str) -> Event {
    let at = Timestamp(1_795_227_387_123 + i64::try_from(seq).expect("small") * 1_000);
    Event { seq, at, resource: service("vault"), reason, cause, message: message.to_owned() }
}

/// One of every line that exists, harmless and hostile.
fn every_line() -> Vec<Line> {
    let mut changed = step("vault", "restart", Reason::Changed, Cause::Intent, OutcomeWord::Changed);
    changed.detail = "env.LOG_LEVEL".to_owned();
    let mut failed = step("clerk", "spawn", Reason::Absent, Cause::Retry, OutcomeWord::Failed);
    failed.message = "no such file: \u{1b}[2J/opt/clerk\nsecond line".to_owned();
    let mut doomed = wait("mail", Reason::DependencyNotReady, "Service/clerk failed");
    doomed.doomed = true;
    vec![
        Line::Step(step("vault", "spawn", Reason::Absent, Cause::Intent, OutcomeWord::Planned)),
        Line::Step(changed),
        Line::Step(step("web", "put", Reason::RowDrifted, Cause::Drift, OutcomeWord::Changed)),
        Line::Step(step("old", "stop", Reason::NotDeclared, Cause::Intent, OutcomeWord::Changed)),
        Line::Step(step("old", "release", Reason::Gone, Cause::Intent, OutcomeWord::Already)),
        Line::Step(failed),
        Line::Wait(wait("clerk", Reason::DependencyNotReady, "Service/vault is not ready")),
        Line::Wait(doomed),
        Line::Waiting(Waiting { waits: vec![wait("vault", Reason::NotReady, "connection refused")] }),
        Line::Problem(problem(String::new())),
        Line::Problem(problem("error[E0102]: drawn\n  --> here\n".to_owned())),
        Line::Resource(resource("vault", ConditionStatus::True, "Ready")),
        Line::Event(event(1, Cause::Drift, Reason::RowDrifted, "port 1941 put back to 1940")),
        Line::Log(LogLine {
            unit: "vault".to_owned(),
            at: "2026-11-21T02:16:27.123456Z".to_owned(),
            stream: "stderr".to_owned(),
            text: "\u{1b}[31mred\u{1b}[0m".to_owned(),
        }),
        Line::Error(ErrorLine {
            code: "locked".to_owned(),
            message: "another instance holds the lock".to_owned(),
            causes: vec!["pid 7".to_owned()],
            hint: Some("wait for it".to_owned()),
        }),
        Line::Summary(Summary { resources: 3, in_sync: true, duration_ms: 4, ..Summary::default() }),
        Line::Summary(Summary {
            resources: 1,
            planned: 9,
            changed: 5,
            drift: 1,
            failed: 2,
            waiting: 3,
            held: 4,
            pruned: 6,
            overridden: 0,
            in_sync: false,
            duration_ms: 1_234,
        }),
    ]
}

fn problem(rendered: String) -> ProblemLine {
    ProblemLine {
        code: "E0201".to_owned(),
        severity: Severity::Error,
        file: "manifests/b.yaml".to_owned(),
        line: 3,
        column: 9,
        message: "Service/vault is declared twice".to_owned(),
        hint: Some("take one of them away".to_owned()),
        related: vec![Related {
            file: "manifests/a.yaml".to_owned(),
            line: 1,
            column: 1,
            message: "first here".to_owned(),
        }],
        rendered,
    }
}

fn shown(format: Format, color: Color) -> String {
    let (mut screen, out, err) = captured();
    screen.configure(format, color);
    let now = || Timestamp(0);
    let mut show = Show::new(&mut screen, &now);
    every_line().iter().for_each(|line| show.line(line));
    drop(show);
    drop(screen);
    format!("{}--- standard error\n{}", out.text(), err.text())
}

#[test]
fn lines_as_text() {
    golden("lines.txt", &shown(Format::Text, Color::Never));
}

#[test]
fn lines_in_colour() {
    let text = shown(Format::Text, Color::Always);
    assert_eq!(anstream::adapter::strip_str(&text).to_string(), shown(Format::Text, Color::Never));
    golden("lines-colour.txt", &text.replace('\u{1b}', "ESC"));
}

#[test]
fn lines_as_json_and_yaml() {
    let json = shown(Format::Json, Color::Auto);
    golden("lines.jsonl", &json);
    let mut kinds = Vec::new();
    for line in json.lines().take_while(|line| !line.starts_with("---")) {
        let parsed: Line = serde_json::from_str(line).expect("a line reads back");
        assert_eq!(serde_json::to_string(&parsed).expect("a line can be written"), line);
        kinds.push(serde_json::from_str::<serde_json::Value>(line).expect("JSON")["type"].clone());
    }
    assert_eq!(kinds.last(), Some(&json!("summary")));
    let yaml = shown(Format::Yaml, Color::Auto);
    golden("lines.yaml", &yaml);
    let documents = yaml.trim_end_matches("--- standard error\n");
    let read: Vec<serde_json::Value> = serde_yaml::from_multiple(documents).expect("YAML");
    assert_eq!(read.len(), kinds.len());
}

#[test]
fn the_summary_of_a_converged_tree_says_so() {
    let text = lines::summary(&Summary { resources: 3, in_sync: true, duration_ms: 4, ..Summary::default() });
    let plain = anstream::adapter::strip_str(&text).to_string();
    assert_eq!(plain, "3 resources: planned 0, changed 0, in sync (4ms)\n");
}

#[test]
fn a_table_of_resources() {
    let mut bare = resource("kanji", ConditionStatus::False, "漢字");
    (bare.pid, bare.port, bare.restarts, bare.uptime_ms) = (None, None, None, None);
    let mut hub = resource("home", ConditionStatus::True, "Accepted");
    hub.kind = KindName::Hub;
    let hostile = resource("evil", ConditionStatus::Unknown, "x\u{1b}[2J\ny");
    let all = [hub, resource("vault", ConditionStatus::True, "Ready"), bare, hostile];
    let text = anstream::adapter::strip_str(&table::resources(&all, Timestamp(0))).to_string();
    assert_eq!(text.lines().count(), all.len() + 1, "one line each");
    golden("table.txt", &text);
}

#[test]
fn everything_known_of_a_resource() {
    let description = Description {
        resource: resource("vault", ConditionStatus::True, "Ready"),
        spec: json!({"command": ["trueup", "demo", "vault"], "port": 1940, "env": {"LOG_LEVEL": "info"}}),
        depends_on: vec![DependencyLine {
            resource: service("db"),
            condition: "ready".to_owned(),
            met: false,
            message: "connection refused".to_owned(),
        }],
        required_by: vec![service("clerk")],
        events: vec![
            event(1, Cause::Intent, Reason::Absent, "spawned as pid 4711"),
            event(2, Cause::Drift, Reason::Stray, "stopped pid 9"),
        ],
        log: vec![LogLine {
            unit: "vault".to_owned(),
            at: "2026-11-21T02:16:27.123456Z".to_owned(),
            stream: "stdout".to_owned(),
            text: "listening on 1940".to_owned(),
        }],
    };
    golden(
        "describe.txt",
        &anstream::adapter::strip_str(&describe::text(&description, Timestamp(1_795_227_447_123))).to_string(),
    );
}

#[test]
fn a_wait_is_said_once_until_it_changes() {
    let (mut screen, out, _) = captured();
    let now = || Timestamp(0);
    let mut show = Show::new(&mut screen, &now);
    for message in ["Service/vault is not ready", "Service/vault is not ready", "Service/vault crashed"] {
        show.line(&Line::Wait(wait("clerk", Reason::DependencyNotReady, message)));
    }
    drop(show);
    let expected = "… Service/clerk waits: Service/vault is not ready\n… Service/clerk waits: Service/vault crashed\n";
    assert_eq!(out.text(), expected);
}

#[test]
fn the_waiting_set_is_printed_when_it_changes_and_not_more_than_once_a_second() {
    let (mut screen, out, _) = captured();
    let clock = std::cell::Cell::new(1_000);
    let now = || Timestamp(clock.get());
    let mut show = Show::new(&mut screen, &now);
    let set = |names: &[&str]| {
        let waits = names.iter().map(|name| wait(name, Reason::NotReady, "connection refused"));
        Line::Waiting(Waiting { waits: waits.collect() })
    };
    show.line(&set(&["a", "b", "c", "d", "e"]));
    clock.set(1_500);
    show.line(&set(&["a", "b"])); // too soon
    clock.set(2_100);
    show.line(&set(&["a", "b"]));
    clock.set(9_000);
    show.line(&set(&["a", "b"])); // nothing new
    show.line(&set(&[]));
    drop(show);
    golden("waiting.txt", &out.text());
}

#[test]
fn colours_follow_the_wish_of_the_command_line() {
    for (color, painted) in [(Color::Auto, false), (Color::Never, false), (Color::Always, true)] {
        let (mut screen, out, _) = captured();
        screen.configure(Format::Text, color);
        screen.out(&lines::step(&step("vault", "spawn", Reason::Absent, Cause::Intent, OutcomeWord::Planned)));
        screen.flush();
        assert_eq!(out.text().contains('\u{1b}'), painted, "{color:?}");
    }
}
