//! What every backend does with a body that is to be put: read it in pieces, and be sure of its length before its end counts.

use std::io::{ErrorKind, Read};

use crate::ports::blobs::{BackendError, Object};

/// How much is read of a body, and of an object, at once.
pub(super) const PIECE: usize = 256 << 10;

/// A body of a known length.
pub(super) struct Body<'a> {
    from: &'a mut dyn Read,
    size: u64,
    left: u64,
    ended: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(from: &'a mut dyn Read, object: &Object) -> Self {
        Self { from, size: object.size, left: object.size, ended: false }
    }

    /// A buffer for the pieces of this body, no longer than it needs to be.
    pub(super) fn buffer(&self, piece: usize) -> Vec<u8> {
        vec![0; usize::try_from(self.size).unwrap_or(piece).min(piece)]
    }

    /// Fills the buffer, or as much of it as the body has left; 0 is the end. The last piece is only given out once the body was seen
    /// to end there: a body that checks its own hash does so at its end.
    ///
    /// # Errors
    /// [`BackendError::Body`].
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, BackendError> {
        let wanted = usize::try_from(self.left).unwrap_or(buffer.len()).min(buffer.len());
        let mut filled = 0;
        while filled < wanted {
            match self.read(&mut buffer[filled..wanted])? {
                0 => {
                    let seen = self.size - self.left;
                    return Err(BackendError::Body(format!("it has {seen} bytes instead of {}", self.size)));
                }
                count => {
                    filled += count;
                    self.left -= count as u64;
                }
            }
        }
        if self.left == 0 && !self.ended {
            if self.read(&mut [0])? > 0 {
                return Err(BackendError::Body(format!("it has more than {} bytes", self.size)));
            }
            self.ended = true;
        }
        Ok(filled)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BackendError> {
        loop {
            match self.from.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whatever it was that the body's own backend could not do, it says nothing about the one that stores it.
                Err(error) => return Err(BackendError::Body(BackendError::from_io(&error).to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blob::Sha256;

    fn pieces(bytes: &[u8], size: u64) -> Result<Vec<usize>, BackendError> {
        let mut from = bytes;
        let mut body = Body::new(&mut from, &Object { name: Sha256::of(bytes), size });
        let mut buffer = body.buffer(4);
        let mut counts = Vec::new();
        loop {
            match body.fill(&mut buffer)? {
                0 => return Ok(counts),
                count => counts.push(count),
            }
        }
    }

    #[test]
    fn a_body_comes_in_full_pieces_and_must_have_its_length() {
        assert_eq!(pieces(b"", 0), Ok(vec![]));
        assert_eq!(pieces(b"abcd", 4), Ok(vec![4]));
        assert_eq!(pieces(b"abcdefghi", 9), Ok(vec![4, 4, 1]));
        assert_eq!(pieces(b"abc", 4), Err(BackendError::Body("it has 3 bytes instead of 4".into())));
        assert_eq!(pieces(b"abcde", 4), Err(BackendError::Body("it has more than 4 bytes".into())));
        assert_eq!(pieces(b"a", 0), Err(BackendError::Body("it has more than 0 bytes".into())));
    }
}
