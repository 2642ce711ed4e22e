//! What only all resources together can say wrong: references to nothing, cycles, and two that want the same thing.

use std::collections::BTreeMap;

use super::connections;
use super::link::{Candidate, Candidates, Version};
use super::order::{self, Edges};
use crate::document::near::{listed, nearest};
use crate::kinds::Spec;
use crate::kinds::backend::inputs::{place as place_of, where_is};
use crate::kinds::hub::check::listen_port;
use crate::kinds::service::check::{effective_port, effective_registration, effective_routes, mount};
use crate::kinds::service::spec::{DependencyCondition, Port, RestartPolicy, ServiceSpec};
use crate::model::id::{KindName, ResourceId};
use crate::model::problem::{Code, Problem};
use crate::model::span::Span;
use crate::ports::blobs::Location;

/// A mistake of the graph, and whose new versions cannot be used because of it.
pub(super) struct Finding {
    pub problem: Problem,
    pub involved: Vec<ResourceId>,
}

/// One resource that takes part in the graph.
pub(super) struct Part<'a> {
    pub id: &'a ResourceId,
    pub version: &'a Version,
    pub candidate: &'a Candidate<'a>,
}

/// Checks the versions that would be used.
pub(super) fn check(candidates: &Candidates<'_>, complete: bool, problems: &[Problem]) -> Vec<Finding> {
    let part = |(id, candidate)| {
        let candidate: &Candidate<'_> = candidate;
        candidate.chosen(complete).map(|version| Part { id, version, candidate })
    };
    let parts: Vec<Part<'_>> = candidates.iter().filter_map(part).collect();
    let mut findings = Vec::new();
    references(&parts, candidates, problems, &mut findings);
    connections::check(&parts, candidates, problems, &mut findings);
    cycles(&parts, &mut findings);
    clashes(&parts, &mut findings);
    findings
}

fn service<'a>(part: &Part<'a>) -> Option<&'a ServiceSpec> {
    part.version.spec.as_service()
}

