//! Pages leave when the driver gives them up or reports them, and only those.

use super::super::PageSize;
use super::bed::*;

const ALL: u64 = (MEMORY - SPARE) / PAGE;

#[test]
fn inflated_pages_leave_and_come_back_when_touched() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        assert_eq!(bed.spare_pages(), ALL);
        let frames: Vec<u32> = (0..256).rev().map(|page| spare(2 * page)).collect();
        let list = bed.list(&frames);
        bed.exchange(INFLATE, &[list]).await;
        assert_eq!(bed.spare_pages(), ALL - 256);
        let counts = bed.counts(INFLATE);
        assert_eq!((counts.requests, counts.bytes), (1, 256 * PAGE));
        assert_eq!(bed.read(SPARE, 1), [0]);
        assert_eq!(bed.read(SPARE + PAGE, 1), [7]);
        let list = bed.list(&frames);
        bed.exchange(DEFLATE, &[list]).await;
        for page in 0..256 {
            bed.write(SPARE + 2 * page * PAGE, &[9]);
        }
        assert_eq!(bed.spare_pages(), ALL);
        bed.finish().await;
    });
}

#[test]
fn a_long_list_in_pieces_is_read_to_its_end() {
    on_both(|| async {
        let mut bed = Bed::start(parts(), None);
        bed.features &= !STATS_VQ;
        bed.activate(&[0, 1]).await.unwrap();
        let frames: Vec<u32> = (0..ALL).map(spare).collect();
        bed.list(&frames);
        // Three pieces, the second ends within a number; the last bytes are no number.
        let length = 4 * frames.len() as u64;
        let pieces = [
            readable(SENT, 4),
            readable(SENT + 4, 2001),
            readable(SENT + 2005, (length - 2005 + 3) as u32),
        ];
        bed.exchange(INFLATE, &pieces).await;
        assert_eq!(bed.spare_pages(), 0);
        assert_eq!(bed.balloon_statistics().await.inflated_bytes, MEMORY - SPARE);
        bed.finish().await;
    });
}

#[test]
fn reported_ranges_leave() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        let ranges: Vec<_> =
            (0..3).map(|index| writable(SPARE + index * (4 << 20), 2 << 20)).collect();
        bed.exchange(REPORTING, &ranges).await;
        assert_eq!(bed.spare_pages(), ALL - 3 * 512);
        // A part of a page is not a page.
        bed.exchange(REPORTING, &[writable(SPARE + (2 << 20) + 1, 2 * PAGE as u32)]).await;
        assert_eq!(bed.spare_pages(), ALL - 3 * 512 - 1);
        assert_eq!(bed.read(SPARE + (2 << 20) - 1, 2), [0, 7]);
        bed.finish().await;
    });
}

#[test]
fn what_the_driver_expects_to_find_stays() {
    on_both(|| async {
        let mut bed = Bed::start(parts(), None);
        bed.write_config(12, &0xaaaa_aaaa_u32.to_le_bytes()).await;
        bed.activate(&[0, 1, 2, 3]).await.unwrap();
        bed.exchange(REPORTING, &[writable(SPARE, 2 << 20)]).await;
        assert_eq!(bed.spare_pages(), ALL);
        // The next driver says nothing of the kind.
        bed.reset().await;
        bed.new_rings();
        bed.features &= !PAGE_POISON;
        bed.activate(&[0, 1, 2, 3]).await.unwrap();
        bed.exchange(REPORTING, &[writable(SPARE, 2 << 20)]).await;
        assert_eq!(bed.spare_pages(), ALL - 512);
        bed.finish().await;
    });
}

#[test]
fn huge_pages_leave_as_a_whole() {
    on_both(|| async {
        let mut bed =
            Bed::active(super::super::BalloonParts { pages: PageSize::Huge, ..parts() }).await;
        let list = bed.list(&(0..511).map(spare).collect::<Vec<_>>());
        bed.exchange(INFLATE, &[list]).await;
        assert_eq!(bed.spare_pages(), ALL);
        bed.exchange(REPORTING, &[writable(SPARE + PAGE, 4 << 20)]).await;
        assert_eq!(bed.spare_pages(), ALL - 512);
        bed.finish().await;
    });
}

#[test]
fn both_ways_to_number_the_queues_are_understood() {
    on_both(|| async {
        for (without, queues, reporting) in [
            (0, vec![0, 1, 2, 4], REPORTING_BY_THE_BOOK),
            (STATS_VQ, vec![0, 1, 4], REPORTING_BY_THE_BOOK),
            (STATS_VQ, vec![0, 1, 2], 2),
        ] {
            let mut bed = Bed::start(parts(), None);
            bed.features &= !without;
            bed.activate(&queues).await.unwrap();
            bed.exchange(reporting, &[writable(SPARE, 2 << 20)]).await;
            assert_eq!(bed.spare_pages(), ALL - 512, "{queues:?}");
            bed.finish().await;
        }
    });
}

#[test]
fn more_queues_than_features_are_refused() {
    on_both(|| async {
        let mut bed = Bed::start(parts(), None);
        bed.features &= !STATS_VQ;
        assert!(bed.activate(&[0, 1, 2, 3]).await.unwrap_err().contains("4 queues"));
        bed.activate(&[0, 1, 2]).await.unwrap();
        bed.finish().await;
    });
}
