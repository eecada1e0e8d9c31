//! The minidump: a header, a directory of streams, and what they point to.

use minidump_common::format::{
    CPU_INFORMATION, CvSignature, MINIDUMP_DIRECTORY, MINIDUMP_EXCEPTION,
    MINIDUMP_EXCEPTION_STREAM, MINIDUMP_HEADER, MINIDUMP_LOCATION_DESCRIPTOR,
    MINIDUMP_MEMORY_DESCRIPTOR, MINIDUMP_MISC_INFO, MINIDUMP_MODULE, MINIDUMP_SIGNATURE,
    MINIDUMP_STREAM_TYPE as Kind, MINIDUMP_SYSTEM_INFO, MINIDUMP_THREAD, MINIDUMP_THREAD_NAME,
    MINIDUMP_VERSION, MiscInfoFlags, PlatformId, ProcessorArchitecture,
};
use scroll::ctx::{SizeWith, TryIntoCtx};
use scroll::{Endian, LE, Pwrite};

use crate::core::{Process, Reason};
use crate::thread::Thread;
use crate::{About, Error};

/// Letters of a name.
const MAX_NAME: usize = 512;
/// Of a file of /proc, but for the list of mappings.
const MAX_TEXT_BYTES: usize = 8 << 10;
const MAX_MAPS_BYTES: usize = 256 << 10;
/// Streams of their own, and those of /proc.
const STREAMS: usize = 7 + 5;

type Location = MINIDUMP_LOCATION_DESCRIPTOR;

/// Writes all that is known.
pub(crate) fn write(process: &Process, about: &About<'_>) -> Result<Vec<u8>, Error> {
    let mut out = Writer::default();
    let header = out.reserve::<MINIDUMP_HEADER>(1);
    let directory = out.reserve::<MINIDUMP_DIRECTORY>(STREAMS);

    let memory = out.memory(process);
    let contexts: Vec<Location> = process
        .threads
        .iter()
        .map(|thread| out.put(thread.context()))
        .collect::<Result<_, Error>>()?;
    let streams = [
        (Kind::SystemInfoStream, out.system(about)?),
        (Kind::MiscInfoStream, out.miscellaneous(about)?),
        (Kind::ExceptionStream, out.exception(process, &contexts)?),
        (Kind::ThreadListStream, out.threads(process, &contexts, &memory)?),
        (Kind::ThreadNamesStream, out.thread_names(about)?),
        (Kind::ModuleListStream, out.modules(process)?),
        (Kind::MemoryListStream, out.list(&memory)?),
        (Kind::LinuxCpuInfo, out.text(about.cpuinfo, MAX_TEXT_BYTES)),
        (Kind::LinuxProcStatus, out.text(about.status, MAX_TEXT_BYTES)),
        (Kind::LinuxCmdLine, out.text(about.cmdline, MAX_TEXT_BYTES)),
        (Kind::LinuxMaps, out.text(about.maps, MAX_MAPS_BYTES)),
        (Kind::LinuxAuxv, out.text(&process.auxiliary, MAX_TEXT_BYTES)),
    ];
    let mut at = directory.rva as usize;
    for (kind, location) in streams {
        let entry = MINIDUMP_DIRECTORY { stream_type: kind.into(), location };
        out.bytes.gwrite_with(entry, &mut at, LE)?;
    }
    let first = MINIDUMP_HEADER {
        signature: MINIDUMP_SIGNATURE,
        version: MINIDUMP_VERSION,
        stream_count: STREAMS as u32,
        stream_directory_rva: directory.rva,
        checksum: 0,
        time_date_stamp: about.time,
        flags: 0,
    };
    out.bytes.pwrite_with(first, header.rva as usize, LE)?;
    Ok(out.bytes)
}

