//! The commands against a pretend engine: exit codes, streams, and what is said.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::Path;

use clap::CommandFactory;
use serde_json::Value;

use super::args::Cli;
use super::engine::{
    Answer, Catalog, Control, Ended, EventRequest, Listing, Outcome, Place, PlanOptions, ReconcileOptions, Refusal,
    Sink, Surroundings, Wiring,
};
use super::exit::Failure;
use super::interrupt::{Cancel, CancelTrigger, Interrupts, Stop, cancel};
use super::render::tests::{captured, golden, resource, service, step, wait};
use crate::model::condition::{ConditionStatus, Reason};
use crate::model::event::Cause;
use crate::model::exit::Exit;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::output::{Description, Line, OutcomeWord, ProblemLine, ResourceLine, Summary, Waiting};
use crate::model::overriding::OverrideRequest;
use crate::model::problem::Severity;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;

/// 2026-11-21T02:10:00Z.
const NOW: i64 = 1_795_227_000_000;

/// A pretend engine: says its lines, answers its outcome, and remembers what it was told.
#[derive(Default)]
pub(super) struct Pretend {
    lines: Vec<Line>,
    outcome: Outcome,
    failure: RefCell<Option<Failure>>,
    resources: Vec<ResourceLine>,
    problems: Vec<ProblemLine>,
    unreadable: bool,
    /// Waits for the request to end, and then answers that it was cancelled.
    until_cancelled: bool,
    /// Asks for the end while it works, as a user would.
    trigger: Option<(CancelTrigger, Stop)>,
    told: RefCell<Vec<String>>,
}

impl Pretend {
    async fn work(&self, told: String, cancel: Option<&Cancel>, sink: &mut Sink<'_>) -> Result<Outcome, Failure> {
        self.told.borrow_mut().push(told);
        if let Some(failure) = self.failure.borrow_mut().take() {
            return Err(failure);
        }
        self.lines.iter().cloned().for_each(&mut *sink);
        if let Some((trigger, why)) = &self.trigger {
            trigger.stop(*why);
            tokio::task::yield_now().await;
        }
        if let (true, Some(cancel)) = (self.until_cancelled, cancel) {
            cancel.wait().await;
            return Ok(Outcome { ended: Ended::Cancelled, ..self.outcome.clone() });
        }
        Ok(self.outcome.clone())
    }
}

/// The pretend engine, borrowed for one command.
struct Face<'p>(&'p Pretend);

impl Control for Face<'_> {
    fn validate<'a>(&'a self, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome> {
        Box::pin(self.0.work("validate".to_owned(), None, sink))
    }
    fn plan<'a>(&'a self, options: &'a PlanOptions, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome> {
        Box::pin(self.0.work(format!("plan {:?}", options.allow_prune), None, sink))
    }
    fn reconcile_once<'a>(
        &'a self,
        options: &'a ReconcileOptions,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        let told = format!("once {:?} {} {}", options.allow_prune, options.timeout, options.lock_timeout);
        Box::pin(self.0.work(told, Some(cancel), sink))
    }
    fn run_daemon<'a>(
        &'a self,
        _: &'a ReconcileOptions,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        Box::pin(self.0.work("daemon".to_owned(), Some(cancel), sink))
    }
    fn get(&self) -> Answer<'_, Listing> {
        let Pretend { resources, problems, unreadable, .. } = self.0;
        let listing = Listing { resources: resources.clone(), problems: problems.clone(), unreadable: *unreadable };
        Box::pin(async { Ok(listing) })
    }
    fn catalog(&self) -> Answer<'_, Catalog> {
        let problems = self.0.problems.clone();
        Box::pin(async { Ok(Catalog { problems, ..Catalog::default() }) })
    }
    fn describe<'a>(&'a self, id: &'a ResourceId) -> Answer<'a, Description> {
        let found = self.0.resources.iter().find(|line| line.name == id.name).cloned();
        let description = found.map(|resource| Description {
            resource,
            spec: serde_json::json!({"port": 1940}),
            depends_on: Vec::new(),
            required_by: Vec::new(),
            events: Vec::new(),
            log: Vec::new(),
        });
        Box::pin(async { description.ok_or_else(|| Failure::new(Exit::Error, "gone")) })
    }
    fn events<'a>(&'a self, request: &'a EventRequest, cancel: &'a Cancel, sink: &'a mut Sink<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let told = format!("events {:?} {:?} {}", request.resource, request.since, request.limit);
            self.0.work(told, request.follow.then_some(cancel), sink).await.map(|_| ())
        })
    }
    fn restart<'a>(
        &'a self,
        names: &'a [Name],
        timeout: Millis,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        Box::pin(self.0.work(format!("restart {names:?} {timeout}"), Some(cancel), sink))
    }
    fn override_services<'a>(
        &'a self,
        request: &'a OverrideRequest,
        timeout: Millis,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        let OverrideRequest { names, wish, span, reason } = request;
        let said = format!("{} {names:?} for {span} '{reason}' {timeout}", wish.as_str());
        Box::pin(self.0.work(said, Some(cancel), sink))
    }
    fn down<'a>(&'a self, timeout: Millis, cancel: &'a Cancel, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome> {
        Box::pin(self.0.work(format!("down {timeout}"), Some(cancel), sink))
    }
}

