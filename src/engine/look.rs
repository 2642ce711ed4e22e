//! Looks: files, ledger, keeper, sockets, rows, each once per tick, and every service through them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::connections::Around;
use super::{Engine, EngineError, Mode, ports, secrets};
use crate::desired::{self, Desired, LastGood, Manifest, Resource};
use crate::document::Document;
use crate::kinds::connection::observe::Seen as Ties;
use crate::kinds::hub::spec::HubSpec;
use crate::kinds::path::tidy;
use crate::kinds::service::health::{self, Way};
use crate::kinds::service::inputs::{self, Setting};
use crate::kinds::service::module::{self, Module, ModuleFault, Modules};
use crate::kinds::service::observe::{self, Record, State};
use crate::kinds::service::plan::PORT_GRACE;
use crate::kinds::storage::observe::Seen;
use crate::kinds::{Spec, schema};
use crate::model::digest::Digest;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::observed::Observed;
use crate::model::overriding::Override;
use crate::model::problem::{Code, Problem};
use crate::model::source::SourceFile;
use crate::model::span::Span;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::plan::{Leaving, record_of};
use crate::ports::files::FileError;
use crate::ports::keeper::{Phase, Unit};
use crate::ports::probes::Verdict;
use crate::ports::sockets::{Listening, Sought};
use crate::ports::store::{JournalLine, Owned};
use crate::ports::world::{Commands, Facts};
use crate::ports::{Look, PortError};

/// After so long a tree that is "being rewritten" is looked at all the same: a lock file of git may have been left by a crash.
const BUSY_LIMIT: Millis = Millis(600_000);

/// How long the first answers of probes are waited for: a loopback probe takes a few milliseconds.
const FIRST_ANSWERS: Millis = Millis(1_000);

/// Everything one tick knows.
pub(super) struct Looked {
    pub desired: Desired,
    pub owned: BTreeMap<ResourceId, Owned>,
    pub leaving: BTreeMap<ResourceId, Leaving>,
    pub open: Vec<JournalLine>,
    pub seen: BTreeMap<Name, Observed<State>>,
    /// What was ready before and has not answered yet, because its probe was begun by this look (see [`Engine::hear`]).
    pub unanswered: BTreeSet<Name>,
    pub facts: Facts,
    pub ports: BTreeMap<Name, u16>,
    pub hub: HubSpec,
    pub home: PathBuf,
    /// Some documents vanished a moment ago and get a second look before that counts.
    pub unconfirmed: bool,
    /// The tree is being rewritten; the text says by what.
    pub busy: Option<String>,
    /// The hour, the same for the whole tick.
    pub wall: Timestamp,
    /// Overrides in force.
    pub overrides: BTreeMap<ResourceId, Override>,
    /// `None` when the tree has nothing to do with one.
    pub storage: Option<Seen>,
    pub standing: crate::ports::hub::Standing,
    /// `None` when the tree has nothing to do with connections and vaults.
    pub ties: Option<Ties>,
}

impl Looked {
    /// The unit of a service.
    pub fn unit(&self, id: &ResourceId) -> Option<&Unit> {
        match self.seen.get(&id.name) {
            Some(Observed::Present(state)) => state.unit.as_ref(),
            _ => None,
        }
    }
}

