//! What this machine knows and can do: its users, its cgroups, our own rights. Asked before anything is started, so that what cannot
//! be is said with a place in the manifests.

use std::collections::BTreeMap;

use super::keeper::Rlimit;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The groups that name this user as a member.
    pub groups: Vec<u32>,
    pub home: String,
}

/// What we may do here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Powers {
    pub uid: u32,
    pub gid: u32,
    /// The cgroup controllers that units can be given, or why units have no cgroups at all.
    pub controllers: Result<Vec<String>, String>,
    /// Our own hard limits; `None` is unlimited.
    pub hard: BTreeMap<Rlimit, Option<u64>>,
}

/// Looking only.
pub trait Machine {
    /// A user by name or number; `None` when there is none. A number without an entry is nobody's.
    fn account(&self, user: &str) -> Result<Option<Account>, String>;
    /// The number of a group, by name or number; `None` when there is no such name.
    fn group(&self, group: &str) -> Result<Option<u32>, String>;
    /// What we may do. Asked anew each time: a keeper may have been started elsewhere meanwhile.
    fn powers(&self) -> Powers;
}
