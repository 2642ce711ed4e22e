//! trueup trues up one machine to a folder of YAML. The rooms, top to bottom in reading order (ARCHITECTURE.md is the map).

#![forbid(unsafe_code)]

/// One folder per kind.
pub mod kinds;
/// Nouns everyone may use: ids, units, time, problems, observations, conditions, secrets.
pub mod model;
/// What we ask of the outside world, as traits.
pub mod ports;
