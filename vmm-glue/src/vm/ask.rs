// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A short command of the lab's own in a guest, before the user's: what it prints. It must not know what is asked for.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::Command;
use fifo_lab_agent::frame::Frame;
use fifo_lab_agent::frame::Note;
use fifo_lab_agent::frame::Payload;
use fifo_lab_agent::frame::Stream;

/// A channel that no user's command has: those are counted from 0.
const CHANNEL: u32 = u32::MAX;
/// Most bytes that an answer may have.
const MOST: usize = 64 << 20;

/// Runs a script of the shell's on the port that takes any number of commands; what it prints.
pub fn output(port: &UnixStream, script: &str, limit: Duration) -> Result<String> {
    let command = Command {
        argv: ["/bin/busybox", "sh", "-c", script]
            .map(str::to_owned)
            .into(),
        ..Command::default()
    };
    let say = |note| {
        let payload = Payload::Note(note);
        let channel = CHANNEL;
        Frame { channel, payload }.write(&mut { port })
    };
    port.set_read_timeout(Some(limit))?;
    say(Note::Start(command))?;
    let mut printed = Vec::new();
    let mut reader = BufReader::new(port);
    let status = loop {
        let frame = Frame::read(&mut reader)
            .context("the guest's agent does not answer")?
            .context("the guest's agent has gone")?;
        match frame.payload {
            Payload::Data(stream, bytes) => {
                let count = u32::try_from(bytes.len()).unwrap_or_default();
                if stream == Stream::Stdout {
                    printed.extend(bytes);
                }
                anyhow::ensure!(printed.len() <= MOST, "the guest's answer has no end");
                say(Note::Credit(stream, count))?;
            }
            Payload::Note(Note::Exited(status)) => break status,
            Payload::Note(_) => {}
        }
    };
    drop(reader);
    port.set_read_timeout(None)?;
    anyhow::ensure!(
        status == 0,
        "`{script}` has failed in the guest: status {status}"
    );
    String::from_utf8(printed).context("the guest's answer is not UTF-8")
}
