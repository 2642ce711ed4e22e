//! From files to a graph: choose a version of every resource, check the whole, hold what is wrong, and check again.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::checks::{self, Finding};
use super::order::{self, Edges};
use super::{Desired, Entry, Held, Input, LastGood, Resource};
use crate::document::{Document, Named};
use crate::kinds::Spec;
use crate::kinds::service::module::{Module, ModuleFault, Modules, manifest_path};
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::problem::{Code, Problem, Severity};
use crate::model::source::Sources;
use crate::model::span::Span;

/// Holding one resource may make a clash for another, so checking goes on until nothing changes. Each round holds at least
/// one more; chains longer than this are no accident, and then everything that has a last good version is held.
const MAX_ROUNDS: usize = 32;

/// One version of a resource.
#[derive(Clone)]
pub(super) struct Version {
    pub document: Arc<Document>,
    pub spec: Spec,
    pub module: Option<Arc<Module>>,
}

/// The version that was applied last. It is read only when it is needed, which on a good day is never.
pub(super) struct Kept<'a> {
    last: &'a LastGood,
    modules: &'a Modules,
    version: OnceCell<Option<Version>>,
}

impl Kept<'_> {
    /// `None` when this version of trueup cannot read it any more: then it is no last good version, and its owner stays
    /// owned all the same.
    fn version(&self) -> Option<&Version> {
        let read = || {
            let last = self.last;
            let document = Document::from_stored(&last.document, last.base.clone(), &last.source).ok()?;
            let spec = Spec::read(&document, &mut Vec::new())?;
            let module = last.module.clone().or_else(|| module_of(&document, &spec, self.modules));
            Some(Version { document: Arc::new(document), spec, module })
        };
        self.version.get_or_init(read).as_ref()
    }
}

/// Everything known of one identity.
#[derive(Default)]
pub(super) struct Candidate<'a> {
    /// The version in the files.
    pub fresh: Option<Version>,
    /// The version that was applied last.
    pub kept: Option<Kept<'a>>,
    /// Why the version in the files is not used.
    pub held: Option<Held>,
    /// Whether any file speaks of it, with mistakes or without.
    pub declared: bool,
}

impl Candidate<'_> {
    /// The version to use.
    pub fn chosen(&self, complete: bool) -> Option<&Version> {
        match &self.fresh {
            Some(version) if self.held.is_none() => Some(version),
            // What no file declares is kept while files have errors: one of them may be the one that declared it.
            _ if self.declared || !complete => self.kept.as_ref().and_then(Kept::version),
            _ => None,
        }
    }

    /// Whether the version in the files would be used.
    pub fn is_fresh(&self) -> bool {
        self.fresh.is_some() && self.held.is_none()
    }

    /// Whether the version in the files says what was applied already.
    pub fn is_unchanged(&self) -> bool {
        let text = |module: &Option<Arc<Module>>| module.as_ref().map(|module| Arc::clone(&module.source.text));
        match (&self.fresh, &self.kept) {
            (Some(fresh), Some(kept)) => {
                fresh.document.json == kept.last.document
                    && text(&kept.last.module).is_none_or(|before| Some(before) == text(&fresh.module))
            }
            _ => false,
        }
    }
}

pub(super) type Candidates<'a> = BTreeMap<ResourceId, Candidate<'a>>;

pub(super) fn link(input: Input<'_>) -> Desired {
    let mut problems: Vec<Problem> = input.problems.to_vec();
    let mut candidates = collect(&input, &mut problems);
    hubs(&input, &mut candidates, &mut problems);
    storages(&mut candidates, &mut problems);
    modules(&input, &mut candidates, &mut problems);
    settle(&mut candidates, &mut problems);
    finish(&input, candidates, problems)
}

