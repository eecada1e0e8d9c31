//! The PCI function of a virtio device.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc::Sender;

use super::capabilities::{self, CapabilityOffsets};
use super::kicks::Kicks;
use super::layout::{
    BAR, BAR_BYTES, COMMON, DEVICE, ISR, MAX_QUEUES, MSIX_PENDING, MSIX_TABLE, NOTIFY,
    NOTIFY_MULTIPLIER, REGION_BYTES,
};
use super::link::{AfterPause, BackendLink, Deadlines, ResetOutcome, Succession};
use super::registers::{CommonWrite, NO_VECTOR, Registers};
use super::{Status, TransportError};
use crate::interrupt::{KickRegistry, MsiController};
use crate::log_limit::{Foreign, LogLimit};
use crate::pci::{BarIndex, BarSpec, DecodedBar, Decoding, Msix, PciConfig, PciDevice};
use crate::sync::Lock;
use crate::virtio::backend::{
    BackendEvent, BackendRequest, ConfigWrites, DeviceProfile, QueueSetup,
};

/// Offset of the status field in the common configuration.
const STATUS: u64 = 20;
/// Largest queue (virtio 1.3 section 2.7).
const MAX_QUEUE_SIZE: u16 = 1 << 15;
/// Device identifiers 0x1040 to 0x107f belong to virtio.
const MAX_DEVICE_TYPE: u16 = 0x3f;

/// What a transport is made of.
pub struct VirtioPciParts<'a> {
    /// What log lines call the device, for example "disk root.img".
    pub name: String,
    /// What the back end offers.
    pub profile: DeviceProfile,
    /// The way to the back end.
    pub requests: Sender<BackendRequest>,
    /// How long vCPUs wait for the back end.
    pub deadlines: Deadlines,
    /// What its death means.
    pub succession: Succession,
    /// Where interrupt vectors come from.
    pub msi: &'a dyn MsiController,
    /// Where notification addresses are registered.
    pub kicks: Arc<dyn KickRegistry>,
}

/// A virtio device on the PCI bus.
pub struct VirtioPciDevice {
    name: String,
    config_writes: ConfigWrites,
    link: Lock<BackendLink>,
    kicks: Kicks,
    config: Lock<PciConfig>,
    capabilities: CapabilityOffsets,
    registers: Lock<Registers>,
    msix: Msix,
    /// The back end serves the queues: notifications make sense.
    active: AtomicBool,
    log: LogLimit,
}

impl fmt::Debug for VirtioPciDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VirtioPciDevice")
            .field("name", &self.name)
            .field("registers", &*self.registers.lock())
            .finish_non_exhaustive()
    }
}

impl VirtioPciDevice {
    /// Builds the device, as after a reset.
    pub fn new(parts: VirtioPciParts<'_>) -> Result<VirtioPciDevice, TransportError> {
        let VirtioPciParts { name, profile, requests, deadlines, succession, msi, kicks } = parts;
        check(&profile)?;
        let queues = profile.queue_sizes.len();
        // One vector for each queue and one for the configuration.
        let msix = Msix::new(msi, queues + 1)?;
        let (config, capabilities) = capabilities::build(&profile, &msix)?;
        Ok(VirtioPciDevice {
            name,
            config_writes: profile.config_writes,
            link: Lock::new(BackendLink::new(requests, deadlines, succession)),
            kicks: Kicks::new(queues, kicks).map_err(TransportError::Eventfd)?,
            config: Lock::new(config),
            capabilities,
            registers: Lock::new(Registers::new(&profile, msix.count() as u16)),
            msix,
            active: AtomicBool::new(false),
            log: LogLimit::new(),
        })
    }

    /// The device status, for whoever looks from outside.
    pub fn status(&self) -> Status {
        self.registers.lock().status()
    }

