//! The edge to KVM: the only place that issues its ioctls.
//!
//! ```text
//! Hypervisor (/dev/kvm) ──create_vm──► Vm ──create_vcpu──► Vcpu (one thread each)
//!                                       ├── GsiRouter  (devices::interrupt::MsiController)
//!                                       ├── IrqfdLine  (devices::interrupt::IrqLine)
//!                                       └── Ioeventfds (devices::interrupt::KickRegistry)
//! ```
//!
//! Everything above this module speaks in the traits of `devices::interrupt` and in plain
//! structs of `arch`, so another hypervisor would be a sibling of this folder.

mod error;
mod eventfd;
mod interrupts;
mod ioeventfd;
mod state;
pub(crate) mod tiny;
mod vcpu;
mod vm;

pub use error::KvmError;
pub use interrupts::{GsiRouter, IrqfdLine};
pub use ioeventfd::Ioeventfds;
pub use vcpu::{Step, Vcpu, VcpuKicker, install_kick_handler};
pub use vm::{Hypervisor, Vm};
