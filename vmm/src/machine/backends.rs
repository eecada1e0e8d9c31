//! The virtio devices of the machine: their back ends, and their transports on the PCI bus.

use std::sync::Arc;
use std::thread::JoinHandle;

use devices::memory::GuestMemory;
use devices::pci::PciRoot;
use devices::virtio::backend::{BackendContext, BackendEvent, BackendRequest};
use devices::virtio::blk::{Access, BlockBackend, BlockImage, BlockSize, Caching, DiskOptions};
use devices::virtio::pci::{Deadlines, VirtioPciDevice, VirtioPciParts};
use executor::Executor;
use ipc::{Receiver, Sender};

use super::Error;
use crate::config::{DiskConfig, MachineConfig, QueueCount};
use crate::kvm::Vm;

/// Requests under way to a back end: one from each vCPU at most is waited for by the transport.
const REQUEST_CAPACITY: usize = 8;
/// Events of a back end that its transport has not taken yet.
const EVENT_CAPACITY: usize = 16;

/// A virtio device in its place.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) transport: Arc<VirtioPciDevice>,
    pub(super) events: Receiver<BackendEvent>,
    pub(super) thread: BackEndThread,
}

/// A disk whose file is open and locked.
#[derive(Debug)]
pub(super) struct OpenDisk {
    name: String,
    image: BlockImage,
}

/// Opens all disks.
pub(super) fn open_disks(config: &MachineConfig) -> Result<Vec<OpenDisk>, Error> {
    config.disks.iter().map(|disk| open_disk(disk, config)).collect()
}

fn open_disk(disk: &DiskConfig, config: &MachineConfig) -> Result<OpenDisk, Error> {
    let options = DiskOptions {
        access: if disk.read_only { Access::ReadOnly } else { Access::ReadWrite },
        caching: if disk.direct { Caching::Direct } else { Caching::PageCache },
        block_size: match disk.block_size.bytes() {
            4096 => BlockSize::Bytes4096,
            _ => BlockSize::Bytes512,
        },
        queues: disk.queues.unwrap_or_else(|| QueueCount::for_cpus(config.cpus)).get(),
        id: disk.id.as_ref().map(|id| id.as_str().to_owned()),
        ..DiskOptions::new(&disk.path)
    };
    let image = BlockImage::open(&options).map_err(Error::Disk)?;
    Ok(OpenDisk { name: format!("disk {}", disk.path.display()), image })
}

/// Starts the back ends and puts the devices on the bus.
pub(super) fn start(
    disks: Vec<OpenDisk>,
    vm: &Vm,
    memory: &GuestMemory,
    root: &PciRoot,
) -> Result<Vec<Attached>, Error> {
    if disks.is_empty() {
        return Ok(Vec::new());
    }
    let msi = vm.gsi_router()?;
    let kicks = Arc::new(vm.ioeventfds());
    let attach = |(index, disk): (usize, OpenDisk)| {
        let OpenDisk { name, image } = disk;
        let backend = BlockBackend::new(image);
        let profile = backend.profile();
        let (requests, events, thread) = spawn(format!("blk{index}"), backend, memory.clone())?;
        let transport = VirtioPciDevice::new(VirtioPciParts {
            name,
            profile,
            requests,
            deadlines: Deadlines::default(),
            msi: &msi,
            kicks: kicks.clone(),
        })?;
        let transport = Arc::new(transport);
        root.attach(transport.clone())?;
        Ok(Attached { transport, events, thread })
    };
    disks.into_iter().enumerate().map(attach).collect()
}

/// A back end on a thread of its own. It ends when its transport is dropped.
#[derive(Debug)]
pub(super) struct BackEndThread {
    thread: JoinHandle<()>,
}

impl BackEndThread {
    /// Waits for the end of the thread. The transport must be gone.
    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            log::error!("a back end thread panicked");
        }
    }
}

type Spawned = (Sender<BackendRequest>, Receiver<BackendEvent>, BackEndThread);

fn spawn(name: String, backend: BlockBackend, memory: GuestMemory) -> Result<Spawned, Error> {
    let (requests, request_receiver) = ipc::channel(REQUEST_CAPACITY);
    let (event_sender, events) = ipc::channel(EVENT_CAPACITY);
    let context = BackendContext { memory, requests: request_receiver, events: event_sender };
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            // The ring belongs to the thread that uses it.
            match Executor::new(&executor::Config::default()) {
                Ok(mut executor) => executor.block_on(backend.run(context)),
                // The transport sees its channel closed and says that it needs a reset.
                Err(error) => log::error!("a back end cannot start: {error}"),
            }
        })
        .map_err(Error::host("start a back end thread"))?;
    Ok((requests, events, BackEndThread { thread }))
}