impl Wiring for Pretend {
    fn blobs(&self, _: &Place) -> Result<Box<dyn super::engine::Blobs>, Failure> {
        Err(Failure::new(Exit::Error, "there are no blobs here"))
    }
    fn tokens(&self, _: &Place) -> Result<Box<dyn super::engine::Tokens>, Failure> {
        Err(Failure::new(Exit::Error, "there are no tokens here"))
    }
    fn letters(&self, _: &Place) -> Result<Box<dyn super::engine::Letters>, Failure> {
        Err(Failure::new(Exit::Error, "there are no events here"))
    }
    fn now(&self) -> Timestamp {
        Timestamp(NOW)
    }
    fn control<'a>(&'a self, _: &'a Place) -> Answer<'a, Box<dyn Control + 'a>> {
        let face: Box<dyn Control + 'a> = Box::new(Face(self));
        Box::pin(async { Ok(face) })
    }
    fn surroundings(&self) -> Result<Surroundings, Failure> {
        Ok(Surroundings::default())
    }
    fn keeper(&self, state: &Path, _: bool) -> Result<Exit, Failure> {
        self.told.borrow_mut().push(format!("keeper {}", state.display()));
        Ok(Exit::Done)
    }
    fn demo(&self, args: &[OsString]) -> Result<Exit, Failure> {
        self.told.borrow_mut().push(format!("demo {args:?}"));
        Ok(Exit::Done)
    }
}

/// What a command left behind.
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

fn run_with(pretend: &Pretend, words: &str, interrupts: Interrupts) -> Ran {
    let (mut screen, out, err) = captured();
    let words = ["trueup"].into_iter().chain(words.split_whitespace());
    let exit = super::run(words, pretend, &mut screen, interrupts);
    Ran { exit, out: out.text(), err: err.text() }
}

fn run(pretend: &Pretend, words: &str) -> Ran {
    let (_trigger, cancel) = cancel();
    run_with(pretend, words, Interrupts::Given(cancel))
}

fn summary(planned: usize, changed: usize, failed: usize) -> Summary {
    let in_sync = planned == changed && failed == 0;
    Summary { resources: 3, planned, changed, failed, in_sync, duration_ms: 4, ..Summary::default() }
}

fn outcome(edit: impl FnOnce(&mut Outcome)) -> Pretend {
    let mut outcome = Outcome { summary: summary(0, 0, 0), ..Outcome::default() };
    edit(&mut outcome);
    Pretend { outcome, ..Pretend::default() }
}

