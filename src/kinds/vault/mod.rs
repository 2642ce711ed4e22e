//! A Vault is one vault of notes in a Service. It needs that service; connections and credentials are for it.

pub mod apply;
pub mod plan;
pub mod record;
pub mod spec;
#[cfg(test)]
mod tests;
