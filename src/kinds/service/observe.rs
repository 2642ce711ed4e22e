//! What is seen of a Service: its unit at the keeper, its inputs, who listens on its port, its row, its probe's last word.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::health::{self, Health, Programs};
use super::inputs::{self, Found, Inputs, Setting, WantedRow};
use super::rights::rights;
use super::scheduled::Past;
use super::trial::{Proven, Refused};
use crate::document::Document;
use crate::kinds::path::tidy;
use crate::kinds::secret::{SecretRef, secret};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::observed::Observed;
use crate::model::problem::{Code, Problem};
use crate::model::secret::Secret;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::Look;
use crate::ports::files::{FileError, Program};
use crate::ports::keeper::{Phase, Unit};
use crate::ports::probes::{Ask, Verdict};
use crate::ports::registry::Row;
use crate::ports::sockets::Holder;

/// How we find a service again, and what it was last started with. The only stored type of this kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The port it was given; an `auto` port is chosen once and stays.
    pub port: Option<u16>,
    /// See [`Inputs::parts`].
    pub parts: BTreeMap<String, Digest>,
    /// The process started last: pid and start time (clock ticks since boot).
    pub process: Option<(u32, u64)>,
    /// The module.json it was started with: path and text.
    pub module: Option<(PathBuf, String)>,
    /// The row in services.json that we keep.
    pub row: Option<String>,
    /// The PARACHUTE_HOME in which that row stands.
    pub home: Option<String>,
    /// The files that its process was started with or told of last (see [`inputs::Reload`]).
    pub reloaded: Option<Digest>,
    /// The last version that was ready, for a service that can go back to it.
    pub proven: Option<Box<Proven>>,
    /// The version that was not ready in time.
    pub refused: Option<Refused>,
    /// What is past of its schedule, if it runs by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
}

/// Who is on a service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortHolder {
    /// Nobody, or the service itself.
    Fine,
    /// Another service of ours, which will be corrected by its own plan.
    Unit(String),
    /// Somebody else. Never stopped.
    Stranger(Holder),
    /// The socket tables could not be read.
    Unknown(String),
}

/// The service's row in services.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowState {
    /// It has none, or it is as wanted.
    Fine,
    Missing(WantedRow),
    /// It says another port; the text is what it says.
    Drifted(WantedRow, String),
    /// It says another port, and another row holds the wanted one: surfaced, not overwritten.
    Conflict(String),
    Unknown(String),
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub unit: Option<Unit>,
    /// `None` for a service that is only to be stopped: what it would be started with does not matter then.
    pub inputs: Option<Result<Inputs, Box<Problem>>>,
    pub holder: PortHolder,
    /// Ports on which the service's own processes listen; empty when unknown.
    pub listens: Vec<u16>,
    pub row: RowState,
    /// The row that it had under another name, still there and wanted by nobody.
    pub old_row: Option<String>,
    pub health: Health,
    /// How long its process has been up.
    pub uptime: Millis,
}

/// Looks at one service.
pub fn observe(look: &Look<'_>, document: &Document, setting: &Setting<'_>, now: Tick) -> Observed<State> {
    let units = match &look.facts.units {
        Ok(units) => units,
        Err(error) => return Observed::Unknown(format!("the keeper did not answer: {error}")),
    };
    let unit = units.iter().find(|u| u.name == *setting.name).cloned();
    let inputs = resolve(look, document, setting).map_err(Box::new);
    let group = unit.as_ref().and_then(|u| u.process.as_ref()).map(|p| p.pid);
    let (holder, listens) = port_facts(look, units, setting, group);
    let (row, old_row) = match &inputs {
        Ok(inputs) => rows(look, setting.name, inputs.row.as_ref()),
        Err(_) => (RowState::Fine, None),
    };
    let uptime = unit.as_ref().and_then(|u| u.process.as_ref()).map_or(Millis(0), |p| p.uptime(now));
    let mut health = health::health(look, setting.name, unit.as_ref(), uptime, Some(&inputs));
    if inputs.is_err() && unit.as_ref().is_some_and(|u| u.phase == Phase::Running && (u.ready || !has_probe(setting))) {
        // It is not asked any more, because nobody knows how; what it said last stands for as long as it runs.
        health.verdict = Verdict::Good;
    }
    let half_known = setting.spec.secret_env.values().any(|from| is_assumed(look, from));
    if half_known && asks_program(&inputs) && unit.as_ref().is_some_and(|unit| unit.ready) {
        // Its probe is a program that may need the secret; what it said last stands.
        health.verdict = Verdict::Good;
    }
    Observed::Present(State { unit, inputs: Some(inputs), holder, listens, row, old_row, health, uptime })
}

