//! Blobs made real: the backends, the index, the locks.

mod body;
/// A folder.
pub mod fs;
/// An SQLite database.
pub mod sqlite;
mod staging;
