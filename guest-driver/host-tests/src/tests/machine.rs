// SPDX-License-Identifier: GPL-2.0-only

//! One FIFO of the driver's, and a device for it in memory that follows the specification and checks that the driver
//! does. Interrupts, work, timers and events come when a test says so.
//!
//! Must not know what a test wants to show.

use crate::device::Device as Name;
use crate::driver::buffers::{Rx, Tx};
use crate::driver::control::Control;
use crate::driver::fifo::file::FifoFile;
use crate::driver::fifo::life::FifoQueues;
use crate::driver::fifo::state::State;
use crate::driver::fifo::{Fifo, Origin};
use crate::driver::watchdog::Watchdog;
use crate::driver::work::Queues;
use crate::driver::HOOKS;
use crate::fs::File;
use crate::iov::{IovIterDest, IovIterSource, Place, UserBuffer};
use crate::kapi::fasync::FasyncList;
use crate::kapi::file_operations::{FileOperations, Mode};
use crate::kapi::kiocb::{Cancel, How, Kiocb, Request};
use crate::kapi::open_file::ProcessId;
use crate::kapi::poll::PollTable;
use crate::kapi::source::Source;
use crate::kapi::virtio::Ring;
use crate::kapi::wait::Events;
use crate::prelude::*;
use crate::sync::Arc;
use crate::virtio_fifo::{self as wire, CtrlRequest, RxHeader, TxHeader};
use crate::world::{self, Ask};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A read or write that must not wait.
pub(super) const NOWAIT: How = How {
    must_not_wait: true,
    is_synchronous: false,
    can_be_deferred: false,
};
/// One that may.
pub(super) const WAIT: How = How {
    must_not_wait: false,
    ..NOWAIT
};
/// One of native AIO.
pub(super) const AIO: How = How {
    can_be_deferred: true,
    ..WAIT
};

/// The byte at a position of the rx stream of a device that is no loop.
pub(super) fn byte_at(position: u64) -> u8 {
    (position % 251) as u8
}

/// A device with one FIFO.
pub(super) struct Device {
    pub(super) flags: u32,
    capacity: u64,
    pub(super) rx: Ring<Rx>,
    pub(super) tx: Ring<Tx>,
    /// Bytes from `rx_floor` to `rx_end`.
    bytes: VecDeque<u8>,
    pub(super) rx_floor: u64,
    pub(super) rx_sent: u64,
    pub(super) rx_end: u64,
    pub(super) tx_accepted: u64,
    /// Bytes of the tx stream that the host has read, or that were discarded.
    pub(super) tx_gone: u64,
    /// All accepted bytes that no clear discarded before.
    pub(super) accepted: Vec<u8>,
    /// Answers requests.
    pub(super) answers: bool,
    /// What it answers in place of the truth.
    pub(super) lie: Option<wire::State>,
}

impl Device {
    fn new(capacity: u32, flags: u32, descriptors: (u32, u32)) -> Self {
        Self {
            flags,
            capacity: capacity.into(),
            rx: Ring::new(descriptors.0),
            tx: Ring::new(descriptors.1),
            bytes: VecDeque::new(),
            rx_floor: 0,
            rx_sent: 0,
            rx_end: 0,
            tx_accepted: 0,
            tx_gone: 0,
            accepted: Vec::new(),
            answers: true,
            lie: None,
        }
    }

    fn is_loop(&self) -> bool {
        self.flags & wire::STATE_LOOPBACK != 0
    }

    fn limit(&self) -> u64 {
        let gone = if self.is_loop() {
            self.rx_floor
        } else {
            self.tx_gone
        };
        gone + self.capacity
    }

    pub(super) fn state(&self) -> wire::State {
        wire::State {
            fifo: 0,
            flags: self.flags,
            capacity: self.capacity as u32,
            rx_floor: self.rx_floor,
            rx_end: self.rx_end,
            tx_accepted: self.tx_accepted,
            tx_limit: self.limit(),
        }
    }

    /// The host writes so many bytes, or as many as fit.
    pub(super) fn host_write(&mut self, n: u64) -> u64 {
        let is_there = self.flags & (wire::STATE_HANGUP | wire::STATE_RX_END) == 0;
        let n = if is_there {
            n.min(self.capacity - (self.rx_end - self.rx_floor))
        } else {
            0
        };
        for _ in 0..n {
            self.bytes.push_back(byte_at(self.rx_end));
            self.rx_end += 1;
        }
        n
    }

    /// The host reads so many bytes, or as many as there are.
    pub(super) fn host_read(&mut self, n: u64) {
        self.tx_gone += n.min(self.tx_accepted - self.tx_gone);
    }

    /// The host clears the FIFO.
    pub(super) fn host_clear(&mut self) {
        self.bytes.clear();
        (self.rx_floor, self.rx_sent) = (self.rx_end, self.rx_end);
        self.tx_gone = self.tx_accepted;
    }

