//! Connections and vaults in a tick: what is seen of them, each vault asked once, and what the hub is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::Engine;
use super::execute::all;
use super::look::Looked;
use crate::desired::{Desired, Resource};
use crate::document::Document;
use crate::kinds::Spec;
use crate::kinds::connection::inputs::{self, Ends, Inputs, Prepare, SinkEnd, Unusable};
use crate::kinds::connection::observe::{Commands, Seen};
use crate::kinds::connection::plan::AtSink;
use crate::kinds::connection::record::{Place, Record};
use crate::kinds::connection::spec::ConnectionSpec;
use crate::kinds::hub::spec::HubSpec;
use crate::kinds::service::check::{effective_routes, mount};
use crate::kinds::service::declares::declared;
use crate::kinds::service::observe::State;
use crate::kinds::trigger::{self, Address, Vault};
use crate::kinds::vault::spec::VaultSpec;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::observed::Observed;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::plan::Leaving;
use crate::plan::connections::address;
use crate::ports::bearers::Holdings;
use crate::ports::files::Program;
use crate::ports::hub::Wiring;
use crate::ports::keeper::Phase;
use crate::ports::peers::{Call, Method};
use crate::ports::probes::Ask;
use crate::ports::store::Owned;
use crate::ports::{Look, PortError};

/// A sink answers from memory.
const SINK_LIMIT: Millis = Millis::secs(2);
/// Whoever did not answer in time is asked again after this, and after longer each time.
const FIRST_PAUSE: Millis = Millis::secs(2);
const LONGEST_PAUSE: Millis = Millis::secs(60);

/// So long after our start a vault may not accept our tokens: it must fetch our keys first, and we must serve them.
const YOUTH: Millis = Millis::secs(10);

/// Vaults that took too long to answer: everything else would wait for them in every tick.
#[derive(Debug, Default)]
pub(super) struct Slow(BTreeMap<Address, (Tick, u32)>);

impl Slow {
    fn holds(&self, at: &Address, now: Tick) -> bool {
        self.0.get(at).is_some_and(|(until, _)| now < *until)
    }

    pub(super) fn note(&mut self, at: &Address, slow: bool, now: Tick) {
        if !slow {
            self.0.remove(at);
            return;
        }
        let (until, count) = self.0.entry(at.clone()).or_insert((now, 0));
        *count = count.saturating_add(1);
        *until = now + Millis(FIRST_PAUSE.0 << (*count - 1).min(5)).min(LONGEST_PAUSE);
    }
}

/// What looking at connections needs of the rest of the look.
pub(super) struct Around<'a> {
    pub desired: &'a Desired,
    pub owned: &'a BTreeMap<ResourceId, Owned>,
    pub leaving: &'a BTreeMap<ResourceId, Leaving>,
    pub services: &'a BTreeMap<Name, Observed<State>>,
    pub ports: &'a BTreeMap<Name, u16>,
    pub hub: &'a HubSpec,
}

