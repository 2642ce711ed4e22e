//! From lines to what a person (or a program) reads. Nothing else in the house prints.

pub mod blobs;
pub mod catalog;
pub mod deliveries;
pub mod describe;
pub mod human;
pub mod lines;
pub mod pause;
pub mod printable;
pub mod problem;
pub mod progress;
pub mod screen;
pub mod show;
pub mod style;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;
