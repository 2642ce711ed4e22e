//! The policy of Services as a table: what is wished and seen, hence what is done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::inputs::{self, Found, Inputs, Rights, Setting};
use super::observe::{PortHolder, Record, RowState, State};
use super::plan::{Action, Intent, PORT_GRACE, Unmet, View, Wish, plan};
use super::spec::{
    Cores, EnvName, Identity, Port, ProbeSpec, ReloadSpec, ResourceSpec, ServiceSpec, StopSignal, TcpProbe,
};
use super::trial::Trial;
use crate::kinds::service::health::Health;
use crate::model::condition::Reason;
use crate::model::digest::Digest;
use crate::model::event::Cause;
use crate::model::id::Name;
use crate::model::observed::Observed;
use crate::model::problem::{Code, Problem};
use crate::model::secret::Secret;
use crate::model::span::Span;
use crate::model::time::Timestamp;
use crate::model::unit::{Bytes, Millis};
use crate::ports::keeper::{Bounds, Ceilings, Confinement, Exit, Phase, Process, RestartWhen, Unit};
use crate::ports::machine::Account;
use crate::ports::probes::Verdict;
use crate::ports::sockets::Holder;

const KEY: [u8; 32] = [7; 32];

fn name() -> Name {
    Name::new("web").expect("a name")
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        command: Some(vec!["web".into(), "--serve".into()]),
        port: Some(Port::Fixed(2000)),
        env: BTreeMap::from([(EnvName("LEVEL".into()), "info".into())]),
        registers_as: Some("row-web".into()),
        ..ServiceSpec::default()
    }
}

fn inputs_of(spec: &ServiceSpec, secrets: &[(&str, &str)]) -> Inputs {
    inputs_with(spec, secrets, Rights::default())
}

fn inputs_with(spec: &ServiceSpec, secrets: &[(&str, &str)], rights: Rights) -> Inputs {
    let secret_env = secrets.iter().map(|(n, v)| ((*n).to_owned(), Secret::new((*v).to_owned()))).collect();
    inputs_found(spec, Found { program: PathBuf::from("/bin/web"), secret_env, rights, ..Found::default() })
}

fn inputs_found(spec: &ServiceSpec, found: Found) -> Inputs {
    let name = name();
    let setting = Setting {
        name: &name,
        spec,
        module: None,
        folder: Path::new("/tree"),
        origin: "http://127.0.0.1:1939",
        origins: "http://127.0.0.1:1939",
        home: Path::new("/home"),
        port: inputs::fixed_port(spec, None),
    };
    inputs::resolve(&setting, &found, &KEY)
}

fn unit(inputs: &Inputs, phase: Phase) -> Unit {
    let process = Process { pid: 42, start_ticks: 7, started: Timestamp(0) };
    Unit {
        name: name(),
        digest: inputs.launch.digest.clone(),
        policy: inputs.policy.clone(),
        process: (phase == Phase::Running || phase == Phase::Stopping).then_some(process),
        phase,
        strays: Vec::new(),
        crashes: 0,
        restarts: 0,
        last_exit: None,
        last_exit_at: None,
        ready: true,
        notified: false,
        held_by: None,
        status: None,
        known: true,
    }
}

/// A service that is as it should be; each test spoils one thing.
struct Case {
    state: State,
    record: Option<Record>,
    wish: Wish,
    changed: bool,
    unmet: Option<Unmet>,
    kick: bool,
    trial: Option<Trial>,
}

fn fine() -> Case {
    let inputs = inputs_of(&spec(), &[]);
    let record = Record {
        port: Some(2000),
        parts: inputs.parts.clone(),
        process: Some((42, 7)),
        row: Some("row-web".into()),
        home: Some("/home".into()),
        module: None,
        ..Record::default()
    };
    let state = State {
        unit: Some(unit(&inputs, Phase::Running)),
        inputs: Some(Ok(inputs)),
        holder: PortHolder::Fine,
        listens: vec![2000],
        row: RowState::Fine,
        old_row: None,
        health: Health { verdict: Verdict::Good, ..Health::unknown() },
        uptime: Millis(60_000),
    };
    Case { state, record: Some(record), wish: Wish::Run, changed: false, unmet: None, kick: false, trial: None }
}

