//! Blobs made real: the backends, the index, the locks.
