//! A core dump, read from its beginning to the last byte that is needed.

use std::io::{self, Read};

use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::elf::{EXECUTABLE, FileHeader, Format, LOAD, NOTE, ProgramHeader};
use crate::memory::{self, Memory};
use crate::modules::{self, Module};
use crate::notes::{self, Notes, SignalInfo};
use crate::thread::Thread;

/// The most that fit into the header; those that have more say it at the end of the file, where a pipe is
/// too late (`PN_XNUM`).
const MAX_SEGMENTS: u16 = 0xfffe;
/// What is read to be thrown away, at a time.
const SKIP_BYTES: usize = 64 << 10;

/// Signals with an address: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV.
const WITH_ADDRESS: [u32; 5] = [4, 5, 7, 8, 11];

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) signal: u32,
    pub(crate) code: i32,
    /// The one in question.
    pub(crate) address: u64,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Process {
    /// The first has crashed.
    pub(crate) threads: Vec<Thread>,
    pub(crate) signal: Option<SignalInfo>,
    pub(crate) auxiliary: Vec<u8>,
    pub(crate) modules: Vec<Module>,
    /// Of stacks.
    pub(crate) memory: Memory,
}

/// A range of memory, and where the dump has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    /// As much as the dump has.
    pub(crate) size: u64,
    /// As much as the process had.
    pub(crate) memory_size: u64,
    pub(crate) offset: u64,
    pub(crate) is_executable: bool,
}

/// Reads a core dump as far as anything in it is wanted.
pub(crate) fn read(core: impl Read) -> Result<Process, Error> {
    let mut stream = Stream { from: core, at: 0 };
    let header: FileHeader = stream.object()?;
    if header.format() != Format::Core {
        return Err(Error::Format);
    }
    let count = header.program_header_count.get();
    if count > MAX_SEGMENTS {
        return Err(Error::TooMany("segments"));
    }
    stream.skip_to(header.program_headers.get())?;
    let mut segments = Vec::new();
    let mut table = None;
    for _ in 0..count {
        let header: ProgramHeader = stream.object()?;
        match header.kind.get() {
            LOAD => segments.push(Segment::new(&header)),
            NOTE if table.is_none() => table = Some((header.offset.get(), header.file_size.get())),
            _ => {}
        }
    }
    let (offset, size) = table.ok_or(Error::NoThreads)?;
    stream.skip_to(offset)?;
    let Notes { threads, signal, auxiliary, files } = notes::read(&mut stream, size)?;
    let mut modules = modules::find(&files, &segments, &auxiliary);
    segments.retain(|segment| segment.size > 0);
    segments.sort_by_key(|segment| segment.address);

    let stacks = threads.iter().enumerate();
    let stacks = stacks.filter_map(|(index, thread)| memory::stack(index, thread, &segments));
    let wanted = memory::wanted(stacks, modules.iter().map(|module| module.start), &segments);
    let mut memory = memory::read(&mut stream, &segments, wanted);
    for module in &mut modules {
        module.identify(&memory);
    }
    memory.keep_stacks();
    Ok(Process { threads, signal, auxiliary, modules, memory })
}

impl Segment {
    fn new(header: &ProgramHeader) -> Self {
        let address = header.address.get();
        // Nothing ends behind the end of all addresses.
        let most = u64::MAX - address;
        Self {
            address,
            size: header.file_size.get().min(most),
            memory_size: header.memory_size.get().min(most),
            offset: header.offset.get(),
            is_executable: header.flags.get() & EXECUTABLE != 0,
        }
    }

    /// Where what the dump has of it ends.
    pub(crate) fn end(&self) -> u64 {
        self.address + self.size
    }
}

impl Process {
    pub(crate) fn reason(&self, crashed: &Thread) -> Reason {
        let place = crashed.registers.rip.get();
        let Some(info) = &self.signal else {
            return Reason { signal: 0, code: 0, address: place };
        };
        let (signal, code) = (info.signal.get().unsigned_abs(), info.code.get());
        // One that somebody has sent has a sender in place of an address.
        let has_address = WITH_ADDRESS.contains(&signal) && code > 0;
        Reason { signal, code, address: if has_address { info.address.get() } else { place } }
    }
}

/// Bytes in order.
#[derive(Debug)]
pub(crate) struct Stream<R> {
    from: R,
    at: u64,
}

impl<R: Read> Stream<R> {
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn object<T: FromBytes + IntoBytes>(&mut self) -> io::Result<T> {
        let mut object = T::new_zeroed();
        self.fill(object.as_mut_bytes())?;
        Ok(object)
    }

    /// As many as are wanted; who asks has a limit.
    pub(crate) fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Grows with what comes, not with what is promised.
        (&mut self.from).take(count as u64).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        if bytes.len() < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn skip(&mut self, count: u64) -> io::Result<()> {
        self.skip_to(self.at.saturating_add(count))
    }

    /// Passes over what comes before an offset. There is no way back.
    pub(crate) fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let mut rest = offset.checked_sub(self.at).ok_or(io::ErrorKind::InvalidData)?;
        let mut buffer = vec![0; SKIP_BYTES.min(usize::try_from(rest).unwrap_or(SKIP_BYTES))];
        while rest > 0 {
            let most = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let count = match self.from.read(&mut buffer[..most]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.at += count;
            rest -= count;
        }
        Ok(())
    }
}
