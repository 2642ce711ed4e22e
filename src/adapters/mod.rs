//! The ports made real. Nothing here knows a kind, a plan or a document; it only does what a port promises.

/// The system's clocks and its source of chance.
pub mod blobs;
pub mod clock;
/// Events on their way to sinks.
pub mod deliveries;
/// The limit of open files.
pub mod descriptors;
/// The only door to the process environment.
pub mod environment;
/// Reading the manifest tree, and being woken when it changes.
pub mod files;
/// The database of keys, tokens and grants.
pub mod hubdb;
/// The client of the keeper.
pub mod keeper;
/// The kernel lock on a state folder.
pub mod lock;
/// Users, rights and cgroups of this machine.
pub mod machine;
/// Calls to modules on this machine.
pub mod peers;
/// Readiness probes on tokio tasks.
pub mod probes;
/// services.json in the home of the modules.
pub mod registry;
/// Environment variables and secret commands.
pub mod secrets;
/// The kernel's tables of listening sockets.
pub mod sockets;
/// The ledger in SQLite.
pub mod sqlite;
/// Spans to a collector.
#[cfg(feature = "otlp")]
pub mod traces;

/// One small GET to a loopback port.
pub mod web;

#[cfg(test)]
pub(crate) mod testing;
