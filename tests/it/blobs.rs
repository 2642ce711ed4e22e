//! Stories of single blobs with the built binary: put, get, list, verify, remove, what is refused and how, and a move.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::stage::{Stage, kill, wait_until};

/// A folder `disk` and a file `box`; the storage is on one of them.
fn storage(stage: &Stage, active: &str) {
    let backend = |name: &str, spec: &str| {
        format!("apiVersion: trueup/v1\nkind: StorageBackend\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n---\n")
    };
    let (disk, file) = (backend("disk", "fs: { path: ../disk }"), backend("box", "sqlite: { path: ../box.db }"));
    let storage = "apiVersion: trueup/v1\nkind: Storage\nmetadata: { name: default }\nspec:\n  activeBackend: ";
    stage.write("storage.yaml", &format!("{disk}{file}{storage}{active}\n"));
}

fn ready() -> Stage {
    let stage = Stage::new();
    stage.hub();
    storage(&stage, "disk");
    stage.once(&[]).code(0);
    stage
}

/// Runs a command with bytes on its standard input.
fn fed(stage: &Stage, args: &[&str], bytes: &[u8]) -> Output {
    let mut child = stage.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().expect("piped").write_all(bytes).expect("it listens");
    child.wait_with_output().expect("it ends")
}

/// Where the folder has the bytes of a blob.
fn object(stage: &Stage, line: &Value) -> std::path::PathBuf {
    let name = line["sha256"].as_str().expect("a hash");
    stage.path("disk").join(&name[..2]).join(&name[2..])
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| ((n * 31) >> 3) as u8).collect()
}

#[test]
fn a_blob_is_put_listed_read_verified_and_removed() {
    let stage = ready();
    let large = bytes(3_000_000);
    fs::write(stage.path("large"), &large).expect("a file");
    let key = stage.run(&["blob", "put", "large"]).code(0).out.trim().to_owned();
    assert!(key.starts_with("sha256-"), "{key}");
    let small = fed(&stage, &["blob", "put", "-o", "json"], b"hello");
    let line: Value = serde_json::from_slice(&small.stdout).expect("a line");
    assert_eq!(
        (&line["type"], &line["outcome"], &line["backend"]),
        (&"stored".into(), &"stored".into(), &"disk".into())
    );
    let hello = line["key"].as_str().expect("a key").to_owned();
    assert_eq!(fs::read(object(&stage, &line)).expect("is there"), b"hello");

    let again = stage.run(&["blob", "put", "large"]).code(0);
    assert!(again.out.trim() == key && again.err.contains("was there already"), "{}", again.err);
    let mut listed: Vec<String> = stage.run(&["blob", "ls"]).code(0).out.lines().map(str::to_owned).collect();
    listed.sort();
    let mut keys = vec![key.clone(), hello.clone()];
    keys.sort();
    assert_eq!(listed, keys);
    assert!(stage.run(&["blob", "ls", "-l", "--backend", "disk"]).code(0).out.contains("disk"));
    assert_eq!(stage.run(&["blob", "ls", "--backend", "box"]).code(0).err, "no blobs\n");

    let out = stage.command(&["blob", "get", &key]).output().expect("runs");
    assert!(out.status.success() && out.stdout == large);
    stage.run(&["blob", "get", &key, "-O", "copy"]).code(0);
    assert!(fs::read(stage.path("copy")).expect("is there") == large);
    assert_eq!(stage.run(&["blob", "get", &hello, "--range", "1-3"]).code(0).out, "ell");
    stage.run(&["blob", "get", &hello, "--range", "9-"]).code(64);
    let stat = stage.run(&["blob", "stat", &hello]).code(0).out;
    assert!(stat.contains("disk") && stat.contains("5 bytes"), "{stat}");

    assert!(stage.run(&["blob", "verify", "--all"]).code(0).out.ends_with("verified 2 blobs: all good\n"));
    fs::write(object(&stage, &line), "jello").expect("rots");
    let rotten = stage.run(&["blob", "verify", &hello, &key]).code(7);
    assert!(rotten.out.contains(&format!("corrupt {hello}")) && rotten.err.contains("1 of 2 blobs"), "{}", rotten.err);
    let failed = stage.run(&["blob", "get", &hello]).code(1);
    assert!(
        failed.out.is_empty() && failed.err.contains("no good copy") && failed.err.contains("disk:"),
        "{}",
        failed.err
    );
    stage.run(&["blob", "rm", &hello, &key]).code(0);
    assert_eq!(stage.run(&["blob", "ls"]).code(0).err, "no blobs\n");
    assert!(!object(&stage, &line).exists());
    let gone = stage.run(&["blob", "get", &hello]).code(1);
    assert!(gone.err.contains("there is no blob") && gone.err.contains("blob ls"), "{}", gone.err);
}

