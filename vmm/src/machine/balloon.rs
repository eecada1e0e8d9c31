//! The memory balloon of the machine.

use devices::virtio::balloon::{BalloonParts, Offer, PageSize};
use devices::virtio::parts::DeviceParts;

use super::backends::OpenDevice;
use crate::config::{BalloonConfig, Pages, StatsInterval};

/// What the balloon is made of.
pub(super) fn open(config: &BalloonConfig, pages: Pages) -> OpenDevice {
    let offer = |wanted| if wanted { Offer::Yes } else { Offer::No };
    let pages = match pages {
        Pages::Transparent => PageSize::Small,
        Pages::Huge => {
            log::warn!("balloon: only whole huge pages can be freed, which takes `reporting`");
            PageSize::Huge
        }
    };
    let parts = BalloonParts {
        target_bytes: config.size.bytes(),
        reporting: offer(config.reporting),
        deflate_on_oom: offer(config.deflate_on_oom),
        statistics_interval: config.stats_interval.map(StatsInterval::duration),
        pages,
    };
    OpenDevice::new("balloon", DeviceParts::Balloon(parts))
}
