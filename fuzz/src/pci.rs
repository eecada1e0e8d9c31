//! A guest that reads and writes configuration space, BARs and registers of a virtio function.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use devices::bus::Bus;
use devices::interrupt::{InterruptError, KickRegistry, MsiController, MsiVector};
use devices::pci::{PciDevice, PciRoot, Window, Windows};
use devices::virtio::backend::{BackendEvent, BackendRequest, ConfigWrites, DeviceProfile};
use devices::virtio::pci::{Deadlines, Succession, VirtioPciDevice, VirtioPciParts};
use ipc::Receiver;
use rustix::event::{EventfdFlags, eventfd};

use crate::script::Script;

const MOST_STEPS: usize = 200;
const LOW: Window = Window { base: 0xc000_0000, length: 16 << 20 };
const HIGH: Window = Window { base: 0x80_0000_0000, length: 64 << 20 };
const ECAM: Window = Window { base: 0xe000_0000, length: 1 << 20 };
/// Function 0 of slot 1.
const FUNCTION: u64 = 1 << 15;
/// The registers of virtio-pci, in one BAR.
const BAR_BYTES: u64 = 0x6000;

pub(crate) fn pci(input: &[u8]) {
    let mut script = Script::new(input);
    let profile = DeviceProfile {
        device_type: 2,
        features: 1 << 9 | 1 << 29 | 1 << 34,
        queue_sizes: vec![256, 128],
        config: (1..=24).collect(),
        config_writes: ConfigWrites::Forwarded,
    };
    let (requests, receiver) = ipc::channel(4);
    let back_end = thread::spawn(|| answer(receiver));
    let kicks = Kicks::default();
    let patience = Duration::from_secs(20);
    let device = VirtioPciDevice::new(VirtioPciParts {
        name: "model".into(),
        profile,
        requests,
        deadlines: Deadlines { patient: patience, impatient: patience },
        succession: Succession::None,
        msi: &Controller,
        kicks: Arc::new(kicks.clone()),
    });
    let device = Arc::new(device.expect("a function"));
    let root = PciRoot::new(Windows { low: LOW, high: HIGH, ecam: ECAM });
    root.attach(device.clone()).expect("a free slot");
    let (mut ports, mut memory) = (Bus::new(), Bus::new());
    root.insert_ports(&mut ports).expect("free ports");
    root.insert_memory(&mut memory).expect("free windows");
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        step(&mut script, &ports, &memory, &device);
        // Notifications have an address exactly while a driver runs the device and its BAR answers.
        let answers = device.decoded_bars().len() == 1;
        assert!(answers || kicks.count() == 0, "kicks without a BAR");
    }
    drop((root, ports, memory, device));
    back_end.join().expect("the model of a back end ends");
    assert_eq!(kicks.count(), 0, "kicks without a device");
}

fn step(script: &mut Script<'_>, ports: &Bus, memory: &Bus, device: &VirtioPciDevice) {
    let manner = script.byte();
    let length = script.choose(&[1, 2, 4, 8, 3, 5]);
    let (bus, address) = match manner >> 5 {
        0 => (ports, 0xcf8 + u64::from(script.byte() % 8)),
        1 => (memory, ECAM.base + FUNCTION + u64::from(script.short() % 0x120)),
        2 => (memory, ECAM.base + u64::from(script.word()) % ECAM.length),
        3 => (memory, HIGH.base + u64::from(script.word()) % HIGH.length),
        _ => match device.decoded_bars().first() {
            Some(bar) => (memory, bar.address + u64::from(script.short()) % BAR_BYTES),
            None => {
                // A driver would begin with the command register.
                memory.write(ECAM.base + FUNCTION + 4, &[6, 0]);
                return;
            }
        },
    };
    match manner & 0x1f {
        0..=9 => bus.read(address, &mut [0; 8][..length]),
        30 => device.handle_event(BackendEvent::ConfigChanged {
            config: script.bytes(length * 6).to_vec(),
        }),
        31 => device.handle_event(BackendEvent::NeedsReset { queue: 0, reason: "so".into() }),
        _ => {
            let mut data = [0; 8];
            let given = script.bytes(length);
            data[..given.len()].copy_from_slice(given);
            bus.write(address, &data[..length]);
        }
    }
}

/// A back end that agrees with everything.
fn answer(mut requests: Receiver<BackendRequest>) {
    while let Ok(request) = requests.recv_blocking(ipc::Deadline::after(Duration::from_mins(1))) {
        match request {
            BackendRequest::Activate { queues, reply, .. } => {
                assert!(queues.iter().all(|queue| queue.index < 2 && queue.size <= 256));
                reply.send(Ok(()));
            }
            BackendRequest::Reset { reply }
            | BackendRequest::Resume { reply }
            | BackendRequest::WriteConfig { reply, .. } => reply.send(()),
            BackendRequest::Pause { reply } | BackendRequest::Detach { reply } => {
                reply.send(Vec::new());
            }
            BackendRequest::ReadConfig { length, reply, .. } => {
                reply.send(vec![7; length.min(24) as usize]);
            }
        }
    }
}

/// Interrupts that nobody takes.
struct Controller;

struct Vector(OwnedFd);

impl MsiController for Controller {
    fn allocate(&self) -> Result<Box<dyn MsiVector>, InterruptError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Box::new(Vector(event.expect("an eventfd"))))
    }
}

impl MsiVector for Vector {
    fn trigger(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn set(&self, _: u64, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }

    fn mask(&self) -> Result<(), InterruptError> {
        Ok(())
    }

    fn unmask(&self) -> Result<(), InterruptError> {
        Ok(())
    }
}

/// Addresses of notifications.
#[derive(Clone, Default)]
struct Kicks(Arc<Mutex<Vec<u64>>>);

impl Kicks {
    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl KickRegistry for Kicks {
    fn register(&self, _: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!known.contains(&address), "an address has one kick");
        known.push(address);
        Ok(())
    }

    fn unregister(&self, _: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.iter().position(|known| *known == address);
        known.swap_remove(index.expect("an address that is known"));
        Ok(())
    }
}
