// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! 32-bit programs of x86: every call of the driver through the kernel's compat entries, and a whole program of
//! 32 bits. On other processors the tests say that they are skipped.

use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;

use anyhow::Result;
use globalfifo_guest_tests::compat::{self, Low, call, number};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH};
use globalfifo_guest_tests::harness::{self, Skip, Test};
use globalfifo_guest_tests::signals::POLL_IN;
use globalfifo_guest_tests::{check, check_eq, signals};
use nix::errno::Errno;
use nix::libc;

const TESTS: &[Test] = &[
    ("read_write_fsync_and_poll_of_a_32_bit_program", calls),
    ("readv_and_writev_of_a_32_bit_program", vectors),
    ("ioctls_of_a_32_bit_program", ioctls),
    (
        "io_submit_of_a_32_bit_program_reads_writes_and_polls",
        requests,
    ),
    ("io_cancel_of_a_32_bit_program", cancel),
    (
        "siginfo_of_a_32_bit_program_has_band_and_descriptor",
        siginfo,
    ),
    ("a_program_of_32_bits_runs_to_its_end", program),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// What a test works with: memory below 4 GiB, and a descriptor.
struct Stage {
    low: Low,
    fd: u32,
    /// The same FIFO as 64-bit programs see it.
    fifo: Fifo,
}

/// Places in the memory.
const PATHNAME: usize = 0;
const BUFFER: usize = 0x1000;
const STRUCTURES: usize = 0x4000;
const LIST: usize = 0x5000;
const EVENTS: usize = 0x6000;
const LENGTH: usize = 0x8000;

const O_RDWR: u32 = 2;

impl Stage {
    fn new() -> Result<Self> {
        if !compat::is_there()? {
            return Err(Skip(
                "needs a kernel that runs 32-bit programs of x86 (CONFIG_IA32_EMULATION)",
            )
            .into());
        }
        let fifo = Fifo::open_empty(libc::O_NONBLOCK)?;
        let low = Low::new(LENGTH)?;
        let path = low.put(PATHNAME, format!("{PATH}\0").as_bytes())?;
        let fd = Self::checked(number::OPEN, [path, O_RDWR, 0, 0, 0])?;
        Ok(Self { low, fd, fifo })
    }

    fn checked(number: u32, arguments: [u32; 5]) -> Result<u32, Errno> {
        // SAFETY: Addresses among the arguments are those of the stage's memory, which is accessed volatile.
        unsafe { call(number, arguments) }
    }

    /// A call of the descriptor.
    fn on(&self, number: u32, arguments: [u32; 2]) -> Result<u32, Errno> {
        let [first, second] = arguments;
        Self::checked(number, [self.fd, first, second, 0, 0])
    }

    fn buffer(&self) -> Result<u32> {
        self.low.at(BUFFER)
    }

    fn events(&self) -> Result<u32> {
        let entry = self.low.put_words(STRUCTURES, &[self.fd, 0x5])?;
        Self::checked(number::POLL, [entry, 1, 0, 0, 0])?;
        Ok(self.low.word(STRUCTURES + 4) >> 16)
    }
}

fn calls() -> Result<()> {
    let stage = Stage::new()?;
    check_eq!(stage.events()?, 0x4);
    let from = stage.low.put(BUFFER, b"thirty-two")?;
    check_eq!(stage.on(number::WRITE, [from, 10]), Ok(10));
    check_eq!(stage.on(number::FSYNC, [0, 0]), Ok(0));
    stage.fifo.wait_level(10)?;
    check_eq!(stage.events()?, 0x5);
    check_eq!(stage.on(number::READ, [from + 100, 200]), Ok(10));
    check_eq!(
        stage.low.memory.get(BUFFER + 100, 10),
        b"thirty-two".to_vec()
    );
    check_eq!(stage.on(number::READ, [0, 0]), Ok(0));
    stage.fifo.write_all(b"x")?;
    stage.fifo.wait_level(1)?;
    check_eq!(stage.on(number::READ, [0x10, 1]), Err(Errno::EFAULT));
    check_eq!(stage.on(number::READ, [from, 1]), Ok(1));
    check_eq!(stage.on(number::CLOSE, [0, 0]), Ok(0));
    Ok(())
}

fn vectors() -> Result<()> {
    let stage = Stage::new()?;
    let from = stage.low.put(BUFFER, b"one two three")?;
    let vectors = [from, 4, from + 4, 0, from + 4, 9];
    let vectors = stage.low.put_words(STRUCTURES, &vectors)?;
    check_eq!(stage.on(number::WRITEV, [vectors, 3]), Ok(13));
    stage.fifo.wait_level(13)?;
    let vectors = [from + 1000, 1, from + 1500, 100];
    let vectors = stage.low.put_words(STRUCTURES, &vectors)?;
    check_eq!(stage.on(number::READV, [vectors, 2]), Ok(13));
    check_eq!(stage.low.memory.get(BUFFER + 1000, 1), b"o".to_vec());
    check_eq!(
        stage.low.memory.get(BUFFER + 1500, 12),
        b"ne two three".to_vec()
    );
    Ok(())
}

fn ioctls() -> Result<()> {
    const FIFO_CLEAR: u32 = 0x1;
    const ALIAS: u32 = 0xF101;
    const FIONREAD: u32 = 0x541B;
    let stage = Stage::new()?;
    let level = stage.buffer()?;
    stage.low.put_words(BUFFER, &[77, 88])?;
    for clear in [FIFO_CLEAR, ALIAS] {
        stage.fifo.write_all(b"five!")?;
        stage.fifo.wait_level(5)?;
        check_eq!(stage.on(number::IOCTL, [FIONREAD, level]), Ok(0));
        // An int, and nothing behind it.
        check_eq!(
            (stage.low.word(BUFFER), stage.low.word(BUFFER + 4)),
            (5, 88)
        );
        check_eq!(stage.on(number::IOCTL, [clear, 0]), Ok(0));
        check_eq!(stage.on(number::IOCTL, [FIONREAD, level]), Ok(0));
        check_eq!(stage.low.word(BUFFER), 0);
    }
    check_eq!(stage.on(number::IOCTL, [0x4242, 0]), Err(Errno::ENOTTY));
    check_eq!(
        stage.on(number::IOCTL, [FIONREAD, 0x10]),
        Err(Errno::EFAULT)
    );
    Ok(())
}

/// `IOCB_CMD_*`.
const PREAD: u32 = 0;
const PWRITE: u32 = 1;
const POLL: u32 = 5;
const PREADV: u32 = 7;

/// An AIO context of a 32-bit program.
struct Requests<'a> {
    stage: &'a Stage,
    id: u32,
}

