use executor::Either;
use fileserver::Errno;
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::super::protocol::{InHeader, SetxattrIn};
use super::super::*;
use super::bed::*;
use crate::virtio::queue::driver::Buffer;
use crate::virtio::test_bed::{on_both, readable, writable};

#[test]
fn what_is_no_request_breaks_the_queue_until_a_reset() {
    let table: [&[Buffer]; 4] = [
        &[readable(REQUEST, 39), writable(ANSWER, 16)],
        &[writable(ANSWER, 16)],
        &[readable(REQUEST, 40)],
        &[readable(REQUEST, 40), writable(ANSWER, 15)],
    ];
    on_both(|| async {
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        for buffers in table {
            // A look-up, of nothing.
            let mut header = InHeader::read_from_bytes(&[0; 40]).unwrap();
            header.opcode = 1;
            bed.bed.write(REQUEST, header.as_bytes());
            bed.bed.driver(QUEUE).add(buffers).unwrap();
            bed.bed.publish(QUEUE);
            let said = bed.bed.wait_or_event(QUEUE).await;
            assert!(matches!(said, Either::Right(_)), "{buffers:?}");
            bed.bed.reset().await;
            bed.bed.new_rings();
            bed.activate().await;
        }
        bed.init().await;
        bed.bed.finish().await;
    });
}

#[test]
fn data_outside_of_memory_is_an_error_of_the_request() {
    on_both(|| async {
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        bed.place("file", "text");
        let node = bed.look_up(1, "file").await.unwrap().node;
        let handle = bed.open(node, libc::O_RDWR).await.unwrap();
        let mut header = InHeader::read_from_bytes(&[0; 40]).unwrap();
        (header.opcode, header.node) = (Opcode::Read as u32, node);
        let request = [header.as_bytes(), transfer(handle, 0, 4).as_bytes()].concat();
        bed.bed.write(REQUEST, &request);
        let length = request.len() as u32;
        let buffers = [readable(REQUEST, length), writable(ANSWER, 16), writable(1 << 40, 4)];
        bed.bed.driver(QUEUE).add(&buffers).unwrap();
        bed.bed.publish(QUEUE);
        assert_eq!(bed.bed.used(QUEUE).await.written, 16);
        let error = Errno::IO.raw_os_error();
        assert_eq!(bed.bed.read(ANSWER + 4, 4), (-error).to_le_bytes());
        let read = transfer(handle, 0, 4);
        assert_eq!(bed.ask(Opcode::Read, node, read.as_bytes(), 4).await.unwrap(), b"text");
        bed.bed.finish().await;
    });
}

#[test]
fn sizes_that_are_not_true_are_refused() {
    on_both(|| async {
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        bed.place("file", "text");
        let node = bed.look_up(1, "file").await.unwrap().node;
        let handle = bed.open(node, libc::O_RDWR).await.unwrap();
        // More to write than there is, and more than was agreed on.
        for size in [5, u32::MAX] {
            let write = [transfer(handle, 0, size).as_bytes(), b"data"].concat();
            assert_eq!(bed.ask(Opcode::Write, node, &write, 8).await, Err(Errno::INVAL));
        }
        // A read gets what there is room for.
        let read = transfer(handle, 0, 1000);
        let answer = bed.ask(Opcode::Read, node, read.as_bytes(), 2).await;
        assert_eq!(answer.unwrap(), b"te");
        let read = transfer(handle, u64::MAX, 10);
        assert!(bed.ask(Opcode::Read, node, read.as_bytes(), 10).await.is_err());
        // No room for an answer.
        assert_eq!(bed.ask(Opcode::Lookup, 1, &text("file"), 100).await, Err(Errno::RANGE));
        // Names that are none.
        for name in ["", ".", "..", "a/b", "/", "../x"] {
            assert!(bed.look_up(1, name).await.is_err(), "{name}");
        }
        assert_eq!(bed.ask(Opcode::Lookup, 1, b"file", 128).await, Err(Errno::INVAL));
        let set = SetxattrIn { size: 100, flags: 0 };
        let set = [set.as_bytes(), &text("user.a"), b"short"].concat();
        assert_eq!(bed.ask(Opcode::Setxattr, node, &set, 0).await, Err(Errno::INVAL));
        let long = vec![0; 200 << 10];
        assert_eq!(bed.ask(Opcode::Setxattr, node, &long, 0).await, Err(Errno::TOOBIG));
        bed.bed.finish().await;
    });
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(
        opcode in 0u32..60,
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), any::<u8>()], 0..300),
    ) {
        let mut header = InHeader::read_from_bytes(&[0; 40]).unwrap();
        header.opcode = opcode;
        read_request(&[header.as_bytes(), &bytes].concat());
    }
}
