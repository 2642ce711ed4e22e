//! Bytes on their way: counted and hashed as they pass, so that what is wrong never gets as far as being an object.

use std::io::{self, Read};

use sha2::Digest as _;

use crate::model::blob::Sha256;
use crate::ports::blobs::{BackendError, Object};

/// SHA-256 of a stream that is not at hand as a whole.
#[derive(Clone, Default)]
pub struct Hasher {
    state: sha2::Sha256,
    bytes: u64,
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// What has passed so far.
    pub fn object(&self) -> Object {
        Object { name: Sha256(self.state.clone().finalize().into()), size: self.bytes }
    }
}

/// Passes bytes on and fails at the end (with [`BackendError::Body`]) unless they were exactly the object: whoever stores the body must
/// see its end before it stores anything for good.
pub struct Checked<R> {
    from: R,
    expected: Object,
    seen: Hasher,
}

impl<R: Read> Checked<R> {
    pub fn new(from: R, expected: Object) -> Self {
        Self { from, expected, seen: Hasher::default() }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.seen.update(&buffer[..count]);
        let ended = count == 0 && !buffer.is_empty();
        if self.seen.bytes > self.expected.size || ended && self.seen.object() != self.expected {
            return Err(BackendError::Body(mismatch(&self.seen, &self.expected)).into_io());
        }
        Ok(count)
    }
}

fn mismatch(seen: &Hasher, expected: &Object) -> String {
    if seen.bytes == expected.size {
        return format!("its bytes are not what they were (their SHA-256 is {})", seen.object().name);
    }
    let more = if seen.bytes > expected.size { "more than " } else { "" };
    format!("it has {more}{} bytes instead of {}", seen.bytes.min(expected.size), expected.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], expected: Object) -> Result<Vec<u8>, BackendError> {
        let mut out = Vec::new();
        let done = Checked::new(bytes, expected).read_to_end(&mut out);
        done.map(|_| out).map_err(|error| BackendError::from_io(&error))
    }

    #[test]
    fn what_is_whole_and_right_passes() {
        let object = Object { name: Sha256::of(b"abc"), size: 3 };
        assert_eq!(read(b"abc", object), Ok(b"abc".to_vec()));
        assert_eq!(read(b"", Object { name: Sha256::of(b""), size: 0 }), Ok(Vec::new()));
    }

    #[test]
    fn what_is_cut_longer_or_changed_fails_and_says_how() {
        let object = Object { name: Sha256::of(b"abc"), size: 3 };
        let body = |bytes: &[u8]| match read(bytes, object) {
            Err(BackendError::Body(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(body(b"ab"), "it has 2 bytes instead of 3");
        assert_eq!(body(b"abcd"), "it has more than 3 bytes instead of 3");
        assert!(body(b"abd").starts_with("its bytes are not what they were"), "{}", body(b"abd"));
    }
}
