//! Nouns everyone may use: ids, units, time, problems, observations, conditions, events, secrets.
//! This room knows nothing of ours and never waits for anything.

pub mod blob;
pub mod blob_output;
pub mod catalog_output;
pub mod condition;
pub mod delivery_output;
mod described;
pub mod digest;
pub mod event;
pub mod exit;
pub mod id;
pub mod observed;
pub mod output;
pub mod overriding;
pub mod own_scope;
pub mod problem;
pub mod route;
pub mod secret;
pub mod seldom;
pub mod source;
pub mod span;
pub mod time;
pub mod token_output;
pub mod unit;
pub mod wording;
