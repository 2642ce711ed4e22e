//! `blob`: single blobs are put, read, listed, verified and removed.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::Path;

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
use crate::model::blob_output::{BlobOutput, VerdictWord};
use crate::model::exit::Exit;
use crate::model::time::Timestamp;

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
            say(screen, BlobOutput::Blob(blobs.stat(&args.key)?), now);
            Ok(Exit::Done)
        }
        BlobVerb::Verify(args) => verify(args, blobs, asked, now, screen),
        BlobVerb::Rm(args) => each(&args.keys, asked, now, screen, |key| blobs.remove(key).map(BlobOutput::Removed)),
    }
}

fn put(args: &BlobPut, blobs: &dyn Blobs, asked: &Asked, screen: &mut Screen) -> Result<Exit, Failure> {
    let bar = BytesBar::new(screen.lively(), PUT_PASSES);
    let passed = |bytes, total| {
        bar.passed(bytes, total);
        !asked.for_end()
    };
    let stored = match args.file.as_deref().filter(|file| *file != Path::new("-")) {
        Some(file) => blobs.put(PutFrom::File(file), args.integrity.as_ref(), &passed)?,
        None => {
            let mut input = Input { asked };
            blobs.put(PutFrom::Stream(&mut input), args.integrity.as_ref(), &passed)?
        }
    };
    drop(bar);
    if screen.is_text() {
        screen.out(&format!("{}\n", stored.blob.key));
        screen.flush();
        if let Some(note) = render::stored_note(&stored) {
            screen.err(&note);
        }
    } else {
        write_data(screen, &BlobOutput::Stored(stored));
    }
    Ok(Exit::Done)
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
    let mut some = false;
    blobs.list(&mut |blob| {
        if args.backend.as_ref().is_none_or(|backend| *backend == blob.backend) {
            if !screen.is_text() {
                write_data(screen, &BlobOutput::Blob(blob));
            } else if args.long {
                screen.out(&render::row(&blob, now));
            } else {
                screen.out(&format!("{}\n", blob.key));
            }
            some = true;
        }
        !screen.closed() && !asked.for_end()
    })?;
    if asked.for_end() {
        return Err(Failure::cancelled());
    }
    if !some && screen.is_text() {
        screen.err("no blobs\n");
    }
    Ok(Exit::Done)
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
        blobs.list(&mut |blob| {
            failure = look(&blob.key, screen).err();
            failure.is_none() && !screen.closed()
        })?;
    } else {
        failure = args.keys.iter().try_for_each(|key| look(key, screen)).err();
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    if args.all && screen.is_text() {
        let how = match bad {
            0 => "all good".to_owned(),
            bad => format!("{good} good, {bad} not"),
        };
        screen.out(&format!("verified {}: {how}\n", count(good + bad, "blob")));
    }
    match bad {
        0 => Ok(Exit::Done),
        _ => {
            let failure =
                Failure::new(Exit::Partial, format!("{bad} of {} cannot be relied on", count(good + bad, "blob")));
            Err(failure.hint("'trueup storage status' shows what is known; the daemon repairs what has a good copy"))
        }
    }
}

/// Does one after the other; what fails is told, and the others are done.
fn each(
    keys: &[Integrity],
    asked: &Asked,
    now: Timestamp,
    screen: &mut Screen,
    work: impl Fn(&Integrity) -> Result<BlobOutput, Failure>,
) -> Result<Exit, Failure> {
    let mut failures = 0;
    for key in keys {
        if asked.for_end() {
            return Err(Failure::cancelled());
        }
        match work(key) {
            Ok(line) => say(screen, line, now),
            Err(failure) if keys.len() == 1 => return Err(failure),
            Err(failure) => {
                failures += 1;
                show::error(screen, &failure.line(), None);
            }
        }
    }
    match failures {
        0 => Ok(Exit::Done),
        _ if failures == keys.len() => Ok(Exit::Error),
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
