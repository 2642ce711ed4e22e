//! The kernel's locks on the storage of a state folder. They are of open files, so they go with their holder, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backoff::{BlockingRetryable, ConstantBuilder};

use crate::ports::blobs::{IndexError, Latch, Latches};

/// Who moves, sweeps and scrubs.
const MOVING: &str = "moving.lock";
/// Shared by those who put, held alone by those who delete.
const BYTES: &str = "bytes.lock";
/// Between two looks at a deletion that is under way.
const PAUSE: Duration = Duration::from_millis(10);
/// 10 s of them: more than a deletion takes, which holds the lock for one batch.
const LOOKS: usize = 1_000;

/// The locks of one folder.
#[derive(Clone, Debug)]
pub struct FileLatches {
    folder: PathBuf,
    looks: usize,
}

/// A lock that goes with its open file.
struct Held {
    _file: File,
}

impl Latch for Held {}

impl FileLatches {
    /// The folder must be there; the files are made when they are needed.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), looks: LOOKS }
    }

    /// Every holder opens the file for itself: locks of one open file are one lock.
    fn open(&self, name: &str) -> Result<File, IndexError> {
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        file.map_err(|error| IndexError::Broken(format!("the lock {} cannot be opened: {error}", path.display())))
    }

    /// Takes the lock if nobody stands in the way.
    fn try_take(
        &self,
        name: &str,
        how: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<Box<dyn Latch>>, IndexError> {
        let file = self.open(name)?;
        match how(&file) {
            Ok(()) => Ok(Some(Box::new(Held { _file: file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(self.no_lock(name, &error)),
        }
    }

    fn no_lock(&self, name: &str, error: &io::Error) -> IndexError {
        let path = self.folder.join(name);
        IndexError::Broken(format!("{} cannot be locked: {error}; choose another --state", path.display()))
    }
}

impl Latches for FileLatches {
    fn moving(&self) -> Result<Option<Box<dyn Latch>>, IndexError> {
        self.try_take(MOVING, File::try_lock)
    }

    fn putting(&self) -> Result<Box<dyn Latch>, IndexError> {
        let busy = || IndexError::Broken("old copies are being deleted, and that does not end; try again".into());
        // `None` is what is waited for; any other failure ends the waiting.
        let take = || self.try_take(BYTES, File::try_lock_shared).map_err(Some)?.ok_or(None);
        let pauses = ConstantBuilder::default().with_delay(PAUSE).with_max_times(self.looks);
        take.retry(pauses).when(Option::is_none).call().map_err(|error: Option<IndexError>| error.unwrap_or_else(busy))
    }

    fn deleting(&self) -> Result<Option<Box<dyn Latch>>, IndexError> {
        self.try_take(BYTES, File::try_lock)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;

    use super::*;
    use crate::adapters::testing::{again, role, wait_until};

    const CHILD: &str = "TRUEUP_TEST_LATCH_CHILD";

    #[test]
    fn one_moves_and_the_next_may_when_it_has_ended() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, other) = (FileLatches::new(dir.path()), FileLatches::new(dir.path()));
        let held = one.moving().expect("opens").expect("is free");
        assert!(other.moving().expect("opens").is_none());
        assert!(one.moving().expect("opens").is_none(), "not twice in one process either");
        drop(held);
        assert!(other.moving().expect("opens").is_some());
        let mode = std::fs::metadata(dir.path().join(MOVING)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn many_put_at_once_and_nobody_deletes_meanwhile() {
        let dir = tempfile::tempdir().expect("a folder");
        let latches = FileLatches::new(dir.path());
        let (one, two) = (latches.putting().expect("free"), latches.putting().expect("shared"));
        assert!(latches.deleting().expect("opens").is_none());
        drop(one);
        assert!(latches.deleting().expect("opens").is_none());
        drop(two);
        assert!(latches.deleting().expect("opens").is_some());
        assert!(latches.moving().expect("opens").is_some(), "moving is another matter");
    }

    #[test]
    fn who_puts_waits_for_a_deletion_and_not_for_ever() {
        let dir = tempfile::tempdir().expect("a folder");
        let latches = FileLatches { looks: 3, ..FileLatches::new(dir.path()) };
        let deleting = latches.deleting().expect("opens").expect("is free");
        let Err(error) = latches.putting() else { panic!("bytes are being deleted") };
        assert!(error.to_string().contains("try again"), "{error}");
        let patient = FileLatches::new(dir.path());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| drop(patient.putting().expect("in time")));
            drop(deleting);
            waits.join().expect("it was told");
        });
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_so() {
        let dir = tempfile::tempdir().expect("a folder");
        let Err(error) = FileLatches::new(&dir.path().join("none")).moving() else { panic!("there is no folder") };
        assert!(error.to_string().contains("cannot be opened"), "{error}");
    }

    /// The other process of the next test: holds two latches until it is killed.
    #[test]
    fn child_that_holds() {
        let Some(folder) = role(CHILD) else { return };
        let latches = FileLatches::new(Path::new(&folder));
        let _moving = latches.moving().expect("opens").expect("is free");
        let _putting = latches.putting().expect("is free");
        io::stdout().write_all(b"\nheld\n").expect("parent listens");
        io::stdin().read_to_end(&mut Vec::new()).expect("parent lives");
    }

    #[test]
    fn the_latches_of_a_killed_process_are_free() {
        let dir = tempfile::tempdir().expect("a folder");
        let latches = FileLatches::new(dir.path());
        let mut child = again("adapters::blobs::latches::tests::child_that_holds", CHILD, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "held"), "the child has them");
        assert!(latches.moving().expect("opens").is_none());
        assert!(latches.deleting().expect("opens").is_none());
        assert!(latches.putting().is_ok(), "putting is shared");
        child.kill().expect("kill");
        child.wait().expect("wait");
        wait_until("the latches are free", || {
            latches.moving().expect("opens").is_some() && latches.deleting().expect("opens").is_some()
        });
    }
}
