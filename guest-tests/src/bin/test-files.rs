// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What kind of file a FIFO is: open flags, nodes made by hand, who holds the module; and whose signals it
//! may cause.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::child;
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Skip, Test, eventually, limit};
use globalfifo_guest_tests::signals::{self, POLL_IN};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::{self, O_APPEND, O_NONBLOCK};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use nix::unistd::{Pid, setpgid};

const TESTS: &[Test] = &[
    ("o_append_changes_nothing", append),
    ("rwf_append_changes_nothing", append_once),
    ("a_position_is_espipe", position),
    (
        "a_blocking_write_with_less_room_takes_what_fits",
        short_write,
    ),
    (
        "a_node_made_by_hand_with_the_drivers_major_is_the_same_fifo",
        node_by_hand,
    ),
    (
        "a_node_of_a_minor_without_a_fifo_is_enodev_or_enxio",
        node_of_none,
    ),
    (
        "each_open_file_holds_the_module_and_nothing_else_does",
        held,
    ),
    (
        "a_waiting_request_alone_does_not_hold_the_module",
        request_held,
    ),
    (
        "a_process_group_that_owns_the_file_is_signalled_as_a_whole",
        group_owner,
    ),
    (
        "a_process_group_owner_whose_members_end_meanwhile",
        group_owner_ends,
    ),
    (
        "a_landlocked_owner_outside_the_scope_gets_no_signal",
        landlock_outside,
    ),
    (
        "a_landlocked_process_signals_its_own_domain",
        landlock_inside,
    ),
];

fn main() -> ExitCode {
    let _ = system::load_module();
    harness::main(TESTS)
}

fn append() -> Result<()> {
    let fifo = Fifo::open_empty(O_APPEND)?;
    fifo.write_all(b"one")?;
    fifo.write_all(b"two")?;
    check_eq!(fifo.read_exact(6)?, b"onetwo".to_vec());
    // And set later.
    let plain = Fifo::open(0)?;
    plain.set_flags(O_APPEND, true)?;
    plain.write_all(b"three")?;
    check_eq!(plain.read_exact(5)?, b"three".to_vec());
    let context = Context::new(4)?;
    context.submit(&mut Iocb::write(&plain, b"four"))?;
    check_eq!(context.event()?.res, 4);
    check_eq!(plain.read_exact(4)?, b"four".to_vec());
    Ok(())
}

/// `pwritev2(2)` with the position and flags given.
fn write_at(fifo: &Fifo, bytes: &[u8], position: i64, flags: i32) -> Result<usize, Errno> {
    let vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: One valid vector.
    let done = unsafe { libc::pwritev2(fifo.fd(), &raw const vector, 1, position, flags) };
    Errno::result(done).map(isize::cast_unsigned)
}

fn append_once() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    check_eq!(write_at(&fifo, b"appended", -1, libc::RWF_APPEND), Ok(8));
    check_eq!(fifo.read_exact(8)?, b"appended".to_vec());
    Ok(())
}

fn position() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    check_eq!(write_at(&fifo, b"x", 5, 0), Err(Errno::ESPIPE));
    let mut room = [0; 1];
    check_eq!(
        nix::sys::uio::pread(&fifo, &mut room, 0),
        Err(Errno::ESPIPE)
    );
    let sought = nix::unistd::lseek(&fifo, 0, nix::unistd::Whence::SeekCur);
    check_eq!(sought, Err(Errno::ESPIPE));
    Ok(())
}

fn short_write() -> Result<()> {
    // A record as a pipe would never cut it.
    const RECORD: usize = 4096;
    let fifo = Fifo::open_empty(0)?;
    for room in [1, 100, RECORD - 1] {
        fifo.write_all(&vec![0; CAPACITY - room])?;
        let record = pattern(7, RECORD);
        check_eq!(fifo.write(&record), Ok(room));
        let all = fifo.read_exact(CAPACITY)?;
        check_eq!(all.get(CAPACITY - room..), record.get(..room));
    }
    Ok(())
}

