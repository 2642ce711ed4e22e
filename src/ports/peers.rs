//! Calls to modules on this machine: to the vaults that keep triggers, and to the sinks that are told something. What a call means is
//! decided in `kinds`; here it is only made.

use super::{Answer, PortError};
use crate::model::secret::Secret;
use crate::model::unit::Millis;

/// More of an answer is not read.
pub const MOST_ANSWER_BYTES: usize = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// One request to a port of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub port: u16,
    /// With its query.
    pub path: String,
    pub bearer: Option<Secret>,
    /// JSON. It may hold tokens.
    pub body: Option<Secret>,
    pub timeout: Millis,
}

/// What came back, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Whoever makes the calls. Safe to call again only as far as the call itself is.
pub trait Peers {
    /// # Errors
    /// [`PortError::Retry`] when it certainly did not arrive; [`PortError::Unsure`] when it may have and no whole answer came;
    /// [`PortError::Never`] when it cannot be made at all.
    fn call(&self, call: Call) -> Answer<'_, Result<Reply, PortError>>;
}
