// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SPECs right and wrong.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn unix(path: &str, role: Role) -> Kind {
    Kind::Unix {
        path: path.into(),
        role,
    }
}

fn file(path: &str, input: Option<&str>) -> Kind {
    Kind::File {
        path: path.into(),
        input: input.map(PathBuf::from),
    }
}

fn pty(link: Option<&str>) -> Kind {
    Kind::Pty {
        link: link.map(PathBuf::from),
    }
}

#[rstest]
#[case("loopback", Kind::Loopback, 7)]
#[case("zero", Kind::Zero, 7)]
#[case("null", Kind::Null, 7)]
#[case("loopback,capacity=1", Kind::Loopback, 1)]
#[case("loopback,capacity=64K", Kind::Loopback, 65536)]
#[case("null,capacity=16M", Kind::Null, 1 << 24)]
#[case("unix=/tmp/x", unix("/tmp/x", Role::Listen), 7)]
#[case("unix=x,connect", unix("x", Role::Connect), 7)]
#[case("unix=x,capacity=2,connect", unix("x", Role::Connect), 2)]
#[case("unix=a,,b=c,connect", unix("a,b=c", Role::Connect), 7)]
#[case("unix=,,,connect", unix(",", Role::Connect), 7)]
#[case("pty", pty(None), 7)]
#[case("pty,link=/tmp/tty", pty(Some("/tmp/tty")), 7)]
#[case("file=log", file("log", None), 7)]
#[case("file=log,input=/in,capacity=3", file("log", Some("/in")), 3)]
#[case("pattern", Kind::Pattern { seed: 0 }, 7)]
#[case("pattern,seed=18446744073709551615", Kind::Pattern { seed: u64::MAX }, 7)]
fn good_specs(#[case] text: &str, #[case] kind: Kind, #[case] capacity: usize) {
    let spec: PartialSpec = text.parse().unwrap();
    let fifo = FifoSpec { kind, capacity };
    assert_eq!(spec.with_default(7), fifo);
    let again = fifo.to_string().parse::<PartialSpec>();
    assert_eq!(again.map(|again| again.with_default(9)), Ok(fifo));
    assert_eq!(spec.to_string().parse(), Ok(spec));
}

