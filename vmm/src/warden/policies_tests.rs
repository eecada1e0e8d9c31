use std::fs;

use seccomp::{Action, Verdict};

use super::*;

const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// The system calls that each kind of actor may make, in some way. Whoever adds one says why in
/// the policy, and changes the number here.
const ALLOWED: &[(&str, Arch, usize)] = &[
    ("blk", Arch::X86_64, 45),
    ("blk", Arch::Aarch64, 44),
    ("net", Arch::X86_64, 41),
    ("net", Arch::Aarch64, 40),
    ("vsock", Arch::X86_64, 32),
    ("vsock", Arch::Aarch64, 31),
    ("console", Arch::X86_64, 37),
    ("console", Arch::Aarch64, 36),
    ("rng", Arch::X86_64, 30),
    ("rng", Arch::Aarch64, 29),
    ("balloon", Arch::X86_64, 31),
    ("balloon", Arch::Aarch64, 30),
    ("fs", Arch::X86_64, 75),
    ("fs", Arch::Aarch64, 74),
    ("p9", Arch::X86_64, 79),
    ("p9", Arch::Aarch64, 78),
    ("pmem", Arch::X86_64, 32),
    ("pmem", Arch::Aarch64, 31),
    ("probe", Arch::X86_64, 30),
    ("probe", Arch::Aarch64, 29),
];

#[test]
fn each_policy_allows_as_many_calls_as_recorded() {
    for kind in ActorKind::ALL {
        for arch in ARCHES {
            let policy = built_in_policy(*kind, arch).expect("no mistakes");
            let allowed = policy.allowed_calls();
            let recorded = ALLOWED.iter().find(|(name, of, _)| *name == kind.name() && *of == arch);
            let recorded = recorded.expect("a line in the table").2;
            assert_eq!(allowed.len(), recorded, "{} on {arch:?}: {allowed:?}", kind.name());
        }
    }
}

#[test]
fn kinds_stand_in_the_order_of_their_numbers() {
    for (index, kind) in ActorKind::ALL.iter().enumerate() {
        assert_eq!(*kind as usize, index);
    }
}

/// What nobody in a sandbox has any business with, whatever its arguments are.
#[test]
fn no_policy_allows_what_reaches_beyond_the_process() {
    const NEVER: &str = "
        open openat openat2 creat stat newfstatat statx access readlink unlink rename mkdir
        chmod chdir chroot mount umount2 pivot_root fsopen move_mount open_tree
        name_to_handle_at open_by_handle_at socket socketpair connect bind listen accept
        setsockopt clone clone3 fork vfork execve execveat unshare setns kill tkill
        rt_sigqueueinfo rt_sigaction sigaltstack pidfd_open pidfd_send_signal pidfd_getfd ptrace
        process_vm_readv process_vm_writev process_madvise kcmp prctl arch_prctl seccomp capset
        setuid setgid setresuid setresgid setgroups setrlimit prlimit64 mprotect pkey_mprotect
        memfd_create memfd_secret shmat remap_file_pages userfaultfd io_uring_setup io_setup bpf
        perf_event_open keyctl add_key request_key personality inotify_init1 fanotify_init
        landlock_restrict_self init_module kexec_load reboot syslog sethostname pipe2 dup2 dup3
        eventfd2 signalfd4 timerfd_create epoll_create1
    ";
    for kind in ActorKind::ALL {
        let policy = built_in_policy(*kind, Arch::X86_64).expect("no mistakes");
        let allowed = policy.allowed_calls();
        for call in NEVER.split_whitespace() {
            assert!(Arch::X86_64.number(call).is_some(), "`{call}` is a call");
            let files = matches!(kind, ActorKind::Fs | ActorKind::P9);
            let needed = files && ["openat2", "statx"].contains(&call);
            assert!(needed || !allowed.contains(&call), "{} allows {call}", kind.name());
        }
    }
}

/// Device controls reach deep into the host; each kind names those that it needs.
#[test]
fn device_controls_are_the_few_that_are_needed() {
    const TUNSETIFF: u64 = 0x4004_54ca;
    const TUNSETOFFLOAD: u64 = 0x4004_54d0;
    const TUNSETQUEUE: u64 = 0x4004_54d9;
    let (arch, number) = (Arch::X86_64, Arch::X86_64.number("ioctl").expect("a call"));
    for kind in ActorKind::ALL {
        let policy = built_in_policy(*kind, arch).expect("no mistakes");
        let program = compile_policy(&policy, arch, Enforcement::Enforce).expect("compiles");
        for control in [TUNSETIFF, TUNSETOFFLOAD, TUNSETQUEUE, libc::TIOCSTI, libc::FIONREAD] {
            let needed = *kind == ActorKind::Net && [TUNSETOFFLOAD, TUNSETQUEUE].contains(&control);
            let action = if needed { Action::Allow } else { Action::Trap };
            let verdict = program.run(arch.audit(), number, &[3, control, 0, 0, 0, 0]);
            assert_eq!(verdict, Some(Verdict(action.code())), "{}: {control:#x}", kind.name());
        }
    }
}

