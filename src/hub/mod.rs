//! The HTTP face of the machine: one origin for all modules, and what people and programs may ask of trueup. It runs on threads of its
//! own, so that a request never waits for a tick, and knows the machine only by what the engine told it last.

pub mod api;
pub mod bounds;
mod front;
mod gate;
mod health;
mod inbox;
mod leave;
pub mod limit;
pub mod metrics;
pub mod office;
pub mod operations;
mod parachute;
pub mod proxy;
pub mod refusal;
pub mod request_id;
mod router;
mod selfprobe;
pub mod serve;
pub mod site;
mod spans;
mod state;
mod stream;
mod tls;
mod tokens;
pub mod vital;
mod worker;

pub use bounds::Bounds;
pub use selfprobe::SelfProbe;
pub use serve::{Parts, Server};
pub use site::{Board, Site};
