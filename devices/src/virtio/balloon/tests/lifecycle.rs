//! Back ends that die, and their successors.

use super::super::BalloonParts;
use super::bed::*;
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;

fn region(parts: &BalloonParts) -> InflightRegion {
    let (queues, size) = parts.profile().inflight_size();
    InflightRegion::create(queues, size).unwrap()
}

fn again(region: &InflightRegion, parts: &BalloonParts) -> InflightRegion {
    let (queues, size) = parts.profile().inflight_size();
    let file = region.file().try_clone_to_owned().unwrap();
    InflightRegion::attach(file, queues, size).unwrap()
}

#[test]
fn a_successor_goes_on_wherever_its_predecessor_died() {
    on_both(|| async {
        let parts = parts();
        let region = region(&parts);
        let mut bed = Bed::start(parts.clone(), Some(again(&region, &parts)));
        bed.activate(&[0, 1, 2, 3]).await.unwrap();
        let mut head = bed.say(4, 1);
        for round in 0..20 {
            let list = bed.list(&(64 * round..64 * round + 64).map(spare).collect::<Vec<_>>());
            let inflating = bed.driver(INFLATE).add(&[list]).unwrap();
            bed.publish(INFLATE);
            for _ in 0..round % 5 {
                executor::yield_now().await;
            }
            bed.kill().await;
            bed.replace(parts.clone(), Some(again(&region, &parts)));
            bed.activate(&[0, 1, 2, 3]).await.unwrap();
            assert_eq!(bed.used(INFLATE).await.head, inflating, "round {round}");
            assert_eq!(bed.read(SPARE + 64 * round * PAGE, 1), [0]);
            // The buffer that was held is still the device's: a second one releases it.
            let next = bed.say(4, round);
            assert_eq!(bed.used(STATISTICS).await.head, head, "round {round}");
            head = next;
        }
        bed.finish().await;
    });
}

#[test]
fn a_reset_forgets_the_buffer_that_was_held() {
    on_both(|| async {
        let parts = parts();
        let region = region(&parts);
        let mut bed = Bed::start(parts.clone(), Some(again(&region, &parts)));
        for value in 0..5 {
            bed.activate(&[0, 1, 2, 3]).await.unwrap();
            let head = bed.say(4, value);
            bed.say(4, value);
            assert_eq!(bed.used(STATISTICS).await.head, head);
            bed.reset().await;
            bed.new_rings();
        }
        bed.finish().await;
    });
}
