//! What is decided of the Storage.
