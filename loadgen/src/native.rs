//! The same requests straight to the kernel, by the better of its two ways: what there is to get.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};

use crate::workload::Blocks;
use crate::{Figures, LoadError, Workload};

/// How requests get to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One ring, as many requests in it as the workload is deep.
    Uring,
    /// `pread` and `pwrite`, one after the other.
    Calls,
}

/// Runs a workload of one queue on this thread.
pub fn run(file: &File, workload: &Workload, way: Way) -> Result<Figures, LoadError> {
    let length = file.metadata().map_err(LoadError::system("look at the file"))?.len();
    let count = length / u64::from(workload.block_size);
    if count == 0 {
        return Err(LoadError::Unfit("has less than one block".into()));
    }
    let mut blocks = Blocks::new(workload, 0, count);
    let begin = Instant::now() + workload.warm_up;
    let end = begin + workload.duration;
    let mut window = Window { begin, end, figures: Figures::default() };
    match way {
        Way::Uring => by_ring(file, workload, &mut blocks, &mut window)?,
        Way::Calls => by_calls(file, workload, &mut blocks, &mut window)?,
    }
    let mut figures = window.figures;
    figures.elapsed = workload.duration;
    Ok(figures)
}

/// The time in which requests count.
struct Window {
    begin: Instant,
    end: Instant,
    figures: Figures,
}

impl Window {
    fn count(&mut self, now: Instant, latency: Duration) {
        if now >= self.begin && now < self.end {
            self.figures.count(latency);
        }
    }
}

fn by_calls(
    file: &File,
    workload: &Workload,
    blocks: &mut Blocks,
    window: &mut Window,
) -> Result<(), LoadError> {
    let mut buffer = aligned(workload.block_size as usize);
    let mut now = Instant::now();
    while now < window.end {
        let (block, reads) = blocks.next();
        let offset = block * u64::from(workload.block_size);
        if reads {
            file.read_exact_at(buffer.bytes(), offset).map_err(LoadError::system("read"))?;
        } else {
            file.write_all_at(buffer.bytes(), offset).map_err(LoadError::system("write"))?;
        }
        let done = Instant::now();
        window.count(done, done - now);
        now = done;
    }
    Ok(())
}

// The kernel takes buffers by address.
#[allow(unsafe_code)]
fn by_ring(
    file: &File,
    workload: &Workload,
    blocks: &mut Blocks,
    window: &mut Window,
) -> Result<(), LoadError> {
    let doing = LoadError::system("use io_uring");
    let depth = u32::from(workload.depth);
    let size = workload.block_size as usize;
    let mut buffers: Vec<_> = (0..depth).map(|_| aligned(size)).collect();
    let mut made_at = vec![Instant::now(); depth as usize];
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    let mut ring: IoUring = builder
        .build(depth.next_power_of_two())
        .or_else(|_| IoUring::new(depth.next_power_of_two()))
        .map_err(&doing)?;
    ring.submitter().register_files(&[file.as_raw_fd()]).map_err(&doing)?;
    let entry = |slot: usize, buffer: *mut u8, blocks: &mut Blocks| -> squeue::Entry {
        let (block, reads) = blocks.next();
        let offset = block * u64::from(workload.block_size);
        let entry = if reads {
            opcode::Read::new(types::Fixed(0), buffer, size as u32).offset(offset).build()
        } else {
            opcode::Write::new(types::Fixed(0), buffer, size as u32).offset(offset).build()
        };
        entry.user_data(slot as u64)
    };
    let mut next: Vec<usize> = (0..depth as usize).collect();
    let mut under_way = 0;
    let mut outcome = Ok(());
    loop {
        let now = Instant::now();
        for slot in next.drain(..) {
            made_at[slot] = now;
            let entry = entry(slot, buffers[slot].bytes().as_mut_ptr(), blocks);
            // SAFETY: the buffer lives until its completion was taken: the loop ends when none is under way.
            unsafe { ring.submission().push(&entry) }.expect("there is an entry for each slot");
            under_way += 1;
        }
        if under_way == 0 {
            return outcome;
        }
        // It can only be interrupted.
        let _ = ring.submit_and_wait(1);
        let now = Instant::now();
        for completion in ring.completion() {
            let slot = completion.user_data() as usize;
            under_way -= 1;
            if completion.result() != size as i32 {
                let source = match completion.result() {
                    // Somebody cuts the file.
                    0.. => std::io::ErrorKind::UnexpectedEof.into(),
                    error => std::io::Error::from_raw_os_error(-error),
                };
                outcome = Err(doing(source));
            }
            window.count(now, now - made_at[slot]);
            if now < window.end && outcome.is_ok() {
                next.push(slot);
            }
        }
    }
}

/// A buffer at a page's beginning, as direct I/O wants it.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

fn aligned(length: usize) -> Aligned {
    let bytes = vec![0; length + 4096];
    let start = bytes.as_ptr().align_offset(4096);
    Aligned { bytes, start, length }
}