impl Engine {
    /// What is seen of connections and vaults; `None` when the tree has nothing to do with any.
    pub(super) async fn look_at_ties(&mut self, look: &Look<'_>, around: &Around<'_>, still: bool) -> Option<Seen> {
        let is_ours = |id: &ResourceId| matches!(id.kind, KindName::Connection | KindName::Vault);
        if !around.desired.resources.keys().chain(around.owned.keys()).any(is_ours) {
            self.memory.renew.clear();
            return None;
        }
        self.world.bearers.set_origins(&around.hub.effective_origin(), &around.hub.origins());
        let inputs = resolve(around);
        self.memory.renew.retain(|name| inputs.contains_key(name));
        let holdings = self.world.bearers.holdings().map_err(|error| error.to_string());
        let records: BTreeMap<&Name, Record> = around
            .owned
            .iter()
            .filter(|(id, _)| id.kind == KindName::Connection)
            .map(|(id, owned)| (&id.name, Record::read(&owned.record)))
            .collect();
        let vaults = match still {
            true => BTreeMap::new(),
            false => self.look_at_vaults(around, addresses(around, &inputs, &records)).await,
        };
        if !still {
            let specs = around.desired.resources.iter().filter_map(|(id, r)| Some((&id.name, r.spec.as_connection()?)));
            self.look_for_stuck(&inputs, &specs.collect(), &vaults).await;
        }
        let at_sink = match still {
            true => BTreeMap::new(),
            false => self.look_at_sinks(&inputs, &records).await,
        };
        Some(Seen {
            own: own(holdings.as_deref().ok()),
            wished: wished(around, &inputs, self.world.clock.wall()),
            services: services(around),
            kept: kept(around),
            vaults,
            holdings,
            at_sink,
            tallies: self.world.deliveries.tallies().unwrap_or_default(),
            stuck: self.memory.stuck.clone(),
            commands: commands(look, around),
            young: self.is_young(),
            renew: self.memory.renew.clone(),
            inputs,
        })
    }

    fn is_young(&mut self) -> bool {
        let now = self.world.clock.now();
        (now - *self.born.get_or_insert(now)) < YOUTH
    }

    /// Asks every vault for its triggers, all at the same time.
    async fn look_at_vaults(&mut self, around: &Around<'_>, all_of: BTreeSet<Address>) -> BTreeMap<Address, Vault> {
        let now = self.world.clock.now();
        let mut vaults = BTreeMap::new();
        let mut asked = Vec::new();
        for at in all_of {
            match call_of(around, &at) {
                Ok(port) if !self.slow.holds(&at, now) => match self.admin_token(&at) {
                    Ok(bearer) => asked.push((at.clone(), trigger::list(port, &at, &bearer))),
                    Err(error) => drop(vaults.insert(at, Vault::Unknown(error.to_string()))),
                },
                Ok(_) => drop(vaults.insert(at, Vault::Unknown("it does not answer in time".to_owned()))),
                Err(why) => drop(vaults.insert(at, Vault::Unknown(why))),
            }
        }
        let answers = all(asked.iter().map(|(_, call)| self.world.peers.call(call.clone()))).await;
        for ((at, _), answer) in asked.into_iter().zip(answers) {
            self.slow.note(&at, matches!(answer, Err(PortError::Unsure(_))), now);
            let vault = match answer {
                Ok(reply) => trigger::read_list(&reply),
                Err(error) => Vault::Unknown(error.to_string()),
            };
            vaults.insert(at, vault);
        }
        vaults
    }

    pub(super) fn admin_token(&self, at: &Address) -> Result<crate::model::secret::Secret, PortError> {
        let (scope, audience, pins) = at.admin();
        self.world.bearers.brief(&scope, &audience, &pins)
    }

