// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod client;
mod protocol;
mod status;

pub use self::client::Client;
pub use self::client::ClientError;
pub use self::client::read;
pub use self::protocol::Answer;
pub use self::protocol::BadRequest;
pub use self::protocol::Cleared;
pub use self::protocol::Code;
pub use self::protocol::Command;
pub use self::protocol::Failure;
pub use self::protocol::FaultAdded;
pub use self::protocol::Faults;
pub use self::protocol::FaultsRemoved;
pub use self::protocol::Hello;
pub use self::protocol::MAX_BYTES;
pub use self::protocol::MAX_LINE;
pub use self::protocol::Metrics;
pub use self::protocol::Outcome;
pub use self::protocol::Pulled;
pub use self::protocol::Pushed;
pub use self::protocol::Request;
pub use self::protocol::Traced;
pub use self::protocol::VERSION;
pub use self::protocol::decode;
pub use self::protocol::encode;
pub use self::status::DeviceStatus;
pub use self::status::DirectionStatus;
pub use self::status::Event;
pub use self::status::FaultStatus;
pub use self::status::FifoStatus;
pub use self::status::HostSide;
pub use self::status::Status;
