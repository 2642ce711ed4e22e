//! Who listens where: sockets from the kernel's table, their processes from procfs.
//!
//! A look has two halves. Reading the socket table is cheap. Finding the process behind a socket means reading every
//! open file of every process, so an answer is remembered by the socket's inode (a number that belongs to one socket as
//! long as it lives) and later only checked: one `readlink` per listener. A new listener is looked for in the processes that
//! probably hold it. All processes are read only for what is then still unclaimed and matters.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::process::{Pid, getpgid};

use crate::ports::PortError;
use crate::ports::sockets::{Holder, Listeners, Listening, Sockets, Sought};

mod table;

/// Longest part of a command line that is shown: enough to recognise a program, and one line on a terminal.
const COMMAND_SHOWN: usize = 200;

/// A process that probably holds a socket either does at the first look, or is found when it matters.
const GUESSES: u8 = 1;

/// How often a socket is searched for whose process may not be looked at (another user's). A second search covers a process
/// that handed the socket on during the first.
const SEARCHES: u8 = 2;

/// Room for directory entries of `/proc/PID/fd`; one system call then reads about 300 of them.
const ENTRIES_BUFFER: usize = 8 << 10;

/// Listening sockets through procfs. Remembers between looks which process held which socket.
#[derive(Default)]
pub struct ProcSockets {
    memory: RefCell<Memory>,
}

#[derive(Default)]
struct Memory {
    /// By inode of the socket.
    found: BTreeMap<u64, Found>,
    /// User names by user id, as /etc/passwd had them at the first question.
    users: Option<BTreeMap<u32, String>>,
}

/// What is known of one socket.
#[derive(Default)]
struct Found {
    holders: Vec<Held>,
    /// How often it was searched for in the processes that probably hold it.
    guesses: u8,
    /// How often in all of them.
    searches: u8,
}

/// One descriptor of one process that is the socket.
struct Held {
    pid: u32,
    /// `/proc/PID/fd/N`.
    link: String,
    command: Option<String>,
}

impl ProcSockets {
    pub fn new() -> Self {
        Self::default()
    }
}

impl Sockets for ProcSockets {
    fn table(&self) -> Result<Vec<Listening>, PortError> {
        let failed = |error| PortError::Retry(format!("the table of listening sockets cannot be read: {error}"));
        table::read().map_err(failed)
    }

    fn holders(&self, table: &[Listening], sought: &Sought) -> Listeners {
        let mut memory = self.memory.borrow_mut();
        memory.refresh(table, sought);
        memory.answer(table, sought)
    }
}

impl Found {
    /// Passes over processes that inherited the socket from another holder: workers of one server, and children that are just
    /// about to run something else. Whoever opened it is who listens, whatever groups its children are in.
    fn name_the_first_holder(&mut self, inode: u64) {
        if self.holders.len() < 2 {
            return;
        }
        self.holders.retain(|held| socket_inode(&held.link) == Some(inode));
        let all: BTreeSet<u32> = self.holders.iter().map(|held| held.pid).collect();
        self.holders.retain(|held| parent_of(held.pid).is_none_or(|parent| !all.contains(&parent)));
    }
}

impl Memory {
    /// Brings what is known up to date with the table, with a search only if there is something new in it.
    fn refresh(&mut self, table: &[Listening], sought: &Sought) {
        let inodes: BTreeSet<u64> = table.iter().map(|row| row.inode).filter(|inode| *inode != 0).collect();
        self.found.retain(|inode, _| inodes.contains(inode));
        for inode in &inodes {
            let found = self.found.entry(*inode).or_default();
            let before = found.holders.len();
            found.holders.retain(|held| socket_inode(&held.link) == Some(*inode));
            if before > found.holders.len() {
                (found.guesses, found.searches) = (0, 0);
            }
        }
        let guessed = self.unclaimed(inodes.iter().copied(), GUESSES, |found| &mut found.guesses);
        self.find(&guessed, sought.units.iter().chain(&sought.keepers).copied());
        let matters = |row: &&Listening| row.inode != 0 && (sought.all || sought.ports.contains(&row.port));
        let missing =
            self.unclaimed(table.iter().filter(matters).map(|row| row.inode), SEARCHES, |found| &mut found.searches);
        self.find(&missing, processes());
    }

    /// Those without a known process that were not searched for too often yet; this time is counted.
    fn unclaimed(
        &mut self,
        of: impl Iterator<Item = u64>,
        at_most: u8,
        count: impl Fn(&mut Found) -> &mut u8,
    ) -> BTreeSet<u64> {
        let mut wanted = BTreeSet::new();
        for inode in of {
            let found = self.found.entry(inode).or_default();
            if found.holders.is_empty() && *count(found) < at_most && wanted.insert(inode) {
                *count(found) += 1;
            }
        }
        wanted
    }

