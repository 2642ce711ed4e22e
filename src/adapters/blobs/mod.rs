//! Blobs made real: the backends, the index, the locks.

mod body;
/// A folder.
pub mod fs;
/// What lies where.
pub mod index;
/// The kernel's locks.
pub mod latches;
/// A bucket of an S3 server.
pub mod s3;
/// An SQLite database.
pub mod sqlite;
mod staging;

use std::sync::Arc;

use crate::ports::blobs::{Backend, BackendError, Location};

/// Opens a backend. A folder or a database is made when it is not there; a server is not asked yet.
///
/// # Errors
/// When it cannot be made or opened, or cannot be meant.
pub fn open(location: &Location) -> Result<Arc<dyn Backend>, BackendError> {
    Ok(match location {
        Location::Fs { path } => Arc::new(fs::Fs::open(path)?),
        Location::Sqlite { path } => Arc::new(sqlite::Sqlite::open(path)?),
        Location::S3(bucket) => Arc::new(s3::S3::open(bucket)?),
    })
}

#[cfg(test)]
mod tests;
