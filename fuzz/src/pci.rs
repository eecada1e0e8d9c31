//! A guest that reads and writes configuration space, BARs and registers of a virtio function, whose back end
//! may object, die, be paused or be replaced meanwhile.

mod back_end;
mod host;

use std::sync::Arc;

use devices::bus::Bus;
use devices::pci::{PciDevice, PciRoot, Window, Windows};
use devices::virtio::backend::{BackendEvent, BackendRequest, ConfigWrites, DeviceProfile};
use devices::virtio::pci::{Deadlines, Succession, VirtioPciDevice, VirtioPciParts};
use ipc::Sender;

use self::back_end::{BackEnd, Manner, PATIENCE};
use self::host::{Controller, Kicks};
use crate::script::Script;

const MOST_STEPS: usize = 200;
const LOW: Window = Window { base: 0xc000_0000, length: 16 << 20 };
const HIGH: Window = Window { base: 0x80_0000_0000, length: 64 << 20 };
const ECAM: Window = Window { base: 0xe000_0000, length: 1 << 20 };
/// Function 0 of slot 1.
const FUNCTION: u64 = 1 << 15;
/// The registers of virtio-pci, in one BAR.
const BAR_BYTES: u64 = 0x6000;
/// What an input begins with that goes on with a profile; others have one that is known.
const PROFILE: u8 = 0xff;

pub(crate) fn pci(input: &[u8]) {
    let (mut script, profile, succession) = match input.split_first() {
        Some((&PROFILE, rest)) => {
            let mut script = Script::new(rest);
            let (profile, succession) = profile(&mut script);
            (script, profile, succession)
        }
        _ => (Script::new(input), known_profile(), Succession::Expected),
    };
    let kicks = Kicks::default();
    let (back_end, requests) = BackEnd::start(&profile);
    let device = VirtioPciDevice::new(VirtioPciParts {
        name: "model".into(),
        profile: profile.clone(),
        requests: requests.clone(),
        deadlines: Deadlines { patient: PATIENCE, impatient: PATIENCE },
        succession,
        msi: &Controller,
        kicks: Arc::new(kicks.clone()),
    });
    let Ok(device) = device else {
        drop(requests);
        return back_end.join();
    };
    let device = Arc::new(device);
    let root = PciRoot::new(Windows { low: LOW, high: HIGH, ecam: ECAM });
    root.attach(device.clone()).expect("a free slot");
    let (mut ports, mut memory) = (Bus::new(), Bus::new());
    root.insert_ports(&mut ports).expect("free ports");
    root.insert_memory(&mut memory).expect("free windows");
    let mut machine =
        Machine { ports, memory, device, profile, requests, back_ends: vec![back_end] };
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        machine.step(&mut script);
        // Notifications have an address exactly while a driver runs the device and its BAR answers.
        let answers = machine.device.decoded_bars().len() == 1;
        assert!(answers || kicks.count() == 0, "kicks without a BAR");
    }
    let back_ends = machine.back_ends.split_off(0);
    drop((root, machine));
    back_ends.into_iter().for_each(BackEnd::join);
    assert_eq!(kicks.count(), 0, "kicks without a device");
}

fn known_profile() -> DeviceProfile {
    DeviceProfile {
        device_type: 2,
        features: 1 << 9 | 1 << 29 | 1 << 34,
        queue_sizes: vec![256, 128],
        config: (1..=24).collect(),
        config_writes: ConfigWrites::Forwarded,
    }
}

/// What another process may say that its device is.
fn profile(script: &mut Script<'_>) -> (DeviceProfile, Succession) {
    let queues = usize::from(script.short() % 300);
    // Many are all alike, so that an input need not be long.
    let sizes: Vec<u16> = (0..queues.min(4)).map(|_| script.short()).collect();
    let profile = DeviceProfile {
        device_type: script.byte().into(),
        features: script.long(),
        queue_sizes: sizes.iter().copied().cycle().take(queues).collect(),
        config: vec![3; usize::from(script.short())],
        config_writes: script.choose(&[ConfigWrites::Forwarded, ConfigWrites::Ignored]),
    };
    (profile, script.choose(&[Succession::None, Succession::Expected]))
}

struct Machine {
    ports: Bus,
    memory: Bus,
    device: Arc<VirtioPciDevice>,
    profile: DeviceProfile,
    /// The way to the last of the back ends.
    requests: Sender<BackendRequest>,
    back_ends: Vec<BackEnd>,
}

impl Machine {
    fn step(&mut self, script: &mut Script<'_>) {
        let manner = script.byte();
        let length = script.choose(&[1, 2, 4, 8, 3, 5]);
        let (bus, address) = match manner >> 5 {
            0 => (&self.ports, 0xcf8 + u64::from(script.byte() % 8)),
            1 => (&self.memory, ECAM.base + FUNCTION + u64::from(script.short() % 0x120)),
            2 => (&self.memory, ECAM.base + u64::from(script.word()) % ECAM.length),
            3 => (&self.memory, HIGH.base + u64::from(script.word()) % HIGH.length),
            _ => match self.device.decoded_bars().first() {
                Some(bar) => (&self.memory, bar.address + u64::from(script.short()) % BAR_BYTES),
                None => {
                    // A driver would begin with the command register.
                    self.memory.write(ECAM.base + FUNCTION + 4, &[6, 0]);
                    return;
                }
            },
        };
        match manner & 0x1f {
            0..=9 => bus.read(address, &mut [0; 8][..length]),
            deed @ 24.. => self.happen(deed, length, script),
            _ => {
                let mut data = [0; 8];
                let given = script.bytes(length);
                data[..given.len()].copy_from_slice(given);
                bus.write(address, &data[..length]);
            }
        }
    }

    /// Something that is not the guest's doing.
    fn happen(&mut self, deed: u8, length: usize, script: &mut Script<'_>) {
        let device = &self.device;
        let back_end = self.back_ends.last().expect("there is always one");
        match deed {
            24 => match script.choose(&[Manner::Object, Manner::Refuse, Manner::Die]) {
                Manner::Die => back_end.die(&self.requests),
                manner => back_end.will(manner),
            },
            25 => self.replace(script),
            26 => _ = device.pause(),
            27 => _ = device.resume(),
            28 => device.give_up("there is no other"),
            29 => device.handle_event(BackendEvent::LookAtConfig),
            30 => device.handle_event(BackendEvent::ConfigChanged {
                config: script.bytes(length * 6).to_vec(),
            }),
            _ => device.handle_event(BackendEvent::NeedsReset { queue: 0, reason: "so".into() }),
        }
    }

    /// A successor takes over; nobody asks its predecessor any more.
    fn replace(&mut self, script: &mut Script<'_>) {
        let (back_end, requests) = BackEnd::start(&self.profile);
        back_end.will(script.choose(&[Manner::Agree, Manner::Object, Manner::Refuse]));
        self.requests = requests.clone();
        self.back_ends.push(back_end);
        let _ = self.device.replace_backend(requests, || {});
    }
}
