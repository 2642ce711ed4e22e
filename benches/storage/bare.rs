//! The bare loop: reads, hashes, writes, makes durable in groups, reads back and hashes. It knows no index, no faults and no second
//! process, so nothing that does more can be expected to be faster by much.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256 as Hash};
use trueup::model::blob::Sha256;
use trueup::ports::blobs::Object;

/// Objects that share the cost of durability: as many, and as many bytes, as in the mover.
pub const GROUP: usize = 256;
const GROUP_BYTES: u64 = 8 << 20;
pub const PIECE: usize = 256 << 10;

/// Where an object lies in a folder.
pub fn path(root: &Path, name: &Sha256) -> PathBuf {
    let text = name.to_string();
    root.join(&text[..2]).join(&text[2..])
}

/// Copies all objects with so many threads; each makes its own way of copying a group.
pub fn copy<G: FnMut(&[Object], &mut [u8])>(objects: &[Object], threads: usize, way: impl Fn() -> G + Sync) {
    let mut groups: Vec<&[Object]> = Vec::new();
    let mut rest = objects;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |object: &&Object| {
            bytes += object.size;
            bytes <= GROUP_BYTES
        };
        let count = rest.iter().take(GROUP).take_while(fits).count().max(1);
        let (group, others) = rest.split_at(count);
        groups.push(group);
        rest = others;
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; PIECE];
                let mut bring = way();
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bring(group, &mut buffer);
                }
            });
        }
    });
}

/// Reads to the end, and passes it on if that is wanted.
pub fn hash(mut from: impl Read, buffer: &mut [u8], mut to: Option<&mut dyn Write>) -> [u8; 32] {
    let mut hash = Hash::new();
    loop {
        match from.read(buffer).expect("reads") {
            0 => return hash.finalize().into(),
            count => {
                hash.update(&buffer[..count]);
                if let Some(to) = to.as_mut() {
                    to.write_all(&buffer[..count]).expect("writes");
                }
            }
        }
    }
}

/// What is to be copied.
pub fn source(from: &Path, object: &Object) -> File {
    File::open(path(from, &object.name)).expect("a source")
}

/// A group from a folder to a folder.
pub fn to_folder(from: &Path, to: &Path, group: &[Object], buffer: &mut [u8]) {
    let folder = File::open(to).expect("a folder");
    let temporary = |object: &Object| to.join(format!("{}.tmp", object.name));
    for object in group {
        let mut target = File::create(temporary(object)).expect("a target");
        assert_eq!(hash(source(from, object), buffer, Some(&mut target)), object.name.0);
    }
    rustix::fs::syncfs(&folder).expect("syncs");
    for object in group {
        let place = path(to, &object.name);
        fs::create_dir_all(place.parent().expect("a parent")).expect("a folder");
        fs::rename(temporary(object), place).expect("renames");
    }
    rustix::fs::syncfs(&folder).expect("syncs");
    for object in group {
        assert_eq!(hash(File::open(path(to, &object.name)).expect("there"), buffer, None), object.name.0);
    }
}
