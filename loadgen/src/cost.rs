//! What processes spend.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The number of the trace point that each system call passes, where the kernel's tracing is.
const TRACE_POINT: &str = "events/raw_syscalls/sys_enter/id";

/// Where the kernel's tracing is mounted, if it is.
const TRACING: &str = "/sys/kernel/tracing";

/// What was spent in a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Processor time of all threads.
    pub cpu: Duration,
    /// System calls; none where this user may not count them.
    pub system_calls: Option<u64>,
    /// Context switches, wanted and unwanted.
    pub switches: u64,
}

impl Cost {
    /// Both together; system calls only if both were counted.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            system_calls: self.system_calls.zip(other.system_calls).map(|(a, b)| a + b),
            switches: self.switches + other.switches,
        }
    }
}

/// Whether system calls are counted. That makes each of them dearer, by more than a tenth of a microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCalls {
    /// They are.
    Counted,
    /// They are not.
    Uncounted,
}

/// A process and all that come from it.
pub struct Processes {
    threads: Vec<Thread>,
}

struct Thread {
    /// Its folder in /proc.
    folder: PathBuf,
    calls: Option<Counter>,
    before: Cost,
}

impl Processes {
    /// Looks at a process, its descendants and all their threads as they are now, and begins to count.
    pub fn watch(root: u32, calls: SystemCalls) -> io::Result<Self> {
        let mut threads = Vec::new();
        for pid in family(root)? {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                threads.push(Thread::watch(task.path(), calls));
            }
        }
        Ok(Self { threads })
    }

    /// The threads of a process and of its descendants.
    pub(crate) fn threads(root: u32) -> io::Result<Vec<i32>> {
        let tasks = |pid| fs::read_dir(format!("/proc/{pid}/task"));
        let all = family(root)?.into_iter().filter_map(|pid| tasks(pid).ok()).flatten().flatten();
        Ok(all.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect())
    }

    /// Looks at this thread alone, and begins to count.
    pub fn this_thread() -> Self {
        let folder = format!("/proc/self/task/{}", rustix::thread::gettid());
        Self { threads: vec![Thread::watch(folder.into(), SystemCalls::Counted)] }
    }

    /// System calls until now, if they are counted.
    pub fn system_calls(&mut self) -> Option<u64> {
        self.threads.iter_mut().map(|thread| thread.calls.as_mut()?.read().ok()).sum()
    }

    /// What was spent since then.
    pub fn cost(mut self) -> Cost {
        let mut sum = Cost { system_calls: self.system_calls(), ..Cost::default() };
        for thread in &self.threads {
            let cost = thread.cost();
            sum.cpu += cost.cpu;
            sum.switches += cost.switches;
        }
        sum
    }
}

impl Thread {
    fn watch(folder: PathBuf, calls: SystemCalls) -> Self {
        let tid = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
        let tid = tid.filter(|_| calls == SystemCalls::Counted);
        let calls = tid.and_then(|tid| count_calls(tid).ok());
        let before = spent(&folder);
        Self { folder, calls, before }
    }

    /// What it has spent beside system calls.
    fn cost(&self) -> Cost {
        let now = spent(&self.folder);
        Cost {
            // A thread that has ended is counted until it was last seen: not at all.
            cpu: now.cpu.saturating_sub(self.before.cpu),
            system_calls: None,
            switches: now.switches.saturating_sub(self.before.switches),
        }
    }
}

/// Counts the system calls of a thread: a trace point of the kernel, for root alone on most machines.
fn count_calls(tid: i32) -> io::Result<Counter> {
    static ENTRY: OnceLock<Result<u64, io::ErrorKind>> = OnceLock::new();
    let id = *ENTRY.get_or_init(|| entry_number().map_err(|error| error.kind()));
    let entry = Tracepoint::with_id(id?);
    let mut counter = Builder::new(entry).observe_pid(tid).any_cpu().include_kernel().build()?;
    counter.enable()?;
    Ok(counter)
}

/// The number of the trace point. Where nobody has mounted the kernel's tracing it is mounted for this
/// alone, out of everybody's sight.
fn entry_number() -> io::Result<u64> {
    let text = fs::read_to_string(format!("{TRACING}/{TRACE_POINT}")).or_else(|_| {
        let tracing = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(tracing.as_fd())?;
        let (flags, attributes) = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
        let mount = fsmount(tracing.as_fd(), flags, attributes)?;
        let file = openat(mount, TRACE_POINT, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        io::read_to_string(fs::File::from(file))
    })?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What a thread has spent so far.
fn spent(folder: &std::path::Path) -> Cost {
    let nanoseconds = fs::read_to_string(folder.join("schedstat"))
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0);
    let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
    let switches = status
        .lines()
        .filter(|line| line.contains("voluntary_ctxt_switches"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    Cost { cpu: Duration::from_nanos(nanoseconds), system_calls: None, switches }
}

/// A process and its descendants.
fn family(root: u32) -> io::Result<BTreeSet<u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // The name in parentheses may hold anything: the parent is the second word behind it.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse::<u32>().ok()) {
            parents.insert(pid, parent);
        }
    }
    let mut known = BTreeSet::from([root]);
    loop {
        let found: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| known.contains(parent) && !known.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if found.is_empty() {
            return Ok(known);
        }
        known.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_family_of_a_process_is_found() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let family = family(std::process::id()).unwrap();
        assert!(family.contains(&std::process::id()) && family.contains(&child.id()));
        let spent = Processes::watch(child.id(), SystemCalls::Counted).unwrap().cost();
        assert!(spent.cpu < Duration::from_mins(1));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