impl Case {
    fn intent(&self) -> Intent {
        plan(&View {
            wish: self.wish,
            seen: &Observed::Present(self.state.clone()),
            record: self.record.as_ref(),
            changed: self.changed,
            requested: false,
            reopened: false,
            unmet: self.unmet.as_ref(),
            home: Path::new("/home"),
            kick: self.kick,
            outlived: None,
            makes_way: false,
            trial: self.trial,
            rolled_back: false,
            by_command: true,
            schedule: None,
        })
    }

    /// The steps as `action reason cause`, and the reason it stands for.
    fn says(&self) -> (Vec<String>, Reason) {
        let intent = self.intent();
        let steps = intent.steps.iter().map(|s| format!("{} {} {:?}", s.action.word(), s.reason, s.cause));
        (steps.collect(), intent.standing.reason)
    }

    fn unit(&mut self) -> &mut Unit {
        self.state.unit.as_mut().expect("the case has a unit")
    }

    fn wants(&mut self, spec: &ServiceSpec) {
        self.state.inputs = Some(Ok(inputs_of(spec, &[])));
        self.changed = true;
    }
}

fn check(case: &Case, steps: &[&str], reason: Reason) {
    let (got, stands) = case.says();
    assert_eq!((got.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), stands), (steps, reason));
}

#[test]
fn what_is_right_is_left_alone() {
    check(&fine(), &[], Reason::ProbeSucceeded);
}

#[test]
fn what_is_not_there_is_started() {
    let mut case = fine();
    case.state.unit = None;
    check(&case, &["spawn Absent Drift"], Reason::Absent);
    case.record = None;
    case.changed = true;
    check(&case, &["spawn Absent Intent"], Reason::Absent);
}

#[test]
fn a_change_restarts_and_says_what_changed() {
    let mut case = fine();
    let mut new = spec();
    new.env.insert(EnvName("LEVEL".into()), "debug".into());
    case.wants(&new);
    check(&case, &["restart Changed Intent"], Reason::Changed);
    let step = &case.intent().steps[0];
    assert_eq!((step.detail.as_str(), step.pointer.as_str()), ("env.LEVEL", "/spec/env/LEVEL"));
}

#[test]
fn a_removed_variable_is_a_change_too() {
    let mut case = fine();
    let mut new = spec();
    new.env.clear();
    case.wants(&new);
    assert_eq!(case.intent().steps[0].detail, "env.LEVEL");
}

#[test]
fn a_policy_is_changed_without_a_restart() {
    let mut case = fine();
    let mut new = spec();
    new.stop.grace = Millis(1);
    case.wants(&new);
    check(&case, &["update PolicyChanged Intent"], Reason::ProbeSucceeded);
}

#[test]
fn what_nobody_notices_is_only_accepted() {
    let mut case = fine();
    case.changed = true;
    check(&case, &["accept Changed Intent"], Reason::ProbeSucceeded);
}

#[test]
fn a_secret_changes_the_digest_and_is_not_in_it() {
    let (one, two) = (inputs_of(&spec(), &[("TOKEN", "alpha-1")]), inputs_of(&spec(), &[("TOKEN", "alpha-2")]));
    assert_ne!(one.launch.digest, two.launch.digest);
    assert_ne!(one.parts["secretEnv.TOKEN"], two.parts["secretEnv.TOKEN"]);
    assert!(!format!("{one:?}").contains("alpha"), "Debug shows a secret");
}

#[test]
fn dependencies_gate_the_start_and_the_restart() {
    let unmet = Some(Unmet { message: "Service/db is not ready yet".into(), doomed: false });
    let mut case = Case { unmet, ..fine() };
    check(&case, &[], Reason::ProbeSucceeded);
    case.state.unit = None;
    check(&case, &["spawn Absent Drift"], Reason::DependencyNotReady);
    assert!(case.intent().gate.is_some());
    case.state.unit = fine().state.unit;
    let mut new = spec();
    new.command = Some(vec!["web".into()]);
    case.wants(&new);
    assert!(case.intent().gate.is_some());
    assert!(case.intent().standing.started, "what runs goes on until then");
}

#[test]
fn a_stranger_on_the_port_is_named_and_nothing_is_started() {
    let mut case = fine();
    case.state.unit = None;
    let holder = Holder { pid: Some(99), user: Some("eve".into()), command: Some("nc -l 2000".into()) };
    case.state.holder = PortHolder::Stranger(holder);
    check(&case, &[], Reason::PortTaken);
    let intent = case.intent();
    assert_eq!(intent.standing.message, "port 2000 is held by pid 99 of user eve: nc -l 2000");
    assert!(intent.standing.doomed && intent.problem.is_some());
}