    fn find(&mut self, wanted: &BTreeSet<u64>, among: impl Iterator<Item = u32>) {
        if wanted.is_empty() {
            return;
        }
        search(wanted, among, |inode, pid, link| {
            let held = Held { pid, link, command: None };
            self.found.entry(inode).or_default().holders.push(held);
        });
        for inode in wanted {
            self.found.entry(*inode).and_modify(|found| found.name_the_first_holder(*inode));
        }
    }

    fn answer(&mut self, table: &[Listening], sought: &Sought) -> Listeners {
        let users = self.users.get_or_insert_with(read_users);
        let mut answer = Listeners::default();
        for row in table {
            let user = Some(users.get(&row.user).cloned().unwrap_or_else(|| row.user.to_string()));
            let known = self.found.get_mut(&row.inode).map(|f| f.holders.as_mut_slice()).unwrap_or_default();
            let holders = answer.by_port.entry(row.port).or_default();
            if known.is_empty() {
                holders.push(Holder { pid: None, user, command: None });
                continue;
            }
            for held in known {
                if holders.iter().any(|holder| holder.pid == Some(held.pid)) {
                    continue;
                }
                // Whoever asks knows these by name.
                if held.command.is_none() && !sought.units.contains(&held.pid) {
                    held.command = command_line(held.pid);
                }
                if let Some(group) = group_of(held.pid) {
                    answer.groups.insert(held.pid, group);
                }
                holders.push(Holder { pid: Some(held.pid), user: user.clone(), command: held.command.clone() });
            }
        }
        answer
    }
}

/// Goes once through the open files of these processes and calls `hit` with inode, process and link for each wanted socket.
/// Processes that end meanwhile, or may not be looked at, are passed over.
fn search(wanted: &BTreeSet<u64>, among: impl Iterator<Item = u32>, mut hit: impl FnMut(u64, u32, String)) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut buffer = Vec::with_capacity(ENTRIES_BUFFER);
    let mut link = [MaybeUninit::uninit(); LINK_BUFFER];
    for pid in among {
        let folder = format!("/proc/{pid}/fd");
        let Ok(folder_fd) = openat(CWD, &folder, flags, Mode::empty()) else { continue };
        let mut entries = RawDir::new(&folder_fd, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            let Ok((target, _)) = readlinkat_raw(&folder_fd, name, &mut link) else { continue };
            if let Some(inode) = parse_socket(target).filter(|inode| wanted.contains(inode)) {
                hit(inode, pid, format!("{folder}/{}", name.to_string_lossy()));
            }
        }
    }
}

