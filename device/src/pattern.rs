// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stream of bytes that whoever knows its seed can compute at any position.
//!
//! It is SplitMix64: the output number `n`, from 0, is the mixed value of
//! `seed + (n + 1) · 0x9e3779b97f4a7c15`, and the stream is the outputs one after another, each as
//! eight bytes, the lowest first. `docs/endpoints.md` says the same to users.

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD: usize = size_of::<u64>();

/// A byte that is not the pattern's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {position} is {found:#04x} and should be {expected:#04x}")]
pub struct Mismatch {
    /// Where in the stream.
    pub position: u64,
    /// What should be there.
    pub expected: u8,
    /// What is there.
    pub found: u8,
}

/// The stream of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Writes the bytes from `position` on.
    pub fn fill(&self, position: u64, bytes: &mut [u8]) {
        for (byte, expected) in bytes.iter_mut().zip(self.bytes(position)) {
            *byte = expected;
        }
    }

    /// Compares `bytes` with those from `position` on.
    ///
    /// # Errors
    ///
    /// The first that differs.
    pub fn check(&self, position: u64, bytes: &[u8]) -> Result<(), Mismatch> {
        let expected = self.bytes(position);
        match (position..)
            .zip(bytes.iter().zip(expected))
            .find(|(_, (found, expected))| *found != expected)
        {
            Some((position, (found, expected))) => Err(Mismatch {
                position,
                expected,
                found: *found,
            }),
            None => Ok(()),
        }
    }

    fn bytes(&self, position: u64) -> impl Iterator<Item = u8> + '_ {
        let skip = usize::try_from(position % WORD as u64).unwrap_or_default();
        (position / WORD as u64..)
            .flat_map(|index| self.word(index).to_le_bytes())
            .skip(skip)
    }

    fn word(&self, index: u64) -> u64 {
        let mut word = self
            .seed
            .wrapping_add(index.wrapping_add(1).wrapping_mul(STEP));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published outputs of SplitMix64 for this seed.
    #[test]
    fn it_is_splitmix64() {
        let pattern = Pattern::new(1_234_567);
        let mut bytes = [0; 40];
        pattern.fill(0, &mut bytes);
        let expected: Vec<u8> = [
            6_457_827_717_110_365_317_u64,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
        assert_eq!(bytes, expected[..]);
    }

    #[test]
    fn any_part_of_it_is_a_part_of_the_whole() {
        let pattern = Pattern::new(0);
        let mut whole = [0; 100];
        pattern.fill(0, &mut whole);
        for from in 0..100 {
            let mut part = vec![0; 100 - from];
            pattern.fill(from as u64, &mut part);
            assert_eq!(part, whole[from..]);
            assert_eq!(pattern.check(from as u64, &part), Ok(()));
        }
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let pattern = Pattern::new(7);
        let mut bytes = [0; 50];
        pattern.fill(1000, &mut bytes);
        let expected = bytes[33];
        bytes[33] ^= 0x40;
        bytes[40] ^= 1;
        let mismatch = pattern.check(1000, &bytes).unwrap_err();
        assert_eq!(mismatch.position, 1033);
        assert_eq!(
            (mismatch.expected, mismatch.found),
            (expected, expected ^ 0x40)
        );
        assert!(Pattern::new(8).check(0, &bytes).is_err());
    }
}