#[test]
fn a_port_held_by_a_sibling_is_waited_for() {
    let mut case = fine();
    case.state.unit = None;
    case.state.holder = PortHolder::Unit("other".into());
    check(&case, &[], Reason::PortTaken);
    assert!(!case.intent().standing.doomed);
}

#[test]
fn a_drifted_row_is_put_back_before_anything_derives_from_it() {
    let mut case = fine();
    let row = inputs_of(&spec(), &[]).row.expect("a row");
    case.state.row = RowState::Drifted(row.clone(), "port 19415".into());
    case.state.unit = None;
    check(&case, &["putRow RowDrifted Drift", "spawn Absent Drift"], Reason::Absent);
    case.state.row = RowState::Conflict("row-other".into());
    check(&case, &["spawn Absent Drift"], Reason::Absent);
    let drifted = case.intent().standing.drifted.expect("surfaced");
    assert_eq!(drifted.0, Reason::RowConflict);
}

#[test]
fn what_is_ready_by_its_own_probe_is_not_restarted_for_listening_elsewhere() {
    let mut spec = spec();
    let tcp = TcpProbe { port: Some(19_415) };
    spec.readiness = Some(ProbeSpec { tcp: Some(tcp), ..ProbeSpec::default() });
    let mut case = fine();
    case.wants(&spec);
    case.changed = false;
    case.state.listens = vec![19_415];
    check(&case, &[], Reason::ProbeSucceeded);
    assert_eq!(case.intent().standing.drifted.expect("surfaced").0, Reason::ListensElsewhere);
    case.state.health.verdict = Verdict::Bad("refused".into());
    check(&case, &["restart ListensElsewhere Drift"], Reason::ListensElsewhere);
}

#[test]
fn a_drifted_listener_is_restarted_once_it_had_its_time() {
    let mut case = fine();
    case.state.listens = vec![19_415];
    case.state.health.verdict = Verdict::Bad("refused".into());
    check(&case, &["restart ListensElsewhere Drift"], Reason::ListensElsewhere);
    case.state.uptime = Millis(PORT_GRACE.0 - 1);
    check(&case, &[], Reason::NotReady);
    case.state.listens = vec![19_415, 2000];
    case.state.uptime = Millis(60_000);
    case.state.health.verdict = Verdict::Good;
    check(&case, &[], Reason::ProbeSucceeded);
}

#[test]
fn bad_input_starts_nothing_and_stops_nothing() {
    let mut case = fine();
    let problem = Problem::error(Code::BadEnvFile, Span::file_start("a.yaml".into()), "the envFile is missing");
    case.state.inputs = Some(Err(Box::new(problem)));
    check(&case, &[], Reason::BadInput);
    let standing = case.intent().standing;
    assert!(standing.started && standing.ready && !standing.settled(), "it answers, and is not what is asked for");
    case.state.health.verdict = Verdict::Pending;
    assert!(!case.intent().standing.ready);
    case.state.unit = None;
    check(&case, &[], Reason::BadInput);
}

#[test]
fn crashes_are_the_keepers_work_and_are_shown() {
    let mut case = fine();
    case.state.health.verdict = Verdict::Pending;
    case.unit().process = None;
    case.unit().last_exit = Some(Exit::Code(3));
    case.unit().phase = Phase::Backoff { retry_at: Timestamp(5) };
    check(&case, &[], Reason::Restarting);
    assert!(case.intent().standing.message.contains("exit code 3"));
    case.unit().phase = Phase::Looping { retry_at: Timestamp(5) };
    check(&case, &[], Reason::CrashLoop);
    assert!(case.intent().standing.doomed);
}

#[test]
fn a_person_does_not_wait_for_the_next_attempt_of_a_crash_loop() {
    let mut case = Case { kick: true, ..fine() };
    check(&case, &[], Reason::ProbeSucceeded);
    case.unit().process = None;
    case.unit().phase = Phase::Looping { retry_at: Timestamp(5) };
    check(&case, &["restart CrashLoop Retry"], Reason::Restarting);
    let holder = Holder { pid: Some(99), ..Holder::default() };
    case.state.holder = PortHolder::Stranger(holder);
    assert!(case.intent().steps.is_empty(), "it would only crash again");
}

