//! Discards and zeroes.

use std::os::unix::fs::MetadataExt;

use super::bed::*;

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

async fn send(bed: &mut Bed, kind: u32, ranges: &[Vec<u8>]) -> u8 {
    let data = Bed::data(0);
    let bytes = ranges.concat();
    bed.write(data, &bytes);
    // In two descriptors, cut in the middle of a field.
    let first = bytes.len() as u32 / 2 - 1;
    let rest = bytes.len() as u32 - first;
    let buffers = [readable(data, first), readable(data + u64::from(first), rest)];
    let (status, written) = bed.request(kind, 0, &buffers).await;
    assert_eq!(written, 1);
    status
}

#[test]
fn zeroes_read_as_zeroes_and_discards_free_space() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        let before = disk.file.metadata().unwrap().blocks();
        let status = send(&mut bed, WRITE_ZEROES, &[range(3, 2, 0), range(16, 8, 1)]).await;
        assert_eq!(status, STATUS_OK);
        assert_eq!(disk.read(2, 512), pattern(2));
        assert_eq!(disk.read(3, 1024), [0; 1024]);
        assert_eq!(disk.read(5, 512), pattern(5));
        assert_eq!(disk.read(16, 4096), [0; 4096]);
        assert_eq!(disk.read(24, 512), pattern(24));
        let status = send(&mut bed, DISCARD, &[range(1024, 512, 0), range(256, 256, 0)]).await;
        assert_eq!(status, STATUS_OK);
        disk.file.sync_all().unwrap();
        let after = disk.file.metadata().unwrap().blocks();
        assert!(after + 700 <= before, "{before} blocks before, {after} after");
        assert_eq!(disk.file.metadata().unwrap().len(), 1 << 20);
        assert_eq!(disk.read(1023, 512), pattern(1023));
        assert_eq!(disk.read(1536, 512), pattern(1536));
        bed.finish().await;
    });
}

#[test]
fn ranges_that_break_the_rules() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        for (kind, ranges, status) in [
            (DISCARD, vec![range(0, 8, 1)], STATUS_UNSUPP),
            (DISCARD, vec![range(0, 8, 2)], STATUS_UNSUPP),
            (WRITE_ZEROES, vec![range(0, 8, 3)], STATUS_UNSUPP),
            (WRITE_ZEROES, vec![range(0, 8, 1 << 31)], STATUS_UNSUPP),
            (DISCARD, vec![range(2048, 1, 0)], STATUS_IOERR),
            (DISCARD, vec![range(2047, 2, 0)], STATUS_IOERR),
            (DISCARD, vec![range(u64::MAX, 1, 0)], STATUS_IOERR),
            (DISCARD, vec![range(0, u32::MAX, 0)], STATUS_IOERR),
            (DISCARD, vec![range(0, 0, 0)], STATUS_IOERR),
            (DISCARD, vec![range(0, 1, 0); 17], STATUS_IOERR),
            (DISCARD, vec![range(0, 1, 0), vec![0; 8]], STATUS_IOERR),
            // One bad range, and nothing of the others is done either.
            (WRITE_ZEROES, vec![range(0, 8, 0), range(4096, 1, 0)], STATUS_IOERR),
        ] {
            assert_eq!(send(&mut bed, kind, &ranges).await, status, "{ranges:?}");
        }
        assert_eq!(bed.request(DISCARD, 0, &[]).await, (STATUS_IOERR, 1));
        assert_eq!(disk.read(0, 512), pattern(0));
        bed.finish().await;
    });
}

/// A tmpfs can free ranges but cannot zero them in place.
#[test]
fn zeroes_are_written_where_the_file_system_cannot_zero() {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::super::DiskOptions;

    on_both(|| async {
        let folder = tempfile::TempDir::new_in("/dev/shm").expect("/dev/shm is a tmpfs");
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![0x11; 1 << 20]).unwrap();
        let mut bed = running(&DiskOptions::new(&path)).await;
        let status = send(&mut bed, WRITE_ZEROES, &[range(1, 600, 0), range(1000, 1, 1)]).await;
        assert_eq!(status, STATUS_OK);
        let file = File::open(&path).unwrap();
        let mut data = vec![0; 1 << 20];
        file.read_exact_at(&mut data, 0).unwrap();
        let sectors: Vec<bool> =
            data.chunks(512).map(|sector| sector.iter().all(|byte| *byte == 0)).collect();
        let zeroed: Vec<usize> = (0..sectors.len()).filter(|at| sectors[*at]).collect();
        let expected: Vec<usize> = (1..601).chain([1000]).collect();
        assert_eq!(zeroed, expected);
        bed.finish().await;
    });
}
