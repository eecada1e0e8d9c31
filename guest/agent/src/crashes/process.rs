//! What `/proc` knows of a process that waits to be looked at.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coredump::About;

/// Threads whose names are read: as many as are told of.
const MAX_THREADS: usize = 512;
/// Of a file of /proc. The list of mappings may be long.
const MAX_TEXT_BYTES: u64 = 8 << 10;
const MAX_MAPS_BYTES: u64 = 256 << 10;

/// What was found; what was not is empty.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) program: Vec<u8>,
    pub(super) command_line: Vec<u8>,
    kernel: String,
    processors: u8,
    threads: Vec<(u32, String)>,
    status: Vec<u8>,
    maps: Vec<u8>,
    cpuinfo: Vec<u8>,
}

impl Process {
    pub(super) fn read(pid: u32) -> Self {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let text = |name: &str| read(&folder.join(name), MAX_TEXT_BYTES);
        let program = fs::read_link(folder.join("exe")).unwrap_or_default();
        let system = rustix::system::uname();
        let words = [system.sysname(), system.release(), system.version()];
        Self {
            program: program.as_os_str().as_bytes().to_vec(),
            command_line: text("cmdline"),
            kernel: words.map(|word| word.to_string_lossy().into_owned()).join(" "),
            processors: std::thread::available_parallelism()
                .map_or(0, |count| u8::try_from(count.get()).unwrap_or(u8::MAX)),
            threads: threads(&folder),
            status: text("status"),
            maps: read(&folder.join("maps"), MAX_MAPS_BYTES),
            cpuinfo: read(Path::new("/proc/cpuinfo"), MAX_TEXT_BYTES),
        }
    }

    pub(super) fn thread_name(&self, thread: u32) -> Option<&str> {
        self.threads.iter().find(|(id, _)| *id == thread).map(|(_, name)| name.as_str())
    }

    pub(super) fn about(&self, pid: u32, seconds: u64) -> About<'_> {
        About {
            pid,
            time: u32::try_from(seconds).unwrap_or_default(),
            kernel: &self.kernel,
            processors: self.processors,
            thread_names: &self.threads,
            cpuinfo: &self.cpuinfo,
            status: &self.status,
            cmdline: &self.command_line,
            maps: &self.maps,
        }
    }
}

fn threads(folder: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
    entries
        .take(MAX_THREADS)
        .filter_map(|entry| {
            let name = read(&entry.path().join("comm"), MAX_TEXT_BYTES);
            let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
            Some((entry.file_name().to_str()?.parse().ok()?, name))
        })
        .collect()
}

fn read(path: &Path, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error is better than nothing.
    if let Ok(file) = File::open(path) {
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_program_and_threads() {
        let pid = std::process::id();
        let process = Process::read(pid);
        assert_eq!(process.program, std::env::current_exe().unwrap().as_os_str().as_bytes());
        assert!(process.command_line.ends_with(b"\0"));
        assert!(process.thread_name(pid).is_some());
        assert!(process.about(pid, 1).kernel.starts_with("Linux "));
        assert!(Process::read(0).program.is_empty());
    }
}