#[test]
fn what_ran_to_its_end_runs_again_only_when_it_changed() {
    let mut case = fine();
    case.unit().phase = Phase::Ended;
    case.unit().process = None;
    case.unit().last_exit = Some(Exit::Code(0));
    check(&case, &[], Reason::Completed);
    case.unit().last_exit = Some(Exit::Code(1));
    check(&case, &[], Reason::Failed);
    let mut new = spec();
    new.command = Some(vec!["web".into(), "again".into()]);
    case.wants(&new);
    check(&case, &["spawn Changed Intent"], Reason::Absent);
}

#[test]
fn a_row_stays_while_the_new_port_cannot_be_had() {
    let mut case = fine();
    let spec = ServiceSpec { port: Some(Port::Fixed(3000)), ..spec() };
    case.wants(&spec);
    let row = inputs_of(&spec, &[]).row.expect("a row");
    case.state.row = RowState::Drifted(row, "port 2000".into());
    case.state.holder = PortHolder::Stranger(Holder { pid: Some(9), ..Holder::default() });
    check(&case, &[], Reason::PortTaken);
    case.state.holder = PortHolder::Unknown("no tables".into());
    check(&case, &[], Reason::Unknown);
    case.state.holder = PortHolder::Fine;
    check(&case, &["putRow Changed Intent", "restart Changed Intent"], Reason::Changed);
}

#[test]
fn a_changed_policy_reaches_what_has_ended() {
    let mut case = fine();
    case.unit().phase = Phase::Ended;
    case.unit().process = None;
    case.unit().last_exit = Some(Exit::Code(1));
    case.unit().policy.restart.when = RestartWhen::Never;
    case.changed = true;
    check(&case, &["update PolicyChanged Intent"], Reason::PolicyChanged);
    assert_eq!(case.intent().steps[0].pointer, "/spec/restart");
    case.unmet = Some(Unmet { message: "db is not ready".into(), doomed: false });
    assert_eq!(case.intent().gate.as_deref(), Some("db is not ready"));
    // Another setting is told too, and what ended stays ended.
    case.unmet = None;
    case.unit().policy = inputs_of(&spec(), &[]).policy;
    case.unit().policy.log_keep += 1;
    let inputs = case.state.inputs.as_mut().and_then(|i| i.as_mut().ok()).expect("good inputs");
    inputs.policy.restart.when = RestartWhen::Never;
    case.unit().policy.restart.when = RestartWhen::Never;
    check(&case, &["update PolicyChanged Intent"], Reason::Failed);
}

#[test]
fn suspended_and_leaving_services_are_stopped_and_then_let_go() {
    let mut case = Case { wish: Wish::Stay(Reason::Suspended), ..fine() };
    check(&case, &["stop Suspended Intent"], Reason::Stopping);
    case.unit().phase = Phase::Stopping;
    check(&case, &[], Reason::Stopping);
    case.unit().phase = Phase::Stopped;
    case.unit().process = None;
    check(&case, &[], Reason::Suspended);
    case.wish = Wish::Leave;
    check(&case, &["release Gone Intent"], Reason::Gone);
    case.unit().phase = Phase::Looping { retry_at: Timestamp(1) };
    check(&case, &["stop NotDeclared Intent"], Reason::NotDeclared);
}

#[test]
fn a_stray_twin_is_stopped_before_anything_else() {
    let mut case = fine();
    case.unit().strays = vec![77];
    check(&case, &["stopStrays Stray Drift"], Reason::Stray);
}

#[test]
fn an_adopted_process_is_told_to_the_keeper_without_a_restart() {
    let mut case = fine();
    case.unit().known = false;
    check(&case, &["update Readopted Drift"], Reason::ProbeSucceeded);
}

#[test]
fn what_could_not_be_looked_at_is_neither_started_nor_stopped() {
    for wish in [Wish::Run, Wish::Leave, Wish::Stay(Reason::Suspended)] {
        let seen = Observed::Unknown("the keeper did not answer".into());
        let case = fine();
        let view = View {
            wish,
            seen: &seen,
            record: case.record.as_ref(),
            changed: true,
            requested: true,
            reopened: true,
            unmet: None,
            home: Path::new("/home"),
            kick: false,
            outlived: None,
            makes_way: false,
            trial: None,
            rolled_back: false,
            by_command: true,
            schedule: None,
        };
        assert_eq!(plan(&view).steps, Vec::new());
        assert_eq!(plan(&view).standing.reason, Reason::Unknown);
    }
}

