//! What a Service asks for. Pure. Every doc comment here is the field's description in the schema and in `trueup explain`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::declares::{ActionSpec, CredentialNeed, EventSpec};
use super::schedule::ScheduleSpec;
use crate::kinds::secret::SecretRef;
use crate::kinds::suspend::Suspend;
use crate::model::id::Name;
use crate::model::route::Exposure;
use crate::model::unit::{Bytes, Millis};
use crate::ports::keeper::{Bounds, Ceilings, RestartWhen, Rlimit};

const PATH: &str = "a path begins with / and has no spaces";
const VARIABLE: &str = "a variable's name has letters, digits and '_', and does not begin with a digit";

/// One supervised module: a program that is started, kept running, and restarted when what it was started with changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceSpec {
    /// The program and its arguments; no shell is involved. `trueup` as the first word is this very binary. Either this or `module`.
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
    /// A folder with `.parachute/module.json`, relative to this file. It supplies the command, the port, the mounts and the
    /// health path; what stands here wins over it. Either this or `command`.
    pub module: Option<String>,
    /// The folder the program starts in, relative to this file. Default: the module's folder, else the folder of this file.
    pub working_dir: Option<String>,
    /// Environment variables. The environment is exactly: PATH, HOME, USER, LANG and TZ of trueup itself, the variables of the
    /// hub, the envFiles, this, `secretEnv`, and PORT; later ones win.
    #[schemars(extend("errorMessage" = VARIABLE))]
    pub env: BTreeMap<EnvName, String>,
    /// Files with lines `KEY=VALUE`, relative to this file; later files win over earlier ones, and `env` wins over both.
    pub env_file: Vec<String>,
    /// Environment variables whose values are secret. They appear in no plan, event or log.
    #[schemars(extend("errorMessage" = VARIABLE))]
    pub secret_env: BTreeMap<EnvName, SecretRef>,
    /// The TCP port the module must listen on: a number, or `auto` to have a free one chosen once and kept. It is given to the
    /// program as PORT, and it is the authority: what the module or services.json say is corrected to it.
    pub port: Option<Port>,
    /// Opens the port on 127.0.0.1 for the program and hands it over already listening (LISTEN_FDS, as systemd's socket units do), so
    /// that a restart refuses no connection: those that come in between wait. The program must know how to take it.
    pub pass_socket: bool,
    /// The name of this module's row in services.json, when it registers itself there.
    /// Default: the manifestName of module.json; none for a plain command.
    #[schemars(length(min = 1, max = 128))]
    pub registers_as: Option<String>,
    /// Where the module is mounted under the hub's origin.
    pub routes: Vec<Route>,
    /// When the module has started. Until this has succeeded once, `readiness` and `liveness` are not asked; a module that has not
    /// started after `initialDelay` and `failureThreshold` times `period` is restarted.
    pub startup: Option<ProbeSpec>,
    /// When the module counts as ready. Default: its port accepts connections; without a port,
    /// it has run for a second.
    pub readiness: Option<ProbeSpec>,
    /// When the module lives. After `failureThreshold` bad answers in a row it is restarted. Asked while `trueup reconcile` runs;
    /// with `notify` the keeper itself watches, always.
    pub liveness: Option<ProbeSpec>,
    /// Files that the program reads or is, relative to this file. When one of them changes, the program is restarted, or told by
    /// `reload`.
    pub files: Vec<String>,
    /// How the program is told that one of `files` changed, so that it need not be restarted for that.
    pub reload: Option<ReloadSpec>,
    /// When a changed version is not ready in time, goes back to the last version that was. The failed one is not tried again until
    /// it is changed, or `trueup restart` asks for it.
    pub rollback: Option<RollbackSpec>,
    /// What happens when the program ends by itself.
    pub restart: RestartSpec,
    /// How the program is stopped.
    pub stop: StopSpec,
    /// As whom the program runs: a user's name or number. The program gets that user's HOME, USER and LOGNAME. Needs root.
    /// Default: as whom trueup itself runs.
    pub user: Option<Identity>,
    /// The group it runs in: a name or number. Needs root. Default: the user's primary group.
    pub group: Option<Identity>,
    /// Further groups of the program, by name or number. Needs root. Default: the groups that name the user as a member.
    pub supplementary_groups: Option<Vec<Identity>>,
    /// What the program may use.
    pub resources: ResourceSpec,
    /// Services that must have come so far before this one is started.
    pub depends_on: Vec<Dependency>,
    /// What is kept of the program's output.
    pub logs: LogSpec,
    /// Stops the program and leaves it stopped, without forgetting it.
    /// With `until` it runs again by itself; others may have its port and routes only while it is suspended without an end.
    pub suspend: Suspend,
    /// Runs the program by the clock instead of all the time. Its restart policy is `never` (the default then) or `on-failure`.
    pub schedule: Option<ScheduleSpec>,
    /// What happens in the program that connections may listen to. With `module`, its module.json says it.
    pub events: Vec<EventSpec>,
    /// What the program does when a connection asks it to. With `module`, its module.json says it.
    pub actions: Vec<ActionSpec>,
    /// The tokens for vaults that the program wants to have. With `module`, its module.json says it.
    pub credentials: Vec<CredentialNeed>,
}