    /// Takes an event of the back end. Does not block, and may run on the back end's own thread.
    pub fn handle_event(&self, event: BackendEvent) {
        match event {
            BackendEvent::ConfigChanged { config } => {
                let changed = self.registers.lock().change_config(config);
                match changed {
                    Ok(vector) => self.interrupt(vector),
                    Err(()) => self.warn("the back end changed the length of its configuration"),
                }
            }
            BackendEvent::LookAtConfig => {
                let vector = self.registers.lock().config_interrupt();
                self.interrupt(vector);
            }
            BackendEvent::NeedsReset { queue, reason } => {
                let mut registers = self.registers.lock();
                // After a reset this is news of the past.
                if !registers.status().contains(Status::DRIVER_OK) {
                    return;
                }
                let vector = registers.needs_reset();
                drop(registers);
                self.warn(format_args!("queue {queue} needs a reset: {}", Foreign(&reason)));
                self.interrupt(vector);
            }
        }
    }

    /// Turns to a successor of the back end, whose predecessor must be gone: activates it if the
    /// device is active. `void` is called first if what the predecessor left in flight is void.
    ///
    /// Calls the successor and waits for its answers, so it is not for the executor that carries
    /// them. The error is a sentence for the log: the successor has died as well, or does not answer.
    pub fn replace_backend(
        &self,
        requests: Sender<BackendRequest>,
        void: impl FnOnce(),
    ) -> Result<(), String> {
        let mut link = self.link.lock();
        if link.turn_to(requests) {
            void();
        }
        // First, so that no queue is served by what the driver did not ask for.
        link.repeat_writes().map_err(|error| format!("repeating configuration writes: {error}"))?;
        if !self.active.load(Ordering::Acquire) || link.defers_activation() {
            return Ok(());
        }
        self.bring_in(&mut link, BackendLink::activate_successor)
    }

    /// Activates a successor with all that the driver negotiated and told.
    fn bring_in(
        &self,
        link: &mut BackendLink,
        activate: impl FnOnce(&mut BackendLink, u64, Vec<QueueSetup>) -> Result<(), String>,
    ) -> Result<(), String> {
        let features = self.registers.lock().features();
        self.queue_setups()
            .map_err(|error| format!("duplicating eventfds for the back end: {error}"))
            .and_then(|queues| activate(link, features, queues))
    }

    /// Pauses the back end: when this returns it has finished what was in flight, and touches the
    /// guest no more until [`VirtioPciDevice::resume`]. That holds for a driver that starts the
    /// device anew meanwhile, and for a successor.
    ///
    /// Calls the back end as [`VirtioPciDevice::replace_backend`] does. After an error it may be
    /// paused or not.
    pub fn pause(&self) -> Result<(), String> {
        self.link.lock().pause().map_err(|error| format!("pausing the back end: {error}"))
    }

    /// Lets the back end go on after [`VirtioPciDevice::pause`].
    pub fn resume(&self) -> Result<(), String> {
        let mut link = self.link.lock();
        match link.resume() {
            Ok(AfterPause::Done) => Ok(()),
            // One that has died since is no hindrance: there will be another.
            Ok(AfterPause::Activate) => self.bring_in(&mut link, BackendLink::activate),
            Err(error) => Err(format!("resuming the back end: {error}")),
        }
    }

    /// There will be no successor: the driver is told that the device needs a reset.
    pub fn give_up(&self, reason: impl fmt::Display) {
        self.link.lock().give_up();
        if self.active.load(Ordering::Acquire) {
            self.fail(reason);
        } else {
            self.warn(reason);
        }
    }

    fn warn(&self, message: impl fmt::Display) {
        self.log.warn(format_args!("{}: {message}", self.name));
    }

    fn interrupt(&self, vector: Option<u16>) {
        if let Some(vector) = vector {
            self.msix.trigger(vector);
        }
    }

    /// The device cannot go on.
    fn fail(&self, reason: impl fmt::Display) {
        self.warn(format_args!("{reason}; the device needs a reset"));
        let vector = self.registers.lock().needs_reset();
        self.interrupt(vector);
    }

    fn write_common(&self, offset: u64, data: &[u8]) {
        // Held to the end: a second vCPU must not change registers while the back end is called.
        let mut link = self.link.lock();
        let next = self.registers.lock().write_common(offset, data);
        match next {
            CommonWrite::Done => {}
            CommonWrite::Activate => self.activate(&mut link),
            CommonWrite::Reset => self.reset(&mut link),
        }
    }

