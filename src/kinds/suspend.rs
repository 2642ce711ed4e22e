//! `suspend`: what its file keeps still, for good or until a moment. Pure.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::model::problem::{Code, Problem};
use crate::model::time::Timestamp;

/// `true`, `false`, or why and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Suspend {
    Plain(bool),
    For(SuspendFor),
}

/// Why something is suspended, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SuspendFor {
    /// Why, for people: it is shown wherever this is shown as suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub reason: Option<String>,
    /// Until when, as RFC 3339 with a zone: `2026-12-01T08:00:00Z`. After that it goes on by itself.
    /// Default: until this file says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl Default for Suspend {
    fn default() -> Self {
        Self::Plain(false)
    }
}

impl Suspend {
    /// Whether it is to be still now.
    pub fn holds(&self, now: Timestamp) -> bool {
        match self {
            Self::Plain(on) => *on,
            Self::For(_) => self.until().is_none_or(|until| now < until),
        }
    }

    /// Whether it is suspended without an end: only then others may have its port and routes.
    pub fn for_good(&self) -> bool {
        match self {
            Self::Plain(on) => *on,
            Self::For(_) => self.until().is_none(),
        }
    }

    /// When it ends by itself.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Plain(_) => None,
            Self::For(hold) => hold.until.as_deref().and_then(moment),
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::For(hold) => hold.reason.as_deref(),
        }
    }
}

impl JsonSchema for Suspend {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Suspend".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let with_words = generator.subschema_for::<SuspendFor>();
        json_schema!({
            "anyOf": [{ "type": "boolean" }, with_words],
            "errorMessage": "suspend is true, false, or { reason: TEXT, until: 2026-12-01T08:00:00Z }"
        })
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond()))
}

/// What no schema can tell.
pub fn check(document: &Document, suspend: &Suspend, problems: &mut Vec<Problem>) {
    let Suspend::For(SuspendFor { until: Some(text), .. }) = suspend else { return };
    if moment(text).is_some() {
        return;
    }
    let at = document.value_at("/spec/suspend/until");
    let problem = match text.parse::<jiff::civil::DateTime>() {
        Ok(local) => {
            let message = format!("`spec.suspend.until` does not say in which zone `{text}` is");
            let local = local.strftime("%Y-%m-%dT%H:%M:%S");
            Problem::error(Code::OutOfRange, at, message)
                .label("no zone")
                .hint(format!("write {local}Z for UTC, or an offset as in {local}+01:00"))
        }
        Err(_) => {
            let message = format!("`spec.suspend.until` cannot be `{text}`");
            Problem::error(Code::OutOfRange, at, message)
                .label("not a moment")
                .hint("a moment is written 2026-12-01T08:00:00Z (RFC 3339, with a zone)")
        }
    };
    problems.push(problem);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(text: &str) -> Suspend {
        Suspend::For(SuspendFor { reason: None, until: Some(text.to_owned()) })
    }

    #[test]
    fn it_holds_until_its_moment_and_not_at_it() {
        let suspend = until("2026-12-01T08:00:00+01:00");
        let end = suspend.until().expect("a moment");
        assert_eq!(end.to_string(), "2026-12-01T07:00:00.000Z");
        assert!(suspend.holds(Timestamp(end.0 - 1)) && !suspend.holds(end) && !suspend.for_good());
        assert!(Suspend::Plain(true).holds(end) && Suspend::Plain(true).for_good());
        assert!(!Suspend::default().holds(end));
        assert!(Suspend::For(SuspendFor::default()).for_good());
    }
}
