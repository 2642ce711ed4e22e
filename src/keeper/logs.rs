//! The output of units: FIFOs in, stamped and rotated files out.
//!
//! A unit writes into two FIFOs that it holds open for reading as well, so it is not told when the keeper dies; it goes on, and
//! the next keeper reads on. What is in a FIFO is first written to the log and then taken out of it, so a keeper that is killed
//! in between writes a piece twice and loses none. An unfinished line is written at once as a part (`P`) for the same reason.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::SpliceFlags;

use super::clock;
use crate::model::id::Name;
use crate::ports::keeper::Policy;

/// So much of one stream is moved in one turn of the loop: a unit that prints without end gets its turn, and so do the others.
const CHUNK: usize = 32 << 10;
/// Longer lines are split into parts, as the container runtimes do (CRI log format).
const MAX_PART: usize = 16 << 10;
/// A FIFO holds no more than this (pipe(7), pipe-max-size), so so much and no more is taken from it when its unit has ended.
const MAX_DRAIN: usize = 1 << 20;
/// A chunk of nothing but newlines becomes much longer by its stamps. The buffer does not stay that large.
const KEEP_TEXT: usize = 256 << 10;
/// The names of the streams, in the log and as suffixes of the FIFOs.
const STREAMS: [(&str, &str); 2] = [("stdout", "out"), ("stderr", "err")];

/// Buffers that all units share, since only one is served at a time.
pub(super) struct Shared {
    chunk: Vec<u8>,
    text: Vec<u8>,
    copy: (OwnedFd, OwnedFd),
    null: File,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let copy = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        Ok(Self { chunk: vec![0; CHUNK], text: Vec::new(), copy, null })
    }

    pub(super) fn null(&self) -> &File {
        &self.null
    }
}

/// Both streams of a unit and its log.
pub(super) struct Output {
    streams: [Stream; 2],
    log: Log,
}

struct Stream {
    fifo: File,
    path: PathBuf,
    /// The last thing written was a part of a line.
    unfinished: bool,
}

impl Output {
    /// Opens the FIFOs of a unit, and makes them when they are not there.
    pub(super) fn open(run: &Path, logs: &Path, unit: &Name, policy: &Policy) -> io::Result<Self> {
        let [(_, out), (_, err)] = STREAMS;
        let streams =
            [Stream::open(run.join(format!("{unit}.{out}")))?, Stream::open(run.join(format!("{unit}.{err}")))?];
        Ok(Self { streams, log: Log::new(logs.join(unit.as_str()), policy) })
    }

    /// The output as an earlier program of this keeper had it open.
    pub(super) fn taken_over(
        run: &Path,
        logs: &Path,
        unit: &Name,
        policy: &Policy,
        fifos: [OwnedFd; 2],
        unfinished: [bool; 2],
    ) -> Self {
        let [out, err] = fifos;
        let stream = |(n, fifo): (usize, OwnedFd)| {
            let path = run.join(format!("{unit}.{}", STREAMS[n].1));
            Stream { fifo: File::from(fifo), path, unfinished: unfinished[n] }
        };
        Self { streams: [stream((0, out)), stream((1, err))], log: Log::new(logs.join(unit.as_str()), policy) }
    }

    /// Whether the last thing that each stream wrote was a part of a line.
    pub(super) fn unfinished(&self) -> [bool; 2] {
        [self.streams[0].unfinished, self.streams[1].unfinished]
    }

    pub(super) fn set_policy(&mut self, policy: &Policy) {
        self.log.max_size = policy.log_max_size.0;
        self.log.keep = policy.log_keep;
    }

