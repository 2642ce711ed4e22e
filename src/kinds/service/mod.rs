//! A Service is one supervised module. It needs the Services it depends on, and offers them how far it has come
//! ([`plan::Standing`]). The keeper owns its liveness (restarting what crashed); this kind owns intent: up or down, with which
//! command, environment and port, and whether its row in services.json says the same.

pub mod accepts;
pub mod apply;
pub mod check;
pub mod declares;
pub mod health;
pub mod inputs;
mod keys;
pub mod module;
pub mod observe;
pub mod plan;
mod rights;
pub mod schedule;
pub mod scheduled;
pub mod spec;

#[cfg(test)]
mod accepts_tests;
#[cfg(test)]
mod declares_tests;
#[cfg(test)]
mod tests;
pub mod trial;
mod weight;
