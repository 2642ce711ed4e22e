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
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::keeper::Policy;

/// So much of one stream is moved in one turn of the loop: a unit that prints without end gets its turn, and so do the others.
const CHUNK: usize = 32 << 10;
/// Longer lines are split into parts, as the container runtimes do (CRI log format).
const MAX_PART: usize = 16 << 10;
/// A FIFO holds no more than this (pipe(7), pipe-max-size), so so much and no more is taken from it when its unit has ended.
const MAX_DRAIN: usize = 1 << 20;
/// A chunk of nothing but newlines becomes much longer by its stamps. The buffer does not stay that large.
const KEEP_TEXT: usize = 256 << 10;
/// The file that is written to.
const CURRENT: &str = "current.log";
/// A line's time takes fewer bytes than this.
const STAMP: usize = 32;
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
        self.log.max_age = policy.log_max_age;
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
    /// Output older than this is let go of.
    max_age: Option<Millis>,
    file: Option<File>,
    size: u64,
    /// When the first line of the current file was written; `None` for an empty file, and for one that nobody has read.
    born: Option<Timestamp>,
    /// Bytes that could not be written since it last worked.
    dropped: u64,
}

impl Log {
    fn new(folder: PathBuf, policy: &Policy) -> Self {
        let (max_size, keep, max_age) = (policy.log_max_size.0, policy.log_keep, policy.log_max_age);
        let log = Self { folder, max_size, keep, max_age, file: None, size: 0, born: None, dropped: 0 };
        log.sweep(now());
        log
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
        if self.size > 0 && (self.size + text.len() as u64 > self.max_size || self.is_old()) {
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
        if self.max_age.is_some() {
            self.born.get_or_insert_with(now);
        }
        Ok(())
    }

    /// Whether the current file begins with something too old to keep. There is no timer: it is asked when there is something to
    /// write.
    fn is_old(&mut self) -> bool {
        let Some(max_age) = self.max_age else { return false };
        if self.born.is_none() {
            self.born = first_stamp(&self.folder.join(CURRENT));
        }
        self.born.is_some_and(|born| is_older(born, max_age, now()))
    }

    /// Removes rotated files whose last line is too old. They are only ever rotated, so their time of change is that line's.
    fn sweep(&self, now: Timestamp) {
        let Some(max_age) = self.max_age else { return };
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|n| n.parse::<u32>().ok());
            let changed = entry.metadata().and_then(|meta| meta.modified()).ok().map(timestamp);
            if number.is_some() && changed.is_some_and(|at| is_older(at, max_age, now)) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(CURRENT);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        self.born = None;
        self.sweep(now());
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
        let moved = self.keep > 0 && fs::rename(self.folder.join(CURRENT), name(1)).is_ok();
        if !moved && let Some(file) = &self.file {
            file.set_len(0)?;
        }
        self.open()
    }
}

fn now() -> Timestamp {
    Timestamp(clock::wall().as_millisecond())
}

fn is_older(at: Timestamp, max_age: Millis, now: Timestamp) -> bool {
    now.0.saturating_sub_unsigned(max_age.0) > at.0
}

/// The time of a file's first line.
fn first_stamp(path: &Path) -> Option<Timestamp> {
    let mut head = [0; STAMP];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).ok()?;
    let text = std::str::from_utf8(&head).ok()?.split(' ').next()?;
    text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()))
}

fn timestamp(at: std::time::SystemTime) -> Timestamp {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
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
    fn what_is_older_than_its_age_is_rotated_and_then_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("u");
        fs::create_dir(&place).expect("made");
        let policy = Policy { log_max_age: Some(Millis::secs(3_600)), ..stopgap_policy() };
        fs::write(place.join(CURRENT), "2001-01-01T00:00:00.000000Z stdout F long ago\n").expect("written");
        fs::write(place.join("1.log"), "older\n").expect("written");
        fs::write(place.join("notes.log"), "not ours\n").expect("written");
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(978_307_200);
        let age = |name: &str| File::options().append(true).open(place.join(name)).and_then(|f| f.set_modified(old));
        age("1.log").expect("aged");
        age("notes.log").expect("aged");
        let mut log = Log::new(place.clone(), &policy);
        assert!(!place.join("1.log").exists(), "removed when the log is opened");
        assert_eq!(log.write(b"hello\n"), None);
        let text = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
        assert_eq!((text(CURRENT).as_str(), text("1.log").contains("long ago")), ("hello\n", true));
        assert_eq!(log.write(b"again\n"), None);
        assert_eq!(text(CURRENT), "hello\nagain\n", "young lines stay together");
        assert_eq!(text("notes.log"), "not ours\n");
        age("1.log").expect("aged");
        log.born = Some(Timestamp(0));
        assert_eq!(log.write(b"third\n"), None);
        assert_eq!(text("1.log"), "hello\nagain\n");
        assert!(!text("2.log").contains("long ago"));
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
        let text = fs::read_to_string(place.join(CURRENT)).expect("read");
        assert!(text.contains("12 bytes of output were lost") && text.ends_with("hello\n"));
    }
}
