//! The ports, on the pretend earth and under fate.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::{Map, Value};

use super::earth::{Earth, Page};
use super::fate::{Fate, Lot};
use crate::engine::{Bell, Rang};
use crate::keeper::table::Event as TableEvent;
use crate::model::condition::Condition;
use crate::model::digest::Digest;
use crate::model::event::Event;
use crate::model::id::{Name, ResourceId, StepId};
use crate::model::overriding::Override;
use crate::model::problem::{Code, Problem};
use crate::model::secret::Secret;
use crate::model::source::SourceFile;
use crate::model::span::Span;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::clock::{Clock, Dice};
use crate::ports::files::{FileError, Files, Program, Scan};
use crate::ports::hub::{self, Hub, Wish};
use crate::ports::keeper::{Keeper, Launch, Policy, Unit};
use crate::ports::machine::{Account, Machine, Powers};
use crate::ports::probes::{Ask, Probe, Probes, Role, Verdict};
use crate::ports::registry::{Registry, Row};
use crate::ports::secrets::Secrets;
use crate::ports::sockets::{Holder, Listeners, Listening, Sockets, Sought};
use crate::ports::store::{Begin, EventQuery, Finish, JournalLine, Owned, Store, StoreError};
use crate::ports::world::Place;
use crate::ports::{Answer, PortError, World};

/// Where the pretend tree stands.
const ROOT: &str = "/tree";

/// All ports at once.
pub(super) struct Pretend {
    pub(super) earth: Rc<RefCell<Earth>>,
    pub(super) fate: Rc<Fate>,
    store: Rc<dyn Store>,
}

/// The world on this earth, under this fate, with this ledger.
pub fn pretend(earth: &Rc<RefCell<Earth>>, fate: &Rc<Fate>, store: Rc<dyn Store>) -> (World, Rc<dyn Bell>) {
    let all = Rc::new(Pretend { earth: earth.clone(), fate: fate.clone(), store });
    let place = Place { state: PathBuf::from("/state"), path: "/bin".to_owned(), inherited: Vec::new() };
    let world = World {
        place,
        clock: all.clone(),
        dice: all.clone(),
        files: all.clone(),
        keeper: all.clone(),
        machine: all.clone(),
        sockets: all.clone(),
        registry: all.clone(),
        secrets: all.clone(),
        probes: all.clone(),
        store: all.clone(),
        storage: all.clone(),
        hub: all.clone(),
        peers: all.clone(),
        bearers: all.clone(),
        deliveries: all.clone(),
    };
    (world, all)
}

/// Runs a future whose waits are all on the pretend world, which answers at once.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("a pretend future waits for something real");
}

fn ready<'a, T: 'a>(value: T) -> Answer<'a, T> {
    let boxed: Pin<Box<dyn Future<Output = T> + 'a>> = Box::pin(std::future::ready(value));
    boxed
}

impl Clock for Pretend {
    fn now(&self) -> Tick {
        self.earth.borrow().now
    }
    fn wall(&self) -> Timestamp {
        self.earth.borrow().wall()
    }
}

impl Dice for Pretend {
    fn roll(&self) -> u64 {
        self.earth.borrow_mut().roll()
    }
}

impl Bell for Pretend {
    fn wait(&self, at_most: Millis) -> Answer<'_, Rang> {
        if self.fate.dead() {
            return ready(Rang::Cancelled);
        }
        let event = self.earth.borrow_mut().advance(at_most);
        ready(if event { Rang::Woken } else { Rang::Time })
    }
}

impl Hub for Pretend {
    fn tell(&self, wish: Wish) {
        if !self.fate.dead() {
            let earth = &mut *self.earth.borrow_mut();
            earth.queue.step(Some(&wish));
            earth.town.wish = Some(wish);
        }
    }
    fn standing(&self) -> hub::Standing {
        hub::Standing::Idle
    }
    fn settle(&self, _: Vec<Name>) -> Answer<'_, ()> {
        ready(())
    }
}

