// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The words of the control socket, one line of JSON each; `docs/control.md` documents them.
//!
//! Both ends use these types. Reading a request knows which fields belong to which command, so
//! that whatever is wrong with a line is said in words; it must not know what a command does.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::status::FaultStatus;
use crate::status::Status;

/// Version of the protocol; a change that breaks clients raises it.
pub const VERSION: u32 = 1;

/// Longest line of a request, its newline not counted.
pub const MAX_LINE: usize = 64 << 10;

/// Most bytes that one `push` can carry or one `pull` answers, as base64 fits into a line.
pub const MAX_BYTES: usize = 32 << 10;

/// Longest `id` of a request, as JSON.
const MAX_ID: usize = 64;

/// What the daemon says first on every connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The program.
    pub hello: String,
    /// Its version.
    pub version: String,
    /// [`VERSION`]
    pub protocol: u32,
}

impl Hello {
    /// The greeting of a program that speaks [`VERSION`].
    pub fn new(program: &str, version: &str) -> Self {
        Self {
            hello: program.to_owned(),
            version: version.to_owned(),
            protocol: VERSION,
        }
    }
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// The device and its FIFOs.
    Status {},
    /// [`Command::Status`] as Prometheus text.
    Metrics {},
    /// Bytes into the rx stream, as if the host side had sent them.
    Push {
        /// Which FIFO.
        fifo: u16,
        /// The bytes, where they are text, …
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// … or in base64, with padding.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    /// Bytes that the driver has sent and the host side has not taken.
    Pull {
        /// Which FIFO.
        fifo: u16,
        /// Most bytes to take.
        #[serde(default = "max_bytes")]
        max: usize,
    },
    /// Discards all bytes of a FIFO.
    Clear {
        /// Which FIFO.
        fifo: u16,
    },
    /// Hangs up the host side of a FIFO, or takes that back.
    Hangup {
        /// Which FIFO.
        fifo: u16,
        /// Hang up.
        #[serde(default = "yes")]
        on: bool,
    },
    /// Adds a fault.
    FaultAdd {
        /// What goes wrong, as for `--fault`.
        spec: String,
    },
    /// All faults.
    FaultList {},
    /// Takes a fault away.
    FaultRemove {
        /// Which one.
        fault: u32,
    },
    /// Takes all faults away.
    FaultClear {},
    /// From now on tells what happens.
    Watch {
        /// Only these FIFOs; all of them if there is none.
        #[serde(default)]
        fifos: Vec<u16>,
    },
    /// From now on tells events of the data path with their times, or ends that.
    Trace {
        /// Begin.
        #[serde(default = "yes")]
        on: bool,
    },
}

/// Names of all commands, for whoever uses another one.
const COMMANDS: [&str; 12] = [
    "status",
    "metrics",
    "push",
    "pull",
    "clear",
    "hangup",
    "fault-add",
    "fault-list",
    "fault-remove",
    "fault-clear",
    "watch",
    "trace",
];

fn max_bytes() -> usize {
    MAX_BYTES
}

fn yes() -> bool {
    true
}

/// `bytes` in base64.
pub fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The bytes that are given in one of two ways.
///
/// # Errors
///
/// [`Code::BadRequest`] if they are given in both ways or none, are not base64, or too many.
pub fn decode(text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, Failure> {
    let bytes = match (text, base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).map_err(|error| {
            Failure::bad_request(format!("push: 'base64' is not base64: {error}"))
        })?,
        _ => {
            return Err(Failure::bad_request(
                "push: give the bytes as 'text' or as 'base64'",
            ));
        }
    };
    if bytes.len() > MAX_BYTES {
        return Err(Failure::bad_request(format!(
            "push: {} bytes are too many for one request: send at most {MAX_BYTES}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// A line from a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Given back with the answer.
    pub id: Option<Value>,
    /// What to do.
    pub command: Command,
}

/// A line that is none; its `id` as far as it could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRequest {
    /// Given back with the answer.
    pub id: Option<Value>,
    /// What is wrong.
    pub failure: Failure,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, BadRequest> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| BadRequest {
                id: None,
                failure: Failure::new(Code::BadJson, not_an_object(&error)),
            })?;
        let id = take_id(&mut fields).map_err(|failure| BadRequest { id: None, failure })?;
        match parse_command(fields) {
            Ok(command) => Ok(Self { id, command }),
            Err(failure) => Err(BadRequest { id, failure }),
        }
    }

    /// The line, without its newline.
    pub fn to_line(&self) -> String {
        let mut value = serde_json::to_value(&self.command).unwrap_or_default();
        if let (Some(id), Some(fields)) = (&self.id, value.as_object_mut()) {
            fields.insert("id".to_owned(), id.clone());
        }
        value.to_string()
    }
}

fn not_an_object(error: &serde_json::Error) -> String {
    let error = error.to_string();
    format!(
        "a request is one JSON object on one line: {}",
        shortened(&error)
    )
}

fn take_id(fields: &mut Map<String, Value>) -> Result<Option<Value>, Failure> {
    let id = fields.remove("id");
    let fits = match &id {
        None | Some(Value::Number(_)) => true,
        Some(Value::String(id)) => id.len() <= MAX_ID,
        Some(_) => false,
    };
    if fits {
        Ok(id)
    } else {
        Err(Failure::bad_request(format!(
            "'id' must be a number or a string of at most {MAX_ID} bytes"
        )))
    }
}

fn parse_command(fields: Map<String, Value>) -> Result<Command, Failure> {
    let name = match fields.get("command") {
        Some(Value::String(name)) => name.clone(),
        Some(_) => return Err(Failure::bad_request("'command' must be a string")),
        None => return Err(Failure::bad_request("'command' is missing")),
    };
    if !COMMANDS.contains(&name.as_str()) {
        return Err(Failure::new(
            Code::UnknownCommand,
            format!(
                "unknown command '{}': use one of {}",
                shortened(&name),
                COMMANDS.join(", ")
            ),
        ));
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Failure::bad_request(format!("{name}: {}", shortened(&error.to_string()))))
}

/// What a client sent goes back into messages, but not all of it.
fn shortened(text: &str) -> &str {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// Kinds of failure, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The line is not a JSON object.
    BadJson,
    /// The line is longer than [`MAX_LINE`].
    TooLong,
    /// A field is missing, unknown, or of the wrong type.
    BadRequest,
    /// There is no such command.
    UnknownCommand,
    /// There is no such FIFO.
    NoSuchFifo,
    /// There is no such fault.
    NoSuchFault,
    /// The FIFO cannot do that, or not now.
    Unsupported,
    /// Too many clients.
    Busy,
    /// The daemon has something wrong.
    Failed,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure with a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// [`Code::BadRequest`] with a message.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }
}

/// What a command has led to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Of [`Command::Status`].
    Status(Box<Status>),
    /// Of [`Command::Metrics`].
    Metrics(Metrics),
    /// Of [`Command::Push`].
    Pushed(Pushed),
    /// Of [`Command::Pull`].
    Pulled(Pulled),
    /// Of [`Command::Clear`].
    Cleared(Cleared),
    /// Of [`Command::FaultAdd`].
    FaultAdded(FaultAdded),
    /// Of [`Command::FaultList`].
    Faults(Faults),
    /// Of [`Command::FaultClear`].
    FaultsRemoved(FaultsRemoved),
    /// Of [`Command::Trace`] at its end.
    Traced(Traced),
    /// Of commands that have nothing to say.
    Done {},
}

/// The device as Prometheus text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The text.
    pub metrics: String,
}