/// A device node that is removed on drop.
struct Node(&'static str);

impl Node {
    fn make(path: &'static str, minor: u64) -> Result<Self> {
        let table = std::fs::read_to_string("/proc/devices")?;
        let line = table.lines().find(|line| line.ends_with(" globalfifo"));
        let number = line.and_then(|line| line.split_whitespace().next());
        let major = number
            .context("globalfifo is not in /proc/devices")?
            .parse()?;
        let _ = std::fs::remove_file(path);
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(path, SFlag::S_IFCHR, mode, makedev(major, minor)).context("mknod")?;
        Ok(Self(path))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

fn device_number(path: &str) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let number = std::fs::metadata(path)?.rdev();
    Ok((major(number), minor(number)))
}

fn node_by_hand() -> Result<()> {
    let (_, minor) = device_number(PATH)?;
    let node = Node::make("/root/by-hand", minor)?;
    check_eq!(device_number(node.0)?, device_number(PATH)?);
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let by_hand = Fifo::open_at(node.0, 0)?;
    by_hand.write_all(b"through the other node")?;
    fifo.wait_level(22)?;
    check_eq!(fifo.drain()?, b"through the other node".to_vec());
    fifo.write_all(b"and back")?;
    check_eq!(by_hand.read_exact(8)?, b"and back".to_vec());
    // It stays when the device goes, and is of use again when it is back.
    let device = system::device_name()?;
    system::unbind(&device)?;
    let gone = Fifo::open_at(node.0, 0).err();
    system::bind(&device)?;
    system::wait_for_file(PATH, true)?;
    let error = gone.context("a node of a device that is gone was opened")?;
    let number = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::raw_os_error);
    check!(matches!(number, Some(libc::ENODEV | libc::ENXIO)));
    let again = Fifo::open_at(node.0, 0)?;
    again.write_all(b"again")?;
    check_eq!(again.read_exact(5)?, b"again".to_vec());
    Ok(())
}

fn node_of_none() -> Result<()> {
    for minor in [200, 255, 1 << 15] {
        let node = Node::make("/root/nothing", minor)?;
        let error = match Fifo::open_at(node.0, 0) {
            Ok(_) => bail!("minor {minor} has a FIFO"),
            Err(error) => error,
        };
        let number = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        check!(matches!(number, Some(libc::ENODEV | libc::ENXIO)));
    }
    Ok(())
}

/// How many hold the module.
fn holders() -> Result<i32> {
    let text = std::fs::read_to_string("/sys/module/globalfifo/refcnt")?;
    text.trim().parse().context("refcnt")
}

fn wait_holders(count: i32) -> Result<()> {
    eventually(&format!("{count} hold the module"), || {
        Ok(holders()? == count)
    })
}

fn held() -> Result<()> {
    wait_holders(0)?;
    let first = Fifo::open(0)?;
    // The file counts, and its node does.
    let one = holders()?;
    check!(one > 0);
    let second = Fifo::open_as(PATH, true, false, 0)?;
    check_eq!(holders()?, 2 * one);
    // Another descriptor of the same file, and whoever polls it, hold nothing more.
    let copy = nix::unistd::dup(&first)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&second, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
    second.enable_signals(None)?;
    check_eq!(holders()?, 2 * one);
    check!(system::run("rmmod", &["globalfifo"]).is_err());
    drop(first);
    check_eq!(holders()?, 2 * one);
    drop(copy);
    wait_holders(one)?;
    drop(second);
    wait_holders(0)
}

fn request_held() -> Result<()> {
    wait_holders(0)?;
    let context = Context::new(8)?;
    let mut room = [0; 8];
    let fifo = Fifo::open_empty(0)?;
    context.submit(&mut Iocb::read(&fifo, &mut room))?;
    drop(fifo);
    check_eq!(context.event()?.res, -i64::from(libc::ECANCELED));
    wait_holders(0)?;
    system::unload_module()?;
    system::load_module()?;
    system::wait_for_file(PATH, true)
}

/// `F_SETOWN`.
fn set_owner(fifo: &Fifo, owner: i32) -> Result<()> {
    // SAFETY: The command takes a number.
    let set = unsafe { libc::fcntl(fifo.fd(), libc::F_SETOWN, owner) };
    Errno::result(set).context("F_SETOWN")?;
    Ok(())
}

/// A real-time signal, blocked in this process and the children that it starts from here on.
fn blocked_signal() -> Result<i32> {
    let signal = libc::SIGRTMIN() + 7;
    signals::block(signal)?;
    Ok(signal)
}

/// A member of the group `leader` (0: of its own) that waits for `count` signals, and ends.
fn in_group(leader: i32, signal: i32, count: usize) -> Result<child::Child> {
    let member = child::start(move |line| {
        setpgid(Pid::from_raw(0), Pid::from_raw(leader))?;
        line.say()?;
        for _ in 0..count {
            let got = signals::take(signal, limit(SOON))?;
            check_eq!(got.map(|got| got.code), Some(POLL_IN));
        }
        Ok(())
    })?;
    member.line.hear()?;
    Ok(member)
}

fn group_owner() -> Result<()> {
    const COUNT: usize = 20;
    let signal = blocked_signal()?;
    let fifo = Fifo::open_empty(0)?;
    let leader = in_group(0, signal, COUNT)?;
    let group = leader.pid.as_raw();
    let members = [
        in_group(group, signal, COUNT)?,
        in_group(group, signal, COUNT)?,
    ];
    fifo.enable_signals(Some(signal))?;
    set_owner(&fifo, -group)?;
    for _ in 0..COUNT {
        fifo.write_all(b"x")?;
        fifo.read_exact(1)?;
    }
    leader.join()?;
    for member in members {
        member.join()?;
    }
    // Of another group.
    check_eq!(signals::take(signal, std::time::Duration::ZERO)?, None);
    Ok(())
}

fn group_owner_ends() -> Result<()> {
    let signal = blocked_signal()?;
    let fifo = Fifo::open_empty(0)?;
    fifo.enable_signals(Some(signal))?;
    for _ in 0..30 {
        let leader = in_group(0, signal, 1)?;
        let member = in_group(leader.pid.as_raw(), signal, 1)?;
        set_owner(&fifo, -leader.pid.as_raw())?;
        for _ in 0..4 {
            fifo.write_all(b"x")?;
            fifo.read_exact(1)?;
        }
        leader.join()?;
        member.join()?;
        // The group is empty by now, and still the owner.
        fifo.write_all(b"x")?;
        fifo.read_exact(1)?;
    }
    Ok(())
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    file_access: u64,
    network_access: u64,
    scoped: u64,
}

/// `landlock_create_ruleset(2)`, which the libc crate does not know.
const CREATE_RULESET: i64 = 444;

/// Enters a Landlock domain from which no signal gets out.
fn enter_domain() -> Result<()> {
    const RESTRICT_SELF: i64 = 446;
    const SCOPE_SIGNAL: u64 = 2;
    let ruleset = Ruleset {
        file_access: 0,
        network_access: 0,
        scoped: SCOPE_SIGNAL,
    };
    let size = size_of::<Ruleset>();
    // SAFETY: The structure is valid, and its size is right.
    let made = unsafe { libc::syscall(CREATE_RULESET, &raw const ruleset, size, 0_u32) };
    let fd = Errno::result(made).context("landlock_create_ruleset")?;
    // SAFETY: The command takes numbers.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    Errno::result(set).context("PR_SET_NO_NEW_PRIVS")?;
    // SAFETY: Takes numbers.
    let entered = unsafe { libc::syscall(RESTRICT_SELF, fd, 0_u32) };
    Errno::result(entered).context("landlock_restrict_self")?;
    Ok(())
}

/// Signals have a scope since version 6 of Landlock's interface.
fn needs_landlock() -> Result<()> {
    let none = std::ptr::null::<Ruleset>();
    // SAFETY: Asks for the version only.
    let version = unsafe { libc::syscall(CREATE_RULESET, none, 0_usize, 1_u32) };
    if version < 6 {
        return Err(Skip("needs Landlock with a scope for signals (Linux 6.12)").into());
    }
    Ok(())
}

fn landlock_outside() -> Result<()> {
    needs_landlock()?;
    let signal = blocked_signal()?;
    let fifo = Fifo::open_empty(0)?;
    let outside = i32::try_from(std::process::id())?;
    let confined = child::start(|line| {
        enter_domain()?;
        let own = Fifo::open(0)?;
        own.enable_signals(Some(signal))?;
        set_owner(&own, outside)?;
        line.say()?;
        line.hear()
    })?;
    confined.line.hear()?;
    // A control: the same by a file that this process asked with.
    fifo.enable_signals(Some(signal))?;
    fifo.write_all(b"x")?;
    let own = signals::take(signal, limit(SOON))?;
    check_eq!(
        own.map(|own| (own.code, own.fd)),
        Some((POLL_IN, fifo.fd()))
    );
    fifo.set_flags(libc::O_ASYNC, false)?;
    fifo.write_all(b"y")?;
    fifo.wait_level(2)?;
    let quiet = std::time::Duration::from_millis(300);
    check_eq!(signals::take(signal, quiet)?, None);
    confined.line.say()?;
    confined.join()
}

fn landlock_inside() -> Result<()> {
    needs_landlock()?;
    let signal = blocked_signal()?;
    let fifo = Fifo::open_empty(0)?;
    let confined = child::start(|line| {
        enter_domain()?;
        let own = Fifo::open(0)?;
        own.enable_signals(Some(signal))?;
        line.say()?;
        let got = signals::take(signal, limit(SOON))?;
        check_eq!(got.map(|got| got.code), Some(POLL_IN));
        // A child is in the domain of its parent.
        let heir = child::start(|heir| {
            heir.say()?;
            check!(signals::take(signal, limit(SOON))?.is_some());
            Ok(())
        })?;
        heir.line.hear()?;
        set_owner(&own, heir.pid.as_raw())?;
        line.say()?;
        heir.join()
    })?;
    for _ in 0..2 {
        confined.line.hear()?;
        fifo.write_all(b"x")?;
    }
    confined.join()
}
