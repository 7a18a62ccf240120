// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system calls that serving takes; any other one ends the process.
//!
//! Two filters, of which the stricter answer counts. One lists what is allowed. The other makes a
//! few calls that the C library and Rust's runtime try by themselves, and can do without, look as
//! if the kernel did not have them. No call here opens a file (but by a name that [`super::landlock`]
//! confines), starts a program, reaches another
//! process or the network, or makes memory executable.

use std::collections::BTreeMap;

use libc::c_int;
use nix::unistd::getpid;
use seccompiler::BackendError;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;

use super::Landlock;
use super::Needs;
use super::Sandbox;

/// Allowed with any argument.
const ALLOWED: &[i64] = &[
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_dup,
    libc::SYS_close,
    // Sockets that are there; new ones are below.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Time, where the kernel does not show it in the process's own memory.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    // Memory; `mmap` and `mprotect` are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // Threads and their ends; how they start is below.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The socket's file: whether it still is ours, and its removal.
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_unlinkat,
];

/// The same under the names that only older architectures have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[i64] = &[];

/// Answered with ENOSYS.
///
/// - The C library starts threads by `clone3` and, where there is none, by `clone`, whose arguments
///   a filter can see.
/// - Its allocator looks into /proc when a heap shrinks, and takes what it knows if it cannot.
const ABSENT: &[i64] = &[libc::SYS_clone3, libc::SYS_openat];
#[cfg(target_arch = "x86_64")]
const ABSENT_OLD: &[i64] = &[libc::SYS_open];
#[cfg(not(target_arch = "x86_64"))]
const ABSENT_OLD: &[i64] = &[];

/// Whether two descriptors stand for one open file.
const F_DUPFD_QUERY: c_int = 1027;

const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Puts all threads of this process under the filters, and those to come.
pub fn install(
    needs: &Needs,
    sandbox: Sandbox,
    landlock: Landlock,
) -> Result<(), seccompiler::Error> {
    // A filter cannot see which file is opened: where nothing else looks at that, none is.
    let opens = !needs.reopened.is_empty() && landlock.confines_opening();
    let otherwise = match sandbox {
        Sandbox::Log => SeccompAction::Log,
        Sandbox::Kill | Sandbox::None => SeccompAction::KillProcess,
    };
    // In this order: the second one does not allow to install another.
    seccompiler::apply_filter_all_threads(&absent(opens)?)?;
    seccompiler::apply_filter_all_threads(&allowed(needs, otherwise)?)
}

fn absent(opens: bool) -> Result<BpfProgram, BackendError> {
    let rules = [ABSENT, ABSENT_OLD].concat();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        rules.into_iter().map(|call| (call, Vec::new())).collect();
    if opens {
        // What is opened anew is opened for writing; there is nothing to be read.
        rules.insert(
            libc::SYS_openat,
            vec![
                masked(2, libc::O_ACCMODE, libc::O_RDONLY)?,
                masked(2, libc::O_ACCMODE, libc::O_RDWR)?,
            ],
        );
    }
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

fn allowed(needs: &Needs, otherwise: SeccompAction) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [ALLOWED, ALLOWED_OLD, ABSENT, ABSENT_OLD]
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    rules.extend(restricted()?);
    let mut ioctls = vec![libc::FIONBIO, libc::FIONREAD];
    if needs.terminals {
        ioctls.extend([libc::TCGETS, libc::TCSETS, libc::TCGETS2, libc::TCSETS2]);
    }
    let ioctls: Vec<_> = ioctls.into_iter().map(request).collect();
    rules.insert(libc::SYS_ioctl, one_of(1, &ioctls)?);
    let unix = (!needs.connected.is_empty()).then_some(libc::AF_UNIX);
    let tcp = (!needs.tcp_ports.is_empty()).then_some([libc::AF_INET, libc::AF_INET6]);
    let families = unix.into_iter().chain(tcp.into_iter().flatten());
    let sockets: Vec<_> = families.map(stream_of).collect::<Result<_, _>>()?;
    if !sockets.is_empty() {
        rules.insert(libc::SYS_socket, sockets);
        rules.insert(libc::SYS_connect, Vec::new());
    }
    SeccompFilter::new(
        rules,
        otherwise,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// Allowed with some arguments.
fn restricted() -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    let this_process = getpid().as_raw();
    Ok(vec![
        (libc::SYS_getsockopt, one_of(1, &[libc::SOL_SOCKET])?),
        (
            libc::SYS_setsockopt,
            vec![
                option(libc::SOL_SOCKET, libc::SO_SNDBUF)?,
                option(libc::SOL_SOCKET, libc::SO_KEEPALIVE)?,
                option(libc::IPPROTO_TCP, libc::TCP_NODELAY)?,
                option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE)?,
                option(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL)?,
                option(libc::IPPROTO_TCP, libc::TCP_KEEPCNT)?,
            ],
        ),
        (libc::SYS_mmap, without(2, libc::PROT_EXEC)?),
        (libc::SYS_mprotect, without(2, libc::PROT_EXEC)?),
        // A thread of this process, in this process's namespaces.
        (
            libc::SYS_clone,
            vec![masked(
                0,
                libc::CLONE_THREAD | NAMESPACES,
                libc::CLONE_THREAD,
            )?],
        ),
        // Names of threads, and of memory in /proc/PID/maps.
        (
            libc::SYS_prctl,
            one_of(0, &[libc::PR_SET_NAME, libc::PR_SET_VMA])?,
        ),
        // abort()
        (libc::SYS_tgkill, one_of(0, &[this_process])?),
        // Not F_SETOWN, which sends signals to others.
        (
            libc::SYS_fcntl,
            one_of(
                1,
                &[
                    libc::F_DUPFD_CLOEXEC,
                    libc::F_GETFD,
                    libc::F_SETFD,
                    libc::F_GETFL,
                    libc::F_SETFL,
                    F_DUPFD_QUERY,
                ],
            )?,
        ),
    ])
}

/// A new stream socket of a family.
fn stream_of(family: c_int) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![
        argument(0, -1, family)?,
        argument(1, 0xf, libc::SOCK_STREAM)?,
    ])
}

/// An option of a socket.
fn option(level: c_int, name: c_int) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![argument(1, -1, level)?, argument(2, -1, name)?])
}

/// An ioctl's number as the kernel looks at it: 32 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel does the same, and the filter compares no more"
)]
fn request(number: libc::Ioctl) -> c_int {
    number as c_int
}

/// A rule for each value that the argument at `index` may have.
fn one_of(index: u8, values: &[c_int]) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .iter()
        .map(|value| masked(index, -1, *value))
        .collect()
}

/// The argument at `index` has no bit of `bits`.
fn without(index: u8, bits: c_int) -> Result<Vec<SeccompRule>, BackendError> {
    Ok(vec![masked(index, bits, 0)?])
}

/// Nothing but what [`argument`] says.
fn masked(index: u8, mask: c_int, value: c_int) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![argument(index, mask, value)?])
}

/// The argument at `index`, seen through `mask`, is `value`. All of them are of type `int`, or
/// the kernel cuts them to 32 bits.
fn argument(index: u8, mask: c_int, value: c_int) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(bits(mask)),
        bits(value),
    )
}

fn bits(value: c_int) -> u64 {
    value.cast_unsigned().into()
}