#[rstest]
#[case("", "unknown FIFO kind ''")]
#[case(
    "loop",
    "unknown FIFO kind 'loop': use loopback, unix=PATH, tcp=HOST:PORT, pty, file=PATH, stdio, pattern, zero or null"
)]
#[case("Unix=/x", "unknown FIFO kind 'Unix'")]
#[case("/tmp/sock", "unknown FIFO kind '/tmp/sock'")]
#[case("loopback=3", "takes no value: write 'loopback'")]
#[case("pty=/tmp/x", "'pty' takes no value: write 'pty'")]
#[case("unix", "needs a path: write 'unix=PATH'")]
#[case("unix=", "needs a path: write 'unix=PATH'")]
#[case("unix,connect", "needs a path: write 'unix=PATH'")]
#[case("file", "needs a path: write 'file=PATH'")]
#[case("file=,input=x", "needs a path: write 'file=PATH'")]
#[case("loopback,", "unknown option ''")]
#[case(
    "loopback,depth=3",
    "unknown option 'depth=3' of FIFO kind 'loopback': it takes capacity=BYTES"
)]
#[case(
    "unix=/a,b",
    "unknown option 'b' of FIFO kind 'unix': it takes capacity=BYTES and connect (a comma in a path is written ',,')"
)]
#[case(
    "pty,connect",
    "option 'connect' belongs to FIFO kind 'unix': 'pty' takes capacity=BYTES and link=PATH"
)]
#[case("unix=x,seed=3", "option 'seed' belongs to FIFO kind 'pattern'")]
#[case("zero,input=x", "option 'input' belongs to FIFO kind 'file'")]
#[case("null,link=x", "option 'link' belongs to FIFO kind 'pty'")]
#[case("unix=x,connect=yes", "option 'connect' takes no value")]
#[case("unix=x,connect,connect", "'connect' is given twice")]
#[case("pty,link", "option 'link' needs a value: write 'link=PATH'")]
#[case("pty,link=", "option 'link' needs a value: write 'link=PATH'")]
#[case("pattern,seed", "option 'seed' needs a value: write 'seed=N'")]
#[case("pattern,seed=x", "seed 'x' is not a number")]
#[case("pattern,seed=+1", "seed '+1' is not a number")]
#[case("pattern,seed=18446744073709551616", "is not a number")]
#[case(
    "loopback,capacity",
    "'capacity' needs a value: write 'capacity=BYTES'"
)]
#[case(
    "loopback,capacity=",
    "'capacity' needs a value: write 'capacity=BYTES'"
)]
#[case("loopback,capacity=1,capacity=2", "given twice")]
#[case("loopback,capacity=-1", "not a number")]
#[case("loopback,capacity=+1", "not a number")]
#[case("loopback,capacity=1G", "not a number")]
#[case("loopback,capacity=K", "not a number")]
#[case("loopback,capacity=0", "out of range")]
#[case("loopback,capacity=17M", "out of range")]
#[case("loopback,capacity=16777217", "out of range")]
#[case("loopback,capacity=99999999999999999999", "out of range")]
#[case("loopback,capacity=4194305K", "out of range")]
fn bad_specs(#[case] text: &str, #[case] message: &str) {
    let error = text.parse::<PartialSpec>().unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[rstest]
#[case("unix=a,capacity=2", "unix=/home/a,capacity=2")]
#[case("unix=/a,connect", "unix=/a,connect")]
#[case("file=a,,b,input=../c", "file=/home/a,,b,input=/home/../c")]
#[case("pty,link=tty", "pty,link=/home/tty")]
#[case("pattern,seed=3", "pattern,seed=3")]
fn paths_begin_where_the_user_is(#[case] text: &str, #[case] expected: &str) {
    let spec: PartialSpec = text.parse().unwrap();
    assert_eq!(spec.resolved(Path::new("/home")).to_string(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// DEV-3: whatever is typed, a capacity that is accepted is one.
    #[test]
    fn accepted_capacities_are_in_range(text in "(loopback|zero|null)?,?(capacity=)?[0-9KMk]{0,12}") {
        if let Ok(spec) = text.parse::<PartialSpec>() {
            let capacity = spec.with_default(DEFAULT_CAPACITY).capacity;
            prop_assert!((1..=1 << 24).contains(&capacity));
        }
    }

    /// What is accepted can be handed on as text.
    #[test]
    fn a_spec_survives_being_written_down(
        text in "(unix|file|pty|pattern)(=[a,/=]{0,6})?(,(connect|link=|input=|seed=)[a1,]{0,4}){0,2}",
    ) {
        if let Ok(spec) = text.parse::<PartialSpec>() {
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }
}

#[rstest]
#[case("tcp=localhost:5000", "localhost", 5000, Role::Connect)]
#[case("tcp=[::1]:0,listen", "::1", 0, Role::Listen)]
#[case(
    "tcp=192.0.2.1:65535,capacity=5,listen",
    "192.0.2.1",
    65535,
    Role::Listen
)]
fn tcp_addresses(#[case] spec: &str, #[case] host: &str, #[case] port: u16, #[case] role: Role) {
    let parsed: PartialSpec = spec.parse().unwrap();
    let expected = Kind::Tcp {
        host: host.to_owned(),
        port,
        role,
    };
    assert_eq!(parsed.kind, expected);
    assert_eq!(parsed.to_string().parse(), Ok(parsed));
}

#[rstest]
#[case("tcp")]
#[case("tcp=")]
#[case("tcp=host")]
#[case("tcp=:5000")]
#[case("tcp=[]:5000")]
#[case("tcp=::1:5000")]
#[case("tcp=host:")]
#[case("tcp=host:+5")]
#[case("tcp=host:65536")]
#[case("tcp=host:0")]
fn what_is_no_tcp_address_says_how_to_write_one(#[case] spec: &str) {
    let error = spec.parse::<PartialSpec>().unwrap_err().to_string();
    assert!(error.contains("write 'tcp=HOST:PORT'"), "{error}");
}

#[test]
fn beginnings_are_those_of_the_kinds() {
    let all: Vec<_> = beginnings().collect();
    assert_eq!(
        all,
        [
            "loopback", "unix=", "tcp=", "pty", "file=", "stdio", "pattern", "zero", "null"
        ]
    );
}
