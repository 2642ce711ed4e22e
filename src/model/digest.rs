//! Digests (BLAKE3). They never leave the machine, so speed decides; blobs have their own hashes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A BLAKE3 digest, shown and stored as 32 hex characters (128 bits are plenty to tell versions apart).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self::short(&blake3::hash(bytes))
    }

    /// Of everything that can be read.
    ///
    /// # Errors
    /// When reading fails.
    pub fn of_stream(from: impl std::io::Read) -> std::io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(from)?;
        Ok(Self::short(&hasher.finalize()))
    }

    /// A digest that cannot be guessed from a dictionary of likely values: used wherever a secret is part
    /// of what is digested. The key is made once per state folder and never printed.
    pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        Self::short(&blake3::keyed_hash(key, bytes))
    }

    /// One that was written down earlier.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    fn short(hash: &blake3::Hash) -> Self {
        Self(hash.to_hex()[..32].to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
