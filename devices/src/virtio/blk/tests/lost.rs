//! What a failed sync should have written is lost, whatever the next one says.

use executor::sim::{Faults, PerMille, Sim};

use super::super::{BlockBackend, BlockImage, DiskOptions};
use super::bed::*;
use crate::virtio::test_bed::in_world;

const BYTES: u64 = 64 * SECTOR;

#[test]
fn after_a_failed_flush_none_succeeds_here_or_in_a_successor() {
    let sim = Sim::new(1, Faults { sync_error: PerMille(1000), ..Faults::NONE });
    let (file, _) = sim.disk(vec![0; BYTES as usize]).unwrap();
    let host = sim.clone();
    let test = async move {
        let options = DiskOptions::new("simulated");
        let region = region(&options);
        let backend = || {
            let image = BlockImage::over(file.try_clone().unwrap(), BYTES, &options);
            BlockBackend::new(image).with_inflight(region.clone())
        };
        let mut bed = Bed::start(backend(), 1, options.queue_size);
        bed.activate().await;
        let data = [readable(Bed::data(0), 512)];
        assert_eq!(bed.request(OUT, 1, &data).await.0, STATUS_OK);
        assert_eq!(bed.request(FLUSH, 0, &[]).await.0, STATUS_IOERR);
        host.set_faults(Faults::NONE);
        assert_eq!(bed.request(FLUSH, 0, &[]).await.0, STATUS_IOERR);
        bed.kill().await;
        bed.replace(backend());
        bed.activate().await;
        assert_eq!(bed.request(FLUSH, 0, &[]).await.0, STATUS_IOERR);
        let data = [writable(Bed::data(0), 512)];
        assert_eq!(bed.request(IN, 1, &data).await.0, STATUS_OK, "the rest goes on");
        bed.finish().await;
    };
    in_world(&sim, test);
}
