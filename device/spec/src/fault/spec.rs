// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--fault SPEC`: what goes wrong, where, when and how often.
//!
//! A SPEC is the name of a fault and then `,key=value` options, for instance
//! `drop-interrupt,fifo=0,p=0.1,count=5,after=200ms,for=2s,seed=7`. [`FaultSpec`] prints as what
//! it was read from, but for what is a default.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::kind::Delay;
use super::kind::Kind;
use super::kind::Lane;

/// Spurious interrupts closer together than this only measure the machine.
const SHORTEST_EVERY: Duration = Duration::from_micros(100);
/// No fault needs longer, and times can be added up without a thought.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// What is wrong with a SPEC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No such fault.
    #[error("unknown fault '{0}': use {kinds}", kinds = all_kinds())]
    UnknownKind(String),
    /// An option that this fault does not have.
    #[error("{kind} has no option '{option}': use {options}", options = options(*.kind))]
    UnknownOption {
        /// The fault.
        kind: Kind,
        /// The option.
        option: String,
    },
    /// The same option a second time.
    #[error("option '{0}' is given twice")]
    Twice(String),
    /// An option whose value makes no sense.
    #[error("{option}={value} is not right: use {wanted}")]
    Value {
        /// The option.
        option: String,
        /// What it was given.
        value: String,
        /// What it takes.
        wanted: String,
    },
    /// `fifo=` with a lane that belongs to no FIFO.
    #[error("on={lane} belongs to all FIFOs: leave fifo={fifo} out", lane = .lane.name())]
    NoFifo {
        /// The lane.
        lane: Lane,
        /// The FIFO.
        fifo: u16,
    },
}

/// One fault to be.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultSpec {
    /// What goes wrong.
    pub kind: Kind,
    /// In which FIFO; `None` for all, and for what belongs to no FIFO.
    pub fifo: Option<u16>,
    /// On its way where; `None` for everywhere.
    pub lane: Option<Lane>,
    /// How likely it strikes at an opportunity; `None` for always, or for as the liar likes.
    pub chance: Option<f64>,
    /// How many opportunities at each place it lets pass first.
    pub skip: u64,
    /// How often it strikes at most.
    pub count: Option<u64>,
    /// How long it waits.
    pub after: Duration,
    /// How long it can strike from then on.
    pub span: Option<Duration>,
    /// How late what is late is, or how long a strike lasts.
    pub delay: Option<Duration>,
    /// How long it is from one opportunity to the next, where the fault makes its own.
    pub every: Option<Duration>,
    /// How many bytes are meant; any number where it is `None`.
    pub bytes: Option<u32>,
    /// Which 32-bit word of a structure is meant, from 0.
    pub word: Option<u32>,
    /// What that word says; any wrong value where it is `None`.
    pub value: Option<u32>,
    /// What its chance comes from.
    pub seed: u64,
}

