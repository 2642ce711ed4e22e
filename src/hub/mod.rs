//! The HTTP face of the machine: one origin for all modules, and what people and programs may ask of trueup. It runs on threads of its
//! own, so that a request never waits for a tick, and knows the machine only by what the engine told it last.

pub mod bounds;
mod front;
mod gate;
mod health;
pub mod proxy;
mod router;
pub mod serve;
pub mod site;
mod stream;
mod tls;
mod worker;

pub use bounds::Bounds;
pub use serve::{Parts, Server};
pub use site::{Board, Site};
