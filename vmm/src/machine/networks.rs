//! Networks: what each is connected to on the host, opened before any sandbox is entered.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use devices::rate_limit::{RateLimit, RateLimits};
use devices::virtio::net::{LinkState, NetError, NetOptions, NetParts, Tap, TapOptions, TapSource};
use devices::virtio::parts::DeviceParts;

use super::Error;
use super::backends::OpenDevice;
use super::user_net::UserNet;
use crate::config::{HostAddress, Link, NetConfig, NetPeer, QueuePairs, TrafficLimits};

/// Opens a network. A user-mode one comes with what carries its frames.
pub(super) fn open(net: &NetConfig) -> Result<(OpenDevice, Option<UserNet>), Error> {
    let (tap, user_net) = match &net.peer {
        NetPeer::Tap { name, address } => (open_tap(net, name.as_deref(), *address)?, None),
        NetPeer::Descriptors(numbers) => (adopt(net, numbers)?, None),
        NetPeer::User { forwards } => {
            let (user_net, tap) = UserNet::start(forwards, net.mtu)?;
            (tap, Some(user_net))
        }
    };
    let options = NetOptions {
        link: match net.link {
            Link::Up => LinkState::Up,
            Link::Down => LinkState::Down,
        },
        receive: rate_limits(net.limits.receive()),
        transmit: rate_limits(net.limits.transmit()),
        ..net.mac.map_or_else(NetOptions::random, |mac| Ok(NetOptions::new(mac)))?
    };
    let name = format!("network {}", tap.name());
    let parts = DeviceParts::Net(NetParts::new(tap, options)?);
    Ok((OpenDevice::new(name, parts), user_net))
}

fn rate_limits(limits: TrafficLimits) -> RateLimits {
    RateLimits {
        bytes: limits.bytes.map(|bytes| RateLimit::per_second(bytes.get())),
        operations: limits.ops.map(RateLimit::per_second),
    }
}

fn open_tap(
    net: &NetConfig,
    name: Option<&str>,
    address: Option<HostAddress>,
) -> Result<Tap, NetError> {
    Tap::open(TapOptions {
        source: name.map_or(TapSource::New, |name| TapSource::Name(name.to_owned())),
        queue_pairs: net.queues.map_or(1, QueuePairs::get),
        mtu: net.mtu,
        address: address.map(|HostAddress { address, prefix }| (address, prefix)),
    })
}

fn adopt(net: &NetConfig, numbers: &[i32]) -> Result<Tap, NetError> {
    let descriptors: Vec<OwnedFd> =
        numbers.iter().map(|number| inherited(*number)).collect::<Result<_, _>>()?;
    let duplicates: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let source = TapSource::Descriptors(descriptors);
    let tap = Tap::open(TapOptions { mtu: net.mtu, ..TapOptions::new(source) });
    // Errors name descriptors as the user knows them.
    let known = |duplicate: i32| {
        let place = duplicates.iter().position(|number| *number == duplicate);
        place.map_or(duplicate, |place| numbers[place])
    };
    tap.map_err(|error| match error {
        NetError::NotTap { descriptor, source } => {
            NetError::NotTap { descriptor: known(descriptor), source }
        }
        NetError::Mode { descriptor, name, flags } => {
            NetError::Mode { descriptor: known(descriptor), name, flags }
        }
        other => other,
    })
}

/// A duplicate of a descriptor that this process was started with. The original stays open and is
/// nobody's, like any descriptor of a parent that the program knows nothing of.
fn inherited(number: i32) -> Result<OwnedFd, NetError> {
    // SAFETY: only duplicated, in one call, which fails on what is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 0)
        .map_err(|errno| NetError::NotTap { descriptor: number, source: errno.into() })
}
