//! Stories in which somebody could lose a blob: one place under two names, a disk that is not mounted, a sector that cannot be read.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use trueup::model::blob::Sha256;
use trueup::model::unit::Millis;
use trueup::ports::blobs::{Backend, BackendError, Location, Object, Placed, Put};
use trueup::ports::storage::{Settings, Storage};

use crate::stage::Stage;
use crate::storage_stage;

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
        assert!(!status.lines().any(|line| line.starts_with("old ")), "the old name is let go of: {status}");
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

/// A disk with one object that cannot be read.
struct Scratched(Arc<dyn Backend>, Sha256);

impl Backend for Scratched {
    fn open(&self, name: &Sha256, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, BackendError> {
        match *name == self.1 {
            true => Err(BackendError::Transient("input/output error".to_owned())),
            false => self.0.open(name, range),
        }
    }
    fn put(&self, object: &Object, body: &mut dyn Read, how: Put) -> Result<Placed, BackendError> {
        self.0.put(object, body, how)
    }
    fn settle(&self, names: &[Sha256]) -> Result<(), BackendError> {
        self.0.settle(names)
    }
    fn size(&self, name: &Sha256) -> Result<Option<u64>, BackendError> {
        self.0.size(name)
    }
    fn delete(&self, name: &Sha256) -> Result<(), BackendError> {
        self.0.delete(name)
    }
    fn list(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Object>, BackendError> {
        self.0.list(after, limit)
    }
    fn tidy(&self) -> Result<(), BackendError> {
        self.0.tidy()
    }
    fn owner(&self) -> Result<Option<String>, BackendError> {
        self.0.owner()
    }
    fn claim(&self, owner: &str) -> Result<(), BackendError> {
        self.0.claim(owner)
    }
}

#[test]
fn one_object_that_cannot_be_read_does_not_keep_the_others_from_being_checked() {
    let stage = storage_stage::Stage::new();
    let place = storage_stage::name("a");
    stage.index.activate(&place, trueup::model::time::Timestamp(1)).expect("activates");
    stage.backend("a").claim(&stage.index.standing().expect("stands").owner).expect("claims");
    let (_, first) = stage.put(b"scratched");
    let lease = stage.index.lease().expect("a lease");
    stage.index.verified(lease, &[(first.name, place.clone())], trueup::model::time::Timestamp(1)).expect("long ago");
    let others: Vec<Object> = (0..3).map(|n| stage.put(format!("blob {n}").as_bytes()).1).collect();
    let long_ago: Vec<_> = others.iter().map(|object| (object.name, place.clone())).collect();
    stage.index.verified(lease, &long_ago, trueup::model::time::Timestamp(2)).expect("a little later");
    let open = move |location: &Location| {
        storage_stage::open(location).map(|inner| Arc::new(Scratched(inner, first.name)) as Arc<dyn Backend>)
    };
    let mover = stage.mover_with(Arc::new(open));
    mover.tell(&stage.intent(&["a"], Settings { scrub: Some(Millis(60_000)), ..Settings::default() }));
    storage_stage::until(&mover, "the others are checked", |_| {
        others.iter().all(|object| {
            let row = stage.index.row(&object.name).expect("reads").expect("is there");
            row.verified.is_some_and(|at| at.0 > 2)
        })
    });
}