    /// What the loop waits on.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.streams[0].fifo.as_fd(), self.streams[1].fifo.as_fd()]
    }

    /// Fresh open files for a process: its own, and open for reading too, so that it is never without a reader.
    pub(super) fn ends(&self) -> io::Result<[File; 2]> {
        let open = |s: &Stream| OpenOptions::new().read(true).write(true).open(&s.path);
        Ok([open(&self.streams[0])?, open(&self.streams[1])?])
    }

    /// Moves one chunk of one stream into the log. Says how much it was.
    pub(super) fn pump(&mut self, stream: usize, shared: &mut Shared) -> (usize, Option<Trouble>) {
        let Some(from) = self.streams.get_mut(stream) else { return (0, None) };
        let length = match from.peek(shared) {
            Ok(length) => length,
            Err(_) => return (0, None),
        };
        if length == 0 {
            return (0, None);
        }
        shared.text.clear();
        let time = stamp();
        mark_lines(&mut shared.text, &shared.chunk[..length], &mut from.unfinished, &time, STREAMS[stream].0);
        let trouble = self.log.write(&shared.text);
        shared.text.shrink_to(KEEP_TEXT);
        from.take(length, shared);
        (length, trouble)
    }

    /// Moves all there is: the last words of a unit that has ended. A line without an end gets one.
    pub(super) fn drain(&mut self, shared: &mut Shared) -> Option<Trouble> {
        let mut trouble = None;
        for (stream, (name, _)) in STREAMS.iter().enumerate() {
            let mut moved = 0;
            while moved < MAX_DRAIN {
                let (length, said) = self.pump(stream, shared);
                trouble = trouble.or(said);
                if length == 0 {
                    break;
                }
                moved += length;
            }
            if std::mem::take(&mut self.streams[stream].unfinished) {
                let line = format!("{} {name} F \n", stamp());
                trouble = trouble.or(self.log.write(line.as_bytes()));
            }
        }
        trouble
    }

    /// Takes the FIFOs away. The logs stay.
    pub(super) fn remove(&self) {
        for stream in &self.streams {
            drop(fs::remove_file(&stream.path));
        }
    }
}

impl Stream {
    fn open(path: PathBuf) -> io::Result<Self> {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.file_type().is_fifo() => {}
            Ok(_) => {
                fs::remove_file(&path)?;
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR)?;
            }
            Err(_) => rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR)?,
        }
        // Open for writing too: without that, the end of the last writer would be an event without end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let fifo = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path)?;
        Ok(Self { fifo, path, unfinished: false })
    }

    /// Copies what is there into the shared chunk, and leaves it there.
    fn peek(&mut self, shared: &mut Shared) -> io::Result<usize> {
        let length = match rustix::pipe::tee(&self.fifo, &shared.copy.1, CHUNK, SpliceFlags::NONBLOCK) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(cause) => return Err(cause.into()),
        };
        let mut got = 0;
        while got < length {
            got += rustix::io::read(&shared.copy.0, &mut shared.chunk[got..length])?;
        }
        Ok(length)
    }

    /// Takes out what was copied.
    fn take(&mut self, length: usize, shared: &mut Shared) {
        let mut gone = 0;
        while gone < length {
            match (&self.fifo).read(&mut shared.chunk[..length - gone]) {
                Ok(some) if some > 0 => gone += some,
                // It was there a moment ago and nobody else takes it; if it is gone all the same, so be it.
                _ => return,
            }
        }
    }
}

/// Now, as it stands in a log line.
fn stamp() -> String {
    format!("{:.6}", clock::wall())
}

/// Writes a chunk as lines `<time> <stream> F|P <text>`.
fn mark_lines(into: &mut Vec<u8>, chunk: &[u8], unfinished: &mut bool, time: &str, stream: &str) {
    let mut put = |tag: &str, part: &[u8]| {
        into.extend_from_slice(time.as_bytes());
        into.push(b' ');
        into.extend_from_slice(stream.as_bytes());
        into.extend_from_slice(tag.as_bytes());
        into.extend_from_slice(part);
        into.push(b'\n');
    };
    let mut rest = chunk;
    while !rest.is_empty() {
        let end = rest.iter().take(MAX_PART).position(|b| *b == b'\n');
        match end {
            Some(end) => {
                put(" F ", &rest[..end]);
                rest = &rest[end + 1..];
                *unfinished = false;
            }
            None => {
                let (part, after) = rest.split_at(rest.len().min(MAX_PART));
                put(" P ", part);
                rest = after;
                *unfinished = true;
            }
        }
    }
}

/// What the keeper's own log says about a unit's log: once when it begins, once when it is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Output is being dropped.
    Began(String),
    /// So many bytes were dropped.
    Over(u64),
}

/// One unit's log file and its older ones.
struct Log {
    folder: PathBuf,
    max_size: u64,
    keep: u32,
    file: Option<File>,
    size: u64,
    /// Bytes that could not be written since it last worked.
    dropped: u64,
}

impl Log {
    fn new(folder: PathBuf, policy: &Policy) -> Self {
        Self { folder, max_size: policy.log_max_size.0, keep: policy.log_keep, file: None, size: 0, dropped: 0 }
    }

