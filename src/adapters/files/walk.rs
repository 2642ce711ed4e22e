//! One walk through the manifest tree: real folders first, links after them, everything in the order of names.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{Verdict, judge};
use super::read::{ReadFailure, decode, read_stable, resolve_root, unsafe_permissions};
use super::{git, holds_no_manifests};
use crate::model::problem::{Code, Problem};
use crate::model::source::SourceFile;
use crate::model::span::Span;
use crate::ports::files::Scan;

/// Twice the manifests of the largest tree we promise to be quick with.
const MAX_FILES: usize = 20_000;
/// All texts together: they stay in memory for the length of a tick.
const MAX_TREE_BYTES: usize = 64 << 20;
/// Folders within folders; deeper is a loop or a mistake.
const MAX_DEPTH: usize = 32;
/// Entries looked at, manifests or not: a data folder in the tree must not stop the engine for minutes.
const MAX_ENTRIES: usize = 200_000;
/// Names listed as skipped; the rest is only counted.
const MAX_SKIPPED: usize = 1_000;

/// The state of a walk.
pub(super) struct Walk<'a> {
    root: &'a Path,
    shown: &'a dyn Fn(&Path) -> Arc<str>,
    scan: Scan,
    /// Real paths of folders and files that were read: nothing is read twice, and loops of links end.
    seen: BTreeSet<PathBuf>,
    /// Links that wait until all real files were read.
    links: VecDeque<Entry>,
    bytes: usize,
    entries: usize,
    unlisted: usize,
    /// A limit was hit; nothing more is read.
    full: bool,
}

