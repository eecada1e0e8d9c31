//! Setting up a ring: flags by trying, features by asking, restrictions before it is enabled.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use io_uring::register::{Probe, Restriction};
use io_uring::{Builder, IoUring, opcode, squeue};
use rustix::thread::CpuSet;

use super::files::FileTable;
use super::polled::{self, Polled};
use super::ring::Ring;
use crate::config::{
    Config, DirectIo, KernelFeatures, KernelThread, Operations, Restrictions, Submission,
};
use crate::driver::Wait;
use crate::error::Error;
use crate::processors;

// From include/uapi/linux/io_uring.h; the io-uring crate keeps its own private.
const IORING_ENTER_GETEVENTS: u32 = 1 << 0;
const IORING_ENTER_SQ_WAKEUP: u32 = 1 << 1;
const IORING_ENTER_SQ_WAIT: u32 = 1 << 2;
const IORING_ENTER_EXT_ARG: u32 = 1 << 3;
const IORING_ENTER_REGISTERED_RING: u32 = 1 << 4;
const IORING_REGISTER_FILES_UPDATE: u8 = 6;
const IORING_REGISTER_RING_FDS: u8 = 20;
const IORING_UNREGISTER_RING_FDS: u8 = 21;

pub(super) struct Opened {
    pub(super) ring: Ring,
    pub(super) polled: Option<Polled>,
    pub(super) files: FileTable,
    /// `IORING_RECVSEND_POLL_FIRST` and `IORING_CQE_F_SOCK_NONEMPTY`, which came with the flags
    /// that a ring got.
    pub(super) poll_first: bool,
    pub(super) features: KernelFeatures,
}

