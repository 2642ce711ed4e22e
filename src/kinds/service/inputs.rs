//! From a spec and the texts it names to what exactly is run: argument vector, environment, probe, policy, row. Pure, so that
//! plan, validate and the real start agree to the letter.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::health::{self, Probing, Programs};
use super::module::Module;
use super::spec::{Port, ServiceSpec};
use crate::kinds::path::tidy;
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::route::Exposure;
use crate::model::secret::Secret;
use crate::ports::keeper::{Confinement, Launch, Policy, Restart};
use crate::ports::machine::Account;
use crate::ports::probes::Ask;

/// What a service is started with, apart from its own document.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    pub name: &'a Name,
    pub spec: &'a ServiceSpec,
    pub module: Option<&'a Module>,
    /// The folder that relative paths start from.
    pub folder: &'a Path,
    /// The hub's origin, and all origins under which it is reached.
    pub origin: &'a str,
    pub origins: &'a str,
    /// `PARACHUTE_HOME`.
    pub home: &'a Path,
    /// The service's port; assigned already when the spec says `auto`.
    pub port: Option<u16>,
}

/// Texts and paths that were looked up for the spec.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub program: PathBuf,
    /// The same for exec probes.
    pub probe_programs: Programs,
    pub inherited: Vec<(String, String)>,
    /// Variables of the envFiles, later files over earlier ones.
    pub file_env: BTreeMap<String, String>,
    /// The digests of `files`, by name.
    pub files: BTreeMap<String, Digest>,
    /// The program of a reload command.
    pub reload_program: Option<PathBuf>,
    pub secret_env: BTreeMap<String, Secret>,
    /// Secrets that were not asked for now, and what is taken for their part: a launch with these is only for comparing.
    pub assumed: BTreeMap<String, Digest>,
    pub rights: Rights,
}

/// As whom a service runs and with which limits, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The user it names, if that one has an entry.
    pub account: Option<Account>,
    pub confinement: Confinement,
}

/// Everything that a start needs, and how to tell what changed since the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    pub launch: Launch,
    /// Keyed digest of each part of the launch: `command`, `env.LOG_LEVEL`, `secretEnv.API_KEY`, `port`. Two launches with the
    /// same parts are the same launch.
    pub parts: BTreeMap<String, Digest>,
    pub port: Option<u16>,
    pub policy: Policy,
    pub probing: Probing,
    /// How it is told that its files changed, and what they are now.
    pub reload: Option<Reload>,
    pub row: Option<WantedRow>,
}

/// Telling a program to read its files again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    pub way: ReloadWay,
    /// Of all files together.
    pub files: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadWay {
    Signal(i32),
    Exec(Ask),
}

/// The row in services.json as this service wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRow {
    pub name: String,
    /// Fields that are ours: put back when they drift.
    pub fields: Map<String, Value>,
    /// Fields that only a row made by us starts with.
    pub seed: Map<String, Value>,
}

/// The version of a row written before the module's first start (contract of services.json).
const SEED_VERSION: &str = "0.0.0-linked";

/// The argument vector as declared, before looking anything up.
pub fn argv<'a>(spec: &'a ServiceSpec, module: Option<&'a Module>) -> &'a [String] {
    match (&spec.command, module) {
        (Some(command), _) => command,
        (None, Some(module)) => module.start_cmd.as_deref().unwrap_or_default(),
        (None, None) => &[],
    }
}

/// The folder the program starts in.
pub fn working_dir(spec: &ServiceSpec, folder: &Path) -> PathBuf {
    let relative = spec.working_dir.as_deref().or(spec.module.as_deref()).unwrap_or(".");
    tidy(&folder.join(relative))
}

/// The fixed port the service asks for, or `None` when it wants one chosen or has none.
pub fn fixed_port(spec: &ServiceSpec, module: Option<&Module>) -> Option<u16> {
    match spec.port {
        Some(Port::Fixed(port)) => Some(port),
        Some(Port::Auto(_)) => None,
        None => module.map(|m| m.port),
    }
}

/// Whether the service wants a port chosen for it.
pub fn wants_auto_port(spec: &ServiceSpec) -> bool {
    matches!(spec.port, Some(Port::Auto(_)))
}

