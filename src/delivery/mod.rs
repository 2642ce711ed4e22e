//! Durable deliveries: events are written down before their vault is told that they were taken, and are delivered to their sink at least
//! once. It runs on threads of its own and is told by the hub what is wished.

/// How long to wait before the next attempt.
pub mod backoff;
/// When a sink is left in peace.
pub mod breaker;
/// The thread that delivers.
mod courier;
/// Reading an event: its note, and the key by which the same event is known again.
pub mod envelope;
/// What an answer of a sink means.
pub mod judge;
/// The body with the parameters of its connection.
pub mod params;
/// The room as others see it.
pub mod post;
/// Which event is to be sent when.
pub mod queue;
/// The thread that writes.
mod writer;

pub use post::{Parts, Room};