#[test]
fn the_order_of_the_environment_is_what_the_description_says() {
    let mut spec = spec();
    spec.env.insert(EnvName("A".into()), "env".into());
    let found = Found {
        program: PathBuf::from("/bin/web"),
        inherited: vec![("A".into(), "inherited".into()), ("PATH".into(), "/bin".into())],
        file_env: BTreeMap::from([("A".into(), "file".into()), ("B".into(), "file".into())]),
        secret_env: BTreeMap::from([("B".into(), Secret::new("secret".into()))]),
        ..Found::default()
    };
    let name = name();
    let setting = Setting {
        name: &name,
        spec: &spec,
        module: None,
        folder: Path::new("/tree"),
        origin: "o",
        origins: "o",
        home: Path::new("/home"),
        port: Some(2000),
    };
    let inputs = inputs::resolve(&setting, &found, &KEY);
    let env = |n: &str| inputs.launch.env.get(n).map(|s| s.reveal().to_owned());
    assert_eq!(env("A").as_deref(), Some("env"));
    assert_eq!(env("B").as_deref(), Some("secret"));
    assert_eq!(env("PORT").as_deref(), Some("2000"));
    // What is inherited differs between a shell and a service manager, and is no change.
    let other = Found { inherited: Vec::new(), ..found };
    assert_eq!(inputs::resolve(&setting, &other, &KEY).launch.digest, inputs.launch.digest);
}

