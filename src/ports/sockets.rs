//! Who listens where, from the kernel's own tables.

use std::collections::{BTreeMap, BTreeSet};

use super::PortError;

/// The process behind a listening socket, as far as it may be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    pub pid: Option<u32>,
    pub user: Option<String>,
    pub command: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("a process that may not be looked at")?,
        }
        if let Some(user) = &self.user {
            write!(f, " of user {user}")?;
        }
        if let Some(command) = &self.command {
            write!(f, ": {command}")?;
        }
        Ok(())
    }
}

/// All TCP listeners at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Port to the processes that listen on it (any address, IPv4 and IPv6).
    pub by_port: BTreeMap<u16, Vec<Holder>>,
    /// Process id to its process group, for every holder with a pid.
    pub groups: BTreeMap<u32, u32>,
}

impl Listeners {
    /// The ports on which processes of this group listen, ascending.
    pub fn of_group(&self, group: u32) -> Vec<u16> {
        let ours = |h: &Holder| h.pid.is_some_and(|pid| self.groups.get(&pid) == Some(&group));
        self.by_port.iter().filter(|(_, holders)| holders.iter().any(ours)).map(|(port, _)| *port).collect()
    }

    /// Who holds a port and is not of this group.
    pub fn foreign(&self, port: u16, group: Option<u32>) -> Option<&Holder> {
        let ours = |h: &Holder| h.pid.is_some_and(|pid| group.is_some() && self.groups.get(&pid).copied() == group);
        self.by_port.get(&port)?.iter().find(|h| !ours(h))
    }
}

/// One listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    pub port: u16,
    /// User id of the socket's owner.
    pub user: u32,
    /// The number of the socket; it belongs to no other one as long as it lives.
    pub inode: u64,
}

/// Whose sockets are looked for, and how hard. Finding the process behind a socket means reading the open files of processes, and
/// there may be thousands of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// The processes of units. They probably hold what listens, so they are looked at first, and mostly alone. Whoever asks knows
    /// them by name, so their commands are not read.
    pub units: BTreeSet<u32>,
    /// Others that may hold it for a unit.
    pub keepers: BTreeSet<u32>,
    /// Ports that matter: whoever listens there is found if it can be.
    pub ports: BTreeSet<u16>,
    /// Every port matters.
    pub all: bool,
}

/// Looking only.
pub trait Sockets {
    /// The listening sockets of this moment, from the kernel's table.
    fn table(&self) -> Result<Vec<Listening>, PortError>;
    /// The processes behind them. Those on a port that does not matter may stay unnamed.
    fn holders(&self, table: &[Listening], sought: &Sought) -> Listeners;
}