#[test]
fn a_key_of_its_own_keeps_its_first_bytes() {
    let stage = ready();
    let origin = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";
    let put = |bytes: &[u8]| fed(&stage, &["blob", "put", "--integrity", origin], bytes);
    assert_eq!(String::from_utf8_lossy(&put(b"one").stdout).trim(), origin);
    assert!(put(b"one").status.success());
    assert_eq!(put(b"two").status.code(), Some(1));
    assert_eq!(stage.run(&["blob", "get", origin]).code(0).out, "one");
    stage.run(&["blob", "get", "sha256-short"]).code(64);
}

#[test]
fn before_there_is_a_storage_nothing_is_made_and_it_is_said_what_to_do() {
    let stage = Stage::new();
    stage.hub();
    let none = stage.run(&["storage", "status"]).code(0);
    assert!(none.out.contains("no storage is set up"), "{}", none.out);
    assert_eq!(stage.run(&["blob", "ls"]).code(0).err, "no blobs\n");
    fs::write(stage.path("file"), "x").expect("a file");
    let several = stage.run(&["blob", "put", "file", "file"]).code(1).err;
    assert!(several.contains("error: file: no storage is set up yet\n") && !several.contains("caused by"), "{several}");
    let put = stage.run(&["blob", "put", "file"]).code(1);
    assert!(put.err.contains("declare a StorageBackend"), "{}", put.err);
    assert!(!stage.path(".trueup").exists(), "who only looks makes nothing");
    assert!(stage.run(&["blob", "put", "nowhere"]).code(1).err.contains("nowhere"));
}

#[test]
fn what_was_moved_is_read_from_where_it_is_and_the_history_says_so() {
    let stage = ready();
    let line: Value =
        serde_json::from_slice(&fed(&stage, &["blob", "put", "-o", "json"], b"hello").stdout).expect("a line");
    let key = line["key"].as_str().expect("a key");
    storage(&stage, "box");
    stage.once(&[]).code(0);
    let status = stage.run(&["storage", "status", "-o", "json"]).code(0);
    let status = &status.typed("storage")[0];
    assert_eq!((&status["active"], status.get("target")), (&"box".into(), None));
    let on = |name: &str| {
        let all = status["backends"].as_array().expect("backends");
        all.iter().find(|backend| backend["name"] == name).expect("is listed").clone()
    };
    assert_eq!(
        (&on("box")["objects"], &on("disk")["objects"], &on("disk")["spares"]),
        (&1.into(), &0.into(), &1.into())
    );
    assert_eq!(stage.run(&["blob", "get", key]).code(0).out, "hello");
    let history = stage.run(&["storage", "status", "--history"]).code(0).out;
    assert!(history.contains("active backend box, 1 blob") && history.contains("done"), "{history}");
    let other: Value =
        serde_json::from_slice(&fed(&stage, &["blob", "put", "-o", "json"], b"new").stdout).expect("a line");
    assert_eq!(other["backend"], "box");
}