fn references(parts: &[Part<'_>], candidates: &Candidates<'_>, problems: &[Problem], findings: &mut Vec<Finding>) {
    let by_id: BTreeMap<&ResourceId, &Part<'_>> = parts.iter().map(|part| (part.id, part)).collect();
    for part in parts.iter().filter(|part| part.candidate.is_fresh()) {
        active_backend(part, candidates, &by_id, problems, findings);
        let Some(spec) = service(part) else { continue };
        for (index, dependency) in spec.depends_on.iter().enumerate() {
            let pointer = format!("/spec/dependsOn/{index}/service");
            let target = ResourceId::service(&dependency.service);
            let known = candidates.get(&target).is_some_and(|other| other.declared) || by_id.contains_key(&target);
            if !known {
                let problem = dangling(part.id, part.version, &pointer, &target, candidates, problems);
                findings.push(Finding { problem, involved: vec![part.id.clone()] });
                continue;
            }
            let Some(other) = by_id.get(&target) else { continue };
            if !other.candidate.declared {
                let at = part.version.document.value_at(&pointer);
                let message = format!("{} depends on {target}, which no manifest declares any more", part.id);
                let problem = Problem::error(Code::BadReference, at, message).warning();
                let problem = problem.hint("it is kept while there are errors, and will be missed then");
                findings.push(Finding { problem, involved: Vec::new() });
            }
            let Some(wanted) = service(other) else { continue };
            if dependency.condition == DependencyCondition::Completed && wanted.restart.policy == RestartPolicy::Always
            {
                let problem = never_completes(part, index, other);
                findings.push(Finding { problem, involved: vec![part.id.clone()] });
            } else if wanted.suspend.for_good() && !spec.suspend.for_good() {
                let at = part.version.document.value_at(&pointer);
                let message = format!(
                    "{} needs {target}, which is suspended: what runs goes on, and is not started again while that is so",
                    part.id
                );
                let problem = Problem::error(Code::SuspendedDependency, at, message)
                    .warning()
                    .hint(format!("suspend {} too, or take the dependency away", part.id))
                    .also(other.version.document.key_at("/spec/suspend"), "suspended here");
                findings.push(Finding { problem, involved: Vec::new() });
            }
        }
    }
}

/// The backend that a Storage names.
fn active_backend(
    part: &Part<'_>,
    candidates: &Candidates<'_>,
    by_id: &BTreeMap<&ResourceId, &Part<'_>>,
    problems: &[Problem],
    findings: &mut Vec<Finding>,
) {
    let Some(spec) = part.version.spec.as_storage() else { return };
    let target = ResourceId::new(KindName::StorageBackend, spec.active_backend.clone());
    let known = candidates.get(&target).is_some_and(|other| other.declared)
        || by_id.get(&target).is_some_and(|other| other.candidate.kept.is_some() && !other.candidate.declared);
    if !known {
        let problem = dangling(part.id, part.version, "/spec/activeBackend", &target, candidates, problems);
        findings.push(Finding { problem, involved: vec![part.id.clone()] });
    }
}

/// What a reference to nothing is told by.
pub(super) fn dangling(
    id: &ResourceId,
    version: &Version,
    pointer: &str,
    target: &ResourceId,
    candidates: &Candidates<'_>,
    problems: &[Problem],
) -> Problem {
    let at = version.document.value_at(pointer);
    let problem =
        Problem::error(Code::BadReference, at, format!("{id} depends on {target}, which no manifest declares"));
    let others =
        candidates.iter().filter(|(other_id, other)| other_id.kind == target.kind && other.declared && *other_id != id);
    let names: Vec<&str> = others.map(|(id, _)| id.name.as_str()).collect();
    if let Some(near) = nearest(target.name.as_str(), names.iter().copied()) {
        return problem.hint(format!("did you mean `{near}`?"));
    }
    let unread =
        problems.iter().any(|problem| matches!(problem.code, Code::Syntax | Code::Unreadable | Code::UnknownKind));
    if unread {
        return problem.hint("a manifest with errors may be the one that declares it: repair that first");
    }
    match names.is_empty() {
        true if target.kind == KindName::Service => problem.hint("there is no other Service"),
        true => problem.hint(format!("there is no {}", target.kind)),
        false => problem.hint(format!("the {}s are {}", target.kind, listed(names, "and", 12))),
    }
}

fn never_completes(part: &Part<'_>, index: usize, other: &Part<'_>) -> Problem {
    let at = part.version.document.value_at(&format!("/spec/dependsOn/{index}/condition"));
    let message = format!("{} waits for {} to complete, which is started again whenever it ends", part.id, other.id);
    Problem::error(Code::Conflict, at, message)
        .label("would wait for ever")
        .also(other.version.document.value_at("/spec/restart/policy"), "its restart policy is `always`")
        .hint(format!("give {} `restart: {{ policy: on-failure }}`", other.id))
}

fn cycles(parts: &[Part<'_>], findings: &mut Vec<Finding>) {
    let names: BTreeMap<&str, &Part<'_>> =
        parts.iter().filter(|part| service(part).is_some()).map(|part| (part.id.name.as_str(), part)).collect();
    let edges: Edges<'_> = names
        .values()
        .map(|part| {
            let needs = service(part).into_iter().flat_map(|spec| &spec.depends_on);
            let needs = needs.filter_map(|need| names.get(need.service.as_str()).map(|other| other.id));
            (part.id, needs.collect())
        })
        .collect();
    for (group, way) in order::cycles(&edges) {
        let mut labels = Vec::new();
        for (index, id) in way.iter().enumerate() {
            let next = way[(index + 1) % way.len()];
            let Some(part) = names.get(id.name.as_str()) else { continue };
            let at = service(part).and_then(|spec| spec.depends_on.iter().position(|need| need.service == next.name));
            let pointer = format!("/spec/dependsOn/{}/service", at.unwrap_or_default());
            labels.push((part.version.document.value_at(&pointer), format!("{} depends on {}", id.name, next.name)));
        }
        let mut labels = labels.into_iter();
        let Some((first, text)) = labels.next() else { continue };
        let mut path: Vec<&str> = way.iter().map(|id| id.name.as_str()).collect();
        path.extend(path.first().copied());
        let message = format!("dependencies lead back to themselves: {}", path.join(" -> "));
        let mut problem = Problem::error(Code::Cycle, first, message).label(text);
        for (span, text) in labels {
            problem = problem.also(span, text);
        }
        let problem = problem.hint("take one of these dependencies away; none of the services could start first");
        findings.push(Finding { problem, involved: group.into_iter().cloned().collect() });
    }
}

/// What can be had only once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Port(u16),
    Route(String),
    Registration(String),
    Place(String),
}

/// Somebody who wants it, and where it says so. Finding the place costs parsing, so it waits until somebody asks.
struct Wisher<'a> {
    part: &'a Part<'a>,
    pointer: String,
}

fn clashes<'a>(parts: &'a [Part<'a>], findings: &mut Vec<Finding>) {
    let mut wishes: BTreeMap<Wish, Vec<Wisher<'a>>> = BTreeMap::new();
    for part in parts {
        for (wish, pointer) in wishes_of(part.version) {
            wishes.entry(wish).or_default().push(Wisher { part, pointer });
        }
    }
    for (wish, wishers) in wishes.iter().filter(|(_, wishers)| wishers.len() > 1) {
        findings.extend(clash(wish, wishers));
    }
}

