use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::super::output::tests::Recorder;
use super::*;
use crate::testing::MockLine;

struct Bed {
    serial: Serial,
    line: Arc<MockLine>,
    output: Recorder,
    rooms: Arc<AtomicU32>,
}

fn bed() -> Bed {
    let (line, output) = (Arc::new(MockLine::default()), Recorder::default());
    let rooms = Arc::new(AtomicU32::new(0));
    let counter = rooms.clone();
    let serial = Serial::new(SerialParts {
        irq: line.clone(),
        output: Box::new(output.clone()),
        input_room: Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }),
    });
    Bed { serial, line, output, rooms }
}

impl Bed {
    fn read(&self, register: u64) -> u8 {
        let mut data = [0];
        self.serial.read(register, &mut data);
        data[0]
    }

    fn write(&self, register: u64, value: u8) {
        self.serial.write(register, &[value]);
    }
}

#[test]
fn output_comes_in_lines_and_when_the_driver_is_done() {
    let bed = bed();
    b"one\r\ntwo".iter().for_each(|byte| bed.write(DATA, *byte));
    assert_eq!(bed.output.take(), b"one\r\n");
    // Linux restores the register at the end of a console write.
    bed.write(INTERRUPT_ENABLE, 5);
    assert_eq!(bed.output.take(), b"two");
    bed.write(DATA, b'x');
    bed.serial.flush();
    assert_eq!(bed.output.take(), b"x");
    assert_eq!(bed.read(LINE_STATUS), 0x60);
}

#[test]
fn input_interrupts_once_until_it_is_read() {
    let bed = bed();
    bed.write(INTERRUPT_ENABLE, 1);
    assert_eq!(bed.serial.input(b"ab"), 2);
    assert_eq!(bed.serial.input(b"c"), 1);
    assert_eq!(bed.line.take(), 1);
    assert_eq!(bed.read(INTERRUPT_ID), 4);
    assert_eq!(bed.read(LINE_STATUS) & 1, 1);
    assert_eq!([bed.read(DATA), bed.read(DATA), bed.read(DATA)], *b"abc");
    assert_eq!((bed.read(LINE_STATUS) & 1, bed.read(INTERRUPT_ID), bed.read(DATA)), (0, 1, 0));
    assert_eq!(bed.serial.input(b"d"), 1);
    assert_eq!(bed.line.take(), 1);
}

#[test]
fn input_without_interrupts_is_seen_by_polling_and_when_enabled() {
    let bed = bed();
    assert_eq!(bed.serial.input(b"a"), 1);
    assert_eq!((bed.line.take(), bed.read(LINE_STATUS) & 1), (0, 1));
    assert!(!bed.serial.is_listening());
    bed.write(INTERRUPT_ENABLE, 1);
    assert!(bed.serial.is_listening());
    assert_eq!(bed.line.take(), 1);
}

#[test]
fn input_is_bounded_and_asks_for_more_when_there_is_room() {
    let bed = bed();
    let input = [7; INPUT_CAPACITY + 10];
    assert_eq!(bed.serial.input(&input), INPUT_CAPACITY);
    assert_eq!(bed.serial.input(&input[..10]), 0);
    (0..INPUT_CAPACITY).for_each(|_| assert_eq!(bed.read(DATA), 7));
    assert_eq!(bed.rooms.load(Ordering::Relaxed), 1);
    assert_eq!(bed.serial.input(&input[..10]), 10);
    (0..10).for_each(|_| assert_eq!(bed.read(DATA), 7));
    assert_eq!(bed.rooms.load(Ordering::Relaxed), 1, "nobody waits");
}

#[test]
fn an_empty_transmitter_interrupts_when_enabled_and_after_each_write() {
    let bed = bed();
    bed.write(INTERRUPT_ENABLE, 2);
    assert_eq!(bed.line.take(), 1);
    assert_eq!((bed.read(INTERRUPT_ID), bed.read(INTERRUPT_ID)), (2, 1));
    bed.write(DATA, b'x');
    assert_eq!(bed.line.take(), 1);
    assert_eq!((bed.read(INTERRUPT_ID), bed.read(INTERRUPT_ID)), (2, 1));
    // Linux's test of the chip: off and on again is a new event.
    bed.write(INTERRUPT_ENABLE, 0);
    bed.write(INTERRUPT_ENABLE, 2);
    assert_eq!((bed.line.take(), bed.read(INTERRUPT_ID)), (1, 2));
    bed.write(INTERRUPT_ENABLE, 0);
    bed.write(DATA, b'x');
    assert_eq!((bed.line.take(), bed.read(INTERRUPT_ID)), (0, 1));
}

