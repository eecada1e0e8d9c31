//! A balloon: a guest that gives pages away, takes them back and says which are free.
//!
//! A page that was given away is empty when the device says so, and not touched from the moment on at
//! which the guest uses it again: the guest need not wait for an answer to that. Whoever asks what the
//! guest says of its memory hears it.

mod pages;

use std::time::Duration;

use devices::virtio::backend::{BackendContext, BackendEvent, DeviceProfile};
use devices::virtio::balloon::{BalloonParts, Offer, PageSize};
use devices::virtio::control::{Change, ControlRequest, Statistics};
use devices::virtio::parts::Parts;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use executor::sim::Numbers;
use ipc::{Answer, Reply};

use self::pages::{PAGE, Pages};
use super::crimes;
use super::places::Places;
use crate::machine::{FREE, Machine};
use crate::model::{Crime, Model, Running, Succession};

const FEATURE_STATS_VQ: u64 = 1 << 1;
const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
const FEATURE_PAGE_POISON: u64 = 1 << 4;
const FEATURE_PAGE_REPORTING: u64 = 1 << 5;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;

const PLACE: u64 = 0x100;
const PLACES: usize = 48;
const TABLE: u64 = 0x80;
const PAGES: usize = 36;
/// Pages in one message.
const MOST: u64 = 12;
/// The tag of a statistic, memory that is free, and one that nobody knows.
const TAG_FREE: u16 = 4;
const TAG_UNKNOWN: u16 = 999;

/// What the device has of the guest.
enum Request {
    /// Numbers of pages, to give or to ask for.
    Numbers(Vec<usize>),
    /// Pages that are free.
    Free(Vec<usize>),
    /// Statistics with this number.
    Statistics,
}

/// See the module.
pub(super) struct Balloon {
    parts: BalloonParts,
    places: Places<Request>,
    pages: Pages,
    /// The queues that there are beside two.
    statistics: Option<usize>,
    reporting: Option<usize>,
    /// The last statistics that the guest made.
    said: u64,
    asked: Vec<Answer<Statistics>>,
    /// What was ever asked for, in pages.
    targets: Vec<u32>,
}

impl Balloon {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Numbers::of(seed, 10);
        let mut parts = BalloonParts::new(PageSize::Small);
        parts.reporting = Offer::Yes;
        parts.deflate_on_oom = Offer::Yes;
        // Longer than what drivers take that act now and then.
        let interval = Duration::from_millis(random.within(300..3000));
        parts.statistics_interval = random.once_in(2).then_some(interval);
        let places = Places::new(FREE, PLACE, PLACES);
        let pages = places.end().next_multiple_of(PAGE) + PAGE;
        Self {
            parts,
            places,
            pages: Pages::new(pages, PAGES),
            statistics: None,
            reporting: None,
            said: 0,
            asked: Vec::new(),
            targets: vec![0],
        }
    }

    fn unused(&self) -> u64 {
        self.pages.end()
    }

    /// A message with the numbers of pages. None if it cannot be sent now.
    fn tell(&mut self, machine: &mut Machine, queue: usize, pages: &[usize]) -> Option<()> {
        let place = self.places.free()?;
        let number = |page: &usize| ((self.pages.address(*page) / PAGE) as u32).to_le_bytes();
        let bytes: Vec<u8> = pages.iter().flat_map(number).collect();
        machine.write(place, &bytes);
        let buffer = Buffer::Readable { address: place, length: bytes.len() as u32 };
        let head = machine.add(queue, &[buffer], None);
        self.places.fill(machine, place, queue, head, Request::Numbers(pages.to_vec()))
    }

    fn inflate(&mut self, machine: &mut Machine, random: &mut Numbers) {
        let pages = self.pages.give_up(random, MOST);
        if !pages.is_empty() && self.tell(machine, INFLATE, &pages).is_none() {
            self.pages.keep(machine, &pages);
        }
    }

    fn deflate(&mut self, machine: &mut Machine, random: &mut Numbers) {
        let pages = self.pages.ask_back(random, MOST);
        if pages.is_empty() {
        } else if self.tell(machine, DEFLATE, &pages).is_none() {
            self.pages.leave(&pages);
        } else if random.once_in(2) {
            self.pages.keep(machine, &pages);
        }
    }

    fn report(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<()> {
        let (queue, place) = (self.reporting?, self.places.free()?);
        let pages = self.pages.give_up_run(random, 4);
        let (first, last) = (pages.first()?, pages.last()?);
        let (start, end) = (self.pages.address(*first), self.pages.address(*last) + PAGE);
        // In one piece or two.
        let middle = self.pages.address(*last);
        let piece = |from, to| Buffer::Writable { address: from, length: (to - from) as u32 };
        let buffers = if middle > start && random.once_in(2) {
            vec![piece(middle, end), piece(start, middle)]
        } else {
            vec![piece(start, end)]
        };
        let head = machine.add(queue, &buffers, Some(place + TABLE));
        if head.is_none() {
            self.pages.keep(machine, &pages);
        }
        self.places.fill(machine, place, queue, head, Request::Free(pages))
    }

    /// The guest says how its memory is; the device keeps one such message.
    fn say(&mut self, machine: &mut Machine) -> Option<()> {
        let (queue, place) = (self.statistics?, self.places.free()?);
        if self.places.of(queue).next().is_some() {
            return None;
        }
        self.said += 1;
        let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        let bytes = [entry(TAG_UNKNOWN, 1), entry(TAG_FREE, self.said)].concat();
        machine.write(place, &bytes);
        let buffer = Buffer::Readable { address: place, length: bytes.len() as u32 };
        let head = machine.add(queue, &[buffer], None);
        self.places.fill(machine, place, queue, head, Request::Statistics)
    }

    /// Those who asked are answered, or the back end that they asked has died.
    fn hear_answers(&mut self) {
        let (said, targets) = (self.said, &self.targets);
        self.asked.retain_mut(|answer| match answer.try_take() {
            None => true,
            Some(Err(_)) => false,
            Some(Ok(Statistics::Balloon(statistics))) => {
                let target = (statistics.target_bytes / PAGE) as u32;
                assert!(targets.contains(&target), "{target} pages were never asked for");
                let free = statistics.guest.and_then(|guest| guest.free);
                assert!(free.unwrap_or(0) <= said, "the guest did not say that");
                false
            }
            Some(Ok(other)) => panic!("the statistics of something else: {other:?}"),
        });
    }

    fn forget(&mut self, machine: &Machine) {
        self.places.clear(machine);
        machine.wipe(self.unused(), crimes::BYTES);
        self.pages.check(machine);
        self.pages.use_all(machine);
    }
}

