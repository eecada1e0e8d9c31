//! How the guest is doing, out of /proc and statvfs.

use proto::v1;

/// Takes the figures. One that the kernel does not show is 0.
pub(crate) fn take() -> v1::StatisticsReply {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let disk = rustix::fs::statvfs("/").ok();
    let (cpu_busy, cpu_idle) = processor_time(&read("/proc/stat"));
    v1::StatisticsReply {
        memory_total: memory_bytes(&memory, "MemTotal:"),
        memory_available: memory_bytes(&memory, "MemAvailable:"),
        uptime_ms: thousandths(&read("/proc/uptime")),
        load_milli: thousandths(&read("/proc/loadavg")),
        disk_total: disk.as_ref().map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
        disk_available: disk.as_ref().map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        cpu_busy,
        cpu_idle,
    }
}

/// A line of /proc/meminfo: `MemTotal:  16316412 kB`.
fn memory_bytes(file: &str, name: &str) -> u64 {
    let line = file.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

/// The first number of a file, such as `12.34`, in thousandths.
fn thousandths(file: &str) -> u64 {
    let number = file.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    number.map_or(0, |number| (number * 1000.0) as u64)
}

/// Ticks that all processors were busy and idle: the first line of /proc/stat, whose fields are
/// user, nice, system, idle, iowait, irq, softirq, steal.
fn processor_time(file: &str) -> (u64, u64) {
    let fields = file.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    fields.split_whitespace().take(8).enumerate().fold((0u64, 0u64), |(busy, idle), (at, field)| {
        let ticks = field.parse().unwrap_or(0);
        if at == 3 || at == 4 {
            (busy, idle.saturating_add(ticks))
        } else {
            (busy.saturating_add(ticks), idle)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read() {
        assert_eq!(memory_bytes("A: 1 kB\nMemTotal:  16 kB\n", "MemTotal:"), 16 << 10);
        assert_eq!(memory_bytes("", "MemTotal:"), 0);
        assert_eq!(thousandths("12.34 1.0\n"), 12_340);
        assert_eq!(processor_time("cpu  1 2 3 10 20 4 5 6 7 8\ncpu0 1\n"), (21, 30));
        assert_eq!(processor_time("cpu  x\n"), (0, 0));
    }

    #[test]
    fn this_machine_has_figures() {
        let now = take();
        assert!(now.memory_total >= now.memory_available && now.memory_total > 0);
        assert!(now.uptime_ms > 0 && now.disk_total > 0);
    }
}
