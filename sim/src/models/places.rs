//! A model's memory in places of one size, one for each request.

use crate::machine::Machine;

/// What is in a place while the device has it.
struct Taken<T> {
    queue: usize,
    head: u16,
    what: T,
}

/// Places for requests that are `T`.
pub(super) struct Places<T> {
    base: u64,
    bytes: u64,
    taken: Vec<Option<Taken<T>>>,
}

impl<T> Places<T> {
    /// So many of so many bytes, from there on.
    pub(super) fn new(base: u64, bytes: u64, count: usize) -> Self {
        Self { base, bytes, taken: (0..count).map(|_| None).collect() }
    }

    /// The address behind all of them.
    pub(super) fn end(&self) -> u64 {
        self.base + self.taken.len() as u64 * self.bytes
    }

    /// The address of a place that is free.
    pub(super) fn free(&self) -> Option<u64> {
        let place = self.taken.iter().position(Option::is_none)?;
        Some(self.base + place as u64 * self.bytes)
    }

    /// The device gets what is there, by the name that [`Machine::add`] gave. Without one the place
    /// stays free.
    pub(super) fn fill(
        &mut self,
        machine: &Machine,
        address: u64,
        queue: usize,
        head: Option<u16>,
        what: T,
    ) -> Option<()> {
        let Some(head) = head else {
            machine.wipe(address, self.bytes as usize);
            return None;
        };
        let place = (address - self.base) / self.bytes;
        self.taken[place as usize] = Some(Taken { queue, head, what });
        Some(())
    }

    /// The device gave it back: where it is, and what. Checks follow with [`Places::left`].
    ///
    /// # Panics
    ///
    /// If it did not have that.
    pub(super) fn take(&mut self, queue: usize, head: u16) -> (u64, T) {
        let is_it = |taken: &Taken<T>| (taken.queue, taken.head) == (queue, head);
        let place = self.taken.iter().position(|taken| taken.as_ref().is_some_and(is_it));
        let place = place.expect("what comes back was given");
        let taken = self.taken[place].take().expect("it was just found");
        (self.base + place as u64 * self.bytes, taken.what)
    }

    /// A place is free again: beside these ranges nobody has written to it.
    pub(super) fn left(&self, machine: &Machine, address: u64, ranges: &[(u64, u32)], what: &str) {
        for (from, bytes) in ranges {
            machine.wipe(*from, *bytes as usize);
        }
        machine.assert_untouched(address, self.bytes as usize, what);
    }

    /// What the device has of a queue.
    pub(super) fn of(&self, queue: usize) -> impl Iterator<Item = &T> {
        self.all().filter(move |(of, _)| *of == queue).map(|(_, what)| what)
    }

    /// All that the device has, and of which queues.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &T)> {
        self.taken.iter().flatten().map(|taken| (taken.queue, &taken.what))
    }

    /// The device has nothing any more.
    pub(super) fn clear(&mut self, machine: &Machine) {
        self.taken.fill_with(|| None);
        machine.wipe(self.base, (self.end() - self.base) as usize);
    }
}
