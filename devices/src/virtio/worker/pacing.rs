//! When a queue's task looks again by itself, and when it sleeps.
//!
//! A wake-up costs the guest an exit and the host a system call, each worth many requests. A driver
//! that keeps a fixed number of requests under way makes one available soon after each that it gets
//! back. So after a batch was published, the queue is *owed* as many buffers, and:
//!
//! ```text
//!   publish n ──► owed += n
//!        │
//!        ├─ some are there: look for more until 3/4 of owed are, or enough for a visit to the kernel,
//!        │                  or `gap` passes without another; then take them
//!        └─ none are there: if the driver was prompt so far (hot), look for `spin`,
//!                           else enable kicks and sleep
//! ```
//!
//! A look that finds nothing costs its time, so each failure doubles how many prompt answers in a row
//! it takes to become hot again. A driver that was prompt some hundred times in a row is looked for longer, and may fail
//! once: on a virtual machine its processor is taken from it for some ten microseconds now and then.
//!
//! Where driver and device share a processor, each kick lets the device run before the driver can
//! make a second buffer available: batches shrink to one. So when much is owed and looking does not
//! help, the task naps with kicks off. If that brings the buffers, it goes on with naps in place of
//! kicks, and tries to look again now and then.
//!
//! Looking is a load of the available index between turns of the executor: other tasks run and
//! completions are taken meanwhile. Who has looked for longer than a prompt answer takes lets other
//! threads have the processor between looks: perhaps it is the driver that waits for it.
//!
//! If it is, for one answer after the other, sleeping once may bring them apart (`asides.rs`). Where much is owed they share
//! it well enough: what one does while it has it is worth a switch.

use std::time::Duration;

use executor::Instant;

use super::asides::Asides;

/// For how long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long to look for the buffers that the driver owes.
    ///
    /// What sleeping costs is about as long as the default: an exit for the kick (2 us with
    /// hardware, 75 to 95 us with a software-only KVM), the wake-up of this thread (5 to 50 us) and
    /// the interrupt's way back. Looking for as long as that at most doubles the cost of a wrong
    /// guess, and one wrong guess ends it.
    pub spin: Duration,
    /// How long after the last new buffer a batch that is not complete is taken all the same.
    /// Drivers that poll refill within one or two microseconds; the default is several times that, and about
    /// what a timer's interrupt takes on a virtual processor.
    pub gap: Duration,
    /// How long to leave the processor to a driver that owes much: it refills a queue in less, and
    /// the timer adds as much again.
    pub nap: Duration,
    /// A wait that brought up all operations within this time for each was for ones that the kernel
    /// completes at once, from its page cache. A storage device takes longer than the default.
    pub prompt: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            spin: Duration::from_micros(40),
            gap: Duration::from_micros(10),
            nap: Duration::from_micros(40),
            prompt: Duration::from_micros(12),
        }
    }
}

impl Patience {
    /// Never look: right where the driver cannot run meanwhile.
    pub const NO_LOOKING: Self = Self {
        spin: Duration::ZERO,
        gap: Duration::ZERO,
        nap: Duration::from_micros(40),
        prompt: Duration::ZERO,
    };

    /// The default, or [`Patience::NO_LOOKING`] if there is one processor only for driver and device.
    pub fn for_this_host() -> Self {
        if executor::driver() == Some(executor::DriverKind::Simulated) {
            // A world is the same on all hosts.
            return Self::default();
        }
        if executor::must_share_processor() { Self::NO_LOOKING } else { Self::default() }
    }

    /// For drivers that ask one thing after the other and sleep meanwhile, as programs do with files: looks, if at
    /// all, for as long as it takes to wake two idle virtual processors up, the driver's and then this one, with what
    /// the program does in between. The first of them is waited for in any case; the second costs the host as much
    /// of a processor as looking does.
    #[must_use]
    pub fn for_sleepers(self) -> Self {
        let spin = if self.spin.is_zero() { self.spin } else { Duration::from_micros(80) };
        Self { spin, ..self }
    }
}

