// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine with the device and all its peers attached, and one measurement at a time in it.
//!
//! The only part of the benchmarks that knows sockets, processes and QEMU's command line.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use globalfifo_bench_protocol::Line;
use globalfifo_bench_protocol::Machine;
use globalfifo_bench_protocol::Measured;
use globalfifo_bench_protocol::SERIAL_PORT;
use globalfifo_bench_protocol::Task;
use globalfifo_bench_protocol::VSOCK_PORT;
use globalfifo_bench_protocol::Work;

use super::accounting;
use super::peers;
use super::plan;
use super::results::Figures;
use crate::cancel;
use crate::child::Running;
use crate::child::Spec;
use crate::escape;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages::guest;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::devices;
use crate::vm::guest::Guest;
use crate::vm::qemu;

/// Beyond its own limit the guest's program gets this long to end.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a daemon may take to make its socket.
const SOCKET_LIMIT: Duration = Duration::from_secs(20);
/// Bytes that the vsock daemon keeps for the host: as much as a FIFO holds unless the user says otherwise.
const VSOCK_BUFFER: u32 = 1 << 20;
/// The guest's address on vsock.
const CID: u32 = 3;

/// The machine and its peers. Dropping it ends them.
#[derive(Debug)]
pub struct Rig {
    // In this order: the machine first, then what it talks to.
    guest: Guest,
    daemons: Vec<Running>,
    _sockets: Option<Scratch>,
}

/// What the host saw of one measurement.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostCost {
    /// CPU time of QEMU and the daemons.
    pub cpu: Duration,
    /// How often the daemons were woken; QEMU is not counted.
    pub wakeups: u64,
}

impl Rig {
    /// Boots a machine with everything in it that is compared. Without `vsock`, that peer is left out.
    pub fn with_peers(config: &Config, paths: &Paths, vsock: Option<&Path>) -> Result<Self> {
        let sockets = Scratch::for_sockets(scratch::Kind::Bench)?;
        let at = |name: &str| sockets.path().join(name);
        let mut config = config.clone();
        config.fifos = vec![
            "loopback".to_owned(),
            "null".to_owned(),
            "zero".to_owned(),
            format!("unix={}", escape::fifo_spec(&at("host")).to_string_lossy()),
        ];
        let crowd = vec!["loopback,capacity=4096".to_owned(); plan::CROWD];
        let mut daemons = vec![start(
            "the daemon of many FIFOs",
            &devices::fifo_daemon(paths, &at("crowd"), &crowd),
            &at("crowd"),
        )?];
        let generic = qemu::generic_device(&config, paths)?;
        let mut attached = serial_port(&at("serial"));
        if let Some(program) = vsock {
            daemons.push(vsock_daemon(program, sockets.path())?);
            attached.extend(vsock_device(&at("vhost")));
        }
        // Last, so that its FIFOs have the higher numbers.
        attached.extend(qemu::fifo_device(
            generic,
            "crowd",
            &at("crowd"),
            plan::CROWD,
            config.vq_size,
        ));
        config.qemu_args.splice(0..0, attached);
        let guest = Guest::boot(&config, paths)?;
        peers::connect("FIFO", &at("host"))?;
        peers::connect("virtio-serial port", &at("serial"))?;
        Ok(Self {
            guest,
            daemons,
            _sockets: Some(sockets),
        })
    }

    /// Boots a machine as it is configured.
    pub fn plain(config: &Config, paths: &Paths) -> Result<Self> {
        Ok(Self {
            guest: Guest::boot(config, paths)?,
            daemons: Vec::new(),
            _sockets: None,
        })
    }

