use executor::Either;

use super::super::protocol::{FEATURE_MULTIPORT, Message, event};
use super::super::{ConsoleParts, PortEnd, PortRole, WindowSize};
use super::bed::*;
use crate::rate_limit::RateLimits;
use crate::virtio::backend::BackendEvent;
use crate::virtio::control::{Change, LimitedTraffic};
use crate::virtio::parts::Parts;

const SIZE: WindowSize = WindowSize { columns: 132, rows: 43 };

#[test]
fn a_driver_gets_to_know_the_ports() {
    on_both(|| async {
        let mut bed = Bed::start(3);
        bed.activate().await;
        bed.greet().await;
        bed.tell(0, event::PORT_READY, 1).await;
        bed.tell(2, event::PORT_READY, 1).await;
        let said = bed.heard(4).await;
        let message = |port, event, value| Message { port, event, value };
        assert_eq!(
            said,
            [
                (message(0, event::CONSOLE_PORT, 1), Vec::new()),
                (message(0, event::PORT_OPEN, 1), Vec::new()),
                (message(2, event::PORT_NAME, 1), b"p2".to_vec()),
                (message(2, event::PORT_OPEN, 1), Vec::new()),
            ]
        );
        bed.finish().await;
    });
}

#[test]
fn nothing_is_read_for_a_port_that_is_closed() {
    on_both(|| async {
        let mut bed = Bed::active(2).await;
        bed.give(receive_queue(1), 4, 64);
        bed.host_writes(1, b"one").await;
        assert_eq!(bed.guest_reads(1, 3, 64).await, b"one");
        bed.tell(1, event::PORT_OPEN, 0).await;
        bed.host_writes(1, b"two").await;
        // All that the device had to do by then it has done when it has answered.
        bed.pause().await;
        bed.resume().await;
        assert!(bed.driver(receive_queue(1)).take_used().is_none());
        bed.tell(1, event::PORT_OPEN, 1).await;
        assert_eq!(bed.guest_reads(1, 3, 64).await, b"two");
        bed.finish().await;
    });
}

#[test]
fn a_driver_without_multiport_has_the_first_port_open() {
    on_both(|| async {
        let mut bed = Bed::start(3);
        bed.features &= !FEATURE_MULTIPORT;
        let all = bed.activate_with(bed.features, bed.setups(&[])).await;
        assert!(all.unwrap_err().contains("queue 2"));
        bed.activate().await;
        bed.give(0, 4, 64);
        bed.host_writes(0, b"hello").await;
        assert_eq!(bed.guest_reads(0, 5, 64).await, b"hello");
        bed.finish().await;
    });
}

#[test]
fn a_console_alone_has_no_control_queues() {
    let named = vec![(PortRole::Named("a".into()), PortEnd::Null)];
    let profile = ConsoleParts::new(named, WindowSize::default()).unwrap().profile();
    assert_eq!(
        (profile.features & FEATURE_MULTIPORT, profile.queue_sizes.len()),
        (FEATURE_MULTIPORT, 4)
    );
    on_both(|| async {
        let bed = Bed::start(1);
        assert_eq!(bed.features & FEATURE_MULTIPORT, 0);
        assert_eq!(bed.setups(&[]).len(), 2);
        bed.finish().await;
    });
}

#[test]
fn a_resize_changes_the_configuration_and_tells_consoles() {
    on_both(|| async {
        let mut bed = Bed::active(2).await;
        bed.change(Change::Window(SIZE)).await;
        let said = bed.heard(1).await;
        let message = Message { port: 0, event: event::RESIZE, value: 0 };
        assert_eq!(said, [(message, vec![132, 0, 43, 0])]);
        let config = [132, 0, 43, 0, 2, 0, 0, 0];
        assert_eq!(bed.config().await, config);
        let event = bed.events.recv().await.unwrap();
        assert_eq!(event, BackendEvent::ConfigChanged { config: config.to_vec() });
        // Once is enough.
        bed.change(Change::Window(SIZE)).await;
        bed.tell(0, event::PORT_READY, 1).await;
        let events = bed.heard(3).await.into_iter().map(|(message, _)| message.event);
        assert!(events.eq([event::CONSOLE_PORT, event::PORT_OPEN, event::RESIZE]));
        bed.finish().await;
    });
}

#[test]
fn a_driver_is_told_to_look_at_a_size_that_was_there_before_it() {
    on_both(|| async {
        let mut bed = Bed::start(1);
        bed.activate().await;
        bed.change(Change::Window(SIZE)).await;
        for _ in 0..3 {
            bed.reset().await;
            bed.new_rings();
            bed.activate().await;
            bed.pause().await;
            bed.resume().await;
        }
        // Once for each driver.
        let mut expected =
            vec![BackendEvent::ConfigChanged { config: vec![132, 0, 43, 0, 1, 0, 0, 0] }];
        expected.extend(vec![BackendEvent::LookAtConfig; 3]);
        for event in expected {
            assert_eq!(bed.events.recv().await.unwrap(), event);
        }
        bed.finish().await;
    });
}