/// What became of bytes pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Bytes that fitted; the others were not taken.
    pub pushed: usize,
    /// Bytes that would fit now.
    pub free: usize,
}

/// Bytes pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The bytes.
    pub base64: String,
    /// How many they are.
    pub pulled: usize,
    /// Bytes that could be pulled now.
    pub left: usize,
}

impl Pulled {
    /// The bytes themselves.
    ///
    /// # Errors
    ///
    /// [`Code::Failed`] if they are not base64.
    pub fn bytes(&self) -> Result<Vec<u8>, Failure> {
        BASE64_STANDARD
            .decode(&self.base64)
            .map_err(|error| Failure::new(Code::Failed, error.to_string()))
    }
}

/// What a clear did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Bytes discarded.
    pub cleared: usize,
}

/// A fault that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultAdded {
    /// Its number.
    pub fault: u32,
}

/// All faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// In the order in which they were added.
    pub faults: Vec<FaultStatus>,
}

/// Faults that were taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultsRemoved {
    /// How many.
    pub removed: usize,
}

/// What a trace was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Events told.
    pub traced: u64,
    /// Events dropped because the client was too slow.
    pub lost: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// That of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// Whether it was carried out.
    pub ok: bool,
    /// If it was.
    #[serde(flatten)]
    pub outcome: Option<Outcome>,
    /// If it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl Answer {
    /// An answer to the request with this `id`.
    pub fn new(id: Option<Value>, result: Result<Outcome, Failure>) -> Self {
        let (outcome, error) = match result {
            Ok(outcome) => (Some(outcome), None),
            Err(failure) => (None, Some(failure)),
        };
        Self {
            id,
            ok: error.is_none(),
            outcome,
            error,
        }
    }
}

#[cfg(test)]
mod tests;
