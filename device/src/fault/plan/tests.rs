// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which opportunities are taken, at made-up times.

use rstest::rstest;

use super::*;

const RX: Place = Place::rx(0);
const TX: Place = Place::tx(0);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A plan for two FIFOs whose driver started at the time returned.
fn plan(specs: &[&str]) -> (Plan, Instant) {
    let start = Instant::now();
    let mut plan = Plan::new(2);
    for spec in specs {
        plan.add(&spec.parse().unwrap(), start);
    }
    plan.driver_started(start);
    (plan, start)
}

fn dropped(plan: &mut Plan, place: Place, at: Instant, times: u32) -> Vec<bool> {
    (0..times)
        .map(|_| !plan.interrupts_now(place, at))
        .collect()
}

/// Which opportunities are struck follows from the seed, the place and their number: not from
/// what happens elsewhere in between, nor from when.
#[test]
fn the_same_seed_strikes_the_same_opportunities() {
    let spec = ["drop-interrupt,p=0.3,seed=7"];
    let (mut one, start) = plan(&spec);
    let (mut other, _) = plan(&["slow,p=0.5", spec[0]]);
    let alone = dropped(&mut one, RX, start, 1000);
    let mut late = start;
    let mixed: Vec<_> = (0..1000)
        .map(|_| {
            late += ms(3);
            other.interrupts_now(TX, late);
            other.host(RX, late);
            !other.interrupts_now(RX, late)
        })
        .collect();
    assert_eq!(alone, mixed);
    let struck = alone.iter().filter(|struck| **struck).count();
    assert!((250..350).contains(&struck), "{struck} of 1000 with p=0.3");
}

#[test]
fn seeds_kinds_and_fifos_differ() {
    let (mut plan7, start) = plan(&["drop-interrupt,p=0.5,seed=7"]);
    let (mut plan8, _) = plan(&["drop-interrupt,p=0.5,seed=8"]);
    let (mut delay7, _) = plan(&["delay-interrupt,p=0.5,seed=7"]);
    let of7 = dropped(&mut plan7, RX, start, 64);
    assert_ne!(of7, dropped(&mut plan8, RX, start, 64));
    assert_ne!(of7, dropped(&mut delay7, RX, start, 64));
    assert_ne!(of7, dropped(&mut plan7, Place::rx(1), start, 64));
    assert_ne!(of7, dropped(&mut plan7, TX, start, 64));
}

#[test]
fn count_is_how_often_it_strikes_in_all() {
    let (mut plan, start) = plan(&["drop-interrupt,count=3"]);
    assert_eq!(dropped(&mut plan, RX, start, 2), [true; 2]);
    assert_eq!(dropped(&mut plan, TX, start, 3), [true, false, false]);
    let report = &plan.list(start)[0];
    assert_eq!((report.opportunities, report.strikes), (5, 3));
    assert!(report.over);
}

/// The opportunities that are let pass are counted for each place on its own.
#[test]
fn skip_lets_the_first_opportunities_pass() {
    let (mut plan, start) = plan(&["drop-interrupt,skip=2,count=3"]);
    assert_eq!(dropped(&mut plan, RX, start, 4), [false, false, true, true]);
    assert_eq!(
        dropped(&mut plan, TX, start, 4),
        [false, false, true, false]
    );
}

/// `after` counts from the driver's start, `for` from there; what is missed is an opportunity
/// even so.
#[test]
fn times_open_a_window() {
    let (mut plan, start) = plan(&["drop-interrupt,after=200ms,for=1s"]);
    let mut at = |late| dropped(&mut plan, RX, start + ms(late), 1)[0];
    assert!(!at(0));
    assert!(!at(199));
    assert!(at(200));
    assert!(at(1199));
    assert!(!at(1200));
    assert_eq!(plan.list(start)[0].opportunities, 5);
    assert!(plan.list(start + ms(1200))[0].over);
}

/// A fault that is added while a driver is there counts from then.
#[test]
fn added_later_it_starts_later() {
    let (mut plan, start) = plan(&[]);
    plan.add(&"drop-interrupt,for=1s".parse().unwrap(), start + ms(5000));
    assert_eq!(dropped(&mut plan, RX, start + ms(5500), 1), [true]);
    assert_eq!(dropped(&mut plan, RX, start + ms(6000), 1), [false]);
}

