// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0-only

//! virtio-fifo on the wire: ids, queues, messages. `docs/virtio-fifo.md` is the specification; a
//! name there is the name here.
//!
//! All integers are little-endian. Each message knows its length (`LEN`, in bytes) and converts to
//! and from exactly that many bytes; nothing is ever cast, so no alignment or padding can matter.
//! This file is compiled by the device (std) and by the kernel module (`core` only).

/// The device id (virtio standard, section 5) used where none is configured.
///
/// The standard assigns none to this device. 37 is `VIRTIO_ID_DMABUF` in Linux's list, which is why
/// QEMU has a name for it and takes it. [`CONFIG_MAGIC`] tells a FIFO device from one of that kind.
pub const DEFAULT_DEVICE_ID: u32 = 37;

/// `virtio_fifo_config.magic`: the bytes `FIFO`. Configuration space of no other device begins with
/// them.
pub const CONFIG_MAGIC: u32 = 0x4f46_4946;
/// `virtio_fifo_config.version`: the layout of configuration space and of all messages. Another
/// number means that a driver cannot use the device; what a driver may ignore has a feature bit.
pub const CONFIG_VERSION: u32 = 1;

/// Index of the control virtqueue.
pub const CONTROL_QUEUE: u16 = 0;
/// Index of the event virtqueue.
pub const EVENT_QUEUE: u16 = 1;
/// Index of the receive virtqueue of FIFO 0.
pub const FIRST_RX_QUEUE: u16 = 2;

/// Most FIFOs in one device.
pub const MAX_FIFOS: u16 = 31;
/// Most bytes one direction of a FIFO holds.
pub const MAX_CAPACITY: u32 = 1 << 24;

/// Every position in a stream is below this: centuries away for a device that counts bytes, and far
/// enough from the end that no position plus a length overflows.
pub const MAX_POSITION: u64 = 1 << 63;

/// Index of the receive virtqueue (device to driver) of `fifo`.
pub const fn rx_queue(fifo: u16) -> u16 {
    FIRST_RX_QUEUE + 2 * fifo
}

/// Index of the transmit virtqueue (driver to device) of `fifo`.
pub const fn tx_queue(fifo: u16) -> u16 {
    FIRST_RX_QUEUE + 2 * fifo + 1
}

/// Number of virtqueues of a device with `num_fifos` FIFOs.
pub const fn num_queues(num_fifos: u16) -> u16 {
    FIRST_RX_QUEUE + 2 * num_fifos
}

/// `virtio_fifo_state.flags`: what is written comes out of the same FIFO.
pub const STATE_LOOPBACK: u32 = 1 << 0;
/// `virtio_fifo_state.flags`: the host side is gone; what is left can be read, then end of file.
pub const STATE_HANGUP: u32 = 1 << 1;
/// `virtio_fifo_state.flags`: the FIFO failed and takes no data until the device is reset.
pub const STATE_ERROR: u32 = 1 << 2;
/// `virtio_fifo_state.flags`: the host side sends nothing more for now, but takes what it is sent.
pub const STATE_RX_END: u32 = 1 << 3;

/// `virtio_fifo_ctrl_req.type`: reply with the FIFO's state, change nothing.
pub const CTRL_GET_STATE: u32 = 1;
/// `virtio_fifo_ctrl_req.type`: discard every byte in the FIFO, both directions.
pub const CTRL_CLEAR: u32 = 2;

/// `virtio_fifo_ctrl_resp.status`: done.
pub const CTRL_OK: u32 = 0;
/// `virtio_fifo_ctrl_resp.status`: unknown request type.
pub const CTRL_UNSUPPORTED: u32 = 1;
/// `virtio_fifo_ctrl_resp.status`: no such FIFO.
pub const CTRL_BAD_FIFO: u32 = 2;
/// `virtio_fifo_ctrl_resp.status`: the request names bytes that the device never received.
pub const CTRL_BAD_COUNTER: u32 = 3;

