//! What the process that serves the hub writes down for others: `hub-instance.json` in the home of the modules, whose shape is the older
//! hub's, and `hub.json` in the state folder, from which commands know how the hub of a running daemon stands.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

use super::socket;
use crate::hub::SelfProbe;
use crate::model::time::Timestamp;
use crate::ports::hub::Standing;

/// Its name in the home of the modules.
pub(super) const INSTANCE: &str = "hub-instance.json";
const STANDING: &str = "hub.json";

/// Who serves the hub, and whether its address leads to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instance {
    pub instance: String,
    pub pid: u32,
    pub port: u16,
    pub started_at: Timestamp,
    pub self_probe: Option<SelfProbe>,
}

/// A file that is written when there is news. It is nobody's memory: when it cannot be written that is said once, and all goes on.
#[derive(Debug, Default)]
pub(super) struct Note(Option<(PathBuf, Vec<u8>)>);

impl Note {
    pub(super) fn write(&mut self, path: &Path, value: &impl Serialize) {
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        let news = (path.to_owned(), text);
        if self.0.as_ref() == Some(&news) {
            return;
        }
        if let Err(error) = replace(path, &news.1) {
            tracing::warn!(path = %path.display(), %error, "not written down");
        }
        self.0 = Some(news);
    }

    /// Takes it away, when it is still what was written.
    pub(super) fn take_away(&mut self) {
        if let Some((path, text)) = self.0.take()
            && fs::read(&path).is_ok_and(|now| now == text)
        {
            // It says nothing that is not looked at anew.
            let _ = fs::remove_file(path);
        }
    }
}

/// The folder is made when it is the only one that is missing: what it stands in may have been removed with everything else.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    match path.parent().map(|folder| fs::DirBuilder::new().mode(0o700).create(folder)) {
        Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let beside = path.with_extension("json.tmp");
    let mut file = fs::File::create(&beside)?;
    file.write_all(text)?;
    fs::rename(&beside, path)
}

/// Writes down how the hub stands.
pub(super) fn say(note: &mut Note, state: &Path, standing: &Standing) {
    if state.is_dir() {
        note.write(&state.join(STANDING), standing);
    }
}

/// How the hub of this state folder stands, for whoever does not serve it.
pub(super) fn standing(state: &Path) -> Standing {
    if !socket::answers(state) {
        return Standing::Idle;
    }
    let text = fs::read(state.join(STANDING)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