/// Sorts what was read by identity.
fn collect<'a>(input: &Input<'a>, problems: &mut Vec<Problem>) -> Candidates<'a> {
    let mut entries: BTreeMap<&ResourceId, Vec<&Entry>> = BTreeMap::new();
    let mut named: BTreeMap<&ResourceId, Vec<&Named>> = BTreeMap::new();
    let mut candidates = Candidates::new();
    for manifest in input.manifests {
        problems.extend(manifest.problems.iter().cloned());
        for entry in &manifest.entries {
            entries.entry(&entry.document.id).or_default().push(entry);
        }
        for name in &manifest.named {
            named.entry(&name.id).or_default().push(name);
        }
    }
    for last in input.last_good {
        let kept = Some(Kept { last, modules: input.modules, version: OnceCell::new() });
        candidates.insert(last.id.clone(), Candidate { kept, ..Candidate::default() });
    }
    for (id, names) in &named {
        let candidate = candidates.entry((*id).clone()).or_default();
        candidate.declared = true;
        candidate.held = names.first().map(|name| Held {
            message: name.message.clone(),
            span: Some(name.at.clone()),
            failed: false,
        });
    }
    for (id, same) in &entries {
        let candidate = candidates.entry((*id).clone()).or_default();
        candidate.declared = true;
        let broken = named.get(id).map(Vec::as_slice).unwrap_or_default();
        if let ([only], []) = (&same[..], broken) {
            let version = Version { document: Arc::clone(&only.document), spec: only.spec.clone(), module: None };
            candidate.held = refused(candidate, &version);
            candidate.fresh = Some(version);
            continue;
        }
        let places =
            same.iter().map(|entry| name_at(&entry.document)).chain(broken.iter().map(|name| name.origin.clone()));
        let problem = duplicate(id, places.collect());
        candidate.held =
            Some(Held { message: problem.message.clone(), span: Some(problem.span().clone()), failed: false });
        problems.push(problem);
    }
    candidates
}

/// The version in the file was tried, and was not ready in time.
fn refused(candidate: &Candidate<'_>, version: &Version) -> Option<Held> {
    let (digest, why) = candidate.kept.as_ref()?.last.refused.as_ref()?;
    (*digest == version.document.digest()).then(|| Held {
        message: format!("this version failed ({why})"),
        span: Some(name_at(&version.document)),
        failed: true,
    })
}

fn name_at(document: &Document) -> Span {
    document.value_at("/metadata/name")
}

fn duplicate(id: &ResourceId, mut places: Vec<Span>) -> Problem {
    places.sort();
    let first = places.remove(0);
    let last = places.pop().unwrap_or_else(|| first.clone());
    let mut problem = Problem::error(Code::DuplicateIdentity, last, format!("{id} is declared more than once"))
        .label("again here")
        .also(first, "first here");
    for place in places {
        problem = problem.also(place, "and here");
    }
    problem.hint("rename one of them, or remove it; until then none of them is used")
}

