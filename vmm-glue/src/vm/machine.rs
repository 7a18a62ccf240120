// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starting a machine and all that belongs to it, up to the moment when its agent answers.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::Mount;
use fifo_lab_agent::Report;
use fifo_lab_agent::Request;

use super::accel;
use super::accel::Accel;
use super::alarm;
use super::ask;
use super::config::Config;
use super::config::Paths;
use super::config::Share;
use super::console;
use super::devices;
use super::driver;
use super::follow;
use super::gdb;
use super::limits;
use super::qemu;
use super::recording;
use super::recording::Loss;
use super::rundir::RunDir;
use super::session::Control;
use super::session::Event;
use super::session::Events;
use super::timing::Boot;
use crate::child::Place;
use crate::child::Running;
use crate::child::killed;
use crate::exit;
use crate::files;
use crate::initramfs;
use crate::load;
use crate::stages::layer;
use crate::ui;
use crate::ui::Step;

/// A guest that has not answered by then never will, unless QEMU had to wait for a CPU of the host's: that time does not count, up to as
/// much again.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// A guest under KVM that has not said a word by then never will.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// How long QEMU may take to end once the guest has.
const SETTLE: Duration = Duration::from_secs(1);
/// How long QEMU may take to connect its ports.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// A running machine. Dropping it ends it and everything started for it.
#[derive(Debug)]
pub struct Machine {
    /// Speaks with the agent.
    pub control: Control,
    /// What happens.
    pub events: Events,
    /// stdin, stdout, stderr of the guest's command.
    pub streams: Option<[UnixStream; 3]>,
    /// All commands of a machine that stays.
    pub exec: Option<UnixStream>,
    /// How its CPUs are made.
    pub accel: Accel,
    /// Moments of its start.
    pub boot: Boot,
    boot_limit: Duration,
    /// The user has named a file for the console.
    keeps_console: bool,
    // In this order: QEMU first, then what it talks to, then the directory that all of them use.
    qemu: Running,
    recorder: Running,
    devices: Vec<Running>,
    /// Logs and sockets.
    pub run: RunDir,
}

/// What can be said against a configuration before anything has been set up for it.
pub fn check(config: &Config) -> Result<()> {
    accel::choose(config.accel, config.system.arch)?;
    if let Some(what) = limits::few_open_files() {
        ui::warn(&format!("{what}; {}", limits::MORE_OPEN_FILES));
    }
    if config.device && config.qemu.is_some() {
        qemu::generic_device(config, &Paths::none())?;
    }
    Ok(())
}

/// Starts a machine and waits until its agent answers. Once QEMU has started, failures are the machine's.
pub fn boot(config: &Config, paths: &Paths) -> Result<Machine> {
    let generic = if config.device {
        qemu::generic_device(config, paths)?
    } else {
        ""
    };
    let accel = accel::choose(config.accel, config.system.arch)?;
    let step = Step::new(format!(
        "booting the guest ({}, {} CPU, {})",
        accel.name(),
        config.smp,
        config.mem
    ));
    let mut booted = start(config, paths, accel, generic)?.wait_until_ready(accel);
    if let (
        Err(err),
        Accel::Kvm {
            may_fall_back: true,
        },
    ) = (&booted, accel)
        && err.is::<Silent>()
    {
        ui::warn("the guest stays silent under KVM: starting it again with TCG");
        booted = start(config, paths, Accel::Tcg, generic)?.wait_until_ready(Accel::Tcg);
    }
    let mut machine = booted.map_err(exit::as_machine)?;
    for (number, share) in config.shares.iter().enumerate() {
        machine.mount(number, share).map_err(exit::as_machine)?;
    }
    if let (true, idle) = (config.takes_commands(), config.stays.unwrap_or_default()) {
        let idle = idle.as_secs();
        machine.control.send(&Request::Serve { idle })?;
    }
    if config.gdb {
        gdb::prepare(&machine, paths, config.system.arch, machine.boot_limit)
            .map_err(exit::as_machine)?;
    }
    step.done();
    Ok(machine)
}

