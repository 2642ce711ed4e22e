//! Finding a command the way `execvp` does, but before anything is started, so that a mistake has a position.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::adapters::environment::own_binary;
use crate::ports::files::Program;

/// The word that stands for this very binary.
const OWN_WORD: &str = "trueup";

/// Finds a command: a path is taken relative to `dir`, a bare word is looked up in `search` (a PATH; its relative entries
/// start at `dir`, its empty ones are left out). The word `trueup` is this very binary.
pub fn find_program(word: &str, dir: &Path, search: &str) -> Program {
    if word == OWN_WORD
        && let Ok(own) = own_binary()
    {
        return Program::At(own);
    }
    if word.is_empty() || word.contains('\0') {
        return Program::NotFound;
    }
    if word.contains('/') {
        return look(dir.join(word));
    }
    let mut refused = None;
    for folder in search.split(':').filter(|folder| !folder.is_empty()) {
        match look(dir.join(folder).join(word)) {
            Program::At(path) => return Program::At(path),
            Program::NotExecutable(path) if !path.is_dir() => refused = refused.or(Some(path)),
            Program::NotExecutable(_) | Program::NotFound => {}
        }
    }
    refused.map_or(Program::NotFound, Program::NotExecutable)
}

/// What is at a path. `./` is taken out of it, `..` is not: it may lead through a link.
fn look(path: PathBuf) -> Program {
    let path: PathBuf = path.components().collect();
    match path.metadata() {
        Err(_) => Program::NotFound,
        Ok(found) if found.is_file() && accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS).is_ok() => {
            Program::At(path)
        }
        Ok(_) => Program::NotExecutable(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn put(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, "#!/bin/sh\n").expect("file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    #[test]
    fn words_and_paths_are_found() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path();
        put(&root.join("one/tool"), 0o644);
        put(&root.join("two/tool"), 0o755);
        put(&root.join("one/plain"), 0o644);
        fs::create_dir_all(root.join("one/folder")).expect("folder");
        let search = format!("{0}/none::{0}/one:two", root.display());
        let at = |path: &str| Program::At(root.join(path));
        let refused = |path: &str| Program::NotExecutable(root.join(path));
        for (word, wanted) in [
            ("tool", at("two/tool")),
            ("./two/tool", at("two/tool")),
            ("two/./tool", at("two/tool")),
            ("one/tool", refused("one/tool")),
            ("plain", refused("one/plain")),
            ("folder", Program::NotFound),
            ("one/folder", refused("one/folder")),
            ("nothing", Program::NotFound),
            ("./nothing", Program::NotFound),
            ("one/plain/below", Program::NotFound),
            ("", Program::NotFound),
            ("a\0b", Program::NotFound),
        ] {
            assert_eq!(find_program(word, root, &search), wanted, "{word:?}");
        }
        let absolute = root.join("two/tool");
        assert_eq!(find_program(absolute.to_str().expect("UTF-8"), Path::new("/"), ""), at("two/tool"));
        assert_eq!(find_program("trueup", root, ""), Program::At(own_binary().expect("own")));
    }
}
