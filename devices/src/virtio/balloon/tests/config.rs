//! The configuration space: what is asked of the driver, and what it answers.

use super::super::{BalloonParts, Offer, PageSize};
use super::bed::*;
use crate::virtio::backend::BackendEvent;
use crate::virtio::control::Change;
use crate::virtio::net::LinkState;
use crate::virtio::parts::Parts;

#[test]
fn features_are_those_that_were_asked_for() {
    let offered = |parts: &BalloonParts| parts.profile().features & 0x3f;
    let plain = BalloonParts::new(PageSize::Small);
    assert_eq!(offered(&plain), 1 << 1);
    let reporting = BalloonParts { reporting: Offer::Yes, ..plain.clone() };
    assert_eq!(offered(&reporting), 1 << 1 | 1 << 4 | 1 << 5);
    let on_oom = BalloonParts { deflate_on_oom: Offer::Yes, ..plain };
    assert_eq!(offered(&on_oom), 1 << 1 | 1 << 2);
}

#[test]
fn a_change_is_told_to_the_driver_and_remembered() {
    on_both(|| async {
        let mut parts = BalloonParts { target_bytes: 16 * PAGE, ..parts() };
        let mut bed = Bed::active(parts.clone()).await;
        assert_eq!(bed.fields().await, [16, 0, 0]);
        let change = Change::Balloon { bytes: 5 * PAGE };
        bed.change(change.clone()).await;
        let BackendEvent::ConfigChanged { config } = bed.events.recv().await.unwrap() else {
            panic!("another event");
        };
        assert_eq!(config, [&[5, 0, 0, 0][..], &[0; 12]].concat());
        assert_eq!(bed.fields().await[0], 5);
        // The same again is no news.
        bed.change(change.clone()).await;
        assert!(bed.events.try_recv().is_err());
        parts.remember(&change);
        assert_eq!(parts.profile().config, config);
        bed.finish().await;
    });
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        for (change, reason) in [
            (Change::Balloon { bytes: MEMORY + PAGE }, "bytes of memory"),
            (Change::Balloon { bytes: u64::MAX }, "bytes of memory"),
            (Change::Balloon { bytes: 1000 }, "4096"),
            (Change::Link(LinkState::Down), "size"),
        ] {
            let refusal = bed.try_change(change).await.unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
        assert!(bed.events.try_recv().is_err());
        assert_eq!(bed.fields().await, [0, 0, 0]);
        bed.finish().await;
    });
}

#[test]
fn what_the_driver_writes_shows_until_a_reset() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        bed.write_config(4, &300_u32.to_le_bytes()).await;
        assert_eq!(bed.fields().await, [0, 300, 0]);
        // Any part of any field, but only two fields are the driver's.
        bed.write_config(5, &[2]).await;
        bed.write_config(0, &[9; 4]).await;
        bed.write_config(8, &[9; 4]).await;
        bed.write_config(14, &[1, 2, 3, 4]).await;
        bed.write_config(u32::MAX, &[1]).await;
        assert_eq!(bed.fields().await, [0, 300 % 256 + 512, 0x0201_0000]);
        bed.reset().await;
        let BackendEvent::ConfigChanged { config } = bed.events.recv().await.unwrap() else {
            panic!("another event");
        };
        assert_eq!(config, [0; 16]);
        assert_eq!(bed.fields().await, [0, 0, 0]);
        bed.finish().await;
    });
}