/// What was written so far. What there is of anything is bounded, so that 32 bits are enough for its place.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn reserve<T: SizeWith<Endian>>(&mut self, count: usize) -> Location {
        let rva = self.bytes.len();
        let data_size = T::size_with(&LE) * count;
        self.bytes.resize(rva + data_size, 0);
        Location { data_size: data_size as u32, rva: rva as u32 }
    }

    fn put<T>(&mut self, value: T) -> Result<Location, Error>
    where
        T: SizeWith<Endian> + TryIntoCtx<Endian, Error = scroll::Error>,
    {
        let location = self.reserve::<T>(1);
        self.bytes.pwrite_with(value, location.rva as usize, LE)?;
        Ok(location)
    }

    /// A count and as many of them, as most streams are.
    fn list<T>(&mut self, items: &[T]) -> Result<Location, Error>
    where
        T: SizeWith<Endian> + TryIntoCtx<Endian, Error = scroll::Error> + Clone,
    {
        let mut location = self.put(items.len() as u32)?;
        for item in items {
            location.data_size += self.put(item.clone())?.data_size;
        }
        Ok(location)
    }

    fn text(&mut self, text: &[u8], most: usize) -> Location {
        let text = &text[..text.len().min(most)];
        let rva = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        Location { data_size: text.len() as u32, rva }
    }

    /// `MINIDUMP_STRING`: the length in bytes, UTF-16, and a zero.
    fn string(&mut self, text: &str) -> Result<Location, Error> {
        let units: Vec<u16> =
            text.chars().take(MAX_NAME).collect::<String>().encode_utf16().collect();
        let location = self.put(units.len() as u32 * 2)?;
        for unit in units.into_iter().chain([0]) {
            self.bytes.extend(unit.to_le_bytes());
        }
        Ok(location)
    }

    fn memory(&mut self, process: &Process) -> Vec<MINIDUMP_MEMORY_DESCRIPTOR> {
        let blocks = process.memory.blocks.iter();
        blocks
            .map(|block| MINIDUMP_MEMORY_DESCRIPTOR {
                start_of_memory_range: block.address,
                memory: self.text(&block.bytes, usize::MAX),
            })
            .collect()
    }

    fn system(&mut self, about: &About<'_>) -> Result<Location, Error> {
        let version = self.string(about.kernel)?;
        // The first numbers of `Linux 6.1.0-41-cloud-amd64 ...`.
        let mut numbers = about
            .kernel
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok());
        let mut number = || numbers.next().unwrap_or_default();
        self.put(MINIDUMP_SYSTEM_INFO {
            processor_architecture: ProcessorArchitecture::PROCESSOR_ARCHITECTURE_AMD64 as u16,
            processor_level: 0,
            processor_revision: 0,
            number_of_processors: about.processors,
            product_type: 0,
            major_version: number(),
            minor_version: number(),
            build_number: number(),
            platform_id: PlatformId::Linux as u32,
            csd_version_rva: version.rva,
            suite_mask: 0,
            reserved2: 0,
            cpu: CPU_INFORMATION { data: [0; 24] },
        })
    }

    fn miscellaneous(&mut self, about: &About<'_>) -> Result<Location, Error> {
        self.put(MINIDUMP_MISC_INFO {
            size_of_info: MINIDUMP_MISC_INFO::size_with(&LE) as u32,
            flags1: MiscInfoFlags::MINIDUMP_MISC1_PROCESS_ID.bits(),
            process_id: about.pid,
            process_create_time: 0,
            process_user_time: 0,
            process_kernel_time: 0,
        })
    }

    fn exception(&mut self, process: &Process, contexts: &[Location]) -> Result<Location, Error> {
        let crashed = process.threads.first().ok_or(Error::NoThreads)?;
        let Reason { signal, code, address } = process.reason(crashed);
        self.put(MINIDUMP_EXCEPTION_STREAM {
            thread_id: crashed.id,
            __align: 0,
            exception_record: MINIDUMP_EXCEPTION {
                exception_code: signal,
                exception_flags: code.cast_unsigned(),
                exception_address: address,
                ..MINIDUMP_EXCEPTION::default()
            },
            thread_context: contexts.first().copied().unwrap_or_default(),
        })
    }

    fn threads(
        &mut self,
        process: &Process,
        contexts: &[Location],
        memory: &[MINIDUMP_MEMORY_DESCRIPTOR],
    ) -> Result<Location, Error> {
        let stack = |thread: &Thread| -> Option<MINIDUMP_MEMORY_DESCRIPTOR> {
            let block = process.memory.stack_of(thread)?;
            memory.iter().find(|it| it.start_of_memory_range == block.address).copied()
        };
        let threads: Vec<_> = process
            .threads
            .iter()
            .zip(contexts)
            .map(|(thread, &thread_context)| MINIDUMP_THREAD {
                thread_id: thread.id,
                suspend_count: 0,
                priority_class: 0,
                priority: 0,
                teb: thread.registers.fs_base.get(),
                stack: stack(thread).unwrap_or_default(),
                thread_context,
            })
            .collect();
        self.list(&threads)
    }

    fn thread_names(&mut self, about: &About<'_>) -> Result<Location, Error> {
        let mut names = Vec::new();
        for (thread_id, name) in about.thread_names.iter().take(crate::notes::MAX_THREADS) {
            let thread_name_rva = self.string(name)?.rva.into();
            names.push(MINIDUMP_THREAD_NAME { thread_id: *thread_id, thread_name_rva });
        }
        self.list(&names)
    }

    fn modules(&mut self, process: &Process) -> Result<Location, Error> {
        let mut modules = Vec::new();
        for module in &process.modules {
            let name = self.string(&module.name)?;
            let identity = if module.build_id.is_empty() {
                Location::default()
            } else {
                let mut location = self.put(CvSignature::Elf as u32)?;
                location.data_size += self.text(&module.build_id, usize::MAX).data_size;
                location
            };
            modules.push(MINIDUMP_MODULE {
                base_of_image: module.start,
                size_of_image: u32::try_from(module.end.saturating_sub(module.start))
                    .unwrap_or(u32::MAX),
                module_name_rva: name.rva,
                cv_record: identity,
                ..MINIDUMP_MODULE::default()
            });
        }
        self.list(&modules)
    }
}