    /// How the guest's CPUs are made.
    pub fn accelerator(&self) -> &'static str {
        self.guest.machine.accel.name()
    }

    /// What the guest says of itself.
    pub fn facts(&mut self) -> Result<Machine> {
        let task = Task {
            work: Work::Machine,
            millis: 0,
        };
        let answer = self.run(&task)?;
        let facts = answer.lines.into_iter().find_map(|line| match line {
            Line::Machine(facts) => Some(facts),
            _ => None,
        });
        facts.with_context(|| format!("the guest does not say what it is: {}", answer.errors))
    }

    /// One measurement; the inner error is why the guest could not make it.
    pub fn measure(&mut self, task: &Task) -> Result<Result<Figures, String>> {
        let (measured, host) = match self.watch(task)? {
            Ok(done) => done,
            Err(why) => return Ok(Err(why)),
        };
        Ok(Ok(Figures {
            guest: measured,
            host_cpu_nanos: u64::try_from(host.cpu.as_nanos()).unwrap_or(u64::MAX),
        }))
    }

    /// The same with all that the host saw.
    pub fn watch(&mut self, task: &Task) -> Result<Result<(Measured, HostCost), String>> {
        let answer = self.run(task)?;
        let measured = answer.lines.into_iter().find_map(|line| match line {
            Line::Measured(measured) => Some(measured),
            _ => None,
        });
        let said = answer.errors.trim().trim_start_matches("bench: ");
        Ok(match (answer.status, measured) {
            (0, Some(measured)) => Ok((measured, answer.host)),
            // 128 + SIGALRM
            (142, _) => Err("it did not end in time".to_owned()),
            (status, _) if said.is_empty() => Err(format!("it ended with status {status}")),
            _ => Err(said.to_owned()),
        })
    }

    fn run(&mut self, task: &Task) -> Result<Answer> {
        let program = format!("/{}/bin/bench", guest::HOME);
        self.guest
            .request(vec![program, serde_json::to_string(task)?])?;
        let deadline = Instant::now() + PATIENCE + Duration::from_millis(task.millis);
        let mut answer = Answer::default();
        let mut before = HostCost::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.guest.step(left)?;
            for line in self.guest.lines(ended.is_some()) {
                match serde_json::from_str(&line) {
                    Ok(Line::Begin) => before = self.cost(),
                    // The last rehearsal was the measurement.
                    Ok(Line::End) => answer.host = self.cost().since(before),
                    Ok(line) => answer.lines.push(line),
                    Err(_) => answer.errors.push_str(&format!("{line}\n")),
                }
            }
            if let Some(status) = ended {
                answer.status = status;
                answer.errors.push_str(&self.guest.take_errors());
                return Ok(answer);
            }
            if left.is_zero() {
                return Err(self
                    .guest
                    .machine
                    .failure("a measurement does not end, nor its time limit"));
            }
        }
    }

    /// What the processes that serve the guest have used so far.
    fn cost(&self) -> HostCost {
        let workers = self.guest.machine.workers();
        let ids = || {
            workers
                .iter()
                .copied()
                .chain(self.daemons.iter().map(Running::id))
        };
        HostCost {
            cpu: ids().map(accounting::cpu_time).sum(),
            wakeups: ids().skip(1).map(accounting::sleeps).sum(),
        }
    }
}

impl HostCost {
    fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            wakeups: self.wakeups.saturating_sub(before.wakeups),
        }
    }
}

/// What came of a task.
#[derive(Debug, Default)]
struct Answer {
    status: u8,
    lines: Vec<Line>,
    errors: String,
    host: HostCost,
}

/// A virtio-serial device for the measured port alone, with a vector for each of its queues: the best that there is of its kind.
fn serial_port(socket: &Path) -> Vec<OsString> {
    vec![
        "-chardev".into(),
        escape::qemu("socket,id=bench,server=on,wait=off,path=", socket),
        "-device".into(),
        "virtio-serial-pci,id=bench-ports,max_ports=2,vectors=8".into(),
        "-device".into(),
        format!("virtserialport,bus=bench-ports.0,nr=1,chardev=bench,name={SERIAL_PORT}").into(),
    ]
}

fn vsock_device(socket: &Path) -> [OsString; 4] {
    [
        "-chardev".into(),
        escape::qemu("socket,id=vsock,path=", socket),
        "-device".into(),
        "vhost-user-vsock-pci,chardev=vsock".into(),
    ]
}

/// The daemon, and the host's end of its connections.
fn vsock_daemon(program: &Path, sockets: &Path) -> Result<Running> {
    let uds = sockets.join("vsock");
    let mut port = uds.clone().into_os_string();
    port.push(format!("_{VSOCK_PORT}"));
    peers::listen("vsock connection", &PathBuf::from(port))?;
    let vhost = sockets.join("vhost");
    let spec = Spec::new(program)
        .arg(format!("--guest-cid={CID}"))
        .arg("--socket")
        .arg(&vhost)
        .arg("--uds-path")
        .arg(&uds)
        .arg(format!("--tx-buffer-size={VSOCK_BUFFER}"));
    start("vhost-device-vsock", &spec, &vhost)
}

/// Starts a daemon and waits for its socket; what it says goes into a file beside it.
fn start(name: &str, spec: &Spec, socket: &Path) -> Result<Running> {
    let path = socket.with_extension("log");
    let log = File::create(&path).context("cannot create a log file")?;
    let mut command = spec.command();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut daemon = Running::start(name, command)?;
    let deadline = Instant::now() + SOCKET_LIMIT;
    while !socket.exists() {
        cancel::check()?;
        anyhow::ensure!(
            daemon.try_status().is_none() && Instant::now() < deadline,
            "{name} did not make its socket: {}",
            std::fs::read_to_string(&path).unwrap_or_default().trim()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(daemon)
}
