//! `keeper.log`: what the keeper has to say, in at most two files of [`MAX_DIARY`] bytes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::clock;

/// The keeper says little; this holds years of it, and a fault that says much fills no disk.
const MAX_DIARY: u64 = 1 << 20;

/// The open log. A line that cannot be written is dropped: the keeper's work does not depend on it.
pub(super) struct Diary {
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl Diary {
    pub(super) fn new(path: PathBuf) -> Self {
        let mut diary = Self { path, file: None, size: 0 };
        diary.open();
        diary
    }

    /// Standard output and standard error go there too, so that a panic leaves its message.
    fn open(&mut self) {
        let open = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        self.file = open.ok();
        if let Some(file) = &self.file {
            self.size = file.metadata().map_or(0, |m| m.len());
            // If this fails they stay what they were; nothing else depends on it.
            let _ = rustix::stdio::dup2_stdout(file);
            let _ = rustix::stdio::dup2_stderr(file);
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        let line = format!("{:.3} {text}\n", clock::wall());
        if self.size + line.len() as u64 > MAX_DIARY {
            drop(fs::rename(&self.path, self.path.with_extension("log.1")));
            self.open();
        }
        if self.file.is_none() {
            self.open();
        }
        if let Some(file) = &mut self.file
            && file.write_all(line.as_bytes()).is_ok()
        {
            self.size += line.len() as u64;
        }
    }
}