    /// Whether sinks have what they were told; each list is asked for once.
    async fn look_at_sinks(
        &self,
        inputs: &BTreeMap<Name, Result<Inputs, Unusable>>,
        records: &BTreeMap<&Name, Record>,
    ) -> BTreeMap<Name, AtSink> {
        let told = |name: &Name| records.get(name).and_then(|record| record.prepared.as_ref()).is_some_and(|p| p.done);
        let wished: Vec<(&Name, &Prepare)> = inputs
            .iter()
            .filter_map(|(name, inputs)| Some((name, inputs.as_ref().ok()?.prepare.as_ref()?)))
            .filter(|(name, prepare)| prepare.check.is_some() && told(name))
            .collect();
        let mut lists: BTreeMap<(u16, &str, &str), &Prepare> = BTreeMap::new();
        for (_, prepare) in &wished {
            let Some((path, ..)) = &prepare.check else { continue };
            lists.insert((prepare.port, path, &prepare.scope), prepare);
        }
        let calls = lists.iter().map(|((port, path, scope), prepare)| async move {
            let bearer = self.world.bearers.brief(scope, &prepare.audience, &[]).ok()?;
            let (path, timeout) = ((*path).to_owned(), SINK_LIMIT);
            let call = Call { method: Method::Get, port: *port, path, bearer: Some(bearer), body: None, timeout };
            let reply = self.world.peers.call(call).await.ok().filter(|reply| reply.is_success())?;
            serde_json::from_slice::<serde_json::Value>(&reply.body).ok()
        });
        let answers: Vec<Option<serde_json::Value>> = all(calls).await;
        let answers: BTreeMap<_, _> = lists.keys().copied().zip(answers).collect();
        let state = |prepare: &Prepare| {
            let (path, field, entry) = prepare.check.as_ref()?;
            let answer = answers.get(&(prepare.port, path.as_str(), prepare.scope.as_str()))?.as_ref()?;
            let list = field.as_ref().map_or(Some(answer), |field| answer.get(field))?.as_array()?;
            let is_it = |one: &&serde_json::Value| entry.iter().all(|(key, value)| one.get(key) == Some(value));
            Some(if list.iter().any(|one| is_it(&one)) { AtSink::There } else { AtSink::Missing })
        };
        wished.into_iter().map(|(name, prepare)| (name.clone(), state(prepare).unwrap_or(AtSink::Unknown))).collect()
    }
}

/// What every declared connection comes to.
fn resolve(around: &Around<'_>) -> BTreeMap<Name, Result<Inputs, Unusable>> {
    let hub = around.desired.resources.keys().find(|id| id.kind == KindName::Hub).map(|id| &id.name);
    let base = around.hub.loopback();
    let connections = around.desired.resources.iter().filter_map(|(id, r)| Some((id, r.spec.as_connection()?)));
    let resolve =
        |(id, spec): (&ResourceId, _)| (id.name.clone(), resolve_one(around, hub, base.as_deref(), &id.name, spec));
    connections.map(resolve).collect()
}

fn resolve_one(
    around: &Around<'_>,
    hub: Option<&Name>,
    base: Option<&str>,
    name: &Name,
    spec: &ConnectionSpec,
) -> Result<Inputs, Unusable> {
    let service = |name: &Name| around.desired.resources.get(&ResourceId::service(name));
    let to = spec.sink.as_ref().map(|sink| &sink.service);
    let to = to.or(spec.credential.as_ref().map(|wish| &wish.service));
    let from = spec.source.as_ref().map(|source| &source.service);
    let from = from.or(spec.credential.as_ref().map(|wish| &wish.vault_service));
    let routes = to.and_then(service).map(routes_of).unwrap_or_default();
    let ends = Ends {
        hub,
        base,
        vault_port: from.and_then(|name| around.ports.get(name)).copied(),
        sink: to.and_then(service).map(|resource| sink_end(around, resource, spec, &routes)),
    };
    inputs::resolve(name, spec, &ends)
}

/// Where events of connections go that are owned and not declared: a file that is written anew is missing for a moment, what may not be
/// removed stays, and what is removed has its trigger for a while. None of them may lose an event.
fn kept(around: &Around<'_>) -> BTreeMap<Name, Wiring> {
    let hub = around.desired.resources.keys().find(|id| id.kind == KindName::Hub).map(|id| &id.name);
    let base = around.hub.loopback();
    let gone = |(id, _): &(&ResourceId, &Owned)| {
        id.kind == KindName::Connection && !around.desired.resources.contains_key(*id)
    };
    let wiring = |(id, owned): (&ResourceId, &Owned)| {
        let document = Document::from_stored(&owned.document, PathBuf::from(&owned.base), &owned.source).ok()?;
        let spec = Spec::read(&document, &mut Vec::new())?;
        let spec = spec.as_connection()?;
        let inputs = resolve_one(around, hub, base.as_deref(), &id.name, spec);
        let held = || spec.sink.as_ref().map(|sink| inputs::held(spec, sink));
        Some((id.name.clone(), inputs.ok().and_then(|inputs| inputs.wiring).or_else(held)?))
    };
    around.owned.iter().filter(gone).filter_map(wiring).collect()
}

