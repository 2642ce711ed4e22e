//! Stories in which somebody could lose a blob: one place under two names, and a disk that is not mounted.

use std::fs;
use std::os::unix::fs::symlink;

use crate::stage::Stage;

/// Folders as backends, each by its name, its path and more; and the storage on one of them.
fn storage(stage: &Stage, active: &str, more: &str, folders: &[(&str, &str, &str)]) {
    let mut text = String::new();
    for (name, path, more) in folders {
        text += &format!(
            "apiVersion: trueup/v1\nkind: StorageBackend\nmetadata: {{ name: {name} }}\nspec: {{ fs: {{ path: ../{path} }}{more} }}\n---\n"
        );
    }
    text += &format!(
        "apiVersion: trueup/v1\nkind: Storage\nmetadata: {{ name: default }}\nspec: {{ activeBackend: {active}{more} }}\n"
    );
    stage.write("storage.yaml", &text);
}

fn put(stage: &Stage, bytes: &str) -> String {
    fs::write(stage.path("given"), bytes).expect("a file");
    stage.run(&["blob", "put", "given"]).code(0).out.trim().to_owned()
}

#[test]
fn a_backend_that_is_renamed_keeps_its_blobs_whatever_is_to_be_removed_from_the_old_name() {
    for (gc, policy) in [(", gcSource: { after: 0s }", ""), ("", ", deletionPolicy: Delete")] {
        let stage = Stage::new();
        stage.hub();
        storage(&stage, "old", gc, &[("old", "disk", policy)]);
        stage.once(&[]).code(0);
        let key = put(&stage, "hello");
        storage(&stage, "new", gc, &[("new", "disk", policy)]);
        stage.once(&[]).code(0);
        stage.once(&[]).code(0);
        assert_eq!(stage.run(&["blob", "get", &key]).code(0).out, "hello");
        let status = stage.run(&["storage", "status"]).code(0).out;
        assert!(!status.contains("old"), "the old name is let go of: {status}");
    }
}

#[test]
fn two_names_of_one_folder_by_a_link_keep_the_only_copy() {
    let stage = Stage::new();
    stage.hub();
    fs::create_dir(stage.path("disk")).expect("a folder");
    symlink(stage.path("disk"), stage.path("link")).expect("a link");
    let both = [("one", "disk", ""), ("two", "link", "")];
    let now = ", gcSource: { after: 0s }, gcOrphans: { after: 0s }";
    storage(&stage, "one", now, &both);
    stage.once(&[]).code(0);
    let key = put(&stage, "hello");
    storage(&stage, "two", now, &both);
    stage.once(&[]).code(0);
    stage.once(&[]).code(0);
    assert_eq!(stage.run(&["blob", "get", &key]).code(0).out, "hello");
}

#[test]
fn nothing_is_put_into_the_empty_folder_below_a_disk_that_is_not_mounted_and_nothing_counts_as_freed() {
    let stage = Stage::new();
    stage.hub();
    storage(&stage, "disk", "", &[("disk", "disk", "")]);
    stage.once(&[]).code(0);
    let key = put(&stage, "hello");
    fs::rename(stage.path("disk"), stage.path("away")).expect("moves");
    fs::create_dir(stage.path("disk")).expect("a folder");
    fs::write(stage.path("given"), "other").expect("a file");
    let refused = stage.run(&["blob", "put", "given"]).code(1);
    assert!(refused.err.contains("mounted"), "{}", refused.err);
    let removed = stage.run(&["blob", "rm", &key]).code(0);
    assert!(!removed.out.contains("freed") && !removed.err.contains("freed"), "{}{}", removed.out, removed.err);
    fs::remove_dir_all(stage.path("disk")).expect("removes");
    fs::rename(stage.path("away"), stage.path("disk")).expect("moves");
    stage.once(&[]).code(0);
    let other = put(&stage, "other");
    assert_eq!(stage.run(&["blob", "get", &other]).code(0).out, "other");
}
