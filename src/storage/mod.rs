//! Blobs: put, read, move between backends, verify, sweep. It works on the ports of `ports::blobs` with threads of its own, and the
//! engine tells it what is wished. Whatever it does is found again in the index, so it may be killed at any point.

pub mod body;
pub mod depot;
pub mod put;
pub mod read;
pub mod remove;
pub mod spool;
#[cfg(test)]
mod tests;