    /// Appends text in one call. What cannot be written is dropped and counted: a full disk stops no unit.
    fn write(&mut self, text: &[u8]) -> Option<Trouble> {
        let lost = self.dropped;
        let result = if lost > 0 {
            let line = format!("{} stderr F trueup: {lost} bytes of output were lost here\n", stamp());
            self.append(line.as_bytes()).and_then(|()| self.append(text))
        } else {
            self.append(text)
        };
        match result {
            Ok(()) if lost > 0 => {
                self.dropped = 0;
                Some(Trouble::Over(lost))
            }
            Ok(()) => None,
            Err(cause) => {
                self.dropped = lost.saturating_add(text.len() as u64);
                (lost == 0).then(|| Trouble::Began(cause.to_string()))
            }
        }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open()?;
        }
        if self.size > 0 && self.size + text.len() as u64 > self.max_size {
            self.rotate()?;
        }
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("no log file"))?;
        if let Err(cause) = file.write_all(text) {
            // Half a line would spoil the next one.
            drop(file.set_len(self.size));
            self.file = None;
            return Err(cause);
        }
        self.size += text.len() as u64;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join("current.log");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// `current.log` becomes `1.log`, `1.log` becomes `2.log`, and what is beyond `keep` goes. If that cannot be done, the
    /// current file is emptied: the bound holds in any case.
    fn rotate(&mut self) -> io::Result<()> {
        let name = |n: u32| self.folder.join(format!("{n}.log"));
        let mut beyond = self.keep.max(1);
        while fs::remove_file(name(beyond)).is_ok() {
            beyond += 1;
        }
        for n in (1..self.keep).rev() {
            drop(fs::rename(name(n), name(n + 1)));
        }
        let moved = self.keep > 0 && fs::rename(self.folder.join("current.log"), name(1)).is_ok();
        if !moved && let Some(file) = &self.file {
            file.set_len(0)?;
        }
        self.open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::marks::stopgap_policy;
    use crate::model::unit::Bytes;

    fn marked(chunk: &[u8], unfinished: &mut bool) -> String {
        let mut text = Vec::new();
        mark_lines(&mut text, chunk, unfinished, "T", "stdout");
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn lines_are_whole_or_parts() {
        let mut unfinished = false;
        assert_eq!(marked(b"a\n\nb", &mut unfinished), "T stdout F a\nT stdout F \nT stdout P b\n");
        assert!(unfinished);
        assert_eq!(marked(b"c\n", &mut unfinished), "T stdout F c\n");
        assert!(!unfinished);
        let long = vec![b'x'; MAX_PART + 1];
        let text = marked(&long, &mut unfinished);
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.starts_with("T stdout P ")));
    }

    #[test]
    fn rotation_keeps_its_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = Policy { log_max_size: Bytes(100), log_keep: 2, ..stopgap_policy() };
        let mut log = Log::new(folder.path().join("u"), &policy);
        for n in 0..50 {
            assert_eq!(log.write(format!("line {n:030}\n").as_bytes()), None);
        }
        let mut names: Vec<_> = fs::read_dir(folder.path().join("u"))
            .expect("listed")
            .map(|e| e.expect("an entry").file_name().into_string().expect("plain"))
            .collect();
        names.sort();
        assert_eq!(names, ["1.log", "2.log", "current.log"]);
        let last = fs::read_to_string(folder.path().join("u/current.log")).expect("read");
        assert!(last.ends_with("49\n") && last.len() <= 100);
        log.keep = 0;
        for n in 0..5 {
            log.write(format!("line {n:030}\n").as_bytes());
        }
        assert_eq!(fs::read_dir(folder.path().join("u")).expect("listed").count(), 1);
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so_once_and_recovers() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("u");
        fs::write(&place, b"in the way").expect("written");
        let mut log = Log::new(place.clone(), &stopgap_policy());
        assert!(matches!(log.write(b"12345\n"), Some(Trouble::Began(_))));
        assert_eq!(log.write(b"12345\n"), None);
        fs::remove_file(&place).expect("removed");
        assert_eq!(log.write(b"hello\n"), Some(Trouble::Over(12)));
        let text = fs::read_to_string(place.join("current.log")).expect("read");
        assert!(text.contains("12 bytes of output were lost") && text.ends_with("hello\n"));
    }
}
