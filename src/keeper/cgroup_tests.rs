//! cgroups: finding the place for them in what the kernel shows, and controllers against a pretend folder.

use std::fs;

use super::*;
use crate::model::unit::Bytes;

const UNIFIED: &str = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

#[track_caller]
fn check(cgroup: &str, mountinfo: &str, base: &str, inside: Option<&str>) {
    let found = locate(cgroup, mountinfo).expect("a place");
    assert_eq!(found, (PathBuf::from(base), inside.map(PathBuf::from)));
}

#[test]
fn our_own_cgroup_is_found_in_all_layouts() {
    check("0::/system.slice/trueup.service\n", UNIFIED, "/sys/fs/cgroup/system.slice/trueup.service", None);
    check("9:name=systemd:/x\n4:memory:/y\n0::/\n", HYBRID, "/sys/fs/cgroup/unified/", None);
    // In a container the mount may show a part of the tree only.
    let part = "30 23 0:27 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    check("0::/docker/ab/init\n", part, "/sys/fs/cgroup/init", None);
    assert!(locate("0::/elsewhere\n", part).is_err());
    assert!(locate("4:memory:/y\n", HYBRID).is_err());
    assert!(locate("0::/\n", "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n").is_err());
    let blank = "30 23 0:27 / /mnt/my\\040cgroup rw - cgroup2 none rw\n";
    check("0::/a\n", blank, "/mnt/my cgroup/a", None);
}

#[test]
fn a_keeper_in_a_cgroup_of_a_trueup_belongs_beside_it() {
    let ours = "/sys/fs/cgroup/a/trueup-0123456789abcdef/.keeper";
    check("0::/a/trueup-0123456789abcdef/.keeper\n", UNIFIED, "/sys/fs/cgroup/a", Some(ours));
    let nested = "/sys/fs/cgroup/a/trueup-0123456789abcdef/web/trueup-4567456745674567/.keeper";
    check(
        "0::/a/trueup-0123456789abcdef/web/trueup-4567456745674567/.keeper\n",
        UNIFIED,
        "/sys/fs/cgroup/a",
        Some(nested),
    );
}

#[test]
fn a_unit_of_systemd_with_a_name_like_ours_is_not_ours() {
    for other in ["trueup-home.service", "trueup-0123.service", "trueup-0123456789abcdef.service", "trueup-home"] {
        let cgroup = format!("0::/system.slice/{other}\n");
        check(&cgroup, UNIFIED, &format!("/sys/fs/cgroup/system.slice/{other}"), None);
    }
    let ours = "/sys/fs/cgroup/trueup-home.service/trueup-0123456789abcdef/web";
    let base = "/sys/fs/cgroup/trueup-home.service";
    check("0::/trueup-home.service/trueup-0123456789abcdef/web\n", UNIFIED, base, Some(ours));
}

/// A folder that has the files a kernel would show.
fn pretend(controllers: &str) -> (tempfile::TempDir, Rooms, Name) {
    let root = tempfile::tempdir().expect("a folder");
    let base = Base {
        path: root.path().to_owned(),
        controllers: controllers.split(' ').map(str::to_owned).collect(),
        inside: None,
    };
    let leaf = root.path().join("trueup-id/web");
    fs::create_dir_all(&leaf).expect("folders");
    for folder in [root.path(), &root.path().join("trueup-id")] {
        fs::write(folder.join("cgroup.subtree_control"), "").expect("a file");
    }
    for file in
        ["memory.max", "memory.oom.group", "cpu.max", "pids.max", "cgroup.procs", "cgroup.kill", "cgroup.events"]
    {
        fs::write(leaf.join(file), "").expect("a file");
    }
    (root, Rooms::new(base, "id"), Name::new("web").expect("a name"))
}

#[test]
fn ceilings_become_what_the_kernel_reads() {
    let (root, rooms, unit) = pretend("cpu memory pids");
    let ceilings = Ceilings { memory: Some(Bytes(512 << 20)), cpu: Some(1_500), pids: Some(200), cgroup: false };
    let leaf = rooms.make(&unit, &ceilings).expect("made");
    let read = |file: &str| fs::read_to_string(leaf.path().join(file)).expect("read");
    assert_eq!(read("memory.max"), "536870912");
    assert_eq!(read("memory.oom.group"), "1");
    assert_eq!(read("cpu.max"), "150000 100000");
    assert_eq!(read("pids.max"), "200");
    for folder in [root.path().to_owned(), root.path().join("trueup-id")] {
        let control = fs::read_to_string(folder.join("cgroup.subtree_control")).expect("read");
        assert_eq!(control, "+memory +cpu +pids");
    }
    leaf.join(42).expect("joined");
    assert_eq!((read("cgroup.procs"), leaf.pids()), ("42".to_owned(), vec![42]));
}

#[test]
fn what_is_no_longer_limited_is_let_go() {
    let (_root, rooms, unit) = pretend("memory");
    let leaf = rooms.make(&unit, &Ceilings { memory: Some(Bytes(1 << 20)), ..Ceilings::default() }).expect("made");
    fs::write(leaf.path().join("memory.max"), "").expect("as the kernel would");
    rooms.set(&leaf, &Ceilings::default()).expect("set");
    assert_eq!(fs::read_to_string(leaf.path().join("memory.max")).expect("read"), "max");
}

#[test]
fn a_controller_that_is_not_there_is_named() {
    let (_root, rooms, unit) = pretend("cpu");
    let why = rooms.make(&unit, &Ceilings { memory: Some(Bytes(1)), ..Ceilings::default() }).expect_err("refused");
    assert!(why.ends_with("has no memory controller"), "{why}");
}

#[test]
fn events_are_read_as_the_kernel_writes_them() {
    let (_root, rooms, unit) = pretend("");
    let leaf = rooms.make(&unit, &Ceilings::default()).expect("made");
    assert!(!leaf.populated() && leaf.oom_kills().is_none());
    fs::write(leaf.path().join("cgroup.events"), "populated 1\nfrozen 0\n").expect("written");
    fs::write(leaf.path().join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 1\n").expect("written");
    assert!(leaf.populated());
    assert_eq!(leaf.oom_kills(), Some(2));
}
