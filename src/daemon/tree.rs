//! Which tree a state folder belongs to. Trees that stand side by side would share the state folder beside them, and a run on the
//! one would remove what the other declares: so the first run that acts writes its tree down, and the others are refused.

use std::path::{Path, PathBuf};

use super::build;
use crate::cli::engine::Place;
use crate::cli::exit::Failure;
use crate::cli::{names, own_state};
use crate::model::exit::Exit;
use crate::model::id::KindName;
use crate::ports::store::Store;

/// The ledger's name for the tree's folder.
const SETTING: &str = "tree";

/// A state folder that belongs to another tree than the one that was given.
#[derive(Debug)]
pub(super) struct Foreign {
    recorded: PathBuf,
    given: PathBuf,
    state: PathBuf,
    /// The Hub that both trees have, when the recorded folder is gone: then it was probably moved.
    moved: Option<String>,
}

/// The folder's one spelling. A link in its place is left as it is: what it points to may be replaced, the tree stays.
fn spelled(folder: &Path) -> PathBuf {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match (folder.parent(), folder.file_name()) {
        (Some(parent), Some(name)) => whole(parent).join(name),
        _ => whole(folder),
    }
}

fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    a == b || real(a).is_some_and(|real_a| Some(real_a) == real(b))
}

/// The tree that this ledger was last used for; none while it owns nothing, because then nothing of it can be lost.
pub(super) fn recorded(store: &dyn Store) -> Result<Option<PathBuf>, Failure> {
    let root = store.get(SETTING).map_err(anyhow::Error::from)?;
    let owned = store.owned().map_err(anyhow::Error::from)?;
    Ok(root.filter(|_| !owned.is_empty()).map(PathBuf::from))
}

/// Whether the ledger belongs to another tree than this place's.
pub(super) fn foreign(place: &Place, store: &dyn Store) -> Result<Option<Foreign>, Failure> {
    let given = spelled(&build::manifests(place)?);
    let Some(recorded) = recorded(store)?.filter(|recorded| !same(recorded, &given)) else { return Ok(None) };
    let owned = store.owned().map_err(anyhow::Error::from)?;
    let hubs = names::heads(&given).into_iter().filter(|head| head.kind == KindName::Hub.as_str());
    let is_ours = |name: &String| owned.keys().any(|id| id.kind == KindName::Hub && id.name.as_str() == name);
    let moved = hubs.map(|head| head.metadata.name).find(is_ours).filter(|_| !recorded.exists());
    Ok(Some(Foreign { recorded, given, state: place.state.clone(), moved }))
}

/// Writes down whose state this is from now on. The caller holds the lock.
pub(super) fn bind(place: &Place, store: &dyn Store) -> Result<(), Failure> {
    let given = spelled(&build::manifests(place)?).to_string_lossy().into_owned();
    if store.get(SETTING).map_err(anyhow::Error::from)?.as_ref() != Some(&given) {
        store.set(SETTING, &given).map_err(anyhow::Error::from)?;
    }
    Ok(())
}

/// Whether this place's folder is not there and was never there for this state: a slip of the keyboard, and no reason to write
/// anything. A tree that was there and is gone is another thing: what it declared is held.
pub(super) fn never_was(place: &Place, store: &dyn Store) -> Result<bool, Failure> {
    Ok(!build::manifests(place)?.exists() && recorded(store)?.is_none())
}

impl Foreign {
    /// The refusal, and what to do.
    pub(super) fn refuse(self) -> Failure {
        let Self { recorded, given, state, moved } = self;
        let (recorded, shown, state) = (recorded.display(), given.display(), state.display());
        let message =
            format!("the state folder {state} belongs to the tree {recorded}, not to {shown}; nothing was done");
        let second = format!("a second tree needs a state of its own: --state {}", own_state(&given).display());
        let hint = match moved {
            Some(hub) => format!(
                "{recorded} is not there any more and {shown} has the same Hub/{hub}: if the tree was moved, say so once \
                 with 'trueup reconcile --adopt-state' ('trueup plan --adopt-state' shows what that comes to); {second}"
            ),
            None if given.exists() => format!(
                "{second}; if {shown} is to take the place of the other tree, say so once with 'trueup reconcile --adopt-state'"
            ),
            None => format!("{shown} does not exist: check -f, or leave it out"),
        };
        Failure::new(Exit::Refused, message).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_spelling_and_a_link_keeps_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(dir.path()).expect("a path");
        for name in ["one", "two", "deep"] {
            std::fs::create_dir(root.join(name)).expect("a folder");
        }
        std::os::unix::fs::symlink(root.join("one"), root.join("link")).expect("a link");
        assert_eq!(spelled(&root.join("deep/../one")), root.join("one"));
        assert_eq!(spelled(&root.join("none")), root.join("none"));
        assert_eq!(spelled(&root.join("link")), root.join("link"));
        assert!(same(&root.join("link"), &root.join("one")));
        assert!(!same(&root.join("none"), &root.join("two")));
    }
}
