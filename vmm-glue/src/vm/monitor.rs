// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's monitor, for a machine that hangs: an interrupt that cannot be masked makes its kernel say where it is, and end.
//!
//! QEMU gives such an interrupt to the first CPU alone (QMP's `inject-nmi`); that one asks the others.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use super::rundir::RunDir;

/// The name of the socket.
pub const SOCKET: &str = "monitor";
/// Words of the kernel's command line: what it does with the interrupt, and that it shows all CPUs when one of them is stuck. One CPU may wait
/// for the other, which hangs.
pub const WORDS: [&str; 3] = [
    "unknown_nmi_panic",
    "sysctl.kernel.panic_sys_info=all_bt",
    "sysctl.kernel.softlockup_all_cpu_backtrace=1",
];
/// For an answer of QEMU's main loop.
const LIMIT: Duration = Duration::from_secs(10);

/// Where QEMU listens.
pub fn socket(run: &RunDir) -> PathBuf {
    run.path().join(SOCKET)
}

/// Interrupts the machine's first CPU.
///
/// # Errors
///
/// QEMU does not answer, or does not know the command.
pub fn interrupt(socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket).context("QEMU's monitor cannot be reached")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut lines = BufReader::new(&stream).lines();
    let mut answer = || {
        lines
            .next()
            .context("QEMU's monitor says nothing")?
            .context("QEMU's monitor")
    };
    // The greeting.
    answer()?;
    for command in ["qmp_capabilities", "inject-nmi"] {
        writeln!(&stream, "{}", serde_json::json!({ "execute": command }))?;
        loop {
            let line = answer()?;
            let value: serde_json::Value = serde_json::from_str(&line).context("QEMU's monitor")?;
            ensure!(value.get("error").is_none(), "{command}: {line}");
            // What is between are events.
            if value.get("return").is_some() {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// What QEMU reads while it answers so.
    fn serve(answers: &'static [&'static str]) -> (Result<()>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        let listener = UnixListener::bind(&path).unwrap();
        let qemu = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            let mut read = Vec::new();
            for answer in answers {
                writeln!(&stream, "{answer}").unwrap();
                if answer.contains("QMP") || answer.contains("return") {
                    read.extend(lines.next().map(Result::unwrap));
                }
            }
            read
        });
        let done = interrupt(&path);
        (done, qemu.join().unwrap())
    }

    #[test]
    fn events_are_passed_over_and_the_interrupt_is_the_second_command() {
        let answers = &[
            "{\"QMP\": {}}",
            "{\"event\": \"STOP\"}",
            "{\"return\": {}}",
            "{\"return\": {}}",
        ];
        let (done, read) = serve(answers);
        done.unwrap();
        let commands = ["qmp_capabilities", "inject-nmi"];
        assert_eq!(
            read,
            commands.map(|name| format!("{{\"execute\":\"{name}\"}}"))
        );
    }

    #[test]
    fn an_error_and_a_silence_are_told() {
        let (done, _) = serve(&["{\"QMP\": {}}", "{\"error\": {\"desc\": \"no\"}}"]);
        assert!(done.unwrap_err().to_string().contains("\"no\""));
        assert!(serve(&["{\"QMP\": {}}"]).0.is_err());
    }
}