fn asks_program(inputs: &Result<Inputs, Box<Problem>>) -> bool {
    let readiness = inputs.as_ref().ok().and_then(|inputs| inputs.probing.readiness.as_ref());
    matches!(readiness, Some(health::Way::Ask(probe)) if matches!(probe.ask, Ask::Exec { .. }))
}

/// Whether it would be asked whether it is ready.
fn has_probe(setting: &Setting<'_>) -> bool {
    setting.spec.readiness.is_some() || setting.spec.port.is_some() || setting.module.is_some()
}

/// What is seen of a service that is only to be stopped: its unit is all that matters.
pub fn observe_unit(look: &Look<'_>, name: &Name, now: Tick) -> Observed<State> {
    let unit = match &look.facts.units {
        Err(error) => return Observed::Unknown(format!("the keeper did not answer: {error}")),
        Ok(units) => units.iter().find(|u| u.name == *name).cloned(),
    };
    let Some(unit) = unit else { return Observed::Absent };
    Observed::Present(State {
        uptime: unit.process.as_ref().map_or(Millis(0), |p| p.uptime(now)),
        unit: Some(unit),
        inputs: None,
        holder: PortHolder::Fine,
        listens: Vec::new(),
        row: RowState::Fine,
        old_row: None,
        health: Health::unknown(),
    })
}

fn port_facts(look: &Look<'_>, units: &[Unit], setting: &Setting<'_>, group: Option<u32>) -> (PortHolder, Vec<u16>) {
    let port = setting.port;
    let listeners = match &look.facts.listeners {
        Ok(listeners) => listeners,
        Err(error) => return (PortHolder::Unknown(error.to_string()), Vec::new()),
    };
    let mut listens = group.map(|g| listeners.of_group(g)).unwrap_or_default();
    let by_keeper = |port: u16| {
        let holders = listeners.by_port.get(&port).map(Vec::as_slice).unwrap_or_default();
        holders.iter().find_map(|holder| door(units, holder, port, setting.name, &look.facts.kept_ports))
    };
    if let Some((port, unit)) = port.and_then(|port| Some((port, by_keeper(port)?))) {
        if unit.name != *setting.name {
            return (PortHolder::Unit(unit.name.to_string()), listens);
        }
        listens.push(port);
        return (PortHolder::Fine, listens);
    }
    let Some(foreign) = port.and_then(|p| listeners.foreign(p, group)) else {
        return (PortHolder::Fine, listens);
    };
    let holder_group = foreign.pid.and_then(|pid| listeners.groups.get(&pid));
    let sibling = units.iter().find(|u| u.process.as_ref().is_some_and(|p| Some(&p.pid) == holder_group));
    let holder = match sibling {
        Some(unit) => PortHolder::Unit(unit.name.to_string()),
        None => PortHolder::Stranger(foreign.clone()),
    };
    (holder, listens)
}

/// Whose socket it is that the keeper holds on this port: that of the unit that was given this port. What nobody was given is most
/// likely a socket that is about to be closed, of another unit that has just been given another port.
fn door<'a>(
    units: &'a [Unit],
    holder: &Holder,
    port: u16,
    name: &Name,
    given: &BTreeMap<Name, u16>,
) -> Option<&'a Unit> {
    let held = || units.iter().filter(|unit| holder.pid.is_some() && unit.held_by == holder.pid);
    held()
        .find(|unit| given.get(&unit.name) == Some(&port))
        .or_else(|| held().find(|unit| (unit.name == *name) != given.contains_key(&unit.name)))
        .or_else(|| held().next())
}

/// How its row stands, and the row that it had before under another name.
fn rows(look: &Look<'_>, name: &Name, wanted: Option<&WantedRow>) -> (RowState, Option<String>) {
    let rows = match &look.facts.rows {
        Ok(rows) => rows,
        Err(error) => return (RowState::Unknown(error.to_string()), None),
    };
    let renamed = |old: &&String| wanted.is_none_or(|row| row.name != **old);
    let unwanted = |old: &&String| !look.facts.wanted_rows.contains_key(*old) && rows.iter().any(|r| r.name == **old);
    let old = look.facts.kept_rows.get(name).filter(renamed).filter(unwanted);
    let state = wanted.map_or(RowState::Fine, |wanted| row_state(look, rows, wanted, old));
    (state, old.cloned())
}

