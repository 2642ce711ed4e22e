//! What to watch so that every change of the tree is noticed: its folders, the links that lead to it, and the places where
//! something that is missing would appear. Folders are watched, never files: a save by rename leaves a file's watch behind.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::names::{Verdict, judge};
use super::{git, holds_no_manifests};

/// Folders watched at most; the kernel's own limit is often not much higher.
const MAX_FOLDERS: usize = 10_000;
/// Folders within folders, as when reading.
const MAX_DEPTH: usize = 32;
/// Links followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// The answer to "what matters?". All paths are real ones: no link is part of them, except as the last name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// Folders to watch.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Those of them whose manifests, folders and links matter.
    pub(super) tree: BTreeSet<PathBuf>,
    /// Those of them whose every entry matters.
    pub(super) open: BTreeSet<PathBuf>,
    /// Single entries that matter, wherever they are.
    pub(super) names: BTreeSet<PathBuf>,
    /// Not everything that matters is in here.
    pub(super) incomplete: bool,
}

/// What a change means for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meaning {
    Nothing,
    /// Look at the tree again.
    Look,
    /// Look again, and what must be watched may be another now.
    Rearm,
}

impl Targets {
    /// Finds out what matters. `arm` is called for every folder before it is listed, so that nothing can appear in between.
    pub(super) fn collect(root: &Path, also: &BTreeSet<PathBuf>, arm: &mut dyn FnMut(&Path)) -> Self {
        let mut found = Self::default();
        if let Some(real) = found.follow(root, arm).filter(|real| real.is_dir()) {
            let mut links = VecDeque::new();
            found.folder(&real, 0, &mut links, arm);
            while let Some((link, depth)) = links.pop_front() {
                found.link(&real, &link, depth, &mut links, arm);
            }
            if let Some(git_dir) = git::enclosing(&real).and_then(|dir| fs::canonicalize(dir).ok()) {
                found.names.extend(git::MARKERS.iter().map(|(name, _)| git_dir.join(name)));
                found.watch(git_dir, arm);
            }
        }
        for path in also {
            if let Some(real) = found.follow(path, arm).filter(|real| real.is_dir())
                && found.watch(real.clone(), arm)
            {
                found.open.insert(real);
            }
        }
        found
    }

    /// Notes a folder to watch. False when there are too many.
    fn watch(&mut self, folder: PathBuf, arm: &mut dyn FnMut(&Path)) -> bool {
        if self.folders.contains(&folder) {
            return true;
        }
        if self.folders.len() >= MAX_FOLDERS {
            self.incomplete = true;
            return false;
        }
        arm(&folder);
        self.folders.insert(folder);
        true
    }

    fn name(&mut self, folder: &Path, name: &OsString, arm: &mut dyn FnMut(&Path)) {
        self.names.insert(folder.join(name));
        self.watch(folder.to_owned(), arm);
    }

    /// Walks along a path, and notes every link on the way, the last name, and the first name that is missing. The answer is
    /// the real path, if there is something.
    fn follow(&mut self, path: &Path, arm: &mut dyn FnMut(&Path)) -> Option<PathBuf> {
        let mut rest: VecDeque<OsString> = parts(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let look = || fs::symlink_metadata(&next).ok();
            let mut found = look();
            if rest.is_empty() || found.as_ref().is_none_or(fs::Metadata::is_symlink) {
                self.name(&at, &part, arm);
                // Looked at again: it may have come or changed before it was watched.
                found = look();
            }
            if found?.is_symlink() {
                links += 1;
                let target = fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            } else {
                at = next;
            }
        }
        Some(at)
    }

    /// A folder of the tree and what is below it.
    fn folder(&mut self, folder: &Path, depth: usize, links: &mut Links, arm: &mut dyn FnMut(&Path)) {
        if depth > MAX_DEPTH || self.tree.contains(folder) || !self.watch(folder.to_owned(), arm) {
            return;
        }
        self.tree.insert(folder.to_owned());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(file_type) = entry.file_type() else { continue };
            let path = entry.path();
            if judge(&entry.file_name()) == Verdict::Skipped {
                continue;
            }
            if file_type.is_symlink() {
                self.names.insert(path.clone());
                links.push_back((path, depth + 1));
            } else if file_type.is_dir() && !holds_no_manifests(&path) {
                self.folder(&path, depth + 1, links, arm);
            }
        }
    }

    /// A link in the tree: followed while it stays in there; when it leads to nothing, that may change.
    fn link(&mut self, root: &Path, link: &Path, depth: usize, links: &mut Links, arm: &mut dyn FnMut(&Path)) {
        if fs::canonicalize(link).is_ok_and(|real| !real.starts_with(root)) {
            return;
        }
        if let Some(real) = self.follow(link, arm).filter(|real| real.is_dir() && !holds_no_manifests(real)) {
            self.folder(&real, depth, links, arm);
        }
    }

    /// What a change at this path means. `shape` is set when an entry came, went or was renamed.
    pub(super) fn meaning(&self, path: &Path, shape: bool) -> Meaning {
        if self.folders.contains(path) {
            return Meaning::Rearm;
        }
        if self.names.contains(path) {
            return if shape { Meaning::Rearm } else { Meaning::Look };
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Meaning::Rearm };
        if self.open.contains(parent) {
            return Meaning::Look;
        }
        if !self.tree.contains(parent) {
            // A folder that is watched, and not yet known to be, was armed a moment ago.
            return if self.folders.contains(parent) { Meaning::Nothing } else { Meaning::Rearm };
        }
        let leads_on = || fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() || found.is_symlink());
        match judge(name) {
            Verdict::Skipped => Meaning::Nothing,
            _ if shape && leads_on() => Meaning::Rearm,
            Verdict::Manifest => Meaning::Look,
            Verdict::Other => Meaning::Nothing,
        }
    }

    /// A number that is another one when anything that matters has changed: for where no events come.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut all = DefaultHasher::new();
        let mut add = |path: &Path| {
            path.hash(&mut all);
            for found in [fs::symlink_metadata(path), fs::metadata(path)].into_iter().flatten() {
                (found.dev(), found.ino(), found.mode()).hash(&mut all);
                // A folder changes with any entry, and most entries do not matter.
                if !found.is_dir() {
                    let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
                    (found.len(), times).hash(&mut all);
                }
            }
        };
        self.names.iter().for_each(|path| add(path));
        for folder in self.tree.union(&self.open) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            let matters = |path: &&PathBuf| self.open.contains(folder) || self.meaning(path, false) > Meaning::Nothing;
            paths.iter().filter(matters).for_each(|path| add(path));
        }
        self.tree.hash(&mut all);
        all.finish()
    }
}

type Links = VecDeque<(PathBuf, usize)>;

/// The names of a path, `..` included.
fn parts(path: &Path) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}
