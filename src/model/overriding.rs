//! An override: a person keeps a service stopped, or running, against its file, for a while.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::id::ResourceId;
use super::time::Timestamp;
use super::unit::Millis;

/// What a person wishes against the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Against {
    /// `trueup stop`: stopped, although its file says run.
    Stop,
    /// `trueup start`: running, although its file says suspended.
    Start,
}

impl Against {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
        }
    }
}

/// An override of one service. It ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    pub resource: ResourceId,
    pub wish: Against,
    /// Why, for people; may be empty.
    pub reason: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

/// A clock that is put right may go back a little: that does not end what was asked a moment ago.
const SMALL_CORRECTION: Millis = Millis(5_000);

impl Override {
    /// Whether it is in force by the wall clock. A clock that was set back to before it began ends it: how much of it is left
    /// cannot be told any more, and it must not last longer than it was asked for.
    pub fn in_force(&self, now: Timestamp) -> bool {
        now < self.until && now.0.saturating_add_unsigned(SMALL_CORRECTION.0) >= self.since.0
    }

    /// How long it still lasts.
    pub fn left(&self, now: Timestamp) -> Millis {
        let whole = self.until.0.saturating_sub(self.since.0);
        Millis(u64::try_from(self.until.0.saturating_sub(now.0).min(whole)).unwrap_or(0))
    }

    /// `by trueup stop: disk swap`.
    pub fn by(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("by trueup {}{reason}", self.wish.as_str())
    }
}

/// What a person asks for some services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverrideRequest {
    pub names: Vec<super::id::Name>,
    pub wish: Against,
    /// How long.
    pub span: Millis,
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Name;

    #[test]
    fn it_ends_at_its_time_and_with_a_clock_set_back() {
        let (since, until) = (Timestamp(1_000_000), Timestamp(4_600_000));
        let resource = ResourceId::service(&Name::new("a").expect("a name"));
        let one = Override { resource, wish: Against::Stop, reason: String::new(), since, until };
        assert!(one.in_force(since) && one.in_force(Timestamp(until.0 - 1)));
        assert!(!one.in_force(until) && !one.in_force(Timestamp(until.0 + 1)));
        assert!(one.in_force(Timestamp(since.0 - 5_000)) && !one.in_force(Timestamp(since.0 - 5_001)));
        assert_eq!(one.left(Timestamp(since.0 - 5_000)), Millis(3_600_000));
        assert_eq!(one.left(Timestamp(until.0 + 1)), Millis(0));
    }
}
