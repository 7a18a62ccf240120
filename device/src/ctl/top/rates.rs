// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Rates from two looks at the device. It must not know how they are shown.

use std::collections::HashMap;

use crate::control::protocol::DirectionStatus;
use crate::control::protocol::Status;

/// What a direction of a FIFO did in a second, on average between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Bytes that came in.
    pub bytes: f64,
    /// Interrupts for its queue.
    pub interrupts: f64,
}

/// Both directions of a FIFO.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// From the host side to the driver.
    pub rx: Rate,
    /// From the driver to the host side.
    pub tx: Rate,
}

/// The rates of each FIFO, by its number, from one look to a later one. The time between them is the daemon's own, so that
/// how long its answers took does not matter; none if no time has passed.
pub fn between(earlier: &Status, later: &Status) -> HashMap<u16, Rates> {
    let passed = later
        .device
        .uptime_ms
        .saturating_sub(earlier.device.uptime_ms);
    if passed == 0 {
        return HashMap::new();
    }
    let before: HashMap<_, _> = earlier.fifos.iter().map(|fifo| (fifo.fifo, fifo)).collect();
    let rates = later.fifos.iter().filter_map(|fifo| {
        let before = before.get(&fifo.fifo)?;
        let rates = Rates {
            rx: rate(&before.rx, &fifo.rx, passed),
            tx: rate(&before.tx, &fifo.tx, passed),
        };
        Some((fifo.fifo, rates))
    });
    rates.collect()
}

fn rate(earlier: &DirectionStatus, later: &DirectionStatus, passed_ms: u64) -> Rate {
    let a_second = |from: u64, to: u64| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate is shown with three digits"
        )]
        let (more, passed) = (to.saturating_sub(from) as f64, passed_ms as f64);
        more * 1000.0 / passed
    };
    Rate {
        bytes: a_second(earlier.entered, later.entered),
        interrupts: a_second(earlier.interrupts, later.interrupts),
    }
}

/// A rate in at most six characters: whole below 10,000, then in thousands, millions and so on.
pub fn short(rate: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)];
    if rate < 9_999.5 {
        return format!("{rate:.0}");
    }
    let (unit, size) = UNITS
        .into_iter()
        .find(|(_, size)| rate / size < 999.5)
        .unwrap_or(("T", 1e12));
    let value = rate / size;
    let digits = if value < 99.5 { 1 } else { 0 };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::top::samples::status;

    #[test]
    fn rates_are_differences_over_the_daemons_time() {
        let (mut earlier, mut later) = (status(2), status(2));
        earlier.device.uptime_ms = 1_000;
        later.device.uptime_ms = 3_000;
        earlier.fifos[1].rx.entered = 100;
        later.fifos[1].rx.entered = 300;
        later.fifos[1].tx.interrupts = 5;
        let rates = between(&earlier, &later);
        assert_eq!(rates[&0], Rates::default());
        assert_eq!(rates[&1].rx.bytes, 100.0);
        assert_eq!(rates[&1].rx.interrupts, 0.0);
        assert_eq!(rates[&1].tx.interrupts, 2.5);
    }

    #[test]
    fn no_time_passed_is_no_rate() {
        assert!(between(&status(1), &status(1)).is_empty());
    }

    #[test]
    fn short_rates_have_three_digits_or_more() {
        let shown = [0.4, 2.5, 9_999.0, 12_345.0, 234_567.0, 999_999.0, 3.2e9].map(short);
        assert_eq!(
            shown,
            ["0", "2", "9999", "12.3k", "235k", "1.0M", "3.2G"].map(str::to_owned)
        );
    }
}