/// How long to keep the processor while looking: a driver that has one of its own answers sooner.
const PROMPT_ANSWER: Duration = Duration::from_micros(3);

/// Stepping aside takes less if nobody else wants the processor.
const OTHERS_RAN: Duration = Duration::from_micros(2);

/// How much has to be owed for a nap, beside three quarters: so many kicks and wake-ups cost more than it
/// takes.
const WORTH_A_NAP: u16 = 8;

/// How many prompt answers in a row it takes at most to become hot. After as many it is reliable.
const MOST_PROOF: u32 = 256;

/// How many times as long to look for what a reliable driver owes. Its answers have gained more than that may cost.
const RELIABLE: u32 = 4;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Take the buffers that are there.
    Take,
    /// Let others run, then ask again. Kicks stay off.
    Look,
    /// The same after other threads have run that want the processor.
    StepAside,
    /// Enable kicks and sleep.
    Sleep,
    /// Sleep for so long with kicks off.
    Nap(Duration),
    /// Sleep with kicks off: operations are about to complete and wake the task.
    Doze,
}

/// How a task waits for the driver when it is not hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Until it kicks.
    Kick,
    /// A nap is under way, or over and not judged.
    Napping,
    /// It naps: that helped the last time.
    Nap,
}

/// The guess of one queue about its driver.
#[derive(Debug)]
pub struct Pacing {
    patience: Patience,
    /// Buffers that a prompt driver will make available soon, with those that are.
    owed: u16,
    /// So many are not worth waiting for more.
    enough: u16,
    hot: bool,
    /// Prompt answers in a row.
    proof: u32,
    /// How many make the queue hot.
    proof_needed: u32,
    /// How the task waits for the driver when it is not hot.
    rest: Rest,
    /// Naps that brought buffers, in a row.
    naps: u32,
    asides: Asides,
    published_at: Instant,
    /// The last look at the clock, as long as it is fresh.
    looked_at: Option<Instant>,
    seen: u16,
    seen_at: Instant,
    /// When the task went to sleep with how many operations under way.
    slept: Option<(Instant, u32)>,
    prompt: bool,
}

impl Pacing {
    /// Nothing is known.
    pub fn new(patience: Patience) -> Self {
        let now = executor::now();
        Self {
            patience,
            owed: 0,
            enough: u16::MAX,
            hot: false,
            proof: 0,
            proof_needed: 1,
            rest: Rest::Kick,
            naps: 0,
            asides: Asides::new(),
            published_at: now,
            looked_at: None,
            seen: 0,
            seen_at: now,
            slept: None,
            prompt: false,
        }
    }

    /// So many buffers are not worth waiting for more.
    pub fn set_enough(&mut self, enough: u16) {
        self.enough = enough;
    }

    /// `count` buffers were published, just now.
    pub fn published(&mut self, count: u16, now: Instant) {
        if count > 0 {
            executor::tell_time(now);
            self.owed = self.owed.saturating_add(count);
            self.published_at = now;
            self.looked_at = Some(self.published_at);
            self.seen = 0;
        }
    }

    /// Stepping aside took so long.
    pub fn stepped_aside(&mut self, took: Duration) {
        if took >= OTHERS_RAN {
            self.asides.step();
        }
    }

    /// Somebody looked at the clock then, and has done nothing since but to find buffers.
    #[inline]
    pub fn looked(&mut self, now: Instant) {
        self.looked_at = Some(now);
    }

    /// The time, as far as it matters to whoever takes buffers now.
    pub fn now(&self) -> Instant {
        self.looked_at.unwrap_or_else(executor::now)
    }

    /// `count` buffers were taken.
    pub fn taken(&mut self, count: u16) {
        if count > 0 && self.owed > 0 {
            self.owed = self.owed.saturating_sub(count);
            self.seen = 0;
        }
    }