    /// Sends one message of at most `most` bytes; whether there was something to send and a buffer for it.
    pub(super) fn send(&mut self, most: usize) -> bool {
        let left = (self.rx_end - self.rx_sent) as usize;
        if left == 0 {
            return false;
        }
        let Some(mut packet) = self.rx.take() else {
            return false;
        };
        let room = packet.device_writes();
        let n = left.min(most).min(room.len() - RxHeader::LEN);
        let header = RxHeader {
            offset: self.rx_sent,
            rx_floor: self.rx_floor,
            tx_limit: if self.is_loop() { 0 } else { self.limit() },
        };
        room[..RxHeader::LEN].copy_from_slice(&header.to_bytes());
        let from = (self.rx_sent - self.rx_floor) as usize;
        for (to, byte) in room[RxHeader::LEN..][..n]
            .iter_mut()
            .zip(self.bytes.iter().skip(from))
        {
            *to = *byte;
        }
        self.rx_sent += n as u64;
        self.rx.give(packet, RxHeader::LEN + n);
        true
    }

    /// Takes one message; whether there was one. Checks it against the specification.
    pub(super) fn accept(&mut self) -> bool {
        let Some(packet) = self.tx.take() else {
            return false;
        };
        let bytes = packet.device_reads();
        let header = TxHeader::from_bytes(*bytes.first_chunk().expect("a header"));
        let payload = &bytes[TxHeader::LEN..];
        assert_eq!(
            header.offset, self.tx_accepted,
            "a message that does not follow the one before"
        );
        assert!(
            header.rx_consumed <= self.rx_sent,
            "read what was never sent"
        );
        self.forget_below(header.rx_consumed);
        self.tx_accepted += payload.len() as u64;
        assert!(
            self.tx_accepted <= self.limit(),
            "more bytes than there is room for"
        );
        self.accepted.extend_from_slice(payload);
        if self.is_loop() {
            self.bytes.extend(payload);
            self.rx_end = self.tx_accepted;
        }
        self.tx.give(packet, 0);
        true
    }

    fn forget_below(&mut self, position: u64) {
        while self.rx_floor < position {
            self.bytes.pop_front();
            self.rx_floor += 1;
        }
    }

    /// Forgets what is in the queues, as a reset does.
    pub(super) fn reset(&mut self, descriptors: (u32, u32)) {
        self.rx = Ring::new(descriptors.0);
        self.tx = Ring::new(descriptors.1);
        self.rx_sent = self.rx_floor;
    }
}

/// The control queue of a device.
struct Shared(Rc<RefCell<Device>>);

impl Ask for Shared {
    fn ask(&mut self, request: &[u8; 16]) -> Option<[u8; 48]> {
        let mut device = self.0.borrow_mut();
        if !device.answers {
            return None;
        }
        let request = CtrlRequest::from_bytes(*request);
        if request.kind == wire::CTRL_CLEAR {
            while device.tx_accepted < request.tx_sent {
                assert!(device.accept(), "a clear of bytes that were never posted");
            }
            device.host_clear();
        }
        Some(device.lie.unwrap_or(device.state()).to_bytes())
    }
}

/// A FIFO, a file of it, and its device.
pub(super) struct Machine {
    pub(super) fifo: Arc<Fifo>,
    pub(super) file: Arc<FifoFile>,
    pub(super) signals: Arc<FasyncList>,
    pub(super) device: Rc<RefCell<Device>>,
    descriptors: (u32, u32),
}

impl Machine {
    /// With a FIFO of `capacity` bytes each way, and a tx queue of so many descriptors.
    pub(super) fn new(capacity: u32, flags: u32, descriptors: u32) -> Self {
        world::reset();
        let descriptors = (256, descriptors);
        let device = Rc::new(RefCell::new(Device::new(capacity, flags, descriptors)));
        world::set_device(Shared(device.clone()));
        let control = Arc::new(Control::new(), GFP_KERNEL).unwrap();
        let watchdog = Arc::new(Watchdog::new(), GFP_KERNEL).unwrap();
        let queues = Queues::new().unwrap();
        let fifo = Fifo::new(0, &Name, control, queues, watchdog, HOOKS).unwrap();
        let queues = Self::queues_of(&device);
        fifo.attach(queues).unwrap();
        let (file, signals) = FifoFile::open(fifo.clone(), Mode::READ_WRITE).unwrap();
        Self {
            fifo,
            file,
            signals,
            device,
            descriptors,
        }
    }

    fn queues_of(device: &RefCell<Device>) -> FifoQueues {
        let device = device.borrow();
        FifoQueues {
            rx: device.rx.queue(),
            tx: device.tx.queue(),
        }
    }

    /// Another open file.
    pub(super) fn open(&self) -> Arc<FifoFile> {
        FifoFile::open(self.fifo.clone(), Mode::READ_WRITE)
            .unwrap()
            .0
    }

