//! Whether to try again what has failed: the less the oftener it did.

/// The longest time until the next try, unless another one is said.
const LONGEST: u16 = 1024;

/// What came of trying.
#[derive(Debug)]
pub(crate) struct Tries {
    /// How often not to try after the next failure.
    doubt: u16,
    /// How often still not to.
    skip: u16,
    /// How often not to try at most.
    longest: u16,
    /// How often in a row it paid a little.
    proof: u16,
}

impl Tries {
    pub(crate) fn new() -> Self {
        Self::up_to(LONGEST)
    }

    /// Not tried so often in a row at most.
    pub(crate) fn up_to(longest: u16) -> Self {
        Self { doubt: 1, skip: 0, longest, proof: 0 }
    }

    /// Whether to try this time.
    #[inline]
    pub(crate) fn now(&mut self) -> bool {
        let now = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        now
    }

    /// It paid.
    #[inline]
    pub(crate) fn succeeded(&mut self) {
        self.doubt = 1;
    }

    /// It paid a little: half the doubt is gone when it did as often in a row as it is not tried at most.
    #[inline]
    pub(crate) fn paid_a_little(&mut self) {
        self.proof += 1;
        if self.proof == self.longest {
            self.proof = 0;
            self.doubt = (self.doubt / 2).max(1);
        }
    }

    /// It did not.
    pub(crate) fn failed(&mut self) {
        self.proof = 0;
        self.skip = self.doubt;
        self.doubt = (2 * self.doubt).min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_and_less_until_it_succeeds() {
        let mut tries = Tries::new();
        assert!((0..10_000).all(|_| tries.now()), "nothing failed yet");
        let mut count = 0;
        for _ in 0..10_000 {
            if tries.now() {
                count += 1;
                tries.failed();
            }
        }
        assert!((10..30).contains(&count), "{count}");
        while !tries.now() {}
        tries.succeeded();
        assert!(tries.now());
        tries.failed();
        assert!(!tries.now());
        assert!(tries.now(), "one failure is soon forgotten");
    }
}
