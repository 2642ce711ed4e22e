//! Commands beside a unit's own program that have no more rights than it: a probe, or what makes it read its files again.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub use super::becoming::held;
use super::becoming::{self, Message};
use super::spawn::{OURSELVES, Way, tell};
use crate::ports::keeper::Confinement;

/// How becoming the program goes.
pub struct Confined(Way);

impl Confined {
    /// Why the program never ran, if that is so. To be asked when the process has ended.
    pub fn reason(&self) -> Option<String> {
        self.0.reason()
    }
}

/// A command that takes on this confinement in this folder and becomes the program. Its standard input is taken; what it becomes has an
/// empty one. To be dropped when it was started.
///
/// # Errors
/// Why it cannot be told what to take on.
pub fn command(
    program: &Path,
    argv: &[String],
    dir: &Path,
    confinement: &Confinement,
) -> io::Result<(Command, Confined)> {
    let (first, rest) = argv.split_first().ok_or_else(|| io::Error::other("the argument vector is empty"))?;
    let message = Message { dir: dir.to_owned(), confinement: confinement.clone(), ..Message::default() };
    let (theirs, way) = tell(&message, None)?;
    let mut command = Command::new(OURSELVES);
    command.arg0("trueup").arg(becoming::WORD).arg(program).arg(first).args(rest).stdin(theirs);
    Ok((command, Confined(way)))
}
