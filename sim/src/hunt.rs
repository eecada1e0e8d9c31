//! Many seeds, and what is found with them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use executor::sim::Log;

use crate::models::Device;
use crate::world::{Plan, dawn, live};

/// What came of one world.
#[derive(Debug)]
pub struct Found {
    /// What did not hold, if something did not.
    pub failure: Option<String>,
    /// What happened.
    pub log: Log,
}

thread_local! {
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of worlds are results, not output.
fn keep_panics_quiet() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(THREAD) {
                return before(info);
            }
            let place =
                info.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
            let message = info.payload_as_str().unwrap_or("a panic without words");
            let text = format!("{message}{}", place.unwrap_or_default());
            // The first one is the cause.
            MESSAGE.with_borrow_mut(|message| {
                message.get_or_insert(text);
            });
        }));
    });
}

/// Threads of this name run worlds.
const THREAD: &str = "world";

/// Runs `work` on a thread on which worlds can be.
///
/// # Panics
///
/// If the host has no threads left, or `work` panics.
pub fn on_a_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    keep_panics_quiet();
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(THREAD.into());
        let thread = builder.spawn_scoped(scope, work).expect("a thread");
        thread.join().expect("worlds catch their panics")
    })
}

/// Lives through one world. Needs a thread of [`on_a_thread`].
pub fn try_plan(device: Device, plan: &Plan) -> Found {
    let sim = dawn(plan);
    MESSAGE.set(None);
    let outcome =
        catch_unwind(AssertUnwindSafe(|| live(plan, &sim, device.model(&sim, plan.seed))));
    let failure =
        outcome.is_err().then(|| MESSAGE.take().unwrap_or_else(|| "a panic without words".into()));
    Found { failure, log: sim.log() }
}

/// A seed that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The device.
    pub device: Device,
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub message: String,
}

/// Which seeds to try.
#[derive(Debug, Clone, Copy)]
pub struct Quest {
    /// The first seed.
    pub first: u64,
    /// How many at most.
    pub seeds: u64,
    /// For how long at most.
    pub time: Option<Duration>,
    /// How many failures are enough.
    pub enough: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Bag {
    /// Seeds that were tried.
    pub seeds: u64,
    /// Those that failed.
    pub failures: Vec<Failure>,
}

/// Tries seeds of a device on this many threads; `prepare` runs on each first.
pub fn hunt(device: Device, quest: Quest, threads: usize, prepare: impl Fn() + Sync) -> Bag {
    keep_panics_quiet();
    let (next, tried) = (AtomicU64::new(quest.first), AtomicU64::new(0));
    let (failures, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let start = Instant::now();
    let work = || {
        prepare();
        while !over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let late = quest.time.is_some_and(|time| start.elapsed() > time);
            if seed - quest.first >= quest.seeds || late {
                break;
            }
            let found = try_plan(device, &Plan::of(seed));
            tried.fetch_add(1, Ordering::Relaxed);
            if let Some(message) = found.failure {
                let mut failures = failures.lock().expect("no thread dies with it");
                failures.push(Failure { device, seed, message });
                if failures.len() >= quest.enough {
                    over.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            let builder = thread::Builder::new().name(THREAD.into());
            builder.spawn_scoped(scope, work).expect("a thread");
        }
    });
    let mut failures = failures.into_inner().expect("no thread died with it");
    failures.sort_by_key(|failure: &Failure| failure.seed);
    Bag { seeds: tried.into_inner(), failures }
}
