//! A link whose other end does what it wants: for the tests here and for the fuzzer.
//!
//! Both ends are in one process. One is driven through the public interface only; for the other,
//! a script of bytes decides between honest use and writing anything anywhere into what both share.
//! Nothing of it may panic, hang, or take more than the link's own memory.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::layout::{LINE_WORDS, RING_HEADER_WORDS};
use super::{LinkConfig, Opened, pair};
use crate::oneshot::{Waiting, oneshot};
use crate::{Fd, Receiver, Reply, Sender, channel};

/// One of each thing that a message can have.
#[derive(Debug, Serialize, Deserialize)]
enum Cargo {
    Empty,
    Bytes(Vec<u8>),
    Text(String, Option<char>),
    Pairs(Vec<(u32, Option<String>)>),
    Call(Reply<Answer>),
    Fds(Vec<Fd>),
    Sender(Sender<Cargo>),
    Receiver(Receiver<Cargo>),
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Number(u64),
    Bytes(Vec<u8>),
    Fd(Fd),
    Sender(Sender<Cargo>),
}

/// Takes values from the script; zeroes when it has ended.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        match self.0 {
            [] => 0,
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
        }
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }
}

/// Some descriptor.
fn fd() -> Fd {
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    Fd::new(rustix::event::eventfd(0, flags).expect("an eventfd"))
}

/// What an end has got hold of.
#[derive(Default)]
struct Holdings {
    replies: Vec<Reply<Answer>>,
    senders: Vec<Sender<Cargo>>,
    receivers: Vec<Receiver<Cargo>>,
    waiting: Vec<Waiting<Answer>>,
}

impl Holdings {
    fn keep(&mut self, cargo: Cargo) {
        match cargo {
            Cargo::Call(reply) => self.replies.push(reply),
            Cargo::Sender(sender) => self.senders.push(sender),
            Cargo::Receiver(receiver) => self.receivers.push(receiver),
            Cargo::Empty | Cargo::Bytes(_) | Cargo::Text(..) | Cargo::Pairs(_) | Cargo::Fds(_) => {}
        }
    }

    fn make(&mut self, script: &mut Script<'_>) -> Cargo {
        match script.byte() % 10 {
            0 => Cargo::Empty,
            1 => Cargo::Bytes(vec![7; usize::from(script.byte()) * 40]),
            2 => Cargo::Text("text".repeat(usize::from(script.byte() % 8)), Some('x')),
            3 => Cargo::Pairs(vec![(script.byte().into(), Some("pair".into())), (1, None)]),
            4 => {
                let (port, waiting) = oneshot();
                self.waiting.push(waiting);
                Cargo::Call(Reply::new(port))
            }
            5 => Cargo::Fds((0..script.byte() % 4).map(|_| fd()).collect()),
            6 => {
                let (sender, receiver) = channel(2);
                self.receivers.push(receiver);
                Cargo::Sender(sender)
            }
            7 => {
                let (sender, receiver) = channel(2);
                let _ = sender.try_send(Cargo::Empty);
                self.senders.push(sender);
                Cargo::Receiver(receiver)
            }
            _ => Cargo::Bytes(Vec::new()),
        }
    }

    fn act(
        &mut self,
        sender: &Sender<Cargo>,
        receiver: &mut Receiver<Cargo>,
        script: &mut Script<'_>,
    ) {
        let mut context = Context::from_waker(Waker::noop());
        match script.byte() % 8 {
            0 => {
                let cargo = self.make(script);
                let _ = sender.try_send(cargo);
            }
            1 | 2 => {
                if let Poll::Ready(Ok(cargo)) = receiver.poll_recv(&mut context) {
                    self.keep(cargo);
                }
            }
            3 => {
                if let Some(reply) = self.replies.pop() {
                    reply.send(match script.byte() % 4 {
                        0 => Answer::Number(script.word()),
                        1 => Answer::Bytes(vec![1; script.byte().into()]),
                        2 => Answer::Fd(fd()),
                        _ => Answer::Sender(channel(1).0),
                    });
                }
            }
            4 => {
                let cargo = self.make(script);
                // A receiver in its own queue would keep itself alive.
                if let (Some(sender), false) =
                    (self.senders.last(), matches!(cargo, Cargo::Receiver(_)))
                {
                    let _ = sender.try_send(cargo);
                }
            }
            5 => {
                if let Some(Ok(cargo)) = self.receivers.last_mut().map(Receiver::try_recv) {
                    self.keep(cargo);
                }
            }
            6 => self.waiting.retain_mut(|waiting| waiting.poll(&mut context).is_pending()),
            _ => match script.byte() % 4 {
                0 => drop(self.replies.pop()),
                1 => drop(self.senders.pop()),
                2 => drop(self.receivers.pop()),
                _ => drop(self.waiting.pop()),
            },
        }
        self.senders.truncate(8);
        self.receivers.truncate(8);
    }
}