    fn activate(&self, link: &mut BackendLink) {
        let features = self.registers.lock().features();
        let result = self
            .queue_setups()
            .map_err(|error| format!("duplicating eventfds for the back end: {error}"))
            .and_then(|queues| link.activate(features, queues));
        match result {
            Ok(()) => {
                self.active.store(true, Ordering::Release);
                self.update_kicks();
            }
            Err(reason) => self.fail(reason),
        }
    }

    fn queue_setups(&self) -> io::Result<Vec<QueueSetup>> {
        let registers = self.registers.lock();
        let layout = registers.ring_layout();
        registers
            .enabled_queues()
            .map(|(index, queue)| {
                let call = self.msix.trigger_fd(queue.vector).filter(|_| queue.vector != NO_VECTOR);
                let call = call.map(|fd| fd.try_clone_to_owned()).transpose()?;
                Ok(QueueSetup {
                    index,
                    size: queue.size,
                    descriptor_table: queue.descriptor_table,
                    available_ring: queue.available_ring,
                    used_ring: queue.used_ring,
                    kick: self.kicks.duplicate(index)?.into(),
                    call: call.map(Into::into),
                    layout,
                    state: None,
                })
            })
            .collect()
    }

    fn reset(&self, link: &mut BackendLink) {
        if self.active.swap(false, Ordering::AcqRel) {
            self.update_kicks();
        }
        match link.reset() {
            ResetOutcome::Complete => self.registers.lock().reset(),
            ResetOutcome::BackEndGone(error) => {
                self.warn(format_args!("resetting the back end: {error}"));
                self.registers.lock().reset();
            }
            ResetOutcome::Unconfirmed(error) => {
                let again = self.registers.lock().is_reset_pending();
                if !again {
                    self.fail(format_args!("resetting the back end: {error}"));
                    self.registers.lock().reset_failed();
                }
            }
        }
    }

    /// The driver waits for a reset that was not confirmed: ask again.
    fn retry_reset(&self) {
        let mut link = self.link.lock();
        let pending = self.registers.lock().is_reset_pending();
        if pending {
            self.reset(&mut link);
        }
    }

    fn update_kicks(&self) {
        let result = self.kicks.update(|| {
            let bar = self.config.lock().decoded_bars().next()?.address;
            let active = self.active.load(Ordering::Acquire);
            let registers = self.registers.lock();
            active.then(|| (bar, registers.enabled_queues().map(|(index, _)| index).collect()))
        });
        if let Err(error) = result {
            self.warn(error);
        }
    }

    fn notify(&self, offset: u64) {
        let queue = (offset / u64::from(NOTIFY_MULTIPLIER)) as usize;
        if self.active.load(Ordering::Acquire)
            && let Err(error) = self.kicks.signal(queue)
        {
            self.warn(format_args!("notifying queue {queue}: {error}"));
        }
    }

    fn write_device_config(&self, offset: u64, data: &[u8]) {
        let length = self.registers.lock().config_length();
        let inside = offset.checked_add(data.len() as u64).is_some_and(|end| end <= length as u64);
        if self.config_writes == ConfigWrites::Ignored || !inside || data.is_empty() {
            return;
        }
        let mut link = self.link.lock();
        match link.write_config(offset as u32, data.to_vec(), length as u32) {
            Ok(None) => {}
            Ok(Some(config)) => {
                if self.registers.lock().store_config(config).is_err() {
                    self.warn("the back end changed the length of its configuration");
                }
            }
            Err(error) => self.fail(format_args!("writing the device configuration: {error}")),
        }
    }

    /// Where the PCI configuration access capability points now, if the access is a valid one.
    fn window_target(&self, config: &PciConfig) -> Option<(u64, usize)> {
        let window = self.capabilities.window;
        let offset = config.read_u32(window.offset);
        let length = config.read_u32(window.length);
        let bar = config.read_u16(window.bar) as u8;
        let valid = bar == BAR.get()
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length)
            && u64::from(offset) < BAR_BYTES;
        valid.then_some((u64::from(offset), length as usize))
    }

    /// Whether an access touches the data field of the window.
    fn touches_window(&self, offset: u16, length: usize) -> bool {
        let data = usize::from(self.capabilities.window.data);
        let offset = usize::from(offset);
        offset < data + 4 && offset + length > data
    }
}

