//! How a service is found to be starting, ready and well: from its spec to probes, and from their answers to one word.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::inputs::{Found, Inputs, Setting};
use super::spec::{ProbeSpec, ServiceSpec};
use crate::model::id::Name;
use crate::model::problem::Problem;
use crate::model::unit::Millis;
use crate::ports::Look;
use crate::ports::keeper::{Launch, Notify, Phase, Unit};
use crate::ports::probes::{Ask, Probe, Role, Verdict};

/// How often the port of a ready service is asked when no probe is declared. That a process ended the keeper says at once; a connection
/// tells only of one that lives and does not listen any more, which is rare. Each wakes the module and us, so a thousand services asked
/// every 5 s would keep a percent of a core busy.
const PORT_PERIOD: Millis = Millis(30_000);

/// How one of the three questions is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By asking.
    Ask(Probe),
    /// The module says it itself; the keeper hears it.
    Notify,
}

/// The three questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probing {
    pub startup: Option<Way>,
    pub readiness: Option<Way>,
    pub liveness: Option<Way>,
}

/// What is known of a running service's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its startup probe has not passed; what it said last.
    pub starting: Option<String>,
    /// The word of its readiness probe.
    pub verdict: Verdict,
    /// It must be restarted, because of this.
    pub unwell: Option<String>,
}

impl Health {
    /// Nothing is known yet.
    pub fn unknown() -> Self {
        Self { starting: None, verdict: Verdict::Pending, unwell: None }
    }
}

/// Each probe of a spec, with the role it plays and the name of its field.
pub fn declared(spec: &ServiceSpec) -> impl Iterator<Item = (Role, &'static str, &ProbeSpec)> {
    let all = [
        (Role::Startup, "startup", &spec.startup),
        (Role::Readiness, "readiness", &spec.readiness),
        (Role::Liveness, "liveness", &spec.liveness),
    ];
    all.into_iter().filter_map(|(role, field, probe)| Some((role, field, probe.as_ref()?)))
}

/// The questions as declared. Readiness without a probe of its own: the module's health path; else the port; else none
/// (running is ready).
pub fn probing(setting: &Setting<'_>, found: &Found, launch: &Launch) -> Probing {
    let mut probing = Probing::default();
    for (role, _, declared) in declared(setting.spec) {
        let way = if declared.notify.is_some() {
            Some(Way::Notify)
        } else {
            ask(role, declared, setting, found, launch).map(|ask| Way::Ask(probe(role, declared, ask)))
        };
        *slot(&mut probing, role) = way;
    }
    if setting.spec.readiness.is_none() {
        let ask = match (setting.port, setting.module) {
            (Some(port), Some(module)) => {
                Some(Ask::Http { port, path: module.health.clone(), headers: BTreeMap::new() })
            }
            (Some(port), None) => Some(Ask::Tcp { port }),
            (None, _) => None,
        };
        let default = match ask {
            Some(Ask::Tcp { .. }) => ProbeSpec { period: PORT_PERIOD, failure_threshold: 2, ..ProbeSpec::default() },
            _ => ProbeSpec::default(),
        };
        probing.readiness = ask.map(|ask| Way::Ask(probe(Role::Readiness, &default, ask)));
    }
    probing
}

fn slot(probing: &mut Probing, role: Role) -> &mut Option<Way> {
    match role {
        Role::Startup => &mut probing.startup,
        Role::Readiness => &mut probing.readiness,
        Role::Liveness => &mut probing.liveness,
    }
}

fn ask(role: Role, declared: &ProbeSpec, setting: &Setting<'_>, found: &Found, launch: &Launch) -> Option<Ask> {
    let own = setting.port;
    if let Some(http) = &declared.http {
        Some(Ask::Http { port: http.port.or(own)?, path: http.path.clone(), headers: http.headers.clone() })
    } else if let Some(tcp) = &declared.tcp {
        Some(Ask::Tcp { port: tcp.port.or(own)? })
    } else if let Some(exec) = &declared.exec {
        Some(Ask::Exec {
            program: found.probe_programs.get(&role)?.clone(),
            argv: exec.command.clone(),
            dir: launch.dir.clone(),
            env: launch.env.clone(),
            confinement: Box::new(launch.confinement.clone()),
        })
    } else {
        None
    }
}

