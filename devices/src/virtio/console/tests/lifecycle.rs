use super::super::protocol::{Message, event};
use super::super::{ConsoleParts, PortEnd, WindowSize};
use super::bed::*;

const CHUNK: usize = 60_000;
const CHUNKS: usize = 32;

/// Send more than a socket takes.
fn fill(bed: &mut Bed, port: usize) {
    for chunk in 0..CHUNKS {
        bed.send(port, chunk as u64, &pattern(chunk * CHUNK, CHUNK));
    }
}

/// The host gets all of it, each byte once, and the driver its buffers.
async fn drain(bed: &mut Bed, port: usize) {
    assert!(bed.host_reads(port, CHUNKS * CHUNK).await == pattern(0, CHUNKS * CHUNK));
    for _ in 0..CHUNKS {
        bed.used(transmit_queue(port)).await;
    }
}

#[test]
fn a_pause_does_not_wait_for_a_reader() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        bed.give(0, 4, 64);
        fill(&mut bed, 0);
        for _ in 0..5 {
            bed.pause().await;
            bed.resume().await;
        }
        drain(&mut bed, 0).await;
        bed.host_writes(0, b"input").await;
        assert_eq!(bed.guest_reads(0, 5, 64).await, b"input");
        bed.finish().await;
    });
}

#[test]
fn bytes_read_while_paused_wait_for_the_resume() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        bed.give(0, 4, 64);
        for round in 0..10 {
            bed.pause().await;
            bed.host_writes(0, &pattern(round, 50)).await;
            assert!(bed.driver(0).take_used().is_none());
            bed.resume().await;
            assert_eq!(bed.guest_reads(0, 50, 64).await, pattern(round, 50));
        }
        bed.finish().await;
    });
}

#[test]
fn a_reset_while_the_reader_is_slow_is_answered() {
    on_both(|| async {
        let mut bed = Bed::active(2).await;
        fill(&mut bed, 1);
        bed.give(receive_queue(1), 4, 64);
        bed.reset().await;
        // The driver starts anew, and the port is closed until it says otherwise.
        bed.new_rings();
        bed.activate().await;
        bed.give(receive_queue(1), 4, 64);
        bed.host_writes(1, b"early").await;
        bed.pause().await;
        bed.resume().await;
        assert!(bed.driver(receive_queue(1)).take_used().is_none());
        bed.greet().await;
        bed.tell(1, event::PORT_READY, 1).await;
        bed.heard(2).await;
        bed.tell(1, event::PORT_OPEN, 1).await;
        assert_eq!(bed.guest_reads(1, 5, 64).await, b"early");
        bed.finish().await;
    });
}

/// The successor knows how much of the buffer under way has gone: the host gets each byte once.
#[test]
fn a_successor_goes_on_in_the_middle_of_a_buffer() {
    on_both(|| async {
        let mut bed = Bed::active(2).await;
        fill(&mut bed, 1);
        for _ in 0..3 {
            // A write after each resume: the socket is full by then, and the last one waits.
            for _ in 0..8 {
                bed.pause().await;
                bed.resume().await;
            }
            bed.kill().await;
            bed.succeed();
            bed.activate().await;
        }
        drain(&mut bed, 1).await;
        bed.finish().await;
    });
}

#[test]
fn a_successor_knows_which_ports_are_open_and_what_is_owed() {
    on_both(|| async {
        let mut bed = Bed::start(3);
        bed.activate().await;
        bed.greet().await;
        bed.tell(1, event::PORT_READY, 1).await;
        bed.heard(2).await;
        bed.tell(1, event::PORT_OPEN, 1).await;
        bed.give(receive_queue(1), 4, 64);
        bed.give(receive_queue(2), 4, 64);
        for round in 0..3 {
            bed.kill().await;
            bed.host_writes(1, &pattern(round, 20)).await;
            bed.host_writes(2, b"not yet").await;
            bed.succeed();
            bed.activate().await;
            assert_eq!(bed.guest_reads(1, 20, 64).await, pattern(round, 20));
        }
        assert!(bed.driver(receive_queue(2)).take_used().is_none());
        bed.tell(2, event::PORT_READY, 1).await;
        let events = bed.heard(2).await.into_iter().map(|(message, _)| message.event);
        assert!(events.eq([event::PORT_NAME, event::PORT_OPEN]));
        bed.finish().await;
    });
}

/// As of a program that died with the process of the device: the driver is asked again, and what it does not say again
/// is taken for granted.
#[test]
fn a_successor_that_knows_nothing_asks_again_and_takes_ports_for_open() {
    on_both(|| async {
        let mut bed = Bed::active(3).await;
        bed.give(receive_queue(1), 4, 64);
        bed.kill().await;
        let ends = vec![(role(0), PortEnd::Null)];
        bed.parts.state = ConsoleParts::new(ends, WindowSize::default()).unwrap().state;
        bed.host_writes(1, b"again").await;
        bed.succeed();
        bed.activate().await;
        assert_eq!(bed.guest_reads(1, 5, 64).await, b"again");
        let added = bed.heard(3).await.into_iter().map(|(message, _)| message);
        assert!(added.eq((0..3).map(|port| Message { port, event: event::PORT_ADD, value: 0 })));
        bed.tell(1, event::PORT_READY, 1).await;
        let events = bed.heard(2).await.into_iter().map(|(message, _)| message.event);
        assert!(events.eq([event::PORT_NAME, event::PORT_OPEN]));
        // Now it knows, and what the driver closes is closed.
        bed.tell(1, event::PORT_OPEN, 0).await;
        bed.pause().await;
        bed.resume().await;
        bed.host_writes(1, b"not yet").await;
        bed.kill().await;
        bed.succeed();
        bed.activate().await;
        bed.pause().await;
        bed.resume().await;
        assert!(bed.driver(receive_queue(1)).take_used().is_none());
        bed.finish().await;
    });
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    on_both(|| async {
        let mut bed = Bed::active(3).await;
        fill(&mut bed, 1);
        let host = bed.hosts[1].clone();
        let reader = executor::spawn(async move { read_all(&host, CHUNKS * CHUNK).await });
        bed.finish().await;
        assert!(reader.await == pattern(0, CHUNKS * CHUNK));
    });
}

#[test]
fn a_reader_that_has_stalled_does_not_hold_up_the_end() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        fill(&mut bed, 0);
        bed.finish().await;
    });
}
