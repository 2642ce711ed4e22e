//! Order and cycles of a dependency graph. Nothing here recurses: a chain of ten thousand services is a valid tree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::id::ResourceId;

/// Who depends on whom. Every id is a key; dependencies that are no key are not looked at.
pub(super) type Edges<'a> = BTreeMap<&'a ResourceId, Vec<&'a ResourceId>>;

/// Dependencies first, equal ones by name. Members of a cycle come last, by name.
pub(super) fn dependencies_first(edges: &Edges<'_>) -> Vec<ResourceId> {
    let mut waits: BTreeMap<&ResourceId, usize> = BTreeMap::new();
    let mut dependants: BTreeMap<&ResourceId, Vec<&ResourceId>> = BTreeMap::new();
    for (&id, needs) in edges {
        let known: BTreeSet<&ResourceId> = needs.iter().copied().filter(|need| edges.contains_key(need)).collect();
        waits.insert(id, known.len());
        for need in known {
            dependants.entry(need).or_default().push(id);
        }
    }
    let mut ready: BTreeSet<&ResourceId> = waits.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(id) = ready.pop_first() {
        waits.remove(id);
        order.push(id.clone());
        for dependant in dependants.get(id).into_iter().flatten() {
            if let Some(count) = waits.get_mut(dependant) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(dependant);
                }
            }
        }
    }
    order.extend(waits.into_keys().cloned());
    order
}

/// Groups of resources that lead back to themselves, each with one shortest way round: `[a, b]` is a -> b -> a.
pub(super) fn cycles<'a>(edges: &Edges<'a>) -> Vec<(BTreeSet<&'a ResourceId>, Vec<&'a ResourceId>)> {
    // What is left after taking away, again and again, whatever waits for nothing or is waited for by nothing, are cycles
    // and the ways between them.
    let mut left: BTreeSet<&ResourceId> = edges.keys().copied().collect();
    trim(edges, &mut left);
    trim(&reversed(edges), &mut left);
    let mut found = Vec::new();
    while let Some(&start) = left.first() {
        left.remove(start);
        let Some(way) = way_round(edges, start) else { continue };
        let forth = reach(edges, start);
        let back = reach(&reversed(edges), start);
        let group: BTreeSet<&ResourceId> = forth.intersection(&back).copied().collect();
        left.retain(|id| !group.contains(id));
        found.push((group, way));
    }
    found
}

/// Removes what waits for nothing that is left.
fn trim<'a>(edges: &Edges<'a>, left: &mut BTreeSet<&'a ResourceId>) {
    let part: Edges<'a> = left
        .iter()
        .map(|id| (*id, edges.get(id).into_iter().flatten().copied().filter(|need| left.contains(need)).collect()))
        .collect();
    let mut waits: BTreeMap<&ResourceId, usize> = part.iter().map(|(id, needs)| (*id, needs.len())).collect();
    let dependants = reversed(&part);
    let mut free: Vec<&ResourceId> = waits.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    while let Some(id) = free.pop() {
        left.remove(id);
        for dependant in dependants.get(id).into_iter().flatten() {
            if let Some(count) = waits.get_mut(dependant) {
                *count -= 1;
                if *count == 0 {
                    free.push(dependant);
                }
            }
        }
    }
}

fn reversed<'a>(edges: &Edges<'a>) -> Edges<'a> {
    let mut back: Edges<'a> = edges.keys().map(|id| (*id, Vec::new())).collect();
    for (&id, needs) in edges {
        for need in needs {
            if let Some(list) = back.get_mut(need) {
                list.push(id);
            }
        }
    }
    back
}

fn reach<'a>(edges: &Edges<'a>, start: &'a ResourceId) -> BTreeSet<&'a ResourceId> {
    let mut seen = BTreeSet::from([start]);
    let mut next = vec![start];
    while let Some(id) = next.pop() {
        for &need in edges.get(id).into_iter().flatten() {
            if edges.contains_key(need) && seen.insert(need) {
                next.push(need);
            }
        }
    }
    seen
}

/// The shortest way from a resource back to itself.
fn way_round<'a>(edges: &Edges<'a>, start: &'a ResourceId) -> Option<Vec<&'a ResourceId>> {
    let mut came_from: BTreeMap<&ResourceId, &ResourceId> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(id) = queue.pop_front() {
        for &need in edges.get(id).into_iter().flatten() {
            if need == start {
                let mut way = vec![id];
                while let Some(&before) = way.last().and_then(|last| came_from.get(last)) {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            if edges.contains_key(need) && !came_from.contains_key(need) {
                came_from.insert(need, id);
                queue.push_back(need);
            }
        }
    }
    None
}