fn wishes_of(version: &Version) -> Vec<(Wish, String)> {
    let module = version.module.as_deref();
    match &version.spec {
        Spec::Hub(hub) => {
            listen_port(hub).map(|port| (Wish::Port(port), "/spec/listen".to_owned())).into_iter().collect()
        }
        Spec::Vault(_) | Spec::Connection(_) | Spec::Storage(_) => Vec::new(),
        Spec::StorageBackend(backend) => {
            // Who we are there makes no other place of it.
            let place = place_of(backend, &version.document.folder, Vec::new(), &[0; 32]);
            let field = match place.location {
                Location::Fs { .. } => "/spec/fs/path",
                Location::Sqlite { .. } => "/spec/sqlite/path",
                Location::S3(_) => "/spec/s3/bucket",
            };
            vec![(Wish::Place(where_is(&place.location)), field.to_owned())]
        }
        Spec::Service(service) => {
            let mut wishes = Vec::new();
            let or_module = |own: bool, pointer: &str| if own { pointer } else { "/spec/module" }.to_owned();
            // A suspended service runs nothing, so it may share port and routes with the one that stands in for it.
            if !service.suspend.for_good() {
                if let Some(Port::Fixed(port)) = effective_port(service, module) {
                    wishes.push((Wish::Port(port), or_module(service.port.is_some(), "/spec/port")));
                }
                let own = !service.routes.is_empty();
                for (index, route) in effective_routes(service, module).iter().enumerate() {
                    let wish = Wish::Route(mount(&route.path).to_owned());
                    // A route twice in one service is the service's own mistake, and no clash with another.
                    if !wishes.iter().any(|(other, _)| *other == wish) {
                        wishes.push((wish, or_module(own, &format!("/spec/routes/{index}/path"))));
                    }
                }
            }
            if let Some(name) = effective_registration(service, module) {
                wishes.push((
                    Wish::Registration(name.to_owned()),
                    or_module(service.registers_as.is_some(), "/spec/registersAs"),
                ));
            }
            wishes
        }
    }
}

fn clash(wish: &Wish, wishers: &[Wisher<'_>]) -> Option<Finding> {
    let (code, what, hint) = match wish {
        Wish::Port(port) => (
            Code::PortClash,
            format!("port {port}"),
            "choose another port, or write `port: auto` to have a free one chosen",
        ),
        Wish::Route(path) => (Code::RouteClash, format!("the route `{path}`"), "give one of them another path"),
        Wish::Registration(name) => {
            (Code::RegistrationClash, format!("the name `{name}` in services.json"), "set `registersAs` of one of them")
        }
        Wish::Place(place) => (
            Code::PlaceClash,
            format!("the same {}", place.split(' ').next().unwrap_or_default()),
            "give one of them another place; to give a backend another name, move the blobs to a new one",
        ),
    };
    // Reported at whoever came last: what was there before is seldom what has to change.
    let mut sorted: Vec<&Wisher<'_>> = wishers.iter().collect();
    sorted.sort_by_cached_key(|wisher| {
        let candidate = wisher.part.candidate;
        // A Hub without an earlier version to go on with is the tree itself; a changed one is a change like any other.
        let service = wisher.part.id.kind == KindName::Service || candidate.kept.is_some() && !candidate.is_unchanged();
        let late = std::cmp::Reverse(place(wisher));
        (!service, !candidate.is_fresh(), candidate.is_unchanged(), candidate.kept.is_some(), late)
    });
    let names: Vec<String> = {
        let mut names: Vec<String> = wishers.iter().map(|wisher| wisher.part.id.to_string()).collect();
        names.dedup();
        names
    };
    let both = if names.len() == 2 { "both want" } else { "all want" };
    let (first, more) = sorted.split_first()?;
    let message = format!("{} {both} {what}", names.join(" and "));
    let mut problem = Problem::error(code, place(first), message).label(label(first));
    for wisher in more {
        problem = problem.also(place(wisher), label(wisher));
    }
    problem = problem.hint(hint);
    // A resource that no file declares and that is kept only while there are errors is nobody's mistake.
    if wishers.iter().any(|wisher| !wisher.part.candidate.declared) {
        problem = problem.hint("it is free again once the other errors are repaired");
    }
    // The Hub wins: without it there would be no tree. But for one that changed, and that took what others had.
    let is_hub = |wisher: &Wisher<'_>| wisher.part.id.kind == KindName::Hub;
    let blamed = is_hub(first) && !first.part.candidate.is_unchanged() && first.part.candidate.kept.is_some();
    let involved = wishers.iter().filter(|wisher| is_hub(wisher) == blamed).map(|wisher| wisher.part.id);
    Some(Finding { problem, involved: involved.cloned().collect() })
}

fn place(wisher: &Wisher<'_>) -> Span {
    wisher.part.version.document.value_at(&wisher.pointer)
}

fn label(wisher: &Wisher<'_>) -> String {
    let id = wisher.part.id;
    match (&wisher.part.candidate.declared, wisher.pointer.as_str()) {
        (false, _) => format!("{id} still has it: no manifest declares it, but it is kept while there are errors"),
        (true, "/spec/module") => format!("{id} has it from this module's module.json"),
        (true, _) if !wisher.part.candidate.is_fresh() => format!("{id} has it, held at its last good version"),
        (true, _) => format!("{id} wants it"),
    }
}