impl<'a> Requests<'a> {
    fn new(stage: &'a Stage) -> Result<Self> {
        let id = stage.low.put_words(LIST, &[0])?;
        Stage::checked(number::IO_SETUP, [8, id, 0, 0, 0])?;
        let id = stage.low.word(LIST);
        Ok(Self { stage, id })
    }

    /// Submits request `slot`.
    fn submit(&self, slot: usize, opcode: u32, address: u32, length: u32) -> Result<u32> {
        let data = u32::try_from(slot)?;
        // struct iocb: the same for both kinds of programs.
        let words = [
            data,
            0,
            0,
            0,
            opcode,
            self.stage.fd,
            address,
            0,
            length,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        let request = self.stage.low.put_words(STRUCTURES + 64 * slot, &words)?;
        let list = self.stage.low.put_words(LIST, &[request])?;
        check_eq!(
            Stage::checked(number::IO_SUBMIT, [self.id, 1, list, 0, 0]),
            Ok(1)
        );
        Ok(request)
    }

    /// The next event: the request's slot and its result.
    fn event(&self) -> Result<(u32, i32)> {
        let limit = self.stage.low.put_words(LIST, &[10, 0])?;
        let to = self.stage.low.at(EVENTS)?;
        let got = Stage::checked(number::IO_GETEVENTS, [self.id, 1, 1, to, limit])?;
        check_eq!(got, 1);
        let low = &self.stage.low;
        Ok((low.word(EVENTS), low.word(EVENTS + 16).cast_signed()))
    }
}

impl Drop for Requests<'_> {
    fn drop(&mut self) {
        let _ = Stage::checked(number::IO_DESTROY, [self.id, 0, 0, 0, 0]);
    }
}

