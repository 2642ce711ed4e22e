//! What we ask of the outside world, as traits, and [`World`], the bundle of them. Adapters make them real, `sim` makes
//! them pretend. A port has few verbs, and each says in its comment what a second call with the same input does.

pub mod bearers;
pub mod blobs;
pub mod clock;
pub mod deliveries;
pub mod files;
pub mod hub;
pub mod keeper;
pub mod letters;
pub mod machine;
pub mod peers;
pub mod probes;
pub mod registry;
pub mod secrets;
pub mod sockets;
pub mod storage;
pub mod store;
pub mod tokens;
pub mod traces;
pub mod world;

use std::future::Future;
use std::pin::Pin;

pub use world::{Hand, Look, World};

/// An answer that may take a moment. Not `Send`: the engine and its ports live on one thread.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Why a port call did not do what was asked. The three are what the engine must tell apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It certainly was not done; later it may work.
    #[error("{0}")]
    Retry(String),
    /// It certainly was not done, and will not work until something else changes.
    #[error("{0}")]
    Never(String),
    /// It may or may not have been done. Look before you act again.
    #[error("{0}")]
    Unsure(String),
}