impl Files for Pretend {
    fn scan(&self) -> Scan {
        let earth = self.earth.borrow();
        let mut scan = Scan {
            root: Arc::from("tree"),
            files: Vec::new(),
            problems: Vec::new(),
            skipped: Vec::new(),
            busy: earth.git_busy.then(|| "git merge".to_owned()),
        };
        let failed = self.fate.deal("files.scan") != Lot::Go;
        let unreadable =
            |name: &str, why: &str| Problem::error(Code::Unreadable, Span::file_start(Arc::from(name)), why.to_owned());
        let Some(tree) = earth.tree.as_ref().filter(|_| !failed) else {
            let problem = Problem::error(Code::NotATree, Span::file_start(Arc::from("tree")), "the folder is missing");
            scan.problems.push(problem);
            return scan;
        };
        for (name, page) in tree {
            match page {
                Page::Unreadable => scan.problems.push(unreadable(name, "it cannot be read")),
                Page::Text(text) => scan.files.push(SourceFile {
                    shown: Arc::from(name.as_str()),
                    path: Path::new(ROOT).join(name),
                    text: Arc::from(text.as_str()),
                }),
            }
        }
        scan
    }
    fn read(&self, path: &Path) -> Result<Arc<str>, FileError> {
        if self.fate.deal("files.read") != Lot::Go {
            return Err(FileError::Unreadable("fate".to_owned()));
        }
        self.earth.borrow().other_files.get(path).map(|t| Arc::from(t.as_str())).ok_or(FileError::Missing)
    }
    fn fingerprint(&self, path: &Path) -> Result<Digest, FileError> {
        self.read(path).map(|text| Digest::of(text.as_bytes()))
    }
    fn is_dir(&self, _: &Path) -> bool {
        true
    }
    fn program(&self, word: &str, _: &Path, _: &str) -> Program {
        match word {
            "missing" => Program::NotFound,
            word => Program::At(PathBuf::from("/bin").join(word)),
        }
    }
}

impl Machine for Pretend {
    fn account(&self, user: &str) -> Result<Option<Account>, String> {
        if self.fate.deal("machine.account") != Lot::Go {
            return Err("fate".to_owned());
        }
        let uid = self.earth.borrow().users.get(user).copied();
        Ok(uid.map(|uid| Account {
            name: user.to_owned(),
            uid,
            gid: uid,
            groups: Vec::new(),
            home: format!("/home/{user}"),
        }))
    }
    fn group(&self, group: &str) -> Result<Option<u32>, String> {
        if self.fate.deal("machine.group") != Lot::Go {
            return Err("fate".to_owned());
        }
        Ok(self.earth.borrow().users.get(group).copied())
    }
    fn powers(&self) -> Powers {
        let controllers = match self.fate.deal("machine.powers") {
            Lot::Go => Ok(["cpu", "memory", "pids"].map(str::to_owned).to_vec()),
            _ => Err("fate".to_owned()),
        };
        Powers { uid: 0, gid: 0, controllers, hard: BTreeMap::new() }
    }
}