#[test]
fn an_interrupted_put_stores_nothing_and_leaves_nothing() {
    let stage = ready();
    let mut child = stage.command(&["blob", "put"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&bytes(2_000_000)).expect("it listens");
    let descriptors = format!("/proc/{}/fd", child.id());
    // What is too much for memory went to a file that has no name any more.
    let spools = |folder: &Path| {
        let open = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        open.filter(|path| path.to_string_lossy().contains("/blobs/spool.")).count()
    };
    wait_until("bytes are spooled", || spools(Path::new(&descriptors)) > 0);
    kill(child.id().into(), "INT");
    assert_eq!(child.wait().expect("it ends").code(), Some(8));
    drop(stdin);
    let left = fs::read_dir(stage.path(".trueup/blobs")).expect("the folder").flatten();
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("spool")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(stage.run(&["blob", "ls"]).code(0).err, "no blobs\n");
}

#[test]
fn what_is_no_file_takes_the_bytes_and_a_link_keeps_leading_where_it_led() {
    let stage = ready();
    let key = String::from_utf8(fed(&stage, &["blob", "put"], b"hello").stdout).expect("a key").trim().to_owned();
    let pipe = stage.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read(pipe).expect("reads"))
    };
    stage.run(&["blob", "get", &key, "-O", "pipe"]).code(0);
    assert_eq!(reader.join().expect("ends"), b"hello");
    assert!(!fs::symlink_metadata(&pipe).expect("is there").is_file());

    fs::create_dir(stage.path("far")).expect("a folder");
    fs::write(stage.path("far/old"), "old").expect("a file");
    for (link, to) in [("link", "far/old"), ("dangling", "far/new")] {
        std::os::unix::fs::symlink(to, stage.path(link)).expect("a link");
        stage.run(&["blob", "get", &key, "-O", link]).code(0);
        assert_eq!(fs::read_link(stage.path(link)).expect("still a link"), Path::new(to));
        assert_eq!(fs::read(stage.path(to)).expect("is there"), b"hello");
    }
    assert_eq!(fs::read_dir(stage.path("far")).expect("a folder").count(), 2, "nothing partial is left");
    assert_eq!(stage.run(&["blob", "get", &key, "-O", "-"]).code(0).out, "hello");
    assert!(!stage.path("-").exists());
}

#[test]
fn a_path_that_cannot_be_used_is_named_as_it_was_typed() {
    let stage = ready();
    let key = String::from_utf8(fed(&stage, &["blob", "put"], b"hello").stdout).expect("a key").trim().to_owned();
    fs::create_dir(stage.path("folder")).expect("a folder");
    std::os::unix::fs::symlink("round", stage.path("round")).expect("a link");
    let said = |args: &[&str], words: &str| {
        let err = stage.run(args).code(1).err;
        assert!(err.contains(words) && !err.contains("partial"), "{err}");
    };
    said(&["blob", "get", &key, "-O", "folder"], "folder: it is a folder");
    said(&["blob", "get", &key, "-O", "nodir/x"], "nodir/x: the folder nodir does not exist");
    said(&["blob", "get", &key, "-O", "nodir/"], "the folder nodir/ does not exist");
    said(&["blob", "get", &key, "-O", "round"], "round:");
    said(&["blob", "put", "folder"], "folder is a folder");
    said(&["blob", "put", "nosuch"], "cannot open nosuch: No such file");
}

#[test]
fn several_files_are_put_and_one_that_fails_does_not_keep_the_others() {
    let stage = ready();
    for name in ["one", "two"] {
        fs::write(stage.path(name), name).expect("a file");
    }
    let put = stage.run(&["blob", "put", "one", "nosuch", "two"]).code(7);
    assert!(put.out.lines().count() == 2 && put.out.lines().all(|key| key.starts_with("sha256-")), "{}", put.out);
    assert!(put.err.contains("cannot open nosuch"), "{}", put.err);
    let lines = stage.run(&["blob", "put", "one", "two", "-o", "json"]).code(0);
    let outcomes: Vec<Value> = lines.typed("stored").iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["known", "known"]);
    stage.run(&["blob", "put", "nosuch", "nowhere"]).code(1);
    let origin = put.out.lines().next().expect("a key");
    stage.run(&["blob", "put", "--integrity", origin, "one", "two"]).code(64);
    stage.run(&["blob", "put", "-", "-"]).code(64);
}

