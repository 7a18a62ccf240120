// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a message on each of the four kinds of virtqueue does.
//!
//! Two loops serve them all. `consume` takes whatever the driver makes available (control, tx).
//! `supply` takes a buffer only when there is something to put into it (event, rx), so that
//! buffers which wait are never taken and so never lost. Between two messages a FIFO is anybody's who
//! waits for its lock: the event loop never waits for a whole pass. This file knows queues and FIFOs; it
//! must not know which thread it runs on, or how a VMM is connected.

use std::io::Write;

use virtio_fifo_protocol::virtio_fifo::CTRL_BAD_COUNTER;
use virtio_fifo_protocol::virtio_fifo::CTRL_BAD_FIFO;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::CTRL_OK;
use virtio_fifo_protocol::virtio_fifo::CTRL_UNSUPPORTED;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;

use crate::chain::ChainReader;
use crate::chain::ChainWriter;
use crate::chain::Lengths;
use crate::device::Device;
use crate::device::FifoGuard;
use crate::fault;
use crate::fault::FaultyMessages;
use crate::fifo::Fifo;
use crate::refusal::Refusal;
use crate::virtqueue::ActiveQueue;
use crate::virtqueue::Budget;
use crate::virtqueue::Chain;
use crate::virtqueue::QueueError;

/// Whether a pass left something that could be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The next kick, or the next data, brings more work.
    Done,
    /// The budget ran out first: nobody will kick for what is left.
    More,
}

/// Whether the driver is to announce what it makes available after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// It is.
    Yes,
    /// Not yet: the worker looks for itself for a while, and then calls [`listen`].
    NotYet,
}

/// What became of one chain.
struct Handled {
    /// Bytes written to it: its used length.
    used: usize,
    /// Bytes moved at all: what it costs.
    moved: usize,
}

impl Handled {
    const REFUSED: Self = Self { used: 0, moved: 0 };
}

/// Serves the tx queue of `fifo`.
///
/// # Errors
///
/// When the queue is corrupt.
pub fn tx(
    queue: &mut ActiveQueue<'_>,
    fifo: &mut FifoGuard<'_>,
    budget: &mut Budget,
    announce: Announce,
) -> Result<Outcome, QueueError> {
    let outcome = consume(queue, budget, announce, |queue, chain| {
        let handled = match tx_message(queue, chain, fifo) {
            Ok(moved) => Handled { used: 0, moved },
            Err(reason) => {
                fifo.fail("tx", reason);
                Handled::REFUSED
            }
        };
        FifoGuard::bump(fifo);
        handled
    });
    fifo.pass_over();
    outcome
}

fn tx_message<'a>(
    queue: &mut ActiveQueue<'a>,
    chain: &Chain<'a>,
    fifo: &mut Fifo,
) -> Result<usize, Refusal> {
    let lengths = queue.measure(chain)?;
    if lengths.writable_parts > 0 {
        return Err(Refusal::WrongDirection);
    }
    let payload = lengths
        .readable
        .checked_sub(TxHeader::LEN)
        .ok_or(Refusal::WrongLength)?;
    let mut reader = ChainReader::new(chain, queue.ram(), lengths);
    let header = TxHeader::from_bytes(reader.message()?);
    fifo.accept(header, &mut reader, payload)?;
    Ok(lengths.readable)
}

/// Serves the rx queue of `fifo`.
///
/// # Errors
///
/// When the queue is corrupt.
pub fn rx(
    queue: &mut ActiveQueue<'_>,
    fifo: &mut FifoGuard<'_>,
    budget: &mut Budget,
) -> Result<Outcome, QueueError> {
    let pending = |fifo: &Fifo| fifo.pending() > 0;
    let mut faults = FaultyMessages::default();
    supply(
        queue,
        fifo,
        budget,
        pending,
        |queue, chain, fifo| match rx_message(queue, chain, fifo, &mut faults) {
            Ok(used) => Handled { used, moved: used },
            Err(reason) => {
                fifo.refuse("rx", reason);
                Handled::REFUSED
            }
        },
    )
}

