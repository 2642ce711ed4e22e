//! Where output goes: two writers, each with or without colour, and the form that was asked for.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};

use crate::cli::args::{Color, Format};

struct Stream {
    writer: BufWriter<Box<dyn Write>>,
    colour: bool,
    colour_by_default: bool,
}

impl Stream {
    fn new(writer: Box<dyn Write>, colour: bool) -> Self {
        Self { writer: BufWriter::new(writer), colour, colour_by_default: colour }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.colour {
            self.writer.write_all(text.as_bytes())
        } else {
            strip_str(text).try_for_each(|piece| self.writer.write_all(piece.as_bytes()))
        }
    }
}

/// The two streams of a command.
pub struct Screen {
    out: Stream,
    err: Stream,
    format: Format,
    /// Whether a line that moves can be drawn on the error stream.
    lively: bool,
    /// Nobody reads the output any more.
    closed: bool,
    /// The output could not be written for another reason.
    failed: Option<io::Error>,
}

impl Screen {
    /// The real one. Colour follows NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM and whether it is a terminal.
    pub fn real() -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let paints = |choice| !matches!(choice, ColorChoice::Never);
        let (out_colour, err_colour) = (paints(AutoStream::choice(&out)), paints(AutoStream::choice(&err)));
        let lively = err.is_terminal() && err_colour;
        Self { lively, ..Self::to(Box::new(out), Box::new(err), out_colour, err_colour) }
    }

    /// One that writes to what it is given, without colour: for tests.
    pub fn plain(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self::to(out, err, false, false)
    }

    fn to(out: Box<dyn Write>, err: Box<dyn Write>, out_colour: bool, err_colour: bool) -> Self {
        let (out, err) = (Stream::new(out, out_colour), Stream::new(err, err_colour));
        Self { out, err, format: Format::Text, lively: false, closed: false, failed: None }
    }

    /// Takes the wishes of the command line.
    pub fn configure(&mut self, format: Format, color: Color) {
        self.format = format;
        for stream in [&mut self.out, &mut self.err] {
            stream.colour = match color {
                Color::Auto => stream.colour_by_default,
                Color::Always => true,
                Color::Never => false,
            };
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// Whether the standard error is in colour.
    pub fn paints_errors(&self) -> bool {
        self.err.colour
    }

    /// Whether a spinner may be drawn.
    pub fn lively(&self) -> bool {
        self.lively && self.is_text()
    }

    /// Writes to the standard output, newlines as given.
    pub fn out(&mut self, text: &str) {
        if !self.closed && self.failed.is_none() {
            let written = self.out.write(text);
            self.note(written);
        }
    }

    /// Writes text for programs: exactly as it is.
    pub fn data(&mut self, text: &str) {
        if !self.closed && self.failed.is_none() {
            let written = self.out.writer.write_all(text.as_bytes());
            self.note(written);
        }
    }

    /// Writes bytes to the standard output: exactly as they are. `false` when nobody takes them any more.
    pub fn bytes(&mut self, bytes: &[u8]) -> bool {
        if !self.closed && self.failed.is_none() {
            let written = self.out.writer.write_all(bytes);
            self.note(written);
        }
        !self.closed && self.failed.is_none()
    }

    /// Writes to the standard error. Nobody can be told when that fails.
    pub fn err(&mut self, text: &str) {
        let _ = self.err.write(text).and_then(|()| self.err.writer.flush());
    }

    /// Sends on what was written.
    pub fn flush(&mut self) {
        if !self.closed && self.failed.is_none() {
            let flushed = self.out.writer.flush();
            self.note(flushed);
        }
    }

    /// Whether the reader of the standard output is gone (`| head`): not a mistake, but a reason to stop following.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Why the output could not be written, if that happened.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.closed = true,
            Err(error) => self.failed = Some(error),
        }
    }
}