#[test]
fn a_list_has_a_header_and_a_backend_that_nobody_knows_is_an_error() {
    let stage = ready();
    let origin = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";
    fed(&stage, &["blob", "put"], b"one");
    fed(&stage, &["blob", "put", "--integrity", origin], b"two");
    let listed = stage.run(&["blob", "ls", "-l"]).code(0).out;
    let lines: Vec<&str> = listed.lines().collect();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!((lines.len(), &words[..]), (3, &["KEY", "SIZE", "BACKEND", "AGE", "FINDING"][..]));
    let column = lines[0].find("BACKEND");
    assert!(lines[1..].iter().all(|line| line.find(" disk ").map(|at| at + 1) == column), "{listed}");
    assert!(lines.iter().all(|line| !line.ends_with(' ')), "{listed}");
    let unknown = stage.run(&["blob", "ls", "--backend", "dsik"]).code(1);
    assert!(unknown.err.contains("no backend dsik") && unknown.err.contains("box, disk"), "{}", unknown.err);
}

#[test]
fn bad_bytes_come_with_what_to_do_and_putting_them_again_does_it() {
    let stage = ready();
    let line = fed(&stage, &["blob", "put", "-o", "json"], b"hello").stdout;
    let line: Value = serde_json::from_slice(&line).expect("a line");
    let key = line["key"].as_str().expect("a key");
    let other = String::from_utf8(fed(&stage, &["blob", "put"], b"other").stdout).expect("a key");
    fs::write(object(&stage, &line), "jello").expect("rots");
    let remedy = |err: &str| err.contains("next scrub") && err.contains("'trueup blob put'");
    let verified = stage.run(&["blob", "verify", key, other.trim(), "-o", "json"]).code(7);
    let totals = &verified.typed("verified")[0];
    assert_eq!((&totals["blobs"], &totals["good"], &totals["bad"]), (&2.into(), &1.into(), &1.into()));
    assert!(remedy(&stage.run(&["blob", "verify", key]).code(7).err));
    assert!(remedy(&stage.run(&["blob", "get", key]).code(1).err));
    let again = fed(&stage, &["blob", "put", "-o", "json"], b"hello").stdout;
    let again: Value = serde_json::from_slice(&again).expect("a line");
    assert_eq!(again["outcome"], "repaired");
    stage.run(&["blob", "verify", "--all"]).code(0);
}

#[test]
fn the_status_names_what_is_wrong_and_says_when_everything_is_held() {
    let stage = ready();
    let line = fed(&stage, &["blob", "put", "-o", "json"], b"hello").stdout;
    let line: Value = serde_json::from_slice(&line).expect("a line");
    let key = line["key"].as_str().expect("a key");
    let quiet = stage.run(&["storage", "status"]).code(0).out;
    assert!(!quiet.contains("suspended") && quiet.contains("findings: "), "{quiet}");
    fs::write(object(&stage, &line), "jello").expect("rots");
    storage(&stage, "box");
    stage.once(&["--timeout", "10s"]);
    let status = stage.run(&["storage", "status"]).code(0).out;
    assert!(status.contains("moving from disk to box") && !status.contains("/s"), "{status}");
    assert!(status.contains(&format!("corrupt {key} on disk: ")), "{status}");
    assert!(stage.run(&["blob", "stat", key]).code(0).err.contains("next scrub"));
    let json = stage.run(&["storage", "status", "-o", "json"]).code(0);
    let finding = &json.typed("storage")[0]["findings"][0];
    assert_eq!(
        (&finding["key"], &finding["backend"], &finding["fault"]),
        (&key.into(), &"disk".into(), &"corrupt".into())
    );

    let held = fs::read_to_string(stage.path("manifests/storage.yaml")).expect("is there");
    stage.write("storage.yaml", &format!("{held}  suspend: {{ reason: backup }}\n"));
    stage.once(&["--timeout", "10s"]);
    let status = stage.run(&["storage", "status"]).code(0).out;
    assert!(status.contains("suspended: backup; reads and writes go on"), "{status}");
    let json = stage.run(&["storage", "status", "-o", "json"]).code(0);
    assert_eq!(json.typed("storage")[0]["suspended"]["reason"], "backup");
}
