// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The bytes of an input, read as what a target needs next. Behind its end all is 0, so that every
//! input means something and cutting one off changes nothing before the cut.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u16) -> u16 {
        u16::from(self.u8()) % end
    }

    /// `value`, or now and then something a little or very much beside it: whoever only ever
    /// guesses 64-bit counters never gets anywhere.
    pub fn near(&mut self, value: u64) -> u64 {
        match self.u8() {
            delta @ 0xc0..=0xdf => value.wrapping_add(u64::from(delta - 0xc0) + 1),
            delta @ 0xe0..=0xfb => value.wrapping_sub(u64::from(delta - 0xe0) + 1),
            0xfc => value.wrapping_add(1 << 32),
            0xfd => value.wrapping_add(1 << 63),
            0xfe => u64::MAX,
            0xff => 0,
            _ => value,
        }
    }

    /// The next bytes, `len` of them if there are as many.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
