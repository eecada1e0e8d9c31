//! How a disk would be served, and why.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use devices::virtio::blk::{Access, BlockImage, DiskOptions, IoStrategy, Storage};
use loadgen::native::{self, Way};
use loadgen::{LoadError, Order, Polling, Workload};

use super::report::Check;

const NAME: &str = "disk";

/// Requests under way while it is tried.
const DEPTH: u16 = 32;

pub(super) fn checks(path: &Path) -> Vec<Check> {
    let options = DiskOptions { access: Access::ReadOnly, ..DiskOptions::new(path) };
    match BlockImage::open(&options) {
        Ok(image) => vec![way(&image), speed(path)],
        Err(error) => {
            let cause = std::error::Error::source(&error);
            let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
            vec![Check::missing(NAME, format!("{error}{cause}")).required()]
        }
    }
}

/// Which way its requests go.
fn way(image: &BlockImage) -> Check {
    let storage = Storage::of(image.file());
    let why = match storage {
        Storage::Memory => "it is in memory, where io_uring hands each request to a worker thread",
        Storage::PageCache => "it has a page cache, and says whether a read has to wait",
        Storage::Direct => "there is no page cache to look into",
        Storage::Silent => "its file system cannot say whether a read has to wait",
    };
    let way = match storage.strategy() {
        IoStrategy::InMemory => {
            "reads from a mapping, without system calls; holes and writes on the spot, by one each"
        }
        IoStrategy::Adaptive => {
            "reads from a mapping, without system calls, as long as storage is seldom waited for, else \
             one alone on the spot and several together through io_uring; writes on the spot"
        }
        IoStrategy::Ring => "all requests through io_uring",
    };
    Check::ok(NAME, format!("{way}: {why}"))
}

/// What either way gives here, for some reads of what is likely to be cached after the first.
fn speed(path: &Path) -> Check {
    let name = "disk speed";
    let workload = Workload {
        access: loadgen::Access::Read,
        check: loadgen::Check::Nothing,
        order: Order::Random,
        block_size: 4096,
        depth: DEPTH,
        queues: 1,
        threads: 1,
        polling: Polling::Always,
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(100),
    };
    let measure = |way| -> Result<f64, LoadError> {
        let doing = "open the file";
        let file = File::open(path).map_err(|source| LoadError::System { doing, source })?;
        Ok(native::run(&file, &workload, way)?.rate())
    };
    match (measure(Way::Calls), measure(Way::Uring)) {
        (Ok(calls), Ok(ring)) => Check::ok(
            name,
            format!(
                "4 KiB reads: {calls:.0}/s on the spot, {ring:.0}/s through io_uring at depth 32"
            ),
        ),
        (Err(error), _) | (_, Err(error)) => Check::warn(name, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_its_way_and_speed_and_a_missing_one_decides() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(1 << 20).expect("it grows");
        let mut report = super::super::report::Report::new(None);
        report.extend(checks(file.path()));
        let text = report.to_text();
        assert!(text.contains("ok      disk        ") && text.contains("/s on the spot"), "{text}");
        assert_eq!(report.exit_code(), 0);
        report.extend(checks(Path::new("/nothing/here")));
        assert_eq!(report.exit_code(), 35, "{}", report.to_text());
    }
}
