//! A StorageBackend is a place where blobs can lie. It needs nothing; it offers the Storage whether it can be used.

pub mod check;
pub mod inputs;
pub mod observe;
pub mod plan;
pub mod spec;
#[cfg(test)]
mod tests;
