// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.11: the monitor, a program of its own, with echo beside it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use anyhow::{Context, Result, bail};
use nix::libc::{O_NONBLOCK, SIGIO};

use super::Desk;
use super::show::{holds, say, text};
use crate::fifo::Fifo;
use crate::harness::SOON;
use crate::system;

const PATH: &str = "/dev/globalfifo";

/// Ended on drop.
struct Monitor(Child);

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn run(_: &Desk) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("monitor");
    let child = Command::new(&program)
        .arg(PATH)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let mut monitor = Monitor(child);
    let mut ready = String::new();
    let errors = monitor.0.stderr.take().context("no pipe")?;
    BufReader::new(errors).read_line(&mut ready)?;
    if !ready.starts_with("monitoring") {
        bail!("the monitor did not start: {}", ready.trim());
    }
    let (send, lines) = channel();
    let out = monitor.0.stdout.take().context("no pipe")?;
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    say!("$ monitor &\n{}", ready.trim());
    for word in ["1", "hello", "1"] {
        say!("$ echo {word} > {PATH}");
        system::run("sh", &["-c", &format!("echo {word} > {PATH}")])?;
        let line = lines
            .recv_timeout(SOON)
            .context("the monitor received no signal")?;
        say!("{line}");
        let number = line.rsplit_once(':').map(|(_, number)| number);
        holds!(
            number == Some(&SIGIO.to_string()),
            "the number in it is SIGIO's, {SIGIO}"
        );
    }
    drop(monitor);
    say!("$ cat {PATH}");
    let bytes = Fifo::open_at(PATH, O_NONBLOCK)?.drain()?;
    holds!(
        bytes == b"1\nhello\n1\n",
        "the monitor never read: {} is still there",
        text(&bytes)
    );
    Ok(())
}
