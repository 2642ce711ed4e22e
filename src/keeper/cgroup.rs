//! A cgroup (v2) for a unit that asks for one: it holds everything the unit starts, wherever that went; it is ended as a whole;
//! and its controllers bound memory, cores and processes.
//!
//! Only for those that ask: a process that is moved waits until every core has been through the scheduler (an RCU grace period),
//! which takes some ten milliseconds on an idle machine and more than a plain start as a whole.
//!
//! They are made below the cgroup that the keeper is in: `<ours>/trueup-<state id>/<unit>`. Of two programs that write to one
//! part of the tree one loses, so on a machine with systemd root does so only where systemd has handed a part over (`Delegate=`,
//! <https://systemd.io/CGROUP_DELEGATION>). Where there is no room, units do without: see [`super::left`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::model::id::Name;
use crate::ports::keeper::Ceilings;

// A unit joins by itself, in `super::becoming`, before it becomes its program: nobody else waits for it, and nothing that it starts
// can come first.

/// Set to `off`, this variable keeps trueup from making cgroups.
pub const SWITCH: &str = "TRUEUP_CGROUPS";
/// What our folders are called, before the state id.
const PREFIX: &str = "trueup-";
/// So many hexadecimal digits is a state id long.
const ID_LENGTH: usize = 16;
/// Where the keeper itself goes when controllers are needed. No unit has this name: no name begins with a dot.
const KEEPER: &str = ".keeper";
/// The period of cpu.max in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;
/// A unit may make cgroups of its own; deeper ones than these are not ours to clean.
const DEPTH: usize = 8;

/// Where cgroups of ours may be made, and what they can limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub path: PathBuf,
    pub controllers: Vec<String>,
    /// The folder below it in which the process that was asked for sits, if that is one of a trueup.
    inside: Option<PathBuf>,
}

/// Where the cgroups of a process's units belong, or why there is no room for any.
///
/// # Errors
/// The reason, for people.
pub fn find(pid: u32) -> Result<Base, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the keeper and its client have to agree, and the keeper has no ports"
    )]
    let off = std::env::var_os(SWITCH).is_some_and(|value| value == "off");
    if off {
        return Err(format!("{SWITCH}=off"));
    }
    let read =
        |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|cause| format!("/proc: {cause}"));
    let (base, inside) = locate(&read("cgroup")?, &read("mountinfo")?)?;
    for file in [base.clone(), base.join("cgroup.procs")] {
        accessat(CWD, &file, Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(|_| format!("{} is not ours to write to", file.display()))?;
    }
    let systemd = Path::new("/run/systemd/system").is_dir();
    if systemd && rustix::process::geteuid().is_root() && !delegated(&base) {
        return Err(format!("systemd has not handed {} over to trueup", base.display()));
    }
    let controllers = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    Ok(Base { path: base, controllers: controllers.split_whitespace().map(str::to_owned).collect(), inside })
}

/// The folder of the cgroup that `/proc/PID/cgroup` names, by the mounts of `/proc/PID/mountinfo`. In a folder of ours (the keeper's
/// own, or that of a unit that started this trueup) the base is the one that this folder was made in.
fn locate(cgroup: &str, mountinfo: &str) -> Result<(PathBuf, Option<PathBuf>), String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this kernel has no cgroup v2")?;
    // Mount ID, parent, device, root, mount point, options, ... - type, ... (proc_pid_mountinfo(5)).
    let mount = mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        after.starts_with("cgroup2 ").then(|| (unescaped(root), unescaped(point)))
    });
    let (root, point) = mount.ok_or("no cgroup2 file system is mounted")?;
    let below = Path::new(path.trim_end_matches(" (deleted)"));
    let below = below.strip_prefix(&root).map_err(|_| format!("the mount {point} does not show our cgroup {path}"))?;
    let own = Path::new(&point).join(below);
    let ours = |folder: &Path| folder.file_name().and_then(|name| name.to_str()).is_some_and(is_ours);
    // The outermost one, should a unit's own trueup have been in the way once.
    let outer = own.ancestors().filter(|folder| ours(folder)).last();
    match outer.and_then(Path::parent) {
        Some(base) => Ok((base.to_owned(), Some(own.clone()))),
        None => Ok((own, None)),
    }
}

/// Whether it is a name that [`Rooms::new`] gives. A systemd unit may well be called `trueup-home.service`: that folder is where ours
/// belong, and not one of them.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|id| id.len() == ID_LENGTH && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Blanks in paths are written as octal numbers there.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// Whether systemd has handed this part of the tree to the service that we are in. What it gave a user's own manager is that one's.
fn delegated(folder: &Path) -> bool {
    let managed = |folder: &&Path| {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !name.starts_with("user@")
    };
    folder.ancestors().take_while(managed).any(|folder| {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0_u8; 8];
            rustix::fs::getxattr(folder, *name, &mut value[..]).is_ok_and(|length| &value[..length] == b"1")
        })
    })
}

/// The cgroups of one keeper.
pub struct Rooms {
    /// Our own folder, below the base.
    own: PathBuf,
    base: Base,
}

impl Rooms {
    pub fn new(base: Base, state_id: &str) -> Self {
        Self { own: base.path.join(format!("{PREFIX}{state_id}")), base }
    }

    /// A keeper that was started by a unit of another one is none of that unit's.
    pub fn leave_units(&self) -> io::Result<()> {
        match &self.base.inside {
            Some(inside) if !inside.ends_with(KEEPER) => self.step_into_leaf(),
            _ => Ok(()),
        }
    }