fn requests() -> Result<()> {
    let stage = Stage::new()?;
    let requests = Requests::new(&stage)?;
    let buffer = stage.buffer()?;
    requests.submit(0, PREAD, buffer, 100)?;
    let vectors = stage
        .low
        .put_words(LIST + 0x100, &[buffer + 200, 2, buffer + 300, 50])?;
    requests.submit(1, PREADV, vectors, 2)?;
    stage.fifo.write_all(b"waited")?;
    check_eq!(requests.event()?, (0, 6));
    check_eq!(stage.low.memory.get(BUFFER, 6), b"waited".to_vec());
    stage.fifo.write_all(b"vector")?;
    check_eq!(requests.event()?, (1, 6));
    check_eq!(stage.low.memory.get(BUFFER + 200, 2), b"ve".to_vec());
    check_eq!(stage.low.memory.get(BUFFER + 300, 4), b"ctor".to_vec());
    requests.submit(2, POLL, 1, 0)?;
    let from = stage.low.put(BUFFER, &[7; CAPACITY])?;
    requests.submit(3, PWRITE, from, u32::try_from(CAPACITY)?)?;
    let mut events = [requests.event()?, requests.event()?];
    events.sort_unstable();
    check_eq!(events.map(|(slot, _)| slot), [2, 3]);
    check!(events.contains(&(3, 4096)));
    // A write that waits for space.
    requests.submit(4, PWRITE, from, 10)?;
    stage.fifo.wait_level(CAPACITY)?;
    check_eq!(stage.fifo.read(20)?, vec![7; 20]);
    check_eq!(requests.event()?, (4, 10));
    Ok(())
}

fn cancel() -> Result<()> {
    let stage = Stage::new()?;
    let requests = Requests::new(&stage)?;
    let request = requests.submit(0, PREAD, stage.buffer()?, 100)?;
    let event = stage.low.at(EVENTS)?;
    let cancelled = Stage::checked(number::IO_CANCEL, [requests.id, request, event, 0, 0]);
    check_eq!(cancelled, Err(Errno::EINPROGRESS));
    check_eq!(requests.event()?, (0, -libc::ECANCELED));
    stage.fifo.write_all(b"kept")?;
    stage.fifo.wait_level(4)?;
    check_eq!(stage.fifo.drain()?, b"kept".to_vec());
    Ok(())
}

fn siginfo() -> Result<()> {
    let stage = Stage::new()?;
    let signal = libc::SIGRTMIN() + 8;
    signals::block(signal)?;
    stage.fifo.enable_signals(Some(signal))?;
    stage.fifo.write_all(b"x")?;
    // A set of 64 signals, and struct siginfo of 32-bit programs: number, errno, code, band, descriptor.
    let bit = 1_u64 << (signal - 1);
    let set = stage.low.put(STRUCTURES, &bit.to_le_bytes())?;
    let limit = stage.low.put_words(LIST, &[10, 0])?;
    let info = stage.low.at(EVENTS)?;
    let got = Stage::checked(number::RT_SIGTIMEDWAIT, [set, info, limit, 8, 0])?;
    check_eq!(got.cast_signed(), signal);
    let field = |index: usize| stage.low.word(EVENTS + 4 * index).cast_signed();
    check_eq!((field(0), field(2)), (signal, POLL_IN));
    check_eq!(field(3) & i32::from(libc::POLLIN), i32::from(libc::POLLIN));
    check_eq!(field(4), stage.fifo.fd());
    Ok(())
}