/// Walks over the fields of a message; every read and write has a compile-time length.
struct Cursor<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Cursor<N> {
    const fn new(bytes: [u8; N]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take<const W: usize>(&mut self) -> [u8; W] {
        let mut field = [0; W];
        for (to, from) in field.iter_mut().zip(self.bytes.iter().skip(self.at)) {
            *to = *from;
        }
        self.at += W;
        field
    }

    fn put<const W: usize>(&mut self, field: [u8; W]) {
        for (to, from) in self.bytes.iter_mut().skip(self.at).zip(field) {
            *to = from;
        }
        self.at += W;
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Device configuration space, `struct virtio_fifo_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// [`CONFIG_MAGIC`]
    pub magic: u32,
    /// [`CONFIG_VERSION`]
    pub version: u32,
    /// How many FIFOs the device has, 1 to [`MAX_FIFOS`].
    pub num_fifos: u32,
}

/// Why a driver cannot use a device that has the right id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is no FIFO device: there is no configuration space, or it begins with another magic.
    Foreign,
    /// Configuration space begins with this number, 1 to [`MAX_FIFOS`], and not with the magic: a FIFO
    /// device from before version 1.0, or a device of another kind.
    Unversioned(u32),
    /// A FIFO device whose layout has this version, not [`CONFIG_VERSION`].
    Version(u32),
    /// A FIFO device with this number of FIFOs, not 1 to [`MAX_FIFOS`].
    NumFifos(u32),
    /// A FIFO device whose VMM cuts configuration space off before `num_fifos`.
    Short,
}

impl Config {
    /// Bytes on the wire.
    pub const LEN: usize = 12;

    /// Offset of `magic` in bytes.
    pub const MAGIC_AT: u32 = 0;
    /// Offset of `version` in bytes.
    pub const VERSION_AT: u32 = 4;
    /// Offset of `num_fifos` in bytes.
    pub const NUM_FIFOS_AT: u32 = 8;

    /// [`MAX_FIFOS`], as wide as `num_fifos`.
    const MOST_FIFOS: u32 = MAX_FIFOS as u32;

    /// What VMMs read beyond the end of configuration space. No field has this value.
    const BEYOND: u32 = u32::MAX;

    /// Configuration space of a device with `num_fifos` FIFOs.
    pub const fn new(num_fifos: u16) -> Self {
        Self {
            magic: CONFIG_MAGIC,
            version: CONFIG_VERSION,
            num_fifos: num_fifos as u32,
        }
    }

    /// Number of FIFOs of a device that a driver can use (DRV-2, DRV-19, DRV-20).
    ///
    /// `word` reads the 4 bytes at an offset, in bytes; `None` if there is no configuration space.
    /// Of a device of another kind nothing but the first 4 bytes is read.
    ///
    /// # Errors
    ///
    /// Why the device cannot be used.
    pub fn recognise(mut word: impl FnMut(u32) -> Option<[u8; 4]>) -> Result<u16, Unusable> {
        let mut field = |at| word(at).map(u32::from_le_bytes);
        match field(Self::MAGIC_AT) {
            Some(CONFIG_MAGIC) => {}
            Some(first @ 1..=Self::MOST_FIFOS) => return Err(Unusable::Unversioned(first)),
            _ => return Err(Unusable::Foreign),
        }
        match field(Self::VERSION_AT) {
            Some(CONFIG_VERSION) => {}
            None | Some(Self::BEYOND) => return Err(Unusable::Short),
            Some(version) => return Err(Unusable::Version(version)),
        }
        match field(Self::NUM_FIFOS_AT) {
            None | Some(Self::BEYOND) => Err(Unusable::Short),
            Some(count) => match u16::try_from(count) {
                Ok(num_fifos @ 1..=MAX_FIFOS) => Ok(num_fifos),
                _ => Err(Unusable::NumFifos(count)),
            },
        }
    }

    /// The message as it stands in configuration space.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut to = Cursor::new([0; Self::LEN]);
        to.put(self.magic.to_le_bytes());
        to.put(self.version.to_le_bytes());
        to.put(self.num_fifos.to_le_bytes());
        to.bytes
    }

    /// Reads the message from configuration space.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut from = Cursor::new(bytes);
        Self {
            magic: from.u32(),
            version: from.u32(),
            num_fifos: from.u32(),
        }
    }
}

/// Head of a driver-to-device message, `struct virtio_fifo_tx_hdr`; payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxHeader {
    /// Offset in the tx stream of the first payload byte.
    pub offset: u64,
    /// Bytes of the rx stream the driver is done with: the device may forget all below.
    pub rx_consumed: u64,
}

impl TxHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// The message as it stands in a buffer.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut to = Cursor::new([0; Self::LEN]);
        to.put(self.offset.to_le_bytes());
        to.put(self.rx_consumed.to_le_bytes());
        to.bytes
    }

    /// Reads the message from a buffer.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut from = Cursor::new(bytes);
        Self {
            offset: from.u64(),
            rx_consumed: from.u64(),
        }
    }
}

/// Head of a device-to-driver message, `struct virtio_fifo_rx_hdr`; payload follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxHeader {
    /// Offset in the rx stream of the first payload byte. A gap to the message before means that
    /// the bytes between, and all earlier ones, have been discarded.
    pub offset: u64,
    /// Rx stream: all below is consumed or discarded.
    pub rx_floor: u64,
    /// Bytes of the tx stream the driver may have sent in all.
    pub tx_limit: u64,
}

impl RxHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 24;

    /// The message as it stands in a buffer.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut to = Cursor::new([0; Self::LEN]);
        to.put(self.offset.to_le_bytes());
        to.put(self.rx_floor.to_le_bytes());
        to.put(self.tx_limit.to_le_bytes());
        to.bytes
    }

    /// Reads the message from a buffer.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut from = Cursor::new(bytes);
        Self {
            offset: from.u64(),
            rx_floor: from.u64(),
            tx_limit: from.u64(),
        }
    }
}

/// Where a FIFO stands, `struct virtio_fifo_state`: the content of an event buffer and the tail of
/// every control response. A snapshot: a later one makes an earlier one worthless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Which FIFO, from 0.
    pub fifo: u32,
    /// `STATE_*` bits; a driver ignores those it does not know.
    pub flags: u32,
    /// Bytes each direction holds, 1 to [`MAX_CAPACITY`]; never changes.
    pub capacity: u32,
    /// Rx stream: all below is consumed or discarded.
    pub rx_floor: u64,
    /// Rx stream: bytes that entered so far.
    pub rx_end: u64,
    /// Tx stream: bytes accepted so far.
    pub tx_accepted: u64,
    /// Tx stream: bytes the driver may have sent in all.
    pub tx_limit: u64,
}

impl State {
    /// Bytes on the wire.
    pub const LEN: usize = 48;

    /// The message as it stands in a buffer.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut to = Cursor::new([0; Self::LEN]);
        to.put(self.fifo.to_le_bytes());
        to.put(self.flags.to_le_bytes());
        to.put(self.capacity.to_le_bytes());
        to.put([0; 4]);
        to.put(self.rx_floor.to_le_bytes());
        to.put(self.rx_end.to_le_bytes());
        to.put(self.tx_accepted.to_le_bytes());
        to.put(self.tx_limit.to_le_bytes());
        to.bytes
    }

    /// Reads the message from a buffer.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut from = Cursor::new(bytes);
        let (fifo, flags, capacity, _reserved) = (from.u32(), from.u32(), from.u32(), from.u32());
        Self {
            fifo,
            flags,
            capacity,
            rx_floor: from.u64(),
            rx_end: from.u64(),
            tx_accepted: from.u64(),
            tx_limit: from.u64(),
        }
    }
}

/// A control request, `struct virtio_fifo_ctrl_req`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlRequest {
    /// `CTRL_GET_STATE` or `CTRL_CLEAR`.
    pub kind: u32,
    /// Which FIFO, from 0.
    pub fifo: u32,
    /// Tx bytes sent before this request: the device accepts them first.
    pub tx_sent: u64,
}

impl CtrlRequest {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// The message as it stands in a buffer.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut to = Cursor::new([0; Self::LEN]);
        to.put(self.kind.to_le_bytes());
        to.put(self.fifo.to_le_bytes());
        to.put(self.tx_sent.to_le_bytes());
        to.bytes
    }

    /// Reads the message from a buffer.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut from = Cursor::new(bytes);
        Self {
            kind: from.u32(),
            fifo: from.u32(),
            tx_sent: from.u64(),
        }
    }
}

/// A control response, `struct virtio_fifo_ctrl_resp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlResponse {
    /// `CTRL_OK` or why not; the state is meaningful with `CTRL_OK` only.
    pub status: u32,
    /// The FIFO after the request.
    pub state: State,
}

impl CtrlResponse {
    /// Bytes on the wire.
    pub const LEN: usize = 8 + State::LEN;

    /// The message as it stands in a buffer.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut to = Cursor::new([0; Self::LEN]);
        to.put(self.status.to_le_bytes());
        to.put([0; 4]);
        to.put(self.state.to_bytes());
        to.bytes
    }

    /// Reads the message from a buffer.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut from = Cursor::new(bytes);
        let (status, _reserved) = (from.u32(), from.u32());
        Self {
            status,
            state: State::from_bytes(from.take()),
        }
    }
}