/// Puts everything together. `key` keys the digests, because secrets are among what is digested.
pub fn resolve(setting: &Setting<'_>, found: &Found, key: &[u8; 32]) -> Inputs {
    let spec = setting.spec;
    let argv = argv(spec, setting.module).to_vec();
    let dir = working_dir(spec, setting.folder);
    let mut parts = BTreeMap::new();
    let mut part = |name: String, value: &str| {
        parts.insert(name.clone(), Digest::keyed(key, format!("{name}\0{value}").as_bytes()));
    };
    // The word `trueup` stands for whichever binary of ours runs: another path to it is no change.
    let program = if argv.first().is_some_and(|word| word == "trueup") {
        "trueup".into()
    } else {
        found.program.to_string_lossy()
    };
    part("command".to_owned(), &format!("{program}\0{}", argv.join("\0")));
    part("workingDir".to_owned(), &dir.to_string_lossy());

    let mut env: BTreeMap<String, Secret> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        env.insert(name.to_owned(), Secret::new(value.to_owned()));
    };
    // What is inherited is not digested: a login shell and a service manager differ in it, and that is no change.
    for (name, value) in &found.inherited {
        set(name, value);
    }
    if let Some(account) = &found.rights.account {
        for (name, value) in [("HOME", &account.home), ("USER", &account.name), ("LOGNAME", &account.name)] {
            set(name, value);
        }
    }
    for (name, value) in hub_variables(setting) {
        part(format!("hub.{name}"), &value);
        set(name, &value);
    }
    // It follows from the origins, and is digested with them: where modules fetch the hub's keys without leaving this machine.
    if let Some(near) = setting.origins.split(',').find(|origin| origin.starts_with("http://127.0.0.1:")) {
        set("PARACHUTE_HUB_LOOPBACK", near);
    }
    for (name, value) in &found.file_env {
        part(format!("envFile.{name}"), value);
        set(name, value);
    }
    for (name, value) in &spec.env {
        part(format!("env.{}", name.0), value);
        set(&name.0, value);
    }
    for (name, value) in &found.secret_env {
        part(format!("secretEnv.{name}"), value.reveal());
        set(name, value.reveal());
    }
    if let Some(port) = setting.port {
        part("port".to_owned(), &port.to_string());
        set("PORT", &port.to_string());
    }

    let policy = policy(spec);
    if let Some(notify) = &policy.notify {
        // It is told by its environment.
        part("notify".to_owned(), &notify.watchdog.map(|w| w.to_string()).unwrap_or_default());
    }
    for (name, value) in confinement_parts(spec, &found.rights) {
        part(name, &value);
    }

    for (name, digest) in found.files.iter().filter(|_| spec.reload.is_none()) {
        part(format!("files.{name}"), digest.as_str());
    }

    let listen = setting.port.filter(|_| spec.pass_socket).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    if listen.is_some() {
        part("passSocket".to_owned(), "");
    }

    parts.extend(found.assumed.iter().map(|(name, digest)| (format!("secretEnv.{name}"), digest.clone())));

    let whole: String = parts.iter().map(|(name, digest)| format!("{name}={digest}\n")).collect();
    let launch = Launch {
        program: found.program.clone(),
        argv,
        dir,
        env,
        confinement: found.rights.confinement.clone(),
        listen,
        digest: Digest::keyed(key, whole.as_bytes()),
    };
    let probing = health::probing(setting, found, &launch);
    let reload = reload(setting, found, &launch, key);
    Inputs { parts, port: setting.port, policy, probing, reload, row: row(setting), launch }
}

fn reload(setting: &Setting<'_>, found: &Found, launch: &Launch, key: &[u8; 32]) -> Option<Reload> {
    let declared = setting.spec.reload.as_ref()?;
    let way = match (&declared.signal, &declared.exec) {
        (Some(signal), _) => ReloadWay::Signal(signal.number()),
        (None, Some(exec)) => ReloadWay::Exec(Ask::Exec {
            program: found.reload_program.clone()?,
            argv: exec.command.clone(),
            dir: launch.dir.clone(),
            env: launch.env.clone(),
            confinement: Box::new(launch.confinement.clone()),
        }),
        (None, None) => return None,
    };
    let all: String = found.files.iter().map(|(name, digest)| format!("{name}\0{digest}\0")).collect();
    Some(Reload { way, files: Digest::keyed(key, all.as_bytes()) })
}

/// What needs a restart when it changes. The groups that a user is in by itself are taken as they are at a start, as at a login.
fn confinement_parts(spec: &ServiceSpec, rights: &Rights) -> Vec<(String, String)> {
    let Confinement { gid, groups, nice, umask, rlimits, .. } = &rights.confinement;
    let mut parts = Vec::new();
    if let Some(user) = &spec.user {
        let own = rights.account.as_ref().map(|account| (account.uid, account.gid));
        parts.push(("user".to_owned(), format!("{} {own:?}", user.0)));
    }
    if let Some(group) = &spec.group {
        parts.push(("group".to_owned(), format!("{} {gid:?}", group.0)));
    }
    if spec.supplementary_groups.is_some() {
        parts.push(("supplementaryGroups".to_owned(), format!("{groups:?}")));
    }
    let numbers = [("nice", nice.map(i64::from)), ("umask", umask.map(i64::from))];
    let given = numbers.into_iter().filter_map(|(name, value)| Some((name, value?)));
    parts.extend(given.map(|(name, value)| (format!("resources.{name}"), value.to_string())));
    let limits = rlimits.iter().map(|(limit, bounds)| (limit.as_str(), format!("{:?} {:?}", bounds.soft, bounds.hard)));
    parts.extend(limits.map(|(name, value)| (format!("resources.rlimits.{name}"), value)));
    parts
}

