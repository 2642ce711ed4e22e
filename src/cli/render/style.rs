//! Colours by meaning. Texts are always painted; the screen takes the paint off where it is not wanted.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const CHANGE: Style = AnsiColor::Yellow.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub const DRIFT: Style = AnsiColor::Magenta.on_default();
pub const WAIT: Style = AnsiColor::Cyan.on_default();
pub const QUIET: Style = Style::new().dimmed();
pub const STRONG: Style = Style::new().bold();

/// The colours that tell units apart in merged output; red and yellow are kept for what they mean elsewhere.
pub const UNITS: [Style; 6] = [
    AnsiColor::Cyan.on_default(),
    AnsiColor::Green.on_default(),
    AnsiColor::Magenta.on_default(),
    AnsiColor::Blue.on_default(),
    AnsiColor::BrightCyan.on_default(),
    AnsiColor::BrightGreen.on_default(),
];

/// The text in the colour.
pub fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}
