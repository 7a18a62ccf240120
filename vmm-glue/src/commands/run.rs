// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab run`: a guest command with its streams, its terminal and its status, as if it ran here.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use fifo_lab_agent::Command;
use fifo_lab_agent::Report;
use fifo_lab_agent::Request;
use fifo_lab_agent::Stdin;

use crate::cancel;
use crate::child::Spec;
use crate::cli::RunArgs;
use crate::cli::StreamArgs;
use crate::exit;
use crate::stages;
use crate::stages::shop::Shop;
use crate::streams::Output;
use crate::tty;
use crate::ui;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::input;
use crate::vm::machine;
use crate::vm::machine::Machine;
use crate::vm::session;
use crate::vm::session::Event;
use crate::vm::session::Outlet;
use crate::vm::timing::Ran;

/// After the command's end, a guest that sends nothing for this long never sends its last bytes.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Runs the command; the status is the guest command's.
pub fn run(args: &RunArgs) -> Result<u8> {
    let config = args.guest.config()?;
    args.streams.env()?;
    let wanted = args.guest.wanted()?;
    if args.dry_run {
        return super::dry_run::dry_run(&config, &wanted);
    }
    machine::check(&config)?;
    let shop = Shop::open_for(config.system.arch)?;
    let ready = stages::set_up(&shop, &wanted)?;
    let paths = Paths::new(&ready);
    let command = guest_command(&args.streams, &args.command, &config.cwd(), &paths.trees())?;
    let (status, ran) = timed(&config, &paths, &command, args.guest.timeout())?;
    if args.timing {
        ui::tell(&ran.table(Instant::now()));
    }
    Ok(status)
}

/// The command as the agent is to start it: `argv`, or a shell. `trees` are the directories that make up the guest's root.
pub fn guest_command(
    args: &StreamArgs,
    argv: &[String],
    cwd: &str,
    trees: &[PathBuf],
) -> Result<Command> {
    let mut env: BTreeMap<_, _> = ["COLORTERM", "NO_COLOR"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect();
    let term = std::env::var("TERM").ok();
    env.insert(
        "TERM".to_owned(),
        tty::name_in_guest(term.as_deref(), trees),
    );
    env.extend(args.env()?);
    let shell = argv.is_empty();
    let terminal = args.terminal || shell && tty::interactive() && !args.no_stdin;
    Ok(Command {
        argv: if shell {
            vec!["bash".to_owned()]
        } else {
            argv.to_owned()
        },
        env,
        cwd: cwd.to_owned(),
        stdin: match (terminal, args.no_stdin) {
            (true, _) => Stdin::Terminal(tty::terminal()),
            (false, true) => Stdin::Null,
            (false, false) => Stdin::Port,
        },
    })
}

/// Boots a machine, runs one command in it, and ends the machine.
pub fn in_guest(
    config: &Config,
    paths: &Paths,
    command: &Command,
    timeout: Option<Duration>,
) -> Result<u8> {
    timed(config, paths, command, timeout).map(|(status, _)| status)
}

/// The same, with the moments of the run.
fn timed(
    config: &Config,
    paths: &Paths,
    command: &Command,
    timeout: Option<Duration>,
) -> Result<(u8, Ran)> {
    let mut machine = machine::boot(config, paths)?;
    if config.device {
        tell_control(config, paths, &machine);
    }
    machine.tell_ptys();
    let mut command = command.clone();
    command.env.extend(config.system.environment());
    let sent = Instant::now();
    let result = attend(&mut machine, &command, timeout).map_err(exit::as_machine);
    let done = Instant::now();
    tty::restore();
    let status = result?;
    machine.tell_complaints();
    let boot = machine.boot.clone();
    Ok((status, Ran { boot, sent, done }))
}

/// How to look at the device and handle it while the guest runs.
pub fn tell_control(config: &Config, paths: &Paths, machine: &Machine) {
    let control = machine.run.control(config.control.as_deref());
    let command = Spec::new(&paths.daemon)
        .arg("ctl")
        .arg(control)
        .arg("status");
    ui::say(&format!("the device from the host: {}", command.shell()));
}

/// Runs a command in a machine that has booted, with this terminal's streams.
pub fn attend(machine: &mut Machine, command: &Command, timeout: Option<Duration>) -> Result<u8> {
    let Some([stdin, stdout, stderr]) = machine.streams.take() else {
        anyhow::bail!("this machine has run its command")
    };
    let to = |output: Output| {
        move |bytes: &[u8]| output.write(bytes).map_err(|err| output.failure(&err))
    };
    let stdout = Outlet::new(stdout, &machine.events, to(Output::Stdout));
    let stderr = Outlet::new(stderr, &machine.events, to(Output::Stderr));
    let terminal = matches!(command.stdin, Stdin::Terminal(_));
    if terminal {
        ui::say("a terminal in the guest: Ctrl-] three times ends the machine");
    }
    let _raw = terminal.then(tty::Raw::enter).transpose()?;
    machine.control.send(&Request::Run(command.clone()))?;
    let mut stdin = (command.stdin != Stdin::Null).then_some(stdin);
    let mut deadline = None;
    loop {
        let limit = deadline.map_or(Duration::MAX, |deadline: Instant| {
            deadline.saturating_duration_since(Instant::now())
        });
        match machine.events.next(limit.min(Duration::from_secs(3600)))? {
            Some(Event::Report(Report::Started)) => {
                deadline = timeout.map(|timeout| Instant::now() + timeout);
                if let Some(stdin) = stdin.take() {
                    feed(stdin, terminal);
                }
                if terminal {
                    let control = machine.control.clone();
                    tty::follow_size(move |size| control.send(&Request::Resize(size)).is_ok());
                }
            }
            Some(Event::Report(Report::Exited {
                status,
                stdout: out,
                stderr: err,
            })) => {
                drain(machine, &[(&stdout, out), (&stderr, err)])?;
                return Ok(status);
            }
            Some(event) => machine.unless_over(&event)?,
            None if deadline.is_none() || limit > Duration::ZERO => {}
            None => return Err(timed_out(machine, timeout)),
        }
    }
}

fn feed(port: UnixStream, terminal: bool) {
    let mut escape = input::escape(terminal, cancel::ask);
    // The socket itself stays open until the machine has gone.
    let port: &'static UnixStream = Box::leak(Box::new(port));
    let take = move |bytes: &[u8]| !escape(bytes) && (&*port).write_all(bytes).is_ok();
    // Half of it: QEMU drops what it has not read yet when both directions go.
    input::feed(terminal, take, move || drop(port.shutdown(Shutdown::Write)));
}

fn timed_out(machine: &Machine, timeout: Option<Duration>) -> anyhow::Error {
    machine.failure(&format!(
        "the command had not ended after {} s",
        timeout.unwrap_or_default().as_secs()
    ))
}

/// Waits for what the command wrote before it ended.
fn drain(machine: &mut Machine, outlets: &[(&Outlet, u64)]) -> Result<()> {
    let arrived = session::drain(outlets, DRAIN_LIMIT, |left| {
        match machine.events.next(left)? {
            Some(event) => machine.unless_over(&event),
            None => Ok(()),
        }
    })?;
    if arrived {
        Ok(())
    } else {
        Err(machine.failure("the command's last output did not arrive"))
    }
}