// A program of 32 bits, which ends with 0, or with the number of the step that failed.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata",
    ".globl globalfifo_program32",
    ".globl globalfifo_program32_end",
    ".code32",
    "globalfifo_program32:",
    "    call 2f",
    "    .asciz \"/dev/globalfifo0\"",
    "2:  pop ebp",
    // 1: open(path, O_RDWR)
    "    mov edi, 1",
    "    mov eax, 5",
    "    lea ebx, [ebp]",
    "    mov ecx, 2",
    "    xor edx, edx",
    "    int 0x80",
    "    test eax, eax",
    "    js 6f",
    "    mov esi, eax",
    // 2: write(fd, path, 5) is 5
    "    mov edi, 2",
    "    mov eax, 4",
    "    mov ebx, esi",
    "    lea ecx, [ebp]",
    "    mov edx, 5",
    "    int 0x80",
    "    cmp eax, 5",
    "    jne 6f",
    // 3: poll({fd, POLLIN}, 1, 10000) is 1
    "    mov edi, 3",
    "    push 1",
    "    push esi",
    "    mov eax, 168",
    "    mov ebx, esp",
    "    mov ecx, 1",
    "    mov edx, 10000",
    "    int 0x80",
    "    cmp eax, 1",
    "    jne 6f",
    // 4: read(fd, stack, 64) is 5, and the bytes are those
    "    mov edi, 4",
    "    sub esp, 64",
    "    mov eax, 3",
    "    mov ebx, esi",
    "    mov ecx, esp",
    "    mov edx, 64",
    "    int 0x80",
    "    cmp eax, 5",
    "    jne 6f",
    "    mov eax, [esp]",
    "    cmp eax, [ebp]",
    "    jne 6f",
    // 5: ioctl(fd, FIFO_CLEAR) is 0
    "    mov edi, 5",
    "    mov eax, 54",
    "    mov ebx, esi",
    "    mov ecx, 1",
    "    xor edx, edx",
    "    int 0x80",
    "    test eax, eax",
    "    jne 6f",
    "    xor edi, edi",
    // exit(step)
    "6:  mov eax, 1",
    "    mov ebx, edi",
    "    int 0x80",
    "globalfifo_program32_end:",
    ".code64",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static globalfifo_program32: u8;
    static globalfifo_program32_end: u8;
}

#[cfg(not(target_arch = "x86_64"))]
fn code() -> Vec<u8> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
fn code() -> Vec<u8> {
    let start = &raw const globalfifo_program32;
    let end = &raw const globalfifo_program32_end;
    let length = end.addr() - start.addr();
    (0..length)
        .map(|at| {
            // SAFETY: Between the two labels.
            let place = unsafe { start.add(at) };
            // SAFETY: Constant bytes of this program.
            unsafe { place.read() }
        })
        .collect()
}

/// An ELF file of 32 bits: its header, one segment, which is all of the file, and the code.
fn elf(code: &[u8]) -> Result<Vec<u8>> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let length = HEADERS + u32::try_from(code.len())?;
    let half = |low: u32, high: u32| low | high << 16;
    let words: [u32; 21] = [
        0x464C_457F,
        0x0001_0101,
        0,
        0,
        // EXEC, 386
        half(2, 3),
        1,
        BASE + HEADERS,
        52,
        0,
        0,
        half(52, 32),
        half(1, 0),
        0,
        // LOAD, from the beginning, readable and executable
        1,
        0,
        BASE,
        BASE,
        length,
        length,
        5,
        0x1000,
    ];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.extend(code);
    Ok(file)
}

fn program() -> Result<()> {
    drop(Stage::new()?);
    let path = "/root/program32";
    std::fs::write(path, elf(&code())?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    let status = std::process::Command::new(path).status()?;
    check_eq!(status.code(), Some(0));
    Ok(())
}
