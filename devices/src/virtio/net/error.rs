//! Why a network cannot be used.

use std::io;

use thiserror::Error;

/// What keeps a tap from being a network. Each message names the tap and says what to do.
#[derive(Debug, Error)]
pub enum NetError {
    /// `/dev/net/tun` could not be opened.
    #[error("cannot open /dev/net/tun{}", device_hint(source))]
    Device {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name is not one that an interface can have.
    #[error("`{name}` is not a name for a tap; it takes 1 to 15 characters without `/` or spaces")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The interface could not be attached to, or not made.
    #[error("cannot attach to tap {name}{}", attach_hint(source, name, *queues))]
    Attach {
        /// The interface.
        name: String,
        /// Queues that were asked for.
        queues: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call on the tap failed.
    #[error("cannot {action} tap {name}")]
    System {
        /// The interface.
        name: String,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A descriptor that was handed over is not of a tap.
    #[error(
        "descriptor {descriptor} is not of a tap; open /dev/net/tun and attach it with TUNSETIFF"
    )]
    NotTap {
        /// Its number.
        descriptor: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A descriptor that was handed over is of a tap in another mode.
    #[error(
        "descriptor {descriptor} of {name} lacks {flags}; attach it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"
    )]
    Mode {
        /// Its number.
        descriptor: i32,
        /// The interface.
        name: String,
        /// The flags that are missing.
        flags: &'static str,
    },
    /// Descriptors of different interfaces were handed over as the queues of one.
    #[error("the descriptors are of {name} and of {other}; queues are of one tap")]
    Mixed {
        /// One interface.
        name: String,
        /// The other.
        other: String,
    },
    /// The number of queue pairs is out of range.
    #[error("a network cannot have {queues} queue pairs; it takes 1 to 16")]
    Queues {
        /// What was asked for.
        queues: usize,
    },
    /// The queue size is not one that a virtqueue can have here.
    #[error("a network cannot have queues of {size}; the size is a power of two from 64 to 1024")]
    QueueSize {
        /// What was asked for.
        size: u16,
    },
    /// The MTU is out of range.
    #[error("a network cannot have an MTU of {mtu}; it takes 68 to 65521")]
    Mtu {
        /// What was asked for.
        mtu: u16,
    },
    /// No random address could be made.
    #[error("cannot make a random MAC address; give one with `mac`")]
    Random {
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn device_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "; load it with `modprobe tun`",
        Some(libc::EACCES | libc::EPERM) => {
            "; check its permissions, or have somebody hand over an open tap with `fd`"
        }
        _ => "",
    }
}

fn attach_hint(error: &io::Error, name: &str, queues: u16) -> String {
    let mode = if queues > 1 { " multi_queue" } else { "" };
    match error.raw_os_error() {
        Some(libc::EPERM) => format!(
            "; making one needs CAP_NET_ADMIN: run `ip tuntap add {name} mode tap{mode} user $USER` \
             as root, or use `user` networking, which needs no privileges"
        ),
        Some(libc::EBUSY) => "; another process uses it".into(),
        Some(libc::EINVAL) => format!(
            "; it is not a tap{}: make one with `ip tuntap add NAME mode tap{mode}`",
            if queues > 1 { ", or not one of several queues" } else { "" }
        ),
        Some(libc::E2BIG) => format!("; it has no room for {queues} queues"),
        _ => String::new(),
    }
}