/// Profiles come from other processes, too.
fn check(profile: &DeviceProfile) -> Result<(), TransportError> {
    let queues = profile.queue_sizes.len();
    if queues == 0 || queues > MAX_QUEUES {
        return Err(TransportError::QueueCount(queues));
    }
    let sizes = profile.queue_sizes.iter().copied().enumerate();
    if let Some((index, size)) =
        sizes.into_iter().find(|(_, size)| !size.is_power_of_two() || *size > MAX_QUEUE_SIZE)
    {
        return Err(TransportError::QueueSize { index, size });
    }
    if profile.config.len() as u64 > REGION_BYTES {
        return Err(TransportError::ConfigLength(profile.config.len()));
    }
    if !(1..=MAX_DEVICE_TYPE).contains(&profile.device_type) {
        return Err(TransportError::DeviceType(profile.device_type));
    }
    Ok(())
}

impl PciDevice for VirtioPciDevice {
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        let config = self.config.lock();
        config.read(offset, data);
        if !self.touches_window(offset, data.len()) {
            return;
        }
        let target = self.window_target(&config);
        drop(config);
        let Some((bar_offset, length)) = target else {
            return;
        };
        let mut value = [0; 4];
        self.read_bar(BAR, bar_offset, &mut value[..length]);
        for (address, byte) in (usize::from(offset)..).zip(data) {
            let index = address.checked_sub(usize::from(self.capabilities.window.data));
            if let Some(value) = index.and_then(|index| value.get(index)) {
                *byte = *value;
            }
        }
    }

    fn write_config(&self, offset: u16, data: &[u8]) -> Decoding {
        let mut config = self.config.lock();
        let decoding = config.write(offset, data);
        // With the lock held, so that the last write is the one that counts.
        self.msix.set_control(config.read_u16(self.capabilities.msix_control));
        let touched = self.touches_window(offset, data.len());
        let access = touched.then(|| self.window_target(&config)).flatten();
        let value = config.read_u32(self.capabilities.window.data).to_le_bytes();
        drop(config);
        if decoding == Decoding::Changed {
            self.update_kicks();
        }
        if let Some((bar_offset, length)) = access {
            self.write_bar(BAR, bar_offset, &value[..length]);
        }
        decoding
    }

    fn bars(&self) -> Vec<BarSpec> {
        self.config.lock().bars().to_vec()
    }

    fn place_bar(&self, index: BarIndex, address: u64) {
        self.config.lock().place_bar(index, address);
    }

    fn decoded_bars(&self) -> Vec<DecodedBar> {
        self.config.lock().decoded_bars().collect()
    }

    fn read_bar(&self, _bar: BarIndex, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let inside = offset % REGION_BYTES;
        match offset - inside {
            COMMON => {
                let status = inside..inside.saturating_add(data.len() as u64);
                if status.contains(&STATUS) && self.registers.lock().is_reset_pending() {
                    self.retry_reset();
                }
                self.registers.lock().read_common(inside, data);
            }
            ISR if inside == 0 => {
                if let Some(byte) = data.first_mut() {
                    *byte = self.registers.lock().take_isr();
                }
            }
            DEVICE => self.registers.lock().read_config(inside, data),
            MSIX_TABLE => self.msix.read_table(inside, data),
            MSIX_PENDING => self.msix.read_pending(inside, data),
            _ => {}
        }
    }

    fn write_bar(&self, _bar: BarIndex, offset: u64, data: &[u8]) {
        let inside = offset % REGION_BYTES;
        match offset - inside {
            COMMON => self.write_common(inside, data),
            DEVICE => self.write_device_config(inside, data),
            NOTIFY => self.notify(inside),
            MSIX_TABLE => self.msix.write_table(inside, data),
            _ => {}
        }
    }
}
