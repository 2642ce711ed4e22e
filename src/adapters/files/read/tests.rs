//! What a look at the tree shows, skips and refuses.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::adapters::testing::{again_unprivileged, hand_over, role};
use crate::model::problem::Severity;
use crate::model::source::SourceFile;

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// A folder `m` with these files; a path that ends in `/` is a folder.
    fn of(files: &[(&str, &str)]) -> Self {
        let tree = Self { dir: tempfile::tempdir().expect("folder") };
        fs::create_dir(tree.at("m")).expect("root");
        for (path, text) in files {
            tree.put(path, text.as_bytes());
        }
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).expect("folder").join(path)
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let at = self.at(path);
        if path.ends_with('/') {
            return fs::create_dir_all(at).expect("folder");
        }
        fs::create_dir_all(at.parent().expect("parent")).expect("folder");
        fs::write(at, bytes).expect("file");
    }

    fn link(&self, target: &str, path: &str) {
        symlink(target, self.at(path)).expect("link");
    }

    fn scan(&self) -> Scan {
        TreeFiles::new(self.at("m"), self.at("")).scan()
    }
}

fn shown(scan: &Scan) -> Vec<&str> {
    scan.files.iter().map(|file| &*file.shown).collect()
}

fn problems(scan: &Scan) -> Vec<String> {
    scan.problems.iter().map(|problem| format!("{} {}", problem.code, problem.span())).collect()
}

#[test]
fn manifests_are_read_in_order_and_the_rest_is_listed() {
    let tree = Tree::of(&[
        ("m/b.yaml", "b"),
        ("m/a.yml", "a"),
        ("m/sub/c.json", "c"),
        ("m/sub/.git/x.yaml", "no"),
        ("m/a.yaml~", "no"),
        ("m/.b.yaml.swp", "no"),
        ("m/4913", "no"),
        ("m/README.md", "no"),
        ("m/b.yaml.orig", "no"),
        ("m/old.bak/x.yaml", "no"),
        ("m/module/.parachute/module.json", "{}"),
        ("m/module/package.json", "{}"),
        ("m/empty/", ""),
    ]);
    let scan = tree.scan();
    assert_eq!(shown(&scan), ["m/a.yml", "m/b.yaml", "m/sub/c.json"]);
    assert_eq!(scan.files[0], SourceFile { shown: "m/a.yml".into(), path: tree.at("m/a.yml"), text: "a".into() });
    assert_eq!(scan.problems, []);
    assert_eq!(scan.busy, None);
    let skipped =
        ["m/.b.yaml.swp", "m/4913", "m/README.md", "m/a.yaml~", "m/b.yaml.orig", "m/module", "m/old.bak", "m/sub/.git"];
    assert_eq!(scan.skipped, skipped);
    assert_eq!(tree.scan(), scan, "the same look gives the same answer");
    let elsewhere = TreeFiles::new(tree.at("m"), "/nowhere".into()).scan();
    assert_eq!(&*elsewhere.files[0].shown, tree.at("m/a.yml").to_str().expect("UTF-8"));
}

#[test]
fn what_is_no_folder_is_no_tree() {
    let tree = Tree::of(&[("file", "")]);
    for (root, code, text) in [
        ("none", Code::NotATree, "none does not exist"),
        ("file", Code::NotATree, "file is not a folder"),
        ("file/below", Code::Unreadable, "file/below cannot be read"),
    ] {
        let scan = TreeFiles::new(tree.at(root), tree.at("")).scan();
        assert_eq!(scan.problems.len(), 1, "{root}");
        assert_eq!(scan.problems[0].code, code, "{root}");
        assert!(scan.problems[0].message.starts_with(text), "{}", scan.problems[0].message);
        assert_eq!(scan.files, []);
    }
}

#[test]
fn bytes_that_are_no_text_have_a_position() {
    let tree = Tree::of(&[("m/good.yaml", "ä")]);
    tree.put("m/latin.yaml", b"a: b\n\xc3\xa4x\xe4y\n");
    tree.put("m/wide.yaml", b"\xff\xfea\x00");
    tree.put("m/cut.yaml", b"a\xc3");
    let scan = tree.scan();
    assert_eq!(shown(&scan), ["m/good.yaml"]);
    assert_eq!(problems(&scan), ["E0002 m/cut.yaml:1:2", "E0002 m/latin.yaml:2:3", "E0002 m/wide.yaml:1:1"]);
    let latin = scan.problems[1].span();
    assert_eq!((latin.start, latin.end), (8, 9));
    assert!(scan.problems[2].hint.as_deref().is_some_and(|hint| hint.contains("UTF-16")));
}