/// A tree has exactly one Hub.
fn hubs(input: &Input<'_>, candidates: &mut Candidates<'_>, problems: &mut Vec<Problem>) {
    let declared = |(id, candidate): &(&ResourceId, &Candidate<'_>)| id.kind == KindName::Hub && candidate.declared;
    let all: Vec<ResourceId> = candidates.iter().filter(declared).map(|(id, _)| id.clone()).collect();
    if all.is_empty() {
        let kept = candidates.iter().any(|(id, candidate)| id.kind == KindName::Hub && candidate.kept.is_some());
        let told = problems.iter().any(|problem| problem.code == Code::NotATree);
        let broken = problems.iter().any(|problem| problem.severity == Severity::Error);
        // With broken files and a Hub from before, the Hub is in a broken file, and that has been said.
        if !(told || broken && kept) {
            problems.push(no_hub(input));
        }
        return;
    }
    // Finding a place reads its whole file again, and a good tree has nothing to say.
    if all.len() < 2 {
        return;
    }
    let places: Vec<Span> =
        all.iter().filter_map(|id| candidates.get(id)?.fresh.as_ref()).map(|v| name_at(&v.document)).collect();
    if places.len() < 2 {
        return;
    }
    let mut places = places.into_iter();
    let Some(first) = places.next() else { return };
    let names: Vec<String> = all.iter().map(ToString::to_string).collect();
    let mut problem = Problem::error(Code::ManyHubs, first, format!("more than one Hub: {}", names.join(", ")))
        .label("one here")
        .hint("a tree has exactly one Hub; remove the others");
    for place in places {
        problem = problem.also(place, "another here");
    }
    for id in &all {
        hold(candidates, id, &problem);
    }
    problems.push(problem);
}

/// A tree has one Storage at most.
fn storages(candidates: &mut Candidates<'_>, problems: &mut Vec<Problem>) {
    let declared = candidates.iter().filter(|(id, candidate)| id.kind == KindName::Storage && candidate.declared);
    let fresh: Vec<_> = declared.filter_map(|(id, candidate)| Some((id, candidate.fresh.as_ref()?))).collect();
    if fresh.len() < 2 {
        return;
    }
    let all: Vec<(ResourceId, Span)> = fresh.into_iter().map(|(id, v)| (id.clone(), name_at(&v.document))).collect();
    let [(_, first), others @ ..] = &all[..] else { return };
    if others.is_empty() {
        return;
    }
    let names: Vec<String> = all.iter().map(|(id, _)| id.to_string()).collect();
    let message = format!("more than one Storage: {}", names.join(", "));
    let mut problem = Problem::error(Code::ManyStorages, first.clone(), message)
        .label("one here")
        .hint("a tree has one Storage at most; remove the others");
    for (_, place) in others {
        problem = problem.also(place.clone(), "another here");
    }
    for (id, _) in &all {
        hold(candidates, id, &problem);
    }
    problems.push(problem);
}

fn no_hub(input: &Input<'_>) -> Problem {
    let empty = input.manifests.is_empty();
    let message = match empty {
        true => format!("{} holds no manifests", input.root),
        false => format!("{} holds no Hub, so it cannot be the tree", input.root),
    };
    let first = input.manifests.first().map(|manifest| &manifest.source.shown);
    let at = Span::file_start(Arc::clone(first.unwrap_or(input.root)));
    Problem::error(Code::NotATree, at, message)
        .hint("add one document with `kind: Hub`, or say where the manifests are with --manifests")
}

fn hold(candidates: &mut Candidates<'_>, id: &ResourceId, problem: &Problem) {
    if let Some(candidate) = candidates.get_mut(id) {
        let held = Held { message: problem.message.clone(), span: Some(problem.span().clone()), failed: false };
        candidate.held.get_or_insert(held);
    }
}

fn module_of(document: &Document, spec: &Spec, modules: &Modules) -> Option<Arc<Module>> {
    let module = spec.as_service()?.module.as_deref()?;
    modules.get(&manifest_path(&document.folder, module))?.as_ref().ok().cloned()
}

/// Gives every Service with `module` its module.json, or holds it.
fn modules(input: &Input<'_>, candidates: &mut Candidates<'_>, problems: &mut Vec<Problem>) {
    let mut users: BTreeMap<PathBuf, Vec<Span>> = BTreeMap::new();
    for candidate in candidates.values_mut() {
        let Some(version) = candidate.fresh.as_mut() else { continue };
        let Some(folder) = version.spec.as_service().and_then(|service| service.module.clone()) else { continue };
        let path = manifest_path(&version.document.folder, &folder);
        let found = input.modules.get(&path);
        if let Some(Ok(module)) = found {
            version.module = Some(Arc::clone(module));
            if module.start_cmd.is_some() {
                continue;
            }
        }
        let at = version.document.value_at("/spec/module");
        let held = match found {
            Some(Err(ModuleFault::Invalid { problems: mistakes, .. })) => {
                users.entry(path).or_default().push(at.clone());
                let first = mistakes.first();
                let message = first.map_or_else(String::new, |problem| problem.message.clone());
                Held { message, span: Some(first.map_or(at, |problem| problem.span().clone())), failed: false }
            }
            fault => {
                let problem = unusable(&folder, at, fault);
                let held = Held { message: problem.message.clone(), span: Some(problem.span().clone()), failed: false };
                problems.push(problem);
                held
            }
        };
        candidate.held.get_or_insert(held);
    }
    for (path, users) in users {
        let Some(Err(ModuleFault::Invalid { problems: mistakes, .. })) = input.modules.get(&path) else { continue };
        let mut mistakes = mistakes.iter().cloned();
        let first = mistakes.next();
        let needed = |problem: Problem, user| problem.also(user, "this service needs it");
        problems.extend(first.map(|first| users.into_iter().fold(first, needed)));
        problems.extend(mistakes);
    }
}

/// Why a module folder is of no use, said where the Service names it.
fn unusable(folder: &str, at: Span, found: Option<&Result<Arc<Module>, ModuleFault>>) -> Problem {
    let why = match found {
        Some(Ok(_)) => {
            let message = format!("the module.json of `{folder}` has no `startCmd`, so nothing says what runs");
            return Problem::error(Code::BadModule, at, message)
                .hint("add `startCmd` there, or use `command` and `workingDir` instead of `module`");
        }
        Some(Err(ModuleFault::Unreadable(why))) => format!("its .parachute/module.json cannot be read: {why}"),
        Some(Err(ModuleFault::Missing | ModuleFault::Invalid { .. })) | None => {
            "it has no .parachute/module.json".to_owned()
        }
    };
    Problem::error(Code::BadModule, at, format!("`{folder}` is no module folder: {why}"))
        .hint("the folder is relative to this file, and has a .parachute/module.json; without one, use `command`")
}

/// Checks the graph and holds what is wrong in it, until nothing is.
fn settle(candidates: &mut Candidates<'_>, problems: &mut Vec<Problem>) {
    for round in 0.. {
        let complete = !problems.iter().any(|problem| problem.severity == Severity::Error);
        let findings = checks::check(candidates, complete, problems);
        let mut again = false;
        for Finding { problem, involved } in findings {
            let fresh: Vec<&ResourceId> =
                involved.iter().filter(|id| candidates.get(*id).is_some_and(Candidate::is_fresh)).collect();
            // Who did not change is not to blame, unless nobody changed.
            let changed = |id: &&&ResourceId| candidates.get(**id).is_some_and(|candidate| !candidate.is_unchanged());
            let to_blame: BTreeSet<&ResourceId> = match fresh.iter().filter(changed).count() {
                0 => fresh.into_iter().collect(),
                _ => fresh.iter().filter(changed).copied().collect(),
            };
            let said = problems.iter().any(|other| other.code == problem.code && other.labels == problem.labels);
            if problem.severity == Severity::Error {
                again |= !to_blame.is_empty();
                let ids: Vec<ResourceId> = to_blame.into_iter().cloned().collect();
                for id in &ids {
                    hold(candidates, id, &problem);
                }
            }
            if !said {
                problems.push(problem);
            }
        }
        // One more round after the first error: what no file declares takes part from then on.
        let now = !problems.iter().any(|problem| problem.severity == Severity::Error);
        if !again && now == complete {
            return;
        }
        if round == MAX_ROUNDS {
            for candidate in candidates.values_mut().filter(|candidate| candidate.kept.is_some()) {
                let message = "the manifests contradict each other in too many ways".to_owned();
                candidate.held.get_or_insert(Held { message, span: None, failed: false });
            }
            return;
        }
    }
}

fn finish(input: &Input<'_>, candidates: Candidates<'_>, mut problems: Vec<Problem>) -> Desired {
    let complete = !problems.iter().any(|problem| problem.severity == Severity::Error);
    problems.sort_by(|a, b| a.span().cmp(b.span()).then(a.code.cmp(&b.code)).then(a.message.cmp(&b.message)));
    let mut desired = Desired { complete, problems, sources: sources(input), ..Desired::default() };
    for (id, candidate) in candidates {
        let Some(version) = candidate.chosen(complete).cloned() else {
            desired.invalid.extend(candidate.held.filter(|_| candidate.declared).map(|held| (id, held)));
            continue;
        };
        let held = match candidate.is_fresh() {
            true => None,
            false => Some(candidate.held.unwrap_or_else(|| Held {
                message: "no manifest declares it; while other manifests have errors it is kept".to_owned(),
                span: None,
                failed: false,
            })),
        };
        if let Spec::Hub(hub) = &version.spec
            && (held.is_none() || desired.hub.is_none())
        {
            desired.hub = Some(Arc::clone(hub));
        }
        let Version { document, spec, module } = version;
        desired.resources.insert(id.clone(), Resource { id, digest: document.digest(), document, spec, module, held });
    }
    desired.order = order::dependencies_first(&edges(&desired));
    desired
}

fn edges(desired: &Desired) -> Edges<'_> {
    let mut names: BTreeMap<&str, &ResourceId> = BTreeMap::new();
    for id in desired.resources.keys().filter(|id| id.kind == KindName::Service) {
        names.insert(id.name.as_str(), id);
    }
    let vaults: Vec<&ResourceId> = desired.resources.keys().filter(|id| id.kind == KindName::Vault).collect();
    let needs = |resource: &Resource| {
        if let Some(storage) = resource.spec.as_storage() {
            let backend = ResourceId::new(KindName::StorageBackend, storage.active_backend.clone());
            return desired.resources.get_key_value(&backend).map(|(id, _)| id).into_iter().collect();
        }
        let of = |service: &Name| names.get(service.as_str()).copied();
        if let Some(vault) = resource.spec.as_vault() {
            return of(&vault.service).into_iter().collect();
        }
        if let Some(connection) = resource.spec.as_connection() {
            let source = connection.source.as_ref().map(|source| (&source.service, &source.vault));
            let credential = connection.credential.as_ref().map(|wish| (&wish.vault_service, &wish.vault));
            let sink = connection.sink.as_ref().map(|sink| &sink.service);
            let to = sink.or(connection.credential.as_ref().map(|wish| &wish.service));
            let is_its_vault = |id: &&ResourceId| {
                let spec = desired.resources.get(*id).and_then(|resource| resource.spec.as_vault());
                spec.is_some_and(|spec| {
                    source.or(credential) == Some((&spec.service, &spec.vault(&id.name).to_owned()))
                })
            };
            let vault = vaults.iter().copied().filter(is_its_vault);
            return source
                .or(credential)
                .map(|(service, _)| service)
                .into_iter()
                .chain(to)
                .filter_map(of)
                .chain(vault)
                .collect();
        }
        let dependencies = resource.spec.as_service().map(|service| service.depends_on.as_slice()).unwrap_or_default();
        dependencies.iter().filter_map(|dependency| names.get(dependency.service.as_str()).copied()).collect()
    };
    desired.resources.iter().map(|(id, resource)| (id, needs(resource))).collect()
}

/// The texts that problems may speak of.
fn sources(input: &Input<'_>) -> Sources {
    let mut sources = Sources::new();
    let manifests = input.manifests.iter().map(|manifest| &manifest.source);
    let modules = input.modules.values().filter_map(|module| match module {
        Ok(module) => Some(&module.source),
        Err(ModuleFault::Invalid { source, .. }) => Some(source),
        Err(ModuleFault::Missing | ModuleFault::Unreadable(_)) => None,
    });
    for file in manifests.chain(modules) {
        sources.insert(Arc::clone(&file.shown), Arc::clone(&file.text));
    }
    sources
}