#[rstest]
#[case("drop-interrupt,fifo=1", [false, false, false, true])]
#[case("drop-interrupt,on=tx", [false, false, true, false])]
#[case("drop-interrupt,on=control", [true, false, false, false])]
#[case("drop-interrupt,on=rx", [false, true, false, true])]
fn it_strikes_where_it_shall(#[case] spec: &str, #[case] expected: [bool; 4]) {
    let (mut plan, start) = plan(&[spec]);
    let places = [Place::CONTROL, RX, TX, Place::rx(1)];
    let struck = places.map(|place| !plan.interrupts_now(place, start));
    assert_eq!(struck, expected);
}

/// Late interrupts coalesce: however many are put off, one is on its way for each place.
#[test]
fn a_delayed_interrupt_comes_later_and_once() {
    let (mut plan, start) = plan(&["delay-interrupt,delay=50ms"]);
    assert_eq!(dropped(&mut plan, RX, start, 100), [true; 100]);
    assert_eq!(plan.due(start + ms(49)), []);
    assert_eq!(plan.next_due(), Some(start + ms(50)));
    assert_eq!(plan.due(start + ms(50)), [Due::Interrupt(RX)]);
    assert_eq!(plan.next_due(), None);
}

#[test]
fn a_duplicate_comes_now_and_later() {
    let (mut plan, start) = plan(&["duplicate-interrupt"]);
    assert!(plan.interrupts_now(RX, start));
    assert_eq!(plan.due(start + ms(1)), [Due::Interrupt(RX)]);
}

#[test]
fn spurious_interrupts_come_by_themselves_until_they_are_over() {
    let (mut plan, start) = plan(&["spurious-interrupt,fifo=1,on=rx,every=20ms,count=2"]);
    let due = [Due::Interrupt(Place::rx(1))];
    assert_eq!(plan.due(start + ms(19)), []);
    assert_eq!(plan.due(start + ms(20)), due);
    assert_eq!(plan.due(start + ms(40)), due);
    assert_eq!(plan.next_due(), None);
}

/// A stall without a delay lasts as long as the fault; then the place is looked at.
#[test]
fn a_stall_ends_with_its_window() {
    let (mut plan, start) = plan(&["stall,fifo=0,on=tx,for=300ms"]);
    assert!(plan.may_serve(RX, start));
    assert!(!plan.may_serve(TX, start));
    assert!(!plan.may_serve(TX, start + ms(299)));
    assert_eq!(plan.due(start + ms(300)), [Due::Serve(TX)]);
    assert!(plan.may_serve(TX, start + ms(300)));
}

/// With a delay, what was held up gets through before it is held up again: slow, not dead.
#[test]
fn a_stall_with_a_delay_lets_through_in_between() {
    let (mut plan, start) = plan(&["stall,fifo=0,on=rx,delay=30ms"]);
    for round in 0..3 {
        let now = start + ms(30 * round);
        assert!(!plan.may_serve(RX, now));
        assert_eq!(plan.due(now + ms(30)), [Due::Serve(RX)]);
        assert!(plan.may_serve(RX, now + ms(30)));
    }
    assert_eq!(plan.list(start)[0].strikes, 3);
}

/// A stall for good ends when the queue is stopped, or when the fault is taken away.
#[test]
fn a_stall_for_good_ends_with_the_queue() {
    let (mut plan, start) = plan(&["stall,count=1"]);
    assert!(!plan.may_serve(RX, start));
    assert!(!plan.may_serve(RX, start + ms(1_000_000)));
    plan.stopped(RX);
    assert!(plan.may_serve(RX, start));

    let id = plan.add(&"stall".parse().unwrap(), start);
    assert!(!plan.may_serve(TX, start));
    assert!(plan.remove(id, start));
    assert_eq!(plan.due(start), [Due::Serve(TX)]);
    assert!(plan.may_serve(TX, start));
    assert!(!plan.remove(id, start));
}