/// The guest said nothing at all.
#[derive(Debug, thiserror::Error)]
#[error("the guest stays silent: not a byte on its console within {} s", SILENCE_LIMIT.as_secs())]
struct Silent;

fn start(config: &Config, paths: &Paths, accel: Accel, generic: &str) -> Result<Machine> {
    let started = Instant::now();
    let run = RunDir::create(config.console.as_deref())?;
    if config.verbose {
        follow::start(&run.console())?;
    }
    if let Some(ram) = &paths.ram {
        initramfs(&run.initramfs(), ram, paths)?;
    }
    if qemu::needs_alarm(config, paths) {
        let alarm = UnixListener::bind(run.alarm()).context("cannot make the socket alarm")?;
        alarm::serve(alarm);
    }
    let place = if config.stays.is_some() {
        run.outlive_the_lab()?;
        Place::Stay
    } else {
        Place::Here
    };
    let (mut devices, tags) = devices::all(config, paths, &run);
    for device in &mut devices {
        device.spec.place = place.clone();
    }
    let mut running = devices
        .iter()
        .map(|device| devices::start(device, &run))
        .collect::<Result<Vec<_>>>()?;
    for device in &mut running {
        devices::wait_for_socket(device, &run)?;
    }
    let listeners = listen(config, &run)?;
    let recorder = recording::start(&run, place.clone())?;
    let spec = qemu::command(config, paths, &run, accel, generic, &tags).place(place);
    let log = File::create(run.log("qemu")).context("cannot create a log file")?;
    let mut command = spec.command();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let spawned = Instant::now();
    let mut qemu = Running::start("QEMU", command)?;
    let mut connected = accept(&listeners, &mut qemu, &run)?.into_iter();
    let mut port = || connected.next().context("QEMU has too few ports");
    let (control, streams) = (port()?, [port()?, port()?, port()?]);
    let events = Events::new(&qemu, &running)?;
    let control = Control::new(control, &events)?;
    Ok(Machine {
        control,
        events,
        streams: Some(streams),
        exec: connected.next(),
        run,
        accel,
        boot: Boot {
            started,
            spawned,
            ready: spawned,
            marks: Vec::new(),
        },
        boot_limit: config.system.limit(BOOT_LIMIT),
        keeps_console: config.console.is_some(),
        qemu,
        recorder,
        devices: running,
    })
}

/// The userland, added packages over it, the lab's own files over that, and what is started first.
fn initramfs(path: &Path, userland: &Path, paths: &Paths) -> Result<()> {
    let (all, top) = (|_: &Path| true, Path::new(""));
    initramfs::join(path, userland, |archive| {
        if let Some(layer) = &paths.layer {
            initramfs::append(archive, top, &layer.join(layer::UPPER), &all)?;
        }
        initramfs::append(archive, top, &paths.guest.join("root"), &all)?;
        initramfs::append_file(archive, Path::new("init"), &paths.guest.join("init"))
    })
}

fn listen(config: &Config, run: &RunDir) -> Result<Vec<UnixListener>> {
    qemu::ports(config)
        .map(|port| {
            UnixListener::bind(run.socket(port))
                .with_context(|| format!("cannot make the socket {port}"))
        })
        .collect()
}

/// QEMU connects while it starts; if it ends instead, its own words are the error.
fn accept(listeners: &[UnixListener], qemu: &mut Running, run: &RunDir) -> Result<Vec<UnixStream>> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    let mut streams = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err).context("cannot accept QEMU's connection"),
            }
            if let Some(killed) = qemu.try_status().and_then(killed) {
                return Err(exit::machine(format!("QEMU {killed}")));
            }
            if qemu.try_status().is_some() || Instant::now() > deadline {
                return Err(exit::machine(format!(
                    "QEMU did not start: {}",
                    said(run, "qemu")
                )));
            }
            crate::cancel::check()?;
            std::thread::sleep(Duration::from_millis(2));
        };
        stream.set_nonblocking(false)?;
        streams.push(stream);
    }
    Ok(streams)
}

