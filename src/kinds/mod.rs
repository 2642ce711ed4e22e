//! One folder per kind, the same files in each.
pub mod hub;
pub mod service;
