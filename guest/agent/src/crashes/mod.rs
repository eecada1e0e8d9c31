//! Programs that crash: the kernel hands them over, and the host gets a report with a minidump.
//!
//! ```text
//!   program ──SIGSEGV──▶ kernel ──core dump, through a pipe──▶ a second vmm-agent
//!      │ waits until that has ended                               │ /proc/PID: names
//!      ▼                                                          ▼
//!   its parent sees it end                              minidump ──gRPC──▶ port 7779 of the host
//! ```

mod process;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::process::ExitCode;
use std::time::Duration;

use executor::{Config, Executor, KernelFeatures};
use proto::v1::crashes_client::CrashesClient;
use proto::{CRASH_PORT, MAX_CRASH_BYTES, v1};
use rustix::fs::{Mode, OFlags};

use crate::transport::Transport;
use crate::{secret, service};
use process::Process;

/// Where the kernel is told what to do with core dumps (core(5)). This program is found there under every
/// root.
const PATTERN: (&str, &str) =
    ("/proc/sys/kernel/core_pattern", "|/proc/1/exe --crashed %P %I %s %t");
/// How many may crash at the same time; further ones are not reported. With a limit the kernel waits for us,
/// so that the process is there to be looked at.
const LIMIT: (&str, &str) = ("/proc/sys/kernel/core_pipe_limit", "4");
/// Where the kernel's log is written to.
const KERNEL_LOG: &str = "/dev/kmsg";
/// What the host gets to take a report.
const PATIENCE: Duration = Duration::from_secs(20);
/// Few operations are ever under way.
const RING_ENTRIES: u32 = 8;

/// A crash, as the kernel tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crashed {
    pid: u32,
    thread: u32,
    signal: u32,
    /// Since 1970.
    seconds: u64,
}

impl Crashed {
    /// Reads what the kernel makes of the pattern.
    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Option<Self> {
        let numbers: Option<Vec<u64>> =
            words.take(5).map(|word| word.to_str()?.parse().ok()).collect();
        let [pid, thread, signal, seconds] = numbers?.try_into().ok()?;
        let [pid, thread, signal] = [pid, thread, signal].map(u32::try_from);
        Some(Self { pid: pid.ok()?, thread: thread.ok()?, signal: signal.ok()?, seconds })
    }
}

/// Has the kernel tell us of crashes. One that cannot make core dumps has no such file.
pub(crate) fn catch() -> io::Result<()> {
    for (path, text) in [LIMIT, PATTERN] {
        match fs::write(path, text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// Reports a crash, as the process that the kernel has started for it.
pub(crate) fn report(crashed: &Crashed) -> ExitCode {
    // There is no other place to say something. What is logged goes to the host like all else.
    if let Ok(log) = rustix::fs::open(KERNEL_LOG, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stderr(&log);
    }
    match try_report(crashed, io::stdin().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let Crashed { pid, signal, .. } = crashed;
            log::warn!("process {pid} crashed with signal {signal}, without a report: {why}");
            ExitCode::FAILURE
        }
    }
}

fn try_report(crashed: &Crashed, core: impl Read) -> Result<(), String> {
    let config =
        Config { entries: RING_ENTRIES, without: KernelFeatures::FIXED_FILES, ..Config::default() };
    let mut executor = Executor::new(&config).map_err(|error| error.to_string())?;
    executor.block_on(async {
        let sent = async {
            let secret = secret::from_firmware().map_err(|error| error.to_string())?;
            // Before all else: nobody may listen, and then nothing has to be read.
            let socket = Transport::Vsock
                .connect_to_host(CRASH_PORT)
                .await
                .map_err(|error| format!("the host does not take it: {error}"))?;
            let channel = rpc::Channel::open(socket).await.map_err(|error| error.to_string())?;
            let channel = channel.authorized_by(&secret.to_authorization());
            let origin = http::Uri::from_static("http://host");
            let mut host = CrashesClient::with_origin(channel, origin)
                .max_encoding_message_size(MAX_CRASH_BYTES);
            let report = describe(crashed, core);
            host.report(report).await.map(drop).map_err(|status| status.message().to_owned())
        };
        executor::timeout(PATIENCE, sent).await.map_err(|error| error.to_string())?
    })
}

/// All that is known. A core dump that cannot be read leaves what the kernel says.
fn describe(crashed: &Crashed, core: impl Read) -> v1::CrashReport {
    let Crashed { pid, thread, signal, seconds } = *crashed;
    let process = Process::read(pid);
    let converted = coredump::convert(core, &process.about(pid, seconds));
    let mut report = v1::CrashReport {
        program: process.program.clone(),
        command_line: process.command_line.clone(),
        pid,
        thread,
        thread_name: process.thread_name(thread).unwrap_or_default().into(),
        signal,
        time_ns: seconds.saturating_mul(1_000_000_000),
        kernel: service::kernel_release(),
        ..v1::CrashReport::default()
    };
    match converted {
        Ok(crash) => {
            report.code = crash.code;
            report.address = crash.address;
            report.minidump = crash.minidump;
        }
        Err(error) => report.problem = error.to_string(),
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_kernel_are_numbers() {
        let of = |words: &[&str]| Crashed::parse(words.iter().map(OsString::from));
        let expected = Crashed { pid: 7, thread: 8, signal: 11, seconds: 1_795_273_445 };
        assert_eq!(of(&["7", "8", "11", "1795273445"]), Some(expected));
        for wrong in [&["7", "8", "11"][..], &["7", "8", "11", "x"], &["1", "2", "3", "4", "5"]] {
            assert_eq!(of(wrong), None);
        }
    }
}