impl Engine {
    pub(super) async fn look(&mut self, mode: Mode) -> Result<Looked, EngineError> {
        let owned = self.world.store.owned()?;
        let open = if self.recovered { Vec::new() } else { self.world.store.open_steps()? };
        let (mut desired, busy) = self.desire(&owned);
        let loose = self.loose_secrets(&desired);
        desired.problems.extend(loose);
        let hub = desired.hub.as_deref().cloned().unwrap_or_default();
        let home = self.home(&desired, &hub);
        let overrides = self.overrides(|id| desired.resources.contains_key(id), &owned, mode.dry || busy.is_some())?;
        let wall = self.world.clock.wall();
        let (leaving, unconfirmed) = self.leaving(&desired, &owned, mode);
        // Before the units: what listens in it and belongs to one is then in the list.
        let table = self.world.sockets.table();
        let busy_ports = table.as_ref().map(|t| t.iter().map(|row| row.port).collect()).unwrap_or_default();
        let mut ports = ports::assign(&desired, &owned, &busy_ports, hub.port_range);
        // What goes is still asked to give things back, where it was started.
        let going = leaving.keys().filter(|id| id.kind == KindName::Service);
        ports.extend(going.filter_map(|id| Some((id.name.clone(), record_of(owned.get(id))?.port?))));
        let units = self.world.keeper.list().await;
        let listeners = table.map(|table| {
            let sought = sought(&table, units.as_deref().unwrap_or_default(), &ports, self.world.clock.now());
            self.world.sockets.holders(&table, &sought)
        });
        let facts = Facts {
            units,
            listeners,
            rows: self.world.registry.rows(&home),
            wanted_rows: wanted_rows(&desired, &ports),
            kept_rows: kept_rows(&owned, &home),
            kept_ports: kept_ports(&owned),
            // What is only to be stopped needs no secrets.
            commands: match mode.down || mode.glance {
                true => Commands::new(),
                false => secrets::commands(&*self.world.secrets, &desired).await,
            },
            remembered: mode.glance.then(|| remembered(&owned)),
            home: home.clone(),
            key: self.world.store.key()?,
        };
        let seen = self.observe(&desired, &leaving, &facts, &ports, &hub, mode);
        let unanswered = unanswered(&seen, mode);
        let storage = self.look_at_storage(&desired, &leaving, &facts);
        let around =
            Around { desired: &desired, owned: &owned, leaving: &leaving, services: &seen, ports: &ports, hub: &hub };
        let world = self.world.clone();
        let ties = self.look_at_ties(&Look::new(&world, &facts), &around, mode.down).await;
        Ok(Looked {
            desired,
            owned,
            leaving,
            open,
            seen,
            unanswered,
            facts,
            ports,
            hub,
            home,
            unconfirmed,
            wall,
            busy,
            overrides,
            storage,
            standing: self.world.hub.standing(),
            ties,
        })
    }

    /// A warning for every secret that everyone can read.
    fn loose_secrets(&self, desired: &Desired) -> Vec<Problem> {
        let mut problems = Vec::new();
        for resource in desired.resources.values().filter(|resource| resource.held.is_none()) {
            let named = resource.spec.secrets();
            let files = named.iter().filter_map(|(pointer, from)| Some((pointer, from.file.as_ref()?)));
            for (pointer, file) in files {
                let path = tidy(&resource.document.folder.join(file));
                if self.world.files.is_public(&path) {
                    let at = resource.document.value_at(pointer);
                    let message = format!("everyone on this machine can read the secret {}", path.display());
                    let hint = format!("chmod 600 {}", path.display());
                    problems.push(Problem::error(Code::LooseSecret, at, message).warning().hint(hint));
                }
            }
        }
        problems
    }

    /// Files to desired. Each file is read again only when its text changed.
    pub(super) fn desire(&mut self, owned: &BTreeMap<ResourceId, Owned>) -> (Desired, Option<String>) {
        let scan = self.world.files.scan();
        let now = self.world.clock.now();
        let busy = scan.busy.clone().filter(|_| {
            let since = *self.busy_since.get_or_insert(now);
            (now - since) < BUSY_LIMIT
        });
        if scan.busy.is_none() {
            self.busy_since = None;
        }
        let manifests = self.manifests(&scan.files);
        let modules = self.modules(&desired::wanted_modules(&manifests));
        let asked = |id: &ResourceId| self.memory.requested.contains(&id.name);
        let last_good: Vec<LastGood> = owned.values().map(|owned| last_good(owned, asked(&owned.id))).collect();
        let desired = Desired::link(desired::Input {
            root: &scan.root,
            manifests: &manifests,
            problems: &scan.problems,
            modules: &modules,
            last_good: &last_good,
        });
        (desired, busy)
    }

    fn manifests(&mut self, files: &[SourceFile]) -> Vec<Arc<Manifest>> {
        let present: BTreeSet<&Path> = files.iter().map(|f| f.path.as_path()).collect();
        self.manifests.retain(|path, _| present.contains(path.as_path()));
        let read = |file: &SourceFile| match self.manifests.get(&file.path) {
            Some(manifest) if manifest.source == *file => manifest.clone(),
            _ => {
                let manifest = Arc::new(Manifest::read(file, schema::schemas()));
                self.manifests.insert(file.path.clone(), manifest.clone());
                manifest
            }
        };
        files.iter().map(read).collect()
    }

    /// The module.json of every module folder that a document names.
    fn modules(&mut self, paths: &[PathBuf]) -> Modules {
        let read = |path: &PathBuf| match self.world.files.read(path) {
            Ok(text) => {
                if let Some(Ok(module)) = self.modules.get(path)
                    && module.source.text == text
                {
                    return Ok(Arc::clone(module));
                }
                let source = SourceFile { shown: path.to_string_lossy().into(), path: path.clone(), text };
                module::parse(&source).map(Arc::new).map_err(|problems| ModuleFault::Invalid { source, problems })
            }
            Err(FileError::Missing) => Err(ModuleFault::Missing),
            Err(FileError::Unreadable(why)) => Err(ModuleFault::Unreadable(why)),
        };
        self.modules = paths.iter().map(|path| (path.clone(), read(path))).collect();
        self.modules.clone()
    }

