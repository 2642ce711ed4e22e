//! What the keeper writes down of each unit (`<state>/run/<unit>.json`), so that the next keeper finds it again.
//!
//! A mark is written atomically before `ensure` is answered. Pid, start ticks and boot id together name one process for ever, so
//! a process that they name is the unit's own. A process that a keeper had no time to write down is found by the mark in its
//! environment (see [`super::strays`]). A mark also remembers a unit that has no process: a job that ended is not run twice.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cgroup::Leaf;
use super::find::{self, Life};
use super::table::{Effect, Event, LEFTOVER_GRACE, Next, Now, Place, State};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::model::unit::{Bytes, Millis};
use crate::ports::keeper::{Exit, Policy, Process, Restart, RestartWhen, Unit};

/// A mark is a few hundred bytes; whatever is longer is not one.
const MAX_MARK: u64 = 64 << 10;

/// The smallest page there is.
const PAGE: usize = 4096;

/// One mark file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    pub unit: Name,
    pub digest: Digest,
    pub policy: Policy,
    pub boot_id: String,
    /// Its process, while it has one.
    pub process: Option<Process>,
    /// Its process group, while its process is gone and others of the group are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearing: Option<u32>,
    /// The session of that process, to recognise the rest of its group when it is gone.
    pub session: u32,
    /// Names the start of its process: everything that comes from it carries this in its mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<String>,
    /// The folder of its cgroup.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// It was being stopped: the next keeper must not restart it.
    pub stopping: bool,
    /// It ended by itself and is not to be started again.
    pub ended: bool,
    pub restarts: u32,
    pub last_exit: Option<Exit>,
    pub last_exit_at: Option<Timestamp>,
    /// Its process was told to be ready, or said so itself: it does not say it again to the next keeper.
    #[serde(default)]
    pub ready: bool,
    #[serde(default)]
    pub notified: bool,
    /// Where the socket listens that its process was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

impl Mark {
    /// What is worth remembering of a unit.
    pub(super) fn of(unit: &Name, state: &State, boot_id: &str, session: u32, leaf: Option<&Leaf>) -> Self {
        let next = match &state.place {
            Place::Stopping { next, .. } | Place::Clearing { next } => Some(*next),
            _ => None,
        };
        Self {
            unit: unit.clone(),
            digest: state.digest.clone(),
            policy: state.policy.clone(),
            boot_id: boot_id.to_owned(),
            process: state.process().cloned(),
            clearing: None,
            birth: None,
            session,
            cgroup: leaf.map(|leaf| leaf.path().to_owned()),
            stopping: state.place == Place::Stopped || next == Some(Next::Stop),
            ended: state.place == Place::Ended || next == Some(Next::End),
            restarts: state.restarts,
            last_exit: state.last_exit.as_ref().map(|(exit, _)| exit.clone()),
            last_exit_at: state.last_exit.as_ref().map(|(_, at)| *at),
            ready: state.ready(),
            notified: state.notified(),
            listen: None,
        }
    }

    /// The process it names, if that very process lives in this boot, or nobody can say.
    pub fn living(&self, boot_id: &str) -> Option<&Process> {
        let lives = |p: &&Process| self.boot_id == boot_id && find::life(p.pid, p.start_ticks) != Life::Gone;
        self.process.as_ref().filter(lives)
    }

    /// Whether others of this group, or of the unit's cgroup, live in this boot.
    fn leaves(&self, group: u32, boot_id: &str) -> bool {
        let leaf = || self.cgroup.as_deref().and_then(Leaf::at).is_some_and(|leaf| leaf.populated());
        self.boot_id == boot_id && (find::group_lives(group, self.session) || leaf())
    }

