// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The chance in faults. What is thrown depends on the seed, the kind of fault, the place and the
//! number of the opportunity, and on nothing else: neither time nor other faults change it.

use rand::Rng;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::kind::Kind;
use super::kind::Place;

/// Words of the generator's output that one opportunity may use up.
const WORDS: u128 = 1 << 16;

/// What one opportunity draws from.
#[derive(Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// Those of the opportunity numbered `number` of `kind` at `place`. `salt` tells apart what one
    /// kind does in several ways.
    pub(super) fn new(seed: u64, kind: Kind, salt: u8, place: Place, number: u64) -> Self {
        let fifo = place.fifo.map_or(0, |fifo| u64::from(fifo) + 1);
        let kind = Kind::ALL.iter().position(|known| *known == kind);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(
            (kind.unwrap_or_default() as u64) << 48
                | u64::from(salt) << 40
                | (place.lane as u64) << 32
                | fifo,
        );
        random.set_word_pos(u128::from(number) * WORDS);
        Self(random)
    }

    /// True with a probability of `chance`.
    pub(super) fn hit(&mut self, chance: f64) -> bool {
        self.0.random_bool(chance.clamp(0.0, 1.0))
    }

    /// A number from 0 to `count - 1`; 0 where there is none.
    pub(super) fn below(&mut self, count: u64) -> u64 {
        if count == 0 {
            0
        } else {
            self.0.random_range(0..count)
        }
    }

    /// Any number.
    pub(super) fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Any number of half the length.
    pub(super) fn half_word(&mut self) -> u16 {
        self.0.random()
    }
}