    fn home(&self, desired: &Desired, hub: &HubSpec) -> PathBuf {
        let folder = desired.resources.values().find(|r| r.id.kind == KindName::Hub).map(|r| r.document.folder.clone());
        match (&hub.home, folder) {
            (Some(home), Some(folder)) => tidy(&folder.join(home)),
            _ => self.world.place.state.join("home"),
        }
    }

    /// What we own and nothing declares. In a run that acts, a document that vanished must be missing twice.
    fn leaving(
        &mut self,
        desired: &Desired,
        owned: &BTreeMap<ResourceId, Owned>,
        mode: Mode,
    ) -> (BTreeMap<ResourceId, Leaving>, bool) {
        let missing: BTreeSet<ResourceId> =
            owned.keys().filter(|id| !desired.resources.contains_key(*id)).cloned().collect();
        let now = self.world.clock.now();
        let (confirmed, waiting) = if mode.dry { (missing, false) } else { self.memory.confirm_missing(missing, now) };
        let read = |id: &ResourceId| {
            let owned = &owned[id];
            let document = Document::from_stored(&owned.document, PathBuf::from(&owned.base), &owned.source).ok();
            let origin = document.as_ref().map(|d| d.origin.clone());
            Leaving {
                origin: origin.unwrap_or_else(|| Span::file_start(owned.source.as_str().into())),
                spec: document.as_ref().and_then(|document| Spec::read(document, &mut Vec::new())),
                document: document.map(Arc::new),
            }
        };
        (confirmed.into_iter().map(|id| (id.clone(), read(&id))).collect(), waiting)
    }

    fn observe(
        &self,
        desired: &Desired,
        leaving: &BTreeMap<ResourceId, Leaving>,
        facts: &Facts,
        ports: &BTreeMap<Name, u16>,
        hub: &HubSpec,
        mode: Mode,
    ) -> BTreeMap<Name, Observed<State>> {
        let look = Look::new(&self.world, facts);
        let now = self.world.clock.now();
        let origin = hub.effective_origin();
        let origins = hub.origins().join(",");
        let mut seen = BTreeMap::new();
        for (id, resource) in &desired.resources {
            let Spec::Service(spec) = &resource.spec else { continue };
            let state = if mode.down {
                observe::observe_unit(&look, &id.name, now)
            } else {
                let setting = Setting {
                    name: &id.name,
                    spec,
                    module: resource.module.as_deref(),
                    folder: &resource.document.folder,
                    origin: &origin,
                    origins: &origins,
                    home: &facts.home,
                    port: ports.get(&id.name).copied(),
                };
                observe::observe(&look, &resource.document, &setting, now)
            };
            seen.insert(id.name.clone(), state);
        }
        for id in leaving.keys().filter(|id| id.kind == KindName::Service) {
            seen.insert(id.name.clone(), observe::observe_unit(&look, &id.name, now));
        }
        seen
    }

    /// Waits for the first answers of what was ready before: a fresh process knows nothing of probes yet, and a look at a converged
    /// machine is to say so at once.
    pub(super) async fn hear(&self, looked: &mut Looked, mode: Mode) {
        // Twice: readiness is asked when the startup probe has passed.
        for _ in 0..2 {
            if looked.unanswered.is_empty() {
                return;
            }
            self.world.probes.settle(FIRST_ANSWERS).await;
            let look = Look::new(&self.world, &looked.facts);
            for name in &looked.unanswered {
                if let Some(Observed::Present(state)) = looked.seen.get_mut(name) {
                    state.health =
                        health::health(&look, name, state.unit.as_ref(), state.uptime, state.inputs.as_ref());
                }
            }
            looked.unanswered = unanswered(&looked.seen, mode);
        }
        // What has not answered in this time counts as it is.
        looked.unanswered.clear();
    }

    /// Tells the keeper which processes answered their probes. A fact for its restart table, not a change of the world.
    pub(super) async fn tell_ready(&self, looked: &Looked) -> Result<(), PortError> {
        for (name, seen) in &looked.seen {
            let Observed::Present(state) = seen else { continue };
            // Only an answer of a probe counts: that a program runs the keeper knows itself.
            let good = state.health.verdict == Verdict::Good && is_probed(state);
            if let Some(unit) = state.unit.as_ref().filter(|u| good && !u.ready)
                && let Some(process) = &unit.process
            {
                self.world.keeper.ready(name, process.pid).await?;
            }
        }
        Ok(())
    }
}

