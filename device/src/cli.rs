// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line, turned into a configuration that has been checked.
//!
//! Everything that can be said without looking at the world is said here and exits with 2; what
//! the world refuses later exits with 1.

use std::fmt;
use std::fmt::Display;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;
use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap::error::ErrorKind;
use virtio_fifo_protocol::virtio_fifo;
use virtio_fifo_protocol::virtio_fifo::DEFAULT_DEVICE_ID;
use virtio_fifo_protocol::virtio_fifo::MAX_FIFOS;

use crate::ctl::CtlArgs;
use crate::fault::FaultSpec;
use crate::fifo::ResetPolicy;
use crate::sandbox::Needs;
use crate::sandbox::Sandbox;
use crate::server::Until;
use crate::spec::FifoSpec;
use crate::spec::Kind;
use crate::spec::PartialSpec;
use crate::spec::Role;
use crate::spec::parse_capacity;

/// vhost-user backend of the virtio-fifo device.
#[derive(Clone, Debug, Parser)]
#[command(name = "vhost-device-fifo", version, about, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    /// A FIFO of the device: loopback, unix=PATH[,connect], pty[,link=PATH],
    /// file=PATH[,input=PATH], pattern[,seed=N], zero or null, then perhaps ",capacity=BYTES";
    /// repeat it for more FIFOs [default: loopback]
    #[arg(long = "fifo", value_name = "SPEC")]
    fifos: Vec<PartialSpec>,

    /// Something that goes wrong on demand, for instance
    /// "drop-interrupt,fifo=0,p=0.1,count=5,after=200ms,for=2s,seed=7"; repeat it for more
    #[arg(long = "fault", value_name = "SPEC")]
    faults: Vec<FaultSpec>,

    /// Bytes that each direction of a FIFO holds unless its SPEC says otherwise; K and M are
    /// understood
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = parse_capacity)]
    capacity: usize,

    /// Virtio device id that the VMM gives the device; it is only shown by --print-capabilities
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DEVICE_ID,
          value_parser = clap::value_parser!(u32).range(1..=63))]
    virtio_id: u32,

    /// What a device reset does with bytes that the driver has not consumed
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    reset: ResetPolicy,

    /// Most entries that a virtqueue may have, a power of two
    #[arg(long, value_name = "N", default_value = "1024", value_parser = parse_queue_size)]
    queue_size: u16,

    /// End when the first VMM disconnects, rather than wait for the next
    #[arg(long)]
    once: bool,

    /// What the process gives up before it serves
    #[arg(long, value_name = "WHAT", default_value = "seccomp")]
    sandbox: Sandbox,

    /// Create a socket here to look at the device and handle it: see ctl
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// Write Prometheus metrics to this file: now, at the end, and at each SIGUSR1
    #[arg(long, value_name = "PATH")]
    metrics: Option<PathBuf>,

    /// Print what a VMM must know of the device as one line of JSON, and exit
    #[arg(long)]
    print_capabilities: bool,

    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// What the program does other than to serve.
#[derive(Clone, Debug, Subcommand)]
enum CliCommand {
    /// Look at a running device and handle it, through its control socket
    Ctl(CtlArgs),
}

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false, args = ["socket_path", "socket_fd", "print_capabilities"])]
struct SocketArgs {
    /// Create the vhost-user socket here
    #[arg(long, value_name = "PATH")]
    socket_path: Option<PathBuf>,

    /// Use this inherited listening socket
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(0..))]
    socket_fd: Option<RawFd>,
}

/// Where VMMs connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketSource {
    /// A socket to create.
    Path(PathBuf),
    /// A listening socket inherited.
    Fd(RawFd),
}

impl Display for SocketSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{path:?}"),
            Self::Fd(fd) => write!(f, "fd {fd}"),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve the device.
    Serve {
        /// Where.
        socket: SocketSource,
        /// For how long.
        until: Until,
    },
    /// Talk to a device that is served.
    Control(CtlArgs),
    /// Print [`Config::capabilities`].
    PrintCapabilities,
}

/// A command line that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What to do.
    pub action: Action,
    /// The FIFOs, 1 to [`MAX_FIFOS`].
    pub fifos: Vec<FifoSpec>,
    /// What goes wrong from the start.
    pub faults: Vec<FaultSpec>,
    /// What a device reset discards.
    pub reset: ResetPolicy,
    /// Most entries of a virtqueue.
    pub queue_size: u16,
    /// The device id that the VMM uses.
    pub virtio_id: u32,
    /// What the process gives up before it serves.
    pub sandbox: Sandbox,
    /// Where the control socket is to be.
    pub control: Option<PathBuf>,
    /// Where metrics are to be written.
    pub metrics: Option<PathBuf>,
}

