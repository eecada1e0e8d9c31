//! Attempts that are system calls, and ways to die.

use std::ffi::CString;
use std::hint::black_box;
use std::mem::offset_of;

use super::{Attempt, AttemptOutcome};

const PAGE: usize = 4096;

pub(super) fn carry_out(attempt: Attempt) -> AttemptOutcome {
    match attempt {
        Attempt::Open(path) => open(&path, libc::O_RDONLY),
        Attempt::Create(path) => open(&path, libc::O_CREAT | libc::O_WRONLY),
        Attempt::Connect(port) => connect_tcp(port),
        Attempt::ConnectAbstract(name) => connect_abstract(&name),
        Attempt::Signal(pid) => call(libc::SYS_kill, [pid as usize, 0, 0, 0, 0]),
        Attempt::SignalAll => call(libc::SYS_kill, [usize::MAX, libc::SIGKILL as usize, 0, 0, 0]),
        Attempt::Trace(pid) => {
            call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid as usize, 0, 0, 0])
        }
        Attempt::ReadMemory(pid) => read_memory(pid),
        Attempt::Mount => {
            let (kind, place) =
                (c"tmpfs".as_ptr().expose_provenance(), c"/".as_ptr().expose_provenance());
            call(libc::SYS_mount, [kind, place, kind, 0, 0])
        }
        Attempt::Unshare => call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0]),
        Attempt::SetUser => call(libc::SYS_setresuid, [0; 5]),
        Attempt::SetCapabilities => set_capabilities(),
        Attempt::Execute(path) => execute(&path),
        Attempt::Fork => fork(),
        Attempt::NewRing => new_ring(),
        Attempt::MapExecutable => map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC),
        Attempt::MakeExecutable => make_executable(),
        Attempt::SetDescriptorFlags => {
            call(libc::SYS_fcntl, [libc::STDERR_FILENO as usize, libc::F_SETFL as usize, 0, 0, 0])
        }
        Attempt::BeDumpable => call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 1, 0, 0, 0]),
        // Needs the executor.
        Attempt::Ring(_) => AttemptOutcome::Done,
        Attempt::Fault => fault(),
        Attempt::Abort => std::process::abort(),
        Attempt::Panic => panic!("the probe was asked to panic"),
        Attempt::OverflowStack => {
            black_box(overflow(0));
            AttemptOutcome::Done
        }
        Attempt::Hang => loop {
            std::hint::spin_loop();
        },
    }
}

/// A system call; what its arguments point to has its provenance exposed, or the compiler may not even write it.
fn call(number: libc::c_long, arguments: [usize; 5]) -> AttemptOutcome {
    outcome(raw(number, arguments))
}

fn raw(number: libc::c_long, arguments: [usize; 5]) -> libc::c_long {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: every caller passes integers, or addresses of values that live until the call
    // returns and are as large as it expects. None of the calls touches memory that Rust owns in
    // another way.
    unsafe { libc::syscall(number, first, second, third, fourth, fifth, 0) }
}

fn outcome(result: libc::c_long) -> AttemptOutcome {
    if result >= 0 {
        return AttemptOutcome::Done;
    }
    let error = std::io::Error::last_os_error();
    AttemptOutcome::Refused(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Those that are sockets: only there the kernel comes to look at the (missing) message.
pub(super) fn sockets(descriptors: &[i32]) -> Vec<i32> {
    let flags = libc::MSG_DONTWAIT as usize;
    let is_socket = |fd: &&i32| {
        call(libc::SYS_sendmsg, [**fd as usize, 0, flags, 0, 0])
            == AttemptOutcome::Refused(libc::EFAULT)
    };
    descriptors.iter().filter(is_socket).copied().collect()
}

fn terminated(path: &str) -> CString {
    CString::new(path).unwrap_or_default()
}

fn open(path: &str, flags: libc::c_int) -> AttemptOutcome {
    let path = terminated(path);
    let here = libc::AT_FDCWD as usize;
    call(libc::SYS_openat, [here, path.as_ptr().expose_provenance(), flags as usize, 0o600, 0])
}

fn connect_tcp(port: u16) -> AttemptOutcome {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    connect(libc::AF_INET, &address, size_of_val(&address))
}

fn connect_abstract(name: &str) -> AttemptOutcome {
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    // A leading zero byte makes it abstract.
    for (to, from) in address.sun_path[1..].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let length = offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    connect(libc::AF_UNIX, &address, length)
}

fn connect<A>(family: libc::c_int, address: &A, length: usize) -> AttemptOutcome {
    let kind = libc::SOCK_STREAM as usize;
    let socket = raw(libc::SYS_socket, [family as usize, kind, 0, 0, 0]);
    if socket < 0 {
        return outcome(socket);
    }
    let address = std::ptr::from_ref(address).expose_provenance();
    call(libc::SYS_connect, [socket as usize, address, length, 0, 0])
}

fn read_memory(pid: i32) -> AttemptOutcome {
    let mut word = 0_u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: size_of_val(&word) };
    let local = (&raw const local).expose_provenance();
    // The address of ours serves as one of theirs; whether it is mapped there does not matter.
    call(libc::SYS_process_vm_readv, [pid as usize, local, 1, local, 1])
}

fn set_capabilities() -> AttemptOutcome {
    /// `_LINUX_CAPABILITY_VERSION_3`
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    // Effective, permitted and inheritable, the low and the high half.
    let all = [u32::MAX, u32::MAX, 0, u32::MAX, u32::MAX, 0];
    call(
        libc::SYS_capset,
        [header.as_ptr().expose_provenance(), all.as_ptr().expose_provenance(), 0, 0, 0],
    )
}

fn execute(path: &str) -> AttemptOutcome {
    let path = terminated(path);
    let arguments = [path.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    call(
        libc::SYS_execve,
        [
            path.as_ptr().expose_provenance(),
            arguments.as_ptr().expose_provenance(),
            environment.as_ptr().expose_provenance(),
            0,
            0,
        ],
    )
}

fn fork() -> AttemptOutcome {
    match raw(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0]) {
        // SAFETY: ends the child, which should not exist.
        0 => unsafe { libc::_exit(0) },
        result => outcome(result),
    }
}

fn new_ring() -> AttemptOutcome {
    // struct io_uring_params is 120 bytes; all zero asks for a plain ring.
    let parameters = [0_u64; 16];
    call(libc::SYS_io_uring_setup, [4, parameters.as_ptr().expose_provenance(), 0, 0, 0])
}

fn map(protection: libc::c_int) -> AttemptOutcome {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    call(libc::SYS_mmap, [0, PAGE, protection as usize, flags, usize::MAX])
}

fn make_executable() -> AttemptOutcome {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let page = raw(libc::SYS_mmap, [0, PAGE, 0, flags, usize::MAX]);
    if page < 0 {
        return outcome(page);
    }
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as usize;
    call(libc::SYS_mprotect, [page as usize, PAGE, executable, 0, 0])
}

/// The first page is never mapped.
fn fault() -> AttemptOutcome {
    let nowhere = std::ptr::without_provenance_mut::<u8>(8);
    // SAFETY: none: the process is meant to die of it, and does.
    unsafe { nowhere.write_volatile(0) };
    AttemptOutcome::Done
}

fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if depth == u64::MAX {
        return 0;
    }
    overflow(depth + 1) + frame[(depth % 512) as usize]
}
