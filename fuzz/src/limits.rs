//! What a target may take of the host.

use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, Rlimit, setrlimit};

/// More than any file of a device, and little enough for any disk.
const MOST_FILE_BYTES: u64 = 512 << 20;

/// A guest may ask for files as large as it likes: here it gets `EFBIG` early.
pub(crate) fn keep_files_small() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // What comes beside the error would end the process; this takes it and does nothing.
        let seen = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen).expect("a signal");
        let limit = Rlimit { current: Some(MOST_FILE_BYTES), maximum: Some(MOST_FILE_BYTES) };
        setrlimit(Resource::Fsize, limit).expect("a smaller limit");
    });
}
