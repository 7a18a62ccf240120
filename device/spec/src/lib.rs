// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--fifo SPEC`: what one FIFO is and how deep.
//!
//! A SPEC is a kind, perhaps with a value, and then `,key=value` options; `,,` is a comma that
//! separates nothing, for paths. It is parsed without looking at the world. This crate is the
//! grammar alone, for the device and for programs that hand SPECs on to it; it must not know what a
//! kind does.

#![forbid(unsafe_code)]

pub mod fault;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use std::fmt;
use std::fmt::Display;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use virtio_fifo_protocol::virtio_fifo::MAX_CAPACITY;
pub use virtio_fifo_protocol::virtio_fifo::MAX_FIFOS;

/// Bytes each direction of a FIFO holds where nothing else is asked for.
pub const DEFAULT_CAPACITY: usize = 4096;

/// Every kind as it is written, for messages and help.
pub const KINDS: &str =
    "loopback, unix=PATH, tcp=HOST:PORT, pty, file=PATH, stdio, pattern, zero or null";

/// How SPECs begin, for shells that complete them: of [`KINDS`] what is to be typed as it is.
pub fn beginnings() -> impl Iterator<Item = &'static str> {
    let kinds = KINDS.split(", ").flat_map(|kinds| kinds.split(" or "));
    kinds.map(|kind| {
        kind.find('=')
            .and_then(|at| kind.get(..=at))
            .unwrap_or(kind)
    })
}

/// What is wrong with a SPEC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No such kind.
    #[error("unknown FIFO kind '{0}': use {KINDS}")]
    UnknownKind(String),
    /// `kind=value` for a kind that takes no value.
    #[error("FIFO kind '{0}' takes no value: write '{0}'")]
    KindValue(&'static str),
    /// A kind that is nothing without a path.
    #[error("FIFO kind '{0}' needs a path: write '{0}=PATH'")]
    NoPath(&'static str),
    /// A kind that is nothing without an address.
    #[error(
        "'{0}' is no address for FIFO kind 'tcp': write 'tcp=HOST:PORT', an IPv6 address as '[::1]:PORT'"
    )]
    Address(String),
    /// An option nobody knows.
    #[error(
        "unknown option '{option}' of FIFO kind '{kind}': it takes {known}{}",
        if *.paths { " (a comma in a path is written ',,')" } else { "" }
    )]
    UnknownOption {
        /// As given.
        option: String,
        /// Where.
        kind: &'static str,
        /// What there is.
        known: &'static str,
        /// Whether there is a path that the option may be a part of.
        paths: bool,
    },
    /// An option of another kind.
    #[error("option '{option}' belongs to FIFO kind '{owner}': '{kind}' takes {known}")]
    OtherKind {
        /// The option.
        option: &'static str,
        /// Where it belongs.
        owner: &'static str,
        /// Where it was given.
        kind: &'static str,
        /// What is taken there.
        known: &'static str,
    },
    /// `key` where it is `key=value`.
    #[error("option '{0}' needs a value: write '{0}={1}'")]
    OptionNeedsValue(&'static str, &'static str),
    /// `key=value` where it is `key`.
    #[error("option '{0}' takes no value: write '{0}'")]
    OptionValue(&'static str),
    /// The same option a second time.
    #[error("option '{0}' is given twice")]
    Twice(&'static str),
    /// A capacity that is none.
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// A seed that is none.
    #[error("seed '{0}' is not a number: use 0 to {max}", max = u64::MAX)]
    Seed(String),
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

/// Which side of a socket the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Peers connect to it.
    Listen,
    /// It connects to a peer.
    Connect,
}

/// What a FIFO's streams end at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At each other.
    Loopback,
    /// At a UNIX stream socket.
    Unix {
        /// Of the socket.
        path: PathBuf,
        /// Who connects.
        role: Role,
    },
    /// At a TCP connection.
    Tcp {
        /// Name or address.
        host: String,
        /// 0 only to listen, at any port.
        port: u16,
        /// Who connects.
        role: Role,
    },
    /// At standard input and standard output.
    Stdio,
    /// At a pseudo-terminal.
    Pty {
        /// A symbolic link to it.
        link: Option<PathBuf>,
    },
    /// At files.
    File {
        /// Where bytes are appended.
        path: PathBuf,
        /// Where bytes come from.
        input: Option<PathBuf>,
    },
    /// At a stream of bytes that both sides can compute.
    Pattern {
        /// Which of the streams.
        seed: u64,
    },
    /// At zeros without end.
    Zero,
    /// At nothing.
    Null,
}

