// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong, and where.

use std::fmt;
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An interrupt is not sent.
    DropInterrupt,
    /// An interrupt is sent later.
    DelayInterrupt,
    /// An interrupt is sent now, and once more later.
    DuplicateInterrupt,
    /// An interrupt is sent though nothing was used.
    SpuriousInterrupt,
    /// A used buffer is given back after the next one.
    ReorderUsed,
    /// A used buffer has a used length that cannot be.
    WrongLength,
    /// A used buffer has the id of another one, or of none.
    WrongId,
    /// The used index runs ahead of the buffers that were used.
    WrongIndex,
    /// An rx message carries fewer bytes than it could.
    ShortTransfer,
    /// More is sent, or may be sent, than a FIFO holds.
    CreditOverrun,
    /// A queue is not served.
    Stall,
    /// What a FIFO takes or gives is moved later.
    Slow,
    /// An event that says anything.
    GarbageEvent,
    /// The host side is gone.
    HangUp,
    /// The FIFO has failed.
    DeviceError,
    /// Every field of everything may be a lie.
    Liar,
    /// A word of configuration space is wrong.
    WrongConfig,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 17] = [
        Self::DropInterrupt,
        Self::DelayInterrupt,
        Self::DuplicateInterrupt,
        Self::SpuriousInterrupt,
        Self::ReorderUsed,
        Self::WrongLength,
        Self::WrongId,
        Self::WrongIndex,
        Self::ShortTransfer,
        Self::CreditOverrun,
        Self::Stall,
        Self::Slow,
        Self::GarbageEvent,
        Self::HangUp,
        Self::DeviceError,
        Self::Liar,
        Self::WrongConfig,
    ];

    /// Its name in a SPEC.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DropInterrupt => "drop-interrupt",
            Self::DelayInterrupt => "delay-interrupt",
            Self::DuplicateInterrupt => "duplicate-interrupt",
            Self::SpuriousInterrupt => "spurious-interrupt",
            Self::ReorderUsed => "reorder-used",
            Self::WrongLength => "wrong-length",
            Self::WrongId => "wrong-id",
            Self::WrongIndex => "wrong-index",
            Self::ShortTransfer => "short-transfer",
            Self::CreditOverrun => "credit-overrun",
            Self::Stall => "stall",
            Self::Slow => "slow",
            Self::GarbageEvent => "garbage-event",
            Self::HangUp => "hang-up",
            Self::DeviceError => "device-error",
            Self::Liar => "liar",
            Self::WrongConfig => "wrong-config",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The lanes of which `on=` can choose one; none where that makes no sense.
    pub const fn lanes(self) -> &'static [Lane] {
        match self {
            Self::DropInterrupt
            | Self::DelayInterrupt
            | Self::DuplicateInterrupt
            | Self::SpuriousInterrupt
            | Self::ReorderUsed
            | Self::WrongLength
            | Self::WrongId
            | Self::WrongIndex
            | Self::Stall => &Lane::ALL,
            Self::CreditOverrun => &[Lane::Rx, Lane::Tx],
            Self::ShortTransfer
            | Self::Slow
            | Self::GarbageEvent
            | Self::HangUp
            | Self::DeviceError
            | Self::Liar
            | Self::WrongConfig => &[],
        }
    }

    /// Whether `delay=` means something, and what it is where it is not given.
    pub const fn delay(self) -> Delay {
        match self {
            Self::DelayInterrupt | Self::Slow => Delay::Is(Duration::from_millis(100)),
            Self::DuplicateInterrupt => Delay::Is(Duration::from_millis(1)),
            Self::Stall | Self::HangUp => Delay::WhileItLasts,
            _ => Delay::None,
        }
    }

    /// How long it is from one opportunity to the next, for what makes its own.
    pub const fn every(self) -> Option<Duration> {
        match self {
            Self::SpuriousInterrupt | Self::Liar => Some(Duration::from_millis(10)),
            _ => None,
        }
    }

    /// Whether `bytes=` means something.
    pub const fn has_bytes(self) -> bool {
        matches!(
            self,
            Self::WrongLength | Self::ShortTransfer | Self::CreditOverrun
        )
    }

    /// Whether `word=` and `value=` mean something.
    pub const fn has_word(self) -> bool {
        matches!(self, Self::WrongConfig)
    }

    /// Whether it must find its opportunity even while nothing else happens.
    pub const fn wakes(self) -> bool {
        matches!(self, Self::GarbageEvent | Self::HangUp | Self::DeviceError)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `delay=` is to a kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Nothing.
    None,
    /// A time, with a default.
    Is(Duration),
    /// A time; without it, as long as the fault lasts.
    WhileItLasts,
}

/// What travels: each kind of queue, in the words of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Requests and responses.
    Control,
    /// State events.
    Event,
    /// Bytes to the driver.
    Rx,
    /// Bytes from the driver.
    Tx,
}

impl Lane {
    /// Every lane there is.
    pub const ALL: [Self; 4] = [Self::Control, Self::Event, Self::Rx, Self::Tx];

    /// Its name in a SPEC.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Event => "event",
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

/// Where something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// In which FIFO; `None` for what serves all of them.
    pub fifo: Option<u16>,
    /// On its way where.
    pub lane: Lane,
}

impl Place {
    /// Control requests.
    pub const CONTROL: Self = Self {
        fifo: None,
        lane: Lane::Control,
    };
    /// Events.
    pub const EVENT: Self = Self {
        fifo: None,
        lane: Lane::Event,
    };

    /// The rx stream of a FIFO.
    pub const fn rx(fifo: u16) -> Self {
        Self {
            fifo: Some(fifo),
            lane: Lane::Rx,
        }
    }

    /// Events about one FIFO; they travel with those about all others.
    pub const fn event(fifo: u16) -> Self {
        Self {
            fifo: Some(fifo),
            lane: Lane::Event,
        }
    }

    /// The tx stream of a FIFO.
    pub const fn tx(fifo: u16) -> Self {
        Self {
            fifo: Some(fifo),
            lane: Lane::Tx,
        }
    }
}
