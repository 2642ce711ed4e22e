//! Reading the manifest tree, and being woken when it changes. Nothing in here writes.

/// What git is doing to a tree.
pub(crate) mod git;
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

/// Whether a folder is a module's own (it has `.parachute/module.json`): its JSON files are not manifests.
fn is_module_dir(dir: &Path) -> bool {
    dir.join(".parachute/module.json").is_file()
}
