// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a device lies: now and then in everything, in each seed's own way.
//!
//! It knows bytes, not messages: a number is off by one, near a power of two, all zeros or ones, or
//! anything, and what holds it need not be known for that.

use super::dice::Dice;
use super::kind::Kind;
use super::kind::Place;
use super::plan::Site;

/// How likely a lie is. A device that always lies is found out before it gets to the interesting
/// ones, so each seed has its own mixture, for the most part of truth.
pub(super) fn chance(seed: u64, site: Site) -> f64 {
    // Beyond all sites, so that it is drawn from nothing else.
    let salt = 0x80 | site as u8;
    let mut dice = Dice::new(seed, Kind::Liar, salt, Place::CONTROL, 0);
    match (site, dice.below(4)) {
        // Found out at once, and by every driver.
        (Site::Config, 0) => 0.5,
        (Site::Config, _) | (_, 0) => 0.0,
        (_, 1) => 1.0 / 64.0,
        (_, 2) => 1.0 / 16.0,
        _ => 0.25,
    }
}

/// What becomes of an interrupt.
pub(super) fn interrupt(dice: &mut Dice) -> Kind {
    match dice.below(3) {
        0 => Kind::DropInterrupt,
        1 => Kind::DelayInterrupt,
        _ => Kind::DuplicateInterrupt,
    }
}

/// What becomes of a used buffer. A wrong id or index is the last thing that a driver believes of a
/// queue, so they are rare.
pub(super) fn used(dice: &mut Dice) -> Kind {
    match dice.below(16) {
        0 => Kind::WrongId,
        1 => Kind::WrongIndex,
        2..=8 => Kind::WrongLength,
        _ => Kind::ReorderUsed,
    }
}

/// What becomes of an rx message.
pub(super) fn message(dice: &mut Dice) -> Kind {
    if dice.below(8) == 0 {
        Kind::CreditOverrun
    } else {
        Kind::ShortTransfer
    }
}

/// Changes at least one word of `bytes`, seldom many.
pub(super) fn forge(bytes: &mut [u8], dice: &mut Dice) {
    let words = (bytes.len() as u64).div_ceil(4);
    for _ in 0..=dice.below(3) {
        let at = usize::try_from(dice.below(words)).unwrap_or_default();
        if let Some(word) = bytes.chunks_mut(4).nth(at) {
            lie(word, dice);
        }
    }
}

/// Changes about half of the words of `bytes`.
pub(super) fn scramble(bytes: &mut [u8], dice: &mut Dice) {
    for word in bytes.chunks_mut(4) {
        if dice.hit(0.5) {
            lie(word, dice);
        }
    }
}

/// Changes a word.
pub(super) fn lie(word: &mut [u8], dice: &mut Dice) {
    let mut truth = [0; 4];
    for (to, from) in truth.iter_mut().zip(word.iter()) {
        *to = *from;
    }
    let truth = u32::from_le_bytes(truth);
    let lie = match dice.below(7) {
        0 => truth.wrapping_add(1),
        1 => truth.wrapping_sub(1),
        2 if truth != 0 => 0,
        3 if truth != u32::MAX => u32::MAX,
        4 => truth ^ (1 << dice.below(32)),
        5 => (1 << dice.below(32)) - u32::from(dice.hit(0.5)),
        _ => dice.word(),
    };
    for (to, from) in word.iter_mut().zip(lie.to_le_bytes()) {
        *to = from;
    }
}
