//! Starting a process: its own group, its own environment, its output into the FIFOs.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::find::{self, MARK};
use crate::model::time::Timestamp;
use crate::ports::keeper::{Launch, Notify, Process};

/// The limit of open files: raised for the keeper, as it was for what it starts. Programs that use `select` or close every
/// possible descriptor do not bear a high one.
#[derive(Clone)]
pub(super) struct Limits {
    given: Rlimit,
    raised: Rlimit,
}

impl Limits {
    pub(super) fn raise() -> Self {
        let given = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: given.maximum, maximum: given.maximum };
        let limits = Self { given, raised };
        limits.set(&limits.raised);
        limits
    }

    /// Limits are the process's own and are copied at its birth, so they are lowered around it: no code runs in the child.
    pub(super) fn lowered<T>(&self, act: impl FnOnce() -> T) -> T {
        self.set(&self.given);
        let result = act();
        self.set(&self.raised);
        result
    }

    fn set(&self, limit: &Rlimit) {
        if self.given == self.raised {
            return;
        }
        // Between the given and the hard limit nothing is refused; if it were, the old limit would serve as well.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.current, maximum: limit.maximum });
    }
}

/// Starts the launch. Gives its process and session.
pub(super) fn spawn(
    launch: &Launch,
    mark: &str,
    notify: Option<(OsString, &Notify)>,
    ends: [File; 2],
    null: &File,
    limits: &Limits,
    wall: Timestamp,
) -> Result<(Process, u32), String> {
    let mut command = Command::new(&launch.program);
    let (first, rest) = launch.argv.split_first().ok_or("the argument vector is empty")?;
    let [out, err] = ends;
    let input = null.try_clone().map_err(|cause| cause.to_string())?;
    command.arg0(first).args(rest).current_dir(&launch.dir).env_clear();
    command.envs(launch.env.iter().map(|(name, value)| (name, value.reveal()))).env(MARK, mark);
    if let Some((socket, notify)) = notify {
        command.env("NOTIFY_SOCKET", socket);
        if let Some(watchdog) = notify.watchdog {
            // For sd_watchdog_enabled(3). Without WATCHDOG_PID it holds for whichever process of the unit asks.
            command.env("WATCHDOG_USEC", watchdog.0.saturating_mul(1_000).to_string());
        }
    }
    command.process_group(0).stdin(input).stdout(Stdio::from(out)).stderr(Stdio::from(err));
    let child = limits.lowered(|| command.spawn()).map_err(|cause| explain(launch, &cause))?;
    let pid = child.id();
    // It is our child and not yet waited for, so it is there, if only as a zombie.
    let stat = find::stat(pid).ok_or("it was gone before it could be looked at")?;
    Ok((Process { pid, start_ticks: stat.start_ticks, started: wall }, stat.session))
}

/// "No such file" may mean the folder as well as the program.
fn explain(launch: &Launch, cause: &io::Error) -> String {
    if cause.kind() == io::ErrorKind::NotFound && !launch.dir.is_dir() {
        return format!("working directory {}: {cause}", launch.dir.display());
    }
    format!("{}: {cause}", launch.program.display())
}
