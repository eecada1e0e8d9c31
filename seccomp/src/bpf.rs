//! Classic BPF: a backwards assembler, and an interpreter to check what it made.
//!
//! Jumps of BPF only go forward, and conditional ones at most 255 instructions. Code is therefore
//! emitted from its end to its start: every target is known when a jump to it is written, and one
//! that is too far gets an unconditional jump (with 32 bits of range) beside it.

use std::fmt;

use seccompiler::{BpfProgram, apply_filter, sock_filter};

use crate::arch::Arch;
use crate::policy::Action;

/// Instruction codes (`linux/bpf_common.h`).
mod code {
    pub(super) const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
    pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    pub(super) const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    pub(super) const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K
}

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The kernel's limit (`BPF_MAXINSNS`).
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// A condition of a jump on the loaded word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// A place in the code, as its distance from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Code under construction, last instruction first.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    reversed: Vec<sock_filter>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.here()
    }

    /// The instruction that was emitted last, which comes first.
    pub(crate) fn here(&self) -> Label {
        Label(self.reversed.len())
    }

    /// Ends the filter with a verdict.
    pub(crate) fn verdict(&mut self, code: u32) -> Label {
        self.push(code::RETURN, 0, 0, code)
    }

    /// Loads the system call's number.
    pub(crate) fn load_number(&mut self) -> Label {
        self.push(code::LOAD_WORD, 0, 0, NUMBER)
    }

    /// Loads the architecture.
    pub(crate) fn load_arch(&mut self) -> Label {
        self.push(code::LOAD_WORD, 0, 0, ARCH)
    }

    /// Loads the low half of an argument; both our architectures are little-endian.
    pub(crate) fn load_low(&mut self, argument: u8) -> Label {
        self.push(code::LOAD_WORD, 0, 0, ARGUMENTS + 8 * u32::from(argument))
    }

    /// Loads the high half of an argument.
    pub(crate) fn load_high(&mut self, argument: u8) -> Label {
        self.push(code::LOAD_WORD, 0, 0, ARGUMENTS + 8 * u32::from(argument) + 4)
    }

    /// Goes to `then` if the loaded word passes `test`, else to `otherwise`.
    pub(crate) fn branch(&mut self, test: Test, k: u32, then: Label, otherwise: Label) -> Label {
        // A far target is reached over a jump that stands right behind the branch. Making the
        // second one near pushes the first one instruction away at most, hence the loop.
        let (mut then, mut otherwise) = (then, otherwise);
        while self.distance(then) > u8::MAX.into() || self.distance(otherwise) > u8::MAX.into() {
            if self.distance(then) > u8::MAX.into() {
                then = self.push(code::JUMP, 0, 0, self.distance(then) as u32);
            } else {
                otherwise = self.push(code::JUMP, 0, 0, self.distance(otherwise) as u32);
            }
        }
        let (jt, jf) = (self.distance(then) as u8, self.distance(otherwise) as u8);
        let code = match test {
            Test::Equal => code::JUMP_EQUAL,
            Test::Greater => code::JUMP_GREATER,
            Test::GreaterOrEqual => code::JUMP_GREATER_EQUAL,
            Test::AnyBit => code::JUMP_SET,
        };
        self.push(code, jt, jf, k)
    }

    /// Makes sure that the code goes on at `target`.
    pub(crate) fn go_to(&mut self, target: Label) -> Label {
        match self.distance(target) {
            0 => target,
            distance => self.push(code::JUMP, 0, 0, distance as u32),
        }
    }

    /// Instructions between the one to be emitted next and `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0
    }

    pub(crate) fn len(&self) -> usize {
        self.reversed.len()
    }

    pub(crate) fn finish(mut self, arch: Arch) -> Program {
        self.reversed.reverse();
        Program { instructions: self.reversed, arch }
    }
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: BpfProgram,
    arch: Arch,
}

/// What a filter returned: a `SECCOMP_RET_*` code with its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict(pub u32);

