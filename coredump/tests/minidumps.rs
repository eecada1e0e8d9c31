//! Core dumps as Linux writes them, converted and read back by the minidump tools' own reader.

use coredump::{About, Crash, Error, MAX_BYTES, convert};
use minidump::system_info::{Cpu, Os};
use minidump::{
    CrashReason, Minidump, MinidumpException, MinidumpModuleList, MinidumpSystemInfo,
    MinidumpThreadList, MinidumpThreadNames, Module,
};
use proptest::prelude::*;

const PROGRAM: u64 = 0x5555_5555_0000;
const STACKS: u64 = 0x7fff_0000_0000;
const STACK_BYTES: u64 = 0x1_0000;
const BUILD_ID: [u8; 20] = *b"20 bytes of build id";
/// The same as tools write it.
const BUILD_ID_TEXT: &str = "3230206279746573206f66206275696c64206964";
const PAGE: u64 = 4096;
const SEGV: i32 = 11;
const MAPPING_ERROR: i32 = 1;
const CRASHED: u32 = 4242;

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn note(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for number in [5, contents.len() as u32, kind] {
        note.extend(number.to_le_bytes());
    }
    note.extend(b"CORE\0\0\0\0");
    note.extend(contents);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

fn status(id: u32, rip: u64, rsp: u64) -> Vec<u8> {
    let mut status = vec![0; 336];
    status[32..36].copy_from_slice(&id.to_le_bytes());
    status[112 + 16 * 8..][..8].copy_from_slice(&rip.to_le_bytes());
    status[112 + 19 * 8..][..8].copy_from_slice(&rsp.to_le_bytes());
    note(1, &status)
}

fn header(kind: u16, count: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend(kind.to_le_bytes());
    header.extend(62_u16.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    header.extend(words(&[0, 64, 0]));
    header.extend(0_u32.to_le_bytes());
    for number in [64, 56, count, 0, 0, 0_u16] {
        header.extend(number.to_le_bytes());
    }
    header
}

fn program_header(kind: u32, flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    header.extend(words(&[offset, address, 0, size, size, PAGE]));
    header
}

/// The first page of a program that has a build id.
fn program() -> Vec<u8> {
    let mut id = [4_u32, 20, 3].map(u32::to_le_bytes).concat();
    id.extend(b"GNU\0");
    id.extend(BUILD_ID);
    let mut page = header(3, 1);
    page.extend(program_header(4, 4, 120, 120, id.len() as u64));
    page.extend(id);
    page.resize(PAGE as usize, 0);
    page
}

/// A process of two threads, whose second one crashed: that is the first of the dump.
fn core() -> Vec<u8> {
    let signal = [SEGV, 0, MAPPING_ERROR, 0].map(i32::to_le_bytes).concat();
    let mut files = words(&[2, PAGE, PROGRAM, PROGRAM + PAGE, 0]);
    files.extend(words(&[PROGRAM + PAGE, PROGRAM + 2 * PAGE, 1]));
    files.extend(b"/usr/bin/crasher\0/usr/bin/crasher\0");
    let notes = [
        status(CRASHED, PROGRAM + PAGE + 7, STACKS + STACK_BYTES - 512),
        note(0x5349_4749, &[signal, words(&[0xdead_0000]), vec![0; 104]].concat()),
        note(6, &words(&[9, PROGRAM + PAGE, 0, 0])),
        note(0x4649_4c45, &files),
        note(2, &[7; 512]),
        note(0x202, &[0; 2700]),
        status(4241, PROGRAM + PAGE + 1, STACKS + 0x100),
        note(2, &[9; 512]),
    ]
    .concat();
    let notes_at = 64 + 4 * 56;
    let first = (notes_at + notes.len() as u64).next_multiple_of(PAGE);
    let mut core = header(4, 4);
    core.extend(program_header(4, 0, notes_at, 0, notes.len() as u64));
    core.extend(program_header(1, 4, first, PROGRAM, PAGE));
    core.extend(program_header(1, 5, first + PAGE, PROGRAM + PAGE, 0));
    core.extend(program_header(1, 6, first + PAGE, STACKS, STACK_BYTES));
    core.extend(notes);
    core.resize(first as usize, 0);
    core.extend(program());
    core.extend((0..STACK_BYTES).map(|at| (at >> 4) as u8));
    core
}

fn about(names: &[(u32, String)]) -> About<'_> {
    About {
        pid: 4241,
        time: 1_795_273_445,
        kernel: "Linux 6.1.0-41-cloud-amd64 #1 SMP",
        processors: 2,
        thread_names: names,
        cpuinfo: b"processor\t: 0\nvendor_id\t: AuthenticAMD\n",
        status: b"Name:\tcrasher\n",
        cmdline: b"crasher\0",
        maps: b"",
    }
}

#[test]
fn the_thread_that_crashed_is_told_with_its_signal_and_stack() {
    let names = [(CRASHED, "worker".to_owned())];
    let crash = convert(core().as_slice(), &about(&names)).unwrap();
    assert_eq!((crash.thread, crash.signal, crash.code), (CRASHED, 11, MAPPING_ERROR));
    assert_eq!(crash.address, 0xdead_0000);

    let dump = Minidump::read(crash.minidump).unwrap();
    let system = dump.get_stream::<MinidumpSystemInfo>().unwrap();
    assert_eq!((system.os, system.cpu), (Os::Linux, Cpu::X86_64));
    let exception = dump.get_stream::<MinidumpException>().unwrap();
    assert_eq!(exception.get_crashing_thread_id(), CRASHED);
    let reason = exception.get_crash_reason(system.os, system.cpu);
    assert_eq!(reason.to_string(), "SIGSEGV / SEGV_MAPERR");
    assert!(matches!(reason, CrashReason::LinuxSigsegv(_)));
    assert_eq!(exception.get_crash_address(system.os, system.cpu), 0xdead_0000);

    let threads = dump.get_stream::<MinidumpThreadList>().unwrap();
    assert_eq!(threads.threads.len(), 2);
    let crashed = threads.get_thread(CRASHED).unwrap();
    let context = crashed.context(&system, None).unwrap();
    assert_eq!(context.get_instruction_pointer(), PROGRAM + PAGE + 7);
    assert_eq!(context.get_stack_pointer(), STACKS + STACK_BYTES - 512);
    let memory = dump.get_memory().unwrap();
    let stack = crashed.stack_memory(&memory).unwrap();
    let at = STACKS + STACK_BYTES - 512;
    assert_eq!(stack.get_memory_at_address::<u8>(at), Some(((STACK_BYTES - 512) >> 4) as u8));
    let names = dump.get_stream::<MinidumpThreadNames>().unwrap();
    assert_eq!(names.get_name(CRASHED).as_deref(), Some("worker"));

    let modules = dump.get_stream::<MinidumpModuleList>().unwrap();
    let main = modules.main_module().unwrap();
    assert_eq!((main.base_address(), main.size()), (PROGRAM, 2 * PAGE));
    assert_eq!(main.code_file(), "/usr/bin/crasher");
    assert_eq!(main.code_identifier().unwrap().as_str(), BUILD_ID_TEXT);
}

#[test]
fn a_dump_that_ends_early_has_what_came_before() {
    let core = core();
    for end in (0..core.len()).step_by(101) {
        match convert(&core[..end], &About::default()) {
            Ok(Crash { thread, minidump, .. }) => {
                assert_eq!(thread, CRASHED);
                assert!(Minidump::read(minidump).is_ok());
            }
            Err(error) => assert!(matches!(error, Error::Read(_)), "{error}"),
        }
    }
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(convert(program().as_slice(), &About::default()), Err(Error::Format)));
    assert!(matches!(convert(&b"text"[..], &About::default()), Err(Error::Read(_))));
    let mut endless = core();
    endless[56..58].copy_from_slice(&0xffff_u16.to_le_bytes());
    assert!(matches!(convert(endless.as_slice(), &About::default()), Err(Error::TooMany(_))));
}

