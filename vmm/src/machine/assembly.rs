//! Puts a machine together: RAM, KVM, firmware tables, buses, devices, vCPUs.
//!
//! The order is what keeps the start fast: what can fail on wrong input comes first and touches
//! nothing, then a thread copies the kernel into RAM while this one sets up KVM.

use std::io;
use std::sync::Arc;

use arch::GuestRange;
use arch::x86_64::acpi::{self, AcpiConfig, Presence};
use arch::x86_64::boot::InitialRegisters;
use arch::x86_64::cpuid::{self, CpuidConfig};
use arch::x86_64::layout::{self, Ram, ports};
use arch::x86_64::msrs;
use devices::bus::{Bus, BusDevice, BusRange};
use devices::legacy::acpi_pm::{self, AcpiPm, AcpiPmParts};
use devices::legacy::cmos::{self, Cmos, CmosParts, MemorySizes};
use devices::legacy::debugcon::Debugcon;
use devices::legacy::i8042::I8042;
use devices::legacy::output::SerialOutput;
use devices::legacy::pvpanic::Pvpanic;
use devices::legacy::reset::ResetRegister;
use devices::legacy::serial::{self, Serial, SerialParts};
use devices::legacy::watchdog::{self, Watchdog, WatchdogParts};
use devices::legacy::{Clock, HostClock, MachineEvent, MachineEvents};
use devices::memory::{FileMapping, GuestMemory};
use devices::pci::{PciRoot, Window, Windows};
use ipc::{Receiver, Sender};
use kvm_bindings::CpuId;
use kvm_ioctls::Cap;

use super::backends::BackEnds;
use super::kernel::Kernel;
use super::tracing::Tracer;
use super::vcpu::AddressSpaces;
use super::{Error, memory};
use crate::config::{MachineConfig, WatchdogAction};
use crate::kvm::{Hypervisor, Vcpu, Vm};
use crate::pstore::Pstore;
use crate::serial_port::Line;
use crate::warden::Spawner;

/// Events that the machine has not acted on yet; it acts on the first of most kinds.
const EVENT_CAPACITY: usize = 16;
/// The width of a physical address where the host's CPUID does not say.
const DEFAULT_ADDRESS_BITS: u8 = 36;
/// CPUID leaf with the width of physical addresses (Intel SDM volume 2A, CPUID).
const ADDRESS_SIZES_LEAF: u32 = 0x8000_0008;

/// A machine that is complete but for its vCPU threads.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) spaces: Arc<AddressSpaces>,
    pub(super) serial: SerialDevice,
    pub(super) debugcon: Option<DebugconDevice>,
    pub(super) rtc: RtcDevice,
    pub(super) power: Arc<AcpiPm>,
    pub(super) watchdog: Option<WatchdogDevice>,
    pub(super) events: Receiver<MachineEvent>,
    pub(super) back_ends: BackEnds,
}

/// The serial device with what connects it to its host end.
#[derive(Debug)]
pub(super) struct SerialDevice {
    pub(super) device: Arc<Serial>,
    /// Says that characters wait for the end of their line.
    pub(super) unfinished_line: Receiver<()>,
}

/// The debug console with what connects it to its host end.
#[derive(Debug)]
pub(super) struct DebugconDevice {
    pub(super) device: Arc<Debugcon>,
    /// Says that characters wait for the end of their line.
    pub(super) unfinished_line: Receiver<()>,
}

/// Where characters of the guest go.
#[derive(Debug)]
pub(super) struct Lines {
    /// Those of the serial port.
    pub(super) serial: Arc<Line>,
    /// Those of the debug console, if there is one.
    pub(super) debugcon: Option<Arc<Line>>,
}

/// The real-time clock with what says that its timer is to be set again.
#[derive(Debug)]
pub(super) struct RtcDevice {
    pub(super) device: Arc<Cmos>,
    pub(super) alarm_changed: Receiver<()>,
}

/// The watchdog.
#[derive(Debug)]
pub(super) struct WatchdogDevice {
    pub(super) device: Arc<Watchdog>,
    /// It fires at another time.
    pub(super) due_changed: Receiver<()>,
}

