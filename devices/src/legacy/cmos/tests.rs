use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::testing::{MockClock, MockLine};

/// 2024-02-29 12:34:56, a Thursday.
const NOW: u64 = 1_709_210_096;

struct Bed {
    cmos: Cmos,
    line: Arc<MockLine>,
    clock: Arc<MockClock>,
    changes: Arc<AtomicU32>,
}

fn bed() -> Bed {
    bed_with(MemorySizes { below_4g: 3 << 30, above_4g: 5 << 30 })
}

fn bed_with(memory: MemorySizes) -> Bed {
    let (line, clock) = (Arc::new(MockLine::default()), Arc::new(MockClock::default()));
    clock.set(Duration::from_secs(NOW));
    let changes = Arc::new(AtomicU32::new(0));
    let counter = changes.clone();
    let cmos = Cmos::new(CmosParts {
        irq: line.clone(),
        clock: clock.clone(),
        memory,
        alarm_changed: Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }),
    });
    Bed { cmos, line, clock, changes }
}

impl Bed {
    fn read(&self, index: u8) -> u8 {
        let mut data = [0];
        self.cmos.write(0, &[index]);
        self.cmos.read(1, &mut data);
        data[0]
    }

    fn write(&self, index: u8, value: u8) {
        self.cmos.write(0, &[index]);
        self.cmos.write(1, &[value]);
    }

    fn time(&self) -> [u8; 8] {
        TIME_REGISTERS.map(|index| self.read(index))
    }

    /// What a timer does: sleep until the next alarm, then run.
    fn sleep_until_alarm(&self) -> u64 {
        let at = self.cmos.next_alarm().unwrap();
        self.clock.set(at);
        self.cmos.run_timer();
        at.as_secs() - NOW
    }
}

#[test]
fn the_time_is_bcd_and_24_hours_and_never_being_updated() {
    let bed = bed();
    assert_eq!(bed.time(), [0x56, 0x34, 0x12, 5, 0x29, 0x02, 0x24, 0x20]);
    assert_eq!((bed.read(0x0a) & 0x80, bed.read(0x0d)), (0, 0x80));
    bed.write(0x0b, 6);
    assert_eq!(bed.time(), [56, 34, 12, 5, 29, 2, 24, 20]);
    bed.write(0x0a, 0xa6);
    assert_eq!(bed.read(0x0a), 0x26);
}

#[test]
fn the_guest_sets_the_time_while_it_holds_it() {
    let bed = bed();
    bed.write(0x0b, 0x82);
    for (index, value) in TIME_REGISTERS.into_iter().zip([0, 0, 0, 1, 0x01, 0x01, 0x99, 0x19]) {
        bed.write(index, value);
    }
    bed.clock.set(Duration::from_secs(NOW + 10));
    assert_eq!(bed.time(), [0, 0, 0, 1, 0x01, 0x01, 0x99, 0x19], "the time stands still");
    bed.write(0x0b, 0x02);
    bed.clock.set(Duration::from_secs(NOW + 15));
    assert_eq!(bed.time(), [5, 0, 0, 6, 0x01, 0x01, 0x99, 0x19], "a Friday");
}

#[test]
fn a_time_that_does_not_exist_is_ignored() {
    let bed = bed();
    bed.write(0x08, 0x13);
    bed.write(0x04, 0xff);
    assert_eq!(bed.time()[2..6], [0x12, 5, 0x29, 0x02]);
    bed.write(0x02, 0x35);
    assert_eq!(bed.time()[..3], [0x56, 0x35, 0x12]);
}

#[test]
fn the_alarm_interrupts_once_until_acknowledged() {
    let bed = bed();
    for (index, value) in [(1, 0x06), (3, 0x35), (5, 0x12)] {
        bed.write(index, value);
    }
    assert_eq!(bed.cmos.next_alarm(), None);
    bed.write(0x0b, 0x22);
    assert_eq!(bed.changes.load(Ordering::Relaxed), 1);
    assert_eq!(bed.sleep_until_alarm(), 10);
    assert_eq!(bed.line.take(), 1);
    assert_eq!(bed.cmos.next_alarm(), None, "not before this one is acknowledged");
    assert_eq!((bed.read(0x0c), bed.read(0x0c)), (0xf0, 0));
    assert_eq!(bed.changes.load(Ordering::Relaxed), 2);
    assert_eq!(bed.sleep_until_alarm(), 86_410);
    assert_eq!(bed.line.take(), 1);
}

