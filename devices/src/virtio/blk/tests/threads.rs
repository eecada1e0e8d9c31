//! A disk whose queues are on several threads.

use std::sync::Arc;
use std::thread::JoinHandle;

use executor::{Config, DriverChoice, DriverKind, Executor};
use rustix::io::Errno;

use super::super::{BlkError, BlockBackend, BlockImage, Common, spread};
use super::bed::*;
use crate::rate_limit::{RateLimit, RateLimits};
use crate::virtio::backend::{BackendContext, BackendEvent, BackendRequest};
use crate::virtio::blk::DiskOptions;
use crate::virtio::blk::protocol::CacheMode;
use crate::virtio::control::{Change, LimitedTraffic};
use crate::virtio::helpers::Helper;
use crate::virtio::parts::Parts;

const QUEUES: u16 = 4;
const THREADS: u16 = 3;
const WRITEBACK_AT: u32 = 32;

/// A disk on threads, this one among them.
struct Spread {
    bed: Bed,
    common: Arc<Common>,
    /// Each says how many operations it has submitted.
    threads: Vec<JoinHandle<u64>>,
}

fn options(disk: &Disk) -> DiskOptions {
    DiskOptions { queues: QUEUES, threads: THREADS, ..disk.options() }
}

/// Threads with the driver of this one.
fn helpers(count: u16) -> (Vec<Helper>, Vec<JoinHandle<u64>>) {
    let driver = match executor::driver() {
        Some(DriverKind::Uring) => DriverChoice::Uring,
        _ => DriverChoice::Epoll,
    };
    let helper = |_| {
        let (helper, duty) = Helper::pair();
        let work = move || {
            let config = Config { driver, ..Config::default() };
            let mut executor = Executor::new(&config).unwrap();
            duty.work(&mut executor);
            executor.stats().submitted
        };
        (helper, std::thread::spawn(work))
    };
    (0..count).map(helper).unzip()
}

impl Spread {
    async fn start(options: &DiskOptions) -> Self {
        let image = BlockImage::open(options).unwrap();
        assert_eq!(image.threads(), options.threads);
        let mut bed =
            Bed::start(BlockBackend::new(image.try_clone().unwrap()), QUEUES, options.queue_size);
        bed.kill().await;
        let (helpers, threads) = helpers(options.threads - 1);
        let mut seeds = BlockBackend::new(image).seeds(helpers.len()).into_iter();
        let first = seeds.next().unwrap();
        let common = Arc::clone(&first.common);
        let team = helpers.into_iter().zip(seeds).collect();
        bed.run(|context| async {
            spread::serve(first, team, None, context).await.unwrap();
        });
        bed.activate().await;
        Self { bed, common, threads }
    }

    /// A request on a queue, in a place of its own: its status.
    async fn request(&mut self, queue: u16, kind: u32, sector: u64, data: bool) -> u8 {
        let place = u64::from(queue);
        let data = match (data, kind) {
            (false, _) => vec![],
            (true, IN) => vec![writable(Bed::data(place), 512)],
            (true, _) => vec![readable(Bed::data(place), 512)],
        };
        let frame = self.bed.frame(place, kind, sector, &data);
        let queue = usize::from(queue);
        let head = self.bed.driver(queue).add(&frame).unwrap();
        self.bed.publish(queue);
        assert_eq!(self.bed.used(queue).await.head, head);
        self.bed.status(place)
    }

    /// On all queues.
    async fn requests(&mut self, kind: u32, sector: u64, data: bool) -> Vec<u8> {
        let mut status = Vec::new();
        for queue in 0..QUEUES {
            status.push(self.request(queue, kind, sector, data).await);
        }
        status
    }

    /// Has so many sectors read on each queue, in places and from sectors one after the other.
    fn read_on_each(&mut self, reads: u64) {
        for queue in 0..QUEUES {
            for request in 0..reads {
                let place = u64::from(queue) * reads + request;
                let data = [writable(Bed::data(place), 512)];
                let frame = self.bed.frame(place, IN, place, &data);
                self.bed.driver(queue.into()).add(&frame).unwrap();
            }
            self.bed.publish(queue.into());
        }
    }

    async fn finish(self) {
        let Self { bed, threads, .. } = self;
        bed.finish().await;
        for thread in threads {
            assert!(thread.join().unwrap() > 0, "each has had something to do");
        }
    }
}