#[test]
fn an_env_file_is_read_or_its_bad_lines_are_named() {
    let good = "# a comment\n\nA=1\nB = two words \nC=\"quoted # not a comment\"\nD='x'\n";
    let pairs = inputs::env_file(good).expect("it is good");
    let of = |n: &str| pairs.iter().find(|(k, _)| k == n).map(|(_, v)| v.as_str());
    assert_eq!(
        (of("A"), of("B"), of("C"), of("D")),
        (Some("1"), Some("two words"), Some("quoted # not a comment"), Some("x"))
    );
    let bad = inputs::env_file("A=1\nnot a line\nexport B=2\n1C=3\n").expect_err("three bad lines");
    assert_eq!(bad.iter().map(|b| b.line).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn cause_of_a_step_tells_wish_from_drift() {
    let mut case = fine();
    case.state.unit = None;
    assert_eq!(case.intent().steps[0].cause, Cause::Drift);
    // After `down` the record has no process: starting again is what was asked for.
    case.record.as_mut().expect("a record").process = None;
    assert_eq!(case.intent().steps[0].cause, Cause::Intent);
}

/// A trial after so many milliseconds of a window of 1,000.
fn trial(spent: u64, fallback: bool) -> Option<Trial> {
    Some(Trial { window: Millis(1_000), spent: Millis(spent), fallback })
}

#[test]
fn a_version_on_trial_is_proven_when_it_is_ready_and_refused_when_its_time_is_over() {
    let mut case = fine();
    case.trial = trial(10, false);
    assert_eq!(case.says().0, ["prove Proven Intent"]);
    case.state.health.verdict = Verdict::Bad("answered 500".into());
    case.trial = trial(999, true);
    assert_eq!(case.says(), (vec![], Reason::NotReady));
    case.trial = trial(1_000, true);
    let intent = case.intent();
    let [step] = &intent.steps[..] else { panic!("{intent:?}") };
    let Action::Refuse { why } = &step.action else { panic!("{step:?}") };
    assert!(why.starts_with("not ready within 1s") && why.ends_with("answered 500"), "{why}");
    // The first version has nothing before it.
    case.trial = trial(1_000, false);
    assert!(case.intent().steps.is_empty());
    // A crash loop is not waited for, and is no end of hope.
    case.trial = trial(10, true);
    case.unit().phase = Phase::Looping { retry_at: Timestamp(0) };
    case.unit().process = None;
    assert_eq!(case.says().0, ["refuse RolledBack Intent"]);
    assert!(!case.intent().standing.doomed);
}

#[test]
fn files_restart_or_reload() {
    let mut spec = spec();
    spec.files = vec!["app.conf".into()];
    let with = |spec: &ServiceSpec, text: &str| {
        let files = [("app.conf".to_owned(), Digest::of(text.as_bytes()))].into();
        inputs_found(spec, Found { files, program: PathBuf::from("/bin/web"), ..Found::default() })
    };
    let (one, two) = (with(&spec, "1"), with(&spec, "2"));
    assert_ne!(one.launch.digest, two.launch.digest);
    assert!(one.parts.contains_key("files.app.conf") && one.reload.is_none());
    spec.reload = Some(ReloadSpec { signal: Some(StopSignal::Hup), exec: None });
    let (one, two) = (with(&spec, "1"), with(&spec, "2"));
    assert_eq!(one.launch.digest, two.launch.digest);
    let files = |inputs: &Inputs| inputs.reload.as_ref().map(|r| r.files.clone());
    assert_ne!(files(&one), files(&two));
    let mut case = fine();
    case.unit().digest = two.launch.digest.clone();
    case.record = Some(Record { parts: two.parts.clone(), reloaded: files(&one), ..case.record.clone().expect("one") });
    case.state.inputs = Some(Ok(two.clone()));
    assert_eq!(case.says().0, ["reload FilesChanged Intent"]);
    case.record = Some(Record { reloaded: files(&two), ..case.record.clone().expect("one") });
    assert!(case.says().0.is_empty());
}

/// Spoils the spec of what runs, and gives the one step that puts it right.
fn after_change(change: impl FnOnce(&mut ServiceSpec)) -> (String, String, String) {
    let mut case = fine();
    let mut spec = spec();
    change(&mut spec);
    let confinement = Confinement { nice: spec.resources.nice, ..Confinement::default() };
    let rights = Rights { account: None, confinement };
    case.state.inputs = Some(Ok(inputs_with(&spec, &[], rights)));
    case.changed = true;
    let intent = case.intent();
    let [step] = &intent.steps[..] else { panic!("{:?}", intent.steps) };
    (step.action.word().to_owned(), step.pointer.clone(), step.detail.clone())
}

#[test]
fn what_a_cgroup_bounds_changes_in_place_and_the_rest_restarts() {
    let update = |detail: &str| ("update".to_owned(), "/spec/resources".to_owned(), detail.to_owned());
    assert_eq!(after_change(|spec| spec.resources.memory = Some(Bytes(1 << 29))), update("no restart needed"));
    assert_eq!(after_change(|spec| spec.resources.cpu = Some(Cores(1_500))), update("no restart needed"));
    assert_eq!(after_change(|spec| spec.resources.pids = Some(20)), update("no restart needed"));
    assert_eq!(after_change(|spec| spec.resources.cgroup = true), update("no restart needed"));
    let restart = |pointer: &str, detail: &str| ("restart".to_owned(), pointer.to_owned(), detail.to_owned());
    assert_eq!(after_change(|spec| spec.resources.nice = Some(5)), restart("/spec/resources/nice", "resources.nice"));
    assert_eq!(after_change(|spec| spec.user = Some(Identity("ann".into()))), restart("/spec/user", "user"));
}

#[test]
fn a_program_of_another_user_gets_that_users_variables() {
    let account = Account { name: "ann".into(), uid: 1000, gid: 100, groups: Vec::new(), home: "/home/ann".into() };
    let rights = Rights { account: Some(account), confinement: Confinement::default() };
    let mut spec = spec();
    spec.env.insert(EnvName("HOME".into()), "/srv".into());
    let inputs = inputs_with(&spec, &[], rights);
    let env = |n: &str| inputs.launch.env.get(n).map(|s| s.reveal().to_owned());
    assert_eq!((env("USER").as_deref(), env("LOGNAME").as_deref()), (Some("ann"), Some("ann")));
    assert_eq!(env("HOME").as_deref(), Some("/srv"), "what is written wins");
}

#[test]
fn resources_read_as_people_write_them() {
    let text = r#"{"memory":"512MiB","cpu":1.5,"pids":200,"nice":-5,"umask":"027",
        "rlimits":{"nofile":4096,"core":"unlimited","nproc":{"soft":10,"hard":"unlimited"}}}"#;
    let resources: ResourceSpec = serde_json::from_str(text).expect("it reads");
    assert_eq!(resources.umask.as_ref().map(|umask| umask.bits()), Some(0o27));
    let expected = Ceilings { memory: Some(Bytes(512 << 20)), cpu: Some(1_500), pids: Some(200), cgroup: false };
    assert_eq!(resources.ceilings(), expected);
    let limits: Vec<_> = resources.rlimits.given().map(|(limit, pair)| (limit.as_str(), pair.bounds())).collect();
    let bounds = |soft, hard| Bounds { soft, hard };
    let nofile = ("nofile", bounds(Some(4096), Some(4096)));
    assert_eq!(limits, [("core", bounds(None, None)), nofile, ("nproc", bounds(Some(10), None))]);
    let back: ResourceSpec = serde_json::from_value(serde_json::to_value(&resources).expect("a value")).expect("back");
    assert_eq!(back, resources);
}
