use executor::{DriverChoice, Either};
use p9::wire::{Header, Request};
use proptest::prelude::*;

use super::super::*;
use super::bed::*;
use crate::virtio::queue::driver::Buffer;
use crate::virtio::test_bed::{on, on_both, readable, writable};

#[test]
fn what_is_no_message_breaks_the_queue_until_a_reset() {
    let table: [&[Buffer]; 4] = [
        &[readable(MESSAGE, 6), writable(ANSWER, 11)],
        &[writable(ANSWER, 11)],
        &[readable(MESSAGE, 7)],
        &[readable(MESSAGE, 7), writable(ANSWER, 10)],
    ];
    on_both(|| async {
        let mut bed = P9Bed::new(P9Options::new("tag")).await;
        for buffers in table {
            bed.bed.write(MESSAGE, &Header { size: 7, kind: 120, tag: 1 }.encode());
            bed.bed.driver(0).add(buffers).unwrap();
            bed.bed.publish(0);
            let said = bed.bed.wait_or_event(0).await;
            assert!(matches!(said, Either::Right(_)), "{buffers:?}");
            bed.bed.reset().await;
            bed.bed.new_rings();
            bed.activate().await;
        }
        bed.begin().await;
        bed.bed.finish().await;
    });
}

#[test]
fn sizes_that_are_not_true_are_refused() {
    on_both(|| async {
        let mut bed = P9Bed::new(P9Options::new("tag")).await;
        bed.create(2, "file").await.unwrap();
        bed.write(2, 0, b"text").await.unwrap();
        for size in [0, 6, 8, 1 << 20, u32::MAX] {
            bed.send_bytes(1, &Header { size, kind: 120, tag: 1 }.encode(), &[], ROOM);
            assert!(bed.answer(1).await.reply().is_err(), "{size}");
        }
        // Longer than any.
        let long = Header { size: 30_000, kind: 120, tag: 1 }.encode();
        bed.send_bytes(1, &[&long[..], &vec![0; 30_000]].concat(), &[], ROOM);
        assert_eq!(bed.answer(1).await.reply(), Err(Errno::TOOBIG));
        // More to write than there is.
        for count in [5, u32::MAX] {
            let answer = bed.ask_with(&Request::Write { fid: 2, offset: 0, count }, b"data").await;
            assert_eq!(answer.reply(), Err(Errno::INVAL));
        }
        assert!(bed.read(2, u64::MAX, 10).await.is_err());
        // A read gets what there is room for; other answers have to fit.
        let read = Request::Read { fid: 2, offset: 0, count: 100 }.encode(1, &[]);
        bed.send_bytes(1, &read, &[], 13);
        assert_eq!(bed.answer(1).await.data(), b"te");
        let attributes = Request::Getattr { fid: 2, mask: 0 }.encode(1, &[]);
        bed.send_bytes(1, &attributes, &[], 100);
        assert_eq!(bed.answer(1).await.reply(), Err(Errno::RANGE));
        bed.bed.finish().await;
    });
}

#[test]
fn data_outside_of_memory_is_an_error_of_the_message() {
    on_both(|| async {
        let mut bed = P9Bed::new(P9Options::new("tag")).await;
        bed.create(2, "file").await.unwrap();
        let read = Request::Read { fid: 2, offset: 0, count: 100 }.encode(1, &[]);
        bed.bed.write(MESSAGE, &read);
        let message = readable(MESSAGE, read.len() as u32);
        bed.bed.driver(0).add(&[message, writable(ANSWER, 11), writable(1 << 40, 4)]).unwrap();
        bed.bed.publish(0);
        assert_eq!(bed.bed.used(0).await.written, 11);
        let error = Errno::IO.raw_os_error() as u32;
        assert_eq!(bed.bed.read(ANSWER + 7, 4), error.to_le_bytes());
        assert_eq!(bed.read(2, 0, 1).await.unwrap(), b"");
        bed.bed.finish().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_messages_are_answered(
        messages in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(prop_oneof![4 => 0..4u8, 1 => any::<u8>()], 0..60)),
            0..40,
        ),
    ) {
        on(DriverChoice::Epoll, || async {
            let mut bed = P9Bed::new(P9Options::new("tag")).await;
            bed.create(2, "file").await.unwrap();
            for (kind, bytes) in &messages {
                let size = (7 + bytes.len()) as u32;
                let header = Header { size, kind: *kind, tag: 1 }.encode();
                bed.send_bytes(1, &[&header[..], bytes].concat(), &[], ROOM);
                bed.answer(1).await;
            }
            bed.begin().await;
            bed.walk(2, "file").await.unwrap();
            bed.bed.finish().await;
        });
    }
}