#[test]
fn what_one_thread_writes_all_others_read() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut spread = Spread::start(&options(&disk)).await;
        for queue in 0..QUEUES {
            let sector = 100 + u64::from(queue);
            let fresh = pattern(sector + 1_000_000);
            spread.bed.write(Bed::data(queue.into()), &fresh);
            assert_eq!(spread.request(queue, OUT, sector, true).await, STATUS_OK);
            assert_eq!(disk.read(sector, 512), fresh);
            assert_eq!(spread.requests(IN, sector, true).await, [STATUS_OK; 4]);
            for other in 0..QUEUES {
                assert_eq!(spread.bed.read(Bed::data(other.into()), 512), fresh);
            }
        }
        assert_eq!(spread.requests(FLUSH, 0, false).await, [STATUS_OK; 4]);
        // A thread counts a request after the driver has seen that it is done, but before it pauses.
        spread.bed.pause().await;
        for queue in 0..QUEUES {
            assert_eq!(spread.bed.counts(queue.into()).requests, 6);
        }
        spread.finish().await;
    });
}

#[test]
fn all_queues_stop_and_go_on_together() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut spread = Spread::start(&options(&disk)).await;
        for _ in 0..3 {
            spread.read_on_each(4);
            let states = spread.bed.pause().await;
            let indices = states.iter().map(|state| state.index).collect::<Vec<_>>();
            assert_eq!(indices, [0, 1, 2, 3]);
            assert_eq!(spread.bed.pause().await, states, "paused already");
            spread.bed.resume().await;
            for queue in 0..usize::from(QUEUES) {
                for _ in 0..4 {
                    spread.bed.used(queue).await;
                }
            }
            for place in 0..16 {
                assert_eq!(spread.bed.status(place), STATUS_OK);
                assert_eq!(spread.bed.read(Bed::data(place), 512), pattern(place));
            }
        }
        let detached = spread.bed.call(|reply| BackendRequest::Detach { reply }).await;
        assert_eq!(detached.len(), 4);
        let setups = spread.bed.setups(&detached);
        spread.bed.activate_with(FEATURES, setups).await.unwrap();
        assert_eq!(spread.requests(IN, 7, true).await, [STATUS_OK; 4]);
        spread.bed.reset().await;
        assert!(spread.bed.pause().await.is_empty());
        spread.bed.new_rings();
        // One thread cannot begin: none goes on.
        let mut setups = spread.bed.setups(&[]);
        setups[1].size = 0;
        let reason = spread.bed.activate_with(FEATURES, setups).await.unwrap_err();
        assert!(reason.contains("queue 1"), "{reason}");
        assert!(spread.bed.pause().await.is_empty());
        spread.bed.activate().await;
        assert_eq!(spread.requests(IN, 8, true).await, [STATUS_OK; 4]);
        spread.finish().await;
    });
}

#[test]
fn a_sync_that_fails_on_one_thread_has_failed_on_all() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut spread = Spread::start(&options(&disk)).await;
        assert_eq!(spread.requests(FLUSH, 0, false).await, [STATUS_OK; 4]);
        spread.common.syncs.begin();
        assert!(spread.common.syncs.end::<()>(Err(Errno::IO.into())).is_err());
        assert_eq!(spread.requests(FLUSH, 0, false).await, [STATUS_IOERR; 4]);
        assert_eq!(spread.requests(IN, 0, true).await, [STATUS_OK; 4], "the rest goes on");
        spread.finish().await;
    });
}

#[test]
fn what_the_driver_chooses_holds_on_all_threads() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut spread = Spread::start(&options(&disk)).await;
        let write =
            |reply| BackendRequest::WriteConfig { offset: WRITEBACK_AT, data: vec![0], reply };
        spread.bed.call(write).await;
        assert_eq!(spread.common.mode.get(), CacheMode::WriteThrough);
        assert_eq!(spread.bed.config().await[WRITEBACK_AT as usize], 0);
        assert_eq!(spread.requests(OUT, 9, true).await, [STATUS_OK; 4]);
        spread.common.syncs.begin();
        assert!(spread.common.syncs.end::<()>(Err(Errno::IO.into())).is_err());
        assert_eq!(spread.requests(OUT, 9, true).await, [STATUS_IOERR; 4], "each is synced");
        spread.bed.reset().await;
        assert_eq!(spread.common.writeback.get(), CacheMode::WriteBack);
        spread.bed.new_rings();
        spread.bed.activate().await;
        assert_eq!(spread.common.mode.get(), CacheMode::WriteBack);
        assert_eq!(spread.requests(OUT, 9, true).await, [STATUS_OK; 4]);
        spread.finish().await;
    });
}

