//! Being woken when the tree changes. A wake-up carries no data and may come once too often; it says "look again". What is
//! missed for some reason costs time, not correctness: the engine looks at everything now and then anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Config, ErrorKind, Event, INotifyWatcher, RecursiveMode, Watcher as _};

use super::quiet::Quiet;
use super::targets::{Meaning, Targets};
use crate::adapters::clock::SystemClock;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::clock::Clock;

/// Between two looks where no events come: what a person waits for without wondering.
const POLL: Millis = Millis::secs(2);
/// Between two passes over all watches, while folders come and go.
const REARM_SPACING: Millis = Millis(10);
/// Between two full looks because the kernel dropped events. Our own reading makes events too: without a pause, one overflow
/// could lead to the next.
const OVERFLOW_SPACING: Millis = Millis::secs(2);

/// File systems whose changes may be made elsewhere, so that the kernel sees no events: NFS, SMB (three numbers), 9P, FUSE,
/// Ceph, AFS.
const REMOTE: [u32; 8] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x6573_5546, 0x00c3_6400, 0x5346_414f];

/// Watches the tree for as long as it lives.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

/// What the kernel's thread, the owner and our thread tell each other.
#[derive(Debug, Default)]
struct State {
    targets: Targets,
    also: BTreeSet<PathBuf>,
    stirred: bool,
    rearm: bool,
    overflow: bool,
    stop: bool,
    /// Watched folders that were removed or renamed: their watches may be gone, whatever has their names now.
    stale: BTreeSet<PathBuf>,
    /// Why the tree is polled.
    polling: Option<String>,
    /// Every event that came, noise included.
    events: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-changed while it is held, so the state of a thread that panicked is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called on the kernel's thread for every event; it must be quick, or the queue overflows.
    fn take_event(&self, event: Result<Event, notify::Error>) {
        let mut state = self.lock();
        state.events += 1;
        match event {
            Ok(event) if event.need_rescan() => state.overflow = true,
            Ok(event) => state.take(&event),
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => state.rearm = true,
            Err(_) => state.overflow = true,
        }
        if state.stirred || state.rearm || state.overflow {
            self.bell.notify_all();
        }
    }
}

impl State {
    fn take(&mut self, event: &Event) {
        let shape = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => false,
            // Opened or read: most likely by ourselves.
            EventKind::Access(_) => return,
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_) => true,
            EventKind::Any | EventKind::Other => true,
        };
        for path in &event.paths {
            let meaning = self.targets.meaning(path, shape);
            self.stirred |= meaning > Meaning::Nothing;
            self.rearm |= meaning == Meaning::Rearm;
            if shape && self.targets.folders.contains(path) {
                self.stale.insert(path.clone());
            }
        }
    }
}

