// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets and logs of one run, in a directory that goes with it.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;

use crate::scratch;
use crate::scratch::Scratch;

/// What the console's file has not taken, of the run with this directory.
pub fn console_account(run: &Path) -> PathBuf {
    run.join("console.account")
}

/// The directory.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    console: Option<PathBuf>,
    dir: Option<Scratch>,
}

impl RunDir {
    /// Makes it. The console's log is in it, or where the user wants it.
    pub fn create(console: Option<&Path>) -> Result<Self> {
        let dir = Scratch::for_sockets(scratch::Kind::Run)?;
        Ok(Self {
            path: dir.path().to_owned(),
            console: console.map(Path::to_owned),
            dir: Some(dir),
        })
    }

    /// The directory is taken for used until the last child that is started from here on has ended.
    pub fn outlive_the_lab(&self) -> Result<()> {
        self.dir.as_ref().map_or(Ok(()), Scratch::outlive_the_lab)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for printing, without a directory.
    pub fn imagined(console: Option<&Path>) -> Self {
        Self {
            path: scratch::base_for_sockets().join("globalfifo-run-XXXXXX"),
            console: console.map(Path::to_owned),
            dir: None,
        }
    }

    /// The console's log.
    pub fn console(&self) -> PathBuf {
        self.console
            .clone()
            .unwrap_or_else(|| self.path.join("console.log"))
    }

    /// Where QEMU writes the console.
    pub fn console_pipe(&self) -> PathBuf {
        self.path.join("console.pipe")
    }

    /// What the console's file has not taken.
    pub fn console_account(&self) -> PathBuf {
        console_account(&self.path)
    }

    /// What the kernel unpacks at its start, with a root in RAM.
    pub fn initramfs(&self) -> PathBuf {
        self.path.join("initramfs")
    }

    /// The socket of the line by which a guest is woken.
    pub fn alarm(&self) -> PathBuf {
        self.socket("alarm")
    }

    /// A socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.sock"))
    }

    /// The device's control socket, where `chosen` or in here.
    pub fn control(&self, chosen: Option<&Path>) -> PathBuf {
        chosen.map_or_else(|| self.socket("control"), Path::to_owned)
    }

    /// Output of a helper program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }
}
