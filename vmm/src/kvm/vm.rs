//! A virtual machine as KVM knows it: memory slots, interrupt chips, vCPUs.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use devices::memory::{FileAccess, FileMapping, GuestMemory};
use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY,
    kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::{GsiRouter, Ioeventfds, IrqfdLine, KvmError, Vcpu};

/// Three pages below the 32-bit APIC range that Intel's VMX wants for real mode (TSS); on other
/// hosts setting them is harmless. Nothing else of the memory map is near.
const TSS_ADDRESS: usize = 0xFFFB_D000;
/// One page for VMX's identity map, right below the TSS.
const IDENTITY_MAP_ADDRESS: u64 = 0xFFFB_C000;

/// `_IO(KVMIO, 0xa3)`; for a VM since Linux 5.18, else it fails and the guest calibrates by itself.
const KVM_GET_TSC_KHZ: libc::c_ulong = 0xAEA3;

/// An open `/dev/kvm`.
#[derive(Debug)]
pub struct Hypervisor {
    kvm: Kvm,
}

impl Hypervisor {
    /// Opens `/dev/kvm` and checks the version of its interface.
    pub fn open() -> Result<Self, KvmError> {
        let kvm = Kvm::new()
            .map_err(|error| KvmError::Open(std::io::Error::from_raw_os_error(error.errno())))?;
        let found = kvm.get_api_version();
        let needed = KVM_API_VERSION as i32;
        if found != needed {
            return Err(KvmError::ApiVersion { found, needed });
        }
        Ok(Self { kvm })
    }

    /// The CPUID leaves that KVM can give to a guest on this host.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::ioctl("list the CPUID leaves it supports"))
    }

    /// Creates a VM with `memory` as its RAM, `files` beside it, and its in-kernel interrupt chips and timer, without
    /// vCPUs.
    ///
    /// Memory comes first: changing the slots of a VM that has interrupt chips waits for a grace
    /// period of the kernel, which was measured to take 5 to 10 ms instead of 0.4 ms.
    pub fn create_vm(
        &self,
        cpus: usize,
        memory: &GuestMemory,
        files: &[FileMapping],
    ) -> Result<Vm, KvmError> {
        let limit = self.kvm.get_max_vcpus();
        if cpus > limit {
            return Err(KvmError::TooManyCpus { asked: cpus, limit });
        }
        let fd = self.kvm.create_vm().map_err(KvmError::ioctl("create a VM"))?;
        let vm = Vm { fd: Arc::new(fd) };
        vm.map_memory(memory, files)?;
        let fd = &vm.fd;
        fd.set_tss_address(TSS_ADDRESS).map_err(KvmError::ioctl("place the TSS"))?;
        fd.set_identity_map_address(IDENTITY_MAP_ADDRESS)
            .map_err(KvmError::ioctl("place the identity map"))?;
        fd.create_irq_chip().map_err(KvmError::ioctl("create the interrupt chips"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(KvmError::ioctl("create the interval timer"))?;
        Ok(vm)
    }
}

/// A VM; cheap to clone, the last clone closes it.
#[derive(Debug, Clone)]
pub struct Vm {
    fd: Arc<VmFd>,
}

impl Vm {
    /// Gives the VM its RAM, one slot per region of `memory`, and the files behind it.
    ///
    /// The VM borrows the host mappings for its whole life, so the caller keeps `memory` and `files`
    /// until every vCPU has stopped.
    fn map_memory(&self, memory: &GuestMemory, files: &[FileMapping]) -> Result<(), KvmError> {
        let regions = memory.regions().map(|region| kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: region.guest_base.0,
            memory_size: region.length,
            userspace_addr: region.host_base.as_ptr() as u64,
        });
        let files = files.iter().map(|file| kvm_userspace_memory_region {
            slot: 0,
            // What the guest writes there goes to this process, which drops it.
            flags: if file.access() == FileAccess::ReadOnly { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: file.guest_base().0,
            memory_size: file.length(),
            userspace_addr: file.host_base().as_ptr() as u64,
        });
        for (slot, region) in regions.chain(files).enumerate() {
            let region = kvm_userspace_memory_region { slot: slot as u32, ..region };
            // SAFETY: the range is a live mapping of `memory` or of a file, which outlive the vCPUs
            // (they hold clones); guest writes to it are what volatile access everywhere expects.
            unsafe { self.fd.set_user_memory_region(region) }
                .map_err(KvmError::ioctl("map guest memory"))?;
        }
        Ok(())
    }

    /// Creates vCPU `id` (also its APIC id).
    pub fn create_vcpu(&self, id: u8) -> Result<Vcpu, KvmError> {
        let fd = self.fd.create_vcpu(u64::from(id)).map_err(KvmError::ioctl("create a vCPU"))?;
        Vcpu::new(fd, id, self.fd.run_size())
    }

    /// Whether KVM has `capability` for this VM.
    pub fn has(&self, capability: Cap) -> bool {
        self.fd.check_extension(capability)
    }

    /// The frequency of the guest's time stamp counter, where KVM knows it.
    pub fn tsc_khz(&self) -> Option<u32> {
        // SAFETY: KVM_GET_TSC_KHZ takes no argument and touches no memory of ours.
        let frequency = unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_GET_TSC_KHZ) };
        u32::try_from(frequency).ok().filter(|frequency| *frequency != 0)
    }

    /// The allocator of message-signalled interrupts; make one per VM.
    pub fn gsi_router(&self) -> Result<GsiRouter, KvmError> {
        GsiRouter::new(Arc::clone(&self.fd))
    }

    /// An edge-triggered line into the interrupt chips at `gsi`.
    pub fn irq_line(&self, gsi: u32) -> Result<IrqfdLine, KvmError> {
        IrqfdLine::new(&self.fd, gsi)
    }

    /// The registry that lets guest writes signal eventfds without an exit to this process.
    pub fn ioeventfds(&self) -> Ioeventfds {
        Ioeventfds::new(Arc::clone(&self.fd))
    }
}