#[test]
fn exit_codes_mean_one_thing_and_have_an_order() {
    let refusal = || Some(Refusal { message: "9 of 12 would go".to_owned(), hint: Some("--allow-prune 9".to_owned()) });
    type Edit = Box<dyn Fn(&mut Outcome)>;
    let cases: Vec<(&str, Exit, Edit)> = vec![
        ("in sync", Exit::Done, Box::new(|_| {})),
        ("changes", Exit::Done, Box::new(|o| o.summary = summary(2, 2, 0))),
        ("under way", Exit::Done, Box::new(|o| (o.summary.waiting, o.summary.in_sync) = (1, false))),
        ("failed", Exit::Partial, Box::new(|o| o.summary = summary(2, 1, 1))),
        ("late", Exit::TimedOut, Box::new(|o| (o.ended, o.summary) = (Ended::TimedOut, summary(2, 1, 1)))),
        ("refused", Exit::Refused, Box::new(move |o| (o.refused, o.ended) = (refusal(), Ended::TimedOut))),
        ("invalid", Exit::Invalid, Box::new(move |o| (o.invalid, o.refused) = (1, refusal()))),
        ("invalid and partial", Exit::Invalid, Box::new(|o| (o.invalid, o.summary) = (2, summary(2, 1, 1)))),
        ("cancelled", Exit::Cancelled, Box::new(|o| (o.ended, o.invalid) = (Ended::Cancelled, 1))),
    ];
    for (what, expected, edit) in cases {
        for words in ["reconcile --once", "reconcile --once --detailed-exitcode -o json", "plan", "validate", "down"] {
            let ran = run(&outcome(|o| edit(o)), words);
            let detailed = words.contains("detailed") && ["changes", "under way"].contains(&what);
            assert_eq!(ran.exit, if detailed { Exit::Changes } else { expected }, "{what}: {words}");
            let why = if words.contains("json") { &ran.out } else { &ran.err };
            let said = why.contains("error: ") || why.contains(r#"{"type":"error","code":"#);
            assert_eq!(
                said,
                !matches!(ran.exit, Exit::Done | Exit::Changes),
                "{what}: {words}: every failure says why"
            );
        }
    }
}

#[test]
fn a_failure_before_any_outcome_has_its_own_code() {
    let failing = |failure| Pretend { failure: RefCell::new(Some(failure)), ..Pretend::default() };
    let ran = run(&failing(Failure::locked("pid 7 (trueup reconcile)")), "reconcile --once");
    assert_eq!(ran.exit, Exit::Locked);
    assert!(
        ran.err.starts_with("error: another instance holds the lock: pid 7 (trueup reconcile)\n  help: "),
        "{}",
        ran.err
    );
    let chain = anyhow::anyhow!("disk I/O error").context("the ledger cannot be opened");
    let ran = run(&failing(chain.into()), "plan");
    assert_eq!(ran.exit, Exit::Error);
    assert_eq!(ran.err, "error: the ledger cannot be opened\n  caused by: disk I/O error\n");
}

#[test]
fn the_last_line_for_programs_is_always_the_summary() {
    let broken = outcome(|o| o.invalid = 1);
    let locked = Pretend { failure: RefCell::new(Some(Failure::locked("pid 7"))), ..Pretend::default() };
    for (pretend, words, code) in
        [(&broken, "validate -o json", "invalid"), (&locked, "reconcile --once -o json", "locked")]
    {
        let ran = run(pretend, words);
        let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let last_two: Vec<_> =
            lines.iter().rev().take(2).map(|line| line["type"].as_str().unwrap_or_default()).collect();
        assert_eq!(last_two, ["summary", "error"], "{words}");
        assert_eq!(lines[lines.len() - 2]["code"], code);
        assert_eq!(ran.err, "", "programs read one stream");
    }
}

#[test]
fn a_whole_run_reads_well() {
    let mut failed = step("mail", "spawn", Reason::Absent, Cause::Intent, OutcomeWord::Failed);
    failed.message = "the command 'maild' was not found".to_owned();
    let pretend = Pretend {
        lines: vec![
            Line::Step(step("vault", "spawn", Reason::Absent, Cause::Intent, OutcomeWord::Changed)),
            Line::Waiting(Waiting {
                waits: vec![
                    wait("vault", Reason::NotReady, "connection refused"),
                    wait("clerk", Reason::DependencyNotReady, "Service/vault is not ready"),
                ],
            }),
            Line::Step(step("clerk", "spawn", Reason::Absent, Cause::Intent, OutcomeWord::Changed)),
            Line::Step(failed),
            Line::Summary(summary(9, 9, 9)),
        ],
        outcome: Outcome { summary: summary(3, 2, 1), ..Outcome::default() },
        ..Pretend::default()
    };
    let ran = run(&pretend, "reconcile --once");
    assert_eq!(ran.exit, Exit::Partial);
    golden("reconcile-once.txt", &format!("{}--- standard error\n{}", ran.out, ran.err));
}

#[test]
fn options_arrive() {
    let pretend = Pretend { resources: vec![resource("vault", ConditionStatus::True, "Ready")], ..Pretend::default() };
    let told = |words: &str| {
        assert_eq!(run(&pretend, words).exit, Exit::Done, "{words}");
        pretend.told.borrow_mut().pop().expect("told")
    };
    assert_eq!(told("reconcile --once"), "once None 1m 0ms");
    assert_eq!(told("reconcile --once --timeout 90s --allow-prune 4 --lock-timeout 2s"), "once Some(4) 90s 2s");
    assert_eq!(told("plan --allow-prune 7"), "plan Some(7)");
    assert_eq!(told("down --timeout 5s"), "down 5s");
    assert!(told("restart vault service/vault").starts_with("restart [Name(\"vault\")] 1m"));
    assert_eq!(told("stop vault --reason disk"), r#"stop [Name("vault")] for 1h 'disk' 1m"#);
    assert_eq!(told("start service/vault --for 10m --timeout 5s"), r#"start [Name("vault")] for 10m '' 5s"#);
    assert_eq!(told("events --since 1m -n 7"), format!("events None Some(Timestamp({})) 7", NOW - 60_000));
    assert!(told("events service/long-gone").contains("long-gone"));
    assert!(told("events vault").contains("vault"));
    assert_eq!(told("keeper --state /tmp/x"), "keeper /tmp/x");
    assert_eq!(told("demo vault --port 1 -f --help"), r#"demo ["vault", "--port", "1", "-f", "--help"]"#);
}

#[test]
fn a_wrong_command_line_is_64() {
    let pretend = Pretend::default();
    for words in [
        "",
        "lgos",
        "plan --nope",
        "reconcile --timeout 5s",
        "reconcile --once --timeout 5",
        "describe",
        "keeper",
        "get Widget/x",
        "explain service.nope",
        "explain E9999",
        "restart",
        "stop",
        "stop vault --for 8d",
        "start vault --for 0s",
        "logs --grep (",
        "schema widget",
        "-o xml plan",
    ] {
        let ran = run(&pretend, words);
        assert_eq!(ran.exit, Exit::Usage, "{words}");
        assert!(!ran.err.is_empty(), "{words}");
    }
    assert!(run(&pretend, "lgos").err.contains("'logs'"), "a similar command is suggested");
    assert_eq!(run(&pretend, "--help").exit, Exit::Done);
    assert_eq!(run(&pretend, "--version").out, format!("trueup {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(pretend.told.borrow().len(), 0, "nothing was done");
}

#[test]
fn a_request_to_end_is_handed_on_and_ends_with_8() {
    let cancelled = |words: &str, why: Stop| {
        let (trigger, cancel) = cancel();
        let pretend = Pretend { until_cancelled: true, trigger: Some((trigger, why)), ..outcome(|_| {}) };
        run_with(&pretend, words, Interrupts::Given(cancel))
    };
    for words in ["reconcile --once", "reconcile", "restart vault", "down"] {
        let (trigger, cancel) = cancel();
        let resources = vec![resource("vault", ConditionStatus::True, "Ready")];
        let trigger = Some((trigger, Stop::Interrupt));
        let pretend = Pretend { until_cancelled: true, trigger, resources, ..outcome(|_| {}) };
        let ran = run_with(&pretend, words, Interrupts::Given(cancel));
        assert_eq!(ran.exit, Exit::Cancelled, "{words}: {}", ran.err);
        assert!(ran.err.contains("Ctrl-C again stops at once"), "{}", ran.err);
        let last = if words == "reconcile" { "stopped watching; modules run on" } else { "error: cancelled" };
        assert!(ran.err.contains(last), "{}", ran.err);
        assert!(ran.out.contains("3 resources: "), "the summary is still printed");
    }
    assert_eq!(cancelled("reconcile", Stop::Terminate).exit, Exit::Done, "a service manager stops a service");
    assert_eq!(cancelled("reconcile --once", Stop::Terminate).exit, Exit::Cancelled);
    assert_eq!(cancelled("events -f", Stop::Interrupt).exit, Exit::Done, "following has no other end");
    // What only looks is dropped at once.
    let (trigger, cancel) = cancel();
    trigger.stop(Stop::Interrupt);
    let ran = run_with(&outcome(|_| {}), "get", Interrupts::Given(cancel));
    assert!(matches!(ran.exit, Exit::Done | Exit::Cancelled));
}

#[test]
fn get_filters_and_says_what_was_meant() {
    let mut hub = resource("home", ConditionStatus::True, "Accepted");
    hub.kind = KindName::Hub;
    let clerk = resource("clerk", ConditionStatus::False, "NotReady");
    let resources = vec![hub, clerk, resource("vault", ConditionStatus::True, "Ready")];
    let pretend = Pretend { resources, ..Pretend::default() };
    let names = |words: &str| {
        let ran = run(&pretend, words);
        assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
        let rows = ran.out.lines().skip(1).map(|row| row.split_whitespace().nth(1).unwrap_or_default().to_owned());
        rows.collect::<Vec<_>>()
    };
    assert_eq!(names("get"), ["home", "clerk", "vault"]);
    assert_eq!(names("get services"), ["clerk", "vault"]);
    assert_eq!(names("get vault hub"), ["home", "vault"]);
    assert_eq!(names("get service/clerk"), ["clerk"]);
    let ran = run(&pretend, "get service/valt");
    assert_eq!(ran.exit, Exit::Error);
    assert_eq!(ran.err, "error: there is no resource 'Service/valt'\n  help: did you mean 'Service/vault'?\n");
    let json = run(&pretend, "get -o json").out;
    let last: Value = serde_json::from_str(json.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((&last["type"], &last["resources"], &last["inSync"]), (&"summary".into(), &3.into(), &false.into()));
    let ran = run(&Pretend::default(), "get");
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, "", "no resources\n"));
}

#[test]
fn describe_takes_a_name_that_is_unique() {
    let mut hub = resource("vault", ConditionStatus::True, "Accepted");
    hub.kind = KindName::Hub;
    let vault = resource("vault", ConditionStatus::True, "Ready");
    let one = Pretend { resources: vec![vault.clone()], ..Pretend::default() };
    assert!(run(&one, "describe vault").out.starts_with("Resource:   Service/vault\n"));
    let two = Pretend { resources: vec![hub, vault], ..Pretend::default() };
    let ran = run(&two, "describe vault");
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("Hub/vault, Service/vault"), "{}", ran.err);
    assert_eq!(run(&two, "describe service/vault").exit, Exit::Done);
    assert_eq!(run(&two, "restart valt").exit, Exit::Error);
    assert_eq!(run(&two, "stop valt").exit, Exit::Error);
    assert!(run(&two, "stop valt").err.contains("did you mean 'Service/vault'?"));
    assert!(two.told.borrow().is_empty(), "nothing is stopped for a name that is not there");
    assert_eq!(service("vault").to_string(), "Service/vault");
}

#[test]
fn every_command_has_examples_and_every_flag_has_words() {
    let mut top = Cli::command();
    top.build();
    let checked = Cell::new(0);
    for command in std::iter::once(&top).chain(top.get_subcommands()).filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let help = command.clone().render_long_help().to_string();
        assert!(help.contains("Examples:\n"), "{name} has no examples");
        assert!(name == "demo" || command.get_about().is_some(), "{name} is not described");
        for argument in command.get_arguments() {
            let words = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!words.is_empty(), "{name}: {} is not described", argument.get_id());
            checked.set(checked.get() + 1);
        }
    }
    assert!(checked.get() > 60, "{}", checked.get());
    Cli::command().debug_assert();
}

/// Examples are words that people copy: each must at least be understood.
#[test]
fn every_example_parses() {
    let mut top = Cli::command();
    top.build();
    let mut seen = 0;
    for command in std::iter::once(&top).chain(top.get_subcommands()) {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  trueup ")) {
            let words = line.split("  ").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
            let words = words.split(" | ").next().unwrap_or_default();
            let words = words.replace("KEY", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
            let parsed = <Cli as clap::Parser>::try_parse_from(["trueup"].into_iter().chain(words.split_whitespace()));
            assert!(parsed.is_ok(), "{words}: {}", parsed.err().map(|wrong| wrong.to_string()).unwrap_or_default());
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn f_means_follow_where_logs_are_printed_and_manifests_elsewhere() {
    let parse = |words: &str| {
        let words = ["trueup"].into_iter().chain(words.split_whitespace());
        <Cli as clap::Parser>::try_parse_from(words).expect("words").global.manifests
    };
    assert_eq!(parse("plan -f here"), Path::new("here"));
    assert_eq!(parse("-f here logs -f vault"), Path::new("here"));
    assert_eq!(parse("logs -f vault --manifests here"), Path::new("here"));
    assert_eq!(parse("events -f"), Path::new("manifests"));
}

#[test]
fn the_state_stands_beside_the_manifests() {
    let place = |words: &str| {
        let words = ["trueup"].into_iter().chain(words.split_whitespace()).chain(["plan"]);
        super::place(&<Cli as clap::Parser>::try_parse_from(words).expect("words").global).expect("a place").state
    };
    let here = std::env::current_dir().expect("a folder");
    assert_eq!(place("-f /srv/home/manifests"), Path::new("/srv/home/.trueup"));
    assert_eq!(place("-f /srv/home/manifests/"), Path::new("/srv/home/.trueup"));
    assert_eq!(place("-f ."), here.parent().expect("a parent").join(".trueup"));
    assert_eq!(place("-f a/b"), here.join("a/.trueup"));
    assert_eq!(place("-f a --state s"), here.join("s"));
}

#[test]
fn init_writes_once_and_never_over_anything() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("tree");
    let words = format!("init {}", path.display());
    let ran = run(&Pretend::default(), &words);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert!(ran.out.contains("trueup reconcile --once"), "says what to do next");
    let heads = super::names::heads(&path);
    let found: Vec<_> = heads.iter().map(|head| (head.kind.as_str(), head.metadata.name.as_str())).collect();
    assert_eq!(found, [("Hub", "home")], "the example is only a comment");
    // The example, its comment signs taken away, is a service.
    let example = std::fs::read_to_string(path.join("example.yaml")).expect("written");
    let start = example.find("# apiVersion").expect("an example");
    let bare: String = example[start..].lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let bare = bare.replace("\n#\n", "\n");
    assert!(bare.starts_with("apiVersion: trueup/v1\nkind: Service\n"), "{bare}");
    std::fs::write(path.join("hub.yaml"), "kind: Hub\nmetadata: {name: mine}\n").expect("written");
    std::fs::remove_file(path.join("example.yaml")).expect("removed");
    assert_eq!(run(&Pretend::default(), &words).exit, Exit::Done);
    assert!(std::fs::read_to_string(path.join("hub.yaml")).expect("there").contains("mine"));
    assert!(path.join("example.yaml").exists());
    // A Hub under another name is a Hub too: a second one would be a mistake.
    std::fs::rename(path.join("hub.yaml"), path.join("settings.yaml")).expect("renamed");
    assert_eq!(run(&Pretend::default(), &words).exit, Exit::Done);
    assert!(!path.join("hub.yaml").exists());
}

#[test]
fn explanations() {
    let pretend = Pretend::default();
    let mut all = String::new();
    for what in [
        "service",
        "hub.portRange.from",
        "service.spec.readiness.http",
        "service.restart.policy",
        "service.port",
        "service.suspend",
        "service.secretEnv.API_KEY",
        "service.dependsOn.service",
        "service.dependsOn[].condition",
        "e0102",
    ] {
        let ran = run(&pretend, &format!("explain {what}"));
        assert_eq!(ran.exit, Exit::Done, "{what}: {}", ran.err);
        all.push_str(&format!("$ trueup explain {what}\n{}\n", ran.out));
        let json = run(&pretend, &format!("explain {what} -o json")).out;
        assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON")["type"], "explanation");
    }
    golden("explain.txt", &all);
    for (what, hint) in [
        ("servce", "did you mean 'service'?"),
        ("service.readyness", "did you mean 'readiness'?"),
        ("service.restart.zzz", "its fields are policy, backoff, limit, resetAfter"),
        ("service.suspend.x", "its fields are reason, until"),
        ("service.port.x", "it has no fields"),
    ] {
        let ran = run(&pretend, &format!("explain {what}"));
        assert!(ran.err.contains(hint), "{what}: {}", ran.err);
    }
    assert!(run(&pretend, "explain").out.contains("E0201"));
}

/// Every field of every kind can be explained, and has words.
#[test]
fn no_field_is_without_words() {
    fn walk(pretend: &Pretend, path: &str, depth: usize) {
        let ran = run(pretend, &format!("explain {path} -o json"));
        let data: Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_ne!(data["description"], "", "{path} is not described");
        assert_ne!(data["schemaType"], "any", "{path} has no type");
        for field in data["fields"].as_array().into_iter().flatten().filter(|_| depth < 6) {
            walk(pretend, &format!("{path}.{}", field["name"].as_str().expect("a name")), depth + 1);
        }
    }
    walk(&Pretend::default(), "hub", 0);
    // `service.secretEnv` is a map: any key leads to its values.
    for path in [
        "service.command",
        "service.readiness",
        "service.restart",
        "service.stop",
        "service.routes",
        "service.logs",
        "service.schedule",
        "service.suspend",
    ] {
        walk(&Pretend::default(), path, 1);
    }
}

#[test]
fn schemas_hold_for_whole_documents() {
    let schema = run(&Pretend::default(), "schema").out;
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let document = |kind: &str, spec: Value| serde_json::json!({"apiVersion": "trueup/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
    assert!(validator.is_valid(&document("Service", serde_json::json!({"command": ["x"], "port": "auto"}))));
    assert!(validator.is_valid(&document("Service", serde_json::json!({"readiness": {"http": {"path": "/"}}}))));
    assert!(validator.is_valid(&document("Hub", serde_json::json!({"prune": {"maxShare": "20%"}}))));
    assert!(!validator.is_valid(&document("Service", serde_json::json!({"comand": ["x"]}))));
    assert!(!validator.is_valid(&document("Hub", serde_json::json!({"command": ["x"]}))));
    assert!(run(&Pretend::default(), "schema service").out.contains("\"const\": \"Service\""));
}

#[test]
fn shells_get_a_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = run(&Pretend::default(), &format!("completions {shell}"));
        assert_eq!(ran.exit, Exit::Done);
        assert!(ran.out.contains("COMPLETE") && ran.out.contains("trueup"), "{shell}");
    }
    assert_eq!(run(&Pretend::default(), "completions tcsh").exit, Exit::Usage);
}

#[test]
fn get_says_what_is_wrong_with_the_manifests_and_still_answers() {
    let problem = ProblemLine {
        code: "E0102".to_owned(),
        severity: Severity::Error,
        file: "manifests/a.yaml".to_owned(),
        line: 3,
        column: 5,
        message: "unknown field `prot`".to_owned(),
        hint: None,
        related: Vec::new(),
        rendered: String::new(),
    };
    let resources = vec![resource("vault", ConditionStatus::True, "Ready")];
    let mut pretend = Pretend { resources, problems: vec![problem; 5], ..Pretend::default() };
    let ran = run(&pretend, "get");
    assert_eq!(ran.exit, Exit::Done);
    assert!(ran.out.contains("vault"), "{}", ran.out);
    assert!(ran.err.starts_with("error[E0102]: manifests/a.yaml:3:5: unknown field `prot`\n"), "{}", ran.err);
    assert!(
        ran.err.ends_with("... and 2 more mistakes\n'trueup validate' shows what is wrong in the manifests\n"),
        "{}",
        ran.err
    );
    assert_eq!(run(&pretend, "get -o json").out.matches(r#""type":"problem""#).count(), 5);
    pretend.unreadable = true;
    let ran = run(&pretend, "get -o json");
    assert_eq!(ran.exit, Exit::Invalid, "the tree could not be read");
    assert!(ran.out.lines().last().is_some_and(|last| last.contains(r#""type":"summary""#)), "{}", ran.out);
}

#[test]
fn what_never_ran_is_not_restarted() {
    let hub = ResourceLine { kind: KindName::Hub, ..resource("home", ConditionStatus::True, "Ready") };
    let resources = vec![resource("new", ConditionStatus::False, "Invalid"), hub];
    let pretend = Pretend { resources, ..Pretend::default() };
    for (words, exit, said) in [
        ("restart new", Exit::Invalid, "Service/new never ran: its manifest has a mistake"),
        ("stop new", Exit::Invalid, "Service/new never ran: its manifest has a mistake"),
        ("restart home", Exit::Usage, "Hub/home is not a Service"),
        ("restart hub/home", Exit::Usage, "Hub/home is not a Service"),
        ("restart somethingelse", Exit::Error, "'trueup get' lists what there is"),
    ] {
        let ran = run(&pretend, words);
        assert_eq!(ran.exit, exit, "{words}: {}", ran.err);
        assert!(ran.err.contains(said), "{words}: {}", ran.err);
    }
    assert_eq!(pretend.told.borrow().len(), 0, "nothing was done");
}

#[test]
fn words_of_other_programs_are_answered_with_ours() {
    for (words, said) in [
        ("apply", "'trueup reconcile --once'"),
        ("status", "'trueup get'"),
        ("ps", "'trueup get'"),
        ("diff", "'trueup plan'"),
        ("rm vault", "take the document out of its file"),
        ("logs -n -5", "-n 5"),
    ] {
        let ran = run(&Pretend::default(), words);
        assert_eq!(ran.exit, Exit::Usage, "{words}");
        assert!(ran.err.contains(said), "{words}: {}", ran.err);
    }
    let pretend = Pretend { resources: vec![resource("vault", ConditionStatus::True, "Ready")], ..Pretend::default() };
    assert!(run(&pretend, "get svc").out.contains("vault"));
}

#[test]
fn a_wrong_command_line_is_a_line_for_programs_too() {
    for words in ["apply -o json", "-ojson plan --nope", "--output=json lgos"] {
        let ran = run(&Pretend::default(), words);
        assert_eq!((ran.exit, ran.err.as_str()), (Exit::Usage, ""), "{words}");
        let line: Value = serde_json::from_str(ran.out.trim()).expect("one line of JSON");
        assert_eq!((line["type"].as_str(), line["code"].as_str()), (Some("error"), Some("usage")), "{words}");
        assert!(!line["message"].as_str().unwrap_or_default().is_empty(), "{words}");
    }
}

#[test]
fn states_and_reasons_are_explained() {
    for (words, said) in [
        ("explain CrashLoop", "Crashed too often"),
        ("explain ready", "answers its readiness probe"),
        ("explain Invalid", "file is broken"),
        ("explain Stopped", "trueup stop"),
    ] {
        let ran = run(&Pretend::default(), words);
        assert_eq!(ran.exit, Exit::Done, "{words}");
        assert!(ran.out.contains(said), "{words}: {}", ran.out);
    }
    assert!(run(&Pretend::default(), "explain CrashLoop -o json").out.contains(r#""state":"CrashLoop""#));
}

#[test]
fn a_check_without_mistakes_says_so_and_help_tells_global_flags_once() {
    assert!(run(&outcome(|_| {}), "validate").out.starts_with("3 resources, no mistakes ("));
    assert!(!run(&outcome(|o| o.invalid = 1), "validate").out.contains("no mistakes"));
    let help = run(&Pretend::default(), "plan --help").out;
    assert!(help.contains("trueup --help") && !help.contains("--color <WHEN>"), "{help}");
    assert!(run(&Pretend::default(), "--help").out.contains("--color <WHEN>"));
}
