//! What actors log, as the machine gets to hear it.

use std::sync::Mutex;

use ipc::CallError;
use log::{LevelFilter, Log, Metadata, Record};
use vmm::warden::{Attempt, ProbeRequest};

use crate::Test;
use crate::world::{Probe, World};

pub(crate) const TESTS: &[Test] = &[
    ("a_panic_is_heard", a_panic_is_heard),
    ("what_an_actor_says_has_its_name", what_an_actor_says_has_its_name),
    ("a_flood_blocks_nobody_and_passes_in_part", a_flood_blocks_nobody_and_passes_in_part),
];

/// What was logged in this process.
static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Logs as the program does: an actor on its standard error, everybody else here.
struct Ear;

impl Log for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        match vmm::warden::actor_prefix(record) {
            Some(prefix) => {
                let line = format!("{prefix}{}\n", text.escape_debug());
                vmm::warden::actor_says(line.as_bytes());
            }
            None => HEARD.lock().expect("not poisoned").push(format!("{} {text}", record.level())),
        }
    }

    fn flush(&self) {}
}

/// Listens from now on, in this process and those that are forked.
pub(crate) fn listen() {
    log::set_logger(&Ear).expect("the first logger");
    log::set_max_level(LevelFilter::Warn);
}

fn heard(probe: &mut Probe) -> Vec<String> {
    HEARD.lock().expect("not poisoned").clear();
    probe.link.log.drain("probe");
    std::mem::take(&mut *HEARD.lock().expect("not poisoned"))
}

fn a_panic_is_heard() {
    for world in [World::new(), World::new().with_neighbours()] {
        a_panic_is_heard_in(world);
    }
}

fn a_panic_is_heard_in(mut world: World) {
    let mut probe = world.probe();
    let asked = world.ask(&probe, |reply| ProbeRequest::Try(Attempt::Panic, reply));
    assert!(matches!(asked, Err(CallError::PeerDied | CallError::Refused)), "{asked:?}");
    let death = world.death_of(&probe);
    assert!(death.is_explained_by_log(), "{death}");
    let heard = heard(&mut probe);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("ERROR probe: panicked at "), "{heard:?}");
    let words = probe.link.log.last_error().expect("it said why");
    assert!(words.contains("the probe was asked to panic"), "{words}");
}

fn what_an_actor_says_has_its_name() {
    let mut world = World::new();
    let mut probe = world.probe();
    let said = b"INFO vmm no news\nERROR vmm bad news\nwild \x1b[2J words\nunfinished".to_vec();
    world.ask(&probe, |reply| ProbeRequest::Say(said, reply)).expect("it says so");
    let expected = ["ERROR probe: bad news", "WARN probe: wild \\u{1b}[2J words"];
    assert_eq!(heard(&mut probe), expected);
    assert_eq!(probe.link.log.last_error(), Some("bad news"));
}

fn a_flood_blocks_nobody_and_passes_in_part() {
    let mut world = World::new();
    let mut probe = world.probe();
    // More than any pipe holds, with nobody reading: the actor is told so, and goes on.
    let flood = b"a line among many\n".repeat(100);
    for _ in 0..1000 {
        let flood = flood.clone();
        world.ask(&probe, |reply| ProbeRequest::Say(flood, reply)).expect("it does not wait");
    }
    let mut passed = heard(&mut probe);
    probe.requests = ipc::channel(1).0;
    world.death_of(&probe);
    passed.extend(heard(&mut probe));
    assert!((1..1000).contains(&passed.len()), "{} lines", passed.len());
    let is_count = |line: &String| line.contains("lines of its process are left out");
    assert!(passed.iter().any(is_count), "{passed:?}");
}
