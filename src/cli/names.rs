//! Names as people type them: `services`, `Service/vault`, `vault`; what they mean, and what was probably meant.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use clap::Parser;
use clap_complete::CompletionCandidate;
use serde::Deserialize;

use super::engine::{Control, Offer};
use super::exit::Failure;
use super::{Desk, unless_cancelled};
use crate::model::condition::Reason;
use crate::model::exit::Exit;
use crate::model::id::{BadResourceId, KindName, Name, ResourceId};
use crate::model::output::ResourceLine;
pub use crate::model::wording::nearest;

/// What an argument names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every resource of a kind.
    Kind(KindName),
    /// One resource.
    Id(ResourceId),
    /// The resource with this name, whatever its kind.
    Name(Name),
    /// A word that is a kind, and may be a name as well: a service is often called `vault`.
    Word(KindName, Name),
}

impl FromStr for Target {
    type Err = BadResourceId;
    fn from_str(text: &str) -> Result<Self, BadResourceId> {
        if text.contains('/') {
            text.parse().map(Self::Id)
        } else if let Ok(kind) = text.parse::<KindName>() {
            let is_both = text.eq_ignore_ascii_case(kind.as_str());
            Ok(match Name::new(text) {
                Ok(name) if is_both => Self::Word(kind, name),
                _ => Self::Kind(kind),
            })
        } else {
            Ok(Self::Name(Name::new(text)?))
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(f),
            Self::Id(id) => id.fmt(f),
            Self::Name(name) | Self::Word(_, name) => name.fmt(f),
        }
    }
}

impl Target {
    fn matches(&self, line: &ResourceLine) -> bool {
        match self {
            Self::Kind(kind) => line.kind == *kind,
            Self::Id(id) => line.kind == id.kind && line.name == id.name,
            Self::Name(name) => line.name == *name,
            Self::Word(kind, name) => line.kind == *kind || line.name == *name,
        }
    }

    /// The name of a service, for commands that speak of services only. A word that is also a kind is taken as a name.
    ///
    /// # Errors
    /// When it names a resource of another kind.
    pub fn service(&self) -> Result<Name, Failure> {
        match self {
            Self::Name(name) | Self::Word(_, name) => Ok(name.clone()),
            Self::Id(id) if id.kind == KindName::Service => Ok(id.name.clone()),
            Self::Kind(kind) => {
                Name::new(&kind.as_str().to_ascii_lowercase()).map_err(|bad| Failure::new(Exit::Usage, bad.to_string()))
            }
            Self::Id(id) => Err(Failure::new(Exit::Usage, format!("{id} is not a Service: nothing of it runs"))
                .hint("'trueup get services' lists what can be stopped and started")),
        }
    }
}

/// The resources that the targets name; all when there are no targets. A kind without resources is no mistake.
///
/// # Errors
/// When a target names a resource that is not there.
pub fn select(all: Vec<ResourceLine>, targets: &[Target]) -> Result<Vec<ResourceLine>, Failure> {
    for target in targets {
        if !matches!(target, Target::Kind(_) | Target::Word(..)) && !all.iter().any(|line| target.matches(line)) {
            return Err(missing(&all, target));
        }
    }
    let wanted = |line: &ResourceLine| targets.is_empty() || targets.iter().any(|target| target.matches(line));
    Ok(all.into_iter().filter(wanted).collect())
}

/// The one resource that a target names.
///
/// # Errors
/// When there is none, or more than one.
pub fn one(all: &[ResourceLine], target: &Target) -> Result<ResourceId, Failure> {
    if let Target::Id(id) = target
        && all.iter().any(|line| target.matches(line))
    {
        return Ok(id.clone());
    }
    let mut ids: Vec<ResourceId> = all.iter().filter(|line| target.matches(line)).map(id_of).collect();
    if let Target::Word(_, name) = target
        && ids.iter().any(|id| id.name == *name)
    {
        ids.retain(|id| id.name == *name);
    }
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(missing(all, target)),
        more => {
            let list = more.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Failure::new(Exit::Usage, format!("'{target}' may be any of {list}")).hint("write Kind/name"))
        }
    }
}