/// Every trigger that declared connections want now.
fn wished(
    around: &Around<'_>,
    inputs: &BTreeMap<Name, Result<Inputs, Unusable>>,
    now: Timestamp,
) -> BTreeMap<Place, Name> {
    let waits = |name: &Name| {
        let resource = around.desired.resources.get(&ResourceId::new(KindName::Connection, name.clone()));
        resource.and_then(|resource| resource.spec.as_connection()).is_some_and(|spec| spec.suspend.holds(now))
    };
    let place = |(name, inputs): (&Name, &Result<Inputs, Unusable>)| {
        let inputs = inputs.as_ref().ok().filter(|inputs| !(inputs.direct && waits(name)))?;
        let trigger = inputs.wire.as_ref()?.trigger.name.clone();
        Some((Place { at: inputs.at.clone(), trigger }, name.clone()))
    };
    inputs.iter().filter_map(place).collect()
}

/// The live tokens of each connection.
fn own(holdings: Option<&Holdings>) -> BTreeMap<Name, Vec<String>> {
    let mut own: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for (jti, row) in holdings.iter().flat_map(|holdings| &holdings.live) {
        if let Some(name) = inputs::connection_of(&row.client) {
            own.entry(name).or_default().push(jti.clone());
        }
    }
    own
}

fn services(around: &Around<'_>) -> BTreeSet<Name> {
    let all = around.desired.resources.keys().chain(around.owned.keys());
    all.filter(|id| id.kind == KindName::Service).map(|id| id.name.clone()).collect()
}

/// The first mount of a service, and whether it is taken off.
fn routes_of(resource: &Resource) -> Vec<(String, bool)> {
    let Some(spec) = resource.spec.as_service() else { return Vec::new() };
    let routes = effective_routes(spec, resource.module.as_deref());
    // `/.parachute` is where a module speaks of itself.
    let own = routes.iter().filter(|route| !route.path.starts_with("/.parachute"));
    own.map(|route| (mount(&route.path).to_owned(), route.strip_prefix)).collect()
}

fn sink_end<'a>(
    around: &Around<'_>,
    resource: &'a Resource,
    spec: &ConnectionSpec,
    routes: &'a [(String, bool)],
) -> SinkEnd<'a> {
    let Some(service) = resource.spec.as_service() else { return SinkEnd::default() };
    let says = declared(resource.id.name.as_str(), service, resource.module.as_deref());
    let action = spec.sink.as_ref().and_then(|sink| says.action(&sink.action));
    let credential = spec.credential.as_ref().and_then(|wish| says.credential(&wish.key));
    SinkEnd {
        port: around.ports.get(&resource.id.name).copied(),
        space: says.module,
        mount: routes.first().map(|(path, strip)| (path.as_str(), *strip)),
        action: action.and_then(|action| Some((action.endpoint.as_deref()?, action.scope.as_deref()?))),
        credential: credential.map(|credential| (credential.scope.as_str(), credential.endpoint.as_str())),
    }
}

/// Every vault that is to be looked at.
fn addresses(
    around: &Around<'_>,
    inputs: &BTreeMap<Name, Result<Inputs, Unusable>>,
    records: &BTreeMap<&Name, Record>,
) -> BTreeSet<Address> {
    let wished = inputs.values().filter_map(|inputs| Some(inputs.as_ref().ok()?.at.clone()));
    let noted = records.values().flat_map(|record| record.triggers.iter().map(|place| place.at.clone()));
    let declared = around.desired.resources.iter().filter_map(|(id, r)| Some(address(r.spec.as_vault()?, &id.name)));
    let going = around.leaving.iter().filter_map(|(id, leaving)| match &leaving.spec {
        Some(Spec::Vault(spec)) => Some(address(spec, &id.name)),
        _ => None,
    });
    wished.chain(noted).chain(declared).chain(going).collect()
}

