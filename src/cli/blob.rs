//! `blob`: single blobs are put, read, listed, verified and removed.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::args::{BlobGet, BlobLs, BlobPut, BlobVerb, BlobVerify};
use super::engine::{Blobs, GetTo, PutFrom};
use super::exit::Failure;
use super::interrupt::Asked;
use super::render::blobs as render;
use super::render::human::count;
use super::render::progress::BytesBar;
use super::render::screen::Screen;
use super::render::show::{self, write_data};
use crate::model::blob::Integrity;
use crate::model::blob_output::{BlobOutput, StoredLine, VerdictWord, VerifiedLine};
use crate::model::exit::Exit;
use crate::model::id::Name;
use crate::model::time::Timestamp;

/// What to do about bytes that are missing or wrong.
pub const REMEDY: &str = "put the right bytes again with 'trueup blob put'; what has a good copy elsewhere is repaired by the next \
                          scrub ('trueup explain storage.scrub')";

/// Bytes pass so often: hashed, stored, read back.
const PUT_PASSES: u64 = 3;

pub fn run(
    verb: &BlobVerb,
    blobs: &dyn Blobs,
    asked: &Asked,
    now: Timestamp,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match verb {
        BlobVerb::Put(args) => put(args, blobs, asked, screen),
        BlobVerb::Get(args) => get(args, blobs, asked, screen),
        BlobVerb::Ls(args) => ls(args, blobs, asked, now, screen),
        BlobVerb::Stat(args) => {
            let blob = blobs.stat(&args.key)?;
            let bad = blob.finding.is_some();
            say(screen, BlobOutput::Blob(blob), now);
            if bad && screen.is_text() {
                screen.err(&format!("  help: {REMEDY}\n"));
            }
            Ok(Exit::Done)
        }
        BlobVerb::Verify(args) => verify(args, blobs, asked, now, screen),
        BlobVerb::Rm(args) => each(&args.keys, asked, screen, |key, screen| {
            say(screen, BlobOutput::Removed(blobs.remove(key)?), now);
            Ok(())
        }),
    }
}

fn put(args: &BlobPut, blobs: &dyn Blobs, asked: &Asked, screen: &mut Screen) -> Result<Exit, Failure> {
    let stdin = |file: &Path| file == Path::new("-");
    if args.integrity.is_some() && args.files.len() > 1 {
        let failure = Failure::new(Exit::Usage, "--integrity is the key of one blob, and several files were given");
        return Err(failure.hint("put them one by one"));
    }
    if args.files.iter().filter(|file| stdin(file)).count() > 1 {
        return Err(Failure::new(Exit::Usage, "the standard input can be put only once"));
    }
    let from_stdin = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &from_stdin[..] } else { &args.files };
    each(files, asked, screen, |file, screen| {
        let file = (!stdin(file)).then_some(file.as_path());
        let stored = put_one(file, args.integrity.as_ref(), blobs, asked, screen).map_err(|failure| match file {
            Some(file) if files.len() > 1 => named(failure, file),
            _ => failure,
        })?;
        if !screen.is_text() {
            write_data(screen, &BlobOutput::Stored(stored));
            return Ok(());
        }
        screen.out(&format!("{}\n", stored.blob.key));
        screen.flush();
        if let Some(note) = render::stored_note(&stored) {
            screen.err(&note);
        }
        Ok(())
    })
}

/// A failure that says which of several files it is about.
fn named(failure: Failure, file: &Path) -> Failure {
    let (message, name) = (failure.error.to_string(), file.display().to_string());
    let told = [format!("{name} "), format!("{name}:"), format!("cannot open {name}:")];
    if failure.exit == Exit::Cancelled || told.iter().any(|told| message.starts_with(told)) {
        return failure;
    }
    // Its causes stay; the context would only say the same twice when there are none.
    let error = match failure.error.source() {
        None => anyhow::Error::msg(format!("{name}: {message}")),
        Some(_) => failure.error.context(name),
    };
    Failure { error, ..failure }
}

fn put_one(
    file: Option<&Path>,
    key: Option<&Integrity>,
    blobs: &dyn Blobs,
    asked: &Asked,
    screen: &Screen,
) -> Result<StoredLine, Failure> {
    let bar = BytesBar::new(screen.lively(), PUT_PASSES);
    let passed = |bytes, total| {
        bar.passed(bytes, total);
        !asked.for_end()
    };
    match file {
        Some(file) => blobs.put(PutFrom::File(file), key, &passed),
        None => blobs.put(PutFrom::Stream(&mut Input { asked }), key, &passed),
    }
}

/// The standard input, which ends when the user wants to leave: a read of it may wait for ever.
struct Input<'a> {
    asked: &'a Asked,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const LOOK: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let stdin = io::stdin();
        loop {
            if self.asked.for_end() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let mut ready = [rustix::event::PollFd::new(&stdin, rustix::event::PollFlags::IN)];
            match rustix::event::poll(&mut ready, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // What cannot be asked can be read.
                Ok(_) | Err(_) => return Ok(rustix::io::read(&stdin, buffer)?),
            }
        }
    }
}