impl Model for Balloon {
    fn profile(&self) -> DeviceProfile {
        self.parts.profile()
    }

    fn droppable(&self) -> u64 {
        FEATURE_STATS_VQ | FEATURE_DEFLATE_ON_OOM | FEATURE_PAGE_POISON | FEATURE_PAGE_REPORTING
    }

    fn queues(&self, features: u64) -> usize {
        let has = |feature: u64| usize::from(features & feature != 0);
        2 + has(FEATURE_STATS_VQ) + has(FEATURE_PAGE_REPORTING)
    }

    fn begin(&mut self, machine: &mut Machine) {
        let statistics = machine.has(FEATURE_STATS_VQ);
        self.statistics = statistics.then_some(2);
        self.reporting = machine.has(FEATURE_PAGE_REPORTING).then_some(2 + usize::from(statistics));
        self.pages.use_all(machine);
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let parts = self.parts.try_clone().expect("numbers alone");
        Box::pin(parts.run(Some(region), context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        self.hear_answers();
        match random.below(10) {
            0..=3 => self.inflate(machine, random),
            4..=6 => self.deflate(machine, random),
            7 | 8 => _ = self.report(machine, random),
            _ => _ = self.say(machine),
        }
        let page = random.below(self.pages.count() as u64) as usize;
        self.pages.check_one(machine, page);
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        let queues = [Some(INFLATE), Some(DEFLATE), self.reporting, self.statistics];
        let queue = random.pick(&queues).unwrap_or(INFLATE);
        crimes::break_rings(machine, random, queue, self.unused())
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        let (place, request) = self.places.take(queue, used.head);
        assert_eq!(used.written, 0, "nothing is written to any of these");
        match request {
            Request::Numbers(pages) if queue == INFLATE => {
                for page in pages {
                    self.pages.left(machine, page);
                }
            }
            Request::Numbers(pages) => {
                for page in pages {
                    if self.pages.is_awaited(page) {
                        self.pages.put_to_use(machine, page);
                    }
                }
            }
            Request::Free(pages) => {
                for page in pages {
                    self.pages.left(machine, page);
                    self.pages.put_to_use(machine, page);
                }
            }
            Request::Statistics => {}
        }
        // All that the guest wrote there itself.
        self.places.left(machine, place, &[(place, 4 * MOST as u32), (place + TABLE, 0x40)], "it");
    }

    fn event(&mut self, _machine: &mut Machine, event: &BackendEvent) {
        if let BackendEvent::ConfigChanged { config } = event {
            let target = u32::from_le_bytes([config[0], config[1], config[2], config[3]]);
            assert!(self.targets.contains(&target), "{target} pages were never asked for");
        }
    }

    fn control(&mut self, random: &mut Numbers) -> Option<ControlRequest> {
        if random.once_in(2) {
            let (reply, answer) = Reply::pair();
            self.asked.push(answer);
            return Some(ControlRequest::Statistics { reply });
        }
        let pages = random.below(PAGES as u64);
        let change = Change::Balloon { bytes: pages * PAGE };
        self.parts.remember(&change);
        self.targets.push(pages as u32);
        let (reply, _) = Reply::pair();
        Some(ControlRequest::Change { change, reply })
    }

    fn reset(&mut self, machine: &mut Machine) {
        self.forget(machine);
    }

    fn succeeded(&mut self, machine: &mut Machine, _how: Succession) {
        self.pages.check(machine);
    }

    fn survives_without_record(&self) -> bool {
        // The statistics that wait to be asked for are in the record alone.
        false
    }

    fn wind_up(&mut self, machine: &mut Machine) -> bool {
        self.hear_answers();
        let _ = self.say(machine);
        true
    }

    fn left_behind(&self) -> Option<String> {
        if !self.asked.is_empty() {
            return Some("one who asks what the guest says".into());
        }
        // The device keeps statistics until somebody asks.
        let all = self.places.all();
        let left = all.filter(|(_, request)| !matches!(request, Request::Statistics)).count();
        (left > 0).then(|| format!("{left} messages of the guest"))
    }

    fn finish(&mut self, machine: &mut Machine) {
        self.pages.check(machine);
        self.pages.wipe(machine);
        self.places.clear(machine);
        machine.assert_all_untouched();
    }
}