/// What a helper wrote, in a line or more.
fn said(run: &RunDir, name: &str) -> String {
    let text = std::fs::read_to_string(run.log(name)).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() && files::is_full(run.path()) {
        let dir = run.path().parent().unwrap_or(run.path()).display();
        format!("its words are lost, for {dir} has no space left: free some, or set TMPDIR")
    } else if text.is_empty() {
        "it said nothing".to_owned()
    } else {
        text.to_owned()
    }
}

impl Machine {
    fn wait_until_ready(mut self, accel: Accel) -> Result<Self> {
        let started = Instant::now();
        loop {
            let spoken = console::has_spoken(&self.run.console());
            let usual = if spoken || accel == Accel::Tcg {
                self.boot_limit
            } else {
                SILENCE_LIMIT
            };
            let limit = usual + load::waited(self.qemu.id()).min(usual);
            let left = limit
                .saturating_sub(started.elapsed())
                .min(Duration::from_secs(1));
            match self.events.next(left)? {
                Some(Event::Report(Report::Ready { complaints, marks })) => {
                    self.boot.ready = Instant::now();
                    self.boot.marks = marks;
                    if let Some(why) = driver::failure(&complaints) {
                        return Err(exit::machine(why));
                    }
                    complaints.iter().for_each(|complaint| {
                        ui::warn(&format!("the guest's set-up: {complaint}"));
                    });
                    return Ok(self);
                }
                Some(event) => self.unless_over(&event)?,
                None if started.elapsed() < limit => {}
                None if !spoken && accel != Accel::Tcg => return Err(Silent.into()),
                None => {
                    let what = driver::stuck(&self.run.console())
                        .unwrap_or_else(|| "the guest did not come up".to_owned());
                    let (seconds, remark) = (limit.as_secs(), load::remark());
                    return Err(self.failure(&format!("{what} within {seconds} s{remark}")));
                }
            }
        }
    }

    fn mount(&mut self, number: usize, share: &Share) -> Result<()> {
        let mount = Mount {
            tag: devices::share_tag(number),
            path: share.path(),
            read_only: share.read_only,
        };
        self.control.send(&Request::Mount(mount))?;
        let deadline = Instant::now() + self.boot_limit;
        loop {
            match self
                .events
                .next(deadline.saturating_duration_since(Instant::now()))?
            {
                Some(Event::Report(Report::Mounted { error: None })) => return Ok(()),
                Some(Event::Report(Report::Mounted { error: Some(error) })) => {
                    return Err(exit::machine(format!(
                        "the guest cannot mount {}: {error}",
                        share.dir.display()
                    )));
                }
                Some(event) => self.unless_over(&event)?,
                None => return Err(self.failure("the guest does not answer")),
            }
        }
    }

    /// What a script of the shell's prints in the guest; for a machine that takes any number of commands, before the first.
    pub fn ask(&self, script: &str, limit: Duration) -> Result<String> {
        let port = self
            .exec
            .as_ref()
            .context("this machine takes one command")?;
        ask::output(port, script, limit)
    }

    /// How many times as long the machine takes as it would with this host to itself, so far.
    pub fn slowdown(&self) -> u32 {
        load::slowdown(self.qemu.id())
    }

    /// The process id of a helper.
    pub fn pid_of(&self, name: &str) -> Result<u32> {
        let helper = self.devices.iter().find(|device| device.name() == name);
        let helper = helper.with_context(|| format!("this machine has no {name}"))?;
        Ok(helper.id())
    }

