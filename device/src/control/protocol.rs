// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The words of the control socket, one line of JSON each; `docs/control.md` documents them.
//!
//! Both ends use these types. Reading a request knows which fields belong to which command, so
//! that whatever is wrong with a line is said in words; it must not know what a command does.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::fifo::Connection;

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

impl Default for Hello {
    fn default() -> Self {
        Self {
            hello: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
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
}

/// Names of all commands, for whoever uses another one.
const COMMANDS: [&str; 11] = [
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

/// The device at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What belongs to no FIFO.
    pub device: DeviceStatus,
    /// Every FIFO, in order.
    pub fifos: Vec<FifoStatus>,
    /// Every fault, in the order in which they were added.
    pub faults: Vec<FaultStatus>,
}

/// A fault at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Its number.
    pub fault: u32,
    /// What goes wrong, as for `--fault`.
    pub spec: String,
    /// How often it could have struck.
    pub opportunities: u64,
    /// How often it did.
    pub strikes: u64,
    /// It never strikes again.
    pub over: bool,
}

/// What belongs to no FIFO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Version of the daemon.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// A VMM is connected.
    pub connected: bool,
    /// VMMs that have connected so far.
    pub connections: u64,
    /// Interrupts for the control queue.
    pub control_interrupts: u64,
    /// Interrupts for the event queue.
    pub event_interrupts: u64,
    /// What was refused on these queues, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// A FIFO at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FifoStatus {
    /// Its number.
    pub fifo: u16,
    /// As in its SPEC.
    pub kind: String,
    /// Bytes that each direction holds.
    pub capacity: usize,
    /// What its host side is like.
    pub host: HostSide,
    /// Peers that its host side has had so far.
    pub peers: u64,
    /// The driver is told that the host side has hung up.
    pub hangup: bool,
    /// It was hung up through the control socket.
    pub hangup_by_control: bool,
    /// It has failed and waits for a reset of the device.
    pub error: bool,
    /// From the host side to the driver.
    pub rx: DirectionStatus,
    /// From the driver to the host side.
    pub tx: DirectionStatus,
    /// What was refused from the driver, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One direction of a FIFO at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionStatus {
    /// Bytes inside.
    pub level: usize,
    /// Bytes that came in so far.
    pub entered: u64,
    /// Bytes that went out or were discarded so far.
    pub left: u64,
    /// Messages to or from the driver that carried any.
    pub messages: u64,
    /// Interrupts for its queue.
    pub interrupts: u64,
}

/// What the host side of a FIFO is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostSide {
    /// There, and will be as long as the device.
    Lasting,
    /// Nobody was there yet.
    Awaited,
    /// A peer is there.
    Connected,
    /// A peer is there that sends nothing more.
    HalfClosed,
    /// The last peer is gone.
    Gone,
}

impl From<Connection> for HostSide {
    fn from(connection: Connection) -> Self {
        match connection {
            Connection::Lasting => Self::Lasting,
            Connection::Awaited => Self::Awaited,
            Connection::Connected => Self::Connected,
            Connection::HalfClosed => Self::HalfClosed,
            Connection::Gone => Self::Gone,
        }
    }
}

