//! A device with a model back end on a thread, and a driver's view of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipc::{Deadline, Receiver, RecvBlockingError, Sender};

use super::super::layout::{BAR, COMMON, DEVICE, ISR, MSIX_TABLE, NOTIFY};
use super::super::{Deadlines, Succession, VirtioPciDevice, VirtioPciParts};
use crate::pci::PciDevice;
use crate::sync::Lock;
use crate::testing::{MockKicks, MockMsi};
use crate::virtio::backend::{BackendRequest, ConfigWrites, DeviceProfile, QueueSetup};

pub(super) const FEATURES: u64 = 1 << 9 | 1 << 29 | 1 << 34;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const BAR_ADDRESS: u64 = 0x80_0000_0000;

/// How the model back end answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Manner {
    #[default]
    Serve,
    /// Activation fails.
    RefuseToStart,
    /// Requests are kept and never answered, until it serves again.
    Hang,
    /// Reply ports are dropped.
    DropReplies,
    /// It ends at the next request.
    Die,
    /// It ends.
    Gone,
}

/// What the back end has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) activations: Vec<(u64, Vec<QueueSetup>)>,
    pub(super) resets: u32,
    pub(super) pauses: u32,
    pub(super) resumes: u32,
    pub(super) config: Vec<u8>,
    /// Requests that it keeps without an answer.
    pub(super) kept: usize,
    pub(super) manner: Manner,
}

pub(super) struct Bed {
    pub(super) device: Arc<VirtioPciDevice>,
    pub(super) seen: Arc<Lock<Seen>>,
    pub(super) msi: MockMsi,
    pub(super) kicks: MockKicks,
    back_end: Option<JoinHandle<()>>,
}

pub(super) fn profile() -> DeviceProfile {
    DeviceProfile {
        device_type: 2,
        features: FEATURES,
        queue_sizes: vec![256, 128],
        config: (1..=24).collect(),
        config_writes: ConfigWrites::Forwarded,
    }
}

pub(super) fn bed() -> Bed {
    bed_of(Duration::from_mins(1), Succession::None)
}

/// For back ends that hang: their deadlines pass at once.
pub(super) fn hasty_bed() -> Bed {
    bed_of(Duration::from_millis(5), Succession::None)
}

/// For back ends that die and are replaced.
pub(super) fn replaceable_bed() -> Bed {
    bed_of(Duration::from_mins(1), Succession::Expected)
}

/// Starts another back end, which has seen nothing, and gives the way to it.
pub(super) fn successor(bed: &mut Bed) -> Sender<BackendRequest> {
    let BackEnd { requests, seen, .. } = back_end();
    bed.seen = seen;
    requests
}

fn bed_of(patient: Duration, succession: Succession) -> Bed {
    let (msi, kicks) = (MockMsi::default(), MockKicks::default());
    let BackEnd { requests, seen, thread } = back_end();
    let device = VirtioPciDevice::new(VirtioPciParts {
        succession,
        name: "model".into(),
        profile: profile(),
        requests,
        deadlines: Deadlines { patient, impatient: Duration::from_millis(1) },
        msi: &msi,
        kicks: Arc::new(kicks.clone()),
    })
    .unwrap();
    device.place_bar(BAR, BAR_ADDRESS);
    Bed { device: Arc::new(device), seen, msi, kicks, back_end: Some(thread) }
}

/// A back end on a thread of its own, and the way to it.
pub(super) struct BackEnd {
    pub(super) requests: Sender<BackendRequest>,
    pub(super) seen: Arc<Lock<Seen>>,
    thread: JoinHandle<()>,
}

impl BackEnd {
    /// It dies; the way to it is left.
    pub(super) fn bury(self) -> Sender<BackendRequest> {
        self.seen.lock().manner = Manner::Gone;
        self.thread.join().unwrap();
        self.requests
    }
}

pub(super) fn back_end() -> BackEnd {
    let (requests, receiver) = ipc::channel(4);
    let seen = Arc::new(Lock::new(Seen { config: profile().config, ..Seen::default() }));
    let model = seen.clone();
    let thread = thread::spawn(move || run(receiver, &model));
    BackEnd { requests, seen, thread }
}

/// Ends when the device is dropped.
fn run(mut requests: Receiver<BackendRequest>, seen: &Lock<Seen>) {
    let mut kept = Vec::new();
    loop {
        // A short wait: who stops to hang drops what it kept.
        let request = requests.recv_blocking(Deadline::after(Duration::from_millis(5)));
        let mut seen = seen.lock();
        if seen.manner != Manner::Hang {
            kept.clear();
            seen.kept = 0;
        }
        let request = match request {
            Ok(request) => request,
            _ if seen.manner == Manner::Gone => return,
            Err(RecvBlockingError::TimedOut) => continue,
            Err(_) => return,
        };
        match seen.manner {
            Manner::Hang => {
                kept.push(request);
                seen.kept += 1;
            }
            Manner::DropReplies => drop(request),
            Manner::Die | Manner::Gone => return,
            Manner::Serve | Manner::RefuseToStart => answer(request, &mut seen),
        }
    }
}

