//! Interrupts into the guest: irqfds, and the GSI routes of message-signalled ones.
//!
//! A device signals an eventfd; KVM looks up the GSI that the eventfd is bound to and, for a GSI
//! with an MSI route, delivers that message. The whole route table is replaced on each change
//! (`KVM_SET_GSI_ROUTING`), so it is kept here and written only when something differs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::interrupt::{InterruptError, IrqLine, MsiController, MsiVector};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;
use rustix::event::EventfdFlags;

use super::{KvmError, error::io_error, eventfd};

/// Pins of the IOAPIC; GSIs below this are legacy lines.
const IOAPIC_PINS: u32 = 24;
/// Pins of one 8259 interrupt controller.
const PIC_PINS: u32 = 8;
/// GSIs for MSI: enough for 64 devices of 16 queues; KVM itself takes 4096 routes.
const MSI_GSIS: usize = 2048;

fn new_eventfd() -> Result<OwnedFd, rustix::io::Errno> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// An edge-triggered interrupt line of a legacy device.
#[derive(Debug)]
pub struct IrqfdLine {
    trigger: OwnedFd,
}

impl IrqfdLine {
    pub(super) fn new(vm: &VmFd, gsi: u32) -> Result<Self, KvmError> {
        let trigger = new_eventfd().map_err(|errno| KvmError::Ioctl {
            doing: "create an eventfd for an interrupt line",
            source: errno.into(),
        })?;
        eventfd::lend(trigger.as_fd(), |fd| vm.register_irqfd(fd, gsi))
            .map_err(KvmError::ioctl("bind an interrupt line"))?;
        Ok(Self { trigger })
    }
}

impl IrqLine for IrqfdLine {
    fn trigger(&self) {
        // Fails only when the counter is at its maximum, and then the line is pending already.
        let _ = rustix::io::write(&self.trigger, &1u64.to_ne_bytes());
    }
}

/// Allocates GSIs for message-signalled interrupts and keeps KVM's route table.
#[derive(Debug, Clone)]
pub struct GsiRouter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
}

/// `slots[i]` stands for GSI `IOAPIC_PINS + i`.
#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Unrouted,
    Message { address: u64, data: u32 },
}

impl GsiRouter {
    pub(super) fn new(vm: Arc<VmFd>) -> Result<Self, KvmError> {
        let table = Table { slots: Vec::new() };
        table.write(&vm).map_err(|source| KvmError::Ioctl { doing: "route interrupts", source })?;
        Ok(Self { shared: Arc::new(Shared { vm, table: Mutex::new(table) }) })
    }
}

impl MsiController for GsiRouter {
    fn allocate(&self) -> Result<Box<dyn MsiVector>, InterruptError> {
        let trigger = new_eventfd().map_err(|errno| InterruptError::Allocate(errno.into()))?;
        let slot = self.shared.lock().take_slot()?;
        let state = Mutex::new(VectorState { attached: false });
        Ok(Box::new(KvmMsiVector { shared: Arc::clone(&self.shared), slot, trigger, state }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the table to KVM if `slot` changes by it.
    fn route(&self, slot: usize, to: Slot) -> io::Result<()> {
        let mut table = self.lock();
        let before = std::mem::replace(&mut table.slots[slot], to);
        if before == to {
            return Ok(());
        }
        let result = table.write(&self.vm);
        if result.is_err() {
            table.slots[slot] = before;
        }
        result
    }
}

impl Table {
    fn take_slot(&mut self) -> Result<usize, InterruptError> {
        if let Some(free) = self.slots.iter().position(|slot| *slot == Slot::Free) {
            self.slots[free] = Slot::Unrouted;
            return Ok(free);
        }
        if self.slots.len() == MSI_GSIS {
            return Err(InterruptError::Allocate(io::ErrorKind::StorageFull.into()));
        }
        self.slots.push(Slot::Unrouted);
        Ok(self.slots.len() - 1)
    }

    fn write(&self, vm: &VmFd) -> io::Result<()> {
        let mut entries = legacy_routes();
        for (index, slot) in self.slots.iter().enumerate() {
            if let Slot::Message { address, data } = *slot {
                entries.push(msi_route(IOAPIC_PINS + index as u32, address, data));
            }
        }
        let routing = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        vm.set_gsi_routing(&routing).map_err(io_error)
    }
}

/// What KVM sets up by itself and forgets at the first table of ours: GSI n to pin n of both
/// the 8259 pair and the IOAPIC, except the timer, which sits at pin 2 of the IOAPIC (the MADT's
/// override says the same).
fn legacy_routes() -> Vec<kvm_irq_routing_entry> {
    let mut entries = Vec::with_capacity(MSI_GSIS / 8);
    for gsi in 0..IOAPIC_PINS {
        if gsi < PIC_PINS {
            entries.push(chip_route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
        } else if gsi < 2 * PIC_PINS {
            entries.push(chip_route(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - PIC_PINS));
        }
        match gsi {
            0 => entries.push(chip_route(gsi, KVM_IRQCHIP_IOAPIC, 2)),
            2 => {}
            _ => entries.push(chip_route(gsi, KVM_IRQCHIP_IOAPIC, gsi)),
        }
    }
    entries
}

fn chip_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = irqchip;
    entry.u.irqchip.pin = pin;
    entry
}

fn msi_route(gsi: u32, address: u64, data: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = address as u32;
    entry.u.msi.address_hi = (address >> 32) as u32;
    entry.u.msi.data = data;
    entry
}

/// One MSI-X vector. While masked, its eventfd is not bound to KVM and collects signals.
#[derive(Debug)]
struct KvmMsiVector {
    shared: Arc<Shared>,
    slot: usize,
    trigger: OwnedFd,
    state: Mutex<VectorState>,
}

#[derive(Debug)]
struct VectorState {
    attached: bool,
}

impl KvmMsiVector {
    fn gsi(&self) -> u32 {
        IOAPIC_PINS + self.slot as u32
    }

    fn state(&self) -> MutexGuard<'_, VectorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MsiVector for KvmMsiVector {
    fn trigger(&self) -> BorrowedFd<'_> {
        self.trigger.as_fd()
    }

    fn set(&self, address: u64, data: u32) -> Result<(), InterruptError> {
        self.shared
            .route(self.slot, Slot::Message { address, data })
            .map_err(|source| InterruptError::Route { address, data, source })
    }

    fn mask(&self) -> Result<(), InterruptError> {
        let mut state = self.state();
        if !state.attached {
            return Ok(());
        }
        eventfd::lend(self.trigger(), |fd| self.shared.vm.unregister_irqfd(fd, self.gsi()))
            .map_err(|error| InterruptError::Attach(io_error(error)))?;
        state.attached = false;
        Ok(())
    }

    fn unmask(&self) -> Result<(), InterruptError> {
        let mut state = self.state();
        if state.attached {
            return Ok(());
        }
        // KVM polls the eventfd when it is bound, so signals from while it was masked arrive now.
        eventfd::lend(self.trigger(), |fd| self.shared.vm.register_irqfd(fd, self.gsi()))
            .map_err(|error| InterruptError::Attach(io_error(error)))?;
        state.attached = true;
        Ok(())
    }
}

impl Drop for KvmMsiVector {
    fn drop(&mut self) {
        if let Err(error) = self.mask() {
            log::warn!("an interrupt route stays bound: {error}");
            return;
        }
        if let Err(error) = self.shared.route(self.slot, Slot::Free) {
            log::warn!("an interrupt route stays in the table: {error}");
        }
    }
}
