// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stream of a `pattern` FIFO, written anew from docs/endpoints.md, so that the two check each other.

/// `count` bytes from `position` of the stream of `seed`.
pub fn bytes(seed: u64, position: u64, count: usize) -> impl Iterator<Item = u8> {
    let skip = usize::from(u8::try_from(position % 8).unwrap_or_default());
    (position / 8..)
        .flat_map(move |n| word(seed, n).to_le_bytes())
        .skip(skip)
        .take(count)
}

fn word(seed: u64, n: u64) -> u64 {
    let step = 0x9e37_79b9_7f4a_7c15_u64;
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(step));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first output of SplitMix64 for this seed, as published.
    #[test]
    fn it_is_splitmix64() {
        let first: Vec<u8> = bytes(1_234_567, 0, 8).collect();
        assert_eq!(first, 6_457_827_717_110_365_317_u64.to_le_bytes());
        let part: Vec<u8> = bytes(1_234_567, 3, 9).collect();
        let whole: Vec<u8> = bytes(1_234_567, 0, 12).collect();
        assert_eq!(Some(part.as_slice()), whole.get(3..));
    }
}
