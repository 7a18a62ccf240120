// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line, turned into a configuration that has been checked.
//!
//! Everything that can be said without looking at the world is said here and exits with 2; what
//! the world refuses later exits with 1.

mod socket;

use std::env;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap::builder::PossibleValue;
use clap::builder::StringValueParser;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use virtio_fifo_protocol::virtio_fifo;
use virtio_fifo_protocol::virtio_fifo::DEFAULT_DEVICE_ID;
use virtio_fifo_protocol::virtio_fifo::MAX_FIFOS;

pub use self::socket::SocketSource;

use self::socket::SocketArgs;
use crate::ctl::CtlArgs;
use crate::fault;
use crate::fault::FaultRefused;
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

/// The option that every vhost-user backend has.
const CAPABILITIES: &str = "--print-capabilities";

/// Parses a SPEC; tells shells how one begins.
#[derive(Clone)]
struct SpecParser;

impl TypedValueParser for SpecParser {
    type Value = PartialSpec;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<PartialSpec, clap::Error> {
        let spec = StringValueParser::new().try_map(|spec| spec.parse::<PartialSpec>());
        spec.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(crate::spec::beginnings().map(PossibleValue::new)))
    }
}

/// vhost-user backend of the virtio-fifo device.
#[derive(Clone, Debug, Parser)]
#[command(name = "vhost-device-fifo", version, about, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    /// A FIFO of the device: loopback, unix=PATH[,connect], tcp=HOST:PORT[,listen], pty[,link=PATH],
    /// file=PATH[,input=PATH], stdio, pattern[,seed=N], zero or null, then perhaps ",capacity=BYTES";
    /// repeat it for more FIFOs [default: loopback]
    #[arg(long = "fifo", value_name = "SPEC", value_parser = SpecParser, hide_possible_values = true)]
    fifos: Vec<PartialSpec>,

    /// Something that goes wrong on demand, for instance
    /// "drop-interrupt,fifo=0,p=0.1,count=5,after=200ms,for=2s,seed=7"; repeat it for more
    #[arg(long = "fault", value_name = "SPEC", hide = !fault::BUILT_IN)]
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
    #[arg(long, value_name = "WHAT", default_value = "kill")]
    sandbox: Sandbox,

    /// Create a socket here to look at the device and handle it: see ctl
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// Write Prometheus metrics to this file: now, at the end, and at each SIGUSR1
    #[arg(long, value_name = "PATH")]
    metrics: Option<PathBuf>,

    /// Print what a VMM must know of the device as one line of JSON, and exit; other options are
    /// heeded as far as they are understood
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
        let args: Vec<OsString> = env::args_os().collect();
        Self::parse(&args).unwrap_or_else(|error| error.exit())
    }

    fn parse(args: &[OsString]) -> Result<Self, clap::Error> {
        let config = Cli::try_parse_from(args).and_then(Self::try_from);
        // QEMU's convention for backend programs: whatever else is on the line is no error.
        if config.is_err() && asks_for_capabilities(args) {
            return Self::try_from(Cli::try_parse_from(["vhost-device-fifo", CAPABILITIES])?);
        }
        config
    }

    /// What the sandbox must leave.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs {
            // A ring for each direction.
            ring_bytes: self.fifos.iter().map(|fifo| 2 * fifo.capacity as u64).sum(),
            reopened: self.metrics.iter().cloned().collect(),
            removed: self.control.iter().cloned().collect(),
            ..Needs::default()
        };
        if let Action::Serve {
            socket: SocketSource::Path(path, _),
            ..
        } = &self.action
        {
            needs.removed.push(path.clone());
        }
        for fifo in &self.fifos {
            match &fifo.kind {
                Kind::Unix { path, role } => match role {
                    Role::Listen => needs.removed.push(path.clone()),
                    Role::Connect => needs.connected.push(path.clone()),
                },
                Kind::Pty { link } => {
                    needs.terminals = true;
                    needs.removed.extend(link.clone());
                }
                Kind::File { path, .. } => needs.reopened.push(path.clone()),
                Kind::Tcp { port, role, .. } => {
                    if *role == Role::Connect {
                        needs.tcp_ports.push(*port);
                    }
                }
                Kind::Loopback | Kind::Stdio | Kind::Pattern { .. } | Kind::Zero | Kind::Null => {}
            }
        }
        needs
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
        let action = match (cli.command, cli.print_capabilities, cli.socket.source()) {
            (Some(CliCommand::Ctl(args)), ..) => Action::Control(args),
            (None, true, _) => Action::PrintCapabilities,
            (None, false, Some(socket)) => Action::Serve { socket, until },
            (None, false, None) if env::var_os("LISTEN_FDS").is_some() => Action::Serve {
                socket: SocketSource::Activation,
                until,
            },
            (None, false, None) => {
                return Err(Cli::command().error(
                    ErrorKind::MissingRequiredArgument,
                    "no socket for VMMs: give --socket-path PATH or --fd FD, or start it by a systemd socket unit",
                ));
            }
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
        if !fault::BUILT_IN && !cli.faults.is_empty() {
            return Err(Cli::command().error(
                ErrorKind::UnknownArgument,
                format!("--fault: {}", FaultRefused::NotBuilt),
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

/// Whether `--print-capabilities` stands among the options.
fn asks_for_capabilities(args: &[OsString]) -> bool {
    let mut options = args.iter().skip(1).take_while(|arg| *arg != "--");
    args.get(1).is_none_or(|first| first != "ctl") && options.any(|arg| arg == CAPABILITIES)
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
    use crate::socket::Access;

    fn parse(line: &str) -> Result<Config, clap::Error> {
        let words: Vec<OsString> = ["vhost-device-fifo"]
            .into_iter()
            .chain(line.split_whitespace())
            .map(OsString::from)
            .collect();
        Config::parse(&words)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Status, message, help and man page agree; a VMM that asks for the capabilities has them.
    #[test]
    fn fault_is_an_option_only_where_faults_are_built_in() {
        let help = Cli::command().render_long_help().to_string();
        assert_eq!(help.contains("--fault"), fault::BUILT_IN, "{help}");
        let line = "--socket-path s --fault slow";
        let parsed = parse(line).map(|config| config.faults.len());
        let status = parsed.as_ref().map_err(clap::Error::exit_code);
        assert_eq!(status, if fault::BUILT_IN { Ok(&1) } else { Err(2) });
        let text = parsed.map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(
            text.contains("built without fault injection"),
            !fault::BUILT_IN,
            "{text}"
        );
        let config = parse(&format!("{line} {CAPABILITIES}")).unwrap();
        assert_eq!(config.action, Action::PrintCapabilities);
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
                    socket: SocketSource::Path("/tmp/s".into(), Access::OWNER),
                    until: Until::Stopped,
                },
                fifos: vec![loopback],
                faults: vec![],
                reset: ResetPolicy::Keep,
                queue_size: 1024,
                virtio_id: 37,
                sandbox: Sandbox::Kill,
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
    #[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
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
    #[case("--fd=-1", "--fd")]
    #[case("--socket-fd x", "--fd")]
    #[case("--fd 3 --socket-group kvm", "cannot be used with")]
    #[case("--fd 3 --socket-mode 660", "cannot be used with")]
    #[case("--socket-path s --socket-mode 8", "octal")]
    #[case("--socket-path s --socket-mode 1777", "octal")]
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
    #[case("--socket-path s --sandbox chroot", "kill, log, none")]
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

    /// QEMU's conventions for backend programs: nothing else on the line is an error.
    #[rstest]
    #[case("--print-capabilities")]
    #[case("--socket-path x --print-capabilities")]
    #[case("--fd 3 --print-capabilities")]
    #[case("--socket-path x --fd 3 --print-capabilities --anything")]
    #[case("--fifo nonsense --print-capabilities stray")]
    #[case("--capacity --print-capabilities")]
    fn capabilities_are_printed_whatever_else_is_asked_for(#[case] line: &str) {
        let config = parse(line).unwrap();
        assert_eq!(config.action, Action::PrintCapabilities);
        let json: serde_json::Value = serde_json::from_str(&config.capabilities()).unwrap();
        assert_eq!(json["type"], "fifo");
    }

    #[test]
    fn what_a_control_command_sends_is_no_option() {
        let config = parse("ctl /s push 0 -- --print-capabilities").unwrap();
        assert!(matches!(config.action, Action::Control(_)));
    }

    #[rstest]
    #[case("--socket-group kvm", 0o660, Some("kvm"))]
    #[case("--socket-mode 666", 0o666, None)]
    #[case("--socket-group 36 --socket-mode 620", 0o620, Some("36"))]
    fn who_may_connect(#[case] options: &str, #[case] mode: u32, #[case] group: Option<&str>) {
        let config = parse(&format!("--socket-path s {options}")).unwrap();
        let Action::Serve {
            socket: SocketSource::Path(_, access),
            ..
        } = config.action
        else {
            panic!("{config:?}");
        };
        assert_eq!((access.mode, access.group.as_deref()), (mode, group));
    }

    #[test]
    fn capabilities_are_for_the_device_asked_for() {
        let config = parse("--print-capabilities --virtio-id 40 --fifo zero --fifo null").unwrap();
        assert_eq!(config.action, Action::PrintCapabilities);
        assert_eq!(
            config.capabilities(),
            r#"{"type":"fifo","features":[],"virtio-id":40,"num-fifos":2,"num-queues":6,"queue-size":1024,"config-size":12}"#
        );
    }
}