/// The variables that every module gets (contract of the hub's spawn request).
fn hub_variables(setting: &Setting<'_>) -> [(&'static str, String); 3] {
    [
        ("PARACHUTE_HOME", setting.home.to_string_lossy().into_owned()),
        ("PARACHUTE_HUB_ORIGIN", setting.origin.to_owned()),
        ("PARACHUTE_HUB_ORIGINS", setting.origins.to_owned()),
    ]
}

fn policy(spec: &ServiceSpec) -> Policy {
    let restart = &spec.restart;
    Policy {
        restart: Restart {
            when: restart.policy.into(),
            initial: restart.backoff.initial,
            max: restart.backoff.max,
            factor: restart.backoff.factor,
            limit: restart.limit.count,
            window: restart.limit.window,
            reset_after: restart.reset_after,
            success: restart.success_codes.clone(),
            fatal: restart.fatal_codes.clone(),
        },
        stop_signal: spec.stop.signal.number(),
        stop_grace: spec.stop.grace,
        log_max_size: spec.logs.max_size,
        log_keep: spec.logs.keep,
        log_max_age: spec.logs.max_age,
        notify: health::notify(spec),
        ceilings: spec.resources.ceilings(),
    }
}

/// The name of the service's row, if it has one.
pub fn row_name<'a>(spec: &'a ServiceSpec, module: Option<&'a Module>) -> Option<&'a str> {
    spec.registers_as.as_deref().or_else(|| module.map(|m| m.manifest_name.as_str()))
}

fn row(setting: &Setting<'_>) -> Option<WantedRow> {
    let name = row_name(setting.spec, setting.module)?;
    let port = setting.port?;
    let mut fields = Map::new();
    fields.insert("port".to_owned(), json!(port));
    let mut seed = Map::new();
    let declared: Vec<&str> = setting.spec.routes.iter().map(|r| r.path.as_str()).collect();
    let paths = if declared.is_empty() {
        setting.module.map(|m| m.paths.iter().map(String::as_str).collect()).unwrap_or_default()
    } else {
        declared
    };
    seed.insert("paths".to_owned(), json!(paths));
    let health = match (setting.spec.readiness.as_ref().and_then(|r| r.http.as_ref()), setting.module) {
        (Some(http), _) => http.path.clone(),
        (None, Some(module)) => module.health.clone(),
        (None, None) => "/health".to_owned(),
    };
    seed.insert("health".to_owned(), json!(health));
    seed.insert("version".to_owned(), json!(SEED_VERSION));
    if setting.spec.module.is_some() {
        seed.insert("installDir".to_owned(), json!(working_dir(setting.spec, setting.folder)));
    }
    if let Some(route) = setting.spec.routes.first() {
        seed.insert("stripPrefix".to_owned(), json!(route.strip_prefix));
        seed.insert("websocket".to_owned(), json!(route.websocket));
        if route.exposure != Exposure::Allowed {
            seed.insert("publicExposure".to_owned(), json!(route.exposure));
        }
    }
    Some(WantedRow { name: name.to_owned(), fields, seed })
}

/// A line of an envFile that is not `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    pub line: usize,
    pub text: String,
}

/// Reads an envFile: `KEY=VALUE` lines, empty lines and `#` comments, one pair of matching quotes around a value removed; no
/// `export`, no expansion, no inline comments (the dialect that the modules' own `.env` files use).
///
/// # Errors
/// Every line that is not of that form.
pub fn env_file(text: &str) -> Result<Vec<(String, String)>, Vec<BadLine>> {
    let mut out = Vec::new();
    let mut bad = Vec::new();
    for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), unquote(value.trim())));
        match pair {
            Some((name, value)) if is_env_name(name) => out.push((name.to_owned(), value.to_owned())),
            // The text is not quoted back: it may be half a secret.
            _ => bad.push(BadLine { line: index + 1, text: "not of the form KEY=VALUE".to_owned() }),
        }
    }
    if bad.is_empty() { Ok(out) } else { Err(bad) }
}

fn is_env_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unquote(value: &str) -> &str {
    let quoted = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}