    /// `count` buffers were left behind by whoever took others.
    pub fn left(&mut self, count: u16) {
        self.owed = self.owed.max(count);
    }

    /// Operations completed, and `left` are still under way.
    pub fn completed(&mut self, left: usize) {
        if let Some((since, operations)) = self.slept.take() {
            self.prompt = left == 0
                && executor::now().duration_since(since) < self.patience.prompt * operations;
        }
    }

    /// What to do while `available` buffers wait and `transfers` operations are under way, `others`
    /// of which are not reads or writes.
    pub fn next(&mut self, available: u16, transfers: usize, others: usize) -> Next {
        let just_now = self.looked_at.take();
        if self.owed == 0 {
            return self.take_or_sleep(available, transfers, others);
        }
        let now = just_now.unwrap_or_else(executor::now);
        if available != self.seen {
            if self.seen == 0 {
                self.answered(now.duration_since(self.published_at) < self.patience.spin);
            }
            self.seen = available;
            self.seen_at = now;
        }
        // Three quarters: the driver works on the last quarter while the kernel works on the rest.
        if available >= (self.owed - self.owed / 4).min(self.enough) {
            self.looked_at = Some(now);
            return Next::Take;
        }
        let (since, patience) = match (available, self.hot) {
            (0, true) if self.is_reliable() => (self.published_at, self.patience.spin * RELIABLE),
            (0, true) => (self.published_at, self.patience.spin),
            (0, false) => (now, Duration::ZERO),
            _ => (self.seen_at, self.patience.gap),
        };
        let looked = now.duration_since(since);
        if looked < patience {
            // A kick would have it run before the driver can make a second buffer available, where much is owed.
            let owes_little = self.owed < WORTH_A_NAP;
            if available == 0 && owes_little && self.asides.must_sleep() {
                return self.take_or_sleep(available, transfers, others);
            }
            return if looked < PROMPT_ANSWER { Next::Look } else { Next::StepAside };
        }
        if available == 0 && self.is_reliable() {
            // Once may be chance: the next time counts.
            self.proof = 0;
        } else if available == 0 && self.hot {
            self.hot = false;
            self.proof = 0;
            self.proof_needed = (2 * self.proof_needed).min(MOST_PROOF);
            self.rest = Rest::Nap;
        }
        let shrunk = available < self.owed / 4 && self.owed - available >= WORTH_A_NAP;
        if transfers == 0 && shrunk && self.may_nap(available) {
            self.rest = Rest::Napping;
            return Next::Nap(self.patience.nap);
        }
        if self.rest == Rest::Napping {
            // It brought too little.
            self.rest = Rest::Kick;
            self.naps = 0;
        }
        if available > 0 {
            // The driver keeps fewer under way than before.
            self.owed = available;
        }
        self.take_or_sleep(available, transfers, others)
    }

    /// Whether the driver has been prompt for long. When it is late, its processor may be taken from it, for an
    /// interrupt or by its host, and it comes back soon.
    fn is_reliable(&self) -> bool {
        self.hot && self.proof >= MOST_PROOF
    }

    /// Whether a nap may help: it did the last time, or the driver just showed that it is there.
    fn may_nap(&self, available: u16) -> bool {
        match self.rest {
            Rest::Nap => true,
            Rest::Kick => available > 0,
            Rest::Napping => false,
        }
    }

    /// The driver answered, promptly or not.
    fn answered(&mut self, promptly: bool) {
        self.asides.answered();
        if self.rest == Rest::Napping {
            self.rest = Rest::Nap;
            self.naps += 1;
            if self.naps >= self.proof_needed {
                // Perhaps it has a processor of its own by now.
                self.naps = 0;
                self.hot = true;
            }
            return;
        }
        if !promptly {
            self.proof = 0;
            return;
        }
        self.proof = self.proof.saturating_add(1);
        if self.proof >= self.proof_needed {
            self.hot = true;
        }
        if self.is_reliable() {
            // Earlier failures no longer count.
            self.proof_needed = 1;
        }
    }