/// Something that happened, for a watcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A VMM has come, or gone.
    Vmm {
        /// It is there.
        connected: bool,
        /// VMMs that have connected so far.
        connections: u64,
    },
    /// Bytes moved.
    Level {
        /// In which FIFO.
        fifo: u16,
        /// Bytes inside from the host side to the driver.
        rx: usize,
        /// Bytes inside from the driver to the host side.
        tx: usize,
        /// Bytes that came into rx since the event before.
        rx_entered: u64,
        /// Bytes that came into tx since the event before.
        tx_entered: u64,
    },
    /// The host side is like this now.
    Host {
        /// Of which FIFO.
        fifo: u16,
        /// What it is like.
        host: HostSide,
        /// Peers so far.
        peers: u64,
    },
    /// What the driver is told of the state has changed.
    State {
        /// Of which FIFO.
        fifo: u16,
        /// The host side has hung up.
        hangup: bool,
        /// The FIFO has failed.
        error: bool,
    },
    /// The driver sent what was refused.
    Refused {
        /// On which FIFO; `None` on the control or event queue.
        #[serde(skip_serializing_if = "Option::is_none")]
        fifo: Option<u16>,
        /// Why.
        reason: String,
        /// How often since the event before.
        count: u64,
    },
    /// A fault struck, was added, or strikes no more.
    Fault {
        /// Its number.
        fault: u32,
        /// What goes wrong.
        spec: String,
        /// How often it struck so far.
        strikes: u64,
        /// It never strikes again, or was taken away.
        over: bool,
    },
    /// Events that this watcher was too slow for.
    Lost {
        /// How many since the last one it got.
        lost: u64,
    },
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"command":"status"}"#, Command::Status {})]
    #[case(r#"{"command":"push","fifo":1,"text":"a"}"#,
           Command::Push { fifo: 1, text: Some("a".into()), base64: None })]
    #[case(r#"{"command":"push","fifo":1,"base64":"AA=="}"#,
           Command::Push { fifo: 1, text: None, base64: Some(encode(&[0])) })]
    #[case(r#"{"command":"pull","fifo":0}"#, Command::Pull { fifo: 0, max: MAX_BYTES })]
    #[case(r#"{"command":"hangup","fifo":0}"#, Command::Hangup { fifo: 0, on: true })]
    #[case(r#"{"command":"fault-add","spec":"slow"}"#, Command::FaultAdd { spec: "slow".into() })]
    #[case(r#"{"command":"fault-clear"}"#, Command::FaultClear {})]
    #[case(r#" {"fifos":[2],"command":"watch"} "#, Command::Watch { fifos: vec![2] })]
    fn requests(#[case] line: &str, #[case] command: Command) {
        let request = Request::parse(line.as_bytes()).unwrap();
        assert_eq!(request, Request { id: None, command });
        let again = Request::parse(request.to_line().as_bytes()).unwrap();
        assert_eq!(again, request);
    }

    #[rstest]
    #[case("", Code::BadJson, "one JSON object")]
    #[case("hello", Code::BadJson, "one JSON object")]
    #[case("[1]", Code::BadJson, "one JSON object")]
    #[case("\u{1}\u{7f}", Code::BadJson, "one JSON object")]
    #[case(r#"{"command":"status"} {}"#, Code::BadJson, "trailing")]
    #[case("{}", Code::BadRequest, "'command' is missing")]
    #[case(r#"{"command":7}"#, Code::BadRequest, "must be a string")]
    #[case(r#"{"command":"explode"}"#, Code::UnknownCommand, "use one of status")]
    #[case(
        r#"{"command":"status","fifo":0}"#,
        Code::BadRequest,
        "unknown field `fifo`"
    )]
    #[case(r#"{"command":"clear"}"#, Code::BadRequest, "missing field `fifo`")]
    #[case(
        r#"{"command":"clear","fifo":-1}"#,
        Code::BadRequest,
        "clear: invalid value"
    )]
    #[case(r#"{"command":"clear","fifo":70000}"#, Code::BadRequest, "70000")]
    #[case(r#"{"command":"clear","fifo":"0"}"#, Code::BadRequest, "invalid type")]
    #[case(
        r#"{"command":"push","fifo":0,"text":"","more":1}"#,
        Code::BadRequest,
        "push:"
    )]
    #[case(r#"{"command":"fault-add"}"#, Code::BadRequest, "missing field `spec`")]
    #[case(
        r#"{"command":"fault-remove","fault":-1}"#,
        Code::BadRequest,
        "fault-remove:"
    )]
    #[case(r#"{"command":"push","fifo":0,"text":5}"#, Code::BadRequest, "push:")]
    #[case(r#"{"command":"status","id":[1]}"#, Code::BadRequest, "'id' must be")]
    fn bad_requests(#[case] line: &str, #[case] code: Code, #[case] part: &str) {
        let failure = Request::parse(line.as_bytes()).unwrap_err().failure;
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(part), "{failure:?}");
    }

    /// What a client sends is not sent back to it in full.
    #[test]
    fn messages_are_short() {
        let name = "x".repeat(60_000);
        for line in [
            format!(r#"{{"command":"{name}"}}"#),
            format!(r#"{{"command":"status","{name}":1}}"#),
            format!(r#"{{"command":"clear","fifo":"{name}"}}"#),
            format!(r#""{name}""#),
        ] {
            let failure = Request::parse(line.as_bytes()).unwrap_err().failure;
            assert!(failure.message.len() < 500, "{failure:?}");
        }
    }

    /// The recursion of JSON costs no stack.
    #[test]
    fn deep_nesting_is_refused() {
        let line = format!(r#"{{"command":{}"#, "[".repeat(60_000));
        let failure = Request::parse(line.as_bytes()).unwrap_err().failure;
        assert_eq!(failure.code, Code::BadJson);
    }

    #[test]
    fn an_id_comes_back_with_a_failure_too() {
        let bad = Request::parse(br#"{"id":"a","command":"x"}"#).unwrap_err();
        assert_eq!(bad.id, Some("a".into()));
        let answer = Answer::new(bad.id, Err(bad.failure));
        let line = serde_json::to_string(&answer).unwrap();
        assert!(line.starts_with(r#"{"id":"a","ok":false,"error":{"code":"unknown-command""#));
        let answer = Answer::new(Some(7.into()), Ok(Outcome::Done {}));
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"id":7,"ok":true}"#
        );
    }

    #[rstest]
    #[case(None, None, "as 'text' or as 'base64'")]
    #[case(Some("a".into()), Some("YQ==".into()), "as 'text' or as 'base64'")]
    #[case(None, Some("=".into()), "is not base64")]
    #[case(Some("x".repeat(MAX_BYTES + 1)), None, "too many")]
    fn bytes_that_are_none(
        #[case] text: Option<String>,
        #[case] base64: Option<String>,
        #[case] part: &str,
    ) {
        let failure = decode(text, base64).unwrap_err();
        assert_eq!(failure.code, Code::BadRequest);
        assert!(failure.message.contains(part), "{failure:?}");
    }

    #[test]
    fn bytes_of_any_value_survive() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(None, Some(encode(&bytes))).unwrap(), bytes);
    }

    /// The most bytes that a push may carry fit into the longest line.
    #[test]
    fn the_limits_go_together() {
        let line = Request {
            id: Some("i".repeat(MAX_ID).into()),
            command: Command::Push {
                fifo: u16::MAX,
                text: None,
                base64: Some(encode(&[0xff; MAX_BYTES])),
            },
        };
        assert!(line.to_line().len() <= MAX_LINE);
    }
}