/// The name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct EnvName(#[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))] pub String);

/// A port number, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    Fixed(u16),
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Auto {
    Auto,
}

impl JsonSchema for Port {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "const": "auto" }],
            "errorMessage": "a port is a number from 1 to 65535, or auto"
        })
    }
}

/// One mount under the hub's origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The path under the hub's origin, such as `/vault`.
    #[schemars(regex(pattern = r"^/\S*$"), extend("errorMessage" = PATH))]
    pub path: String,
    /// Whether the path is removed before the module sees the request.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Whether WebSocket connections are let through.
    #[serde(default)]
    pub websocket: bool,
    /// From where the route may be reached.
    #[serde(default)]
    pub exposure: Exposure,
}

/// A probe: a question to the module that is asked again and again. Exactly one of `http`, `tcp`, `exec`, `notify`; names and
/// meanings as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProbeSpec {
    /// A GET answered with 200 to 399.
    pub http: Option<HttpProbe>,
    /// The port accepts a connection.
    pub tcp: Option<TcpProbe>,
    /// A command exits with 0.
    pub exec: Option<ExecProbe>,
    /// The module says so itself, by the protocol of `sd_notify(3)` on NOTIFY_SOCKET: READY=1 for `startup` and `readiness`,
    /// WATCHDOG=1 for `liveness` (at least every `failureThreshold` times `period`, which it is given as WATCHDOG_USEC).
    pub notify: Option<NotifyProbe>,
    /// Pause before the first attempt.
    pub initial_delay: Millis,
    /// Pause between attempts. Until the first good answer of `startup` and `readiness`, attempts are denser.
    pub period: Millis,
    /// How long one attempt may take.
    pub timeout: Millis,
    /// So many good answers in a row count as success. Only `readiness` may ask for more than one.
    #[schemars(range(min = 1))]
    pub success_threshold: u32,
    /// So many bad answers in a row count as failure.
    #[schemars(range(min = 1))]
    pub failure_threshold: u32,
}

/// A GET request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// The path to ask for.
    #[schemars(regex(pattern = r"^/\S*$"), extend("errorMessage" = PATH))]
    pub path: String,
    /// Another port than the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Headers to send.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpProbe {
    /// Another port than the service's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecProbe {
    /// The program and its arguments; it gets the service's environment and working directory.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
}

/// The module speaks for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NotifyProbe {}

impl ProbeSpec {
    /// For how long bad answers (or silence) are borne.
    pub fn patience(&self) -> Millis {
        let failures = u64::from(self.failure_threshold.max(1));
        Millis(self.period.0.max(1).saturating_mul(failures).saturating_add(self.initial_delay.0))
    }
}

impl Default for ProbeSpec {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            exec: None,
            notify: None,
            initial_delay: Millis(0),
            period: Millis::secs(5),
            timeout: Millis::secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }
    }
}