#[test]
fn links_inside_are_followed_once_and_links_outside_are_refused() {
    let tree =
        Tree::of(&[("m/real/a.yaml", "a"), ("m/.hidden/b.yaml", "b"), ("out/c.yaml", "c"), ("out/notes.txt", "n")]);
    tree.link("real", "m/again");
    tree.link("real/a.yaml", "m/a-link.yaml");
    tree.link(".hidden/b.yaml", "m/b.yaml");
    tree.link("../out/c.yaml", "m/c.yaml");
    tree.link("../out", "m/out");
    tree.link("../out/notes.txt", "m/notes.txt");
    tree.link("nothing.yaml", "m/d.yaml");
    tree.link("e.yaml", "m/e.yaml");
    tree.link("..", "m/real/up");
    tree.link("gone", "m/.#lock.yaml");
    let absolute = tree.at("m/.hidden");
    tree.link(absolute.to_str().expect("UTF-8"), "m/whole");
    let scan = tree.scan();
    assert_eq!(shown(&scan), ["m/b.yaml", "m/real/a.yaml"]);
    assert_eq!(problems(&scan), ["E0004 m/c.yaml:1:1", "E0001 m/d.yaml:1:1", "E0001 m/e.yaml:1:1", "E0004 m/out:1:1"]);
    assert!(scan.skipped.contains(&"m/a-link.yaml".to_owned()) && scan.skipped.contains(&"m/notes.txt".to_owned()));
}