/// The ids of all processes that can be seen.
fn processes() -> impl Iterator<Item = u32> {
    let folder = std::fs::read_dir("/proc").into_iter().flatten();
    folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// `socket:[` , an inode of at most 20 digits, `]`.
const LINK_BUFFER: usize = 32;

fn parse_socket(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn socket_inode(link: &str) -> Option<u64> {
    let mut buffer = [MaybeUninit::uninit(); LINK_BUFFER];
    let (target, _) = readlinkat_raw(CWD, link, &mut buffer).ok()?;
    parse_socket(target)
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = procfs::process::Process::new(i32::try_from(pid).ok()?).and_then(|process| process.stat()).ok()?;
    u32::try_from(stat.ppid).ok()
}

fn group_of(pid: u32) -> Option<u32> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    getpgid(Some(pid)).ok().map(|group| group.as_raw_nonzero().get().unsigned_abs())
}

/// The command line on one line, cut, and without control characters (it is shown on terminals).
fn command_line(pid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    // A character takes at most four bytes.
    let most = 4 * COMMAND_SHOWN as u64;
    File::open(format!("/proc/{pid}/cmdline")).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let plain = text.trim_end_matches('\0').chars().map(|c| if c.is_control() { ' ' } else { c });
    let shown: String = plain.take(COMMAND_SHOWN).collect();
    (!shown.is_empty()).then_some(shown)
}

/// User names of the machine's own users. Others (LDAP and the like) are shown by number.
fn read_users() -> BTreeMap<u32, String> {
    let text =
        std::fs::read("/etc/passwd").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(user).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn port_of(listener: &TcpListener) -> u16 {
        listener.local_addr().expect("a bound listener has an address").port()
    }

    /// A look that finds whatever can be found.
    fn look(sockets: &ProcSockets) -> Listeners {
        let everything = Sought { all: true, ..Sought::default() };
        sockets.holders(&sockets.table().expect("a table"), &everything)
    }

    /// A process in a group of its own that holds the listener as its standard input.
    fn handed_on(listener: TcpListener) -> Child {
        let mut command = Command::new("sleep");
        command.arg("60").stdin(Stdio::from(OwnedFd::from(listener))).process_group(0);
        command.spawn().expect("sleep exists everywhere")
    }

    #[test]
    fn an_own_listener_is_seen_with_its_process() {
        let sockets = ProcSockets::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let port = port_of(&listener);
        for turn in ["searched", "remembered"] {
            let seen = look(&sockets);
            let holders = &seen.by_port[&port];
            assert_eq!(holders.len(), 1, "{turn}");
            assert_eq!(holders[0].pid, Some(std::process::id()));
            let own = std::env::args().next().expect("a test has a name");
            assert!(holders[0].command.as_deref().is_some_and(|c| own.starts_with(&c[..c.len().min(own.len())])));
            assert!(holders[0].user.is_some());
            let group = seen.groups[&std::process::id()];
            assert!(seen.of_group(group).contains(&port));
            assert_eq!(seen.foreign(port, Some(group)), None);
            assert!(seen.foreign(port, None).is_some());
        }
        drop(listener);
        assert!(!look(&sockets).by_port.contains_key(&port));
    }

    #[test]
    fn a_child_in_another_group_holds_what_was_handed_to_it() {
        let sockets = ProcSockets::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let port = port_of(&listener);
        let ours = look(&sockets).by_port[&port].clone();
        assert_eq!(ours[0].pid, Some(std::process::id()));
        let kept = listener.try_clone().expect("a second descriptor");
        let mut child = handed_on(listener);
        // As long as both hold it, the one who opened it is named, by those who look for the first time as well.
        for sockets in [&sockets, &ProcSockets::new()] {
            assert_eq!(look(sockets).by_port[&port], ours);
        }
        drop(kept);
        // The holder that was remembered has let go of the socket, so it is searched for again.
        let seen = look(&sockets);
        assert_eq!(seen.of_group(child.id()), [port]);
        let own_group = group_of(std::process::id());
        let holder = seen.foreign(port, own_group).expect("the child is not of our group");
        assert_eq!((holder.pid, holder.command.as_deref()), (Some(child.id()), Some("sleep 60")));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert!(!look(&sockets).by_port.contains_key(&port));
    }

    #[test]
    fn ipv6_and_ipv4_on_one_port_are_one_holder() {
        let six = TcpListener::bind("[::1]:0").expect("IPv6 loopback");
        let port = port_of(&six);
        // Somebody else may have the same port on IPv4; then there is nothing to test.
        let Ok(_four) = TcpListener::bind(("127.0.0.1", port)) else { return };
        let seen = look(&ProcSockets::new());
        assert_eq!(seen.by_port[&port].len(), 1);
    }

    #[test]
    fn connections_are_no_listeners() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let port = port_of(&listener);
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let (_server, _) = listener.accept().expect("it was connected to");
        drop(listener);
        let seen = look(&ProcSockets::new());
        let own = client.local_addr().expect("connected").port();
        assert!(!seen.by_port.contains_key(&port) && !seen.by_port.contains_key(&own));
    }

    #[test]
    fn a_socket_whose_process_is_hidden_is_searched_for_only_so_often() {
        let mut memory = Memory::default();
        // No process holds a socket with this number.
        let table = [Listening { port: 9, user: 4_000_000, inode: u64::MAX }];
        for _ in 0..5 {
            memory.refresh(&table, &Sought { all: true, ..Sought::default() });
        }
        assert_eq!(memory.found[&u64::MAX].searches, SEARCHES);
        let seen = memory.answer(&table, &Sought::default());
        assert_eq!(seen.by_port[&9], [Holder { pid: None, user: Some("4000000".to_owned()), command: None }]);
    }

    #[test]
    fn only_what_matters_is_searched_for_everywhere() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let (port, own) = (port_of(&listener), std::process::id());
        let pid_for = |sought: &Sought| {
            let sockets = ProcSockets::new();
            sockets.holders(&sockets.table().expect("a table"), sought).by_port[&port][0].pid
        };
        assert_eq!(pid_for(&Sought::default()), None);
        assert_eq!(pid_for(&Sought { ports: BTreeSet::from([port]), ..Sought::default() }), Some(own));
        assert_eq!(pid_for(&Sought { units: BTreeSet::from([own]), ..Sought::default() }), Some(own));
        // What was of no interest at first is found when it is.
        let sockets = ProcSockets::new();
        let table = sockets.table().expect("a table");
        for _ in 0..5 {
            sockets.holders(&table, &Sought::default());
        }
        let sought = Sought { ports: BTreeSet::from([port]), ..Sought::default() };
        let holder = &sockets.holders(&table, &sought).by_port[&port][0];
        assert!(holder.pid == Some(own) && holder.command.is_some() && holder.user.is_some());
    }
}
