//! When a queue's task looks again by itself, and when it sleeps.
//!
//! A wake-up costs the guest an exit and the host a system call, each worth many requests. A driver
//! that keeps a fixed number of requests under way makes one available soon after each that it gets
//! back. So after a batch was published, the queue is *owed* as many buffers, and:
//!
//! ```text
//!   publish n ──► owed += n
//!        │
//!        ├─ some are there: look for more until 3/4 of owed are, or `gap` passes without another;
//!        │                  then take all: one visit to the kernel
//!        └─ none are there: if the driver was prompt so far (hot), look for `spin`,
//!                           else enable kicks and sleep
//! ```
//!
//! A look that finds nothing costs the time of one, and where driver and device share a processor it
//! even keeps the driver from answering. So each failure doubles how many prompt answers in a row it
//! takes to become hot again.
//!
//! Looking is a load of the available index between turns of the executor: other tasks run and
//! completions are taken meanwhile.

use std::time::{Duration, Instant};

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
    /// Drivers that poll refill within one or two microseconds; the default is several times that.
    pub gap: Duration,
    /// A wait that brought up all operations within this time for each was for ones that the kernel
    /// completes at once, from its page cache. A storage device takes longer than the default.
    pub prompt: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            spin: Duration::from_micros(40),
            gap: Duration::from_micros(6),
            prompt: Duration::from_micros(12),
        }
    }
}

impl Patience {
    /// Never look, always sleep: right where the driver cannot run meanwhile.
    pub const NONE: Self =
        Self { spin: Duration::ZERO, gap: Duration::ZERO, prompt: Duration::ZERO };

    /// The default, or [`Patience::NONE`] if this process may run on one processor only.
    pub fn for_this_host() -> Self {
        match std::thread::available_parallelism() {
            Ok(processors) if processors.get() == 1 => Self::NONE,
            _ => Self::default(),
        }
    }
}

/// How many prompt answers in a row it takes at most to become hot.
const MOST_PROOF: u32 = 256;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Take the buffers that are there.
    Take,
    /// Let others run, then ask again. Kicks stay off.
    Look,
    /// Enable kicks and sleep.
    Sleep,
    /// Sleep with kicks off: operations are about to complete and wake the task.
    Doze,
}

/// The guess of one queue about its driver.
#[derive(Debug)]
pub struct Pacing {
    patience: Patience,
    /// Buffers that a prompt driver will make available soon.
    owed: u16,
    hot: bool,
    /// Prompt answers in a row.
    proof: u32,
    /// How many make the queue hot.
    proof_needed: u32,
    published_at: Instant,
    seen: u16,
    seen_at: Instant,
    /// When the task went to sleep with how many operations under way.
    slept: Option<(Instant, u32)>,
    prompt: bool,
}

impl Pacing {
    /// Nothing is known.
    pub fn new(patience: Patience) -> Self {
        let now = Instant::now();
        Self {
            patience,
            owed: 0,
            hot: false,
            proof: 0,
            proof_needed: 1,
            published_at: now,
            seen: 0,
            seen_at: now,
            slept: None,
            prompt: false,
        }
    }

    /// `count` buffers were published.
    pub fn published(&mut self, count: u16) {
        if count > 0 {
            self.owed = self.owed.saturating_add(count);
            self.published_at = Instant::now();
            self.seen = 0;
        }
    }

    /// `count` buffers were taken.
    pub fn taken(&mut self, count: u16) {
        if count > 0 && self.owed > 0 {
            self.owed = self.owed.saturating_sub(count);
            self.seen = 0;
        }
    }

    /// Operations completed, and `left` are still under way.
    pub fn completed(&mut self, left: usize) {
        if let Some((since, operations)) = self.slept.take() {
            self.prompt = left == 0 && since.elapsed() < self.patience.prompt * operations;
        }
    }

    /// What to do while `available` buffers wait and `transfers` operations are under way, `others`
    /// of which are not reads or writes.
    pub fn next(&mut self, available: u16, transfers: usize, others: usize) -> Next {
        if self.owed == 0 || (available == 0 && !self.hot) {
            return self.take_or_sleep(available, transfers, others);
        }
        let now = Instant::now();
        if available != self.seen {
            if self.seen == 0 {
                self.answered(now.duration_since(self.published_at) < self.patience.spin);
            }
            self.seen = available;
            self.seen_at = now;
        }
        // Three quarters: the driver works on the last quarter while the kernel works on the rest.
        if available >= self.owed - self.owed / 4 {
            return Next::Take;
        }
        let since = if available > 0 {
            (self.seen_at, self.patience.gap)
        } else {
            (self.published_at, self.patience.spin)
        };
        if now.duration_since(since.0) < since.1 {
            return Next::Look;
        }
        // The driver keeps fewer under way than before, or none.
        self.owed = available;
        if available == 0 {
            self.hot = false;
            self.proof = 0;
            self.proof_needed = (2 * self.proof_needed).min(MOST_PROOF);
        }
        self.take_or_sleep(available, transfers, others)
    }

    /// The driver answered, promptly or not.
    fn answered(&mut self, promptly: bool) {
        if !promptly {
            self.proof = 0;
            return;
        }
        self.proof += 1;
        if self.proof >= self.proof_needed {
            self.hot = true;
        }
        if self.proof >= MOST_PROOF {
            // It has been reliable for long: earlier failures no longer count.
            self.proof_needed = 1;
            self.proof = 0;
        }
    }

    fn take_or_sleep(&mut self, available: u16, transfers: usize, others: usize) -> Next {
        if available > 0 {
            return Next::Take;
        }
        if transfers == 0 {
            return Next::Sleep;
        }
        self.slept = Some((Instant::now(), transfers as u32));
        if self.hot && self.prompt && self.owed > 0 && others == 0 {
            Next::Doze
        } else {
            Next::Sleep
        }
    }
}