fn row_state(look: &Look<'_>, rows: &[Row], wanted: &WantedRow, old: Option<&String>) -> RowState {
    let port = wanted.fields.get("port").and_then(Value::as_u64);
    // A row of ours that is itself to say something else is put right too, so it is in nobody's way.
    let stays = |row: &Row| look.facts.wanted_rows.get(&row.name).is_none_or(|wants| Some(u64::from(*wants)) == port);
    let other = rows
        .iter()
        .find(|r| r.name != wanted.name && r.port.map(u64::from) == port && Some(&r.name) != old && stays(r));
    match (rows.iter().find(|r| r.name == wanted.name), other) {
        // Readers of the file skip a later row that repeats a port, so this concerns us even if our own row is right.
        (_, Some(other)) => RowState::Conflict(other.name.clone()),
        (Some(row), _) if row.port.map(u64::from) == port => RowState::Fine,
        (None, None) => RowState::Missing(wanted.clone()),
        (Some(row), None) => {
            let says = row.port.map_or_else(|| "no port".to_owned(), |p| format!("port {p}"));
            RowState::Drifted(wanted.clone(), says)
        }
    }
}

/// Looks up everything the spec names and puts it together. The first thing missing is the problem.
fn resolve(look: &Look<'_>, document: &Document, setting: &Setting<'_>) -> Result<Inputs, Problem> {
    if setting.port.is_none() && inputs::wants_auto_port(setting.spec) {
        let message = "every port that it could be given is taken".to_owned();
        return Err(Problem::error(Code::NoFreePort, document.value_at("/spec/port"), message)
            .hint("widen spec.portRange of the Hub, or write a port number here; `ss -ltn` shows who listens"));
    }
    let found = Found {
        program: program(look, document, setting)?,
        probe_programs: probe_programs(look, document, setting)?,
        inherited: inherited(look),
        files: files(look, document, setting)?,
        reload_program: reload_program(look, document, setting)?,
        file_env: file_env(look, document, setting)?,
        secret_env: secret_env(look, document, setting)?,
        assumed: assumed(look, setting),
        rights: rights(look, document, setting.spec)?,
    };
    Ok(inputs::resolve(setting, &found, &look.facts.key))
}

fn inherited(look: &Look<'_>) -> Vec<(String, String)> {
    let place = look.place();
    let path = ("PATH".to_owned(), place.path.clone());
    std::iter::once(path).chain(place.inherited.iter().cloned()).collect()
}

fn program(look: &Look<'_>, document: &Document, setting: &Setting<'_>) -> Result<std::path::PathBuf, Problem> {
    let pointer = if setting.spec.command.is_some() { "/spec/command/0" } else { "/spec/module" };
    let dir = inputs::working_dir(setting.spec, setting.folder);
    if !look.files().is_dir(&dir) {
        let at = if setting.spec.working_dir.is_some() { "/spec/workingDir" } else { pointer };
        let message = format!("the working directory {} does not exist", dir.display());
        return Err(Problem::error(Code::BadWorkingDir, document.value_at(at), message)
            .hint("create it, or change workingDir; it is relative to the file it stands in"));
    }
    let Some(word) = inputs::argv(setting.spec, setting.module).first() else {
        let message = "module.json has no startCmd, and the Service has no command";
        return Err(Problem::error(Code::BadModule, document.value_at(pointer), message)
            .hint("add `command: [program, argument]` to the spec"));
    };
    find_program(look, document, word, &dir, pointer)
}

fn find_program(
    look: &Look<'_>,
    document: &Document,
    word: &str,
    dir: &Path,
    pointer: &str,
) -> Result<std::path::PathBuf, Problem> {
    match look.files().program(word, dir, &look.place().path) {
        Program::At(path) => Ok(path),
        Program::NotFound => {
            let hint = if word.contains('/') {
                format!("a path with '/' is relative to the working directory {}", dir.display())
            } else {
                let folders = look.place().path.split(':').filter(|folder| !folder.is_empty()).count();
                format!("none of the {folders} folders of PATH has it: install it, or write its whole path")
            };
            let message = format!("the command '{word}' was not found");
            Err(Problem::error(Code::CommandNotFound, document.value_at(pointer), message).hint(hint))
        }
        Program::NotExecutable(path) => {
            let message = format!("{} is not executable", path.display());
            Err(Problem::error(Code::NotExecutable, document.value_at(pointer), message)
                .hint(format!("chmod +x {}", path.display())))
        }
    }
}

