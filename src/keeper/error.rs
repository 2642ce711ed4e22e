//! Why the keeper itself could not run.

use std::io;
use std::path::PathBuf;

/// The keeper could not start, or had to give up.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Another keeper holds the lock of this state folder: there is never more than one.
    #[error("another keeper holds {0}")]
    Locked(PathBuf),
    /// A file or folder of the state folder could not be used.
    #[error("{what} {path}: {cause}")]
    State { what: &'static str, path: PathBuf, cause: io::Error },
    /// The kernel refused something that the keeper cannot do without.
    #[error("{what}: {cause}")]
    Kernel { what: &'static str, cause: io::Error },
}

impl KeeperError {
    pub(super) fn state(what: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> Self {
        Self::State { what, path: path.into(), cause: cause.into() }
    }

    pub(super) fn kernel(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |cause| Self::Kernel { what, cause: cause.into() }
    }
}
