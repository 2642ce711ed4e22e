//! The Hub: settings of the tree. Needs nothing, offers its settings to every other kind.
pub mod check;
pub mod plan;
pub mod spec;
