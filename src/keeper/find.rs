//! Reading `/proc`: who lives, since when, with which mark, in which process group.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};

/// The environment variable that marks a unit's processes: `<state id>/<unit>/<launch digest>`.
pub const MARK: &str = "TRUEUP_MARK";
/// 52 numbers of at most 20 digits, and a name of at most 64 bytes (proc(5)): read in one call, so that it is of one moment.
const MAX_STAT: usize = 2 << 10;
/// The kernel allows no more environment than this for one program (6 MiB is three quarters of the largest stack limit used for
/// arguments); a longer one is not looked at further.
const MAX_ENVIRON: u64 = 6 << 20;
/// An exec is over in some microseconds, on a machine at its limits in some milliseconds. Looked at are only leaders of groups
/// that a keeper finds when it starts, and hardly one of them has an empty environment for good: that costs 100 ms once.
const EMPTY_TRIES: usize = 100;

/// A line of `/proc/PID/stat`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `Z` and `X` are dead.
    pub state: u8,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    pub fn alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// One process, or `None` when there is none with this pid.
pub fn stat(pid: u32) -> Option<Stat> {
    let mut bytes = [0; MAX_STAT];
    let length = fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut bytes).ok()?;
    parse(&bytes[..length])
}

/// The program's name stands in parentheses and may hold anything, even parentheses: the fields begin after the last one.
fn parse(bytes: &[u8]) -> Option<Stat> {
    let after = bytes.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(&bytes[after..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    // Field 22 of the line; the four above are 3 to 6.
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, parent, group, session, start_ticks })
}

/// What could be found out of a process. An error of ours (no descriptor is left) is nobody's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Lives,
    Gone,
    Unknown,
}

/// Whether this very process lives, as far as that can be seen.
pub fn life(pid: u32, start_ticks: u64) -> Life {
    let mut bytes = [0; MAX_STAT];
    let read = fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut bytes));
    match read {
        Ok(length) => match parse(&bytes[..length]) {
            Some(stat) if stat.start_ticks == start_ticks && stat.alive() => Life::Lives,
            _ => Life::Gone,
        },
        // ESRCH: it went between the two calls.
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound || cause.raw_os_error() == Some(3) => Life::Gone,
        Err(_) => Life::Unknown,
    }
}

/// Whether this very process lives: its pid was not given to another one.
pub fn lives(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_some_and(|s| s.start_ticks == start_ticks && s.alive())
}

/// A hold on this very process, or nothing if it is gone.
pub fn pidfd(pid: u32, start_ticks: u64) -> Option<OwnedFd> {
    let fd = rustix::process::pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
    // Looked at after it was opened: what is open is then this process and no later one with the same number.
    lives(pid, start_ticks).then_some(fd)
}

/// The user a process runs as.
pub fn user(pid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid())
}

/// Every process, by pid.
pub fn all() -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Whether anything still has this process group number, alive or dead: one system call.
pub fn numbered(group: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(group.cast_signed());
    pid.is_some_and(|pid| rustix::process::test_kill_process_group(pid) != Err(rustix::io::Errno::SRCH))
}

/// One look at all processes, for many questions of one moment. Whoever had no living member then has none later: members are
/// born of members. Whoever had one may be gone; that is seen at the next look.
#[derive(Debug, Default)]
pub struct Census(Option<BTreeMap<u32, Stat>>);

impl Census {
    /// Whether a living process is in this process group of this session. Asked when the leader is gone: both numbers together
    /// tell our group from a stranger's that got the same number.
    pub fn group_lives(&mut self, group: u32, session: u32) -> bool {
        if !numbered(group) {
            return false;
        }
        let all = self.0.get_or_insert_with(all);
        all.values().any(|s| s.group == group && s.session == session && s.alive())
    }
}

/// As [`Census::group_lives`], with a look of its own.
pub fn group_lives(group: u32, session: u32) -> bool {
    Census::default().group_lives(group, session)
}

/// The mark in a process's environment, if it may be read and has one.
pub fn mark(pid: u32) -> Option<String> {
    let bytes = (0..EMPTY_TRIES).find_map(|_| match environ(pid) {
        // In the middle of an exec the environment is empty for a moment.
        Some(bytes) if bytes.is_empty() => {
            pause();
            None
        }
        other => Some(other),
    })??;
    let value = bytes.split(|b| *b == 0).find_map(|v| v.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when an exec is over")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// The first call takes all that is usual in one piece: between two of them the process may exec, and the rest would be missing.
fn environ(pid: u32) -> Option<Vec<u8>> {
    let mut file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut bytes = vec![0; 256 << 10];
    let length = file.read(&mut bytes).ok()?;
    bytes.truncate(length);
    if length == bytes.capacity() {
        file.take(MAX_ENVIRON).read_to_end(&mut bytes).ok()?;
    }
    Some(bytes)
}

/// This boot of this machine. Start ticks mean nothing in another one.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let line = b"42 (a) b) (c) S 7 42 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2 3\n";
        let expected = Stat { state: b'S', parent: 7, group: 42, session: 9, start_ticks: 123_456 };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b"42 (x) S 1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_very_process_lives() {
        let me = std::process::id();
        let stat = stat(me).expect("this process");
        assert!(lives(me, stat.start_ticks));
        assert!(!lives(me, stat.start_ticks + 1));
        assert!(all().contains_key(&me));
    }
}
