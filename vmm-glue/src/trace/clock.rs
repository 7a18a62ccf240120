// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's clock in terms of the host's, from exchanges whose times both sides know.
//!
//! Of an exchange the guest knows when it began and when it ended, the host when it was in between.
//! Whatever the delays were, the host's moment lies between the guest's two: that bounds the offset, as
//! in NTP, and the shortest exchange of a row bounds it best. Between rows the clock is interpolated; a
//! row that contradicts its neighbours makes the bound wider. Pure; it must not know where exchanges
//! come from.

use anyhow::Result;
use anyhow::bail;

/// Nanoseconds by which a time in the text of a trace may be early: it has microseconds.
pub const ROUNDING_NS: u64 = 1000;
const ROUNDING: f64 = 1000.0;

/// One exchange, all of it in nanoseconds of either's CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The guest's clock before.
    pub before: u64,
    /// The host's clock in between.
    pub host: u64,
    /// The guest's clock after.
    pub after: u64,
}

impl Exchange {
    fn length(self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    /// Host's clock less the guest's, in the middle of what it can be.
    fn offset(self) -> f64 {
        to_f64(self.host) - self.middle()
    }

    fn middle(self) -> f64 {
        f64::midpoint(to_f64(self.before), to_f64(self.after))
    }
}

/// What is known of the guest's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Clock {
    /// The shortest exchange of each row: the guest's clock, and the host's clock less that.
    points: Vec<(f64, f64)>,
    /// Half of the longest of them, in nanoseconds.
    half: f64,
    /// By how much a row is outside of what its neighbours say, at most, in nanoseconds.
    bend: f64,
    /// Exchanges that were used.
    pub exchanges: usize,
}

impl Clock {
    /// From rows of exchanges, in order of time.
    ///
    /// # Errors
    ///
    /// When there is no exchange at all.
    pub fn new(rows: &[Vec<Exchange>]) -> Result<Self> {
        let best: Vec<Exchange> = rows
            .iter()
            .filter_map(|row| row.iter().min_by_key(|exchange| exchange.length()).copied())
            .collect();
        if best.is_empty() {
            bail!("no exchange with the guest was seen on both sides: its clock is not known");
        }
        let points: Vec<_> = best
            .iter()
            .map(|exchange| (exchange.middle(), exchange.offset()))
            .collect();
        let half = best
            .iter()
            .map(|exchange| to_f64(exchange.length()) / 2.0)
            .fold(0.0, f64::max);
        let mut bend = 0.0_f64;
        for window in best.windows(3) {
            let [earlier, this, later] = window else {
                continue;
            };
            let neighbours = [earlier, later].map(|it| (it.middle(), it.offset()));
            let off = (interpolate(&neighbours, this.middle()) - this.offset()).abs();
            bend = bend.max(off - to_f64(this.length()) / 2.0);
        }
        Ok(Self {
            points,
            half,
            bend,
            exchanges: rows.iter().map(Vec::len).sum(),
        })
    }

    /// The host's clock at a moment of the guest's, in nanoseconds.
    pub fn to_host(&self, guest: u64) -> u64 {
        let offset = interpolate(&self.points, to_f64(guest));
        // The offset is rounded, not the time, which may need more than 53 bits.
        guest.saturating_add_signed(whole(offset))
    }

    /// By how many nanoseconds a time of the guest's may be wrong, that of a trace's text included.
    pub fn bound(&self) -> f64 {
        self.half + self.bend + ROUNDING
    }

    /// [`Clock::bound`], rounded up.
    pub fn bound_ns(&self) -> u64 {
        whole(self.bound().ceil()).unsigned_abs()
    }

    /// Host's clock less the guest's at the first exchange, in nanoseconds.
    pub fn offset(&self) -> f64 {
        self.points.first().map_or(0.0, |(_, offset)| *offset)
    }

    /// How much faster the host's clock runs, in millionths; `None` for a trace too short to say.
    pub fn drift(&self) -> Option<f64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let time = last.0 - first.0;
        // Less than that, and the bound of the exchanges hides it.
        (time > 1e8).then(|| (last.1 - first.1) / time * 1e6)
    }
}

/// The second of the pairs at `x` of the first; beyond the ends, as between the first and the last.
fn interpolate(points: &[(f64, f64)], x: f64) -> f64 {
    let at = points.partition_point(|(known, _)| *known < x);
    let (from, to) = match (
        at.checked_sub(1).and_then(|at| points.get(at)),
        points.get(at),
    ) {
        (Some(from), Some(to)) => (from, to),
        _ => match (points.first(), points.last()) {
            (Some(from), Some(to)) => (from, to),
            _ => return 0.0,
        },
    };
    let length = to.0 - from.0;
    if length <= 0.0 {
        return from.1;
    }
    from.1 + (to.1 - from.1) * ((x - from.0) / length)
}

/// Rows of the guest's, and the host's moments: which belongs to which.
///
/// The first exchanges belong to the first moments. Of the others, the guest's clock is known well
/// enough by then to say which of the moments lies between the two; one to which several would fit is
/// left out, for others read configuration space too.
pub fn matched(rows: &[Vec<(u64, u64)>], moments: &[u64]) -> Vec<Vec<Exchange>> {
    let mut matched: Vec<Vec<Exchange>> = Vec::new();
    let mut moments = moments.iter().copied().peekable();
    let mut known: Option<Clock> = None;
    for row in rows {
        let mut found = Vec::new();
        for (before, after) in row {
            let exchange = |host| Exchange {
                before: *before,
                host,
                after: *after,
            };
            let Some(clock) = &known else {
                found.extend(moments.next().map(exchange));
                continue;
            };
            // What the offset may have changed by since, and a bound of the last row.
            let slack = 200_000.0 + clock.half;
            let from = to_f64(clock.to_host(*before)) - slack;
            let to = to_f64(clock.to_host(*after)) + slack;
            while moments.next_if(|host| to_f64(*host) < from).is_some() {}
            if let Some(host) = moments.next_if(|host| to_f64(*host) <= to) {
                found.push(exchange(host));
            }
        }
        if !found.is_empty() {
            if let Ok(clock) = Clock::new(std::slice::from_ref(&found)) {
                known = Some(clock);
            }
            matched.push(found);
        }
    }
    matched
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "nanoseconds of three centuries fit, and more are no uptime"
)]
fn whole(ns: f64) -> i64 {
    ns.round() as i64
}

