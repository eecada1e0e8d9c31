//! Whether a driver that is looked for and who looks have come to the same processor.
//!
//! The kernel may leave them there for tens of milliseconds while another processor is idle: threads that ran a moment
//! ago are not moved. But it looks for an idle processor for one that is woken up. So who had to step aside for each of
//! some answers in a row, so that the driver could run, sleeps once. As long as that does not help, because others have the
//! other processors, it takes twice as many the next time.

/// After how many answers in a row at first.
const FEW: u32 = 8;

/// After how many at most: a wake-up costs as much as some of them.
const MANY: u32 = 128;

/// Answers that came after others had run on this processor, and those that came by themselves.
#[derive(Debug)]
pub(super) struct Asides {
    /// Whether others have run since the last answer.
    is_aside: bool,
    /// Answers in a row that came after that.
    aside: u32,
    /// Answers in a row that did not.
    apart: u32,
    /// So many of the first are enough.
    enough: u32,
}

impl Asides {
    pub(super) fn new() -> Self {
        Self { is_aside: false, aside: 0, apart: 0, enough: FEW }
    }

    /// Others were let run, and did.
    pub(super) fn step(&mut self) {
        self.is_aside = true;
    }

    /// The driver answered.
    pub(super) fn answered(&mut self) {
        if std::mem::take(&mut self.is_aside) {
            self.aside += 1;
            self.apart = 0;
            return;
        }
        self.aside = 0;
        self.apart += 1;
        if self.apart >= MANY {
            // Each has a processor of its own again.
            *self = Self::new();
        }
    }

    /// Whether it is time to sleep. Who asks does so then.
    pub(super) fn must_sleep(&mut self) -> bool {
        let enough = self.aside >= self.enough;
        if enough {
            self.aside = 0;
            self.enough = (2 * self.enough).min(MANY);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps aside for each answer: for how many until it sleeps.
    fn answers_until_sleep(asides: &mut Asides) -> u32 {
        let mut answers = 0;
        while !asides.must_sleep() {
            asides.step();
            asides.answered();
            answers += 1;
        }
        // The answer that woke it up.
        asides.answered();
        answers
    }

    #[test]
    fn who_steps_aside_for_each_answer_sleeps_less_and_less() {
        let mut asides = Asides::new();
        let answers: Vec<_> = (0..6).map(|_| answers_until_sleep(&mut asides)).collect();
        assert_eq!(answers, [FEW, 2 * FEW, 4 * FEW, 8 * FEW, MANY, MANY]);
        for _ in 0..MANY {
            asides.answered();
        }
        assert_eq!(answers_until_sleep(&mut asides), FEW, "they were apart for long");
    }

    #[test]
    fn who_steps_aside_now_and_then_does_not_sleep_for_it() {
        let mut asides = Asides::new();
        for _ in 0..MANY {
            for _ in 1..FEW {
                asides.step();
                asides.answered();
            }
            asides.answered();
            assert!(!asides.must_sleep());
        }
    }
}
