// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Round trips of a trace: a typical one and the worst one, each cut out with what happened beside it.
//!
//! A round trip has two chains: from the guest's write to the daemon's write to its peer, and from what the peer has sent back to the
//! read in the guest. One is over before the next begins. This file must not know machines, nor pages.

use crate::trace::chain::Chain;
use crate::trace::chain::Step;
use crate::trace::event::Timeline;
use crate::trace::report::Report;

/// One round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trip {
    /// Which of the report's chains are its two.
    chains: [usize; 2],
    /// From the write to the read, in nanoseconds of the host's clock.
    from: u64,
    to: u64,
}

/// A round trip that was cut out of a trace.
#[derive(Debug)]
pub struct Cut {
    /// Events of its time and of half as much before and after; its two chains are one.
    pub report: Report,
    /// From the write to the read, in nanoseconds.
    pub nanos: u64,
    /// Round trips of the trace.
    pub of: usize,
}

/// The median and the slowest of a trace's round trips of `size` bytes; `None` if there is none.
pub fn cut(report: &Report, size: u64) -> Option<[Cut; 2]> {
    let mut trips = trips(&report.timeline, &report.chains, size);
    trips.sort_by_key(|trip| trip.to - trip.from);
    let of = trips.len();
    let cut = |trip: &Trip| {
        let margin = (trip.to - trip.from) / 2;
        let time = trip.from.saturating_sub(margin)..=trip.to + margin;
        let mut report = report.cut(&trip.chains, time);
        if let [there, back] = report.chains.as_slice() {
            report.chains = vec![joined(there, back, &report.timeline)];
        }
        Cut {
            report,
            nanos: trip.to - trip.from,
            of,
        }
    };
    Some([cut(trips.get(of / 2)?), cut(trips.last()?)])
}

/// Both chains as one: the second follows from what the daemon has written to its peer.
fn joined(there: &Chain, back: &Chain, timeline: &Timeline) -> Chain {
    let written = |step: &Step| {
        let event = timeline.events.get(step.event);
        event.is_some_and(|event| &*event.name == "endpoint-write")
    };
    let count = there.steps.len();
    let turn = there.steps.iter().position(written).unwrap_or_default();
    let moved = back.steps.iter().map(|step| match step.after {
        Some(after) => Step {
            after: Some(after + count),
            ..*step
        },
        None => Step {
            after: Some(turn),
            by: "peer",
            ..*step
        },
    });
    let steps: Vec<Step> = there.steps.iter().copied().chain(moved).collect();
    // Events are numbered in order of time. What the driver records late may be after the peer's answer.
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|at| steps.get(*at).map(|step| step.event));
    let place = |before: usize| order.iter().position(|at| *at == before);
    let sorted = order.iter().filter_map(|at| steps.get(*at));
    Chain {
        steps: sorted
            .map(|step| Step {
                after: step.after.and_then(place),
                ..*step
            })
            .collect(),
        ..*there
    }
}

fn trips(timeline: &Timeline, chains: &[Chain], size: u64) -> Vec<Trip> {
    let passes = |chain: &Chain, name: &str| {
        let mut steps = chain.steps.iter();
        steps.any(|step| {
            timeline
                .events
                .get(step.event)
                .is_some_and(|event| &*event.name == name)
        })
    };
    let mut order: Vec<usize> = (0..chains.len()).collect();
    let start = |at: &usize| chains.get(*at).map_or(0, |chain| chain.span(timeline).0);
    order.sort_by_key(start);
    let of_pair = |pair: &[usize]| {
        let [there, back] = pair else { return None };
        let (out, home) = (chains.get(*there)?, chains.get(*back)?);
        let is_whole = out.bytes == size && home.bytes == size;
        let is_trip =
            passes(out, "endpoint-write") && passes(home, "endpoint-read") && passes(home, "read");
        (is_whole && is_trip).then(|| Trip {
            chains: [*there, *back],
            from: out.span(timeline).0,
            to: home.span(timeline).1,
        })
    };
    order.windows(2).filter_map(of_pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::chain;
    use crate::trace::event::Event;
    use crate::trace::event::Place;
    use crate::trace::report::tests::small;

    /// Round trips that begin each 100 µs and take so many microseconds, after one of 8 bytes.
    fn report(times: &[u64]) -> Report {
        let mut events = Vec::new();
        let all = std::iter::once((&5, 8)).chain(times.iter().map(|time| (time, 64)));
        let mut position = 0;
        for ((time, bytes), number) in all.zip(1..) {
            let mut event = |after: u64, place, name: &str| {
                events.push(Event {
                    ns: (number * 100 + after) * 1000,
                    lasts: 0,
                    place,
                    cpu: (place != Place::Daemon).then_some(0),
                    pid: 7,
                    name: name.into(),
                    text: format!("fifo=0 position={position} bytes={bytes}").into(),
                });
            };
            event(0, Place::Driver(0), "write");
            event(1, Place::Daemon, "pop");
            event(2, Place::Daemon, "endpoint-write");
            event(3, Place::Daemon, "endpoint-read");
            event(4, Place::Daemon, "push");
            event(*time, Place::Driver(0), "receive");
            event(*time, Place::Driver(0), "read");
            position += bytes;
        }
        // The driver's position is that after the last byte.
        for event in &mut events {
            if &*event.name == "receive" {
                let end = event.number("position").unwrap() + event.number("bytes").unwrap();
                event.text = format!("fifo=0 position={end}").into();
            }
        }
        let timeline = Timeline {
            events,
            ..Timeline::default()
        };
        Report {
            chains: chain::link(&timeline, &|_| false, 0),
            timeline,
            ..small()
        }
    }

    #[test]
    fn the_median_and_the_slowest_are_cut_out_each_as_one_chain() {
        let [median, worst] = cut(&report(&[10, 80, 20, 30, 11]), 64).unwrap();
        assert_eq!((median.nanos, worst.nanos), (20_000, 80_000));
        assert_eq!((median.of, worst.of), (5, 5));
        for cut in [&median, &worst] {
            let report = &cut.report;
            let [chain] = report.chains.as_slice() else {
                panic!("{:?}", report.chains);
            };
            let name = |step: &Step| &*report.timeline.events[step.event].name;
            let names: Vec<_> = chain.steps.iter().map(name).collect();
            let path = [
                "write",
                "pop",
                "endpoint-write",
                "endpoint-read",
                "push",
                "receive",
                "read",
            ];
            assert_eq!(names, path);
            let after: Vec<_> = chain.steps.iter().map(|step| step.after).collect();
            let before = (0..6).map(Some);
            assert_eq!(
                after,
                std::iter::once(None).chain(before).collect::<Vec<_>>()
            );
            assert_eq!(chain.steps[3].by, "peer");
        }
        // Its neighbours are farther away than half of its time.
        assert_eq!(median.report.timeline.events.len(), 7);
    }

    #[test]
    fn without_a_round_trip_there_is_nothing_to_cut() {
        assert!(cut(&report(&[10]), 65).is_none());
        assert!(cut(&small(), 64).is_none());
    }
}
