//! What is decided of a StorageBackend.