/// What options a kind may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Capacity,
    Connect,
    Listen,
    Link,
    Input,
    Seed,
}

impl Key {
    const ALL: [Self; 6] = [
        Self::Capacity,
        Self::Connect,
        Self::Listen,
        Self::Link,
        Self::Input,
        Self::Seed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Link => "link",
            Self::Input => "input",
            Self::Seed => "seed",
        }
    }

    /// The only kind that takes it; `None` if all do.
    fn owner(self) -> Option<&'static str> {
        match self {
            Self::Capacity => None,
            Self::Connect => Some("unix"),
            Self::Listen => Some("tcp"),
            Self::Link => Some("pty"),
            Self::Input => Some("file"),
            Self::Seed => Some("pattern"),
        }
    }

    /// What its value is called; `None` if it takes none.
    fn value(self) -> Option<&'static str> {
        match self {
            Self::Capacity => Some("BYTES"),
            Self::Connect | Self::Listen => None,
            Self::Link | Self::Input => Some("PATH"),
            Self::Seed => Some("N"),
        }
    }
}

impl Kind {
    fn parse(part: &str) -> Result<Self, SpecError> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        let kind = match name {
            "loopback" => Self::Loopback,
            "unix" => Self::Unix {
                path: path("unix", value)?,
                role: Role::Listen,
            },
            "tcp" => tcp(value.unwrap_or_default())?,
            "stdio" => Self::Stdio,
            "pty" => Self::Pty { link: None },
            "file" => Self::File {
                path: path("file", value)?,
                input: None,
            },
            "pattern" => Self::Pattern { seed: 0 },
            "zero" => Self::Zero,
            "null" => Self::Null,
            _ => return Err(SpecError::UnknownKind(name.to_owned())),
        };
        match kind {
            Self::Unix { .. } | Self::Tcp { .. } | Self::File { .. } => Ok(kind),
            _ if value.is_some() => Err(SpecError::KindValue(kind.name())),
            _ => Ok(kind),
        }
    }

    /// As it is written in a SPEC.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Unix { .. } => "unix",
            Self::Tcp { .. } => "tcp",
            Self::Stdio => "stdio",
            Self::Pty { .. } => "pty",
            Self::File { .. } => "file",
            Self::Pattern { .. } => "pattern",
            Self::Zero => "zero",
            Self::Null => "null",
        }
    }

    fn known_options(&self) -> &'static str {
        match self {
            Self::Loopback | Self::Stdio | Self::Zero | Self::Null => "capacity=BYTES",
            Self::Tcp { .. } => "capacity=BYTES and listen",
            Self::Unix { .. } => "capacity=BYTES and connect",
            Self::Pty { .. } => "capacity=BYTES and link=PATH",
            Self::File { .. } => "capacity=BYTES and input=PATH",
            Self::Pattern { .. } => "capacity=BYTES and seed=N",
        }
    }

    fn unknown_option(&self, option: &str) -> SpecError {
        SpecError::UnknownOption {
            option: option.to_owned(),
            kind: self.name(),
            known: self.known_options(),
            paths: matches!(
                self,
                Self::Unix { .. } | Self::Pty { .. } | Self::File { .. }
            ),
        }
    }

    /// Takes an option of this kind.
    fn set(&mut self, key: Key, value: &str) -> Result<(), SpecError> {
        match (self, key) {
            (Self::Unix { role, .. }, Key::Connect) => *role = Role::Connect,
            (Self::Tcp { role, .. }, Key::Listen) => *role = Role::Listen,
            (Self::Pty { link }, Key::Link) => *link = Some(value.into()),
            (Self::File { input, .. }, Key::Input) => *input = Some(value.into()),
            (Self::Pattern { seed }, Key::Seed) => {
                *seed = value
                    .parse()
                    .ok()
                    .filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()))
                    .ok_or_else(|| SpecError::Seed(value.to_owned()))?;
            }
            (kind, key) => {
                return Err(SpecError::OtherKind {
                    option: key.name(),
                    owner: key.owner().unwrap_or_default(),
                    kind: kind.name(),
                    known: kind.known_options(),
                });
            }
        }
        Ok(())
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let (first, second) = match self {
            Self::Unix { path, .. } => (Some(path), None),
            Self::Pty { link } => (link.as_mut(), None),
            Self::File { path, input } => (Some(path), input.as_mut()),
            Self::Loopback
            | Self::Tcp { .. }
            | Self::Stdio
            | Self::Pattern { .. }
            | Self::Zero
            | Self::Null => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// `HOST:PORT`, to connect to.
fn tcp(value: &str) -> Result<Kind, SpecError> {
    let wrong = || SpecError::Address(value.to_owned());
    let (host, port) = value.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(host) => host,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && !host.is_empty() => Ok(Kind::Tcp {
            host: host.to_owned(),
            port,
            role: Role::Connect,
        }),
        _ => Err(wrong()),
    }
}