    /// The unit as a new keeper sees it, and what is to be done about it. What died while there was no keeper ended with an
    /// unknown exit code.
    pub(super) fn state(&self, boot_id: &str, now: Now) -> (State, Vec<Effect>) {
        let mut state = State::new(self.digest.clone(), self.policy.clone());
        state.restarts = self.restarts;
        state.last_exit = self.last_exit.clone().zip(self.last_exit_at);
        let grace = Effect::SetTimer(now.tick + self.policy.stop_grace.min(LEFTOVER_GRACE));
        let Some(process) = self.process.clone() else {
            if self.clearing.is_some_and(|group| self.leaves(group, boot_id)) {
                let next = match (self.stopping, self.ended) {
                    (true, _) => Next::Stop,
                    (_, true) => Next::End,
                    _ => Next::Restart { at: now.tick, retry_at: now.wall, looping: false },
                };
                state.place = Place::Clearing { next };
                return (state, vec![grace]);
            }
            if self.ended {
                state.place = Place::Ended;
            } else if !self.stopping {
                state.place = Place::Waiting { at: now.tick, retry_at: now.wall, looping: false };
            }
            return (state, Vec::new());
        };
        let pid = process.pid;
        let lives = self.living(boot_id).is_some();
        state.place = if self.stopping {
            Place::Stopping { process, next: Next::Stop }
        } else {
            State::adopted(self.digest.clone(), self.policy.clone(), process, now.tick).place
        };
        if lives {
            if self.stopping {
                return (state, vec![Effect::SetTimer(now.tick + self.policy.stop_grace)]);
            }
            let due = match &state.place {
                Place::Running { due, .. } => *due,
                _ => None,
            };
            let mut effects: Vec<Effect> = due.map(Effect::SetTimer).into_iter().collect();
            if self.notified {
                effects.extend(state.on(Event::Notified, now));
            } else if self.ready {
                effects.extend(state.on(Event::Ready { pid }, now));
            }
            return (state, effects);
        }
        // Nobody knows how long it ran, so nothing is held against it.
        state.on(Event::Ready { pid }, now);
        let left = self.leaves(pid, boot_id);
        let mut effects = state.on(Event::Exited { exit: Exit::Unknown, left }, now);
        if left && !effects.iter().any(|effect| matches!(effect, Effect::SetTimer(_))) {
            // Its grace began with a keeper that is gone.
            effects.push(grace);
        }
        (state, effects)
    }
}

/// The policy of a unit that was found without a mark, until `ensure` brings the real one.
pub(super) fn stopgap_policy() -> Policy {
    Policy {
        restart: Restart {
            when: RestartWhen::Always,
            initial: Millis(100),
            max: Millis::secs(300),
            factor: 2,
            limit: 5,
            window: Millis::secs(60),
            reset_after: Millis::secs(60),
            success: Vec::new(),
            fatal: Vec::new(),
        },
        stop_signal: 15,
        stop_grace: Millis::secs(10),
        log_max_size: Bytes(10 << 20),
        log_keep: 5,
        log_max_age: None,
        notify: None,
        ceilings: Default::default(),
    }
}

/// Names a state folder in the marks of its processes.
pub fn state_id(state: &Path) -> String {
    Digest::of(state.as_os_str().as_bytes()).as_str()[..16].to_owned()
}

fn path(run: &Path, unit: &Name) -> PathBuf {
    run.join(format!("{unit}.json"))
}

/// Writes a mark: a keeper that is killed leaves the old one or the new one, never half of one. One write within a page is
/// not interrupted, so a mark that is there is written over in place; a rename over it would make ext4 write to the disk
/// (`auto_da_alloc`), and the restart of a unit wait for that. Not synced, because another boot makes its process void.
pub(super) fn write(run: &Path, mark: &Mark) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(mark)?;
    let target = path(run, &mark.unit);
    if bytes.len() < PAGE {
        // Always as long, so that nothing of a longer one stays behind.
        bytes.resize(PAGE - 1, b' ');
        bytes.push(b'\n');
        let there = fs::OpenOptions::new().write(true).open(&target);
        let file = match there {
            // Nothing of an earlier one can be lost. A keeper that is killed between the two calls leaves an empty file, which is no
            // mark; its process is then found by its environment, as it is when there is no file.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Some(fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?)
            }
            Ok(file) if file.metadata()?.len() <= PAGE as u64 => Some(file),
            _ => None,
        };
        if let Some(file) = file {
            return match file.write_at(&bytes, 0)? {
                PAGE => Ok(()),
                _ => Err(io::ErrorKind::WriteZero.into()),
            };
        }
    }
    let new = run.join(format!(".{}.json.new", mark.unit));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut file, &bytes)?;
    fs::rename(&new, target)
}