/// A FIFO that nobody uses hangs up in time even so; a reset of the device changes nothing.
#[test]
fn a_hang_up_comes_and_goes_by_itself() {
    let (mut plan, start) = plan(&["hang-up,fifo=1,after=1s,for=1s"]);
    let place = Place::rx(1);
    assert_eq!(plan.due(start + ms(1000)), [Due::Serve(place)]);
    assert!(plan.host(place, start + ms(1000)).hung_up);
    plan.stopped(place);
    assert!(plan.host(place, start + ms(1999)).hung_up);
    assert_eq!(plan.due(start + ms(2000)), [Due::Serve(place)]);
    assert!(!plan.host(place, start + ms(2000)).hung_up);
    assert!(!plan.host(RX, start + ms(1500)).hung_up);
}

/// A FIFO that hung up before its driver started is looked at when that starts, and again at the hang-up's own end.
#[test]
fn an_early_look_at_a_hang_up_does_not_make_it_last() {
    let start = Instant::now();
    let mut plan = Plan::new(1);
    plan.add(&"hang-up,delay=100ms".parse().unwrap(), start);
    assert!(plan.host(RX, start).hung_up);
    plan.driver_started(start + ms(40));
    assert_eq!(plan.due(start + ms(40)), [Due::Serve(RX)]);
    assert!(plan.host(RX, start + ms(40)).hung_up);
    assert_eq!(plan.due(start + ms(100)), [Due::Serve(RX)]);
    assert!(!plan.host(RX, start + ms(100)).hung_up);
}

/// Two faults hold a place up; the end of one is no end of the other, which is looked at at its own.
#[test]
fn a_place_that_two_faults_hold_up_is_looked_at_at_the_end_of_each() {
    let (mut plan, start) = plan(&["stall,delay=30ms,count=1", "stall,delay=70ms,count=1"]);
    assert!(!plan.may_serve(RX, start));
    assert_eq!(plan.due(start + ms(30)), [Due::Serve(RX)]);
    assert!(!plan.may_serve(RX, start + ms(30)));
    assert_eq!(plan.due(start + ms(70)), [Due::Serve(RX)]);
    assert!(plan.may_serve(RX, start + ms(70)));
}

/// Somebody has to be asked until the FIFO has been connected again.
#[test]
fn clearing_ends_a_hang_up() {
    let (mut plan, start) = plan(&["hang-up,fifo=0"]);
    plan.due(start);
    assert!(plan.host(RX, start).hung_up);
    assert_eq!(plan.clear(start), 1);
    assert!(plan.active());
    assert_eq!(plan.due(start), [Due::Serve(RX)]);
    assert!(!plan.host(RX, start).hung_up);
    assert!(!plan.active());
}

#[test]
fn wrong_lengths_and_ids_cannot_be_right() {
    let (mut plan, start) = plan(&["wrong-length,on=rx", "wrong-id,on=tx", "wrong-index,on=rx"]);
    for _ in 0..200 {
        let used = plan.used(RX, Used::new(5, 100), 128, start);
        assert!(used.len <= 24 || used.len >= TOO_LONG, "{used:?}");
        assert!(used.ahead > 0);
        let used = plan.used(TX, Used::new(5, 0), 128, start);
        assert_ne!(used.id, 5);
    }
    let truth = Used::new(0, 56);
    assert_eq!(plan.used(Place::CONTROL, truth, 128, start), truth);
}

#[test]
fn short_messages_are_short_but_not_empty() {
    let (mut plan, start) = plan(&["short-transfer"]);
    for unsent in 2..100 {
        let most = plan.message(RX, unsent, start).most;
        assert!((1..unsent).contains(&most), "{most} of {unsent}");
    }
    assert_eq!(plan.message(RX, 1, start).most, 1);
}

/// What a liar says follows from its seed alone; each seed lies, and mostly tells the truth.
#[rstest]
fn a_liar_lies_the_same_way_again(#[values(1, 2, 3, 4, 5)] seed: u64) {
    let lies = || {
        let (mut plan, start) = plan(&[&format!("liar,seed={seed}")]);
        let mut said = Vec::new();
        for _ in 0..2000 {
            let mut bytes = [7; 24];
            plan.content(RX, &mut bytes, start);
            said.push((
                bytes,
                plan.used(RX, Used::new(1, 100), 128, start),
                plan.message(RX, 100, start),
                plan.suppression(RX, start),
            ));
        }
        (said, plan.list(start)[0].clone())
    };
    let (said, report) = lies();
    assert_eq!(lies().0, said);
    assert!(report.strikes > 0 && report.strikes * 3 < report.opportunities);
}
