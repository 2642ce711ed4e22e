//! What git is doing to a tree: while it rewrites files, a look at them shows neither the old state nor the new.

use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders in git's folder that are there while it is in the middle of something, and what that is.
pub(crate) const MARKERS: [(&str, &str); 7] = [
    ("index.lock", "is changing files"),
    ("MERGE_HEAD", "is in the middle of a merge"),
    ("rebase-merge", "is in the middle of a rebase"),
    ("rebase-apply", "is in the middle of a rebase or am"),
    ("CHERRY_PICK_HEAD", "is in the middle of a cherry-pick"),
    ("REVERT_HEAD", "is in the middle of a revert"),
    ("shallow.lock", "is changing files"),
];
/// Longer than any path; a `.git` file holds one line.
const MAX_GIT_FILE_BYTES: u64 = 16 << 10;

/// The folder in which git keeps the state of the checkout that holds this folder: `.git` itself, or where a `.git` file
/// (worktrees, submodules) points.
pub(crate) fn enclosing(dir: &Path) -> Option<PathBuf> {
    let dot_git = dir.ancestors().map(|folder| folder.join(".git")).find(|path| path.exists())?;
    if dot_git.is_dir() {
        return Some(dot_git);
    }
    if fs::metadata(&dot_git).ok()?.len() > MAX_GIT_FILE_BYTES {
        return None;
    }
    let text = fs::read_to_string(&dot_git).ok()?;
    let target = text.lines().next()?.strip_prefix("gitdir:")?.trim();
    let folder = dot_git.parent()?.join(target);
    folder.is_dir().then_some(folder)
}

/// What git is in the middle of, in words.
pub(crate) fn busy(git_dir: &Path) -> Option<String> {
    let (name, doing) = MARKERS.iter().find(|(name, _)| git_dir.join(name).exists())?;
    Some(format!("git {doing} ({} exists)", git_dir.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_marker_holds_the_tree() {
        let dir = tempfile::tempdir().expect("folder");
        let (git, tree) = (dir.path().join(".git"), dir.path().join("a/b"));
        fs::create_dir_all(&tree).expect("tree");
        assert_eq!(enclosing(&tree), None);
        fs::create_dir(&git).expect("git");
        assert_eq!(enclosing(&tree).as_deref(), Some(git.as_path()));
        assert_eq!(busy(&git), None);
        for (name, doing) in MARKERS {
            fs::write(git.join(name), "").expect("marker");
            assert!(busy(&git).expect("busy").contains(doing), "{name}");
            fs::remove_file(git.join(name)).expect("done");
        }
    }

    #[test]
    fn a_worktree_has_its_own_state() {
        let dir = tempfile::tempdir().expect("folder");
        let (state, tree) = (dir.path().join("main/.git/worktrees/w"), dir.path().join("w"));
        fs::create_dir_all(&state).expect("state");
        fs::create_dir(&tree).expect("tree");
        for target in [state.to_str().expect("UTF-8"), "../main/.git/worktrees/w"] {
            fs::write(tree.join(".git"), format!("gitdir: {target}\n")).expect("file");
            let found = enclosing(&tree).expect("found");
            assert_eq!(fs::canonicalize(found).expect("there"), fs::canonicalize(&state).expect("there"));
        }
        fs::write(tree.join(".git"), "nonsense").expect("file");
        assert_eq!(enclosing(&tree), None);
    }
}