fn path(kind: &'static str, value: Option<&str>) -> Result<PathBuf, SpecError> {
    match value {
        None | Some("") => Err(SpecError::NoPath(kind)),
        Some(value) => Ok(value.into()),
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

    /// What the FIFO is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The FIFO that is meant where `capacity` holds for all that name none.
    pub fn with_default(&self, capacity: usize) -> FifoSpec {
        FifoSpec {
            kind: self.kind.clone(),
            capacity: self.capacity.unwrap_or(capacity),
        }
    }

    /// The same for a process with another working directory: paths begin at `folder`.
    #[must_use]
    pub fn resolved(mut self, folder: &Path) -> Self {
        for path in self.kind.paths() {
            *path = folder.join(&path);
        }
        self
    }
}

impl FromStr for PartialSpec {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        let mut parts = split(spec).into_iter();
        let mut kind = Kind::parse(&parts.next().unwrap_or_default())?;
        let mut capacity = None;
        let mut given = Vec::new();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (part.as_str(), None),
            };
            let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) else {
                return Err(kind.unknown_option(&part));
            };
            if given.contains(&key) {
                return Err(SpecError::Twice(key.name()));
            }
            given.push(key);
            let value = match (key.value(), value) {
                (Some(what), None | Some("")) => {
                    return Err(SpecError::OptionNeedsValue(key.name(), what));
                }
                (None, Some(_)) => return Err(SpecError::OptionValue(key.name())),
                (_, value) => value.unwrap_or_default(),
            };
            match key {
                Key::Capacity => capacity = Some(parse_capacity(value)?),
                key => kind.set(key, value)?,
            }
        }
        if let Kind::Tcp {
            host,
            port: 0,
            role: Role::Connect,
        } = &kind
        {
            return Err(SpecError::Address(format!("{host}:0")));
        }
        Ok(Self { kind, capacity })
    }
}

/// The SPEC again: parsing it gives an equal one.
impl Display for PartialSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.name())?;
        match &self.kind {
            Kind::Loopback | Kind::Stdio | Kind::Zero | Kind::Null | Kind::Pty { link: None } => {}
            Kind::Tcp { host, port, role } => {
                let host = host.replace(',', ",,");
                if host.contains(':') {
                    write!(f, "=[{host}]:{port}")?;
                } else {
                    write!(f, "={host}:{port}")?;
                }
                if *role == Role::Listen {
                    write!(f, ",listen")?;
                }
            }
            Kind::Unix { path, role } => {
                write!(f, "={}", escaped(path))?;
                if *role == Role::Connect {
                    write!(f, ",connect")?;
                }
            }
            Kind::Pty { link: Some(link) } => write!(f, ",link={}", escaped(link))?,
            Kind::File { path, input } => {
                write!(f, "={}", escaped(path))?;
                if let Some(input) = input {
                    write!(f, ",input={}", escaped(input))?;
                }
            }
            Kind::Pattern { seed } => write!(f, ",seed={seed}")?,
        }
        match self.capacity {
            Some(capacity) => write!(f, ",capacity={capacity}"),
            None => Ok(()),
        }
    }
}

fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The parts between single commas; two commas are one that belongs to a part.
fn split(spec: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut rest = spec.chars().peekable();
    while let Some(char) = rest.next() {
        if char != ',' {
            part.push(char);
        } else if rest.next_if_eq(&',').is_some() {
            part.push(',');
        } else {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.push(part);
    parts
}

/// One FIFO of the device to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FifoSpec {
    /// What its streams end at.
    pub kind: Kind,
    /// Bytes each direction holds.
    pub capacity: usize,
}

/// Its SPEC.
impl Display for FifoSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, capacity } = self.clone();
        let capacity = Some(capacity);
        PartialSpec { kind, capacity }.fmt(f)
    }
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
mod tests;