fn probe_programs(look: &Look<'_>, document: &Document, setting: &Setting<'_>) -> Result<Programs, Problem> {
    let dir = inputs::working_dir(setting.spec, setting.folder);
    let mut programs = Programs::new();
    for (role, field, probe) in health::declared(setting.spec) {
        let Some(word) = probe.exec.as_ref().and_then(|exec| exec.command.first()) else { continue };
        let pointer = format!("/spec/{field}/exec/command/0");
        programs.insert(role, find_program(look, document, word, &dir, &pointer)?);
    }
    Ok(programs)
}

fn file_env(look: &Look<'_>, document: &Document, setting: &Setting<'_>) -> Result<BTreeMap<String, String>, Problem> {
    let mut all = BTreeMap::new();
    for (index, name) in setting.spec.env_file.iter().enumerate() {
        let at = document.value_at(&format!("/spec/envFile/{index}"));
        let path = tidy(&setting.folder.join(name));
        let text = look.files().read(&path).map_err(|error| {
            let message = match error {
                FileError::Missing => format!("the envFile {} does not exist", path.display()),
                FileError::Unreadable(why) => format!("the envFile {} cannot be read: {why}", path.display()),
            };
            Problem::error(Code::BadEnvFile, at.clone(), message)
                .hint("create it, or take it out of envFile; what runs keeps running until then")
        })?;
        let pairs = inputs::env_file(&text).map_err(|bad| {
            let lines: Vec<String> = bad.iter().map(|b| b.line.to_string()).collect();
            let message = format!("{}: line {} is not of the form KEY=VALUE", path.display(), lines.join(", "));
            Problem::error(Code::BadEnvFile, at.clone(), message)
                .hint("one KEY=VALUE a line; empty lines and # comments are fine; no `export`")
        })?;
        all.extend(pairs);
    }
    Ok(all)
}

fn files(look: &Look<'_>, document: &Document, setting: &Setting<'_>) -> Result<BTreeMap<String, Digest>, Problem> {
    let mut all = BTreeMap::new();
    for (index, name) in setting.spec.files.iter().enumerate() {
        let path = tidy(&setting.folder.join(name));
        let digest = look.files().fingerprint(&path).map_err(|error| {
            let message = match error {
                FileError::Missing => format!("the file {} does not exist", path.display()),
                FileError::Unreadable(why) => format!("the file {} cannot be read: {why}", path.display()),
            };
            Problem::error(Code::BadFile, document.value_at(&format!("/spec/files/{index}")), message)
                .hint("create it, or take it out of `files`; what runs keeps running until then")
        })?;
        all.insert(name.clone(), digest);
    }
    Ok(all)
}

fn reload_program(look: &Look<'_>, document: &Document, setting: &Setting<'_>) -> Result<Option<PathBuf>, Problem> {
    let exec = setting.spec.reload.as_ref().and_then(|reload| reload.exec.as_ref());
    let Some(word) = exec.and_then(|exec| exec.command.first()) else { return Ok(None) };
    let dir = inputs::working_dir(setting.spec, setting.folder);
    find_program(look, document, word, &dir, "/spec/reload/exec/command/0").map(Some)
}

fn secret_env(
    look: &Look<'_>,
    document: &Document,
    setting: &Setting<'_>,
) -> Result<BTreeMap<String, Secret>, Problem> {
    let mut all = BTreeMap::new();
    for (name, from) in &setting.spec.secret_env {
        if is_assumed(look, from) {
            continue;
        }
        let value = secret(look, from, setting.folder).map_err(|(why, hint)| {
            let at = document.value_at(&format!("/spec/secretEnv/{}", name.0));
            Problem::error(Code::BadSecret, at, format!("the secret {} could not be had: {why}", name.0)).hint(hint)
        })?;
        all.insert(name.0.clone(), value);
    }
    Ok(all)
}

/// A glance does not ask commands.
fn is_assumed(look: &Look<'_>, from: &SecretRef) -> bool {
    look.facts.remembered.is_some() && from.command.is_some()
}

/// What stands for the secrets that are not asked for: their parts at the last start. What was never started has none to differ from.
fn assumed(look: &Look<'_>, setting: &Setting<'_>) -> BTreeMap<String, Digest> {
    let parts = look.facts.remembered.as_ref().and_then(|all| all.get(setting.name));
    let part = |name: &str| parts.and_then(|parts| parts.get(&format!("secretEnv.{name}"))).cloned();
    let names = setting.spec.secret_env.iter().filter(|(_, from)| is_assumed(look, from)).map(|(name, _)| &name.0);
    names.map(|name| (name.clone(), part(name).unwrap_or_else(|| Digest::of(b"")))).collect()
}