fn answer(request: BackendRequest, seen: &mut Seen) {
    match request {
        BackendRequest::Activate { features, queues, reply } => {
            seen.activations.push((features, queues));
            reply.send(match seen.manner {
                Manner::RefuseToStart => Err("the rings are upside down".into()),
                _ => Ok(()),
            });
        }
        BackendRequest::Reset { reply } => {
            seen.resets += 1;
            reply.send(());
        }
        BackendRequest::ReadConfig { offset, length, reply } => {
            let (offset, length) = (offset as usize, length as usize);
            reply.send(seen.config[offset..offset + length].to_vec());
        }
        BackendRequest::WriteConfig { offset, data, reply } => {
            let offset = offset as usize;
            seen.config[offset..offset + data.len()].copy_from_slice(&data);
            reply.send(());
        }
        BackendRequest::Detach { reply } => reply.send(Vec::new()),
        BackendRequest::Pause { reply } => {
            seen.pauses += 1;
            reply.send(Vec::new());
        }
        BackendRequest::Resume { reply } => {
            seen.resumes += 1;
            reply.send(());
        }
    }
}

/// What a driver does.
impl Bed {
    pub(super) fn set_manner(&self, manner: Manner) {
        self.seen.lock().manner = manner;
    }

    /// The first back end dies, and nothing of it answers any more.
    pub(super) fn bury(&mut self) {
        self.set_manner(Manner::Gone);
        self.back_end.take().unwrap().join().unwrap();
    }

    pub(super) fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.device.read_bar(BAR, COMMON + offset, &mut data);
        data
    }

    pub(super) fn read_u16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    pub(super) fn read_u32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        self.device.write_bar(BAR, COMMON + offset, data);
    }

    pub(super) fn status(&self) -> u8 {
        self.read::<1>(20)[0]
    }

    pub(super) fn set_status(&self, status: u8) {
        self.write(20, &[status]);
    }

    pub(super) fn device_features(&self) -> u64 {
        self.write(0, &0_u32.to_le_bytes());
        let low = u64::from(self.read_u32(4));
        self.write(0, &1_u32.to_le_bytes());
        low | u64::from(self.read_u32(4)) << 32
    }

    pub(super) fn set_features(&self, features: u64) {
        for half in 0..2_u32 {
            self.write(8, &half.to_le_bytes());
            self.write(12, &((features >> (32 * half)) as u32).to_le_bytes());
        }
    }

    /// Everything up to `FEATURES_OK`.
    pub(super) fn negotiate(&self, features: u64) {
        self.set_status(1);
        self.set_status(3);
        self.set_features(features);
        self.set_status(11);
    }

    pub(super) fn set_up_queue(&self, queue: u16, size: u16, vector: u16) {
        self.write(22, &queue.to_le_bytes());
        self.write(24, &size.to_le_bytes());
        self.write(26, &vector.to_le_bytes());
        for (offset, address) in [(32, 0x1000_u64), (40, 0x2000), (48, 0x1_0000_3000)] {
            let address = address + u64::from(queue) * 0x1_0000;
            self.write(offset, &(address as u32).to_le_bytes());
            self.write(offset + 4, &((address >> 32) as u32).to_le_bytes());
        }
        self.write(28, &1_u16.to_le_bytes());
    }

    /// A device in full operation: queue 0 on vector 1, the configuration on vector 0.
    pub(super) fn start(&self) {
        self.enable_memory();
        self.enable_msix();
        self.negotiate(VERSION_1);
        self.write(16, &0_u16.to_le_bytes());
        self.set_up_queue(0, 64, 1);
        self.set_status(15);
    }

    pub(super) fn enable_memory(&self) {
        let _ = self.device.write_config(4, &[6, 0]);
    }

    pub(super) fn enable_msix(&self) {
        for vector in 0..3_u64 {
            let entry = MSIX_TABLE + 16 * vector;
            self.device.write_bar(BAR, entry, &0xfee0_0000_u64.to_le_bytes());
            self.device.write_bar(BAR, entry + 8, &(0x30 + vector).to_le_bytes());
        }
        let control = self.capability(0x11, |_| true).unwrap() + 2;
        let _ = self.device.write_config(control, &0x8000_u16.to_le_bytes());
    }

    pub(super) fn notify(&self, queue: u64, data: &[u8]) {
        self.device.write_bar(BAR, NOTIFY + 4 * queue, data);
    }

    pub(super) fn take_isr(&self) -> u8 {
        let mut isr = [0];
        self.device.read_bar(BAR, ISR, &mut isr);
        isr[0]
    }

    pub(super) fn device_config(&self) -> Vec<u8> {
        let mut config = vec![0; 24];
        self.device.read_bar(BAR, DEVICE, &mut config);
        config
    }

    pub(super) fn config_u8(&self, offset: u16) -> u8 {
        let mut data = [0];
        self.device.read_config(offset, &mut data);
        data[0]
    }

    pub(super) fn config_u32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.device.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Offset of the first capability of this identifier that `wanted` accepts by its offset.
    pub(super) fn capability(&self, id: u8, wanted: impl Fn(u16) -> bool) -> Option<u16> {
        let mut offset = u16::from(self.config_u8(0x34));
        while offset != 0 {
            if self.config_u8(offset) == id && wanted(offset) {
                return Some(offset);
            }
            offset = u16::from(self.config_u8(offset + 1));
        }
        None
    }

    /// Offset of the virtio capability of this type.
    pub(super) fn virtio_capability(&self, kind: u8) -> Option<u16> {
        self.capability(9, |offset| self.config_u8(offset + 3) == kind)
    }

    /// The kick eventfd that the back end got for the first queue of the last activation.
    pub(super) fn kick(&self) -> OwnedFd {
        let seen = self.seen.lock();
        seen.activations.last().unwrap().1[0].kick.try_clone().unwrap().into()
    }

    /// The interrupt eventfd that the back end got for the first queue of the last activation.
    pub(super) fn call(&self) -> OwnedFd {
        let seen = self.seen.lock();
        seen.activations.last().unwrap().1[0].call.as_ref().unwrap().try_clone().unwrap().into()
    }
}