fn get(args: &BlobGet, blobs: &dyn Blobs, asked: &Asked, screen: &mut Screen) -> Result<Exit, Failure> {
    let bar = BytesBar::new(screen.lively(), 1);
    let passed = |bytes, total| {
        bar.passed(bytes, total);
        !asked.for_end()
    };
    let closed = Cell::new(false);
    let mut out = Out { screen, closed: &closed };
    let file = args.output_file.as_deref().filter(|file| *file != Path::new("-"));
    let to = match file {
        Some(file) => GetTo::File(file),
        None => GetTo::Stream(&mut out),
    };
    let fetched = match blobs.get(&args.key, args.range.clone(), to, &passed) {
        Ok(fetched) => fetched,
        // Who does not read on is told by the screen, if it is a mistake at all.
        Err(_) if closed.get() => return Ok(Exit::Done),
        Err(failure) => return Err(failure),
    };
    drop(bar);
    if file.is_some() && !screen.is_text() {
        write_data(screen, &BlobOutput::Fetched(fetched));
        return Ok(Exit::Done);
    }
    if fetched.served_by != fetched.backend {
        screen.flush();
        screen.err(&render::fallback_note(&fetched));
    }
    Ok(Exit::Done)
}

/// The screen as a place for bytes.
struct Out<'a> {
    screen: &'a mut Screen,
    closed: &'a Cell<bool>,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.screen.bytes(bytes) {
            return Ok(bytes.len());
        }
        self.closed.set(true);
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.screen.flush();
        Ok(())
    }
}

fn ls(args: &BlobLs, blobs: &dyn Blobs, asked: &Asked, now: Timestamp, screen: &mut Screen) -> Result<Exit, Failure> {
    if let Some(wanted) = &args.backend {
        known(wanted, blobs)?;
    }
    let mut some = false;
    let mut rows = render::Rows::default();
    blobs.list(None, &mut |blob| {
        if args.backend.as_ref().is_none_or(|backend| *backend == blob.backend) {
            if !screen.is_text() {
                write_data(screen, &BlobOutput::Blob(blob));
            } else if args.long {
                if let Some(text) = rows.add(&blob, now) {
                    screen.out(&text);
                }
            } else {
                screen.out(&format!("{}\n", blob.key));
            }
            some = true;
        }
        !screen.closed() && !asked.for_end()
    })?;
    screen.out(&rows.rest());
    if asked.for_end() {
        return Err(Failure::cancelled());
    }
    if !some && screen.is_text() {
        screen.err("no blobs\n");
    }
    Ok(Exit::Done)
}

/// A backend that nobody has heard of is a slip of the pen, not a place without blobs.
fn known(wanted: &Name, blobs: &dyn Blobs) -> Result<(), Failure> {
    let backends = blobs.status()?.backends;
    if backends.iter().any(|backend| backend.name == *wanted) {
        return Ok(());
    }
    let names: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
    let failure = Failure::new(Exit::Error, format!("there is no backend {wanted}"));
    Err(failure.hint(match names.is_empty() {
        true => "none is declared yet".to_owned(),
        false => format!("there is {}", names.join(", ")),
    }))
}

fn verify(
    args: &BlobVerify,
    blobs: &dyn Blobs,
    asked: &Asked,
    now: Timestamp,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let passed = |_: u64, _: Option<u64>| !asked.for_end();
    let (mut good, mut bad) = (0, 0);
    let mut look = |key: &Integrity, screen: &mut Screen| -> Result<(), Failure> {
        let verdict = blobs.verify(key, &passed)?;
        let fine = verdict.verdict == VerdictWord::Ok;
        if fine {
            good += 1;
        } else {
            bad += 1;
        }
        // Of very many, those that are as they should be are only counted.
        if !fine || !args.all || !screen.is_text() {
            say(screen, BlobOutput::Verdict(verdict), now);
        }
        Ok(())
    };
    let mut failure = None;
    if args.all {
        blobs.list(None, &mut |blob| {
            failure = look(&blob.key, screen).err();
            failure.is_none() && !screen.closed()
        })?;
    } else {
        failure = args.keys.iter().try_for_each(|key| look(key, screen)).err();
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if !screen.is_text() {
        write_data(screen, &BlobOutput::Verified(VerifiedLine { blobs: good + bad, good, bad }));
    } else if args.all {
        screen.out(&render::text(&BlobOutput::Verified(VerifiedLine { blobs: good + bad, good, bad }), now));
    }
    match bad {
        0 => Ok(Exit::Done),
        _ => {
            let failure =
                Failure::new(Exit::Partial, format!("{bad} of {} cannot be relied on", count(good + bad, "blob")));
            Err(failure.hint(REMEDY))
        }
    }
}

/// Does one after the other; what fails is told, and the others are done.
fn each<T>(
    all: &[T],
    asked: &Asked,
    screen: &mut Screen,
    mut work: impl FnMut(&T, &mut Screen) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let mut failures = 0;
    for one in all {
        if asked.for_end() {
            return Err(Failure::cancelled());
        }
        match work(one, screen) {
            Ok(()) => {}
            Err(failure) if all.len() == 1 || failure.exit == Exit::Cancelled => return Err(failure),
            Err(failure) => {
                failures += 1;
                show::error(screen, &failure.line(), None);
            }
        }
    }
    match failures {
        0 => Ok(Exit::Done),
        _ if failures == all.len() => Ok(Exit::Error),
        _ => Ok(Exit::Partial),
    }
}

fn say(screen: &mut Screen, line: BlobOutput, now: Timestamp) {
    if screen.is_text() {
        screen.out(&render::text(&line, now));
    } else {
        write_data(screen, &line);
    }
    screen.flush();
}