fn rx_message<'a>(
    queue: &mut ActiveQueue<'a>,
    chain: &Chain<'a>,
    fifo: &mut Fifo,
    faults: &mut FaultyMessages,
) -> Result<usize, Refusal> {
    let lengths = only_writable(queue, chain)?;
    let mut writer = ChainWriter::new(chain, queue.ram(), lengths);
    match queue.tap() {
        None => fifo.deliver(&mut writer, lengths.writable),
        Some(tap) => faults.deliver(tap, fifo, writer, lengths.writable),
    }
}

/// Tells the driver what it must know of `fifo` on the event queue.
///
/// # Errors
///
/// When the queue is corrupt.
pub fn event(
    queue: &mut ActiveQueue<'_>,
    device: &Device,
    fifo: &mut FifoGuard<'_>,
    budget: &mut Budget,
) -> Result<Outcome, QueueError> {
    supply(
        queue,
        fifo,
        budget,
        Fifo::event_due,
        |queue, chain, fifo| match event_message(queue, chain, fifo) {
            Ok(()) => Handled {
                used: State::LEN,
                moved: State::LEN,
            },
            Err(reason) => {
                device.refuse("event", reason);
                Handled::REFUSED
            }
        },
    )
}

fn event_message<'a>(
    queue: &mut ActiveQueue<'a>,
    chain: &Chain<'a>,
    fifo: &mut Fifo,
) -> Result<(), Refusal> {
    let lengths = only_writable(queue, chain)?;
    if lengths.writable < State::LEN {
        return Err(Refusal::WrongLength);
    }
    let mut writer = ChainWriter::new(chain, queue.ram(), lengths);
    let state = fifo.tell_state();
    let bytes = match queue.tap() {
        None => state.to_bytes(),
        Some(tap) => fault::message::state(tap, fifo.index(), state),
    };
    writer
        .write_all(&bytes)
        .map_err(|_| Refusal::InvalidChain)?;
    fifo.event_told();
    Ok(())
}

/// Uses an event buffer, if there is one that can hold it, for an event that nobody asked for.
///
/// # Errors
///
/// When the queue is corrupt.
pub fn stray_event(queue: &mut ActiveQueue<'_>, event: &[u8]) -> Result<Outcome, QueueError> {
    if let Some(chain) = queue.pop()? {
        let written = only_writable(queue, &chain).and_then(|lengths| {
            ChainWriter::new(&chain, queue.ram(), lengths)
                .write_all(event)
                .map_err(|_| Refusal::InvalidChain)
        });
        queue.finish(&chain, written.map_or(0, |()| event.len()))?;
    }
    Ok(Outcome::Done)
}

/// Serves the control queue. `settle` makes sure that a reset of the device has reached a FIFO, processes what is available in
/// its tx queue where asked to, and returns what that has cost, in bytes: the pass is charged with it, so that requests to clear
/// do not keep other FIFOs waiting (DEV-26).
///
/// # Errors
///
/// When the queue is corrupt.
pub fn control(
    queue: &mut ActiveQueue<'_>,
    device: &Device,
    budget: &mut Budget,
    mut settle: impl FnMut(u16, FlushTx) -> usize,
) -> Result<Outcome, QueueError> {
    consume(queue, budget, Announce::Yes, |queue, chain| {
        let mut cost = 0;
        let mut settle = |fifo, flush| cost += settle(fifo, flush);
        let answered = control_message(queue, chain, device, &mut settle);
        match answered {
            Ok(()) => Handled {
                used: CtrlResponse::LEN,
                moved: CtrlRequest::LEN + CtrlResponse::LEN + cost,
            },
            Err(reason) => {
                device.refuse("control", reason);
                Handled {
                    used: 0,
                    moved: cost,
                }
            }
        }
    })
}

/// Whether a control request needs the tx messages before it processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushTx {
    /// It does (DEV-22).
    Yes,
    /// It changes nothing.
    No,
}