#[test]
fn a_disk_that_changes_its_size_says_so_once() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut spread = Spread::start(&options(&disk)).await;
        let new = (1 << 20) / SECTOR;
        disk.file.set_len(2 << 20).unwrap();
        for (bytes, status) in [(2_u64 << 20, STATUS_OK), (1 << 20, STATUS_IOERR)] {
            spread.bed.change(Change::Size { bytes }).await;
            let event = spread.bed.events.recv().await.unwrap();
            let BackendEvent::ConfigChanged { config } = event else { panic!("{event:?}") };
            assert_eq!(config[..8], (bytes / SECTOR).to_le_bytes());
            assert!(spread.bed.events.try_recv().is_err(), "once");
            assert_eq!(spread.requests(IN, new, true).await, [status; 4]);
        }
        assert!(spread.bed.try_change(Change::Size { bytes: 1 }).await.is_err());
        spread.finish().await;
    });
}

#[test]
fn limits_are_for_all_threads_together() {
    const BURST: usize = 5;
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut options = options(&disk);
        let limit = RateLimit { per_second: 0, burst: BURST as u64 };
        options.limits = RateLimits { operations: Some(limit), bytes: None };
        let mut spread = Spread::start(&options).await;
        spread.read_on_each(5);
        let take = |bed: &mut Bed| -> usize {
            let take = |queue| std::iter::from_fn(|| bed.driver(queue).take_used()).count();
            (0..usize::from(QUEUES)).map(take).sum()
        };
        let mut done = 0;
        while done < BURST {
            done += take(&mut spread.bed);
            executor::yield_now().await;
        }
        // Nothing is under way after a pause, and it does not wait for what is not admitted.
        spread.bed.pause().await;
        done += take(&mut spread.bed);
        // The last one may have been admitted on each thread at the same time.
        assert!((BURST..BURST + usize::from(THREADS)).contains(&done), "{done}");
        spread.bed.resume().await;
        let traffic = LimitedTraffic::Both;
        spread.bed.change(Change::RateLimits { traffic, limits: RateLimits::NONE }).await;
        while done < 20 {
            done += take(&mut spread.bed);
            executor::yield_now().await;
        }
        spread.finish().await;
    });
}

#[test]
fn a_disk_ends_with_its_threads() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let image = BlockImage::open(&options(&disk)).unwrap();
        let backend = BlockBackend::new(image.try_clone().unwrap());
        let mut bed = Bed::start(BlockBackend::new(image), QUEUES, 16);
        bed.kill().await;
        let (helper, duty) = Helper::pair();
        drop(duty);
        let helpers = vec![helper];
        bed.run(|context| backend.run(BackendContext { helpers, ..context }));
        let pause = |reply| BackendRequest::Pause { reply };
        assert!(bed.requests.call(pause, deadline()).await.is_err(), "nobody is there");
        bed.finish().await;
    });
}

#[test]
fn each_thread_has_a_queue_and_an_open_file() {
    let disk = Disk::new(1 << 20);
    for (queues, threads) in [(1, 2), (4, 5), (2, 0)] {
        let options = DiskOptions { queues, threads, ..disk.options() };
        let error = BlockImage::open(&options).unwrap_err();
        assert!(matches!(error, BlkError::Threads { .. }), "{error}");
    }
    let image = BlockImage::open(&options(&disk)).unwrap();
    let again = BlockImage::open(&options(&disk));
    assert!(matches!(again, Err(BlkError::Locked { .. })), "one lock for all of them");
    let flags = |file: &ipc::Fd| rustix::fs::fcntl_getfl(file).unwrap();
    assert_eq!(image.further.len(), 2);
    for file in &image.further {
        assert_eq!(flags(file), flags(&image.file));
    }
    image.release();
    assert!(BlockImage::open(&options(&disk)).is_ok());
}
