//! A Connection makes a module do something when something happens in a vault. It needs the services at both ends and the hub.

pub mod apply;
pub mod check;
pub mod fill;
pub mod inputs;
pub mod observe;
pub mod plan;
pub mod record;
pub mod spec;
#[cfg(test)]
mod tests;