impl Config {
    /// Reads the process's command line; exits by itself with help, version or an error.
    pub fn from_command_line() -> Self {
        Self::try_from(Cli::parse()).unwrap_or_else(|error| error.exit())
    }

    /// What the sandbox must leave.
    pub fn needs(&self) -> Needs {
        Needs {
            // A ring for each direction.
            ring_bytes: self.fifos.iter().map(|fifo| 2 * fifo.capacity as u64).sum(),
            connect: self.has(|kind| {
                matches!(
                    kind,
                    Kind::Unix {
                        role: Role::Connect,
                        ..
                    }
                )
            }),
            terminals: self.has(|kind| matches!(kind, Kind::Pty { .. })),
        }
    }

    fn has(&self, wanted: impl Fn(&Kind) -> bool) -> bool {
        self.fifos.iter().any(|fifo| wanted(&fifo.kind))
    }

    /// What a VMM must know of the device, as one line of JSON.
    pub fn capabilities(&self) -> String {
        let num_fifos = u16::try_from(self.fifos.len()).unwrap_or(MAX_FIFOS);
        format!(
            r#"{{"type":"fifo","features":[],"virtio-id":{},"num-fifos":{num_fifos},"num-queues":{},"queue-size":{},"config-size":{}}}"#,
            self.virtio_id,
            virtio_fifo::num_queues(num_fifos),
            self.queue_size,
            virtio_fifo::Config::LEN,
        )
    }
}

impl TryFrom<Cli> for Config {
    type Error = clap::Error;

    fn try_from(cli: Cli) -> Result<Self, clap::Error> {
        let until = if cli.once {
            Until::FirstVmmGone
        } else {
            Until::Stopped
        };
        let action = match (cli.print_capabilities, cli.socket) {
            (
                false,
                SocketArgs {
                    socket_path: Some(path),
                    ..
                },
            ) => Action::Serve {
                socket: SocketSource::Path(path),
                until,
            },
            (
                false,
                SocketArgs {
                    socket_fd: Some(fd),
                    ..
                },
            ) => Action::Serve {
                socket: SocketSource::Fd(fd),
                until,
            },
            _ => Action::PrintCapabilities,
        };
        let action = match cli.command {
            Some(CliCommand::Ctl(args)) => Action::Control(args),
            None => action,
        };
        let given = if cli.fifos.is_empty() {
            vec![PartialSpec::LOOPBACK]
        } else {
            cli.fifos
        };
        if given.len() > MAX_FIFOS.into() {
            return Err(Cli::command().error(
                ErrorKind::TooManyValues,
                format!(
                    "--fifo is given {} times: a device has at most {MAX_FIFOS} FIFOs",
                    given.len()
                ),
            ));
        }
        let stray = |fault: &&FaultSpec| {
            fault
                .fifo
                .is_some_and(|fifo| usize::from(fifo) >= given.len())
        };
        if let Some(fault) = cli.faults.iter().find(stray) {
            return Err(Cli::command().error(
                ErrorKind::ValueValidation,
                format!(
                    "--fault {fault}: there is no such FIFO, the last one is fifo={}",
                    given.len() - 1
                ),
            ));
        }
        Ok(Self {
            action,
            faults: cli.faults,
            fifos: given
                .iter()
                .map(|spec| spec.with_default(cli.capacity))
                .collect(),
            reset: cli.reset,
            queue_size: cli.queue_size,
            virtio_id: cli.virtio_id,
            sandbox: cli.sandbox,
            control: cli.control,
            metrics: cli.metrics,
        })
    }
}