#[test]
fn a_config_map_style_swap_is_one_tree_or_the_other() {
    let tree = Tree::of(&[("m/..1/a.yaml", "one"), ("m/..2/a.yaml", "two")]);
    tree.link("..1", "m/..data");
    tree.link("..data/a.yaml", "m/a.yaml");
    let text = |scan: &Scan| {
        assert_eq!(scan.problems, []);
        scan.files.iter().map(|file| (file.path.clone(), file.text.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(text(&tree.scan()), [(tree.at("m/a.yaml"), "one".to_owned())]);
    tree.link("..2", "m/..tmp");
    fs::rename(tree.at("m/..tmp"), tree.at("m/..data")).expect("swap");
    assert_eq!(text(&tree.scan()), [(tree.at("m/a.yaml"), "two".to_owned())]);
}

#[test]
fn a_root_that_is_a_link_keeps_its_name() {
    let tree = Tree::of(&[("r1/a.yaml", "one"), ("r2/a.yaml", "two")]);
    tree.link("r1", "current");
    let files = TreeFiles::new(tree.at("current"), tree.at(""));
    let scan = files.scan();
    assert_eq!(shown(&scan), ["current/a.yaml"]);
    assert_eq!((scan.files[0].path.clone(), &*scan.files[0].text), (tree.at("current/a.yaml"), "one"));
    tree.link("r2", "next");
    fs::rename(tree.at("next"), tree.at("current")).expect("swap");
    assert_eq!(&*files.scan().files[0].text, "two");
}

#[test]
fn limits_are_problems() {
    let tree = Tree::of(&[("m/a.yaml", "a")]);
    tree.put("m/big.yaml", &vec![b'x'; (1 << 20) + 1]);
    tree.put("m/full.yaml", &vec![b'x'; 1 << 20]);
    let deep = format!("m/{}", "d/".repeat(32));
    tree.put(&format!("{deep}x.yaml"), b"x");
    tree.put(&format!("{deep}d/y.yaml"), b"y");
    rustix::fs::mknodat(rustix::fs::CWD, tree.at("m/pipe.yaml"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .expect("pipe");
    let scan = tree.scan();
    assert_eq!(shown(&scan), ["m/a.yaml", &format!("{deep}x.yaml"), "m/full.yaml"]);
    let all = ["E0003 m/big.yaml:1:1", &format!("E0003 {deep}d:1:1"), "E0001 m/pipe.yaml:1:1"];
    assert_eq!(problems(&scan), all);
    assert!(scan.problems[2].message.ends_with("is not a regular file"), "and nothing waited for a writer");
}

#[test]
fn a_tree_of_too_many_bytes_is_refused_as_a_whole() {
    let tree = Tree::of(&[]);
    let megabyte = vec![b'x'; 1 << 20];
    for number in 0..65 {
        tree.put(&format!("m/{number:02}.yaml"), &megabyte);
    }
    let scan = tree.scan();
    assert_eq!(scan.files.len(), 64);
    assert_eq!(problems(&scan), ["E0003 m:1:1"]);
}

#[test]
fn a_file_that_is_being_written_is_read_again() {
    let tree = Tree::of(&[("m/a.yaml", "one")]);
    let path = tree.at("m/a.yaml");
    let once = read_stable_with(&path, &mut |attempt| {
        if attempt == 0 {
            fs::write(&path, "longer").expect("write");
        }
    });
    assert_eq!(once.expect("stable at last"), b"longer");
    let always =
        read_stable_with(&path, &mut |attempt| fs::write(&path, "x".repeat(10 + attempt as usize)).expect("w"));
    assert!(matches!(always, Err(ReadFailure::Changing)));
}

#[test]
fn a_tree_that_others_can_write_is_warned_of() {
    let tree = Tree::of(&[("m/a.yaml", "a")]);
    let stranger = rustix::process::getegid().as_raw() + 1;
    for (mode, group, warned) in
        [(0o755, None, false), (0o775, None, false), (0o757, None, true), (0o775, Some(stranger), true)]
    {
        let root = tree.at("m");
        if group.is_some() && std::os::unix::fs::chown(&root, None, group).is_err() {
            continue; // Only root may give a folder to a group that it is not in.
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(mode)).expect("mode");
        let scan = tree.scan();
        assert_eq!(shown(&scan), ["m/a.yaml"]);
        let found: Vec<_> = scan.problems.iter().map(|problem| (problem.code, problem.severity)).collect();
        let wanted = if warned { vec![(Code::UnsafePermissions, Severity::Warning)] } else { vec![] };
        assert_eq!(found, wanted, "{mode:o} {group:?}");
    }
}

#[test]
fn git_at_work_holds_the_tree() {
    let tree = Tree::of(&[("m/a.yaml", "a"), (".git/", "")]);
    assert_eq!(tree.scan().busy, None);
    tree.put(".git/MERGE_HEAD", b"");
    let busy = tree.scan().busy.expect("busy");
    assert!(busy.contains("in the middle of a merge"), "{busy}");
}

#[test]
fn single_files_are_read_or_refused() {
    let tree = Tree::of(&[("a.env", "A=1\n"), ("dir/", "")]);
    tree.put("bytes", b"\xff");
    tree.put("big", &vec![b'x'; (1 << 20) + 1]);
    let files = TreeFiles::new(tree.at("m"), tree.at(""));
    assert_eq!(files.read(&tree.at("a.env")).as_deref(), Ok("A=1\n"));
    assert_eq!(files.read(&tree.at("none")), Err(FileError::Missing));
    assert_eq!(files.read(&tree.at("a.env/below")), Err(FileError::Missing));
    for (path, text) in
        [("bytes", "is not UTF-8 text"), ("big", "is larger than 1024 KiB"), ("dir", "is not a regular file")]
    {
        assert_eq!(files.read(&tree.at(path)), Err(FileError::Unreadable(text.into())));
    }
    assert!(files.is_dir(&tree.at("dir")) && !files.is_dir(&tree.at("a.env")) && !files.is_dir(&tree.at("none")));
}

const CHILD: &str = "TRUEUP_TEST_UNREADABLE";

/// Run by the next test as a user whom permissions bind.
#[test]
fn child_that_may_not_read() {
    let Some(dir) = role(CHILD) else { return };
    let dir = Path::new(&dir);
    let scan = TreeFiles::new(dir.join("m"), dir.into()).scan();
    assert_eq!(shown(&scan), ["m/a.yaml"]);
    assert_eq!(problems(&scan), ["E0001 m/closed:1:1", "E0001 m/secret.yaml:1:1"]);
    assert!(matches!(
        TreeFiles::new(dir.join("m"), dir.into()).read(&dir.join("m/secret.yaml")),
        Err(FileError::Unreadable(_))
    ));
}

#[test]
fn what_may_not_be_read_is_a_problem() {
    let tree = Tree::of(&[("m/a.yaml", "a"), ("m/closed/b.yaml", "b"), ("m/secret.yaml", "c")]);
    for (path, mode) in [("", 0o755), ("m", 0o755), ("m/closed", 0), ("m/secret.yaml", 0)] {
        hand_over(&tree.at(path), mode);
    }
    again_unprivileged("adapters::files::read::tests::child_that_may_not_read", CHILD, &tree.at(""));
    hand_over(&tree.at("m/closed"), 0o755);
}
