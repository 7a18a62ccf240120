// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Children whose output goes to a log file, line by line past somebody who watches.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::PipeReader;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use rustix::event::EventfdFlags;
use rustix::event::PollFd;
use rustix::event::PollFlags;

use super::Running;
use super::Spec;
use super::shell_status;

/// As a shell reports a process that SIGKILL ended.
const KILLED: u8 = 128 + 9;
/// Lines of a log that are shown when something fails.
const EXCERPT: usize = 20;

/// A log file that several commands write to, one after another.
#[derive(Debug)]
pub struct Logged {
    path: PathBuf,
    file: File,
    /// Why lines are missing in the file.
    cut: Option<io::Error>,
}

impl Logged {
    /// Creates the file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path)
            .with_context(|| format!("cannot create the log file {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            cut: None,
        })
    }

    /// Runs a child to its end; standard output and error go to the log, each line also to `watch`.
    pub fn status(
        &mut self,
        spec: &Spec,
        watch: &mut (dyn FnMut(&str) + Send),
    ) -> Result<ExitStatus> {
        writeln!(self.file, "+ {}", spec.shell()).context("cannot write the log file")?;
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let mut command = spec.command();
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let mut child = Running::start(&program_name(spec), command)?;
        let ended = Ended::new()?;
        std::thread::scope(|scope| {
            scope.spawn(|| self.follow(ended.reader(reader), watch));
            let status = child.wait();
            ended.set();
            status
        })
    }

    /// As [`Self::status`]; a status other than 0 is an error that names the cause where the log shows a known one.
    pub fn run(&mut self, spec: &Spec, watch: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
        let status = self.status(spec, watch)?;
        if status.success() {
            return Ok(());
        }
        if shell_status(status) == KILLED {
            let what = format!(
                "{} was killed by signal 9 (out of memory?)",
                program_name(spec)
            );
            return Err(anyhow::anyhow!(
                "{what}\n{}",
                self.explain(&program_name(spec))
            ));
        }
        Err(anyhow::anyhow!("{}", self.explain(&program_name(spec))))
    }

    fn follow(&mut self, reader: impl Read, watch: &mut (dyn FnMut(&str) + Send)) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            // cargo's reports for programs are no reading for people.
            if !line.starts_with(b"{\"reason\"") {
                self.cut = self.file.write_all(&line).err().or(self.cut.take());
            }
            watch(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }

    /// Cause, last lines and path, for people.
    fn explain(&self, program: &str) -> String {
        let log = std::fs::read(&self.path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let cause =
            crate::causes::known(&log).map_or_else(|| format!("{program} failed"), str::to_owned);
        let whole = match &self.cut {
            None => "full log".to_owned(),
            Some(err) => format!("log, of which lines are missing ({err})"),
        };
        format!(
            "{cause}\n{}\n{whole}: {}",
            crate::causes::excerpt(&log, EXCERPT),
            self.path.display()
        )
    }
}

/// Says to the reader of a child's output that the child has ended: a process that it left behind may hold the pipe open for ever.
struct Ended(OwnedFd);

/// Reads a pipe until all writers have gone, or the child has and nothing more is in it.
struct UntilEnded<'a> {
    pipe: PipeReader,
    ended: &'a OwnedFd,
}

impl Ended {
    fn new() -> Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC);
        Ok(Self(event.context("cannot create an eventfd")?))
    }

    fn set(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn reader(&self, pipe: PipeReader) -> UntilEnded<'_> {
        UntilEnded {
            pipe,
            ended: &self.0,
        }
    }
}

impl Read for UntilEnded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = [
                PollFd::new(&self.pipe, PollFlags::IN),
                PollFd::new(self.ended, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if fds.first().is_some_and(|pipe| !pipe.revents().is_empty()) {
                return self.pipe.read(buffer);
            }
            return Ok(0);
        }
    }
}

/// The program's name without its directories.
fn program_name(spec: &Spec) -> String {
    let program = spec.argv.first().map(PathBuf::from).unwrap_or_default();
    program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Runs a child to its end and returns its standard output; what it says on standard error becomes the error.
pub fn output(spec: &Spec) -> Result<String> {
    let output = spec
        .command()
        .stdin(Stdio::null())
        .output()
        .context("cannot start a child")?;
    crate::cancel::check()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("{}: {}", program_name(spec), said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How a child ended and what it said, both streams together.
#[derive(Debug)]
pub struct Captured {
    /// Exit status as a shell gives it; `None` if it had to be ended.
    pub status: Option<u8>,
    /// What it said.
    pub text: String,
}

/// Runs a child to its end, or ends it after this long.
pub fn capture(spec: &Spec, limit: Duration) -> Result<Captured> {
    capture_watched(spec, limit, &mut |_| ())
}

/// The same; each line goes also to `watch` as it comes.
pub fn capture_watched(
    spec: &Spec,
    limit: Duration,
    watch: &mut (dyn FnMut(&str) + Send),
) -> Result<Captured> {
    let ended = Ended::new()?;
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let mut command = spec.command();
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = Running::start(&program_name(spec), command)?;
    std::thread::scope(|scope| {
        let mut reader = BufReader::new(ended.reader(reader));
        let said = scope.spawn(move || {
            let (mut bytes, mut seen) = (Vec::new(), 0);
            while reader
                .read_until(b'\n', &mut bytes)
                .is_ok_and(|count| count > 0)
            {
                let line = bytes.get(seen..).unwrap_or_default();
                watch(String::from_utf8_lossy(line).trim_end());
                seen = bytes.len();
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let status = child.wait_for(limit);
        child.end();
        ended.set();
        let status = status?.map(shell_status);
        Ok(Captured {
            status,
            text: said.join().unwrap_or_default(),
        })
    })
}