/// Builds everything that `config` names.
pub(super) fn build(
    config: &MachineConfig,
    lines: &Lines,
    spawner: Option<&Spawner>,
    tracer: &Tracer,
) -> Result<Assembly, Error> {
    let kernel = Kernel::open(config)?;
    let mut devices = super::backends::open(config)?;
    let files = super::pmem::open(config)?;
    let ram = Ram::new(config.memory.bytes())?;
    let pstore = config.pstore.as_ref().map(Pstore::open).transpose().map_err(Error::Pstore)?;
    let pmems = super::pmem::place(files, pstore.as_ref(), ram)?;
    devices.devices.extend(pmems.devices);
    let memory = memory::create(config, ram)?;
    let hypervisor = Hypervisor::open()?;
    let supported = hypervisor.supported_cpuid()?;

    let mmio64 = ram.mmio64_window_above(pmems.end, address_bits(&supported))?;
    let cpus = u32::from(config.cpus.get());
    let tables = acpi::build(&AcpiConfig {
        processors: cpus,
        mmio32: layout::PCI_MMIO32,
        mmio64,
        ecam: layout::ECAM,
        // Linux then skips the probe of the controller, thousands of exits, and still finds the
        // reset register.
        keyboard: Presence::Absent,
        watchdog: config.watchdog.map(|_| acpi::Watchdog {
            period_ms: watchdog::PERIOD_MS,
            min_periods: watchdog::MIN_PERIODS,
            max_periods: watchdog::MAX_PERIODS,
        }),
    })?;
    let smbios = super::smbios::tables(config)?;
    let mut command_line = config.kernel_command_line();
    if !pmems.words.is_empty() {
        command_line = format!("{} {command_line}", pmems.words);
    }
    let plan = kernel.plan(ram, &command_line, tables.rsdp)?;

    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            tables
                .blobs
                .iter()
                .chain(&smbios)
                .try_for_each(|blob| super::loader::write(&memory, blob))?;
            kernel.load(&plan, &memory)
        });
        let vm = hypervisor.create_vm(cpus as usize, &memory, &pmems.mappings)?;
        let machine = Builder {
            vm: &vm,
            memory: &memory,
            files: &pmems.mappings,
            ram,
            mmio64,
            watchdog: config.watchdog,
            spawner,
            tracer,
        }
        .build(lines, devices);
        let vcpus = create_vcpus(config, &vm, &supported, &plan.registers);
        // Wrong input is a better message than what it makes fail later.
        loading
            .join()
            .map_err(|_| Error::host("load the kernel")(io::ErrorKind::Other.into()))??;
        let mut machine = machine?;
        machine.vcpus = vcpus?;
        Ok(machine)
    })
}

fn address_bits(supported: &CpuId) -> u8 {
    let leaf = supported.as_slice().iter().find(|entry| entry.function == ADDRESS_SIZES_LEAF);
    leaf.map_or(DEFAULT_ADDRESS_BITS, |leaf| leaf.eax as u8)
}

fn create_vcpus(
    config: &MachineConfig,
    vm: &Vm,
    supported: &CpuId,
    boot: &InitialRegisters,
) -> Result<Vec<Vcpu>, Error> {
    let wanted = CpuidConfig {
        supported: supported.as_slice(),
        processors: u32::from(config.cpus.get()),
        tsc_deadline_timer: vm.has(Cap::TscDeadlineTimer),
        performance_counters: false,
        tsc_khz: vm.tsc_khz(),
    };
    (0..config.cpus.get())
        .map(|id| {
            let vcpu = vm.create_vcpu(id)?;
            let entries = cpuid::for_processor(&wanted, u32::from(id));
            let start = (id == 0).then_some(boot);
            vcpu.set_up(&entries, msrs::boot_msrs(), start)?;
            Ok(vcpu)
        })
        .collect()
}

/// What the devices are built with.
struct Builder<'a> {
    vm: &'a Vm,
    memory: &'a GuestMemory,
    files: &'a Arc<[FileMapping]>,
    ram: Ram,
    mmio64: GuestRange,
    watchdog: Option<WatchdogAction>,
    spawner: Option<&'a Spawner>,
    tracer: &'a Tracer,
}