impl FaultSpec {
    /// A fault that strikes everywhere, always.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            fifo: None,
            lane: None,
            chance: None,
            skip: 0,
            count: None,
            after: Duration::ZERO,
            span: None,
            delay: None,
            every: None,
            bytes: None,
            word: None,
            value: None,
            seed: 0,
        }
    }

    /// How late what is late is, or how long a strike lasts; `None` if that has no end of its own.
    pub fn lasts(&self) -> Option<Duration> {
        self.delay.or(match self.kind.delay() {
            Delay::Is(delay) => Some(delay),
            Delay::None | Delay::WhileItLasts => None,
        })
    }

    /// How long it is from one opportunity to the next.
    pub fn period(&self) -> Option<Duration> {
        self.kind.every().map(|every| self.every.unwrap_or(every))
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), FaultError> {
        let kind = self.kind;
        let wrong = |wanted: &str| FaultError::Value {
            option: option.to_owned(),
            value: value.to_owned(),
            wanted: wanted.to_owned(),
        };
        let number = |wanted| value.parse::<u64>().map_err(|_| wrong(wanted));
        let time = || {
            humantime::parse_duration(value)
                .ok()
                .filter(|time| *time <= LONGEST)
                .ok_or_else(|| wrong("a time, for instance 500us, 200ms or 2s"))
        };
        match option {
            "fifo" => {
                let fifo = value.parse().map_err(|_| wrong("the number of a FIFO"))?;
                self.fifo = Some(fifo);
            }
            "on" if !kind.lanes().is_empty() => {
                let lane = kind.lanes().iter().find(|lane| lane.name() == value);
                self.lane = Some(*lane.ok_or_else(|| wrong(&lane_names(kind)))?);
            }
            "p" => {
                let chance = value.parse().ok().filter(|p| *p > 0.0 && *p <= 1.0);
                self.chance = Some(chance.ok_or_else(|| wrong("above 0, up to 1"))?);
            }
            "skip" => self.skip = number("how many opportunities it lets pass")?,
            "count" => {
                let count = number("how often it may strike, 1 or more")?;
                if count == 0 {
                    return Err(wrong("how often it may strike, 1 or more"));
                }
                self.count = Some(count);
            }
            "after" => self.after = time()?,
            "for" => self.span = Some(time()?),
            "delay" if kind.delay() != Delay::None => self.delay = Some(time()?),
            "every" if kind.every().is_some() => {
                self.every = Some(time()?);
                if self.every < Some(SHORTEST_EVERY) {
                    return Err(wrong("100us or more"));
                }
            }
            "bytes" if kind.has_bytes() => {
                let bytes = value.parse().map_err(|_| wrong("a number of bytes"))?;
                self.bytes = Some(bytes);
            }
            "word" if kind.has_word() => {
                let word = value.parse().map_err(|_| wrong("the number of a word"))?;
                self.word = Some(word);
            }
            "value" if kind.has_word() => {
                let said = value.parse().map_err(|_| wrong("a 32-bit number"))?;
                self.value = Some(said);
            }
            "seed" => self.seed = number("any whole number")?,
            _ => {
                return Err(FaultError::UnknownOption {
                    kind,
                    option: option.to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl FromStr for FaultSpec {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let kind = Kind::from_name(name).ok_or_else(|| FaultError::UnknownKind(name.to_owned()))?;
        let mut spec = Self::new(kind);
        let mut seen = Vec::new();
        for part in parts {
            let (option, value) = part.split_once('=').unwrap_or((part, ""));
            if seen.contains(&option) {
                return Err(FaultError::Twice(option.to_owned()));
            }
            spec.set(option, value)?;
            seen.push(option);
        }
        match (spec.lane, spec.fifo) {
            (Some(lane @ (Lane::Control | Lane::Event)), Some(fifo)) => {
                Err(FaultError::NoFifo { lane, fifo })
            }
            _ => Ok(spec),
        }
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if let Some(fifo) = self.fifo {
            write!(f, ",fifo={fifo}")?;
        }
        if let Some(lane) = self.lane {
            write!(f, ",on={}", lane.name())?;
        }
        if let Some(chance) = self.chance {
            write!(f, ",p={chance}")?;
        }
        if self.skip != 0 {
            write!(f, ",skip={}", self.skip)?;
        }
        if let Some(count) = self.count {
            write!(f, ",count={count}")?;
        }
        let times = [
            ("after", Some(self.after).filter(|after| !after.is_zero())),
            ("for", self.span),
            ("delay", self.delay),
            ("every", self.every),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                let time = humantime::format_duration(time).to_string();
                write!(f, ",{name}={}", time.replace(' ', ""))?;
            }
        }
        let numbers = [
            ("bytes", self.bytes),
            ("word", self.word),
            ("value", self.value),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, ",{name}={number}")?;
            }
        }
        if self.seed != 0 {
            write!(f, ",seed={}", self.seed)?;
        }
        Ok(())
    }
}

fn all_kinds() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

fn lane_names(kind: Kind) -> String {
    let names: Vec<_> = kind.lanes().iter().map(|lane| lane.name()).collect();
    names.join(", ")
}

fn options(kind: Kind) -> String {
    let options = [
        ("fifo", true),
        ("on", !kind.lanes().is_empty()),
        ("p", true),
        ("skip", true),
        ("count", true),
        ("after", true),
        ("for", true),
        ("delay", kind.delay() != Delay::None),
        ("every", kind.every().is_some()),
        ("bytes", kind.has_bytes()),
        ("word", kind.has_word()),
        ("value", kind.has_word()),
        ("seed", true),
    ];
    let options: Vec<_> = options
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .map(|name| format!("{name}=…"))
        .collect();
    options.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn every_option() {
        let text = "drop-interrupt,fifo=3,on=tx,p=0.1,skip=2,count=5,after=200ms,for=2s,seed=7";
        let spec: FaultSpec = text.parse().unwrap();
        let expected = FaultSpec {
            fifo: Some(3),
            lane: Some(Lane::Tx),
            chance: Some(0.1),
            skip: 2,
            count: Some(5),
            after: Duration::from_millis(200),
            span: Some(Duration::from_secs(2)),
            seed: 7,
            ..FaultSpec::new(Kind::DropInterrupt)
        };
        assert_eq!(spec, expected);
        assert_eq!(spec.to_string(), text);
    }

    #[test]
    fn a_word_and_what_it_says() {
        let text = "wrong-config,word=1,value=2";
        let spec: FaultSpec = text.parse().unwrap();
        assert_eq!((spec.word, spec.value), (Some(1), Some(2)));
        assert_eq!(spec.to_string(), text);
    }

    #[test]
    fn a_name_alone_is_a_fault_that_always_strikes() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(FaultSpec::new(kind)));
        }
    }

    #[rstest]
    #[case("", "unknown fault ''")]
    #[case("drop", "use drop-interrupt, delay-interrupt")]
    #[case("stall,", "stall has no option ''")]
    #[case("stall,bytes=3", "use fifo=…, on=…, p=…")]
    #[case("slow,on=rx", "slow has no option 'on'")]
    #[case("hang-up,every=1s", "no option 'every'")]
    #[case("stall,p=0.5,p=0.5", "'p' is given twice")]
    #[case("stall,p", "p= is not right: use above 0, up to 1")]
    #[case("stall,p=0", "p=0 is not right")]
    #[case("stall,p=1.1", "p=1.1 is not right")]
    #[case("stall,p=NaN", "p=NaN is not right")]
    #[case("stall,skip=x", "how many opportunities")]
    #[case("stall,count=0", "1 or more")]
    #[case("stall,count=-1", "1 or more")]
    #[case("stall,fifo=x", "the number of a FIFO")]
    #[case("stall,fifo=70000", "the number of a FIFO")]
    #[case("stall,on=both", "use control, event, rx, tx")]
    #[case("credit-overrun,on=event", "use rx, tx")]
    #[case("stall,on=control,fifo=0", "leave fifo=0 out")]
    #[case("stall,after=5", "a time, for instance 500us")]
    #[case("stall,for=99999years", "a time, for instance 500us")]
    #[case("spurious-interrupt,every=1us", "100us or more")]
    #[case("wrong-length,bytes=4294967296", "a number of bytes")]
    #[case("stall,word=1", "no option 'word'")]
    #[case("wrong-config,word=-1", "the number of a word")]
    #[case("wrong-config,value=4294967296", "a 32-bit number")]
    #[case("wrong-config,on=control", "use fifo=…, p=…")]
    #[case("stall,seed=x", "any whole number")]
    fn errors_say_what_to_write(#[case] text: &str, #[case] part: &str) {
        let error = text.parse::<FaultSpec>().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[a-z]{0,8}(,[a-z]{0,5}=?[0-9a-z.]{0,8}){0,4}") {
            let _ = text.parse::<FaultSpec>();
        }

        #[test]
        fn it_prints_as_it_is_read(
            kind in 0..Kind::ALL.len(),
            fifo in proptest::option::of(0..31_u16),
            chance in proptest::option::of(0.001..=1.0),
            skip: u64,
            count in proptest::option::of(1..=u64::MAX),
            times in proptest::array::uniform2(proptest::option::of(0..100_000_000_000_u64)),
            seed: u64,
        ) {
            let [after, span] = times.map(|time| time.map(Duration::from_nanos));
            let spec = FaultSpec {
                fifo,
                chance,
                skip,
                count,
                after: after.unwrap_or_default(),
                span,
                seed,
                ..FaultSpec::new(Kind::ALL[kind])
            };
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }
}
