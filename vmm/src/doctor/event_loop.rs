//! `io_uring` with what the executor wants of it, and epoll for where it is forbidden.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::report::Check;

/// What rings are set up with, best first: the executor takes the first that works.
const SETUPS: [(&str, Setup); 3] = [
    ("SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1)", Setup::DeferTaskrun),
    ("COOP_TASKRUN (Linux 5.19)", Setup::CoopTaskrun),
    ("no flags (Linux 5.11)", Setup::Plain),
];

/// The operations that devices use, and the names of the specification.
const OPERATIONS: [(u8, &str); 10] = [
    (opcode::Readv::CODE, "READV"),
    (opcode::Writev::CODE, "WRITEV"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::Fallocate::CODE, "FALLOCATE"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::MsgRingData::CODE, "MSG_RING"),
];

/// Enough for a probe.
const ENTRIES: u32 = 8;

#[derive(Clone, Copy)]
enum Setup {
    DeferTaskrun,
    CoopTaskrun,
    Plain,
}

pub(super) fn checks() -> Vec<Check> {
    let mut checks = uring();
    checks.push(match rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC) {
        Ok(_) => Check::ok("epoll", "there, for where io_uring is not"),
        Err(error) => Check::missing("epoll", io::Error::from(error).to_string()),
    });
    checks
}

fn uring() -> Vec<Check> {
    let mut failure = None;
    for (index, (name, setup)) in SETUPS.iter().enumerate() {
        match ring(*setup) {
            Ok(ring) => {
                let detail = format!("set up with {name}");
                let check = if index == 0 {
                    Check::ok("io_uring", detail)
                } else {
                    Check::warn("io_uring", detail).hint("Linux 6.1 needs fewer wake-ups")
                };
                return vec![check, operations(&ring), skipped_completion(ring)];
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.as_ref().map(forbidden).into_iter().collect()
}

fn ring(setup: Setup) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    match setup {
        Setup::DeferTaskrun => builder.setup_single_issuer().setup_defer_taskrun(),
        Setup::CoopTaskrun => builder.setup_coop_taskrun(),
        Setup::Plain => &mut builder,
    };
    builder.build(ENTRIES)
}

fn forbidden(error: &io::Error) -> Check {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let hint = if disabled.is_ok_and(|value| value.trim() != "0") {
        "as root: sysctl kernel.io_uring_disabled=0; until then epoll does the work, slower"
    } else if error.raw_os_error() == Some(libc::ENOSYS) {
        "this kernel is built without it; epoll does the work, slower"
    } else {
        "a seccomp filter, as of a container runtime, forbids it; epoll does the work, slower"
    };
    Check::warn("io_uring", format!("cannot set up a ring: {error}")).hint(hint)
}

fn operations(ring: &IoUring) -> Check {
    let name = "io_uring operations";
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return Check::warn(name, format!("cannot ask for them: {error}"));
    }
    let missing: Vec<_> = OPERATIONS
        .iter()
        .filter(|(code, _)| !probe.is_supported(*code))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        let names: Vec<_> = OPERATIONS.iter().map(|(_, name)| *name).collect();
        return Check::ok(name, names.join(", "));
    }
    Check::warn(name, format!("without {}", missing.join(", ")))
        .hint("other operations stand in for these, slower; use a newer kernel")
}

/// Queues a NOP without a completion and one with: interrupts are raised by such operations.
fn skipped_completion(mut ring: IoUring) -> Check {
    let name = "io_uring silent success";
    match silent_nop(&mut ring) {
        Ok(1) => Check::ok(name, "CQE_SKIP_SUCCESS keeps completions of interrupts away"),
        Ok(count) => Check::warn(name, format!("{count} completions came, and 1 was to come")),
        Err(error) => Check::warn(name, error.to_string()).hint("this came with Linux 5.17"),
    }
}

fn silent_nop(ring: &mut IoUring) -> io::Result<usize> {
    let silent = opcode::Nop::new().build().flags(squeue::Flags::SKIP_SUCCESS);
    let heard = opcode::Nop::new().build();
    for entry in [silent, heard] {
        // SAFETY: a NOP refers to no memory.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    }
    let limit = types::Timespec::new().sec(1);
    let arguments = types::SubmitArgs::new().timespec(&limit);
    ring.submitter().submit_with_args(1, &arguments)?;
    let mut count = 0;
    for completion in ring.completion() {
        if completion.result() < 0 {
            return Err(io::Error::from_raw_os_error(-completion.result()));
        }
        count += 1;
    }
    Ok(count)
}