impl Keeper for Pretend {
    fn list(&self) -> Answer<'_, Result<Vec<Unit>, PortError>> {
        ready(self.fate.effect("keeper.list", || Ok(self.earth.borrow_mut().units())))
    }
    fn ensure<'a>(
        &'a self,
        name: &'a Name,
        launch: &'a Launch,
        policy: &'a Policy,
        again: bool,
    ) -> Answer<'a, Result<Unit, PortError>> {
        ready(self.fate.effect("keeper.ensure", || Ok(self.earth.borrow_mut().ensure(name, launch, policy, again))))
    }
    fn stop<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>> {
        ready(self.fate.effect("keeper.stop", || {
            self.earth.borrow_mut().event(name, TableEvent::Stop);
            Ok(())
        }))
    }
    fn ready<'a>(&'a self, name: &'a Name, pid: u32) -> Answer<'a, Result<(), PortError>> {
        ready(self.fate.effect("keeper.ready", || {
            self.earth.borrow_mut().event(name, TableEvent::Ready { pid });
            Ok(())
        }))
    }
    fn unwell<'a>(&'a self, name: &'a Name, pid: u32, why: &'a str) -> Answer<'a, Result<(), PortError>> {
        ready(self.fate.effect("keeper.unwell", || {
            self.earth.borrow_mut().event(name, TableEvent::Unwell { pid: Some(pid), why: why.to_owned() });
            Ok(())
        }))
    }
    fn signal<'a>(&'a self, name: &'a Name, pid: u32, _: i32) -> Answer<'a, Result<(), PortError>> {
        ready(self.fate.effect("keeper.signal", || {
            let mut earth = self.earth.borrow_mut();
            match earth.live(name).contains(&pid) {
                true => {
                    *earth.reloads.entry(name.clone()).or_default() += 1;
                    Ok(())
                }
                false => Err(PortError::Retry("it does not run".to_owned())),
            }
        }))
    }
    fn stop_strays<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>> {
        ready(self.fate.effect("keeper.stop_strays", || {
            let mut earth = self.earth.borrow_mut();
            let strays: Vec<u32> =
                earth.units().iter().filter(|u| u.name == *name).flat_map(|u| u.strays.clone()).collect();
            for pid in strays {
                earth.kill(pid);
            }
            Ok(())
        }))
    }
    fn forget<'a>(&'a self, name: &'a Name) -> Answer<'a, Result<(), PortError>> {
        ready(self.fate.effect("keeper.forget", || {
            let mut earth = self.earth.borrow_mut();
            if earth.live(name).is_empty() {
                earth.keeper().remove(name);
                Ok(())
            } else {
                Err(PortError::Never("it has a process".to_owned()))
            }
        }))
    }
}

impl Sockets for Pretend {
    /// A pretended socket is known by the process that opened it.
    fn table(&self) -> Result<Vec<Listening>, PortError> {
        self.fate.effect("sockets.table", || {
            let earth = self.earth.borrow();
            let up = earth.procs.iter().filter(|(_, p)| p.ready_at <= earth.now);
            Ok(up.filter_map(|(pid, p)| Some(Listening { port: p.port?, user: 0, inode: (*pid).into() })).collect())
        })
    }
    fn holders(&self, table: &[Listening], sought: &Sought) -> Listeners {
        let mut answer = Listeners::default();
        for row in table {
            let pid = u32::try_from(row.inode).expect("a pretended pid");
            let named = sought.all || sought.units.contains(&pid) || sought.ports.contains(&row.port);
            if named {
                answer.groups.insert(pid, pid);
            }
            let word = Some("sim".to_owned());
            let holder = Holder { pid: Some(pid).filter(|_| named), user: word.clone(), command: word };
            answer.by_port.entry(row.port).or_default().push(holder);
        }
        answer
    }
}

impl Registry for Pretend {
    fn rows(&self, _: &Path) -> Result<Vec<Row>, PortError> {
        self.fate.effect("registry.rows", || Ok(self.earth.borrow().rows.clone()))
    }
    fn put(
        &self,
        _: &Path,
        name: &str,
        fields: &Map<String, Value>,
        _: &Map<String, Value>,
    ) -> Result<bool, PortError> {
        self.fate.effect("registry.put", || Ok(self.earth.borrow_mut().put_row(name, fields)))
    }
    fn remove(&self, _: &Path, name: &str) -> Result<bool, PortError> {
        self.fate.effect("registry.remove", || {
            let mut earth = self.earth.borrow_mut();
            let before = earth.rows.len();
            earth.rows.retain(|r| r.name != name);
            Ok(earth.rows.len() != before)
        })
    }
}

impl Secrets for Pretend {
    fn variable(&self, name: &str) -> Option<Secret> {
        Some(Secret::new(format!("value of {name}")))
    }
    fn command<'a>(&'a self, _: &'a [String], _: &'a Path) -> Answer<'a, Result<Secret, String>> {
        ready(Ok(Secret::new("from a command".to_owned())))
    }
}

