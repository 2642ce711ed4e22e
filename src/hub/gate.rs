//! How many connections, or requests, there may be, in all and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use super::limit::network;

/// Counts; shared by whoever opens and whoever closes.
pub struct Gate {
    most: usize,
    most_of_one: usize,
    counts: Mutex<Counts>,
    /// How many there are, for whoever watches.
    gauge: Gauge,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why one more may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    Full,
    TooManyOfOne,
}

/// One that is counted for as long as this lives.
pub struct Pass {
    gate: Arc<Gate>,
    address: Option<IpAddr>,
}

impl Gate {
    pub fn new(most: usize, most_of_one: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { most, most_of_one, counts: Mutex::default(), gauge })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one in. Without an address it counts only towards all.
    ///
    /// # Errors
    /// [`Shut`] when there are too many.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Pass, Shut> {
        let address = address.map(network);
        let mut counts = self.counts();
        if counts.all >= self.most {
            return Err(Shut::Full);
        }
        if let Some(address) = address {
            let of_one = counts.by_address.entry(address).or_default();
            if *of_one >= self.most_of_one {
                return Err(Shut::TooManyOfOne);
            }
            *of_one += 1;
        }
        counts.all += 1;
        self.gauge.inc();
        Ok(Pass { gate: self.clone(), address })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.all -= 1;
        self.gate.gauge.dec();
        if let Some(address) = self.address
            && let Some(of_one) = counts.by_address.get_mut(&address)
        {
            *of_one -= 1;
            if *of_one == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_given_back() {
        let gate = Gate::new(3, 2, Gauge::default());
        let address = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        let first = gate.enter(address("192.0.2.1")).expect("room");
        let _second = gate.enter(address("192.0.2.1")).expect("room");
        assert_eq!(gate.enter(address("192.0.2.1")).err(), Some(Shut::TooManyOfOne));
        let third = gate.enter(None).expect("room");
        assert_eq!(gate.enter(address("192.0.2.2")).err(), Some(Shut::Full));
        let six = |low: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, low]));
        let other = Gate::new(3, 1, Gauge::default());
        let _one = other.enter(six(1)).expect("room");
        assert_eq!(other.enter(six(2)).err(), Some(Shut::TooManyOfOne), "they are of one network");
        drop((first, third));
        let _again = gate.enter(address("192.0.2.1")).expect("room");
        assert_eq!(gate.counts().by_address.len(), 1);
        assert_eq!(gate.counts().all, 2);
    }
}