/// The services that were named, each once, if all of them are there: a name that is not is better told before anything is stopped.
///
/// # Errors
/// What is wrong with the first bad name.
pub(super) async fn services(targets: &[Target], control: &dyn Control, desk: Desk<'_>) -> Result<Vec<Name>, Failure> {
    let mut wanted = Vec::new();
    for target in targets {
        let name = target.service()?;
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    let all = unless_cancelled(desk.cancel, control.get()).await?.resources;
    for name in &wanted {
        runnable(&all, name)?;
    }
    Ok(wanted)
}

/// Whether there is a service of this name that can be stopped and started.
///
/// # Errors
/// When there is none, or only a broken manifest of it.
fn runnable(all: &[ResourceLine], name: &Name) -> Result<(), Failure> {
    let id = ResourceId::service(name);
    if !all.iter().any(|line| id_of(line) == id)
        && let Some(other) = all.iter().find(|line| line.name == *name)
    {
        let failure = Failure::new(Exit::Usage, format!("{} is not a Service: nothing of it runs", id_of(other)));
        return Err(failure.hint("'trueup get services' lists what can be stopped and started"));
    }
    one(all, &Target::Id(id.clone()))?;
    let broken = |line: &&ResourceLine| id_of(line) == id && line.phase == Reason::Invalid.as_str();
    match all.iter().find(broken) {
        Some(line) => Err(Failure::new(Exit::Invalid, format!("{id} never ran: its manifest has a mistake"))
            .hint(format!("'trueup validate' shows it ({})", line.source))),
        None => Ok(()),
    }
}

/// The identity of a resource line.
pub fn id_of(line: &ResourceLine) -> ResourceId {
    ResourceId::new(line.kind, line.name.clone())
}

fn missing(all: &[ResourceLine], target: &Target) -> Failure {
    let failure = Failure::new(Exit::Error, format!("there is no resource '{target}'"));
    let near = match target {
        Target::Id(id) => {
            let names: Vec<String> = all.iter().map(|line| id_of(line).to_string()).collect();
            nearest(&id.to_string(), names.iter().map(String::as_str)).map(str::to_owned)
        }
        _ => nearest(&target.to_string(), all.iter().map(|line| line.name.as_str())).map(str::to_owned),
    };
    match near {
        Some(near) => failure.hint(format!("did you mean '{near}'?")),
        None => failure.hint("'trueup get' lists what there is"),
    }
}

/// The first lines of a document: enough to know who it is.
#[derive(Debug, Deserialize)]
pub struct Head {
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub metadata: HeadMetadata,
}

#[derive(Debug, Default, Deserialize)]
pub struct HeadMetadata {
    #[serde(default)]
    pub name: String,
}

/// Completion must answer while a key is still going down, so it looks at no more than this.
const MAX_FILES: usize = 2_000;
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 16;

/// Who stands in the manifests, read quickly and forgivingly: a file that is broken counts as empty.
pub fn heads(manifests: &Path) -> Vec<Head> {
    let mut files = Vec::new();
    collect(manifests, 0, &mut files);
    files.sort();
    let read = |path: &PathBuf| std::fs::read_to_string(path).ok();
    let parse = |text: String| serde_yaml::from_multiple::<Head>(&text).unwrap_or_default();
    files.iter().filter_map(read).flat_map(parse).collect()
}

fn collect(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        if hidden || files.len() >= MAX_FILES {
            continue;
        }
        if kind.is_dir() && depth < MAX_DEPTH {
            collect(&path, depth + 1, files);
        } else if matches!(suffix, Some("yaml" | "yml" | "json"))
            && std::fs::metadata(&path).is_ok_and(|about| about.is_file() && about.len() <= MAX_FILE_BYTES)
        {
            files.push(path);
        }
    }
}

/// Names of services, for shell completion.
pub fn service_candidates() -> Vec<CompletionCandidate> {
    let heads = heads(&completed_manifests());
    let services = heads.into_iter().filter(|head| head.kind == KindName::Service.as_str());
    services.map(|head| CompletionCandidate::new(head.metadata.name)).collect()
}

/// Names of backends, for shell completion.
pub fn backend_candidates() -> Vec<CompletionCandidate> {
    let heads = heads(&completed_manifests());
    let backends = heads.into_iter().filter(|head| head.kind == KindName::StorageBackend.as_str());
    backends.map(|head| CompletionCandidate::new(head.metadata.name)).collect()
}

/// Names of connections, for shell completion.
pub fn connection_candidates() -> Vec<CompletionCandidate> {
    let heads = heads(&completed_manifests());
    let connections = heads.into_iter().filter(|head| head.kind == KindName::Connection.as_str());
    connections.map(|head| CompletionCandidate::new(head.metadata.name)).collect()
}

