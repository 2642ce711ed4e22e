//! What the rooms log, to the standard error: warnings always, more with each `-v`; lines of JSON with `-o json`. Of the libraries below us
//! only warnings: what they tell of a request, they tell whole.

use std::io;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::args::Format;

/// Somebody else who is told.
pub type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// How it is told.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// So many `-v`.
    pub verbose: u8,
    pub format: Format,
    pub colour: bool,
}

pub fn begin(manner: Manner, listener: Option<Listener>) {
    let level = match manner.verbose {
        0 => Level::WARN,
        1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let heard = Targets::new().with_default(Level::WARN).with_target(env!("CARGO_CRATE_NAME"), level);
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let lines: Listener = match manner.format {
        Format::Json => {
            let json = lines.json().flatten_event(true).with_current_span(false).with_span_list(true);
            json.with_filter(heard).boxed()
        }
        _ => lines.with_ansi(manner.colour).with_filter(heard).boxed(),
    };
    let layers: Vec<Listener> = std::iter::once(lines).chain(listener).collect();
    // Fails only when there is a subscriber already, as in tests.
    let _ = tracing_subscriber::registry().with(layers).try_init();
}