fn probe(role: Role, declared: &ProbeSpec, ask: Ask) -> Probe {
    Probe {
        role,
        ask,
        delay: declared.initial_delay,
        period: declared.period.max(Millis(100)),
        timeout: declared.timeout.max(Millis(1)),
        success_threshold: declared.success_threshold,
        failure_threshold: declared.failure_threshold,
        patience: declared.patience(),
    }
}

/// What the keeper must know of a module that speaks for itself.
pub fn notify(spec: &ServiceSpec) -> Option<Notify> {
    let limit = |probe: &Option<ProbeSpec>| probe.as_ref().filter(|p| p.notify.is_some()).map(ProbeSpec::patience);
    let ready = spec.readiness.as_ref().is_some_and(|p| p.notify.is_some());
    let (start, watchdog) = (limit(&spec.startup), limit(&spec.liveness));
    (ready || start.is_some() || watchdog.is_some()).then_some(Notify { start, watchdog })
}

/// What is known of the process that runs now, which has been up for `uptime`. Asking for it starts the probes.
pub fn health(
    look: &Look<'_>,
    name: &Name,
    unit: Option<&Unit>,
    uptime: Millis,
    inputs: Option<&Result<Inputs, Box<Problem>>>,
) -> Health {
    let running = unit.filter(|u| u.phase == Phase::Running).and_then(|u| Some((u, u.process.as_ref()?.pid)));
    match (running, inputs) {
        (Some((unit, pid)), Some(Ok(inputs))) => asked(look, name, unit, (pid, uptime), &inputs.probing),
        // The inputs are broken: what runs was started with earlier ones, so its probe goes on unasked.
        (Some(_), _) => Health::unknown(),
        (None, _) => {
            look.probes().drop_probe(name);
            Health::unknown()
        }
    }
}

fn asked(look: &Look<'_>, name: &Name, unit: &Unit, (pid, age): (u32, Millis), probing: &Probing) -> Health {
    // What was ready has started, whoever asks now.
    let starting = match &probing.startup {
        Some(Way::Ask(probe)) if !unit.ready => Some((look.probes().watch(name, pid, age, probe), probe.patience)),
        Some(Way::Notify) if !unit.notified => Some((Verdict::Pending, Millis(0))),
        _ => None,
    };
    match starting {
        None | Some((Verdict::Good, _)) => {}
        Some((Verdict::Pending, _)) => {
            let starting = Some("its startup probe has not passed yet".to_owned());
            return Health { starting, ..Health::unknown() };
        }
        Some((Verdict::Bad(why), patience)) => {
            let unwell = look.probes().exhausted(name, Role::Startup);
            let starting = Some(format!("its startup probe has not passed yet: {why}"));
            let unwell = unwell.then(|| format!("it did not start within {patience}: {why}"));
            return Health { starting, unwell, ..Health::unknown() };
        }
    }
    let verdict = match &probing.readiness {
        Some(Way::Ask(probe)) => look.probes().watch(name, pid, age, probe),
        Some(Way::Notify) if !unit.notified => Verdict::Pending,
        Some(Way::Notify) | None => Verdict::Good,
    };
    let unwell = match &probing.liveness {
        Some(Way::Ask(probe)) => match look.probes().watch(name, pid, age, probe) {
            Verdict::Bad(why) if look.probes().exhausted(name, Role::Liveness) => {
                Some(format!("its liveness probe failed {} times: {why}", probe.failure_threshold))
            }
            _ => None,
        },
        // The keeper watches by itself.
        Some(Way::Notify) | None => None,
    };
    Health { starting: None, verdict, unwell }
}

/// The programs of exec probes, looked up.
pub type Programs = BTreeMap<Role, PathBuf>;
