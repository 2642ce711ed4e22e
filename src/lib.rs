//! trueup trues up one machine to a folder of YAML. The rooms, top to bottom in reading order (ARCHITECTURE.md is the map).

#![forbid(unsafe_code)]

/// Text to located documents; collects problems, never fails.
pub mod document;
/// Nouns everyone may use: ids, units, time, problems, observations, conditions, secrets.
pub mod model;
/// What we ask of the outside world, as traits, and `World`, the bundle of them.
pub mod ports;

/// One folder per kind, the same files in each.
pub mod kinds;

/// Ports made real.
pub mod adapters;
/// Keys, tokens and grants: who may do what.
pub mod authority;
/// One file per command; parses words, renders lines. It reaches the engine only through `cli::engine`.
pub mod cli;
/// Wiring: the real world behind the commands, and the continuous mode.
pub mod daemon;
/// Events from vaults to sinks, at least once; with threads of its own.
pub mod delivery;
/// Small real modules for examples and tests.
pub mod demo;
/// Documents to one checked graph.
pub mod desired;
/// Look, plan, do, record; the only owner of change.
pub mod engine;
/// The HTTP face: reverse proxy to modules, API, health.
pub mod hub;
/// The process that is parent of every module.
pub mod keeper;
/// Desired, ledger and observed to ordered steps; pure.
pub mod plan;
/// Ports made pretend; only tests use them.
pub mod sim;
/// Blobs: put, read, move, verify, sweep; with threads of its own.
pub mod storage;