    fn take_or_sleep(&mut self, available: u16, transfers: usize, others: usize) -> Next {
        if available > 0 {
            return Next::Take;
        }
        if transfers == 0 {
            return Next::Sleep;
        }
        self.slept = Some((executor::now(), transfers as u32));
        if self.hot && self.prompt && self.owed > 0 && others == 0 {
            Next::Doze
        } else {
            Next::Sleep
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue whose driver keeps one buffer under way, at times that the test says.
    struct Driven {
        pacing: Pacing,
        now: Instant,
    }

    impl Driven {
        fn new() -> Self {
            Self { pacing: Pacing::new(Patience::default()), now: executor::now() }
        }

        /// What to do when so many microseconds have passed.
        fn after(&mut self, micros: u64, available: u16) -> Next {
            self.now += Duration::from_micros(micros);
            self.pacing.looked(self.now);
            self.pacing.next(available, 0, 0)
        }

        /// Gives the buffer back.
        fn publish(&mut self) {
            self.pacing.published(1, self.now);
        }

        /// The driver makes a buffer available, and gets it back.
        fn answer(&mut self, micros: u64) {
            assert_eq!(self.after(micros, 1), Next::Take);
            self.pacing.taken(1);
            self.publish();
        }
    }

    #[test]
    fn a_driver_that_was_prompt_some_times_is_looked_for_a_while() {
        let mut driven = Driven::new();
        driven.publish();
        assert_eq!(driven.after(1, 0), Next::Sleep, "nothing is known of it");
        for _ in 0..3 {
            driven.answer(1);
        }
        assert_eq!(driven.after(1, 0), Next::Look);
        assert_eq!(driven.after(30, 0), Next::StepAside);
        assert_eq!(driven.after(10, 0), Next::Sleep);
        driven.answer(100);
        assert_eq!(driven.after(1, 0), Next::Sleep, "it failed");
        driven.answer(1);
        assert_eq!(driven.after(1, 0), Next::Sleep, "that takes more proof now");
        driven.answer(1);
        assert_eq!(driven.after(1, 0), Next::Look);
    }

    #[test]
    fn a_driver_that_was_prompt_for_long_is_looked_for_longer_and_may_be_late_once() {
        let mut driven = Driven::new();
        driven.publish();
        for _ in 0..MOST_PROOF {
            driven.answer(1);
        }
        assert_eq!(driven.after(159, 0), Next::StepAside);
        assert_eq!(driven.after(1, 0), Next::Sleep);
        driven.answer(1000);
        assert_eq!(driven.after(39, 0), Next::StepAside, "that was once");
        assert_eq!(driven.after(1, 0), Next::Sleep);
        driven.answer(1000);
        assert_eq!(driven.after(1, 0), Next::Sleep, "that was twice");
    }

    #[test]
    fn who_steps_aside_for_each_answer_sleeps_once() {
        let mut driven = Driven::new();
        driven.publish();
        driven.answer(1);
        for _ in 0..100 {
            assert_eq!(driven.after(4, 0), Next::StepAside);
            driven.pacing.stepped_aside(Duration::from_nanos(400));
            driven.answer(1);
        }
        let sleeps = (0..100).find(|_| {
            let next = driven.after(1, 0);
            if next == Next::Look {
                assert_eq!(driven.after(3, 0), Next::StepAside);
                driven.pacing.stepped_aside(Duration::from_micros(5));
            }
            driven.answer(1);
            next == Next::Sleep
        });
        assert!(sleeps.is_some_and(|answers| answers > 1), "{sleeps:?}");
        assert_eq!(driven.after(1, 0), Next::Look, "it is still looked for");
    }
}