pub(super) fn open(config: &Config) -> Result<Opened, Error> {
    let (ring, flags) = create(config)?;
    let parameters = ring.params();
    for (present, feature) in [
        (parameters.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (parameters.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE"),
        (parameters.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
    ] {
        if !present {
            return Err(Error::RingTooOld { feature });
        }
    }
    let features = probe(&ring).difference(config.without);
    let files = if features.contains(KernelFeatures::FIXED_FILES) {
        FileTable::open(&ring, config.fixed_files)
    } else {
        FileTable::default()
    };
    let enter = EnterTarget::new(&ring, features);
    if let Some(processors) = processors::pinned_to() {
        keep_workers_on(&ring, &processors);
    }
    let polled = match config.direct_io {
        DirectIo::Interrupts => None,
        DirectIo::Polled => Some(open_polled(config, &ring, features)?),
    };
    if let Some(restrictions) = config.restrictions {
        restrict(&ring, restrictions).map_err(Error::RingRestrictions)?;
    }
    let ring = Ring::new(ring, enter, config.submission);
    Ok(Opened { ring, polled, files, poll_first: !flags.is_empty(), features })
}

/// Sets up the ring for transfers that are polled for. Where a thread of the kernel takes what is queued in the
/// first one, it does so here as well, and asks for what has completed.
fn open_polled(
    config: &Config,
    first: &IoUring,
    features: KernelFeatures,
) -> Result<Polled, Error> {
    let mut builder = IoUring::builder();
    builder.setup_iopoll().setup_clamp();
    if let Submission::ByKernelThread(thread) = config.submission {
        have_thread(&mut builder, thread);
        builder.setup_attach_wq(first.as_raw_fd());
    }
    if config.restrictions.is_some() {
        builder.setup_r_disabled();
    }
    let ring = builder.build(config.entries.max(1)).map_err(Error::PolledRing)?;
    let files = if features.contains(KernelFeatures::FIXED_FILES) {
        FileTable::open(&ring, polled::FILES)
    } else {
        FileTable::default()
    };
    let enter = EnterTarget::new(&ring, features);
    if let Some(Restrictions { operations }) = config.restrictions {
        let operations = operations & (Operations::READ | Operations::WRITE);
        restrict(&ring, Restrictions { operations }).map_err(Error::RingRestrictions)?;
    }
    Ok(Polled::new(Ring::new(ring, enter, config.submission), files))
}

fn have_thread(builder: &mut Builder, thread: KernelThread) {
    let KernelThread { idle, processor } = thread;
    // Zero would be a second.
    builder.setup_sqpoll(u32::try_from(idle.as_millis()).unwrap_or(u32::MAX).max(1));
    processor.map(|number| builder.setup_sqpoll_cpu(number));
}

/// Creates the ring with the best flags that the kernel takes. Where a thread of the kernel submits, none that
/// say when the executor's thread does the kernel's work: it does none.
fn create(config: &Config) -> Result<(IoUring, KernelFeatures), Error> {
    let best =
        [KernelFeatures::DEFER_TASKRUN, KernelFeatures::COOP_TASKRUN, KernelFeatures::empty()];
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in best {
        if config.without.intersects(flags) {
            continue;
        }
        let thread = match config.submission {
            Submission::BySystemCall => None,
            Submission::ByKernelThread(_) if flags == KernelFeatures::COOP_TASKRUN => continue,
            Submission::ByKernelThread(thread) => Some(thread),
        };
        let mut builder = IoUring::builder();
        // Room for the bursts of multishot operations beside one completion per submission.
        builder.setup_clamp().setup_cqsize(config.entries.saturating_mul(4).max(8));
        if let Some(thread) = thread {
            have_thread(&mut builder, thread);
        }
        if flags.contains(KernelFeatures::DEFER_TASKRUN) {
            builder.setup_single_issuer().setup_submit_all();
            if thread.is_none() {
                builder.setup_defer_taskrun().setup_taskrun_flag();
            }
        } else if flags.contains(KernelFeatures::COOP_TASKRUN) {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        }
        if config.restrictions.is_some() {
            builder.setup_r_disabled();
        }
        match builder.build(config.entries.max(1)) {
            Ok(ring) => return Ok((ring, flags)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            Err(source) => return Err(refused(config, source)),
        }
    }
    Err(refused(config, last))
}

fn refused(config: &Config, source: io::Error) -> Error {
    let Submission::ByKernelThread(thread) = config.submission else {
        return Error::RingSetup { entries: config.entries, source };
    };
    // Is it the thread, or are there no rings at all?
    match IoUring::new(1) {
        Ok(_) => Error::KernelThread { processor: thread.processor, source },
        Err(_) => Error::RingSetup { entries: config.entries, source },
    }
}

/// Which optional features the kernel has.
fn probe(ring: &IoUring) -> KernelFeatures {
    let mut features = KernelFeatures::FIXED_FILES | KernelFeatures::REGISTERED_RING;
    let parameters = ring.params();
    // Came in the same release as multishot poll, which has no flag of its own.
    features.set(KernelFeatures::MULTISHOT_POLL, parameters.is_feature_resource_tagging());
    features.set(KernelFeatures::SKIP_SUCCESS, parameters.is_feature_skip_cqe_on_success());
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    let message_ring = probed && probe.is_supported(opcode::MsgRingData::CODE);
    features.set(KernelFeatures::MESSAGE_RING, message_ring);
    features
}

/// The kernel's threads that wait for what is slow run anywhere by themselves.
fn keep_workers_on(ring: &IoUring, processors: &CpuSet) {
    // SAFETY: a set of none is all zeros.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for number in (0..CpuSet::MAX_CPU).filter(|number| processors.is_set(*number)) {
        // SAFETY: numbers of both kinds of sets go as far.
        unsafe { libc::CPU_SET(number, &mut set) };
    }
    // Kernels before 5.14 cannot do that.
    if let Err(error) = ring.submitter().register_iowq_aff(&set) {
        log::debug!("the kernel's threads are not kept on the processors of this one: {error}");
    }
}

/// Locks the ring down and enables it.
fn restrict(ring: &IoUring, restrictions: Restrictions) -> io::Result<()> {
    // Sockets are read and written by receiving and sending.
    let codes: &[(Operations, &[u8])] = &[
        (Operations::READ, &[opcode::Read::CODE, opcode::Readv::CODE, opcode::Recv::CODE]),
        (Operations::WRITE, &[opcode::Write::CODE, opcode::Writev::CODE, opcode::Send::CODE]),
        (Operations::SYNC, &[opcode::Fsync::CODE]),
        (Operations::ALLOCATE, &[opcode::Fallocate::CODE]),
        (Operations::ACCEPT, &[opcode::Accept::CODE]),
        (Operations::CONNECT, &[opcode::Connect::CODE]),
        (Operations::SEND, &[opcode::Send::CODE]),
        (Operations::RECEIVE, &[opcode::Recv::CODE]),
        (Operations::MESSAGE_RING, &[opcode::MsgRingData::CODE]),
    ];
    let flags = squeue::Flags::FIXED_FILE | squeue::Flags::SKIP_SUCCESS;
    // What the driver itself lives on.
    let mut list = vec![
        Restriction::sqe_op(opcode::PollAdd::CODE),
        Restriction::sqe_op(opcode::AsyncCancel::CODE),
        Restriction::sqe_flags_allowed(flags.bits()),
        Restriction::register_op(IORING_REGISTER_FILES_UPDATE),
        Restriction::register_op(IORING_UNREGISTER_RING_FDS),
    ];
    for (operation, codes) in codes {
        if restrictions.operations.contains(*operation) {
            list.extend(codes.iter().map(|&code| Restriction::sqe_op(code)));
        }
    }
    ring.submitter().register_restrictions(&mut list)?;
    ring.submitter().register_enable_rings()
}

pub(super) fn duplicate(ring: &IoUring) -> io::Result<OwnedFd> {
    // SAFETY: the ring is open and outlives the borrow.
    let borrowed = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
    borrowed.try_clone_to_owned()
}

/// Who takes entries from the submission queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Submitter {
    /// The call does.
    Caller,
    /// The kernel's thread, which looks for them.
    Thread,
    /// The kernel's thread, which has to be woken.
    SleepingThread,
    /// The kernel's thread; the queue is full, and the caller waits until it is not.
    FullThread,
}

/// What `io_uring_enter` is called on: the ring's index in the thread's own table where possible,
/// which spares the lookup of the descriptor, else the descriptor.
pub(super) struct EnterTarget {
    ring: RawFd,
    registered: Option<u32>,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArgument {
    signal_mask: u64,
    signal_mask_size: u32,
    min_wait_usec: u32,
    timespec: u64,
}

impl EnterTarget {
    fn new(ring: &IoUring, features: KernelFeatures) -> Self {
        let ring = ring.as_raw_fd();
        let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
        let registered = features.contains(KernelFeatures::REGISTERED_RING)
            && register(ring, IORING_REGISTER_RING_FDS, &mut update).is_ok();
        EnterTarget { ring, registered: registered.then_some(update.offset) }
    }

    /// Submits and, unless `wait` is `No`, waits for one completion.
    pub(super) fn enter(
        &self,
        to_submit: u32,
        submitter: Submitter,
        wait: Wait,
    ) -> io::Result<u32> {
        let (target, mut flags) = match self.registered {
            Some(index) => (index as RawFd, IORING_ENTER_REGISTERED_RING),
            None => (self.ring, 0),
        };
        // With DEFER_TASKRUN only this flag makes the kernel post what has completed.
        flags |= IORING_ENTER_GETEVENTS;
        flags |= match submitter {
            Submitter::Caller | Submitter::Thread => 0,
            Submitter::SleepingThread => IORING_ENTER_SQ_WAKEUP,
            Submitter::FullThread => IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT,
        };
        let min_complete = u32::from(wait != Wait::No);
        let Wait::For(duration) = wait else {
            // SAFETY: no argument is passed.
            return check(unsafe {
                libc::syscall(
                    libc::SYS_io_uring_enter,
                    target,
                    to_submit,
                    min_complete,
                    flags,
                    std::ptr::null::<libc::c_void>(),
                    0usize,
                )
            });
        };
        let timespec = io_uring::types::Timespec::from(duration);
        let argument = GetEventsArgument {
            signal_mask: 0,
            signal_mask_size: 0,
            min_wait_usec: 0,
            timespec: (&raw const timespec).addr() as u64,
        };
        // SAFETY: the argument and the time it points to live until the call returns.
        check(unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                target,
                to_submit,
                min_complete,
                flags | IORING_ENTER_EXT_ARG,
                &raw const argument,
                size_of::<GetEventsArgument>(),
            )
        })
    }
}

impl Drop for EnterTarget {
    fn drop(&mut self) {
        if let Some(offset) = self.registered {
            // The table holds the ring open, and has few places.
            let mut update = ResourceUpdate { offset, reserved: 0, data: 0 };
            let _ = register(self.ring, IORING_UNREGISTER_RING_FDS, &mut update);
        }
    }
}

fn register(ring: RawFd, operation: u8, update: &mut ResourceUpdate) -> io::Result<u32> {
    // SAFETY: both operations take one such update.
    check(unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            u32::from(operation),
            std::ptr::from_mut(update),
            1u32,
        )
    })
}

fn check(result: libc::c_long) -> io::Result<u32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
}
