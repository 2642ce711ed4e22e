//! Exit codes: one meaning each, the same for every command.

/// The exit codes of the command line (agreed contract; never renumber).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or in sync.
    Done = 0,
    /// Something failed.
    Error = 1,
    /// Changes planned or made; only with `--detailed-exitcode`.
    Changes = 2,
    /// The manifests are invalid.
    Invalid = 3,
    /// Refused by a safety guard.
    Refused = 4,
    /// Another instance holds the lock.
    Locked = 5,
    /// Timed out before convergence.
    TimedOut = 6,
    /// Some resources failed, the rest converged.
    Partial = 7,
    /// Cancelled by the user.
    Cancelled = 8,
    /// The command line is wrong.
    Usage = 64,
}

impl Exit {
    /// The word of this code in `{"type":"error","code":...}`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Error => "error",
            Self::Changes => "changes",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Locked => "locked",
            Self::TimedOut => "timedOut",
            Self::Partial => "partial",
            Self::Cancelled => "cancelled",
            Self::Usage => "usage",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
