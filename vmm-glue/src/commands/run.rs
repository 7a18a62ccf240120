// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab run`: a guest command with its streams, its terminal and its status, as if it ran here.

use std::collections::BTreeMap;
use std::path::Path;
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
use crate::exit;
use crate::stages;
use crate::stages::layer;
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
use crate::vm::session::Control;
use crate::vm::session::Event;
use crate::vm::session::Outlet;

/// Pressed this often in a row, the key below ends a machine that no longer listens.
const ESCAPES: usize = 3;
/// Ctrl-]
const ESCAPE: u8 = 0x1d;
/// After the command's end, a guest that sends nothing for this long never sends its last bytes.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Runs the command; the status is the guest command's.
pub fn run(args: &RunArgs) -> Result<u8> {
    let config = args.config()?;
    args.env()?;
    let wanted = args.wanted()?;
    if args.dry_run {
        return super::dry_run::dry_run(&config, &wanted);
    }
    machine::check(&config)?;
    let shop = Shop::open()?;
    let ready = stages::set_up(&shop, &wanted)?;
    let paths = Paths::new(&ready);
    let command = guest_command(args, &config, &paths)?;
    in_guest(&config, &paths, &command, args.timeout())
}

fn guest_command(args: &RunArgs, config: &Config, paths: &Paths) -> Result<Command> {
    let cwd = config
        .shares
        .first()
        .map_or_else(|| "/root".to_owned(), crate::vm::config::Share::path);
    let mut env: BTreeMap<_, _> = ["COLORTERM", "NO_COLOR"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect();
    let layer = paths.layer.as_ref().map(|layer| layer.join(layer::UPPER));
    let trees: Vec<&Path> = layer
        .iter()
        .chain([&paths.tree])
        .map(PathBuf::as_path)
        .collect();
    let term = std::env::var("TERM").ok();
    env.insert(
        "TERM".to_owned(),
        tty::name_in_guest(term.as_deref(), &trees),
    );
    env.extend(args.env()?);
    let shell = args.command.is_empty();
    let terminal = args.terminal || shell && tty::interactive() && !args.no_stdin;
    Ok(Command {
        argv: if shell {
            vec!["bash".to_owned()]
        } else {
            args.command.clone()
        },
        env,
        cwd,
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
    let mut machine = machine::boot(config, paths)?;
    if config.device {
        tell_control(config, paths, &machine);
    }
    machine.tell_ptys();
    let mut command = command.clone();
    command.env.extend(config.system.kernel.environment());
    let result = attend(&mut machine, &command, timeout).map_err(exit::as_machine);
    tty::restore();
    if result.is_ok() {
        machine.tell_complaints();
    }
    result
}

/// How to look at the device and handle it while the guest runs.
fn tell_control(config: &Config, paths: &Paths, machine: &Machine) {
    let control = machine.run.control(config.control.as_deref());
    let command = Spec::new(&paths.daemon)
        .arg("ctl")
        .arg(control)
        .arg("status");
    ui::say(&format!("the device from the host: {}", command.shell()));
}

fn attend(machine: &mut Machine, command: &Command, timeout: Option<Duration>) -> Result<u8> {
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
                    input::feed(stdin, terminal, escape(terminal));
                }
                if terminal {
                    follow_size(machine.control.clone());
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

/// On a terminal, looks for the keys that end a machine which no longer listens.
fn escape(terminal: bool) -> impl FnMut(&[u8]) -> bool + Send + 'static {
    let mut pressed = 0;
    move |bytes| {
        if !terminal {
            return false;
        }
        for byte in bytes {
            pressed = if *byte == ESCAPE { pressed + 1 } else { 0 };
        }
        if pressed >= ESCAPES {
            cancel::ask();
        }
        pressed >= ESCAPES
    }
}

/// Tells the guest when the terminal's size changes.
fn follow_size(control: Control) {
    let Some(resized) = cancel::resized() else {
        return;
    };
    std::thread::spawn(move || {
        loop {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(
                resized,
                rustix::event::PollFlags::IN,
            )];
            let _ = rustix::event::poll(&mut fds, None);
            let _ = rustix::io::read(resized, &mut [0; 8]);
            if control.send(&Request::Resize(tty::size())).is_err() {
                return;
            }
        }
    });
}
