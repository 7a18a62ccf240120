// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The conversation between the lab on the host and its agent in the guest.
//!
//! One JSON object a line, over the virtio-serial port named [`PORT_CONTROL`]. The bytes of the guest command's streams travel on ports of
//! their own; this file must not know how either side moves them. A machine that stays has one port more, [`PORT_EXEC`], for any number of
//! commands at once; [`frame`] has its messages.

pub mod frame;
mod terminal;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

pub use self::terminal::Size;
pub use self::terminal::Terminal;
pub use self::terminal::end_of_file;

/// Longest message, in bytes: a guest cannot make the host keep more.
pub const MESSAGE_MAX: usize = 1 << 20;
/// Port for the messages of this file.
pub const PORT_CONTROL: &str = "lab.control";
/// Port that carries the guest command's standard input.
pub const PORT_STDIN: &str = "lab.stdin";
/// Port that carries the guest command's standard output (both streams of a terminal).
pub const PORT_STDOUT: &str = "lab.stdout";
/// Port that carries the guest command's standard error.
pub const PORT_STDERR: &str = "lab.stderr";
/// Port that carries all commands of a machine that stays, in frames.
pub const PORT_EXEC: &str = "lab.exec";

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Mount a folder of the host; answered by [`Report::Mounted`].
    Mount(Mount),
    /// Start a command; answered by [`Report::Started`] and [`Report::Exited`].
    Run(Command),
    /// The host's terminal changed its size.
    Resize(Size),
    /// End the running command and all it started.
    Kill,
    /// Open [`PORT_EXEC`] and serve it. Once the host has gone without ending the machine, end it after that many seconds.
    Serve {
        /// Seconds.
        idle: u64,
    },
}

/// A folder of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The virtiofs tag.
    pub tag: String,
    /// Where to mount it; made if missing.
    pub path: String,
    /// Forbid writing.
    pub read_only: bool,
}

/// End of a step of the guest's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Name of the step.
    pub step: String,
    /// Milliseconds since the kernel's start.
    pub millis: u64,
}

/// A command to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Variables added to the guest's own environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Where standard input comes from.
    pub stdin: Stdin,
}

/// Where a command's standard input comes from, and with it what its output goes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// `/dev/null`: the stdin port stays untouched.
    #[default]
    Null,
    /// The stdin port, until the host closes it.
    Port,
    /// A terminal like this one, fed by the stdin port; output goes to the stdout port.
    Terminal(Terminal),
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The guest is up. Carries what went wrong while getting there, for the host to show.
    Ready {
        /// Complaints of the guest's init script.
        complaints: Vec<String>,
        /// Ends of the steps that led there, in their order.
        marks: Vec<Mark>,
    },
    /// The folder is mounted, or why not.
    Mounted {
        /// What went wrong.
        error: Option<String>,
    },
    /// The command runs; the host may feed its standard input now.
    Started,
    /// The command ended. The counts say how much the host has to read before it has everything.
    Exited {
        /// Exit status as `sh` gives it: 128 + n after signal n.
        status: u8,
        /// Bytes sent on the stdout port by this command.
        stdout: u64,
        /// Bytes sent on the stderr port by this command.
        stderr: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_comes_back_equal() {
        let request = Request::Run(Command {
            argv: vec!["sh".into(), "-c".into(), "echo \"a\nb\"".into()],
            env: BTreeMap::from([("TERM".into(), "xterm".into())]),
            cwd: "/root".into(),
            stdin: Stdin::Terminal(Terminal::default()),
        });
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }
}
