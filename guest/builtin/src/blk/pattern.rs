//! What a block holds: told from its number and from how often it was written, so that a lost, a
//! stale, a torn or a misplaced write each show.

/// The word at an index of a block, in a generation.
#[inline]
pub(crate) fn word(block: u64, generation: u32, index: u64) -> u64 {
    match index % WORDS_PER_SECTOR {
        0 => block, // readable in a dump
        1 => (u64::from(generation) << 32) | (index / WORDS_PER_SECTOR),
        _ => mix(block << 20 ^ u64::from(generation) << 52 ^ index.wrapping_mul(STEP)),
    }
}

const WORDS_PER_SECTOR: u64 = 512 / 8;
/// Odd and without pattern: the golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads the bits of a number over all 64 (the finalizer of `SplitMix64`).
#[inline]
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// A generator of random numbers, good enough to choose blocks (`SplitMix64`).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `limit`.
    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_generations_and_places_differ() {
        let mut seen = std::collections::HashSet::new();
        for block in 0..16 {
            for generation in 1..16 {
                for index in 2..64 {
                    assert!(seen.insert(word(block, generation, index)));
                }
            }
        }
    }

    #[test]
    fn every_sector_starts_with_its_block_generation_and_place() {
        assert_eq!(word(7, 3, 0), 7);
        assert_eq!(word(7, 3, 64), 7);
        assert_eq!(word(7, 3, 65), 3 << 32 | 1);
    }

    #[test]
    fn random_numbers_stay_below_their_limit_and_reach_all_of_it() {
        let mut random = Random::new(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[random.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(random.below(1), 0);
    }
}