fn to_f64(ns: u64) -> f64 {
    ns as f64
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of the tests are small and after the start"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A guest whose clock is `offset` behind the host's and `ppm` slower; delays to the host and back.
    fn row(offset: f64, ppm: f64, at: u64, delays: &[(u64, u64)]) -> Vec<Exchange> {
        let guest = |host: u64| ((host as f64 - offset) * (1.0 - ppm / 1e6)).round() as u64;
        let mut now = at;
        delays
            .iter()
            .map(|(there, back)| {
                let before = now;
                let host = before + there;
                let after = host + back;
                now = after + 5_000;
                Exchange {
                    before: guest(before),
                    host,
                    after: guest(after),
                }
            })
            .collect()
    }

    #[test]
    fn the_shortest_exchange_of_a_row_counts() {
        let delays = [(900_000, 10_000), (20_000, 22_000), (10_000, 700_000)];
        let clock = Clock::new(&[row(5e9, 0.0, 10_000_000_000, &delays)]).unwrap();
        assert!((clock.offset() - 5e9).abs() <= 1_000.0, "{clock:?}");
        assert_eq!(clock.bound(), 21_000.0 + ROUNDING);
        assert_eq!(clock.drift(), None);
    }

    #[test]
    fn a_row_that_contradicts_its_neighbours_widens_the_bound() {
        let quick = [(10_000, 10_000)];
        let mut rows: Vec<_> = (0..3)
            .map(|n| row(0.0, 0.0, 1_000_000_000 * (n + 1), &quick))
            .collect();
        let straight = Clock::new(&rows).unwrap();
        rows[1][0].host += 300_000;
        let bent = Clock::new(&rows).unwrap();
        assert!(bent.bound() >= straight.bound() + 280_000.0, "{bent:?}");
    }

    #[test]
    fn without_an_exchange_nothing_is_known() {
        assert!(Clock::new(&[]).is_err());
        assert!(Clock::new(&[Vec::new()]).is_err());
    }

    #[test]
    fn moments_of_others_are_left_out_once_the_clock_is_known() {
        let all: Vec<_> = (0..4)
            .map(|n| {
                row(
                    3e9,
                    50.0,
                    4_000_000_000 + n * 500_000_000,
                    &[(30_000, 30_000); 5],
                )
            })
            .collect();
        let guest: Vec<Vec<_>> = all
            .iter()
            .map(|row| row.iter().map(|one| (one.before, one.after)).collect())
            .collect();
        let mut moments: Vec<u64> = all.iter().flatten().map(|one| one.host).collect();
        // A driver that is loaded meanwhile.
        moments.push(4_250_000_000);
        moments.push(4_750_000_000);
        moments.sort_unstable();
        assert_eq!(matched(&guest, &moments), all);
        // The daemon's end of the last ones is missing.
        moments.truncate(13);
        let found = matched(&guest, &moments);
        assert_eq!(
            found,
            all[..found.len() - 1]
                .iter()
                .cloned()
                .chain([all[2][..1].to_vec()])
                .collect::<Vec<_>>()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the delays: a moment of the guest's is never farther off than the bound says.
        #[test]
        fn the_bound_holds(
            offset in -4e9..4e9_f64,
            ppm in -300.0..300.0_f64,
            delays in prop::collection::vec(
                prop::collection::vec((1_000_u64..2_000_000, 1_000_u64..2_000_000), 1..8), 2..8),
            at in 0.0..1.0_f64,
        ) {
            let start = 10_000_000_000_u64;
            let rows: Vec<_> = delays
                .iter()
                .zip(0_u64..)
                .map(|(delays, n)| row(offset, ppm, start + n * 500_000_000, delays))
                .collect();
            let clock = Clock::new(&rows).unwrap();
            let span = 500_000_000.0 * (delays.len() - 1) as f64;
            // Between the rows, of which the first may take 32 ms.
            let host = start + 32_000_000 + ((span - 32_000_000.0) * at) as u64;
            let guest = ((host as f64 - offset) * (1.0 - ppm / 1e6)).round() as u64;
            let error = (clock.to_host(guest) as f64 - host as f64).abs();
            prop_assert!(error <= clock.bound() + 2.0, "{error} > {}", clock.bound());
        }

        #[test]
        fn times_never_run_backwards(
            mut moments in prop::collection::vec(0_u64..4_000_000_000, 2..20),
            ppm in -300.0..300.0_f64,
        ) {
            let rows: Vec<_> = (0..4)
                .map(|n| row(1e9, ppm, 2_000_000_000 + n * 400_000_000, &[(20_000, 20_000)]))
                .collect();
            let clock = Clock::new(&rows).unwrap();
            moments.sort_unstable();
            let host: Vec<_> = moments.iter().map(|guest| clock.to_host(*guest)).collect();
            prop_assert!(host.is_sorted());
        }
    }
}