/// What happens when the program ends by itself. A module that was ready is restarted at once; one that dies while it starts is
/// restarted after a pause that grows; one that does so again and again is a crash loop, shown as such and retried slowly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestartSpec {
    /// `always`, `on-failure` (not after exit code 0), or `never`.
    pub policy: RestartPolicy,
    /// How the pause grows.
    pub backoff: BackoffSpec,
    /// When crashes become a crash loop.
    pub limit: LimitSpec,
    /// So long alive, and earlier crashes are forgotten.
    pub reset_after: Millis,
    /// Exit codes that are a success, beside 0: not restarted by `on-failure`, and `completed` for whoever waits.
    #[schemars(inner(range(min = 1, max = 255)))]
    pub success_codes: Vec<i32>,
    /// Exit codes by which the program says that another attempt is of no use: not restarted, whatever the policy.
    #[schemars(inner(range(min = 1, max = 255)))]
    pub fatal_codes: Vec<i32>,
}

/// When a program that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whatever its exit code.
    #[default]
    Always,
    /// Unless it ended with exit code 0.
    OnFailure,
    /// Not at all: it runs once for each change of its settings.
    Never,
}

impl From<RestartPolicy> for RestartWhen {
    fn from(policy: RestartPolicy) -> Self {
        match policy {
            RestartPolicy::Always => Self::Always,
            RestartPolicy::OnFailure => Self::OnFailure,
            RestartPolicy::Never => Self::Never,
        }
    }
}

/// An exponential pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackoffSpec {
    /// The first pause.
    pub initial: Millis,
    /// The longest pause, and the pause of a crash loop.
    pub max: Millis,
    /// How much longer each pause is than the one before.
    #[schemars(range(min = 1, max = 10))]
    pub factor: u32,
}

/// So many crashes in so much time are a crash loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitSpec {
    /// So many crashes in a row ...
    #[schemars(range(min = 1))]
    pub count: u32,
    /// ... within this time.
    pub window: Millis,
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::default(),
            backoff: BackoffSpec::default(),
            limit: LimitSpec::default(),
            reset_after: Millis::secs(60),
            success_codes: Vec::new(),
            fatal_codes: Vec::new(),
        }
    }
}

impl Default for BackoffSpec {
    fn default() -> Self {
        Self { initial: Millis(100), max: Millis::secs(300), factor: 2 }
    }
}

impl Default for LimitSpec {
    fn default() -> Self {
        Self { count: 5, window: Millis::secs(60) }
    }
}

/// How the program is stopped: the signal goes to its whole process group, and SIGKILL after the grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StopSpec {
    /// The signal that asks it to stop.
    pub signal: StopSignal,
    /// How long it may take.
    pub grace: Millis,
}

impl Default for StopSpec {
    fn default() -> Self {
        Self { signal: StopSignal::default(), grace: Millis::secs(10) }
    }
}

/// A signal that asks a program to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StopSignal {
    #[default]
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGHUP")]
    Hup,
    #[serde(rename = "SIGUSR1")]
    Usr1,
    #[serde(rename = "SIGUSR2")]
    Usr2,
    #[serde(rename = "SIGKILL")]
    Kill,
}

impl StopSignal {
    /// Its number on Linux (signal(7), x86 and ARM).
    pub fn number(self) -> i32 {
        match self {
            Self::Hup => 1,
            Self::Int => 2,
            Self::Quit => 3,
            Self::Kill => 9,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
            Self::Term => 15,
        }
    }
}

/// How a program is told to read its files again. Exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ReloadSpec {
    /// A signal to its main process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<StopSignal>,
    /// A command; it gets the service's environment and working directory, and the main process as MAINPID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
}

/// When to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RollbackSpec {
    /// So long a changed version may take to be ready. A crash loop is not waited for.
    pub after: Millis,
}

impl Default for RollbackSpec {
    fn default() -> Self {
        Self { after: Millis::secs(60) }
    }
}