impl Program {
    /// The architecture that it was compiled for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether there are no instructions; a compiled filter always has some.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// Puts the calling thread under the filter for good; sets `no_new_privs`.
    pub fn install(&self) -> Result<(), seccompiler::Error> {
        apply_filter(&self.instructions)
    }

    /// What the filter says of a call, by running it here. `None` only for code that the kernel
    /// would not load, which [`crate::compile`] does not make.
    pub fn run(&self, audit_arch: u32, number: u32, arguments: &[u64; 6]) -> Option<Verdict> {
        let mut word = 0;
        let mut next = 0;
        // Jumps only go forward, so this ends.
        loop {
            let at = self.instructions.get(next)?;
            next += 1;
            let passes = match at.code {
                code::RETURN => return Some(Verdict(at.k)),
                code::LOAD_WORD => {
                    word = load(at.k, audit_arch, number, arguments)?;
                    continue;
                }
                code::JUMP => {
                    next += at.k as usize;
                    continue;
                }
                code::JUMP_EQUAL => word == at.k,
                code::JUMP_GREATER => word > at.k,
                code::JUMP_GREATER_EQUAL => word >= at.k,
                code::JUMP_SET => word & at.k != 0,
                _ => return None,
            };
            next += usize::from(if passes { at.jt } else { at.jf });
        }
    }

    /// A line for each instruction, for people.
    pub fn disassemble(&self) -> Vec<String> {
        // What is compared was loaded last: code that jumps past a load loads again.
        let mut loaded = NUMBER;
        let line = |(index, at): (usize, &sock_filter)| {
            let target = |offset: u8| index + 1 + usize::from(offset);
            let branch = |name| {
                let k = at.k;
                let call = self.arch.name(k).filter(|_| loaded == NUMBER);
                let call = call.map_or_else(String::new, |call| format!(" ({call})"));
                let (then, otherwise) = (target(at.jt), target(at.jf));
                format!("{index:4}: {name} {k:#x}{call}, then {then}, else {otherwise}")
            };
            match at.code {
                code::RETURN => format!("{index:4}: {}", Verdict(at.k)),
                code::LOAD_WORD => {
                    loaded = at.k;
                    format!("{index:4}: load {}", field(at.k))
                }
                code::JUMP => format!("{index:4}: jump {}", index + 1 + at.k as usize),
                code::JUMP_EQUAL => branch("if =="),
                code::JUMP_GREATER => branch("if >"),
                code::JUMP_GREATER_EQUAL => branch("if >="),
                code::JUMP_SET => branch("if &"),
                other => format!("{index:4}: code {other:#x}"),
            }
        };
        self.instructions.iter().enumerate().map(line).collect()
    }
}

/// As a policy says it.
impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DATA: u32 = 0xffff;
        let plain = [
            Action::Allow,
            Action::KillProcess,
            Action::KillThread,
            Action::Trap,
            Action::Trace,
            Action::Log,
            Action::UserNotify,
        ];
        let errno = self.0 & DATA;
        match plain.iter().find(|action| action.code() == self.0) {
            Some(action) => formatter.write_str(action.name()),
            None if self.0 & !DATA == Action::Errno(0).code() => {
                write!(formatter, "return {errno}")
            }
            None => write!(formatter, "verdict {:#010x}", self.0),
        }
    }
}

fn load(offset: u32, audit_arch: u32, number: u32, arguments: &[u64; 6]) -> Option<u32> {
    match offset {
        NUMBER => Some(number),
        ARCH => Some(audit_arch),
        _ => {
            let half = offset.checked_sub(ARGUMENTS)? / 4;
            let argument = *arguments.get(half as usize / 2)?;
            Some(if half.is_multiple_of(2) { argument as u32 } else { (argument >> 32) as u32 })
        }
    }
}

fn field(offset: u32) -> String {
    match offset {
        NUMBER => "number".into(),
        ARCH => "arch".into(),
        _ => {
            let half = offset.saturating_sub(ARGUMENTS) / 4;
            let name = if half.is_multiple_of(2) { "low" } else { "high" };
            format!("{name} half of arg{}", half / 2)
        }
    }
}