impl Watcher {
    /// Starts to watch. Whatever changes after this call has returned leads to a call of `on_change`, on a thread of its own:
    /// 50 ms after the last change, at most 2 s after the first. It never fails: where the kernel cannot tell, it polls.
    pub fn start(root: &Path, on_change: impl Fn() + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let mut worker = Worker {
            root: root.to_owned(),
            shared: shared.clone(),
            notify: None,
            armed: BTreeMap::new(),
            quiet: Quiet::default(),
            rearm_at: None,
            rearmed: Tick(0),
            overflow_at: None,
            overflowed: Tick(0),
            poll_at: None,
            fingerprint: 0,
        };
        worker.rearm();
        let name = "trueup-watch".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run(&on_change));
        if let Err(error) = &thread {
            shared.lock().polling = Some(format!("changes are not watched: {error}"));
        }
        Self { shared, thread: thread.ok() }
    }

    /// Sets the paths outside the tree that matter as well (environment files, secrets, module folders): files by their
    /// name, folders with everything directly in them. They need not exist. A path that was not in the last list wakes once,
    /// because it may have changed before it was watched.
    pub fn also(&self, paths: &[PathBuf]) {
        let also: BTreeSet<PathBuf> = paths.iter().cloned().collect();
        let mut state = self.shared.lock();
        if state.also == also {
            return;
        }
        state.stirred |= !also.is_subset(&state.also);
        state.also = also;
        state.rearm = true;
        self.shared.bell.notify_all();
    }

    /// Why the tree is polled, if it is.
    pub fn polling(&self) -> Option<String> {
        self.shared.lock().polling.clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.bell.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // It ends at once; a panic in it was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Our thread: keeps the watches right and decides when to wake.
struct Worker {
    root: PathBuf,
    shared: Arc<Shared>,
    notify: Option<INotifyWatcher>,
    /// Watched folders and what they were when the watch was set: device and inode.
    armed: BTreeMap<PathBuf, (u64, u64)>,
    quiet: Quiet,
    rearm_at: Option<Tick>,
    rearmed: Tick,
    overflow_at: Option<Tick>,
    overflowed: Tick,
    poll_at: Option<Tick>,
    fingerprint: u64,
}

impl Worker {
    fn run(mut self, on_change: &dyn Fn()) {
        while self.wait() {
            let now = SystemClock.now();
            if self.overflow_at.is_some_and(|at| at <= now) {
                self.overflow_at = None;
                self.overflowed = now;
                self.armed.clear();
                self.notify = None;
                self.rearm_at = Some(now);
                self.quiet.stir(now);
            }
            if self.poll_at.is_some_and(|at| at <= now) {
                self.poll(now);
            }
            let wakes = self.quiet.take(now);
            if self.rearm_at.is_some_and(|at| wakes || at <= now) {
                self.rearm();
            }
            if wakes {
                on_change();
            }
        }
    }

    /// Waits for news or the next moment at which something is due. False when it is time to end.
    fn wait(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        loop {
            let now = SystemClock.now();
            if state.stop {
                return false;
            }
            if std::mem::take(&mut state.stirred) {
                self.quiet.stir(now);
            }
            if std::mem::take(&mut state.rearm) {
                self.rearm_at = self.rearm_at.or(Some(now.max(self.rearmed + REARM_SPACING)));
            }
            if std::mem::take(&mut state.overflow) {
                self.overflow_at = self.overflow_at.or(Some(now.max(self.overflowed + OVERFLOW_SPACING)));
            }
            let moments = [self.quiet.due(), self.rearm_at, self.overflow_at, self.poll_at];
            state = match moments.into_iter().flatten().min() {
                Some(due) if due <= now => return true,
                Some(due) => {
                    let (state, _) = shared
                        .bell
                        .wait_timeout(state, Duration::from(due - now))
                        .unwrap_or_else(PoisonError::into_inner);
                    state
                }
                None => shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Sets the watches that are missing and ends those that are not needed any more.
    fn rearm(&mut self) {
        let (also, stale) = {
            let mut state = self.shared.lock();
            state.rearm = false;
            (state.also.clone(), std::mem::take(&mut state.stale))
        };
        self.rearm_at = None;
        let mut trouble = self.begin().err();
        let mut vanished = false;
        let root = self.root.clone();
        let targets = Targets::collect(&root, &also, &mut |folder| match self.arm(folder, stale.contains(folder)) {
            Ok(is_there) => vanished |= !is_there,
            Err(why) => drop(trouble.get_or_insert(why)),
        });
        let gone: Vec<PathBuf> = self.armed.keys().filter(|path| !targets.folders.contains(*path)).cloned().collect();
        for path in gone {
            self.disarm(&path);
        }
        if targets.incomplete {
            trouble.get_or_insert("there are too many folders to watch".to_owned());
        }
        self.rearmed = SystemClock.now();
        if vanished {
            // Whatever has taken its place may be watched by nobody.
            self.quiet.stir(self.rearmed);
            self.rearm_at = Some(self.rearmed + REARM_SPACING);
        }
        if trouble.is_none() {
            self.poll_at = None;
        } else if self.poll_at.is_none() {
            self.fingerprint = targets.fingerprint();
            self.poll_at = Some(self.rearmed + POLL);
        }
        let mut state = self.shared.lock();
        state.targets = targets;
        state.polling = trouble;
    }

    /// Opens the kernel's side, if it is not open.
    fn begin(&mut self) -> Result<(), String> {
        if self.notify.is_none() {
            let shared = self.shared.clone();
            let config = Config::default().with_follow_symlinks(false);
            let watcher = INotifyWatcher::new(move |event| shared.take_event(event), config);
            self.notify = Some(watcher.map_err(|error| format!("inotify is not available: {error}"))?);
        }
        Ok(())
    }

    /// Watches one folder, unless it does already. False when it is gone by now; an error says why events may be missed.
    fn arm(&mut self, folder: &Path, stale: bool) -> Result<bool, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("{} cannot be watched: {error}", folder.display());
        let found = match fs::metadata(folder) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(cannot(&error)),
        };
        let identity = (found.dev(), found.ino());
        let is_armed = self.armed.get(folder) == Some(&identity) && !stale;
        if !is_armed {
            self.disarm(folder);
            // Without inotify the reason is known already.
            let Some(notify) = &mut self.notify else { return Ok(true) };
            match notify.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => self.armed.insert(folder.to_owned(), identity),
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => return Ok(false),
                Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                    return Err("the limit fs.inotify.max_user_watches is reached".to_owned());
                }
                Err(error) => return Err(cannot(&error)),
            };
        }
        match rustix::fs::statfs(folder) {
            Ok(system) if REMOTE.contains(&(system.f_type as u32)) => {
                Err(format!("{} is on a network or user-space file system", folder.display()))
            }
            _ => Ok(true),
        }
    }

    fn disarm(&mut self, folder: &Path) {
        if self.armed.remove(folder).is_some()
            && let Some(notify) = &mut self.notify
        {
            // The kernel has ended the watches of removed folders by itself.
            let _ = notify.unwatch(folder);
        }
    }

    /// Looks whether anything changed without an event.
    fn poll(&mut self, now: Tick) {
        let also = self.shared.lock().also.clone();
        let fingerprint = Targets::collect(&self.root, &also, &mut |_| {}).fingerprint();
        if fingerprint != self.fingerprint {
            self.fingerprint = fingerprint;
            self.quiet.stir(now);
            self.rearm_at = Some(now);
        }
        self.poll_at = Some(SystemClock.now() + POLL);
    }
}

#[cfg(test)]
mod tests;