impl Builder<'_> {
    fn build(
        &self,
        lines: &Lines,
        devices: super::backends::OpenDevices,
    ) -> Result<Assembly, Error> {
        let (events, receiver) =
            self.tracer.channel::<MachineEvent>(EVENT_CAPACITY, "machine", "event");
        let events: Arc<dyn MachineEvents> = Arc::new(events);
        let (mut port_bus, mut mmio) = (Bus::new(), Bus::new());

        let root = PciRoot::new(Windows {
            low: window(layout::PCI_MMIO32),
            high: window(self.mmio64),
            ecam: window(layout::ECAM),
        });
        root.insert_ports(&mut port_bus)?;
        root.insert_memory(&mut mmio)?;
        let back_ends = super::backends::start(
            devices,
            self.vm,
            self.memory,
            &root,
            self.spawner,
            self.tracer,
        )?;

        let serial = self.serial(&lines.serial)?;
        let debugcon = lines.debugcon.as_ref().map(debugcon);
        if let Some(console) = &debugcon {
            for base in [ports::DEBUGCON, ports::DEBUGCON_E9] {
                let range = BusRange { base: u64::from(base), length: 1 };
                port_bus.insert(range, console.device.clone())?;
            }
        }
        let wanted = self.watchdog.map(|_| watchdog_device(&mut port_bus, &events));
        let watchdog = wanted.transpose()?;
        let (rtc, power) = self.legacy(&mut port_bus, &serial, &events)?;
        let spaces = AddressSpaces {
            ports: port_bus,
            mmio,
            memory: self.memory.clone(),
            files: Arc::clone(self.files),
            vm: self.vm.clone(),
        };
        Ok(Assembly {
            vcpus: Vec::new(),
            spaces: Arc::new(spaces),
            serial,
            debugcon,
            rtc,
            power,
            watchdog,
            events: receiver,
            back_ends,
        })
    }

    fn serial(&self, line: &Arc<Line>) -> Result<SerialDevice, Error> {
        // One notice is enough: it is about all that waits.
        let (notice, unfinished_line) = ipc::channel(1);
        let room = Arc::clone(line);
        let device = Serial::new(SerialParts {
            irq: Arc::new(self.vm.irq_line(u32::from(ports::COM1_IRQ))?),
            output: Box::new(LineOutput {
                line: Arc::clone(line),
                notify: Box::new(notify(notice)),
            }),
            input_room: Box::new(move || room.has_room()),
        });
        Ok(SerialDevice { device: Arc::new(device), unfinished_line })
    }

    fn legacy(
        &self,
        bus: &mut Bus,
        serial: &SerialDevice,
        events: &Arc<dyn MachineEvents>,
    ) -> Result<(RtcDevice, Arc<AcpiPm>), Error> {
        let clock: Arc<dyn Clock> = Arc::new(HostClock::default());
        let mut insert = |base: u16, length: u64, device: Arc<dyn BusDevice>| {
            bus.insert(BusRange { base: u64::from(base), length }, device)
        };
        insert(ports::COM1, serial::PORTS, serial.device.clone())?;
        let (notice, alarm_changed) = ipc::channel(1);
        let cmos = Arc::new(Cmos::new(CmosParts {
            irq: Arc::new(self.vm.irq_line(u32::from(ports::RTC_IRQ))?),
            clock: Arc::clone(&clock),
            memory: MemorySizes {
                below_4g: self.ram.low().length(),
                above_4g: self.ram.high().map_or(0, GuestRange::length),
            },
            alarm_changed: Box::new(notify(notice)),
        }));
        insert(ports::CMOS, cmos::PORTS, cmos.clone())?;
        let keyboard = I8042::new(Arc::clone(events));
        insert(ports::I8042_DATA, 1, keyboard.data_port())?;
        insert(ports::I8042_COMMAND, 1, keyboard.command_port())?;
        insert(ports::PVPANIC, 1, Arc::new(Pvpanic::new(Arc::clone(events))))?;
        insert(ports::RESET, 1, Arc::new(ResetRegister::new(Arc::clone(events))))?;
        let power = Arc::new(AcpiPm::new(AcpiPmParts {
            sci: Arc::new(self.vm.irq_line(u32::from(ports::ACPI_SCI_IRQ))?),
            events: Arc::clone(events),
            clock,
            power_off_sleep_type: ports::ACPI_S5_SLEEP_TYPE,
        }));
        insert(ports::ACPI_PM1_EVENT, acpi_pm::PORTS, power.clone())?;
        Ok((RtcDevice { device: cmos, alarm_changed }, power))
    }
}

/// The watchdog, and what says that its time has changed.
fn watchdog_device(
    bus: &mut Bus,
    events: &Arc<dyn MachineEvents>,
) -> Result<WatchdogDevice, Error> {
    let (notice, due_changed) = ipc::channel(1);
    let device = Arc::new(Watchdog::new(WatchdogParts {
        clock: Arc::new(HostClock::default()),
        events: Arc::clone(events),
        due_changed: Box::new(notify(notice)),
    }));
    let range = BusRange { base: u64::from(ports::WATCHDOG), length: watchdog::PORTS };
    bus.insert(range, device.clone())?;
    Ok(WatchdogDevice { device, due_changed })
}

fn debugcon(line: &Arc<Line>) -> DebugconDevice {
    let (notice, unfinished_line) = ipc::channel(1);
    let output = LineOutput { line: Arc::clone(line), notify: Box::new(notify(notice)) };
    DebugconDevice { device: Arc::new(Debugcon::new(Box::new(output))), unfinished_line }
}

fn window(range: GuestRange) -> Window {
    Window { base: range.start().value(), length: range.length() }
}

/// The serial device's output, which goes to the executor thread of the host end.
struct LineOutput {
    line: Arc<Line>,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl SerialOutput for LineOutput {
    fn write(&self, bytes: &[u8]) {
        self.line.send(bytes);
    }

    fn flush_later(&self) {
        (self.notify)();
    }
}

/// A notice without content. A full channel says it already; a closed one means that the machine
/// is ending.
fn notify(notice: Sender<()>) -> impl Fn() + Send + Sync {
    move || drop(notice.try_send(()))
}
