//! How often an address may be refused before it has to wait: a bounded table of leaky buckets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::model::time::Tick;
use crate::model::unit::Millis;

/// So many addresses are remembered; the ones with the least to remember are forgotten first.
const ADDRESSES: usize = 4_096;

/// Counts failures of addresses. Each failure is forgotten after `refill`, one after the other.
pub struct Limiter {
    /// So many failures at once are let pass.
    burst: u32,
    /// One failure is forgotten every so often.
    refill: Millis,
    /// Until when each address has failures to be forgotten.
    table: Mutex<BTreeMap<IpAddr, Tick>>,
}

impl Limiter {
    pub fn new(burst: u32, refill: Millis) -> Self {
        Self { burst, refill, table: Mutex::default() }
    }

    /// Counts a failure. When there were too many: how many seconds to wait before the next.
    pub fn failed(&self, who: IpAddr, now: Tick) -> Option<u32> {
        let who = network(who);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= ADDRESSES && !table.contains_key(&who) {
            table.retain(|_, until| *until > now);
            if table.len() >= ADDRESSES
                && let Some(least) = table.iter().min_by_key(|(_, until)| **until).map(|(address, _)| *address)
            {
                table.remove(&least);
            }
        }
        let until = table.entry(who).or_insert(now);
        let full = now + Millis(self.refill.0.saturating_mul(u64::from(self.burst)));
        let next = (*until).max(now) + self.refill;
        if next > full {
            let wait = (next - full).0.div_ceil(1_000);
            return Some(u32::try_from(wait).unwrap_or(u32::MAX).max(1));
        }
        *until = next;
        None
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
        },
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgotten_one_after_the_other() {
        let limiter = Limiter::new(3, Millis(1_000));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Tick(50_000);
        assert_eq!([(); 3].map(|()| limiter.failed(one, now)), [None, None, None]);
        assert_eq!(limiter.failed(one, now), Some(1));
        assert_eq!(limiter.failed(other, now), None);
        assert_eq!(limiter.failed(one, now + Millis(1_000)), None);
        assert_eq!(limiter.failed(one, now + Millis(1_001)), Some(1));
        assert_eq!([(); 3].map(|()| limiter.failed(one, now + Millis(9_000))), [None, None, None]);
    }

    #[test]
    fn the_table_is_bounded_and_a_network_counts_as_one() {
        let limiter = Limiter::new(1, Millis(1_000));
        for number in 0..2 * ADDRESSES as u32 {
            assert_eq!(limiter.failed(IpAddr::from(number.to_be_bytes()), Tick(1)), None);
        }
        assert!(limiter.table.lock().expect("whole").len() <= ADDRESSES);
        let six = |low: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, low]);
        assert_eq!(limiter.failed(six(1), Tick(5)), None);
        assert!(limiter.failed(six(2), Tick(5)).is_some());
    }
}
