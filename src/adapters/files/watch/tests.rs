//! Real changes on a real file system: each wakes, and reading does not.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::adapters::testing::{again, role, wait_until};

struct Watched {
    _dir: tempfile::TempDir,
    at: PathBuf,
    root: PathBuf,
    wakes: Arc<AtomicUsize>,
    watcher: Watcher,
}

impl Watched {
    /// Makes a folder, fills it, and watches `root` in it.
    fn of(root: &str, fill: impl Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let at = fs::canonicalize(dir.path()).expect("folder");
        fill(&at);
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = wakes.clone();
        let root = at.join(root);
        let watcher = Watcher::start(&root, move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        Self { _dir: dir, at, root, wakes, watcher }
    }

    /// A root `m` with one manifest.
    fn plain() -> Self {
        Self::of("m", |at| {
            fs::create_dir(at.join("m")).expect("root");
            fs::write(at.join("m/a.yaml"), "a").expect("file");
        })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }

    fn put(&self, path: &str) {
        fs::write(self.at(path), path).expect("write");
    }

    fn count(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }

    /// Nothing is under way: no change is waiting for its pause.
    fn settle(&self) {
        wait_until("settled", || {
            let before = (self.count(), self.watcher.shared.lock().events);
            // A change that is of no interest: the events before it have been judged once it is.
            fs::write(self.root.join("nothing.txt"), "x").is_err() || {
                wait_until("judged", || self.watcher.shared.lock().events > before.1);
                let pause = SystemClock.now() + super::super::quiet::QUIET + super::super::quiet::QUIET;
                wait_until("pause", || SystemClock.now() > pause);
                self.count() == before.0
            }
        });
    }

    /// This change leads to a wake-up.
    fn wakes(&self, what: &str, change: impl FnOnce()) {
        let before = self.count();
        change();
        wait_until(what, || self.count() > before);
        self.settle();
    }

    /// This does not, although the kernel told of it.
    fn sleeps(&self, what: &str, change: impl FnOnce()) {
        self.settle();
        let (before, events) = (self.count(), self.watcher.shared.lock().events);
        change();
        wait_until(what, || self.watcher.shared.lock().events > events);
        self.settle();
        assert_eq!(self.count(), before, "{what} woke");
    }
}

#[test]
fn every_way_to_save_wakes() {
    let watched = Watched::plain();
    assert_eq!(watched.watcher.polling(), None);
    watched.wakes("plain write", || watched.put("m/a.yaml"));
    watched.wakes("append", || {
        let mut file = fs::OpenOptions::new().append(true).open(watched.at("m/a.yaml")).expect("open");
        file.write_all(b"more").expect("append");
    });
    watched.wakes("atomic save", || {
        watched.put("m/.tmp123");
        fs::rename(watched.at("m/.tmp123"), watched.at("m/a.yaml")).expect("rename");
    });
    watched.wakes("save in the style of vim", || {
        watched.put("m/4913");
        fs::remove_file(watched.at("m/4913")).expect("remove");
        fs::rename(watched.at("m/a.yaml"), watched.at("m/a.yaml~")).expect("away");
        watched.put("m/a.yaml");
        fs::remove_file(watched.at("m/a.yaml~")).expect("backup");
    });
    watched.wakes("and again after it", || watched.put("m/a.yaml"));
    watched.wakes("new file", || watched.put("m/b.json"));
    watched.wakes("rename", || fs::rename(watched.at("m/b.json"), watched.at("m/c.yml")).expect("rename"));
    watched.wakes("rename to another suffix", || {
        fs::rename(watched.at("m/c.yml"), watched.at("m/c.off")).expect("rename");
    });
    watched.wakes("delete", || fs::remove_file(watched.at("m/a.yaml")).expect("delete"));
    watched.wakes("permissions", || {
        watched.put("m/a.yaml");
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        fs::set_permissions(watched.at("m/a.yaml"), mode).expect("mode");
    });
}

#[test]
fn reading_and_editors_leftovers_do_not_wake() {
    let watched = Watched::plain();
    watched.sleeps("reading", || {
        for _ in 0..3 {
            fs::read(watched.at("m/a.yaml")).expect("read");
            assert!(fs::read_dir(watched.at("m")).expect("list").count() > 0);
        }
    });
    watched.sleeps("a swap file", || watched.put("m/.a.yaml.swp"));
    watched.sleeps("data of a module", || watched.put("m/module.db"));
    watched.sleeps("a neighbour of the root", || watched.put("other.yaml"));
    watched.wakes("a manifest still does", || watched.put("m/a.yaml"));
}

#[test]
fn one_wake_for_a_burst() {
    let watched = Watched::plain();
    watched.settle();
    let before = watched.count();
    for number in 0..50 {
        watched.put(&format!("m/{number}.yaml"));
    }
    wait_until("woken", || watched.count() > before);
    watched.settle();
    // A machine under load may pause in the middle of the burst.
    assert!(watched.count() - before <= 5, "{}", watched.count() - before);
}

#[test]
fn folders_that_come_and_go_are_followed() {
    let watched = Watched::plain();
    watched.wakes("new folder with a file", || {
        fs::create_dir_all(watched.at("m/sub/deep")).expect("folder");
        watched.put("m/sub/deep/b.yaml");
    });
    watched.wakes("change in the new folder", || watched.put("m/sub/deep/b.yaml"));
    watched.wakes("folder renamed", || fs::rename(watched.at("m/sub"), watched.at("m/sub2")).expect("rename"));
    watched.wakes("change in the renamed folder", || watched.put("m/sub2/deep/b.yaml"));
    watched.wakes("folder removed", || fs::remove_dir_all(watched.at("m/sub2")).expect("remove"));
    watched.wakes("folder moved in", || {
        fs::create_dir(watched.at("outside")).expect("folder");
        watched.put("outside/c.yaml");
        fs::rename(watched.at("outside"), watched.at("m/inside")).expect("move");
    });
    watched.wakes("change in it", || watched.put("m/inside/c.yaml"));
}

#[test]
fn a_root_that_is_removed_and_made_anew_is_watched_anew() {
    let watched = Watched::plain();
    for round in 0..3 {
        watched.wakes("removed", || fs::remove_dir_all(watched.at("m")).expect("remove"));
        watched.wakes("made", || {
            fs::create_dir(watched.at("m")).expect("make");
        });
        watched.wakes("filled", || watched.put("m/a.yaml"));
        watched.wakes("removed and made at once", || {
            fs::remove_dir_all(watched.at("m")).expect("remove");
            fs::create_dir(watched.at("m")).expect("make");
        });
        watched.wakes("filled again", || watched.put(&format!("m/{round}.yaml")));
        watched.wakes("renamed and replaced", || {
            fs::rename(watched.at("m"), watched.at(&format!("old{round}"))).expect("away");
            fs::create_dir(watched.at("m")).expect("make");
        });
        watched.wakes("filled once more", || watched.put("m/b.yaml"));
    }
    watched.sleeps("the old root is of no interest", || watched.put("m/still-here.txt"));
}

/// Does something the first time that this folder is armed: the moment at which a change could be missed.
fn collect_while(at: &Path, folder: &str, change: impl FnOnce()) -> Targets {
    let (mut change, folder) = (Some(change), at.join(folder));
    Targets::collect(&at.join("a/m"), &BTreeSet::new(), &mut |armed| {
        if armed == folder
            && let Some(change) = change.take()
        {
            change();
        }
    })
}

#[test]
fn what_changes_while_watches_are_set_is_watched() {
    let dir = tempfile::tempdir().expect("folder");
    let at = fs::canonicalize(dir.path()).expect("folder");
    let made = collect_while(&at, "", || fs::create_dir_all(at.join("a/m/sub")).expect("make"));
    assert!(made.tree.contains(&at.join("a/m/sub")), "{made:?}");
    let filled = collect_while(&at, "a/m", || fs::create_dir(at.join("a/m/new")).expect("make"));
    assert!(filled.tree.contains(&at.join("a/m/new")), "{filled:?}");
    let replaced = collect_while(&at, "a", || {
        fs::rename(at.join("a/m"), at.join("elsewhere")).expect("away");
        symlink("../elsewhere", at.join("a/m")).expect("link");
    });
    assert!(replaced.tree.contains(&at.join("elsewhere/new")), "{replaced:?}");
}

#[test]
fn a_root_that_is_not_there_yet_is_waited_for() {
    let watched = Watched::of("a/b/m", |_| {});
    watched.wakes("first parent", || fs::create_dir(watched.at("a")).expect("make"));
    watched.wakes("the rest", || fs::create_dir_all(watched.at("a/b/m")).expect("make"));
    watched.wakes("a manifest", || watched.put("a/b/m/a.yaml"));
}

#[test]
fn a_swap_of_a_link_to_the_root_is_seen() {
    let watched = Watched::of("current/m", |at| {
        for release in ["r1/m", "r2/m"] {
            fs::create_dir_all(at.join(release)).expect("release");
        }
        symlink("r1", at.join("current")).expect("link");
    });
    let swap = |to: &str| {
        symlink(to, watched.at("next")).expect("link");
        fs::rename(watched.at("next"), watched.at("current")).expect("swap");
    };
    watched.wakes("a manifest in the first", || watched.put("r1/m/a.yaml"));
    watched.wakes("the swap", || swap("r2"));
    watched.wakes("a manifest in the second", || watched.put("r2/m/a.yaml"));
    watched.wakes("back", || swap("r1"));
    watched.wakes("a manifest in the first again", || watched.put("r1/m/b.yaml"));
}

#[test]
fn a_config_map_style_swap_is_seen() {
    let watched = Watched::of("m", |at| {
        for version in ["..1", "..2"] {
            fs::create_dir_all(at.join("m").join(version)).expect("version");
            fs::write(at.join("m").join(version).join("a.yaml"), version).expect("file");
        }
        symlink("..1", at.join("m/..data")).expect("link");
        symlink("..data/a.yaml", at.join("m/a.yaml")).expect("link");
    });
    watched.wakes("the swap", || {
        symlink("..2", watched.at("m/..data_tmp")).expect("link");
        fs::rename(watched.at("m/..data_tmp"), watched.at("m/..data")).expect("swap");
    });
    watched.wakes("the file behind the links", || watched.put("m/..2/a.yaml"));
}

#[test]
fn paths_outside_the_tree_count_when_told() {
    let watched = Watched::of("m", |at| {
        fs::create_dir(at.join("m")).expect("root");
        fs::create_dir_all(at.join("env/folder")).expect("folder");
        fs::write(at.join("env/a.env"), "").expect("file");
    });
    let paths = ["env/a.env", "env/later.env", "none/b.env", "env/folder"].map(|path| watched.at(path));
    watched.wakes("a list that is new", || watched.watcher.also(&paths));
    let before = watched.count();
    watched.watcher.also(&paths);
    watched.settle();
    assert_eq!(watched.count(), before, "the same list again is no news");
    watched.wakes("written", || watched.put("env/a.env"));
    watched.wakes("replaced", || {
        watched.put("env/tmp");
        fs::rename(watched.at("env/tmp"), watched.at("env/a.env")).expect("rename");
    });
    watched.wakes("made", || watched.put("env/later.env"));
    watched.wakes("made with its folder", || {
        fs::create_dir(watched.at("none")).expect("folder");
        watched.put("none/b.env");
    });
    watched.wakes("anything in a folder", || watched.put("env/folder/anything"));
    watched.sleeps("a neighbour", || watched.put("env/neighbour.env"));
    watched.watcher.also(&[]);
    wait_until("forgotten", || !watched.watcher.shared.lock().targets.names.contains(&watched.at("env/a.env")));
    watched.put("env/a.env");
    watched.settle();
}

#[test]
fn the_end_of_gits_work_wakes() {
    let watched = Watched::of("m", |at| {
        fs::create_dir(at.join("m")).expect("root");
        fs::create_dir(at.join(".git")).expect("git");
        fs::write(at.join(".git/MERGE_HEAD"), "").expect("merge");
    });
    watched.sleeps("other files of git", || watched.put(".git/COMMIT_EDITMSG"));
    watched.wakes("the merge is done", || fs::remove_file(watched.at(".git/MERGE_HEAD")).expect("done"));
}

#[test]
fn an_overflow_looks_at_everything_again() {
    let watched = Watched::plain();
    let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
    watched.wakes("the first", || watched.watcher.shared.take_event(Ok(lost.clone())));
    watched.wakes("changes after it", || watched.put("m/a.yaml"));
    let first = watched.count();
    let start = SystemClock.now();
    watched.watcher.shared.take_event(Ok(lost));
    wait_until("the second", || watched.count() > first);
    assert!(SystemClock.now() - start >= Millis(500), "overflows in a row are spaced");
}

#[test]
fn where_no_events_come_a_fingerprint_tells() {
    let dir = tempfile::tempdir().expect("folder");
    let at = fs::canonicalize(dir.path()).expect("folder");
    fs::create_dir_all(at.join("m/sub")).expect("root");
    fs::write(at.join("m/a.yaml"), "a").expect("file");
    let print = || Targets::collect(&at.join("m"), &BTreeSet::from([at.join("x.env")]), &mut |_| {}).fingerprint();
    let mut last = print();
    assert_eq!(print(), last);
    fs::read(at.join("m/a.yaml")).expect("read");
    fs::write(at.join("other.yaml"), "a").expect("file");
    fs::write(at.join("m/sub/data.db"), "a").expect("file");
    assert_eq!(print(), last);
    for (what, change) in [
        ("new file", &(|| fs::write(at.join("m/sub/b.yaml"), "")) as &dyn Fn() -> std::io::Result<()>),
        ("longer", &|| fs::write(at.join("m/a.yaml"), "aa")),
        ("link", &|| symlink("../x.env", at.join("m/c.yaml"))),
        ("outside", &|| fs::write(at.join("x.env"), "A=1")),
        ("gone", &|| fs::remove_file(at.join("m/sub/b.yaml"))),
        ("all gone", &|| fs::remove_dir_all(at.join("m"))),
    ] {
        change().expect(what);
        let now = print();
        assert_ne!(now, last, "{what}");
        last = now;
    }
}

const CHILD: &str = "TRUEUP_TEST_NO_INOTIFY";

/// Run by the next test in a process that has room for one open file, which is too little for inotify.
#[test]
fn child_that_has_to_poll() {
    use std::os::fd::AsRawFd;
    let Some(root) = role(CHILD).map(PathBuf::from) else { return };
    let highest = fs::File::open("/dev/null").expect("file").as_raw_fd();
    let limit = u64::try_from(highest).expect("positive") + 2;
    let limits = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).expect("limit");
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = wakes.clone();
    let watcher = Watcher::start(&root, move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let reason = watcher.polling().expect("polls");
    assert!(reason.starts_with("inotify is not available"), "{reason}");
    wait_until("written", || fs::write(root.join("a.yaml"), "changed").is_ok());
    wait_until("woken by polling", || wakes.load(Ordering::SeqCst) > 0);
}

#[test]
fn without_inotify_it_polls_and_says_why() {
    let dir = tempfile::tempdir().expect("folder");
    let test = "adapters::files::watch::tests::child_that_has_to_poll";
    let output = again(test, CHILD, dir.path()).output().expect("child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