pub(super) fn remove(run: &Path, unit: &Name) -> io::Result<()> {
    match fs::remove_file(path(run, unit)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// All marks of a state folder, and what is no readable mark. A folder that is not there has none.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn read(state: &Path) -> io::Result<(Vec<Mark>, Vec<PathBuf>)> {
    let run = state.join("run");
    let entries = match fs::read_dir(&run) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        entries => entries?,
    };
    let (mut marks, mut bad) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let path = entry?.path();
        let Some(stem) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json")) else {
            continue;
        };
        match read_one(&path) {
            Some(mark) if mark.unit.as_str() == stem => drop(marks.insert(mark.unit.clone(), mark)),
            _ => bad.push(path),
        }
    }
    Ok((marks.into_values().collect(), bad))
}

fn read_one(path: &Path) -> Option<Mark> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_MARK).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Shows a unit to clients.
pub(super) fn unit(name: &Name, state: &State, strays: Vec<u32>) -> Unit {
    Unit {
        name: name.clone(),
        digest: state.digest.clone(),
        policy: state.policy.clone(),
        phase: state.phase(),
        process: state.process().cloned(),
        strays,
        crashes: state.crashes,
        restarts: state.restarts,
        last_exit: state.last_exit.as_ref().map(|(exit, _)| exit.clone()),
        last_exit_at: state.last_exit.as_ref().map(|(_, at)| *at),
        ready: state.ready(),
        notified: state.notified(),
        held_by: None,
        status: None,
        known: state.known,
    }
}

/// The units as a keeper that starts now would list them, without starting one and without changing anything; and whether
/// anything of them lives. Processes without a mark file are not looked for.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn look(state: &Path) -> io::Result<(Vec<Unit>, bool)> {
    let (marks, _) = read(state)?;
    let (boot, now) = (find::boot_id(), super::clock::now());
    let states: Vec<_> = marks.iter().map(|mark| (&mark.unit, mark.state(&boot, now).0)).collect();
    // What a dead leader left counts too: it is for a keeper to end it.
    let left = marks.iter().any(|mark| mark.process.is_some() && mark.boot_id == boot);
    let living = left || states.iter().any(|(_, state)| state.alive());
    Ok((states.iter().map(|(name, state)| unit(name, state, Vec::new())).collect(), living))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_as_it_was_written_however_long_the_one_before_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().join("run");
        fs::create_dir(&run).expect("made");
        let mut mark = Mark {
            unit: Name::new("web").expect("a name"),
            digest: Digest::of(b"x"),
            policy: stopgap_policy(),
            boot_id: "boot".to_owned(),
            process: None,
            clearing: None,
            birth: None,
            session: 7,
            cgroup: Some("/sys/fs/cgroup/trueup-0/web".into()),
            stopping: false,
            ended: true,
            restarts: 3,
            last_exit: None,
            last_exit_at: None,
            ready: false,
            notified: false,
            listen: None,
        };
        for length in [0, 10_000, 10, 3_000, 1] {
            mark.last_exit = Some(Exit::NotSpawned("x".repeat(length)));
            write(&run, &mark).expect("written");
            assert_eq!(read(folder.path()).expect("read").0, [mark.clone()]);
        }
        // A keeper that was killed as it made a new mark left nothing in it; the next one fills it.
        fs::write(run.join("web.json"), b"").expect("written");
        assert_eq!(read(folder.path()).expect("read"), (Vec::new(), vec![run.join("web.json")]));
        write(&run, &mark).expect("written");
        assert_eq!(read(folder.path()).expect("read"), (vec![mark.clone()], Vec::new()));
        fs::write(run.join("torn.json"), b"{\"unit\":\"to").expect("written");
        fs::write(run.join("web.out"), b"").expect("written");
        let (marks, bad) = read(folder.path()).expect("read");
        assert_eq!((marks.len(), bad), (1, vec![run.join("torn.json")]));
        assert!(read(&folder.path().join("nowhere")).expect("empty").0.is_empty());
    }
}
