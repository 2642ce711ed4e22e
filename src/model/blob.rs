//! Blobs by name: the SRI key that people know, and the SHA-256 under which the bytes lie.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// SHA-256 of stored bytes, and at the same time the name of the object that holds them on every backend: whatever lies under a name
/// can be proved right or wrong without asking anybody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The hash of bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256 {
    /// 64 lower-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text names no blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBlobName {
    #[error("an object is named by 64 lower-case hex digits")]
    Object,
    #[error("a blob is named by one SRI hash, such as sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")]
    Key,
}

impl FromStr for Sha256 {
    type Err = BadBlobName;
    fn from_str(text: &str) -> Result<Self, BadBlobName> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        if text.len() != 64 {
            return Err(BadBlobName::Object);
        }
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or(BadBlobName::Object)?;
            *byte = high << 4 | low;
        }
        Ok(Self(out))
    }
}

/// The key of a blob: the integrity of the content's origin, one hash in the form of Subresource Integrity (W3C SRI). The stored bytes
/// may be another form of that content (an archive of it, say), so they have a hash of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Integrity(Arc<str>);

impl Integrity {
    /// The key of bytes that are their own origin.
    pub fn of(hash: &Sha256) -> Self {
        Self(format!("sha256-{}", STANDARD.encode(hash.0)).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Integrity {
    type Err = BadBlobName;
    fn from_str(text: &str) -> Result<Self, BadBlobName> {
        let (algorithm, hash) = text.split_once('-').ok_or(BadBlobName::Key)?;
        let length = match algorithm {
            "sha256" => 32,
            "sha384" => 48,
            "sha512" => 64,
            _ => return Err(BadBlobName::Key),
        };
        let bytes = STANDARD.decode(hash).map_err(|_| BadBlobName::Key)?;
        (bytes.len() == length).then(|| Self(text.into())).ok_or(BadBlobName::Key)
    }
}

impl TryFrom<String> for Integrity {
    type Error = BadBlobName;
    fn try_from(text: String) -> Result<Self, BadBlobName> {
        text.parse()
    }
}

impl From<Integrity> for String {
    fn from(key: Integrity) -> Self {
        key.0.to_string()
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl JsonSchema for Integrity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Integrity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(sha256-[A-Za-z0-9+/]{43}=|sha384-[A-Za-z0-9+/]{64}|sha512-[A-Za-z0-9+/]{86}==)$",
            "errorMessage": BadBlobName::Key.to_string()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_name_reads_back_as_it_was_written() {
        let name = Sha256::of(b"trueup");
        assert_eq!(name.to_string().parse::<Sha256>(), Ok(name));
        for wrong in ["", "ab", &name.to_string().to_uppercase(), &format!("{name}0")] {
            assert_eq!(wrong.parse::<Sha256>(), Err(BadBlobName::Object), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_one_hash_of_a_known_length() {
        let key = Integrity::of(&Sha256::of(b""));
        assert_eq!(key.as_str(), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(key.as_str().parse::<Integrity>(), Ok(key.clone()));
        for wrong in ["", "md5-AAAA", "sha512-AAA==", "sha256-47DEQpj8", &format!("{key} {key}"), &format!("{key}?x")] {
            assert_eq!(wrong.parse::<Integrity>(), Err(BadBlobName::Key), "{wrong}");
        }
    }
}