/// A service that must have come so far first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// The name of the other Service.
    pub service: Name,
    /// How far it must have come.
    #[serde(default)]
    pub condition: DependencyCondition,
    /// Whether this one is restarted when the other one was: for a program that cannot bear to lose it. By default it is left alone.
    #[serde(default)]
    pub restart: bool,
}

/// How far a dependency must have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DependencyCondition {
    /// Its process runs.
    Started,
    /// It is ready.
    #[default]
    Ready,
    /// It ran to its end with exit code 0.
    Completed,
}

impl DependencyCondition {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Completed => "completed",
        }
    }
}

/// The name or number of a user or group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Identity(pub String);

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u32),
            Name(String),
        }
        Ok(match Either::deserialize(from)? {
            Either::Number(number) => Self(number.to_string()),
            Either::Name(name) => Self(name),
        })
    }
}

impl JsonSchema for Identity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Identity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The greatest number means "no change" to the kernel (setuid(2)).
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32 },
                { "type": "string", "pattern": "^([A-Za-z_][A-Za-z0-9_.@-]*\\$?|[0-9]{1,10})$" }
            ],
            "errorMessage": "a user or group is a name or a number"
        })
    }
}

/// What the program may use. `memory`, `cpu` and `pids` hold for it and everything it starts, need a cgroup (v2) with the
/// controller of that name, and change while it runs, as does `cgroup`; the others hold for each process, and a change of them restarts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ResourceSpec {
    /// So much memory; beyond it, with nothing left to reclaim, all of it is killed and restarted (memory.max).
    pub memory: Option<Bytes>,
    /// So many cores, such as `1.5` (cpu.max).
    pub cpu: Option<Cores>,
    /// So many processes and threads (pids.max).
    #[schemars(range(min = 1))]
    pub pids: Option<u64>,
    /// A cgroup of its own even without these limits: then nothing that it starts can leave it, however it hides, and all of it
    /// ends when it is stopped. Each start takes some milliseconds longer.
    pub cgroup: bool,
    /// From -20 (first served, needs root) to 19 (last served).
    #[schemars(range(min = -20, max = 19))]
    pub nice: Option<i32>,
    /// The permissions that new files do not get, such as `"027"`.
    pub umask: Option<Umask>,
    /// Limits of each process, by their names in getrlimit(2).
    pub rlimits: RlimitSpec,
}

impl ResourceSpec {
    /// What holds for the program and everything it starts.
    pub fn ceilings(&self) -> Ceilings {
        Ceilings { memory: self.memory, cpu: self.cpu.map(|cores| cores.0), pids: self.pids, cgroup: self.cgroup }
    }
}

/// Cores, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores(pub u32);

impl Serialize for Cores {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(f64::from(self.0) / 1_000.0)
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let cores = f64::deserialize(from)?;
        if !(0.01..=4_096.0).contains(&cores) {
            return Err(serde::de::Error::custom("`cpu` is a number of cores from 0.01 to 4096"));
        }
        // In range, so nothing is cut off.
        Ok(Self((cores * 1_000.0).round() as u32))
    }
}

impl JsonSchema for Cores {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Cores".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The kernel knows no shorter share than 1 ms of its period of 100 ms.
        json_schema!({
            "type": "number", "minimum": 0.01, "maximum": 4096, "examples": [1.5],
            "errorMessage": "`cpu` is a number of cores from 0.01 to 4096"
        })
    }
}

/// Permissions that new files do not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Umask(pub String);

impl Umask {
    /// Its bits.
    pub fn bits(&self) -> u32 {
        u32::from_str_radix(&self.0, 8).unwrap_or(0o022)
    }
}

impl JsonSchema for Umask {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Umask".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^0?[0-7]{3}$", "examples": ["027"],
            "errorMessage": "a umask is three octal digits, such as \"027\""
        })
    }
}

