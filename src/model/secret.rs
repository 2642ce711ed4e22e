//! A value that must never be shown: no `Serialize`, a redacted `Debug`, and one named way to see it.

use std::fmt;

/// Holds a secret. Only [`Secret::reveal`] gives it out; call sites of that name are the audit list.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that must use it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
