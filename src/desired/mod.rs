//! Documents to one checked graph: names unique, references found, no cycles, no clashes. A resource with a mistake is
//! held at its last good version, everything else moves, and a mistake never looks like a deletion.

mod catalog;
mod checks;
mod connections;
#[cfg(test)]
mod connections_tests;
mod link;
mod order;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::document::envelope::Schemas;
use crate::document::{Document, Named, parse};
use crate::kinds::Spec;
use crate::kinds::hub::spec::HubSpec;
use crate::kinds::service::module::{Module, Modules, manifest_path};
use crate::model::digest::Digest;
use crate::model::id::ResourceId;
use crate::model::problem::{Problem, Severity};
use crate::model::source::{SourceFile, Sources};
use crate::model::span::Span;

/// One manifest file, read and checked by itself. A pure function of the file, so it may be kept while the file's text
/// stays the same.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub source: SourceFile,
    /// Documents without a mistake.
    pub entries: Vec<Entry>,
    pub problems: Vec<Problem>,
    /// Identities that could be read in documents with mistakes.
    pub named: Vec<Named>,
}

/// One usable document.
#[derive(Clone, Debug)]
pub struct Entry {
    pub document: Arc<Document>,
    pub spec: Spec,
}

impl Manifest {
    /// Parses a file and reads the specs of its documents.
    pub fn read(source: &SourceFile, schemas: &Schemas) -> Self {
        let parsed = parse(source, schemas);
        let mut manifest =
            Self { source: source.clone(), entries: Vec::new(), problems: parsed.problems, named: parsed.named };
        for document in parsed.documents {
            let mut problems = Vec::new();
            match Spec::read(&document, &mut problems) {
                Some(spec) => manifest.entries.push(Entry { document, spec }),
                None => {
                    let first = problems.first();
                    let at = first.map_or_else(|| document.origin.clone(), |problem| problem.span().clone());
                    let message = first.map_or_else(String::new, |problem| problem.message.clone());
                    let (id, origin) = (document.id.clone(), document.value_at("/metadata/name"));
                    manifest.named.push(Named { id, origin, at, message });
                }
            }
            manifest.problems.append(&mut problems);
        }
        manifest
    }
}

/// A version of a resource that was applied before, as the ledger has it.
#[derive(Clone, Debug)]
pub struct LastGood {
    pub id: ResourceId,
    /// The document, as JSON.
    pub document: String,
    /// The folder that relative paths in it start from.
    pub base: PathBuf,
    /// Where it stood, as shown to people.
    pub source: String,
    /// The module.json it was applied with, when there was one.
    pub module: Option<Arc<Module>>,
    /// The version with this digest was tried after it and failed, because of this.
    pub refused: Option<(Digest, String)>,
}

/// Everything that a tree comes to.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The manifest folder as shown to people.
    pub root: &'a Arc<str>,
    pub manifests: &'a [Arc<Manifest>],
    /// What the scan could not read.
    pub problems: &'a [Problem],
    /// The module.json files that [`wanted_modules`] names, by path.
    pub modules: &'a Modules,
    pub last_good: &'a [LastGood],
}

/// Why a resource is not at the version its file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub message: String,
    /// Where the reason stands; `None` when no manifest declares the resource any more.
    pub span: Option<Span>,
    /// The version in the file was tried and failed; it has no mistake that can be seen in it.
    pub failed: bool,
}

/// One resource as it shall be.
#[derive(Clone, Debug)]
pub struct Resource {
    pub id: ResourceId,
    /// Of the document's canonical JSON.
    pub digest: Digest,
    pub document: Arc<Document>,
    pub spec: Spec,
    /// The module.json of a Service with `module`. Missing only for a held resource that nobody knows it of.
    pub module: Option<Arc<Module>>,
    /// Set when this is the last good version, not the one in the files.
    pub held: Option<Held>,
}

/// The checked graph.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub resources: BTreeMap<ResourceId, Resource>,
    /// Every resource once, dependencies first; equal ones by name.
    pub order: Vec<ResourceId>,
    pub hub: Option<Arc<HubSpec>>,
    /// What files declare with mistakes and no earlier version stands in for.
    pub invalid: BTreeMap<ResourceId, Held>,
    /// Sorted by place.
    pub problems: Vec<Problem>,
    /// The texts that the problems speak of.
    pub sources: Sources,
    /// Whether the tree is free of errors. If not, what is not declared must not be taken for removed.
    pub complete: bool,
}

/// The module.json files that the tree needs.
pub fn wanted_modules(manifests: &[Arc<Manifest>]) -> Vec<PathBuf> {
    let entries = manifests.iter().flat_map(|manifest| &manifest.entries);
    let path = |entry: &Entry| {
        let module = entry.spec.as_service()?.module.as_deref()?;
        Some(manifest_path(&entry.document.folder, module))
    };
    let mut all: Vec<PathBuf> = entries.filter_map(path).collect();
    all.sort();
    all.dedup();
    all
}

impl Desired {
    /// Links everything that was read. The only way to make one.
    pub fn link(input: Input<'_>) -> Self {
        link::link(input)
    }

    /// The resources that are held.
    pub fn held(&self) -> impl Iterator<Item = (&ResourceId, &Held)> {
        self.resources.iter().filter_map(|(id, resource)| resource.held.as_ref().map(|held| (id, held)))
    }

    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}
