//! Durations, sizes and shares as people write them in YAML: `200ms`, `10MiB`, `20%`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A span of time in milliseconds, written `200ms`, `5s`, `10m`, `24h` or `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// A size in bytes, written `512B`, `64KiB`, `10MiB` or `1GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// A share of a whole, written `20%` (0 to 100).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u8);

/// Why a text is not a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct BadUnit {
    text: String,
    wanted: &'static str,
}

const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Splits `12ms` into digits and unit, and multiplies.
fn read(text: &str, units: &[(&str, u64)], wanted: &'static str) -> Result<u64, BadUnit> {
    let bad = || BadUnit { text: text.to_owned(), wanted };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    number.checked_mul(*factor).ok_or_else(bad)
}

/// Writes with the largest unit that divides, so that reading it back gives the same value.
fn write(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = units.iter().rev().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = fits.unwrap_or(&units[0]);
    f.pad(&format!("{}{unit}", value / factor))
}

/// The patterns allow so many digits that no value overflows 64 bits in its largest unit.
macro_rules! textual {
    ($type:ident, $pattern:literal, $sentence:literal, $example:literal, $read:expr, $write:expr) => {
        impl FromStr for $type {
            type Err = BadUnit;
            fn from_str(text: &str) -> Result<Self, BadUnit> {
                $read(text)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $write(self, f)
            }
        }
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "pattern": $pattern, "examples": [$example], "errorMessage": $sentence
                })
            }
        }
    };
}

const TIME_WORDS: &str = "a duration such as 200ms, 5s, 10m, 24h or 7d";
const SIZE_WORDS: &str = "a size such as 512B, 64KiB, 10MiB or 1GiB";
const PERCENT_WORDS: &str = "a share from 0% to 100%";

textual!(
    Millis,
    "^[0-9]{1,11}(ms|s|m|h|d)$",
    "a duration is written 200ms, 5s, 10m, 24h or 7d",
    "5s",
    |t| read(t, &TIMES, TIME_WORDS).map(Millis),
    |v: &Millis, f| write(v.0, &TIMES, f)
);
textual!(
    Bytes,
    "^[0-9]{1,10}(B|KiB|MiB|GiB)$",
    "a size is written 512B, 64KiB, 10MiB or 1GiB",
    "10MiB",
    |t| read(t, &SIZES, SIZE_WORDS).map(Bytes),
    |v: &Bytes, f| write(v.0, &SIZES, f)
);
textual!(
    Percent,
    "^(100|[0-9]{1,2})%$",
    "a share is written 0% to 100%",
    "20%",
    |t: &str| {
        let bad = || BadUnit { text: t.to_owned(), wanted: PERCENT_WORDS };
        let digits = t.strip_suffix('%').ok_or_else(bad)?;
        digits.parse().ok().filter(|p| *p <= 100).map(Percent).ok_or_else(bad)
    },
    |v: &Percent, f: &mut fmt::Formatter<'_>| f.pad(&format!("{}%", v.0))
);

impl Millis {
    pub const fn secs(secs: u64) -> Self {
        Self(secs * 1_000)
    }
}

impl From<Millis> for std::time::Duration {
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_reads_back_as_it_was_written() {
        for text in ["0ms", "200ms", "5s", "90s", "10m", "24h", "7d"] {
            let span: Millis = text.parse().expect(text);
            assert_eq!(span.to_string().parse::<Millis>().expect("reads back"), span);
        }
        assert_eq!("90s".parse::<Millis>().expect("90s").to_string(), "90s");
        assert_eq!("10MiB".parse::<Bytes>().expect("10MiB"), Bytes(10 << 20));
        assert_eq!("20%".parse::<Percent>().expect("20%").to_string(), "20%");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "5", "s", "-5s", "5 s", "5S", "99999999999999999999s", "1e3s"] {
            assert!(text.parse::<Millis>().is_err(), "{text}");
        }
        assert!("101%".parse::<Percent>().is_err());
        assert!("10MB".parse::<Bytes>().is_err());
    }
}
