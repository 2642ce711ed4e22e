//! The ports made pretend: a world with a virtual clock, seeded dice, processes that crash, files that break, and a fate in front of
//! every port call that may let it fail, or kill us before or after it. Ordinary code, used by tests only. The keeper's restart
//! table and the ledger in it are the real ones.

pub mod deliveries;
pub mod earth;
pub mod fate;
pub mod storage;
pub mod story;
pub mod tokens;
pub mod town;
mod world;

pub use world::{block_on, pretend};