    /// Makes the cgroup of a unit, if it is not there, and sets what it may use.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn make(&self, unit: &Name, ceilings: &Ceilings) -> Result<Leaf, String> {
        let leaf = Leaf { path: self.own.join(unit.as_str()) };
        let made = match fs::create_dir(&leaf.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&leaf.path),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        made.map_err(|cause| format!("{}: {cause}", leaf.path.display()))?;
        self.set(&leaf, ceilings)?;
        Ok(leaf)
    }

    /// Sets what a cgroup may use.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set(&self, leaf: &Leaf, ceilings: &Ceilings) -> Result<(), String> {
        self.enable(&ceilings.controllers())?;
        let memory = ceilings.memory.map(|bytes| bytes.0.to_string());
        let cpu = ceilings.cpu.map(|milli| format!("{} {PERIOD}", u64::from(milli) * PERIOD / 1_000));
        let pids = ceilings.pids.map(|count| count.to_string());
        if memory.is_some() {
            // Half a unit is worse than none: it is restarted as a whole.
            leaf.put("memory.oom.group", "1")?;
        }
        for (file, value) in [("memory.max", memory), ("cpu.max", cpu), ("pids.max", pids)] {
            match value {
                Some(value) => leaf.put(file, &value)?,
                // Without the controller there is no such file, and nothing to take back.
                None => drop(leaf.put(file, "max")),
            }
        }
        Ok(())
    }

    /// Hands controllers down to the units. A cgroup that does so may have no process of its own (but for the root), so the keeper
    /// moves into a leaf, and with it what else of trueup is in the base.
    fn enable(&self, wanted: &[&str]) -> Result<(), String> {
        if wanted.is_empty() {
            return Ok(());
        }
        if let Some(missing) = wanted.iter().find(|name| !self.base.controllers.iter().any(|c| c == *name)) {
            return Err(format!("{} has no {missing} controller", self.base.path.display()));
        }
        for folder in [&self.base.path, &self.own] {
            let file = folder.join("cgroup.subtree_control");
            let now = fs::read_to_string(&file).unwrap_or_default();
            let missing: Vec<_> = wanted.iter().filter(|name| !now.split_whitespace().any(|n| n == **name)).collect();
            if missing.is_empty() {
                continue;
            }
            let words: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
            let mut done = write(&file, &words.join(" "));
            if done.as_ref().is_err_and(|cause| cause.kind() == io::ErrorKind::ResourceBusy) {
                self.clear_base().map_err(|cause| format!("{}: {cause}", self.own.display()))?;
                done = write(&file, &words.join(" "));
            }
            done.map_err(|cause| format!("{}: {cause} (it must hold no other processes)", file.display()))?;
        }
        Ok(())
    }

    fn clear_base(&self) -> io::Result<()> {
        self.step_into_leaf()?;
        let program = fs::read_link("/proc/self/exe")?;
        for pid in read_pids(&self.base.path) {
            if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|other| other == program) {
                write(&self.own.join(KEEPER).join("cgroup.procs"), &pid.to_string())?;
            }
        }
        Ok(())
    }

    fn step_into_leaf(&self) -> io::Result<()> {
        let leaf = self.own.join(KEEPER);
        fs::create_dir_all(&leaf)?;
        write(&leaf.join("cgroup.procs"), "0")
    }

    /// Takes away what is empty; to be called when the keeper ends.
    pub fn tidy(&self) {
        let _ = fs::remove_dir(&self.own);
    }
}

/// The cgroup of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    path: PathBuf,
}

impl Leaf {
    /// One that was written down, if it is still there.
    pub fn at(path: &Path) -> Option<Self> {
        path.join("cgroup.events").is_file().then(|| Self { path: path.to_owned() })
    }

    /// The one that a process is in, if it was made for this unit.
    pub fn of(pid: u32, state_id: &str, unit: &Name) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let (_, inside) = locate(&read("cgroup")?, &read("mountinfo")?).ok()?;
        let folder = format!("{PREFIX}{state_id}/{unit}");
        inside.filter(|path| path.ends_with(folder)).map(|path| Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process here, with its threads; what it started already stays where it is.
    pub fn join(&self, pid: u32) -> Result<(), String> {
        self.put("cgroup.procs", &pid.to_string())
    }

    /// Whether anything in it lives.
    pub fn populated(&self) -> bool {
        let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// The processes in it.
    pub fn pids(&self) -> Vec<u32> {
        read_pids(&self.path)
    }

    /// Ends everything in it, also what is being born.
    pub fn kill(&self) {
        if self.put("cgroup.kill", "1").is_ok() {
            return;
        }
        // Before Linux 5.14. What is born meanwhile is met again when the kill is repeated.
        for pid in self.pids() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// How often the kernel has killed in it for lack of memory; `None` without the memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
    }

    /// Takes it away if it is empty.
    pub fn remove(&self) -> bool {
        remove(&self.path, DEPTH)
    }

    fn put(&self, file: &str, value: &str) -> Result<(), String> {
        write(&self.path.join(file), value).map_err(|cause| format!("{}: {cause}", self.path.join(file).display()))
    }
}

/// Those that a unit made below its own go first. (The files in them are the kernel's and go with them.)
fn remove(folder: &Path, depth: usize) -> bool {
    if fs::remove_dir(folder).is_ok() || !folder.exists() {
        return true;
    }
    if depth == 0 {
        return false;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !remove(&entry.path(), depth - 1) {
            return false;
        }
    }
    fs::remove_dir(folder).is_ok()
}

/// The kernel takes one value in one call.
fn write(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

fn read_pids(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