/// The port at which a vault can be asked now.
fn call_of(around: &Around<'_>, at: &Address) -> Result<u16, String> {
    let service = ResourceId::service(&at.service);
    let running = match around.services.get(&at.service) {
        Some(Observed::Present(state)) => {
            state.unit.as_ref().is_some_and(|unit| unit.process.is_some() && unit.phase == Phase::Running)
        }
        Some(Observed::Absent) | None => false,
        Some(Observed::Unknown(why)) => return Err(why.clone()),
    };
    let port = around.ports.get(&at.service).copied();
    port.filter(|_| running).ok_or_else(|| format!("{service} does not run"))
}

/// How the vaults of the tree are made and removed.
fn commands(look: &Look<'_>, around: &Around<'_>) -> BTreeMap<Name, Commands> {
    let declared = around.desired.resources.iter().filter_map(|(id, r)| Some((&id.name, r.spec.as_vault()?)));
    let going = around.leaving.iter().filter_map(|(id, leaving)| match &leaving.spec {
        Some(Spec::Vault(spec)) => Some((&id.name, &**spec)),
        _ => None,
    });
    declared.chain(going).map(|(name, spec)| (name.clone(), commands_of(look, around, name, spec))).collect()
}

fn commands_of(look: &Look<'_>, around: &Around<'_>, name: &Name, spec: &VaultSpec) -> Commands {
    let vault = spec.vault(name);
    let launch = match around.services.get(&spec.service) {
        Some(Observed::Present(State { inputs: Some(Ok(inputs)), .. })) => Some(&inputs.launch),
        _ => None,
    };
    let command = |own: &Option<Vec<String>>, words: [&str; 3]| {
        let launch = launch.ok_or_else(|| format!("Service/{} cannot be started", spec.service))?;
        let (program, argv) = match own {
            Some(own) => {
                let argv: Vec<String> = own.iter().map(|word| word.replace("{name}", vault)).collect();
                let word = argv.first().cloned().unwrap_or_default();
                let program = match look.files().program(&word, &launch.dir, &look.place().path) {
                    Program::At(path) => path,
                    _ => return Err(format!("the command `{word}` was not found")),
                };
                (program, argv)
            }
            None => {
                let mut argv = launch.argv.clone();
                argv.pop_if(|last| last == "serve");
                argv.extend(words.map(str::to_owned));
                (launch.program.clone(), argv)
            }
        };
        Ok(exec(program, argv, launch))
    };
    Commands {
        create: command(&spec.commands.create, ["create", vault, "--json"]),
        remove: command(&spec.commands.remove, ["remove", vault, "--yes"]),
    }
}

fn exec(program: PathBuf, argv: Vec<String>, launch: &crate::ports::keeper::Launch) -> Ask {
    let confinement = Box::new(launch.confinement.clone());
    Ask::Exec { program, argv, dir: launch.dir.clone(), env: launch.env.clone(), confinement }
}

/// What the hub is told of connections.
pub(super) fn wirings(looked: &Looked) -> BTreeMap<Name, Arc<Wiring>> {
    let Some(seen) = &looked.ties else { return BTreeMap::new() };
    let wiring = |(name, inputs): (&Name, &Result<Inputs, Unusable>)| {
        let id = ResourceId::new(KindName::Connection, name.clone());
        let spec = looked.desired.resources.get(&id)?.spec.as_connection()?;
        let wiring = match inputs {
            Ok(inputs) => Wiring { suspended: spec.suspend.holds(looked.wall), ..inputs.wiring.clone()? },
            // Its trigger goes on sending: what comes is kept until it is clear again where it goes.
            Err(_) => inputs::held(spec, spec.sink.as_ref()?),
        };
        Some((name.clone(), Arc::new(wiring)))
    };
    let kept = seen.kept.iter().map(|(name, wiring)| (name.clone(), Arc::new(wiring.clone())));
    seen.inputs.iter().filter_map(wiring).chain(kept).collect()
}
