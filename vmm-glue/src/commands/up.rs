// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab up`: a machine that stays, and the process that keeps it.
//!
//! `up` starts the keeper, which is the lab with the same arguments in a session of its own, and waits until the machine takes commands. The
//! keeper sets up and boots with the user's standard error, then lets go of it.

use std::fs::File;
use std::io::PipeReader;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;

use super::run::tell_control;
use crate::cancel;
use crate::child::Running;
use crate::child::killed;
use crate::child::shell_status;
use crate::cli::UpArgs;
use crate::exit;
use crate::exit::Exit;
use crate::stages;
use crate::stages::shop::Shop;
use crate::stay::hub::Change;
use crate::stay::hub::Hub;
use crate::stay::registry;
use crate::stay::registry::Place;
use crate::stay::registry::Record;
use crate::stay::registry::State;
use crate::stay::registry::Taken;
use crate::streams::Output;
use crate::ui;
use crate::vm::config::Paths;
use crate::vm::machine;
use crate::vm::machine::Machine;
use crate::vm::session::Event;

/// First argument that makes the lab a keeper.
pub const KEEPER: &str = "@keeper";
/// What the keeper says once the machine takes commands.
const READY: &[u8] = b"ready\n";
/// How long a keeper may take to end a machine.
const ORDERLY: Duration = Duration::from_secs(20);
/// Without a limit, a wait is begun anew after that long.
const LONG: Duration = Duration::from_secs(3600);

/// Starts a keeper and waits for its machine.
pub fn up(args: &UpArgs) -> Result<u8> {
    args.config()?;
    args.guest.wanted()?;
    let (mut said, says) = std::io::pipe().context("cannot make a pipe")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(KEEPER)
        .args(std::env::args_os().skip(1))
        .stdout(says);
    let mut keeper = Running::start("the machine's keeper", command)?;
    // The pipe stays open until the keeper has ended: its end would be one signal more.
    let status = match wait(&mut keeper, &mut said) {
        Err(err) => {
            keeper.end_within(ORDERLY);
            return Err(err);
        }
        Ok(status) => status,
    };
    let Some(status) = status else {
        keeper.leave();
        let name = &args.name;
        ui::say(&format!(
            "the machine {name} is up: cargo lab exec {name} -- CMD; it ends by cargo lab down {name}, or after {} without a command",
            humantime::format_duration(args.idle)
        ));
        return Ok(0);
    };
    // It has said why, unless it could not.
    Err(Exit {
        status: shell_status(status),
        message: killed(status).map_or_else(String::new, |how| {
            format!(
                "the machine's keeper {how}: `cargo lab down {}` ends what is left",
                args.name
            )
        }),
    }
    .into())
}

