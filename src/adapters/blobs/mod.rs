//! Blobs made real: the backends, the index, the locks.

mod body;
/// A folder.
pub mod fs;
/// What lies where.
pub mod index;
/// The kernel's locks.
pub mod latches;
/// An SQLite database.
pub mod sqlite;
mod staging;
