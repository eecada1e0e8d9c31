//! Which frames of a stream came: how many are missing, came twice, or came late.
//!
//! ```text
//! numbers:  first .. [ window of the last 4096, one bit each ] highest
//! ```
//!
//! A number below the window was counted as lost when the window left it behind; should it come after
//! all, it is one that came late.

use alloc::{vec, vec::Vec};

/// Streams that are told apart; more than a network has queue pairs.
const STREAMS: usize = 64;
/// Numbers of a stream that are remembered.
const WINDOW: u64 = 4096;

/// What came of all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Different frames.
    pub(crate) frames: u64,
    /// Numbers that are missing between the first and the highest one.
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// Frames after one with a higher number.
    pub(crate) reordered: u64,
}

pub(crate) struct Tally {
    streams: Vec<Stream>,
    /// Different frames of all streams.
    total: u64,
}

#[derive(Clone)]
struct Stream {
    /// The next number, were none lost: one more than the highest that came.
    next: u64,
    counts: Counts,
    /// One bit for each number of the window. Empty until the first frame.
    seen: Vec<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let stream = Stream { next: 0, counts: Counts::default(), seen: Vec::new() };
        Self { streams: vec![stream; STREAMS], total: 0 }
    }

    /// Takes the number of a frame that came.
    #[inline]
    pub(crate) fn note(&mut self, stream: u16, number: u64) {
        let stream = &mut self.streams[usize::from(stream) % STREAMS];
        if stream.seen.is_empty() {
            stream.seen = vec![0; (WINDOW / 64) as usize];
            stream.next = number;
        }
        let before = stream.counts.frames;
        stream.note(number);
        self.total += stream.counts.frames - before;
    }

    /// Different frames of all streams.
    #[inline]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn counts(&self) -> Counts {
        self.streams.iter().fold(Counts::default(), |sum, stream| Counts {
            frames: sum.frames + stream.counts.frames,
            lost: sum.lost + stream.counts.lost,
            duplicates: sum.duplicates + stream.counts.duplicates,
            reordered: sum.reordered + stream.counts.reordered,
        })
    }
}

impl Stream {
    #[inline]
    fn note(&mut self, number: u64) {
        let counts = &mut self.counts;
        if number >= self.next {
            let skipped = number - self.next;
            counts.lost = counts.lost.saturating_add(skipped);
            if skipped >= WINDOW {
                self.seen.fill(0);
            } else {
                for missing in self.next..number {
                    clear(&mut self.seen, missing);
                }
            }
            set(&mut self.seen, number);
            self.next = number.saturating_add(1);
            counts.frames += 1;
            return;
        }
        let remembered = self.next - number <= WINDOW;
        if remembered && is_set(&self.seen, number) {
            counts.duplicates += 1;
            return;
        }
        // Before the first frame nothing was counted as lost.
        counts.lost = counts.lost.saturating_sub(1);
        counts.reordered += 1;
        counts.frames += 1;
        if remembered {
            set(&mut self.seen, number);
        }
    }
}

fn place(number: u64) -> (usize, u64) {
    let index = number % WINDOW;
    ((index / 64) as usize, 1 << (index % 64))
}

fn set(seen: &mut [u64], number: u64) {
    let (word, bit) = place(number);
    seen[word] |= bit;
}

fn clear(seen: &mut [u64], number: u64) {
    let (word, bit) = place(number);
    seen[word] &= !bit;
}

fn is_set(seen: &[u64], number: u64) -> bool {
    let (word, bit) = place(number);
    seen[word] & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(numbers: impl IntoIterator<Item = u64>) -> Counts {
        let mut tally = Tally::new();
        numbers.into_iter().for_each(|number| tally.note(5, number));
        tally.counts()
    }

    #[test]
    fn a_stream_in_order_has_nothing_to_tell() {
        let all = Counts { frames: 20_000, ..Counts::default() };
        assert_eq!(counted(7..20_007), all);
    }

    #[test]
    fn missing_numbers_are_lost_until_they_come_late() {
        let lost = counted([0, 1, 4, 5]);
        assert_eq!(lost, Counts { frames: 4, lost: 2, ..Counts::default() });
        let late = counted([0, 1, 4, 5, 3, 2]);
        assert_eq!(late, Counts { frames: 6, reordered: 2, ..Counts::default() });
    }

    #[test]
    fn doubled_frames_are_not_counted_twice() {
        let counts = counted([0, 1, 1, 2, 0, 2]);
        assert_eq!(counts, Counts { frames: 3, duplicates: 3, ..Counts::default() });
    }

    #[test]
    fn windows_forget_what_they_left_behind() {
        let counts = counted([0, 2 * WINDOW, WINDOW + 1, WINDOW + 1]);
        let lost = 2 * WINDOW - 2;
        assert_eq!(counts, Counts { frames: 3, lost, duplicates: 1, reordered: 1 });
        // The bit of number 1 is used again and was not seen.
        let counts = counted([0, 1, WINDOW, WINDOW + 2, WINDOW + 1]);
        assert_eq!((counts.duplicates, counts.reordered), (0, 1));
    }

    #[test]
    fn streams_count_by_themselves() {
        let mut tally = Tally::new();
        for number in 0..10 {
            tally.note(0, number);
            tally.note(1, 1000 + number);
        }
        assert_eq!(tally.counts(), Counts { frames: 20, ..Counts::default() });
    }
}
