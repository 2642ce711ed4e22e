//! Blobs made real: the backends, the index, the locks.

pub mod index;
