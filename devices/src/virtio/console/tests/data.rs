use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use executor::Fd;

use super::super::{PortEnd, PortRole};
use super::bed::*;

const MIB: usize = 1 << 20;

#[test]
fn bytes_reach_the_host_in_order_whatever_the_buffers() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        let lengths = [1, 16, 4096, 3, 60_000, 7, 32_768];
        let mut sent = 0;
        for (round, length) in lengths.iter().cycle().take(60).enumerate() {
            bed.send(0, round as u64 % 8, &pattern(sent, *length));
            assert_eq!(bed.host_reads(0, *length).await, pattern(sent, *length));
            let used = bed.used(1).await;
            assert_eq!(used.written, 0);
            sent += length;
        }
        let counts = bed.counts(1);
        assert_eq!((counts.requests, counts.bytes), (60, sent as u64));
        bed.finish().await;
    });
}

#[test]
fn a_chain_of_pieces_is_one_stretch_of_bytes() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        bed.write(place_at(0), &pattern(0, 100));
        let pieces = [(0, 10), (10, 1), (11, 89)];
        let pieces = pieces.map(|(at, length)| readable(place_at(0) + at, length));
        bed.driver(1).add(&pieces).unwrap();
        bed.publish(1);
        assert_eq!(bed.host_reads(0, 100).await, pattern(0, 100));
        bed.used(1).await;
        bed.finish().await;
    });
}

#[test]
fn bytes_reach_the_guest_in_order() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        bed.give(0, 32, 4096);
        let host = bed.hosts[0].clone();
        let writer = executor::spawn(async move { write_all(&host, &pattern(0, MIB)).await });
        assert_eq!(bed.guest_reads(0, MIB, 4096).await, pattern(0, MIB));
        writer.await;
        bed.host_writes(0, b"!").await;
        assert_eq!(bed.guest_reads(0, 1, 4096).await, b"!");
        // How long the guest's buffers waited for input says nothing.
        assert_eq!(bed.metrics.as_ref().unwrap().read()[0].bytes, MIB as u64 + 1);
        bed.finish().await;
    });
}

#[test]
fn a_slow_reader_stalls_its_port_and_no_other_and_loses_nothing() {
    on_both(|| async {
        let mut bed = Bed::active(3).await;
        // More than a socket takes.
        for place in 0..32 {
            bed.send(1, place, &pattern(place as usize * 60_000, 60_000));
        }
        for round in 0..10 {
            bed.send(2, 40, &pattern(round, 1000));
            assert_eq!(bed.host_reads(2, 1000).await, pattern(round, 1000));
            bed.used(transmit_queue(2)).await;
        }
        let mut returned = 0;
        while bed.driver(transmit_queue(1)).take_used().is_some() {
            returned += 1;
        }
        assert!(returned < 32, "the port is stalled");
        assert!(bed.host_reads(1, 32 * 60_000).await == pattern(0, 32 * 60_000));
        for _ in returned..32 {
            bed.used(transmit_queue(1)).await;
        }
        bed.finish().await;
    });
}

#[test]
fn output_without_an_end_is_thrown_away() {
    on_both(|| async {
        let mut bed = Bed::start_on(vec![(PortRole::Console, PortEnd::Null)], Vec::new());
        bed.activate().await;
        bed.give(0, 4, 64);
        for _ in 0..100 {
            bed.send(0, 0, b"nobody reads this");
            bed.used(1).await;
        }
        assert!(bed.driver(0).take_used().is_none());
        bed.finish().await;
    });
}

#[test]
fn a_host_that_is_gone_takes_nothing_and_gives_nothing() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        bed.give(0, 4, 64);
        bed.host_writes(0, b"last words").await;
        bed.hosts.clear();
        assert_eq!(bed.guest_reads(0, 10, 64).await, b"last words");
        for _ in 0..100 {
            bed.send(0, 0, &pattern(0, 60_000));
            bed.used(1).await;
        }
        bed.finish().await;
    });
}

#[test]
fn a_file_gets_all_that_is_sent() {
    on_both(|| async {
        let mut file = tempfile::tempfile().unwrap();
        let end = PortEnd::Output(OwnedFd::from(file.try_clone().unwrap()).into());
        let mut bed = Bed::start_on(vec![(PortRole::Console, end)], Vec::new());
        bed.activate().await;
        for index in 0..100 {
            bed.send(0, 0, &pattern(index * 1000, 1000));
            bed.used(1).await;
        }
        bed.finish().await;
        let mut found = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        File::read_to_end(&mut file, &mut found).unwrap();
        assert!(found == pattern(0, 100_000));
    });
}

#[test]
fn a_pipe_is_as_good_as_a_file() {
    on_both(|| async {
        let (reader, writer) = std::io::pipe().unwrap();
        let end = PortEnd::Output(OwnedFd::from(writer).into());
        let hosts = vec![Fd::new(OwnedFd::from(reader)).unwrap()];
        let mut bed = Bed::start_on(vec![(PortRole::Console, end)], hosts);
        bed.activate().await;
        bed.send(0, 0, &pattern(0, 1000));
        assert_eq!(bed.host_reads(0, 1000).await, pattern(0, 1000));
        bed.used(1).await;
        bed.finish().await;
    });
}