/// Whoever accepts talks to strangers: two kinds do, and only on what they were given.
#[test]
fn connections_are_accepted_by_those_who_serve_clients() {
    let (arch, number) = (Arch::X86_64, Arch::X86_64.number("accept4").expect("a call"));
    for kind in ActorKind::ALL {
        let policy = built_in_policy(*kind, arch).expect("no mistakes");
        let program = compile_policy(&policy, arch, Enforcement::Enforce).expect("compiles");
        for flags in [0, libc::SOCK_CLOEXEC as u64, libc::SOCK_NONBLOCK as u64] {
            let serves = matches!(kind, ActorKind::Vsock | ActorKind::P9);
            let needed = serves && flags == libc::SOCK_CLOEXEC as u64;
            let action = if needed { Action::Allow } else { Action::Trap };
            let verdict = program.run(arch.audit(), number, &[3, 0, 0, flags, 0, 0]);
            assert_eq!(verdict, Some(Verdict(action.code())), "{}: {flags:#x}", kind.name());
        }
    }
}

#[test]
fn arguments_that_matter_are_looked_at() {
    const READ_WRITE: u64 = 3;
    const EXECUTE: u64 = 4;
    let table: &[(&str, [u64; 6], bool)] = &[
        ("mmap", [0, 4096, READ_WRITE, 0x22, u64::MAX, 0], true),
        ("mmap", [0, 4096, READ_WRITE | EXECUTE, 0x22, u64::MAX, 0], false),
        ("mmap", [0, 4096, EXECUTE, 0x22, u64::MAX, 0], false),
        ("fcntl", [3, libc::F_DUPFD_CLOEXEC as u64, 0, 0, 0, 0], true),
        ("fcntl", [3, libc::F_SETFL as u64, 0, 0, 0, 0], false),
        ("fcntl", [3, libc::F_SETOWN as u64, 1, 0, 0, 0], false),
        ("tgkill", [1, 1, libc::SIGABRT as u64, 0, 0, 0], true),
        ("tgkill", [1, 1, libc::SIGKILL as u64, 0, 0, 0], false),
        // IORING_REGISTER_FILES_UPDATE, and IORING_REGISTER_RESTRICTIONS
        ("io_uring_register", [3, 6, 0, 1, 0, 0], true),
        ("io_uring_register", [3, 11, 0, 1, 0, 0], false),
        ("madvise", [0, 4096, libc::MADV_DONTNEED as u64, 0, 0, 0], true),
        ("madvise", [0, 4096, libc::MADV_DOFORK as u64, 0, 0, 0], false),
    ];
    for kind in ActorKind::ALL {
        let arch = Arch::X86_64;
        let policy = built_in_policy(*kind, arch).expect("no mistakes");
        let program = compile_policy(&policy, arch, Enforcement::Enforce).expect("compiles");
        for (call, arguments, allowed) in table {
            let number = arch.number(call).expect("a call");
            let action = if *allowed { Action::Allow } else { Action::Trap };
            let verdict = program.run(arch.audit(), number, arguments);
            assert_eq!(verdict, Some(Verdict(action.code())), "{call} {arguments:?}");
        }
    }
}

#[test]
fn a_folder_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = |path: PathBuf| PolicySource { folder: Some(path), ..PolicySource::default() };
    assert!(source(folder.path().into()).compile().is_ok(), "an empty folder overrides nothing");
    let missing = source(folder.path().join("missing")).compile();
    assert!(matches!(missing, Err(PolicyError::Folder { .. })));
}

#[test]
fn a_file_that_cannot_be_a_policy_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("probe.policy");
    let source = PolicySource { folder: Some(folder.path().into()), ..PolicySource::default() };
    fs::create_dir(&path).expect("makes a folder");
    assert!(matches!(source.compile(), Err(PolicyError::Read { .. })));
    fs::remove_dir(&path).expect("removes it");
    fs::write(&path, [0xff, 0xfe]).expect("writes");
    assert!(matches!(source.compile(), Err(PolicyError::Read { .. })));
    fs::write(&path, vec![b'\n'; MAX_BYTES as usize + 1]).expect("writes");
    assert!(matches!(source.compile(), Err(PolicyError::Read { .. })));
    fs::write(&path, "read: 1\nraed: 1\nopenat: arg9 == 1\n").expect("writes");
    let Err(PolicyError::Mistakes { first, others }) = source.compile() else {
        panic!("it has mistakes");
    };
    assert_eq!((first.line, others.len()), (2, 1));
}
