//! The guest's pages: what each holds as long as the guest uses it.

use executor::sim::Numbers;

use crate::machine::{CANARY, Machine};

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// What the guest does with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It holds what the guest wrote there with this number.
    InUse(u64),
    /// The device was told that it may have it.
    Leaving,
    /// The device has it.
    Away,
    /// The guest has asked for it and waits for an answer before it touches it.
    Returning,
}

/// Some pages side by side.
pub(super) struct Pages {
    base: u64,
    states: Vec<State>,
    writes: u64,
}

/// What is in a page that is in use.
fn contents(page: usize, write: u64) -> Vec<u8> {
    let word = (write * 512 + page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_le_bytes().repeat(PAGE as usize / 8)
}

impl Pages {
    pub(super) fn new(base: u64, count: usize) -> Self {
        Self { base, states: vec![State::Away; count], writes: 0 }
    }

    pub(super) fn end(&self) -> u64 {
        self.address(self.states.len())
    }

    pub(super) fn address(&self, page: usize) -> u64 {
        self.base + page as u64 * PAGE
    }

    /// The guest starts with all of them.
    pub(super) fn use_all(&mut self, machine: &Machine) {
        for page in 0..self.states.len() {
            if !matches!(self.states[page], State::InUse(_)) {
                self.put_to_use(machine, page);
            }
        }
    }

    /// The guest writes to a page, and goes on to use it.
    pub(super) fn put_to_use(&mut self, machine: &Machine, page: usize) {
        self.writes += 1;
        machine.write(self.address(page), &contents(page, self.writes));
        self.states[page] = State::InUse(self.writes);
    }

    /// Up to so many pages that are in use, in no order, which the guest gives away.
    pub(super) fn give_up(&mut self, random: &mut Numbers, most: u64) -> Vec<usize> {
        self.turn(random, most, |state| matches!(state, State::InUse(_)), State::Leaving)
    }

    /// Pages in use that lie side by side, up to so many, which the guest gives away.
    pub(super) fn give_up_run(&mut self, random: &mut Numbers, most: usize) -> Vec<usize> {
        let start = random.below(self.states.len() as u64) as usize;
        let free = self.states[start..].iter().take(most);
        let count = free.take_while(|state| matches!(state, State::InUse(_))).count();
        self.states[start..start + count].fill(State::Leaving);
        (start..start + count).collect()
    }

    /// Up to so many pages that the device has, which the guest wants back.
    pub(super) fn ask_back(&mut self, random: &mut Numbers, most: u64) -> Vec<usize> {
        self.turn(random, most, |state| *state == State::Away, State::Returning)
    }

    fn turn(
        &mut self,
        random: &mut Numbers,
        most: u64,
        which: impl Fn(&State) -> bool,
        into: State,
    ) -> Vec<usize> {
        let mut pages: Vec<usize> =
            (0..self.states.len()).filter(|page| which(&self.states[*page])).collect();
        let count = random.below(most + 1).min(pages.len() as u64);
        let mut chosen = Vec::new();
        for _ in 0..count {
            let page = pages.swap_remove(random.below(pages.len() as u64) as usize);
            self.states[page] = into;
            chosen.push(page);
        }
        chosen
    }

    /// The guest could not tell the device of these: it goes on to use them.
    pub(super) fn keep(&mut self, machine: &Machine, pages: &[usize]) {
        for page in pages {
            self.put_to_use(machine, *page);
        }
    }

    /// The device cannot be told that these are wanted back just now.
    pub(super) fn leave(&mut self, pages: &[usize]) {
        for page in pages {
            self.states[*page] = State::Away;
        }
    }

    /// The device has taken a page: nothing is in it any more.
    ///
    /// # Panics
    ///
    /// If there is.
    pub(super) fn left(&mut self, machine: &Machine, page: usize) {
        assert_eq!(self.states[page], State::Leaving, "page {page} was not given away");
        let bytes = machine.read(self.address(page), PAGE as usize);
        assert!(bytes.iter().all(|byte| *byte == 0), "page {page} did not leave");
        self.states[page] = State::Away;
    }

    /// Whether the guest waits for an answer before it uses a page again.
    pub(super) fn is_awaited(&self, page: usize) -> bool {
        self.states[page] == State::Returning
    }

    /// All that is in use is as the guest wrote it.
    ///
    /// # Panics
    ///
    /// If something is not.
    pub(super) fn check(&self, machine: &Machine) {
        for page in 0..self.states.len() {
            self.check_one(machine, page);
        }
    }

    /// The same of one page.
    pub(super) fn check_one(&self, machine: &Machine, page: usize) {
        if let State::InUse(write) = self.states[page] {
            let bytes = machine.read(self.address(page), PAGE as usize);
            assert!(bytes == contents(page, write), "page {page} was taken while it is in use");
        }
    }

    pub(super) fn count(&self) -> usize {
        self.states.len()
    }

    /// As if nobody had written there.
    pub(super) fn wipe(&self, machine: &Machine) {
        let blank = vec![CANARY; (self.end() - self.base) as usize];
        machine.write(self.base, &blank);
    }
}
