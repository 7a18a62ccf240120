// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's ends of measured streams: a thread each, all of them the same.

use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use globalfifo_bench_protocol::peer::serve;

use crate::ui;

/// Connects to a socket and serves what is behind it.
pub fn connect(what: &'static str, socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot connect to the socket of the {what}"))?;
    thread::spawn(move || attend(what, &stream));
    Ok(())
}

/// Serves everybody who connects, one after another.
pub fn listen(what: &'static str, socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("cannot make a socket for the {what}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            attend(what, &stream);
        }
    });
    Ok(())
}

fn attend(what: &str, stream: &UnixStream) {
    if let Err(err) = serve(stream, stream) {
        // The guest's program has been ended in the middle, or the machine has.
        ui::say(&format!("the host's end of the {what}: {err}"));
    }
}