/// Limits of each process; bytes, seconds or counts as getrlimit(2) has them. A number is both the soft and the hard limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields, default)]
pub struct RlimitSpec {
    /// Bytes of address space.
    pub r#as: Option<LimitPair>,
    /// Bytes of a core dump.
    pub core: Option<LimitPair>,
    /// Seconds of processor time.
    pub cpu: Option<LimitPair>,
    /// Bytes of data segment.
    pub data: Option<LimitPair>,
    /// Bytes of the largest file it may write.
    pub fsize: Option<LimitPair>,
    /// File locks; no effect since Linux 2.4.
    pub locks: Option<LimitPair>,
    /// Bytes that may be locked into memory.
    pub memlock: Option<LimitPair>,
    /// Bytes in POSIX message queues, for its user as a whole.
    pub msgqueue: Option<LimitPair>,
    /// How far it may raise its nice value: 20 less this number.
    pub nice: Option<LimitPair>,
    /// One more than the highest number of an open file.
    pub nofile: Option<LimitPair>,
    /// Processes of its user as a whole; root is not bound by it.
    pub nproc: Option<LimitPair>,
    /// Bytes of resident memory; no effect since Linux 2.4.30.
    pub rss: Option<LimitPair>,
    /// The highest real-time priority.
    pub rtprio: Option<LimitPair>,
    /// Microseconds of real-time running without a pause.
    pub rttime: Option<LimitPair>,
    /// Signals waiting, for its user as a whole.
    pub sigpending: Option<LimitPair>,
    /// Bytes of the main thread's stack.
    pub stack: Option<LimitPair>,
}

impl RlimitSpec {
    /// Those that are given.
    pub fn given(&self) -> impl Iterator<Item = (Rlimit, LimitPair)> {
        let all = Rlimit::ALL.map(|limit| {
            let pair = match limit {
                Rlimit::As => self.r#as,
                Rlimit::Core => self.core,
                Rlimit::Cpu => self.cpu,
                Rlimit::Data => self.data,
                Rlimit::Fsize => self.fsize,
                Rlimit::Locks => self.locks,
                Rlimit::Memlock => self.memlock,
                Rlimit::Msgqueue => self.msgqueue,
                Rlimit::Nice => self.nice,
                Rlimit::Nofile => self.nofile,
                Rlimit::Nproc => self.nproc,
                Rlimit::Rss => self.rss,
                Rlimit::Rtprio => self.rtprio,
                Rlimit::Rttime => self.rttime,
                Rlimit::Sigpending => self.sigpending,
                Rlimit::Stack => self.stack,
            };
            pair.map(|pair| (limit, pair))
        });
        all.into_iter().flatten()
    }
}

/// A limit: one for both, or a soft and a hard one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LimitPair {
    Both(Limit),
    Each { soft: Limit, hard: Limit },
}

impl LimitPair {
    pub fn bounds(self) -> Bounds {
        match self {
            Self::Both(limit) => Bounds { soft: limit.value(), hard: limit.value() },
            Self::Each { soft, hard } => Bounds { soft: soft.value(), hard: hard.value() },
        }
    }
}

impl JsonSchema for LimitPair {
    fn schema_name() -> Cow<'static, str> {
        "LimitPair".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = serde_json::json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "const": "unlimited" }] });
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "const": "unlimited" },
                {
                    "type": "object", "required": ["soft", "hard"], "additionalProperties": false,
                    "properties": { "soft": one, "hard": one }
                }
            ],
            "errorMessage": "a limit is a number, `unlimited`, or { soft: ..., hard: ... } of these"
        })
    }
}

/// A number, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Limit {
    Number(u64),
    Unlimited(Unlimited),
}

impl Limit {
    fn value(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Unlimited(_) => None,
        }
    }
}

/// The word `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unlimited {
    Unlimited,
}

/// What is kept of the program's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogSpec {
    /// A file that has grown beyond this is rotated away.
    pub max_size: Bytes,
    /// So many rotated files are kept beside the current one.
    #[schemars(range(max = 100))]
    pub keep: u32,
    /// Output older than this is let go of: a file whose first line is older is rotated away when the program writes next, and
    /// rotated files whose last line is older are removed then. Default: only the size counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Millis>,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self { max_size: Bytes(10 << 20), keep: 5, max_age: None }
    }
}
