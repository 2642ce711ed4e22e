//! Paths as manifests write them. Pure.

use std::path::{Path, PathBuf};

/// Removes `.` and resolves `..` by name, so that the same folder has one spelling.
pub fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}