#[test]
fn many_threads_and_files_stay_within_the_limit() {
    let stacks = 600 * 0x1_0000;
    let mut notes: Vec<u8> = Vec::new();
    for thread in 0..600 {
        notes.extend(status(thread, 1, STACKS + u64::from(thread) * 0x1_0000));
        notes.extend(note(2, &[0; 512]));
    }
    let count = 1000;
    let mut files = words(&[count, PAGE]);
    for file in 0..count {
        files.extend(words(&[STACKS + file * PAGE, STACKS + (file + 1) * PAGE, 0]));
    }
    for file in 0..count {
        files.extend(format!("/{file:04000}\0").bytes());
    }
    notes.extend(note(0x4649_4c45, &files));
    let mut core = header(4, 2);
    core.extend(program_header(4, 0, 64 + 2 * 56, 0, notes.len() as u64));
    core.extend(program_header(1, 7, 64 + 2 * 56 + notes.len() as u64, STACKS, stacks));
    core.extend(notes);
    core.resize(core.len() + stacks as usize, 1);
    let text = vec![b'x'; 1 << 20];
    let about = About { cpuinfo: &text, status: &text, maps: &text, ..About::default() };
    let crash = convert(core.as_slice(), &about).unwrap();
    assert!(crash.minidump.len() <= MAX_BYTES, "{}", crash.minidump.len());
    assert!(Minidump::read(crash.minidump).is_ok());
}

proptest! {
    #[test]
    fn any_dump_is_read(changes in proptest::collection::vec((0..4096_usize, any::<u8>()), 0..20)) {
        let mut core = core();
        for (at, byte) in changes {
            core[at] = byte;
        }
        if let Ok(crash) = convert(core.as_slice(), &About::default()) {
            prop_assert!(crash.minidump.len() <= MAX_BYTES);
        }
    }
}