impl Probes for Pretend {
    fn watch(&self, _: &Name, pid: u32, _: Millis, probe: &Probe) -> Verdict {
        let earth = self.earth.borrow();
        if probe.role == Role::Liveness && earth.procs.get(&pid).is_some_and(|p| p.hangs(earth.now)) {
            return Verdict::Bad("no answer".to_owned());
        }
        let wanted = match &probe.ask {
            Ask::Http { port, .. } | Ask::Tcp { port } => Some(*port),
            Ask::Exec { .. } => None,
        };
        match earth.procs.get(&pid) {
            Some(p) if p.ready_at <= earth.now && (wanted.is_none() || p.port == wanted) => Verdict::Good,
            Some(_) => Verdict::Bad("connection refused".to_owned()),
            None => Verdict::Pending,
        }
    }
    fn exhausted(&self, name: &Name, role: Role) -> bool {
        self.earth.borrow().exhausted(name, role)
    }
    fn run<'a>(&'a self, ask: &'a Ask, _: Millis) -> Answer<'a, Result<(), String>> {
        let command = || match ask {
            Ask::Exec { argv, .. } => self.earth.borrow_mut().command(argv).map_err(PortError::Retry),
            _ => Ok(()),
        };
        ready(self.fate.effect("probes.run", command).map_err(|error| error.to_string()))
    }
    fn drop_probe(&self, _: &Name) {}
    fn settle(&self, _: Millis) -> Answer<'_, ()> {
        ready(())
    }
}

impl Pretend {
    fn stored<T>(&self, name: &'static str, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.fate.deal(name) {
            Lot::Go => call(),
            Lot::FailBefore | Lot::Dead => Err(StoreError("fate: it was not done".to_owned())),
            // A ledger that says it failed has not done it; only a death right after it leaves it done and unheard.
            Lot::FailAfter if self.fate.dead() => {
                let _ = call();
                Err(StoreError("fate: we died".to_owned()))
            }
            Lot::FailAfter => Err(StoreError("fate: disk full".to_owned())),
        }
    }
}

impl Store for Pretend {
    fn owned(&self) -> Result<BTreeMap<ResourceId, Owned>, StoreError> {
        self.stored("store.owned", || self.store.owned())
    }
    fn open_steps(&self) -> Result<Vec<JournalLine>, StoreError> {
        self.stored("store.open_steps", || self.store.open_steps())
    }
    fn begin(&self, steps: &[Begin]) -> Result<(), StoreError> {
        self.stored("store.begin", || self.store.begin(steps))
    }
    fn finish(&self, steps: &[Finish]) -> Result<(), StoreError> {
        self.stored("store.finish", || self.store.finish(steps))
    }
    fn close_open(&self, steps: &[StepId], at: Timestamp) -> Result<(), StoreError> {
        self.stored("store.close_open", || self.store.close_open(steps, at))
    }
    fn record(&self, events: &[Event]) -> Result<(), StoreError> {
        self.stored("store.record", || self.store.record(events))
    }
    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        self.store.events(query)
    }
    fn conditions(&self) -> Result<BTreeMap<ResourceId, Vec<Condition>>, StoreError> {
        self.stored("store.conditions", || self.store.conditions())
    }
    fn set_conditions(&self, all: &[(ResourceId, Vec<Condition>)], events: &[Event]) -> Result<(), StoreError> {
        self.stored("store.set_conditions", || self.store.set_conditions(all, events))
    }
    fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        self.stored("store.overrides", || self.store.overrides())
    }
    fn put_override(&self, over: &Override) -> Result<(), StoreError> {
        self.stored("store.put_override", || self.store.put_override(over))
    }
    fn drop_overrides(&self, of: &[ResourceId]) -> Result<(), StoreError> {
        self.stored("store.drop_overrides", || self.store.drop_overrides(of))
    }
    fn history(&self, id: &ResourceId, limit: usize) -> Result<Vec<JournalLine>, StoreError> {
        self.store.history(id, limit)
    }
    fn key(&self) -> Result<[u8; 32], StoreError> {
        self.stored("store.key", || self.store.key())
    }
    fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.stored("store.get", || self.store.get(name))
    }
    fn set(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.stored("store.set", || self.store.set(name, value))
    }
    fn trim(&self, journal: usize, events: usize) -> Result<(), StoreError> {
        self.store.trim(journal, events)
    }
}
