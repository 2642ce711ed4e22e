//! The keeper: one small process per state folder that is the parent of every unit. It knows units, processes, signals and
//! output, and nothing of kinds, documents, plans or HTTP. Single-threaded: one epoll, no ticks, zero wake-ups when idle.
//!
//! `trueup` may come and go; the keeper holds the processes. The keeper may be killed too: no unit notices, and the next
//! keeper adopts them all (see [`marks`]).

mod actor;
/// The moment between the keeper and a program with rights and limits of its own.
pub mod becoming;
/// A cgroup for each unit that asks for one.
pub mod cgroup;
mod clock;
/// Commands beside a unit's own program, with no more rights than it has.
pub mod confined;
mod connections;
mod diary;
mod door;
mod error;
/// Reading `/proc`: who lives, since when, with which mark, in which process group.
pub mod find;
mod group;
mod handover;
mod hold;
mod left;
/// The output of units: FIFOs in, stamped and rotated files out.
pub mod logs;
/// What the keeper writes down of each unit, so that the next keeper finds it again.
pub mod marks;
mod notify;
mod server;
mod spawn;
mod strays;
/// The restart table: a pure function from (state, event) to (state, effects).
pub mod table;
/// The lines that the keeper and its clients exchange.
pub mod wire;

pub use connections::{SOCKET, short_path};
pub use error::KeeperError;
pub use handover::FLAG as TAKE_OVER;
pub use server::run;
