//! The binary: hands the words over to the command line and returns its exit code.

use std::process::ExitCode;

use trueup::{cli, daemon};

fn main() -> ExitCode {
    daemon::keep_descriptors_to_ourselves();
    // A demonstration module ends with whatever code it was told to, so it is not a command among the others.
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if let [first, rest @ ..] = words.as_slice()
        && first == "demo"
    {
        return ExitCode::from(daemon::demo(rest));
    }
    if let [first, rest @ ..] = words.as_slice()
        && first == daemon::BECOME
    {
        return ExitCode::from(daemon::become_program(rest));
    }
    cli::main(&daemon::Real)
}