/// Whose sockets matter: whoever is on a port of ours; and all of them, when a unit that should listen on its port by now does
/// not, because it may listen elsewhere by way of a child.
fn sought(table: &[Listening], units: &[Unit], ports: &BTreeMap<Name, u16>, now: Tick) -> Sought {
    let late = |unit: &Unit| {
        let up = unit.process.as_ref().is_some_and(|p| unit.phase == Phase::Running && p.uptime(now) >= PORT_GRACE);
        let port = ports.get(&unit.name).filter(|_| up);
        port.is_some_and(|port| !table.iter().any(|row| row.port == *port))
    };
    Sought {
        units: units.iter().filter_map(|u| Some(u.process.as_ref()?.pid)).collect(),
        keepers: units.iter().filter_map(|u| u.held_by).collect(),
        ports: ports.values().copied().collect(),
        all: units.iter().any(late),
    }
}

/// What the rows of all services are to say.
fn wanted_rows(desired: &Desired, ports: &BTreeMap<Name, u16>) -> BTreeMap<String, u16> {
    let row = |(id, resource): (&ResourceId, &Resource)| {
        let spec = resource.spec.as_service()?;
        let name = inputs::row_name(spec, resource.module.as_deref())?;
        Some((name.to_owned(), *ports.get(&id.name)?))
    };
    desired.resources.iter().filter_map(row).collect()
}

/// The rows that we keep in this home.
fn kept_rows(owned: &BTreeMap<ResourceId, Owned>, home: &Path) -> BTreeMap<Name, String> {
    let here = |record: &Record| record.home.as_deref().is_some_and(|of| Path::new(of) == home);
    let row = |(id, owned): (&ResourceId, &Owned)| Some((id.name.clone(), record_of(Some(owned)).filter(here)?.row?));
    owned.iter().filter_map(row).collect()
}

/// The parts of what each service was started with.
fn remembered(owned: &BTreeMap<ResourceId, Owned>) -> BTreeMap<Name, BTreeMap<String, Digest>> {
    let services = owned.iter().filter(|(id, _)| id.kind == KindName::Service);
    services.map(|(id, owned)| (id.name.clone(), record_of(Some(owned)).unwrap_or_default().parts)).collect()
}

/// The ports that they were started with.
fn kept_ports(owned: &BTreeMap<ResourceId, Owned>) -> BTreeMap<Name, u16> {
    owned.iter().filter_map(|(id, owned)| Some((id.name.clone(), record_of(Some(owned))?.port?))).collect()
}

fn is_probed(state: &State) -> bool {
    matches!(&state.inputs, Some(Ok(inputs)) if matches!(inputs.probing.readiness, Some(Way::Ask(_))))
}

/// What was ready before and has not answered yet; a run that only looks asks everything. What is to be replaced need not answer.
fn unanswered(seen: &BTreeMap<Name, Observed<State>>, mode: Mode) -> BTreeSet<Name> {
    let is = |state: &State| {
        let launch = state.inputs.as_ref().and_then(|inputs| inputs.as_ref().ok()).map(|inputs| &inputs.launch.digest);
        let before = state.unit.as_ref().is_some_and(|u| mode.dry || u.ready && launch == Some(&u.digest));
        before && state.health.verdict == Verdict::Pending && is_probed(state)
    };
    let unanswered = seen.iter().filter(|(_, seen)| matches!(seen, Observed::Present(state) if is(state)));
    unanswered.map(|(name, _)| name.clone()).collect()
}

/// What the ledger has of a resource, to fall back on.
fn last_good(owned: &Owned, asked: bool) -> LastGood {
    let record = record_of(Some(owned)).unwrap_or_default();
    let refused = record.refused.filter(|_| !asked).zip(record.proven.clone());
    if let Some((refused, proven)) = refused {
        return LastGood {
            id: owned.id.clone(),
            module: stored_module(proven.module),
            document: proven.document,
            base: PathBuf::from(&proven.base),
            source: proven.source,
            refused: Some((refused.digest, refused.why)),
        };
    }
    LastGood {
        id: owned.id.clone(),
        document: owned.document.clone(),
        base: PathBuf::from(&owned.base),
        source: owned.source.clone(),
        module: stored_module(record.module),
        refused: None,
    }
}

fn stored_module(stored: Option<(PathBuf, String)>) -> Option<Arc<Module>> {
    stored.and_then(|(path, text)| {
        let shown = path.to_string_lossy().into();
        module::parse(&SourceFile { shown, path, text: text.into() }).ok().map(Arc::new)
    })
}

/// The resource that a step is about, wherever it stands.
pub(super) fn resource<'a>(looked: &'a Looked, id: &ResourceId) -> Option<&'a Resource> {
    looked.desired.resources.get(id)
}