/// Completers get nothing of us, so whoever can name events says so before.
static EVENTS: OnceLock<Offer> = OnceLock::new();

/// Says who names events.
pub(super) fn offer_events(offer: Offer) {
    let _ = EVENTS.set(offer);
}

/// Ids of events that wait or are dead, for shell completion.
pub fn event_candidates() -> Vec<CompletionCandidate> {
    let words: Vec<_> = std::env::args_os().collect();
    let flag = words.windows(2).find(|pair| pair[0] == "--state").map(|pair| PathBuf::from(&pair[1]));
    let Ok(place) = super::place_of(&completed_manifests(), flag.as_deref()) else { return Vec::new() };
    let ids = EVENTS.get().map(|offer| offer(&place.state)).unwrap_or_default();
    ids.into_iter().map(CompletionCandidate::new).collect()
}

/// `Kind/name` of every resource, and the names that only one has, for shell completion.
pub fn resource_candidates() -> Vec<CompletionCandidate> {
    let mut all = heads(&completed_manifests());
    all.retain(|head| !head.metadata.name.is_empty());
    let only = |name: &str| all.iter().filter(|head| head.metadata.name == name).count() == 1;
    let names = all.iter().map(|head| &head.metadata.name).filter(|name| only(name)).cloned();
    let ids = all.iter().map(|head| format!("{}/{}", head.kind, head.metadata.name));
    names.chain(ids).map(CompletionCandidate::new).collect()
}

/// What `get` takes, for shell completion.
pub fn listed_candidates() -> Vec<CompletionCandidate> {
    let words = super::catalog::What::ALL.map(|what| CompletionCandidate::new(what.as_str()));
    words.into_iter().chain(resource_candidates()).collect()
}

/// The manifest folder of the command line that is being completed: clap gives completers only the word at the cursor, so the
/// flag is looked for among the words, and otherwise clap's own default (which knows the environment variable) holds.
fn completed_manifests() -> PathBuf {
    let words: Vec<_> = std::env::args_os().collect();
    let flag = words.windows(2).find(|pair| pair[0] == "-f" || pair[0] == "--manifests");
    if let Some(pair) = flag
        && Path::new(&pair[1]).is_dir()
    {
        return PathBuf::from(&pair[1]);
    }
    let default = super::args::Cli::try_parse_from(["trueup", "get"]).map(|cli| cli.global.manifests);
    default.unwrap_or_else(|_| PathBuf::from("manifests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_kind_a_resource_or_a_name() {
        let parse = |text: &str| text.parse::<Target>();
        assert_eq!(parse("services").expect("kind"), Target::Kind(KindName::Service));
        let hub = Name::new("hub").expect("a name");
        assert_eq!(parse("hub").expect("both"), Target::Word(KindName::Hub, hub));
        let vault = Name::new("vault").expect("a name");
        assert_eq!(parse("service/vault").expect("id"), Target::Id(ResourceId::service(&vault)));
        assert_eq!(parse("vault").expect("both"), Target::Word(KindName::Vault, vault));
        assert_eq!(parse("Vault").expect("kind"), Target::Kind(KindName::Vault));
        let clerk = Name::new("clerk").expect("a name");
        assert_eq!(parse("clerk").expect("name"), Target::Name(clerk));
        assert!(parse("service/").is_err());
        assert!(parse("widget/x").is_err());
    }

    #[test]
    fn a_mistyped_word_finds_its_neighbour() {
        assert_eq!(nearest("valt", ["hub", "vault"].into_iter()), Some("vault"));
        assert_eq!(nearest("zzz", ["hub", "vault"].into_iter()), None);
    }

    #[test]
    fn heads_are_read_from_every_document_and_broken_files_are_skipped() {
        let dir = tempfile::tempdir().expect("a folder");
        let two = "apiVersion: trueup/v1\nkind: Hub\nmetadata: {name: home}\n---\nkind: Service\nmetadata:\n  name: vault\n\
                   spec: {command: [x]}\n";
        std::fs::write(dir.path().join("a.yaml"), two).expect("written");
        std::fs::write(dir.path().join("b.yaml"), "kind: [").expect("written");
        std::fs::write(dir.path().join("c.txt"), two).expect("written");
        let heads = heads(dir.path());
        let names: Vec<_> = heads.iter().map(|h| (h.kind.as_str(), h.metadata.name.as_str())).collect();
        assert_eq!(names, [("Hub", "home"), ("Service", "vault")]);
    }
}