#[test]
fn a_size_outlives_a_reset_and_the_back_end() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        bed.change(Change::Window(SIZE)).await;
        bed.reset().await;
        assert_eq!(bed.config().await[..4], [132, 0, 43, 0]);
        bed.kill().await;
        bed.succeed();
        assert_eq!(bed.config().await[..4], [132, 0, 43, 0]);
        bed.finish().await;
    });
}

#[test]
fn other_changes_are_refused() {
    on_both(|| async {
        let bed = Bed::start(1);
        let limits = RateLimits::NONE;
        let change = Change::RateLimits { traffic: LimitedTraffic::Both, limits };
        assert!(bed.try_change(change).await.is_err());
        bed.finish().await;
        let named = Bed::start_on(vec![(PortRole::Named("a".into()), PortEnd::Null)], Vec::new());
        assert!(named.try_change(Change::Window(SIZE)).await.unwrap_err().contains("window"));
        named.finish().await;
    });
}

#[test]
fn ports_that_cannot_be_are_refused() {
    let parts = |count: usize, name: &str| {
        let port = |_| (PortRole::Named(name.into()), PortEnd::Null);
        ConsoleParts::new((0..count).map(port).collect(), WindowSize::default())
    };
    assert!(parts(16, "org.qemu.guest_agent.0").is_ok());
    assert!(parts(0, "a").is_err() && parts(17, "a").is_err());
    for name in ["", "a/b", "a b", "..", ".", "a\n", "\u{e4}", &"a".repeat(65)] {
        let error = parts(1, name).unwrap_err();
        assert!(error.to_string().contains("is not a name"), "{name}");
    }
}

/// A driver that asks all the time and reads nothing costs a few flags.
#[test]
fn questions_without_room_for_answers_are_answered_once() {
    on_both(|| async {
        let mut bed = Bed::start(2);
        bed.activate().await;
        for _ in 0..1000 {
            bed.tell(0, event::DEVICE_READY, 1).await;
            bed.tell(1, event::PORT_READY, 1).await;
        }
        bed.give(CONTROL_RECEIVE, 32, 256);
        let events = bed.heard(4).await.into_iter().map(|(message, _)| message.event);
        let mut events = events.collect::<Vec<_>>();
        events.sort_unstable();
        assert_eq!(events, [event::PORT_ADD, event::PORT_ADD, event::PORT_OPEN, event::PORT_NAME]);
        bed.pause().await;
        bed.resume().await;
        assert!(bed.driver(CONTROL_RECEIVE).take_used().is_none());
        bed.finish().await;
    });
}

#[test]
fn messages_that_make_no_sense_change_nothing() {
    on_both(|| async {
        let mut bed = Bed::active(2).await;
        for port in [2, 3, 1000, u32::MAX] {
            for event in 0..12 {
                if event != event::DEVICE_READY {
                    bed.tell(port, event, 1).await;
                }
            }
        }
        for event in [event::PORT_ADD, event::RESIZE, event::PORT_NAME, 99, u16::MAX] {
            bed.tell(1, event, 1).await;
        }
        // Short and empty ones, and one that is longer.
        let buffers =
            [readable(place_at(50), 3), writable(place_at(50), 64), readable(place_at(50), 9)];
        bed.write(place_at(50), &[0xff; 64]);
        for buffer in buffers {
            bed.driver(CONTROL_TRANSMIT).add(&[buffer]).unwrap();
            bed.publish(CONTROL_TRANSMIT);
            bed.used(CONTROL_TRANSMIT).await;
        }
        bed.send(1, 0, b"still here");
        assert_eq!(bed.host_reads(1, 10).await, b"still here");
        bed.finish().await;
    });
}

#[test]
fn a_buffer_too_short_for_a_message_breaks_the_queue() {
    on_both(|| async {
        let mut bed = Bed::start(2);
        bed.activate().await;
        bed.give(CONTROL_RECEIVE, 1, 7);
        bed.tell(0, event::DEVICE_READY, 1).await;
        let said = bed.wait_or_event(CONTROL_RECEIVE).await;
        let Either::Right(BackendEvent::NeedsReset { queue, .. }) = said else {
            panic!("accepted: {said:?}");
        };
        assert_eq!(queue, CONTROL_RECEIVE as u16);
        bed.reset().await;
        bed.finish().await;
    });
}