fn control_message<'a>(
    queue: &mut ActiveQueue<'a>,
    chain: &Chain<'a>,
    device: &Device,
    settle: &mut impl FnMut(u16, FlushTx),
) -> Result<(), Refusal> {
    let lengths = queue.measure(chain)?;
    if lengths.readable != CtrlRequest::LEN || lengths.writable < CtrlResponse::LEN {
        return Err(Refusal::WrongLength);
    }
    let bytes = ChainReader::new(chain, queue.ram(), lengths).message()?;
    let mut response = respond(CtrlRequest::from_bytes(bytes), device, settle).to_bytes();
    if let Some(tap) = queue.tap() {
        tap.content(&mut response);
    }
    ChainWriter::new(chain, queue.ram(), lengths)
        .write_all(&response)
        .map_err(|_| Refusal::InvalidChain)
}

/// DEV-22, DEV-23, DEV-24
fn respond(
    request: CtrlRequest,
    device: &Device,
    settle: &mut impl FnMut(u16, FlushTx),
) -> CtrlResponse {
    let flush = match request.kind {
        CTRL_GET_STATE => FlushTx::No,
        CTRL_CLEAR => FlushTx::Yes,
        _ => return failed(CTRL_UNSUPPORTED),
    };
    let Some(index) = u16::try_from(request.fifo)
        .ok()
        .filter(|index| *index < device.num_fifos())
    else {
        return failed(CTRL_BAD_FIFO);
    };
    settle(index, flush);
    let Some(mut fifo) = device.fifo(index) else {
        return failed(CTRL_BAD_FIFO);
    };
    if request.kind == CTRL_CLEAR {
        if fifo.tx_accepted() < request.tx_sent {
            return failed(CTRL_BAD_COUNTER);
        }
        fifo.clear();
    }
    CtrlResponse {
        status: CTRL_OK,
        state: fifo.tell_state(),
    }
}

fn failed(status: u32) -> CtrlResponse {
    CtrlResponse {
        status,
        state: State::default(),
    }
}

fn only_writable<'a>(queue: &mut ActiveQueue<'a>, chain: &Chain<'a>) -> Result<Lengths, Refusal> {
    let lengths = queue.measure(chain)?;
    if lengths.readable_parts > 0 {
        return Err(Refusal::WrongDirection);
    }
    Ok(lengths)
}

/// Asks the driver to announce what it makes available, after passes that did not.
///
/// # Errors
///
/// When the queue is corrupt.
pub fn listen(queue: &mut ActiveQueue<'_>) -> Result<Outcome, QueueError> {
    Ok(if queue.listen()? {
        Outcome::More
    } else {
        Outcome::Done
    })
}

/// Takes and gives back all that is available, announcements switched off meanwhile.
fn consume<'a>(
    queue: &mut ActiveQueue<'a>,
    budget: &mut Budget,
    announce: Announce,
    mut handle: impl FnMut(&mut ActiveQueue<'a>, &Chain<'a>) -> Handled,
) -> Result<Outcome, QueueError> {
    loop {
        queue.silence()?;
        while budget.left() {
            let Some(chain) = queue.pop()? else { break };
            let handled = handle(queue, &chain);
            queue.finish(&chain, handled.used)?;
            budget.spend(handled.moved);
        }
        if !budget.left() {
            return Ok(Outcome::More);
        }
        if announce == Announce::NotYet || !queue.listen()? {
            return Ok(Outcome::Done);
        }
    }
}

/// Takes and fills buffers as long as `fifo` has something for them; asks for announcements only
/// when it has and there is no buffer.
fn supply<'a>(
    queue: &mut ActiveQueue<'a>,
    fifo: &mut FifoGuard<'_>,
    budget: &mut Budget,
    pending: impl Fn(&Fifo) -> bool,
    mut handle: impl FnMut(&mut ActiveQueue<'a>, &Chain<'a>, &mut Fifo) -> Handled,
) -> Result<Outcome, QueueError> {
    while pending(fifo) {
        queue.silence()?;
        while pending(fifo) && budget.left() {
            let Some(chain) = queue.pop()? else { break };
            let handled = handle(queue, &chain, fifo);
            queue.finish(&chain, handled.used)?;
            budget.spend(handled.moved);
            FifoGuard::bump(fifo);
        }
        if !pending(fifo) {
            break;
        }
        if !budget.left() {
            return Ok(Outcome::More);
        }
        if !queue.listen()? {
            break;
        }
    }
    Ok(Outcome::Done)
}
