//! What the keeper holds of a unit beside its process group: its cgroup, and word of how becoming its program went.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::becoming::Message;
use super::cgroup::{Leaf, Rooms};
use super::find;
use super::spawn::Way;
use crate::model::id::Name;
use crate::ports::keeper::{Ceilings, Exit, Launch};

/// What a successor needs to know of it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WrittenHold {
    cgroup: Option<PathBuf>,
    oom_kills: u64,
    never: Option<String>,
}

/// It.
#[derive(Default)]
pub(super) struct Hold {
    leaf: Option<Leaf>,
    /// How often the kernel had killed in it for lack of memory when its process was started.
    oom_kills: u64,
    way: Option<Way>,
    /// Why its process never became its program.
    never: Option<String>,
}

impl Hold {
    /// What an earlier keeper had, or an earlier program of this one.
    pub(super) fn again(leaf: Option<Leaf>) -> Self {
        Self { oom_kills: leaf.as_ref().and_then(Leaf::oom_kills).unwrap_or(0), leaf, ..Self::default() }
    }

    /// The same, without a moment in between.
    pub(super) fn taken_over(written: WrittenHold, way: Option<OwnedFd>) -> Self {
        let WrittenHold { cgroup, oom_kills, never } = written;
        let leaf = cgroup.as_deref().and_then(Leaf::at);
        Self { leaf, oom_kills, never, way: way.map(Way::taken_over) }
    }

    /// What its successor needs.
    pub(super) fn written(&self) -> WrittenHold {
        let cgroup = self.leaf.as_ref().map(|leaf| leaf.path().to_owned());
        WrittenHold { cgroup, oom_kills: self.oom_kills, never: self.never.clone() }
    }

    pub(super) fn leaf(&self) -> Option<&Leaf> {
        self.leaf.as_ref()
    }

    /// The socket on which word of the program comes.
    pub(super) fn way(&self) -> Option<BorrowedFd<'_>> {
        self.way.as_ref().map(|way| way.fd())
    }

    /// Gets everything ready for a start. The answer is what the program takes on first, if there is anything.
    pub(super) fn prepare(
        &mut self,
        rooms: Result<&Rooms, &String>,
        unit: &Name,
        launch: &Launch,
        ceilings: &Ceilings,
    ) -> Result<Option<Message>, String> {
        if let Some(old) = self.leaf.take().filter(|_| ceilings.is_none()) {
            old.remove();
        }
        self.leaf = match rooms {
            // The move of a process from one cgroup to another takes some milliseconds.
            _ if ceilings.is_none() => None,
            Ok(rooms) => Some(rooms.make(unit, ceilings)?),
            Err(why) => return Err(format!("it cannot be given a cgroup: {why}")),
        };
        self.oom_kills = self.leaf.as_ref().and_then(Leaf::oom_kills).unwrap_or(0);
        let plain = launch.confinement.is_none() && ceilings.is_none() && launch.listen.is_none();
        Ok((!plain).then(|| Message {
            dir: launch.dir.clone(),
            cgroup: self.leaf.as_ref().map(|leaf| leaf.path().to_owned()),
            confinement: launch.confinement.clone(),
            sockets: u32::from(launch.listen.is_some()),
        }))
    }

    /// A process was started.
    pub(super) fn started(&mut self, way: Option<Way>) {
        self.never = None;
        self.way = way;
    }

    /// Something came on the way. Hung up without a word: it is its program now. Otherwise its end follows.
    pub(super) fn heard(&mut self) {
        if let Some(way) = self.way.take() {
            self.never = way.reason();
        }
    }

    /// How its process ended, with all that is known of it.
    pub(super) fn ended(&mut self, exit: Exit, ceilings: &Ceilings) -> Exit {
        self.heard();
        if let Some(why) = self.never.take() {
            return Exit::NotSpawned(why);
        }
        let kills = self.leaf.as_ref().and_then(Leaf::oom_kills).unwrap_or(0);
        match exit {
            Exit::Signal(9) | Exit::Unknown if kills > self.oom_kills => Exit::OutOfMemory { limit: ceilings.memory },
            exit => exit,
        }
    }

    /// Sets what a running unit may use. One that was started without a cgroup is put into one, with its process group.
    pub(super) fn bound(
        &mut self,
        rooms: Result<&Rooms, &String>,
        unit: &Name,
        (group, session): (u32, u32),
        ceilings: &Ceilings,
    ) -> Result<(), String> {
        let rooms = rooms.map_err(|why| format!("it cannot be given a cgroup: {why}"))?;
        if let Some(leaf) = &self.leaf {
            rooms.set(leaf, ceilings)?;
            // Counted from here if nobody counted before.
            self.oom_kills = self.oom_kills.max(leaf.oom_kills().unwrap_or(0));
            return Ok(());
        }
        if ceilings.is_none() {
            return Ok(());
        }
        let leaf = rooms.make(unit, ceilings)?;
        let ours = |stat: &find::Stat| stat.group == group && stat.session == session && stat.alive();
        let members = find::all().into_iter().filter(|(_, stat)| ours(stat));
        members.for_each(|(pid, _)| drop(leaf.join(pid)));
        *self = Self { way: self.way.take(), never: self.never.take(), ..Self::again(Some(leaf)) };
        Ok(())
    }

    /// Lets go of a cgroup that is empty.
    pub(super) fn tidy(&mut self) {
        if self.leaf.as_ref().is_some_and(Leaf::remove) {
            self.leaf = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::unit::Bytes;

    #[test]
    fn a_kill_for_lack_of_memory_is_told_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = |kills: u32| {
            fs::write(folder.path().join("memory.events"), format!("oom 9\noom_kill {kills}\n")).expect("written");
        };
        fs::write(folder.path().join("cgroup.events"), "populated 0\n").expect("written");
        events(2);
        let mut hold = Hold::again(Leaf::at(folder.path()));
        let ceilings = Ceilings { memory: Some(Bytes(512 << 20)), ..Ceilings::default() };
        assert_eq!(hold.ended(Exit::Signal(9), &ceilings), Exit::Signal(9), "those were before its start");
        events(3);
        let exit = hold.ended(Exit::Signal(9), &ceilings);
        assert_eq!(exit.to_string(), "killed for lack of memory (limit 512MiB)");
        assert_eq!(hold.ended(Exit::Code(1), &ceilings), Exit::Code(1), "it ended by itself");
    }
}