/// Something in the tree: where it is, and where the user sees it.
struct Entry {
    real: PathBuf,
    visible: PathBuf,
    depth: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Path, shown: &'a dyn Fn(&Path) -> Arc<str>) -> Self {
        let scan = Scan { root: shown(root), files: Vec::new(), problems: Vec::new(), skipped: Vec::new(), busy: None };
        let (seen, links) = (BTreeSet::new(), VecDeque::new());
        Self { root, shown, scan, seen, links, bytes: 0, entries: 0, unlisted: 0, full: false }
    }

    pub(super) fn run(mut self) -> Scan {
        let shown = (self.shown)(self.root);
        let (real, metadata) = match resolve_root(self.root, &shown) {
            Ok(found) => found,
            Err(problem) => {
                self.scan.problems.push(problem);
                return self.scan;
            }
        };
        self.scan.problems.extend(unsafe_permissions(&metadata, &shown));
        let git_dir = git::enclosing(&real);
        let busy_before = git_dir.as_deref().and_then(git::busy);
        self.folder(&Entry { real: real.clone(), visible: self.root.to_owned(), depth: 0 });
        while let Some(link) = self.links.pop_front() {
            self.link(&real, &link);
        }
        // Looked at again: git may have begun while we read.
        self.scan.busy = busy_before.or_else(|| git_dir.as_deref().and_then(git::busy));
        self.scan.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.scan.skipped.sort();
        if self.unlisted > 0 {
            self.scan.skipped.push(format!("... and {} more", self.unlisted));
        }
        self.scan
    }

    /// Reads a real folder and what is below it.
    fn folder(&mut self, folder: &Entry) {
        if folder.depth > MAX_DEPTH {
            return self.problem(Code::TooLarge, &folder.visible, &format!("is more than {MAX_DEPTH} folders deep"));
        }
        if !self.seen.insert(folder.real.clone()) {
            return self.skip(&folder.visible);
        }
        let list = fs::read_dir(&folder.real).and_then(|entries| {
            let mut list = Vec::new();
            for entry in entries.take(MAX_ENTRIES + 1) {
                let entry = entry?;
                list.push((entry.file_name(), entry.file_type()?));
            }
            Ok(list)
        });
        let mut list = match list {
            Ok(list) => list,
            Err(error) => return self.problem(Code::Unreadable, &folder.visible, &format!("cannot be read: {error}")),
        };
        self.entries += list.len();
        if self.entries > MAX_ENTRIES {
            return self.stop(&format!("holds more than {MAX_ENTRIES} files and folders"));
        }
        list.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, file_type) in list {
            if self.full {
                return;
            }
            let entry =
                Entry { real: folder.real.join(&name), visible: folder.visible.join(&name), depth: folder.depth + 1 };
            let verdict = judge(&name);
            if verdict == Verdict::Skipped {
                self.skip(&entry.visible);
            } else if file_type.is_symlink() {
                self.links.push_back(entry);
            } else if file_type.is_dir() {
                self.subfolder(&entry);
            } else if verdict == Verdict::Manifest {
                self.file(&entry);
            } else {
                self.skip(&entry.visible);
            }
        }
    }

    /// A folder below the root: entered, unless it is a module's own, whose JSON files are no manifests.
    fn subfolder(&mut self, entry: &Entry) {
        if holds_no_manifests(&entry.real) { self.skip(&entry.visible) } else { self.folder(entry) }
    }

    /// Follows a link that stays in the tree.
    fn link(&mut self, root: &Path, link: &Entry) {
        if self.full {
            return;
        }
        let manifest = link.visible.file_name().is_some_and(|name| judge(name) == Verdict::Manifest);
        let target = fs::canonicalize(&link.real).and_then(|real| Ok((fs::metadata(&real)?, real)));
        let (metadata, real) = match target {
            Ok(target) => target,
            Err(error) => return self.problem(Code::Unreadable, &link.visible, &broken_link(&error)),
        };
        if !metadata.is_dir() && !manifest {
            return self.skip(&link.visible);
        }
        if !real.starts_with(root) {
            let text = format!("is a link that leaves the manifest folder (to {})", real.display());
            return self.problem(Code::LeavesRoot, &link.visible, &text);
        }
        let entry = Entry { real, visible: link.visible.clone(), depth: link.depth };
        if metadata.is_dir() { self.subfolder(&entry) } else { self.file(&entry) }
    }

    /// Reads a manifest.
    fn file(&mut self, entry: &Entry) {
        if !self.seen.insert(entry.real.clone()) {
            return self.skip(&entry.visible);
        }
        if self.scan.files.len() >= MAX_FILES {
            return self.stop(&format!("holds more than {MAX_FILES} manifests"));
        }
        let bytes = match read_stable(&entry.real) {
            Ok(bytes) => bytes,
            Err(failure) => {
                let code = match failure {
                    ReadFailure::TooLarge => Code::TooLarge,
                    _ => Code::Unreadable,
                };
                let text = match failure {
                    ReadFailure::Missing => "vanished while the folder was being read".to_owned(),
                    other => other.to_string(),
                };
                return self.problem(code, &entry.visible, &text);
            }
        };
        self.bytes += bytes.len();
        if self.bytes > MAX_TREE_BYTES {
            return self.stop(&format!("holds more than {} MiB of manifests", MAX_TREE_BYTES >> 20));
        }
        if entry.visible.file_name().map(OsStr::as_bytes).is_some_and(|name| str::from_utf8(name).is_err()) {
            return self.problem(Code::NotUtf8, &entry.visible, "has a name that is not UTF-8");
        }
        let shown = (self.shown)(&entry.visible);
        match decode(&shown, bytes) {
            Ok(text) => self.scan.files.push(SourceFile { shown, path: entry.visible.clone(), text }),
            Err(problem) => self.scan.problems.push(problem),
        }
    }

    fn skip(&mut self, path: &Path) {
        if self.scan.skipped.len() < MAX_SKIPPED {
            self.scan.skipped.push((self.shown)(path).to_string());
        } else {
            self.unlisted += 1;
        }
    }

    fn problem(&mut self, code: Code, path: &Path, what: &str) {
        let shown = (self.shown)(path);
        let text = format!("{shown} {what}");
        self.scan.problems.push(Problem::error(code, Span::file_start(shown), text));
    }

    /// A limit of the tree as a whole.
    fn stop(&mut self, what: &str) {
        self.full = true;
        self.problem(Code::TooLarge, self.root, what);
    }
}

fn broken_link(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is a link to nothing".to_owned(),
        _ => format!("is a link that cannot be followed: {error}"),
    }
}
