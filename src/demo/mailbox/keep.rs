//! What the mailbox was set up with: channels, and credentials of others. A file only its owner reads, replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde_json::Value;

/// More are not kept.
const MOST: usize = 1_000;

/// Values by name. It has no `Debug`: there are tokens in it.
pub(super) struct Keep {
    /// `None` keeps them in memory only.
    file: Option<PathBuf>,
    values: BTreeMap<String, Value>,
}

impl Keep {
    pub(super) fn load(file: Option<PathBuf>) -> io::Result<Self> {
        let text = match file.as_ref().map(fs::read) {
            None => None,
            Some(Ok(text)) => Some(text),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Some(Err(error)) => return Err(error),
        };
        let values = text.map(|text| serde_json::from_slice(&text)).transpose()?.unwrap_or_default();
        Ok(Self { file, values })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.values.iter()
    }

    /// Says whether there was room.
    pub(super) fn put(&mut self, name: &str, value: Value) -> io::Result<bool> {
        if !self.values.contains_key(name) && self.values.len() >= MOST {
            return Ok(false);
        }
        let mut values = self.values.clone();
        values.insert(name.to_owned(), value);
        self.replace(values).map(|()| true)
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> io::Result<bool> {
        let mut values = self.values.clone();
        if values.remove(name).is_none() {
            return Ok(false);
        }
        self.replace(values).map(|()| true)
    }

    fn replace(&mut self, values: BTreeMap<String, Value>) -> io::Result<()> {
        if let Some(file) = &self.file {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            let new = file.with_extension(format!("json.new-{}", std::process::id()));
            let mut out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            out.write_all(&serde_json::to_vec_pretty(&values)?)?;
            out.sync_all()?;
            fs::rename(&new, file)?;
        }
        self.values = values;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_is_nobody_elses_to_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mailbox/channels.json");
        let mut keep = Keep::load(Some(file.clone())).expect("nothing yet");
        assert!(keep.put("main", json!({ "token": "t" })).expect("kept") && keep.put("b", json!(1)).expect("kept"));
        assert!(keep.remove("b").expect("gone") && !keep.remove("b").expect("gone before"));
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        let again = Keep::load(Some(file)).expect("a file");
        assert_eq!(again.all().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["main"]);
    }
}
