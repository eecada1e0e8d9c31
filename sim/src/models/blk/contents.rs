//! What each sector of a disk may hold: for those who read it, and after a loss of power.
//!
//! ```text
//!   write sent ──► pending ──► done: the only value        failed: one more of the possible values
//!   flush sent: remember what is possible ──► done: what lasts is one of these, or came later
//! ```
//!
//! A driver has one write of a sector under way at a time, as file systems have.

pub(super) const SECTOR: usize = 512;

/// What a sector may hold. Numbers grow with the time at which it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) number: u64,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A pattern that follows from number and sector.
    Pattern,
    /// Zeroes.
    Zero,
}

impl Value {
    /// What a sector holds at the beginning.
    pub(super) const FIRST: Self = Self { number: 0, kind: Kind::Pattern };

    /// Eight bytes, again and again.
    fn word(self, sector: u64) -> [u8; 8] {
        match self.kind {
            Kind::Zero => [0; 8],
            Kind::Pattern => {
                let mixed = (self.number << 16 | sector).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mixed ^ (mixed >> 29) | 1).to_le_bytes()
            }
        }
    }

    pub(super) fn bytes(self, sector: u64) -> Vec<u8> {
        self.word(sector).repeat(SECTOR / 8)
    }
}

#[derive(Debug, Clone)]
struct Sector {
    /// What readers may see, without what is under way.
    possible: Vec<Value>,
    pending: Option<Value>,
    /// What may be left after a loss of power.
    lasting: Vec<Value>,
}

/// What was possible when a flush was sent.
#[derive(Debug)]
pub(super) struct Before {
    number: u64,
    sectors: Vec<Vec<Value>>,
}

/// What is known of a disk.
#[derive(Debug)]
pub(super) struct Contents {
    sectors: Vec<Sector>,
    number: u64,
}

impl Contents {
    pub(super) fn new(sectors: u64) -> Self {
        let first = vec![Value::FIRST];
        let sector = Sector { possible: first.clone(), pending: None, lasting: first };
        Self { sectors: vec![sector; sectors as usize], number: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.sectors.len() as u64
    }

    fn at(&mut self, sector: u64) -> &mut Sector {
        &mut self.sectors[sector as usize]
    }

    /// Whether a write of any of these is under way.
    pub(super) fn is_written(&self, first: u64, count: u64) -> bool {
        (first..first + count).any(|sector| self.sectors[sector as usize].pending.is_some())
    }

    /// A number that was not used before.
    pub(super) fn new_value(&mut self, kind: Kind) -> Value {
        self.number += 1;
        Value { number: self.number, kind }
    }

    /// A write is sent.
    pub(super) fn send(&mut self, sector: u64, value: Value) {
        let sector = self.at(sector);
        debug_assert!(sector.pending.is_none());
        sector.pending = Some(value);
        sector.lasting.push(value);
    }

    /// The write of a sector is done, and lasts if it is `durable`.
    pub(super) fn done(&mut self, sector: u64, durable: Durable) {
        let sector = self.at(sector);
        let value = sector.pending.take().expect("a write is done once");
        sector.possible = vec![value];
        if durable == Durable::AtOnce {
            sector.lasting = vec![value];
        }
    }

    /// The write of a sector may have happened, and happens no more.
    pub(super) fn given_up(&mut self, sector: u64) {
        let sector = self.at(sector);
        if let Some(value) = sector.pending.take() {
            sector.possible.push(value);
        }
    }

    /// What a read that is sent now may see; later writes add to it.
    pub(super) fn visible(&self, sector: u64) -> Vec<Value> {
        let sector = &self.sectors[sector as usize];
        sector.possible.iter().copied().chain(sector.pending).collect()
    }

    /// A flush is sent.
    pub(super) fn before_flush(&self) -> Before {
        let sectors = (0..self.len()).map(|sector| self.visible(sector)).collect();
        Before { number: self.number, sectors }
    }

    /// It is done.
    pub(super) fn flushed(&mut self, before: &Before) {
        for (sector, known) in self.sectors.iter_mut().zip(&before.sectors) {
            sector.lasting.retain(|value| value.number > before.number || known.contains(value));
        }
    }

    /// The power was lost; the disk holds this now.
    pub(super) fn power_lost(&mut self, bytes: &[u8]) {
        for (index, sector) in self.sectors.iter_mut().enumerate() {
            let found = &bytes[index * SECTOR..][..SECTOR];
            check(index as u64, found, &sector.lasting, "is left after a loss of power");
            sector.pending = None;
            sector.possible.clone_from(&sector.lasting);
        }
    }

    /// The disk holds this at the end.
    pub(super) fn check_all(&self, bytes: &[u8]) {
        for index in 0..self.len() {
            let found = &bytes[index as usize * SECTOR..][..SECTOR];
            check(index, found, &self.visible(index), "is on the disk");
        }
    }
}

/// When a write lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// When it is done.
    AtOnce,
    /// After a flush.
    Later,
}

/// Each byte is one of those that it may be: a sector may be torn, if it was written meanwhile.
///
/// # Panics
///
/// If one is not.
pub(super) fn check(sector: u64, bytes: &[u8], allowed: &[Value], what: &str) {
    let words: Vec<[u8; 8]> = allowed.iter().map(|value| value.word(sector)).collect();
    // Almost always.
    if words.iter().any(|word| bytes.chunks_exact(8).all(|found| found == word)) {
        return;
    }
    for (place, byte) in bytes.iter().enumerate() {
        let known = words.iter().any(|word| word[place % 8] == *byte);
        assert!(
            known,
            "sector {sector}: what {what} at byte {place} is none of what was written: {allowed:?}"
        );
    }
}
