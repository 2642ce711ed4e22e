//! Blobs: put, read, move between backends, verify, sweep. It works on the ports of `ports::blobs` with threads of its own, and the
//! engine tells it what is wished. Whatever it does is found again in the index, so it may be killed at any point.

pub mod body;
pub mod depot;
pub mod mover;
pub mod pace;
pub mod put;
pub mod read;
pub mod remove;
pub mod spool;
pub mod turn;

/// One group of objects on its way.
mod batch;
mod probe;
mod progress;
mod scrub;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;
mod work;
