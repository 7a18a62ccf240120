// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that changes under waiting asynchronous reads: advice, fork, files, huge pages.
//!
//! Each test has twelve reads of eight bytes waiting, each into a page of its own: more than have
//! their memory pinned, so that both kinds are met. Then the memory changes, and then data comes.

use std::fs::File;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::aio::{Context, Iocb, PREAD};
use globalfifo_guest_tests::fifo::{Fifo, pattern};
use globalfifo_guest_tests::harness::{self, Skip, Test};
use globalfifo_guest_tests::mapping::{Mapping, PAGE};
use globalfifo_guest_tests::{check, check_eq, child, system};
use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

const TESTS: &[Test] = &[
    (
        "madvise_dontneed_under_waiting_reads_loses_no_byte",
        dontneed,
    ),
    ("madvise_free_under_waiting_reads_loses_no_byte", free),
    ("madvise_pageout_under_waiting_reads_loses_no_byte", pageout),
    (
        "fork_under_waiting_reads_gives_the_bytes_to_the_parent_alone",
        forked,
    ),
    ("reads_into_a_shared_memfd_are_seen_through_the_file", memfd),
    (
        "a_memfd_punched_under_waiting_reads_loses_no_byte",
        memfd_punched,
    ),
    (
        "a_memfd_truncated_under_waiting_reads_is_efault_and_loses_no_byte",
        memfd_truncated,
    ),
    (
        "a_huge_page_split_under_waiting_reads_loses_no_byte",
        huge_split,
    ),
    (
        "small_pages_collapsed_under_waiting_reads_lose_no_byte",
        huge_collapsed,
    ),
    ("reads_into_hugetlb_memory_lose_no_byte", hugetlb),
];

/// Reads that wait, more than the driver pins memory for.
const READS: usize = 12;
const EACH: usize = 8;
const HUGE: usize = 2 << 20;
/// `madvise(2)`: make a huge page of these; the libc crate does not know it.
const MADV_COLLAPSE: i32 = 25;

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// The bytes of read `n`.
fn bytes(n: usize) -> Vec<u8> {
    pattern(n as u64 + 1, EACH)
}

/// Offset of the bytes of read `n`: one a page.
fn offset(n: usize) -> usize {
    n * PAGE + 100
}

/// Submits the reads into `memory`, from `start` on, lets `change` happen, sends the data one by one, and
/// gives the results. Data that nobody took is read back, and given too.
fn reads_under(
    memory: &Mapping,
    start: usize,
    change: impl FnOnce() -> Result<()>,
) -> Result<(Vec<i64>, Vec<u8>)> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(32)?;
    let mut reads: Vec<Iocb> = (0..READS)
        .map(|n| {
            let to = memory.address() + (start + offset(n)) as u64;
            Iocb::new(&fifo, PREAD, to, EACH).data(n as u64)
        })
        .collect();
    check_eq!(context.submit_all(&mut reads), Ok(READS));
    change()?;
    let mut results = Vec::new();
    for n in 0..READS {
        fifo.write_all(&bytes(n))?;
        let event = context.event()?;
        check_eq!(event.data, n as u64);
        results.push(event.res);
    }
    let left = Fifo::open(libc::O_NONBLOCK)?;
    nix::unistd::fsync(&left)?;
    let expected = results.iter().filter(|res| **res < 0).count() * EACH;
    left.wait_level(expected)?;
    Ok((results, left.drain()?))
}

/// As [`reads_under`], and each read has its bytes, where the memory is now.
fn all_arrive_under(
    memory: &Mapping,
    start: usize,
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (results, left) = reads_under(memory, start, change)?;
    check_eq!(results, vec![i64::try_from(EACH)?; READS]);
    check_eq!(left, Vec::<u8>::new());
    for n in 0..READS {
        check_eq!((n, memory.get(start + offset(n), EACH)), (n, bytes(n)));
    }
    Ok(())
}

fn advised(advice: i32) -> Result<()> {
    let memory = Mapping::private(READS * PAGE)?;
    memory.touch();
    all_arrive_under(&memory, 0, || Ok(memory.advise(0, READS * PAGE, advice)?))?;
    // A page that was never there.
    let memory = Mapping::private(READS * PAGE)?;
    all_arrive_under(&memory, 0, || Ok(memory.advise(0, READS * PAGE, advice)?))
}

fn dontneed() -> Result<()> {
    advised(libc::MADV_DONTNEED)
}

fn free() -> Result<()> {
    advised(libc::MADV_FREE)
}

fn pageout() -> Result<()> {
    advised(libc::MADV_PAGEOUT)
}

