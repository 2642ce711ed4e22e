//! A Service: one supervised module.
pub mod spec;
