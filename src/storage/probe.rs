//! Whether a backend can be used: whose it is, and whether it gives back what it is given.

use std::io::Read;

use super::batch::object_of;
use crate::model::blob::Sha256;
use crate::model::wording::count;
use crate::ports::blobs::{Backend, BackendError, Object, Put};

/// What is written to try a backend.
const PROBE_BYTES: usize = 1 << 10;

/// Tries a backend with an object that nobody has, and marks it as ours. Nothing of it stays.
///
/// # Errors
/// `Refused` when it is another's, or when it does not do what a backend must; otherwise what the backend said.
pub(super) fn probe(backend: &dyn Backend, owner: &str, mut roll: impl FnMut() -> u64) -> Result<(), BackendError> {
    ours(backend, owner)?;
    let bytes = nobodys(&mut roll);
    let object = object_of(&bytes);
    let tried = through(backend, &object, &bytes);
    if tried.is_err() {
        // What is left of it would be found as an orphan one day; the first failure is the one to tell.
        let _ = backend.delete(&object.name);
    }
    tried
}

/// Bytes that nobody has.
fn nobodys(roll: &mut impl FnMut() -> u64) -> Vec<u8> {
    (0..PROBE_BYTES / 8).flat_map(|_| roll().to_le_bytes()).collect()
}

/// Whether two backends are two places: what is written to the one is not seen in the other. No name tells, because of links, host names
/// and mounts.
///
/// # Errors
/// What either of them said; then nothing is known.
pub(super) fn are_apart(
    one: &dyn Backend,
    other: &dyn Backend,
    mut roll: impl FnMut() -> u64,
) -> Result<bool, BackendError> {
    let bytes = nobodys(&mut roll);
    let object = object_of(&bytes);
    let put = one.put(&object, &mut &bytes[..], Put::Replace).and_then(|_| one.settle(&[object.name]));
    let seen = put.and_then(|()| other.size(&object.name));
    one.delete(&object.name)?;
    seen.map(|seen| seen.is_none())
}

/// Whose objects lie on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Us,
    Nobody,
}

/// Whose it is. `objects` of ours should lie there.
///
/// # Errors
/// `Refused` when it is another's, or nobody's although something of ours should be there; otherwise what the backend said.
pub(super) fn whose(backend: &dyn Backend, owner: &str, objects: u64) -> Result<Owner, BackendError> {
    match backend.owner()? {
        Some(found) if found == owner => Ok(Owner::Us),
        Some(found) => Err(BackendError::Refused(format!(
            "it belongs to another storage ('{found}', and this is '{owner}'): name a folder, database or prefix of its own, or remove \
             the mark of the owner there if that storage is gone for good"
        ))),
        None if objects > 0 => Err(BackendError::Refused(format!(
            "nothing of ours is there, where {} should be: a disk may not be mounted, or its place was changed in the file; put that \
             right, or bring the bytes there together with the mark of their owner (`trueup-owner`)",
            count(objects, "object")
        ))),
        None => Ok(Owner::Nobody),
    }
}

fn ours(backend: &dyn Backend, owner: &str) -> Result<(), BackendError> {
    if whose(backend, owner, 0)? == Owner::Nobody {
        backend.claim(owner)?;
    }
    match whose(backend, owner, 0)? {
        Owner::Us => Ok(()),
        Owner::Nobody => Err(wrong("forgets whose it is")),
    }
}

fn through(backend: &dyn Backend, object: &Object, bytes: &[u8]) -> Result<(), BackendError> {
    backend.put(object, &mut &bytes[..], Put::Replace)?;
    backend.settle(&[object.name])?;
    let mut back = Vec::new();
    let reader = backend.open(&object.name, None).map_err(|error| match error {
        BackendError::Missing => wrong("does not have what was just written"),
        other => other,
    })?;
    reader.take(bytes.len() as u64 + 1).read_to_end(&mut back).map_err(|error| BackendError::from_io(&error))?;
    if back != bytes {
        return Err(wrong("gives back other bytes than it was given"));
    }
    if backend.size(&object.name)? != Some(object.size) {
        return Err(wrong("gives another size than was written"));
    }
    if backend.list(before(&object.name).as_ref(), 1)? != [*object] {
        return Err(wrong("does not list what was just written"));
    }
    backend.delete(&object.name)?;
    match backend.size(&object.name)? {
        None => Ok(()),
        Some(_) => Err(wrong("keeps what was deleted")),
    }
}

fn wrong(how: &str) -> BackendError {
    BackendError::Refused(format!("it {how}"))
}

/// The name right before this one, if there is any.
fn before(name: &Sha256) -> Option<Sha256> {
    let mut bytes = name.0;
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            return Some(Sha256(bytes));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_before_another_is_the_next_smaller_one() {
        let name = |last: [u8; 2]| {
            let mut bytes = [7; 32];
            bytes[30..].copy_from_slice(&last);
            Sha256(bytes)
        };
        assert_eq!(before(&name([1, 0])), Some(name([0, 255])));
        assert_eq!(before(&name([1, 9])), Some(name([1, 8])));
        assert_eq!(before(&Sha256([0; 32])), None);
    }
}