fn forked() -> Result<()> {
    let memory = Mapping::private(READS * PAGE)?;
    memory.touch();
    let mut heir = None;
    all_arrive_under(&memory, 0, || {
        heir = Some(child::start(|line| {
            line.say()?;
            line.hear()?;
            for n in 0..READS {
                check_eq!((n, memory.get(offset(n), EACH)), (n, vec![0; EACH]));
            }
            Ok(())
        })?);
        heir.as_ref().context("no child")?.line.hear()
    })?;
    let heir = heir.context("no child")?;
    heir.line.say()?;
    heir.join()
}

/// A file in memory, and its mapping.
fn shared_file() -> Result<(File, Mapping)> {
    let file = File::from(memfd_create(c"reads", MFdFlags::MFD_CLOEXEC)?);
    file.set_len((READS * PAGE) as u64)?;
    let memory = Mapping::shared(&file, READS * PAGE)?;
    memory.touch();
    Ok((file, memory))
}

fn memfd() -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let (file, memory) = shared_file()?;
    all_arrive_under(&memory, 0, || Ok(()))?;
    for n in 0..READS {
        let mut back = [0; EACH];
        file.read_exact_at(&mut back, offset(n) as u64)?;
        check_eq!((n, back.to_vec()), (n, bytes(n)));
    }
    Ok(())
}

fn memfd_punched() -> Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let (file, memory) = shared_file()?;
    all_arrive_under(&memory, 0, || {
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let length = i64::try_from(READS * PAGE)?;
        Ok(fallocate(&file, punch, 0, length)?)
    })
}

fn memfd_truncated() -> Result<()> {
    let (file, memory) = shared_file()?;
    let (results, left) = reads_under(&memory, 0, || Ok(file.set_len(0)?))?;
    check_eq!(results, vec![-i64::from(libc::EFAULT); READS]);
    check_eq!(left, (0..READS).flat_map(bytes).collect::<Vec<u8>>());
    Ok(())
}

/// Whether this kernel has transparent huge pages.
fn needs_huge_pages() -> Result<()> {
    if !std::fs::exists("/sys/kernel/mm/transparent_hugepage/enabled")? {
        return Err(Skip("needs transparent huge pages (CONFIG_TRANSPARENT_HUGEPAGE)").into());
    }
    Ok(())
}

/// Kilobytes of this process that are in huge pages.
fn huge_kilobytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find(|line| line.starts_with("AnonHugePages:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.context("no AnonHugePages")?.parse().context("kB")
}

fn huge_split() -> Result<()> {
    needs_huge_pages()?;
    let memory = Mapping::private(2 * HUGE)?;
    let start = memory.first_multiple(HUGE);
    memory.advise(start, HUGE, libc::MADV_HUGEPAGE)?;
    memory.put(start, &[0xff]);
    check!(huge_kilobytes()? >= 2048);
    // Throwing away a part of it is what splits it; of the page that the last read is for, too.
    all_arrive_under(&memory, start, || {
        memory.advise(start + (READS - 1) * PAGE, HUGE / 2, libc::MADV_DONTNEED)?;
        Ok(())
    })
}

fn huge_collapsed() -> Result<()> {
    needs_huge_pages()?;
    let memory = Mapping::private(2 * HUGE)?;
    let start = memory.first_multiple(HUGE);
    memory.advise(start, HUGE, libc::MADV_NOHUGEPAGE)?;
    for page in (0..HUGE).step_by(PAGE) {
        memory.put(start + page, &[0xff]);
    }
    memory.advise(start, HUGE, libc::MADV_HUGEPAGE)?;
    all_arrive_under(&memory, start, || {
        // Pages that are pinned may refuse, which is as good: no byte may be lost either way.
        match memory.advise(start, HUGE, MADV_COLLAPSE) {
            Ok(()) | Err(Errno::EAGAIN | Errno::EBUSY | Errno::EINVAL) => Ok(()),
            Err(error) => Err(error).context("MADV_COLLAPSE"),
        }
    })
}

fn hugetlb() -> Result<()> {
    let knob = "/proc/sys/vm/nr_hugepages";
    if !std::fs::exists(knob)? {
        return Err(Skip("needs huge pages of hugetlbfs (CONFIG_HUGETLBFS)").into());
    }
    let before = std::fs::read_to_string(knob)?;
    system::write(knob, "2")?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let result = Mapping::with(HUGE, flags, None)
        .context("mmap of a huge page")
        .and_then(|memory| {
            all_arrive_under(&memory, 0, || Ok(()))?;
            // Given back while reads wait for it, and made anew.
            all_arrive_under(&memory, 0, || {
                Ok(memory.advise(0, HUGE, libc::MADV_DONTNEED)?)
            })
        });
    system::write(knob, before.trim())?;
    result
}