#[test]
fn received_data_comes_before_an_empty_transmitter() {
    let bed = bed();
    bed.write(INTERRUPT_ENABLE, 3);
    assert_eq!(bed.serial.input(b"a"), 1);
    assert_eq!(bed.read(INTERRUPT_ID), 4);
    bed.read(DATA);
    assert_eq!((bed.read(INTERRUPT_ID), bed.read(INTERRUPT_ID)), (2, 1));
}

#[test]
fn linux_finds_a_16550a() {
    let bed = bed();
    bed.write(INTERRUPT_ENABLE, 0);
    assert_eq!(bed.read(INTERRUPT_ENABLE), 0);
    bed.write(INTERRUPT_ENABLE, 0xff);
    assert_eq!(bed.read(INTERRUPT_ENABLE), 0x0f);
    bed.write(INTERRUPT_ENABLE, 0);
    // The loopback test of the modem lines.
    bed.write(MODEM_CONTROL, 0x10 | 0x0a);
    assert_eq!(bed.read(MODEM_STATUS) & 0xf0, 0x90);
    bed.write(MODEM_CONTROL, 0);
    assert_eq!(bed.read(MODEM_STATUS) & 0xf0, 0xb0);
    bed.write(INTERRUPT_ID, 1);
    assert_eq!(bed.read(INTERRUPT_ID) >> 6, 3);
    bed.write(SCRATCH, 0x5a);
    assert_eq!(bed.read(SCRATCH), 0x5a);
    bed.write(LINE_CONTROL, 0x83);
    bed.write(0, 1);
    bed.write(1, 0);
    assert_eq!((bed.read(0), bed.read(1)), (1, 0));
    bed.write(LINE_CONTROL, 3);
    assert_eq!((bed.read(LINE_CONTROL), bed.output.take().len()), (3, 0));
}

#[test]
fn loopback_brings_back_a_fifo_full_and_then_overruns() {
    let bed = bed();
    bed.write(INTERRUPT_ENABLE, 4);
    bed.write(MODEM_CONTROL, MCR_LOOPBACK);
    (0..17).for_each(|byte| bed.write(DATA, byte));
    assert_eq!(bed.read(INTERRUPT_ID), 6);
    assert_eq!(bed.read(LINE_STATUS), 0x63);
    assert_eq!(bed.read(LINE_STATUS), 0x61);
    (0..16).for_each(|byte| assert_eq!(bed.read(DATA), byte));
    assert_eq!((bed.read(LINE_STATUS), bed.output.take().len()), (0x60, 0));
}

#[test]
fn clearing_the_fifo_drops_input() {
    let bed = bed();
    assert_eq!(bed.serial.input(b"abc"), 3);
    bed.write(INTERRUPT_ID, 3);
    assert_eq!(bed.read(LINE_STATUS) & 1, 0);
    assert_eq!(bed.serial.input(b"abc"), 3);
    bed.write(INTERRUPT_ID, 1);
    assert_eq!(bed.read(LINE_STATUS) & 1, 1, "only enabled again");
}

proptest! {
    #[test]
    fn any_access_is_harmless(
        steps in proptest::collection::vec((0_u8..3, 0_u64..10, proptest::collection::vec(any::<u8>(), 0..9)), 1..200)
    ) {
        let bed = bed();
        for (kind, offset, mut data) in steps {
            match kind {
                0 => bed.serial.read(offset, &mut data),
                1 => bed.serial.write(offset, &data),
                _ => prop_assert!(bed.serial.input(&data) <= data.len()),
            }
            prop_assert!(bed.serial.registers.lock().received.len() <= INPUT_CAPACITY);
        }
    }
}
