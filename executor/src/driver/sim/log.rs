//! What has happened in a world.

use std::fmt;
use std::time::Duration;

/// One thing that happened. Descriptors, addresses and whatever else differs between two runs of a
/// seed stay out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub at: Duration,
    /// What.
    pub what: &'static str,
    /// What belongs to it: places, lengths, results.
    pub numbers: [u64; 3],
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = self.numbers.map(|number| number as i64);
        let time = self.at.as_nanos();
        write!(
            f,
            "{:>9}.{:03} us  {:<22} {first} {second} {third}",
            time / 1000,
            time % 1000,
            self.what
        )
    }
}

/// All that has happened, in order.
#[derive(Clone, Debug)]
pub struct Log {
    notes: Vec<Note>,
    hash: u64,
}

impl Default for Log {
    fn default() -> Self {
        // The offset basis of FNV-1a.
        Log { notes: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Log {
    pub(super) fn push(&mut self, note: Note) {
        for byte in note.what.bytes() {
            self.mix(byte.into());
        }
        self.mix(note.at.as_nanos() as u64);
        for number in note.numbers {
            self.mix(number);
        }
        self.notes.push(note);
    }

    fn mix(&mut self, word: u64) {
        // FNV-1a, a word at a time, with a rotation because it mixes upwards only.
        self.hash = ((self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)).rotate_left(29);
    }

    /// The notes.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// A hash of all of them.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
