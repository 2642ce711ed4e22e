//! Reading the manifest tree, and being woken when it changes. Nothing in here writes.

/// What git is doing to a tree.
pub(crate) mod fingerprint;
mod git;
/// Which names are manifests.
mod names;
/// Finding a command.
pub mod program;
/// When to look after changes.
mod quiet;
/// The tree, read once per look.
pub mod read;
/// What to watch.
mod targets;
/// One walk through the tree.
mod walk;
/// Being woken by changes.
pub mod watch;

use std::path::Path;

pub use read::TreeFiles;
pub use watch::Watcher;

/// Whether a folder's files are no manifests, whatever they are called: a module's own folder (it has `.parachute/module.json`), or a
/// state folder (it has our ledger), or a folder of blobs (it has our mark) that somebody put into the tree.
fn holds_no_manifests(dir: &Path) -> bool {
    dir.join(".parachute/module.json").is_file()
        || dir.join("ledger.db").is_file()
        || dir.join("trueup-owner").is_file()
}
