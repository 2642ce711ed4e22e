//! The log files of one unit, read in order across rotation: `2.log`, `1.log`, `current.log`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::cri::{Joiner, MAX_LINE, Record, is_whole};

/// The tail is looked for in blocks of this size, backwards.
const BLOCK: u64 = 64 << 10;
/// Of each line so many bytes are enough to see whether it is a part or a whole.
const HEAD: usize = 64;

/// A file, and who it is: while it is open no other file can take its inode.
struct Open {
    reader: BufReader<File>,
    inode: (u64, u64),
    /// How much of it was read.
    position: u64,
}

/// Reads a unit's output from old to new, and goes on with what is written later.
pub struct UnitLog {
    pub unit: String,
    dir: PathBuf,
    /// Oldest first. The last one stays open at its end, waiting for more.
    files: VecDeque<Open>,
    /// The begin of a line whose newline was not written yet.
    line: Vec<u8>,
    joiner: Joiner,
}

impl UnitLog {
    /// Opens what there is. With `last`, reading starts so many records before the end.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn open(logs: &Path, unit: &str, last: Option<usize>) -> io::Result<Self> {
        let dir = logs.join(unit);
        let mut log =
            Self { unit: unit.to_owned(), dir, files: VecDeque::new(), line: Vec::new(), joiner: Joiner::default() };
        log.refresh()?;
        if let Some(last) = last {
            log.keep_last(last)?;
        }
        Ok(log)
    }

    /// The next record, if there is one yet.
    ///
    /// # Errors
    /// When reading fails.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            let Some(front) = self.files.front_mut() else { return Ok(None) };
            let room = u64::try_from(MAX_LINE.saturating_sub(self.line.len())).unwrap_or(0).max(1);
            let read = front.reader.by_ref().take(room).read_until(b'\n', &mut self.line)?;
            front.position += read as u64;
            let ended = self.line.last() == Some(&b'\n');
            if ended || self.line.len() >= MAX_LINE {
                let raw = std::mem::take(&mut self.line);
                if let Some(record) = self.joiner.push(raw.strip_suffix(b"\n").unwrap_or(&raw)) {
                    return Ok(Some(record));
                }
            } else if read == 0 {
                if self.files.len() <= 1 {
                    return Ok(None);
                }
                // Rotated away and read to its end: what it holds of an unfinished line will not grow any more.
                self.files.pop_front();
                if !self.line.is_empty() {
                    let raw = std::mem::take(&mut self.line);
                    if let Some(record) = self.joiner.push(&raw) {
                        return Ok(Some(record));
                    }
                }
            }
        }
    }

    /// What is unfinished, when nobody will wait for the rest.
    pub fn rest(&mut self) -> Option<Record> {
        if !self.line.is_empty() {
            let raw = std::mem::take(&mut self.line);
            if let Some(record) = self.joiner.push(&raw) {
                return Some(record);
            }
        }
        self.joiner.rest()
    }

    /// Looks whether there are newer files than those that are open.
    ///
    /// # Errors
    /// When a file is there and cannot be opened.
    pub fn refresh(&mut self) -> io::Result<()> {
        let known = self.files.back().map(|open| open.inode);
        // From new to old: a rotation in between moves files towards older names, so that one may be met twice and none is
        // missed. What is newer than the first one met is found at the next look.
        let mut newer: Vec<Open> = Vec::new();
        let mut gap = false;
        for number in 0.. {
            let name = if number == 0 { "current.log".to_owned() } else { format!("{number}.log") };
            let file = match File::open(self.dir.join(name)) {
                Ok(file) => file,
                // Between two renames of a rotation one name is free for a moment; two in a row are the end.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !gap => {
                    gap = true;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            gap = false;
            let about = file.metadata()?;
            let inode = (about.dev(), about.ino());
            if Some(inode) == known {
                break;
            }
            if !newer.iter().any(|open| open.inode == inode) {
                newer.push(Open { reader: BufReader::new(file), inode, position: 0 });
            }
        }
        self.files.extend(newer.into_iter().rev());
        self.begin_again_if_cut()
    }

    /// A file that is shorter than what was read of it was emptied in place, by a person or another program.
    fn begin_again_if_cut(&mut self) -> io::Result<()> {
        let Some(last) = self.files.back_mut() else { return Ok(()) };
        if last.reader.get_ref().metadata()?.len() < last.position {
            last.reader.seek(SeekFrom::Start(0))?;
            last.position = 0;
            self.line.clear();
        }
        Ok(())
    }

    /// Whether the unit has any file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Skips all but the last records, reading from the end.
    fn keep_last(&mut self, want: usize) -> io::Result<()> {
        let mut left = want;
        for at in (0..self.files.len()).rev() {
            let open = &mut self.files[at];
            let (offset, found) = tail(open.reader.get_ref(), left)?;
            left -= found;
            if let Some(offset) = offset {
                open.reader.seek(SeekFrom::Start(offset))?;
                open.position = offset;
                self.files.drain(..at);
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Where the last `want` records of a file begin, and how many were found. No place means that the file has not more than that,
/// and an older file may hold the begin of its first record.
fn tail(file: &File, want: usize) -> io::Result<(Option<u64>, usize)> {
    let mut end = file.metadata()?.len();
    // Where the line after the one that is looked at begins.
    let mut after = end;
    // The bytes right behind the block: the head of a line may reach over the edge.
    let mut behind = Vec::new();
    let mut found = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        // One byte more in front tells whether the first byte of the block begins a line.
        let from = start.saturating_sub(1);
        let mut block = vec![0; usize::try_from(end - from).unwrap_or(0)];
        file.read_exact_at(&mut block, from)?;
        let size = block.len();
        block.extend_from_slice(&behind);
        for at in (0..size).rev() {
            let begins = if at == 0 { from == 0 } else { block[at - 1] == b'\n' };
            if !begins {
                continue;
            }
            if is_whole(&block[at..block.len().min(at + HEAD)]) {
                if found == want {
                    return Ok((Some(after), found));
                }
                found += 1;
            }
            after = from + at as u64;
        }
        let first = usize::try_from(start - from).unwrap_or(0);
        behind = block[first..block.len().min(first + HEAD)].to_vec();
        end = start;
    }
    Ok((None, found))
}