fn parse_queue_size(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|size: &u16| (1..=32768).contains(size) && size.is_power_of_two())
        .ok_or_else(|| "use a power of two from 1 to 32768".to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(line: &str) -> Result<Config, clap::Error> {
        let words = ["vhost-device-fifo"]
            .into_iter()
            .chain(line.split_whitespace());
        Config::try_from(Cli::try_parse_from(words)?)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let config = parse("--socket-path /tmp/s").unwrap();
        let loopback = FifoSpec {
            kind: Kind::Loopback,
            capacity: 4096,
        };
        assert_eq!(
            config,
            Config {
                action: Action::Serve {
                    socket: SocketSource::Path("/tmp/s".into()),
                    until: Until::Stopped,
                },
                fifos: vec![loopback],
                faults: vec![],
                reset: ResetPolicy::Keep,
                queue_size: 1024,
                virtio_id: 37,
                sandbox: Sandbox::Seccomp,
                control: None,
                metrics: None,
            }
        );
    }

    #[test]
    fn a_capacity_of_its_own_wins() {
        let config = parse(
            "--socket-fd 7 --once --reset clear --capacity 8K --fifo null,capacity=3 --fifo zero",
        )
        .unwrap();
        let capacities: Vec<_> = config.fifos.iter().map(|fifo| fifo.capacity).collect();
        assert_eq!(capacities, [3, 8192]);
        assert_eq!(config.reset, ResetPolicy::Clear);
        assert_eq!(
            config.action,
            Action::Serve {
                socket: SocketSource::Fd(7),
                until: Until::FirstVmmGone,
            }
        );
    }

    #[test]
    fn faults_are_kept_in_order() {
        let config =
            parse("--socket-fd 7 --fifo null --fifo zero --fault stall,fifo=1 --fault slow")
                .unwrap();
        let faults: Vec<_> = config.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults, ["stall,fifo=1", "slow"]);
    }

    /// DEV-2: 31 FIFOs and no more.
    #[rstest]
    #[case(31, true)]
    #[case(32, false)]
    fn number_of_fifos(#[case] count: usize, #[case] fine: bool) {
        let line = format!("--socket-path s {}", "--fifo null ".repeat(count));
        assert_eq!(parse(&line).is_ok(), fine);
    }

    #[rstest]
    #[case("", "--socket-path")]
    #[case("--socket-path a --socket-fd 3", "cannot be used with")]
    #[case("--socket-fd -1", "--socket-fd")]
    #[case("--socket-fd x", "--socket-fd")]
    #[case("--socket-path s --capacity 0", "out of range")]
    #[case("--socket-path s --capacity ten", "not a number")]
    #[case("--socket-path s --fifo loop", "unknown FIFO kind")]
    #[case("--socket-path s --fifo unix", "write 'unix=PATH'")]
    #[case("--socket-path s --fault bad-luck", "unknown fault 'bad-luck'")]
    #[case("--socket-path s --fault stall,p=2", "p=2 is not right")]
    #[case("--socket-path s --fault stall,fifo=1", "the last one is fifo=0")]
    #[case("--socket-path s --virtio-id 0", "--virtio-id")]
    #[case("--socket-path s --virtio-id 64", "--virtio-id")]
    #[case("--socket-path s --queue-size 0", "power of two")]
    #[case("--socket-path s --queue-size 100", "power of two")]
    #[case("--socket-path s --queue-size 65536", "power of two")]
    #[case("--socket-path s --reset maybe", "keep, clear")]
    #[case("--socket-path s --sandbox chroot", "none, seccomp")]
    #[case("--socket-path s --fast", "--fast")]
    #[case("--socket-path s stray", "stray")]
    #[case("ctl", "<PATH> <COMMAND>")]
    #[case("ctl /s", "<PATH> <COMMAND>")]
    #[case("ctl /s explode", "explode")]
    #[case("ctl /s clear", "<FIFO>")]
    #[case("ctl /s clear minus", "minus")]
    #[case("ctl /s hangup 0 maybe", "on, off")]
    #[case("--socket-path s ctl /s status", "cannot be used with")]
    fn usage_errors_name_what_is_wrong(#[case] line: &str, #[case] part: &str) {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(part), "{error}");
    }

    #[rstest]
    #[case("ctl /s status")]
    #[case("ctl /s --json push 0 text --wait")]
    #[case("ctl /s pull 3 --max 10 --json")]
    #[case("ctl /s hangup 0")]
    #[case("ctl /s watch 0 1")]
    fn ctl_needs_no_socket_of_its_own(#[case] line: &str) {
        assert!(matches!(parse(line).unwrap().action, Action::Control(_)));
    }

    #[test]
    fn capabilities_are_for_the_device_asked_for() {
        let config = parse("--print-capabilities --virtio-id 40 --fifo zero --fifo null").unwrap();
        assert_eq!(config.action, Action::PrintCapabilities);
        assert_eq!(
            config.capabilities(),
            r#"{"type":"fifo","features":[],"virtio-id":40,"num-fifos":2,"num-queues":6,"queue-size":1024,"config-size":4}"#
        );
    }
}