#[test]
fn an_alarm_that_nobody_enabled_is_a_flag_only() {
    let bed = bed();
    for (index, value) in [(1, 0x58), (3, 0xff), (5, 0xff)] {
        bed.write(index, value);
    }
    assert_eq!(bed.read(0x0c), 0);
    bed.clock.set(Duration::from_secs(NOW + 1));
    assert_eq!(bed.read(0x0c), 0x50);
    bed.clock.set(Duration::from_secs(NOW + 2));
    bed.cmos.run_timer();
    assert_eq!((bed.line.take(), bed.read(0x0c)), (0, 0x70));
}

#[test]
fn enabling_what_has_happened_interrupts_at_once() {
    let bed = bed();
    bed.clock.set(Duration::from_secs(NOW + 1));
    bed.write(0x0b, 0x12);
    assert_eq!((bed.line.take(), bed.read(0x0c)), (1, 0xd0));
    assert_eq!(bed.sleep_until_alarm(), 2);
    assert_eq!(bed.line.take(), 1);
}

#[test]
fn the_periodic_interrupt_has_its_rate() {
    let bed = bed();
    bed.write(0x0a, 0x2f);
    bed.write(0x0b, 0x42);
    let at = bed.cmos.next_alarm().unwrap();
    assert_eq!(at, Duration::from_millis(NOW * 1000 + 500));
    bed.clock.set(at);
    bed.cmos.run_timer();
    assert_eq!((bed.line.take(), bed.read(0x0c)), (1, 0xc0));
    bed.write(0x0a, 0x20);
    assert_eq!(bed.cmos.next_alarm(), None);
}

#[test]
fn a_clock_set_back_is_no_alarm() {
    let bed = bed();
    bed.write(0x0b, 0x12);
    bed.clock.set(Duration::from_secs(NOW - 1000));
    bed.cmos.run_timer();
    assert_eq!((bed.line.take(), bed.read(0x0c)), (0, 0));
    assert_eq!(bed.cmos.next_alarm(), Some(Duration::from_secs(NOW - 999)));
}

#[test]
fn memory_sizes_are_where_a_firmware_leaves_them() {
    let word = |bed: &Bed, index| u32::from(bed.read(index)) | u32::from(bed.read(index + 1)) << 8;
    let large = bed();
    assert_eq!((word(&large, 0x15), word(&large, 0x17), word(&large, 0x30)), (640, 0xffff, 0xffff));
    assert_eq!(word(&large, 0x34), (3 << 14) - (16 << 4));
    assert_eq!(word(&large, 0x5b) | u32::from(large.read(0x5d)) << 16, 5 << 14);
    let small = bed_with(MemorySizes { below_4g: 8 << 20, above_4g: 0 });
    assert_eq!((word(&small, 0x30), word(&small, 0x34), word(&small, 0x5b)), (7 << 10, 0, 0));
}

#[test]
fn the_rest_is_memory() {
    let bed = bed();
    bed.write(0x8f, 0x5a);
    assert_eq!(bed.read(0x0f), 0x5a, "the NMI bit is not part of the index");
    let mut both = [0; 2];
    bed.cmos.read(0, &mut both);
    assert_eq!(both, [0xff, 0x5a]);
}

proptest! {
    #[test]
    fn any_access_is_harmless(
        steps in proptest::collection::vec(
            (0_u8..5, any::<u8>(), any::<u8>(), 0_u64..3_000_000_000), 1..200)
    ) {
        let bed = bed();
        for (kind, index, value, seconds) in steps {
            let index = if index & 0x80 == 0 { index % 0x10 } else { index };
            match kind {
                0 | 1 => bed.write(index, value),
                2 => { bed.read(index); }
                3 => bed.clock.set(Duration::from_secs(seconds)),
                _ => bed.cmos.run_timer(),
            }
            bed.cmos.next_alarm();
        }
    }
}
