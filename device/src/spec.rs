// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--fifo SPEC`: what one FIFO is and how deep.
//!
//! A SPEC is a kind (`loopback`, `zero`, `null`) and then `,key=value` options. It is parsed
//! without looking at the world; this file must not know what a kind does.

use virtio_fifo_protocol::virtio_fifo::MAX_CAPACITY;

/// Bytes each direction of a FIFO holds where nothing else is asked for.
pub const DEFAULT_CAPACITY: usize = 4096;

/// Kinds of endpoint that are planned; the message for them differs from that for a typing error.
const PLANNED: [&str; 4] = ["unix", "pty", "file", "pattern"];

/// What is wrong with a SPEC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No such kind, now or planned.
    #[error("unknown FIFO kind '{0}': use loopback, zero or null")]
    UnknownKind(String),
    /// A kind of a later version.
    #[error("FIFO kind '{0}' is not available in this version: use loopback, zero or null")]
    NotYet(String),
    /// `kind=value` for a kind that takes no value.
    #[error("FIFO kind '{0}' takes no value: write '{0}'")]
    NoValue(String),
    /// An option nobody knows.
    #[error("unknown option '{0}': the only one is capacity=BYTES")]
    UnknownOption(String),
    /// The same option a second time.
    #[error("option '{0}' is given twice")]
    Twice(String),
    /// A capacity that is none.
    #[error("{0}")]
    Capacity(#[from] CapacityError),
}

/// What is wrong with a capacity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// Not a number.
    #[error("capacity '{0}' is not a number of bytes: use digits, then K or M if need be")]
    NotANumber(String),
    /// DEV-3
    #[error("capacity {0} is out of range: use 1 to {MAX_CAPACITY} (16M)")]
    OutOfRange(String),
}

/// What a FIFO's streams end at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At each other.
    Loopback,
    /// At zeros without end.
    Zero,
    /// At nothing.
    Null,
}

impl Kind {
    fn parse(name: &str) -> Result<Self, SpecError> {
        let (kind, value) = match name.split_once('=') {
            Some((kind, value)) => (kind, Some(value)),
            None => (name, None),
        };
        let found = match kind {
            "loopback" => Self::Loopback,
            "zero" => Self::Zero,
            "null" => Self::Null,
            planned if PLANNED.contains(&planned) => {
                return Err(SpecError::NotYet(kind.to_owned()));
            }
            _ => return Err(SpecError::UnknownKind(kind.to_owned())),
        };
        match value {
            Some(_) => Err(SpecError::NoValue(kind.to_owned())),
            None => Ok(found),
        }
    }
}

/// A SPEC as given, its capacity perhaps left to `--capacity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialSpec {
    kind: Kind,
    capacity: Option<usize>,
}

impl PartialSpec {
    /// The FIFO of a device for which none is asked.
    pub const LOOPBACK: Self = Self {
        kind: Kind::Loopback,
        capacity: None,
    };

    /// The FIFO that is meant where `capacity` holds for all that name none.
    pub fn with_default(&self, capacity: usize) -> FifoSpec {
        FifoSpec {
            kind: self.kind,
            capacity: self.capacity.unwrap_or(capacity),
        }
    }
}

impl std::str::FromStr for PartialSpec {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        let mut parts = spec.split(',');
        let kind = Kind::parse(parts.next().unwrap_or_default())?;
        let mut capacity = None;
        for option in parts {
            match option.split_once('=') {
                Some(("capacity", _)) if capacity.is_some() => {
                    return Err(SpecError::Twice("capacity".to_owned()));
                }
                Some(("capacity", value)) => capacity = Some(parse_capacity(value)?),
                _ => return Err(SpecError::UnknownOption(option.to_owned())),
            }
        }
        Ok(Self { kind, capacity })
    }
}

/// One FIFO of the device to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FifoSpec {
    /// What its streams end at.
    pub kind: Kind,
    /// Bytes each direction holds.
    pub capacity: usize,
}

/// Reads a capacity: digits, then perhaps K (1024) or M (1024 · 1024).
///
/// # Errors
///
/// Why it is none.
pub fn parse_capacity(text: &str) -> Result<usize, CapacityError> {
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CapacityError::NotANumber(text.to_owned()));
    }
    digits
        .parse::<u32>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .filter(|bytes| (1..=MAX_CAPACITY).contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| CapacityError::OutOfRange(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("loopback", Kind::Loopback, 7)]
    #[case("zero", Kind::Zero, 7)]
    #[case("null", Kind::Null, 7)]
    #[case("loopback,capacity=1", Kind::Loopback, 1)]
    #[case("loopback,capacity=64K", Kind::Loopback, 65536)]
    #[case("null,capacity=16M", Kind::Null, 1 << 24)]
    fn good_specs(#[case] text: &str, #[case] kind: Kind, #[case] capacity: usize) {
        let spec: PartialSpec = text.parse().unwrap();
        assert_eq!(spec.with_default(7), FifoSpec { kind, capacity });
    }

    #[rstest]
    #[case("", "unknown FIFO kind ''")]
    #[case("loop", "unknown FIFO kind 'loop'")]
    #[case("unix=/tmp/x", "'unix' is not available in this version")]
    #[case("pty", "'pty' is not available in this version")]
    #[case("file=/x,capacity=1", "'file' is not available in this version")]
    #[case("loopback=3", "takes no value")]
    #[case("loopback,", "unknown option ''")]
    #[case("loopback,depth=3", "unknown option 'depth=3'")]
    #[case("loopback,capacity", "unknown option 'capacity'")]
    #[case("loopback,capacity=1,capacity=2", "given twice")]
    #[case("loopback,capacity=", "not a number")]
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
    }
}