    /// An error if this event means that the machine is over.
    pub fn unless_over(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Cancelled => Err(crate::cancel::interrupted().into()),
            Event::Ended(name) if name == "QEMU" => Err(self.qemu_ended()),
            Event::Ended(name) => Err(self.device_ended(name)),
            Event::OutputFailed(exit) => Err(exit.clone().into()),
            Event::Report(_) | Event::Drained => Ok(()),
        }
    }

    fn qemu_ended(&mut self) -> anyhow::Error {
        let status = self.qemu.try_status();
        self.recorder.settle();
        let is_silent = std::fs::metadata(self.run.log("qemu")).is_ok_and(|log| log.len() == 0);
        if let Some(killed) = status.and_then(killed) {
            self.failure(&format!("QEMU {killed}"))
        } else if let Some(panic) = console::panic(&self.run.console()) {
            self.failure(&format!("the guest's kernel panicked: {panic}"))
        } else if status.is_some_and(|status| status.success()) && is_silent {
            self.failure("the guest powered itself off or restarted")
        } else {
            self.failure(&format!("QEMU ended: {}", said(&self.run, "qemu")))
        }
    }

    /// The machine's helpers end with QEMU, and sometimes are seen to end first.
    fn device_ended(&mut self, name: &str) -> anyhow::Error {
        let qemu = self.qemu.wait_for(SETTLE).ok().flatten();
        if qemu.is_some_and(|status| status.success() || killed(status).is_some()) {
            return self.qemu_ended();
        }
        let program = devices::program(name);
        let status = self
            .devices
            .iter_mut()
            .find(|device| device.name() == name)
            .and_then(Running::try_status);
        let why = status
            .and_then(killed)
            .unwrap_or_else(|| said(&self.run, name));
        self.failure(&format!(
            "{program} ended while the guest was running: {why}"
        ))
    }

    /// Process ids of QEMU and of our device, whose CPU time is the price of what the guest does.
    pub fn workers(&self) -> Vec<u32> {
        let device = self
            .devices
            .iter()
            .filter(|device| device.name() == devices::FIFO);
        std::iter::once(&self.qemu)
            .chain(device)
            .map(Running::id)
            .collect()
    }

    /// A failure of the machine, with the console's last lines and where all of it is kept.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        exit::machine(format!(
            "{what}; the guest's console ended with\n{}{}",
            console::tail(&self.run.console()),
            self.keep_console()
        ))
    }

    /// Where the whole console is after the run, as words for a message.
    fn keep_console(&self) -> String {
        console::kept(&self.run.console(), self.keeps_console)
    }

    /// Says where the pseudo-terminals of its FIFOs are: the daemon has printed that before QEMU could talk to it.
    pub fn tell_ptys(&self) {
        let said = std::fs::read_to_string(self.run.log(devices::FIFO)).unwrap_or_default();
        for line in said.lines().filter(|line| devices::tells_a_pty(line)) {
            ui::say(line);
        }
    }

    /// What of the console its file has not taken so far.
    pub fn loss(&self) -> Option<Loss> {
        Loss::of(&self.run.console_account())
    }

    /// Tells what is missing of the console. QEMU has ended.
    fn tell_loss(&mut self) {
        self.recorder.settle();
        if let Some(loss) = self.loss() {
            loss.tell(&self.run.console(), self.keeps_console);
        } else if let Some(killed) = self.recorder.try_status().and_then(killed) {
            ui::warn(&format!("the console is cut: its writer {killed}"));
        }
    }

    /// Warns of what the guest's kernel complained of: the first complaint whole, and where the console is kept.
    pub fn tell_complaints(&self) {
        console::tell_complaints(&self.run.console(), self.keeps_console);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // There is nothing in it worth an orderly end.
        self.qemu.kill();
        // A file server ends with its connection. Its process in the namespace is then gone too, which a signal to the outer one would not
        // wait for.
        let servers = self.devices.iter();
        servers
            .filter(|device| device.name() != devices::FIFO)
            .for_each(Running::settle);
        self.tell_loss();
    }
}
