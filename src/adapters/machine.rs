//! Users and groups from `/etc/passwd` and `/etc/group`; from other sources by way of getent(1), which asks whatever
//! nsswitch.conf names. Rights and cgroups as the kernel shows them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::keeper::{becoming, cgroup};
use crate::ports::keeper::Rlimit;
use crate::ports::machine::{Account, Machine, Powers};

/// A directory server that does not answer in this time (seconds) is as good as none: the engine waits for it.
const GETENT_LIMIT: i64 = 2;
/// An entry is a line; the longest list of members is some thousand names.
const MAX_ANSWER: u64 = 1 << 20;

/// This machine, with the keeper of a state folder.
pub struct ThisMachine {
    state: PathBuf,
    etc: PathBuf,
}

impl ThisMachine {
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), etc: "/etc".into() }
    }

    fn read(&self, file: &str) -> Result<String, String> {
        let path = self.etc.join(file);
        let bytes = fs::read(&path).map_err(|cause| format!("{} cannot be read: {cause}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The keeper that runs, or this process, in whose place one would be started.
    fn keeper(&self) -> u32 {
        let file = self.state.join("keeper.lock");
        let held = fs::File::open(&file).is_ok_and(|lock| lock.try_lock_shared().is_err());
        let pid = fs::read_to_string(&file).ok().filter(|_| held).and_then(|text| text.trim().parse().ok());
        pid.unwrap_or_else(std::process::id)
    }
}

impl Machine for ThisMachine {
    fn account(&self, user: &str) -> Result<Option<Account>, String> {
        let own = self.read("passwd")?;
        if let Some(mut account) = own.lines().find_map(|line| entry(line, user)) {
            account.groups = memberships(&self.read("group")?, &account.name);
            return Ok(Some(account));
        }
        let Some(line) = getent(&["passwd", user]) else { return Ok(None) };
        let Some(mut account) = line.lines().find_map(|line| entry(line, user)) else { return Ok(None) };
        let groups = getent(&["initgroups", &account.name]).unwrap_or_default();
        account.groups = groups.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        Ok(Some(account))
    }

    fn group(&self, group: &str) -> Result<Option<u32>, String> {
        if let Ok(number) = group.parse() {
            return Ok(Some(number));
        }
        let named = |text: &str| text.lines().find_map(|line| group_entry(line, group));
        let own = named(&self.read("group")?);
        Ok(own.or_else(|| named(&getent(&["group", group])?)))
    }

    fn powers(&self) -> Powers {
        let hard = |limit: Rlimit| (limit, rustix::process::getrlimit(becoming::resource(limit)).maximum);
        Powers {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            controllers: cgroup::find(self.keeper()).map(|base| base.controllers),
            hard: Rlimit::ALL.into_iter().map(hard).collect(),
        }
    }
}

/// `name:password:uid:gid:gecos:home:shell` (passwd(5)), if it is this user's, by name or number.
fn entry(line: &str, user: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    let meant = name == user || user.parse() == Ok(uid);
    meant.then(|| Account { name: name.to_owned(), uid, gid, groups: Vec::new(), home: home.to_owned() })
}

/// `name:password:gid:members` (group(5)).
fn group_entry(line: &str, group: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, ..] = fields[..] else { return None };
    if name == group { gid.parse().ok() } else { None }
}

fn memberships(groups: &str, name: &str) -> Vec<u32> {
    let member = |line: &&str| line.rsplit(':').next().is_some_and(|all| all.split(',').any(|one| one.trim() == name));
    groups.lines().filter(member).filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

/// What getent(1) answers, if it is there, finds something, and does so in time.
fn getent(words: &[&str]) -> Option<String> {
    let mut command = Command::new("getent");
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut output = child.stdout.take()?;
    let limit = Timespec { tv_sec: GETENT_LIMIT, tv_nsec: 0 };
    let answered = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0);
    if !answered {
        let _ = child.kill();
    }
    let mut text = String::new();
    let read = (&mut output).take(MAX_ANSWER).read_to_string(&mut text);
    let status = child.wait().ok()?;
    (read.is_ok() && answered && status.success()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, ThisMachine) {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |file: &str, text: &str| fs::write(folder.path().join(file), text).expect("a file");
        put("passwd", "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:100:Ann,,,:/home/ann:/bin/sh\n");
        put("group", "root:x:0:\nusers:x:100:\naudio:x:29:bob,ann\nvideo:x:44:joann\nwheel:x:10:ann\n");
        let machine = ThisMachine { state: folder.path().to_owned(), etc: folder.path().to_owned() };
        (folder, machine)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let (_folder, machine) = machine();
        let ann = Account { name: "ann".into(), uid: 1000, gid: 100, groups: vec![29, 10], home: "/home/ann".into() };
        assert_eq!(machine.account("ann"), Ok(Some(ann.clone())));
        assert_eq!(machine.account("1000"), Ok(Some(ann)));
        assert_eq!(machine.account("nobody-of-that-name"), Ok(None));
        assert_eq!(machine.group("audio"), Ok(Some(29)));
        assert_eq!(machine.group("4711"), Ok(Some(4711)));
        assert_eq!(machine.group("no-group-of-that-name"), Ok(None));
    }

    #[test]
    fn powers_are_those_of_this_process() {
        let (_folder, machine) = machine();
        let powers = machine.powers();
        assert_eq!(powers.uid, rustix::process::geteuid().as_raw());
        assert_eq!(powers.hard.len(), Rlimit::ALL.len());
    }
}