/// Waits until the keeper is ready, `None`, or has ended.
fn wait(keeper: &mut Running, said: &mut PipeReader) -> Result<Option<ExitStatus>> {
    let mut fds = vec![PollFd::new(&*said, PollFlags::IN)];
    fds.extend(cancel::fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    drop(fds);
    cancel::check()?;
    let mut words = [0; READY.len()];
    if said.read_exact(&mut words).is_ok() && words == READY {
        Ok(None)
    } else {
        keeper.wait().map(Some)
    }
}

/// Keeps a machine until somebody ends it, nobody uses it, or it fails.
pub fn keep(args: &UpArgs) -> Result<u8> {
    cancel::end_in_order();
    rustix::process::setsid().context("cannot begin a session")?;
    let starter = watch_starter()?;
    let place = Place::of(&args.name)?;
    let Some(taken) = place.take()? else {
        let name = &args.name;
        anyhow::bail!(
            "there is a machine called {name} already: use it by `cargo lab exec {name}`, end it by `cargo lab down {name}`, or call this one \
             otherwise"
        );
    };
    let mut record = Record::new();
    taken.write(&record)?;
    let mut machine = match start(args, &taken, &mut record) {
        Ok(machine) => machine,
        Err(err) => {
            taken.remove()?;
            return Err(err);
        }
    };
    let served = serve(args, &mut machine, &taken, &mut record, &starter);
    if served.is_err() && starter.waits() {
        drop(machine);
        taken.remove()?;
        return served.map(|()| 0);
    }
    match served {
        Ok(()) => {
            drop(machine);
            taken.remove()?;
        }
        // Its console is still there.
        Err(err) => taken.ended(record, &exit::of(&err).1)?,
    }
    Ok(0)
}

/// Sets up and boots.
fn start(args: &UpArgs, taken: &Taken, record: &mut Record) -> Result<Machine> {
    let config = args.config()?;
    let wanted = args.guest.wanted()?;
    machine::check(&config)?;
    let shop = Shop::open_for(config.system.arch)?;
    let ready = stages::set_up(&shop, &wanted)?;
    let paths = Paths::new(&ready);
    taken.outlive_the_lab()?;
    shop.cache.outlive_the_lab()?;
    ready.outlive_the_lab()?;
    let machine = machine::boot(&config, &paths)?;
    // The locks on the cache are this process's until it ends.
    std::mem::forget((shop, ready));
    if config.device {
        tell_control(&config, &paths, &machine);
    }
    machine.tell_ptys();
    record.run = machine.run.path().to_owned();
    record.console = machine.run.console();
    record.trees = paths.trees();
    record.cwd = config.cwd();
    record.env = config.system.environment();
    Ok(machine)
}

/// Takes commands for a machine.
fn serve(
    args: &UpArgs,
    machine: &mut Machine,
    taken: &Taken,
    record: &mut Record,
    starter: &Starter,
) -> Result<()> {
    let exec = machine
        .exec
        .take()
        .context("the machine takes no commands")?;
    let listener = UnixListener::bind(registry::socket(machine.run.path()))
        .context("cannot make the machine's socket")?;
    let (sender, changes) = std::sync::mpsc::channel();
    let wake = machine.events.sender();
    let hub = Hub::start(
        exec,
        listener,
        Box::new(move |change| {
            let _ = sender.send(change);
            let _ = wake.send(Event::Drained);
        }),
    )?;
    record.used = registry::now();
    record.state = State::Running;
    taken.write(record)?;
    starter.let_go()?;
    loop {
        for change in changes.try_iter() {
            match change {
                Change::Clients(count) => {
                    record.commands = count;
                    record.used = registry::now();
                    // Others see older figures; the next change may be written again.
                    let _ = taken.write(record);
                }
                Change::Nonsense(err) => {
                    return Err(
                        machine.failure(&format!("the guest's agent makes no sense: {err}"))
                    );
                }
            }
        }
        let left = hub
            .idle_since()
            .map(|since| args.idle.saturating_sub(since.elapsed()));
        if left == Some(Duration::ZERO) {
            return Ok(());
        }
        match machine.events.next(left.unwrap_or(LONG))? {
            Some(Event::Cancelled) => return Ok(()),
            Some(event) => machine.unless_over(&event)?,
            None => {}
        }
    }
}

/// Who waits for the machine: `up`, at the other end of standard output.
struct Starter {
    told: Arc<AtomicBool>,
}

/// Ends this process when `up` goes before the machine is ready.
fn watch_starter() -> Result<Starter> {
    let stdout = rustix::stdio::stdout()
        .try_clone_to_owned()
        .context("cannot watch standard output")?;
    let told = Arc::new(AtomicBool::new(false));
    let is_told = told.clone();
    thread::spawn(move || {
        // Of a pipe to which nothing is to be written, only the end of its reader is told.
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        if !is_told.load(Ordering::SeqCst) {
            cancel::ask();
        }
    });
    Ok(Starter { told })
}

impl Starter {
    /// Whether it has not been told yet.
    fn waits(&self) -> bool {
        !self.told.load(Ordering::SeqCst)
    }

    /// Tells that the machine is ready, and lets go of the user's streams and folder.
    fn let_go(&self) -> Result<()> {
        self.told.store(true, Ordering::SeqCst);
        Output::Stdout
            .write(READY)
            .context("cannot tell that the machine is up")?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context("cannot open /dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        std::env::set_current_dir("/").context("cannot leave the folder")
    }
}
