//! The vaults of one home: a folder each. Whoever makes or removes such a folder needs no running server, and a server that runs
//! notices at its next request.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::store::{StoreError, Vault};

const DATABASE: &str = "vault.db";
/// Vaults on their way out; a name that no vault can have.
const REMOVED: &str = ".removed";
/// Somebody removed a vault on purpose: the first one is not made again by itself.
const NO_FIRST: &str = ".no-auto-create";
const RESERVED: [&str; 4] = ["list", "new", "assets", "admin"];

/// Why there is no such vault.
#[derive(Debug, thiserror::Error)]
pub(super) enum VaultError {
    #[error("'{0}' is no name for a vault: 2 to 32 of a-z, 0-9, '_' and '-', and none of list, new, assets, admin")]
    Name(String),
    #[error("there is no vault '{0}'")]
    Unknown(String),
    #[error("{}: {error}", path.display())]
    Disk { path: PathBuf, error: io::Error },
    #[error("nothing is removed without --yes")]
    Unsure,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one file is, whatever its path: a vault that was removed and made again is another one.
type Identity = (u64, u64);

/// The vaults.
pub(super) struct Vaults {
    /// `None` keeps one vault, in memory.
    folder: Option<PathBuf>,
    open: Mutex<BTreeMap<String, (Identity, Arc<Vault>)>>,
}

impl Vaults {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, open: Mutex::default() }
    }

    /// Makes the first vault, if there is none and none was removed on purpose.
    pub(super) fn start(&self, first: &str) -> Result<(), VaultError> {
        let Some(folder) = &self.folder else {
            let vault = Arc::new(Vault::open(first, None)?);
            self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(first.to_owned(), ((0, 0), vault));
            return Ok(());
        };
        if self.names().is_empty() && !folder.join(NO_FIRST).exists() {
            self.create(first)?;
        }
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<String> {
        let Some(folder) = &self.folder else {
            return self.open.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| folder.join(name).join(DATABASE).is_file()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    /// The vault by this name, as it is on the disk now.
    pub(super) fn get(&self, name: &str) -> Result<Arc<Vault>, VaultError> {
        let unknown = || VaultError::Unknown(name.to_owned());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(folder) = &self.folder else {
            return open.get(name).map(|(_, vault)| vault.clone()).ok_or_else(unknown);
        };
        if !is_name(name) {
            return Err(unknown());
        }
        let file = folder.join(name).join(DATABASE);
        let Ok(metadata) = fs::metadata(&file) else {
            open.remove(name);
            return Err(unknown());
        };
        let identity = (metadata.dev(), metadata.ino());
        if let Some((known, vault)) = open.get(name)
            && *known == identity
        {
            return Ok(vault.clone());
        }
        let vault = Arc::new(Vault::open(name, Some(&file))?);
        open.insert(name.to_owned(), (identity, vault.clone()));
        Ok(vault)
    }

    /// Makes a vault. Says whether it is new.
    pub(super) fn create(&self, name: &str) -> Result<bool, VaultError> {
        let folder = self.folder.as_deref().filter(|_| is_name(name) && !RESERVED.contains(&name));
        let folder = folder.ok_or_else(|| VaultError::Name(name.to_owned()))?;
        let own = folder.join(name);
        if own.join(DATABASE).is_file() {
            return Ok(false);
        }
        // It appears with all it has: a server may look at any moment.
        let staged = folder.join(format!(".new-{name}-{}", std::process::id()));
        let disk = |error| VaultError::Disk { path: staged.clone(), error };
        fs::create_dir_all(folder).map_err(disk)?;
        // Triggers hold tokens.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&staged).map_err(disk)?;
        Vault::open(name, Some(&staged.join(DATABASE)))?;
        match fs::rename(&staged, &own) {
            Ok(()) => Ok(true),
            // Somebody else was faster.
            Err(_) if own.join(DATABASE).is_file() => fs::remove_dir_all(&staged).map(|()| false).map_err(disk),
            Err(error) => Err(VaultError::Disk { path: own, error }),
        }
    }

    /// Whether there is a vault by this name.
    pub(super) fn exists(&self, name: &str) -> Result<(), VaultError> {
        match self.names().iter().any(|known| known == name) {
            true => Ok(()),
            false => Err(VaultError::Unknown(name.to_owned())),
        }
    }

    /// Removes a vault with all that is in it.
    pub(super) fn remove(&self, name: &str) -> Result<(), VaultError> {
        let folder = self.folder.as_deref().filter(|_| is_name(name));
        let folder = folder.ok_or_else(|| VaultError::Unknown(name.to_owned()))?;
        let own = folder.join(name);
        if !own.join(DATABASE).is_file() {
            return Err(VaultError::Unknown(name.to_owned()));
        }
        let disk = |error| VaultError::Disk { path: own.clone(), error };
        fs::write(folder.join(NO_FIRST), "").map_err(disk)?;
        let away = folder.join(format!("{REMOVED}-{name}-{}", std::process::id()));
        fs::rename(&own, &away).map_err(disk)?;
        self.tidy()
    }

    /// Deletes what was left of vaults that were removed.
    fn tidy(&self) -> Result<(), VaultError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(|error| VaultError::Disk { path, error })?;
            }
        }
        Ok(())
    }
}

/// Where the vaults of a home are.
pub(super) fn folder(home: &Path, row: &str) -> PathBuf {
    super::super::own_folder(home, &super::IDENTITY, row)
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (2..=32).contains(&name.len()) && name.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::vault::store::NewNote;

    #[test]
    fn vaults_come_and_go_beside_a_server_that_runs() {
        let home = tempfile::tempdir().expect("a folder");
        let vaults = || Vaults::new(Some(home.path().to_owned()));
        let (server, verb) = (vaults(), vaults());
        server.start("default").expect("started");
        assert_eq!(server.names(), ["default"]);
        assert!(verb.create("lab").expect("made") && !verb.create("lab").expect("made before"));
        server.get("lab").expect("noticed").add(NewNote::default()).expect("a note");
        assert_eq!(server.get("lab").expect("there").count().expect("counted"), 1);
        verb.remove("lab").expect("removed");
        assert!(matches!(server.get("lab"), Err(VaultError::Unknown(_))));
        assert!(matches!(verb.remove("lab"), Err(VaultError::Unknown(_))));
        assert!(verb.create("lab").expect("made"));
        assert_eq!(server.get("lab").expect("another one").count().expect("counted"), 0);
        verb.remove("lab").expect("removed");
        verb.remove("default").expect("removed");
        server.start("default").expect("started");
        assert_eq!(vaults().names(), Vec::<String>::new(), "what was removed on purpose does not come back");
        for name in ["a", "A1", "list", "new", "admin", "assets", "../x", ".new", "a b", &"x".repeat(33)] {
            assert!(matches!(verb.create(name), Err(VaultError::Name(_))), "{name}");
        }
    }
}
