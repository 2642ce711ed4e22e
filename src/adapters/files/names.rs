//! Which names are manifests: an allow-list of suffixes, minus what editors and version control leave behind.

use std::ffi::OsStr;

/// The suffixes of manifests.
const SUFFIXES: [&str; 3] = [".yaml", ".yml", ".json"];

/// What a name in the tree says about its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A manifest, if it is a file.
    Manifest,
    /// Something else, if it is a file; a folder of this name is entered.
    Other,
    /// Hidden, a backup or an editor's own: neither read nor entered.
    Skipped,
}

/// Judges a name. Case matters: `A.YAML` is no manifest, as on every other machine that reads the tree.
pub(super) fn judge(name: &OsStr) -> Verdict {
    // Names that are not UTF-8 keep their ASCII parts, which are all that is looked at here.
    let name = name.to_string_lossy();
    let leftover = name.starts_with('.')
        || name.ends_with('~')
        || (name.starts_with('#') && name.ends_with('#'))
        // vim tries whether it can write into a folder with a file of this name.
        || name == "4913"
        || [".swp", ".swo", ".swx", ".orig", ".rej", ".bak", ".tmp"].iter().any(|end| name.ends_with(end));
    if leftover {
        Verdict::Skipped
    } else if SUFFIXES.iter().any(|end| name.ends_with(end)) {
        Verdict::Manifest
    } else {
        Verdict::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged() {
        for (verdict, names) in [
            (Verdict::Manifest, &["a.yaml", "a.yml", "a.json", "a.b.yaml", "ä.yaml"][..]),
            (Verdict::Other, &["a", "README.md", "a.YAML", "yaml", "a.yaml.txt", "41913"]),
            (
                Verdict::Skipped,
                &[".a.yaml", "a.yaml~", ".a.yaml.swp", "a.swp", "#a.yaml#", ".#a.yaml", "4913", "a.yaml.orig"],
            ),
            (Verdict::Skipped, &["a.yaml.rej", "a.yaml.bak", "..data", ".git", ".yaml", "a.yaml.tmp"]),
        ] {
            for name in names {
                assert_eq!(judge(OsStr::new(name)), verdict, "{name}");
            }
        }
    }
}
