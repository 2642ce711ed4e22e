//! `hub-instance.json` in the home of the modules: which process serves the hub, and whether its address leads to it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

use crate::hub::SelfProbe;
use crate::model::time::Timestamp;

/// The file's shape is the older hub's: its modules and tools read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instance {
    pub instance: String,
    pub pid: u32,
    pub port: u16,
    pub started_at: Timestamp,
    pub self_probe: Option<SelfProbe>,
}

/// Writes it when it is news.
#[derive(Debug, Default)]
pub(super) struct Card {
    written: Option<(PathBuf, Instance)>,
}

impl Card {
    /// A home that cannot be written is said once and keeps nothing from going on.
    pub(super) fn show(&mut self, home: &Path, instance: Instance) {
        let path = home.join(FILE);
        let news = (path, instance);
        if self.written.as_ref() == Some(&news) {
            return;
        }
        if let Err(error) = write(&news.0, &news.1) {
            tracing::warn!(path = %news.0.display(), %error, "who serves the hub is not written down");
        }
        self.written = Some(news);
    }

    /// Takes it away again, when it is still ours.
    pub(super) fn take_away(&mut self) {
        let Some((path, instance)) = self.written.take() else { return };
        let ours = fs::read_to_string(&path).is_ok_and(|text| text.contains(&instance.instance));
        if ours {
            // It says nothing that is not looked at anew.
            let _ = fs::remove_file(path);
        }
    }
}

const FILE: &str = "hub-instance.json";

/// The home is made when it is the only one that is missing: what it stands in may have been removed with everything else.
fn write(path: &Path, instance: &Instance) -> io::Result<()> {
    match path.parent().map(fs::create_dir) {
        Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut text = serde_json::to_vec_pretty(instance)?;
    text.push(b'\n');
    let beside = path.with_extension("json.tmp");
    let mut file = fs::File::create(&beside)?;
    file.write_all(&text)?;
    fs::rename(&beside, path)
}
