//! One case: a `vmm exec` of our own program, whose output is kept up to a limit.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::verdict::{self, Outcome, Output, Verdict};
use super::{Case, GRACE, Suite};

/// This very program, also after it was replaced on disk.
const PROGRAM: &str = "/proc/self/exe";
/// What is kept of each stream. Whoever writes more is not held back.
const KEPT_BYTES: usize = 1 << 20;

/// Runs a case to its end.
pub(super) fn run(suite: &Suite, case: &Case) -> Outcome {
    let start = Instant::now();
    let (verdict, output) = match execute(suite, case) {
        Ok((Some(status), output)) => (verdict::judge(case, status, &output), output),
        Ok((None, output)) => {
            (Verdict::Failed("`vmm exec` did not end with its time".into()), output)
        }
        Err(error) => {
            (Verdict::Failed(format!("cannot run `vmm exec`: {error}")), Output::default())
        }
    };
    Outcome { name: case.name.clone(), verdict, time: start.elapsed(), output }
}

fn execute(suite: &Suite, case: &Case) -> io::Result<(Option<i32>, Output)> {
    let mut command = Command::new(PROGRAM);
    command.arg("exec").args(&suite.options).args(&case.options);
    command.arg("--timeout").arg(format!("{}ms", case.timeout.as_millis()));
    for (name, value) in &case.env {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    command.arg("--").args(&case.command);
    command.current_dir(&suite.folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only a system call is made. This thread waits for the process, so it
    // is the process's end that comes first.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
        });
    }
    let mut child = command.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A command need not read it.
                let _ = stdin.write_all(case.stdin.as_bytes());
            }
        });
        let stdout = scope.spawn(|| stdout.map(keep).unwrap_or_default());
        let stderr = scope.spawn(|| stderr.map(keep).unwrap_or_default());
        let status = wait(&mut child, case.timeout + GRACE)?;
        let joined = |text: std::thread::ScopedJoinHandle<'_, Vec<u8>>| {
            text.join().map_err(|_| io::Error::other("a thread panicked"))
        };
        let output = Output { stdout: joined(stdout)?, stderr: joined(stderr)? };
        Ok((status.map(code), output))
    })
}

/// As a shell says it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Waits so long and no longer; what has not ended then is killed, and gives None.
fn wait(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    let ended = rustix::io::retry_on_intr(|| {
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))
    })?;
    if ended == 0 {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    child.wait().map(Some)
}

/// Reads to the end and keeps the beginning.
fn keep(mut from: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    // What broke off is shorter, and shows.
    let _ = from.by_ref().take(KEPT_BYTES as u64).read_to_end(&mut kept);
    let _ = io::copy(&mut from, &mut io::sink());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_is_kept() {
        assert_eq!(keep(io::repeat(7).take(3 << 20)).len(), KEPT_BYTES);
        assert_eq!(keep(&b"short"[..]), b"short");
    }

    #[test]
    fn what_does_not_end_is_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(10)).unwrap().is_none());
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let status = wait(&mut child, Duration::from_mins(1)).unwrap();
        assert_eq!(status.map(code), Some(3));
    }
}
