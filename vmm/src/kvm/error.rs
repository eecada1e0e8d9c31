//! What can go wrong at the KVM edge, in words a user can act on.

use std::borrow::Cow;
use std::io;

use crate::error::Hint;

/// An operation on `/dev/kvm`, a VM or a vCPU that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` could not be opened.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// The kernel speaks another version of the KVM interface.
    #[error("/dev/kvm speaks KVM API version {found}, this program needs {needed}")]
    ApiVersion {
        /// What the kernel said.
        found: i32,
        /// What this program was written for.
        needed: i32,
    },
    /// More vCPUs than this host's KVM gives to one VM.
    #[error("{asked} vCPUs are more than the {limit} that this host's KVM gives to a VM")]
    TooManyCpus {
        /// The number that the configuration names.
        asked: usize,
        /// The host's limit.
        limit: usize,
    },
    /// An ioctl failed.
    #[error("KVM refused to {doing}")]
    Ioctl {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// All GSIs for message-signalled interrupts are taken.
    #[error("all {limit} interrupt routes of the VM are in use")]
    OutOfGsis {
        /// How many there are.
        limit: usize,
    },
}

impl KvmError {
    /// Wraps an errno of an ioctl with what was being done.
    pub(super) fn ioctl(doing: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self::Ioctl { doing, source: io_error(error) }
    }
}

/// The wrapper crate's error as the standard library's.
pub(super) fn io_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl Hint for KvmError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        let Self::Open(error) = self else { return None };
        Some(match error.kind() {
            io::ErrorKind::NotFound => {
                "load the kernel module (modprobe kvm_intel or kvm_amd), switch on \
                 virtualization in the firmware, or pass /dev/kvm into the container"
                    .into()
            }
            io::ErrorKind::PermissionDenied => {
                "add the user to the group of /dev/kvm (usermod -aG kvm USER) and log in again"
                    .into()
            }
            _ => "`vmm doctor` says what this host can do".into(),
        })
    }
}