/// Writes something into what the two ends share.
fn sabotage(core: &Arc<Core>, script: &mut Script<'_>) {
    let words = core.layout.bytes() / 8;
    match script.byte() % 6 {
        // Anything anywhere.
        0 => {
            let index = script.word() as usize % words;
            core.memory.word(index).store(script.word(), Ordering::SeqCst);
        }
        // One bit of a word that matters: ends of rings, reply slots.
        1 => {
            let index = important_word(core, script);
            core.memory.word(index).fetch_xor(1 << (script.byte() % 64), Ordering::SeqCst);
        }
        // A small value in such a word.
        2 => {
            let index = important_word(core, script);
            core.memory.word(index).store(script.byte().into(), Ordering::SeqCst);
        }
        // A frame by hand at the start of the ring, and a tail that says it is there.
        3 => {
            let ring = core.layout.first_ring(core.side);
            let data = core.memory.words(ring.start + RING_HEADER_WORDS, 16);
            for word in data {
                word.store(script.word(), Ordering::SeqCst);
            }
            let tail = u64::from(script.byte()) << 4;
            core.memory.word(ring.start).store(tail, Ordering::SeqCst);
        }
        // A packet by hand.
        4 => {
            let packet = script.word().to_le_bytes();
            let length = usize::from(script.byte() % 9);
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            let _ = rustix::net::send(core.lane.socket(), &packet[..length], flags);
        }
        _ => {
            let fds: Vec<OwnedFd> = (0..script.byte() % 5).map(|_| fd().into_owned()).collect();
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let _ = core.lane.send(&borrowed);
        }
    }
}

fn important_word(core: &Core, script: &mut Script<'_>) -> usize {
    let choice = script.byte();
    let ring = core.layout.first_ring(if choice & 1 == 0 { core.side } else { core.side.other() });
    let arena = core.layout.arena(if choice & 1 == 0 { core.side } else { core.side.other() });
    let slot = core.layout.slot(core.side.other(), u16::from(choice >> 3) % 2);
    match choice >> 1 & 3 {
        0 => ring.start,
        1 => ring.start + LINE_WORDS + usize::from(choice >> 4 & 1),
        2 => arena.start + LINE_WORDS * usize::from(choice >> 4 & 1),
        _ => slot.map_or(ring.start, |slot| slot.start + usize::from(choice >> 5)),
    }
}

/// Runs one script.
///
/// # Panics
/// When the link cannot be made, and when there is a bug.
pub fn run(script: &[u8]) {
    let mut script = Script(script);
    let config =
        LinkConfig { capacity: 4, reply_slots: 2, reply_bytes: 120, arena_bytes: 40 << 10 };
    let (victim, villain) = pair::<Cargo, Cargo>(&config).expect("a link");
    let Opened { link: victim_link, sender, mut receiver } = victim.open().expect("an end");
    let mut villain = Some(villain.open().expect("an end"));
    let mut here = Holdings::default();
    let mut there = Holdings::default();
    while !script.0.is_empty() {
        match (script.byte() % 4, &mut villain) {
            (0 | 1, _) => here.act(&sender, &mut receiver, &mut script),
            (2, Some(villain)) => there.act(&villain.sender, &mut villain.receiver, &mut script),
            (_, Some(peer)) => match script.byte() {
                // Rarely: what comes after has nobody to answer.
                0 => villain = None,
                _ => sabotage(&peer.link.core, &mut script),
            },
            (_, None) => {
                let word = important_word(&victim_link.core, &mut script);
                victim_link.core.memory.word(word).store(script.word(), Ordering::SeqCst);
            }
        }
        victim_link.core.wake_tasks(&mut Vec::new());
    }
    drop((there, villain));
    victim_link.core.probe();
    for waiting in &mut here.waiting {
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.poll(&mut context).is_ready(), "a wait outlives the peer");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_hostile_peer_does_no_harm(script in proptest::collection::vec(any::<u8>(), 0..800)) {
            run(&script);
        }
    }

    /// Values change between two looks of the victim, if it looks twice.
    #[test]
    fn a_peer_that_writes_while_the_victim_reads_does_no_harm() {
        let mut seed = 1_u64;
        let mut random = move || {
            // An LCG; only its upper half is any good.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 32
        };
        for _ in 0..200 {
            let (victim, villain) = pair::<Cargo, Cargo>(&LinkConfig::default()).unwrap();
            let mut victim = victim.open().unwrap();
            let villain = villain.open().unwrap();
            let core = Arc::clone(&villain.link.core);
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let ring = core.layout.first_ring(core.side);
                    let words = core.memory.words(ring.start, RING_HEADER_WORDS + 64);
                    while !stop.load(Ordering::Relaxed) {
                        for index in (0..64).map(|index| RING_HEADER_WORDS + index) {
                            words[index].store(random() & 0x0000_0303_0000_00ff, Ordering::Relaxed);
                        }
                        words[0].fetch_add((random() & 31) << 4, Ordering::Relaxed);
                        if victim_is_cut_off(&core) {
                            break;
                        }
                    }
                });
                let mut holdings = Holdings::default();
                for _ in 0..500 {
                    if let Ok(cargo) = victim.receiver.try_recv() {
                        holdings.keep(cargo);
                    }
                    let _ = victim.sender.try_send(Cargo::Bytes(vec![0; 64]));
                    holdings.replies.clear();
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    }

    fn victim_is_cut_off(core: &Core) -> bool {
        core.lane.is_hung_up()
    }
}
