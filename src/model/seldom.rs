//! Something that may happen a thousand times a second and is said now and then.

use super::time::Tick;
use super::unit::Millis;

/// Between two times that it is said.
pub const PAUSE: Millis = Millis(60_000);

/// What happens too often to be said every time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    said: Option<Tick>,
    /// How often it has happened since.
    unsaid: u64,
}

impl Seldom {
    /// It happened. When it is to be said: how often it has happened since it was said last, this time included.
    pub fn happened(&mut self, now: Tick) -> Option<u64> {
        self.unsaid = self.unsaid.saturating_add(1);
        if self.said.is_some_and(|said| now - said < PAUSE) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_with_a_count() {
        let mut seldom = Seldom::default();
        let said = [5, 6, 60_000, 60_005, 60_006, 900_000].map(|now| seldom.happened(Tick(now)));
        assert_eq!(said, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
