//! Where a machine is in its life, and what may happen to it there.
//!
//! The picture is in the parent module. Only what these methods allow happens to the vCPUs.

use std::sync::Arc;

use devices::legacy::watchdog::Watchdog;

use super::vcpu::VcpuActor;

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No vCPU has entered the guest.
    Created,
    /// The vCPUs run.
    Running,
    /// The vCPUs are out of the guest and can go on.
    Paused,
}

/// The vCPUs of a machine. A stopped one is gone, which the type says: [`Machine::stop`] takes it.
#[derive(Debug)]
pub(super) struct Machine {
    state: State,
    vcpus: Vec<VcpuActor>,
    /// It stands still while they do.
    watchdog: Option<Arc<Watchdog>>,
}

impl Machine {
    /// A machine whose vCPU threads wait.
    pub(super) fn new(vcpus: Vec<VcpuActor>, watchdog: Option<Arc<Watchdog>>) -> Self {
        Self { state: State::Created, vcpus, watchdog }
    }

    /// Whether the vCPUs are out of the guest for a while.
    pub(super) fn is_paused(&self) -> bool {
        self.state == State::Paused
    }

    /// Lets the vCPUs enter the guest: for the first time, or to go on.
    pub(super) fn run(&mut self) {
        if self.state != State::Running {
            self.watchdog.iter().for_each(|watchdog| watchdog.resume());
            self.vcpus.iter().for_each(VcpuActor::run);
            self.state = State::Running;
        }
    }

    /// Takes the vCPUs out of the guest. Those that have ended by themselves are out already.
    pub(super) async fn pause(&mut self) {
        if self.state != State::Running {
            return;
        }
        for vcpu in &self.vcpus {
            vcpu.pause().await;
        }
        self.watchdog.iter().for_each(|watchdog| watchdog.pause());
        self.state = State::Paused;
    }

    /// Ends the vCPU threads, all of which are out of the guest before the first one ends: a
    /// guest never sees its processors vanish one by one.
    pub(super) async fn stop(mut self) {
        self.pause().await;
        self.vcpus.into_iter().for_each(VcpuActor::stop);
    }
}