    /// Looks at the state.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.fifo.state.lock())
    }

    /// Delivers the interrupts that the device has raised; whether there were any.
    pub(super) fn interrupts(&self) -> bool {
        let (rx, tx) = {
            let device = self.device.borrow();
            (device.rx.take_interrupt(), device.tx.take_interrupt())
        };
        let fifo = self.fifo.as_arc_borrow();
        if rx {
            fifo.change(Origin::Interrupt, State::receive_unless_deferred);
        }
        if tx {
            fifo.change(Origin::Interrupt, State::pump_unless_deferred);
        }
        rx || tx
    }

    /// The device tells its state.
    pub(super) fn event(&self) {
        let told = self.device.borrow().state();
        self.fifo.as_arc_borrow().state_event(&told);
    }

    /// Delivers interrupts and runs work until there is nothing to do at this time.
    pub(super) fn settle(&self) {
        for _ in 0..10_000 {
            if !self.interrupts() && !world::run_one_work() {
                return;
            }
        }
        panic!("work without end");
    }

    /// Has the device do everything that it can, and everything follow from that, timers included.
    pub(super) fn quiesce(&self) {
        for _ in 0..10_000 {
            self.settle();
            let moved = {
                let mut device = self.device.borrow_mut();
                device.accept() | device.send(usize::MAX)
            };
            if moved {
                continue;
            }
            match world::next_timer() {
                Some(microseconds) => world::pass(microseconds),
                None => return,
            }
        }
        panic!("never quiet");
    }

    /// Submits or makes a read of so many bytes.
    pub(super) fn read(&self, how: How, n: usize) -> Call {
        Call::read(&self.file, how, UserBuffer::new(vec![0; n]))
    }

    /// Submits or makes a write of these bytes.
    pub(super) fn write(&self, how: How, bytes: Vec<u8>) -> Call {
        Call::write(&self.file, how, UserBuffer::new(bytes))
    }

    /// What poll(2) says.
    pub(super) fn poll(&self) -> Events {
        let file = File { may_write: true };
        let table = PollTable::for_events(Events::IN | Events::OUT | Events::READ_HUP);
        self.file
            .as_arc_borrow()
            .poll(&file, Mode::READ_WRITE, &table)
    }

    /// FIFO_CLEAR.
    pub(super) fn clear(&self) -> Result {
        let file = File { may_write: true };
        self.file
            .as_arc_borrow()
            .ioctl(&file, crate::uapi::FIFO_CLEAR, 0)
            .map(|_| ())
    }

    /// A process closes its last descriptor of the file.
    pub(super) fn close_file(&self, file: &Arc<FifoFile>) {
        file.as_arc_borrow().closed_by(ProcessId::of_current());
    }

    /// The device is reset, and set up again: as the machine is suspended and resumed.
    pub(super) fn suspend_and_resume(&self, meanwhile: impl FnOnce()) {
        let fifo = self.fifo.as_arc_borrow();
        let detached = fifo.suspend();
        // DEV-7.
        while self.device.borrow_mut().accept() {}
        fifo.take_back(detached);
        self.device.borrow_mut().reset(self.descriptors);
        meanwhile();
        let queues = Self::queues_of(&self.device);
        fifo.resume(queues).unwrap();
    }
}

/// A read or write, and its buffer.
pub(super) struct Call {
    pub(super) kiocb: Rc<Kiocb>,
    pub(super) buffer: Rc<UserBuffer>,
    file: Arc<FifoFile>,
    pub(super) reads: bool,
    pub(super) length: usize,
}

impl Call {
    /// A call that is not made yet.
    pub(super) fn new(file: &Arc<FifoFile>, reads: bool, how: How, buffer: Rc<UserBuffer>) -> Self {
        let kiocb = Kiocb::new(how);
        let length = buffer.bytes.borrow().len();
        Self {
            kiocb,
            buffer,
            file: file.clone(),
            reads,
            length,
        }
    }

    /// Makes it.
    pub(super) fn make(&self) {
        let place = Place::new(&self.buffer);
        let request = Request::new(&self.kiocb);
        let file = self.file.as_arc_borrow();
        if self.reads {
            file.read(request, &mut IovIterDest::new(place));
        } else {
            let mut from = IovIterSource::new(place);
            file.write(request, &mut Source::new(&mut from));
        }
    }

    pub(super) fn read(file: &Arc<FifoFile>, how: How, buffer: Rc<UserBuffer>) -> Self {
        let call = Self::new(file, true, how, buffer);
        call.make();
        call
    }

    pub(super) fn write(file: &Arc<FifoFile>, how: How, buffer: Rc<UserBuffer>) -> Self {
        let call = Self::new(file, false, how, buffer);
        call.make();
        call
    }

    /// io_cancel(2).
    pub(super) fn cancel(&self) {
        if let Some(id) = self.kiocb.cancellable() {
            self.file.as_arc_borrow().cancel(id);
        }
    }

    pub(super) fn result(&self) -> Option<Result<usize>> {
        self.kiocb.result()
    }

    /// What a read got.
    pub(super) fn got(&self) -> Vec<u8> {
        let n = self.result().and_then(Result::ok).unwrap_or(0);
        self.buffer.bytes.borrow()[..n].to_vec()
    }
}
