//! Stock Debian kernels boot: both image formats, one and four vCPUs, small and large memory, from
//! an initrd alone, and with root on ext4 through virtio-blk.
//!
//! The stock cloud kernel has ext4 built in but virtio and its block driver as modules. Root on a
//! virtio disk therefore takes an initrd that loads them; without one, the kernel comes as far as
//! finding no root device.

use super::Case;

const KERNELS: &[(&str, &str)] = &[("vmlinux", "$VMM_BED_KERNEL"), ("bzimage", "$VMM_BED_BZIMAGE")];
const CPUS: &[u32] = &[1, 4];

/// A size, what the kernel must say at least in KiB, and what the host needs in MiB.
const MEMORY: &[(&str, u32, u32)] = &[("256M", 180_000, 0), ("6G", 5_900_000, 6_500)];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (format, kernel) in KERNELS {
        for &cpus in CPUS {
            for &(memory, least, needed) in MEMORY {
                let machine = format!("{format}-{cpus}-cpu-{memory}");
                let run = format!("\"{kernel}\" --cpus {cpus} --memory {memory}");
                let guest = format!(
                    "[ $(nproc) = {cpus} ] && echo cpus right; \
                     [ $(sed -n 's/^MemTotal: *//p' /proc/meminfo | cut -d' ' -f1) -gt {least} ] \
                     && echo memory right"
                );
                cases.push(initrd(&machine, needed, &run, &guest));
                cases.push(disk(&machine, needed, &run, &guest));
            }
        }
    }
    for (format, kernel) in KERNELS {
        cases.push(without_initrd(format, kernel));
    }
    cases.push(read_only_root());
    cases
}

/// The guest lives in its initrd.
fn initrd(machine: &str, needed: u32, run: &str, guest: &str) -> Case {
    Case::new(
        format!("boot/{machine}-initrd"),
        format!(
            "need_memory {needed}
             run 0 vmm run {run} --initrd \"$VMM_BED_INITRD\" \
                 --cmdline 'console=ttyS0 quiet panic=-1' --cmdline 'bed.sh=\"{guest}\"'
             has 'root is rootfs'
             has 'cpus right'
             has 'memory right'
             has 'guest: poweroff'",
            guest = guest.replace('\'', r"'\''"),
        ),
    )
}

/// The guest's root is a disk; what it writes is there on the host.
fn disk(machine: &str, needed: u32, run: &str, guest: &str) -> Case {
    let write = "cat /proc/sys/kernel/random/uuid > /written; cat /written; \
                 dd if=/dev/urandom of=/big bs=1M count=8 2>/dev/null; \
                 md5sum < /big | cut -d' ' -f1 > /big.sum; sync";
    Case::new(
        format!("boot/{machine}-disk"),
        format!(
            "need_memory {needed}
             disk disk.img
             run 0 vmm run {run} --initrd \"$VMM_BED_INITRD\" --root path=disk.img \
                 --cmdline 'quiet panic=-1' --cmdline 'bed.sh=\"{guest}; {write}\"'
             has 'root is ext4 on /dev/vda'
             has 'cpus right'
             has 'memory right'
             has 'script ended with 0'
             mv output console
             run 0 e2fsck -fn disk.img
             run 0 debugfs -R 'cat /written' disk.img
             written=$(grep -x '[0-9a-f-]*' output)
             grep -q \"$written\" console || fail 'the file on the disk is not what the guest wrote'
             debugfs -R 'dump /big big' disk.img
             run 0 debugfs -R 'cat /big.sum' disk.img
             has \"$(md5sum <big | cut -d' ' -f1)\"",
            guest = guest.replace('\'', r"'\''"),
            write = write.replace('\'', r"'\''"),
        ),
    )
}

/// No built-in driver finds a root device: the kernel panics there, and restarts as told.
fn without_initrd(format: &str, kernel: &str) -> Case {
    Case::new(
        format!("boot/{format}-without-initrd"),
        format!(
            "disk disk.img
             before=$(md5sum <disk.img)
             run 32 vmm run \"{kernel}\" --root path=disk.img --cmdline 'quiet panic=-1'
             has 'Unable to mount root fs'
             [ \"$(md5sum <disk.img)\" = \"$before\" ] || fail 'the disk has changed'"
        ),
    )
}

fn read_only_root() -> Case {
    Case::new(
        "boot/read-only-disk",
        "disk disk.img
         before=$(md5sum <disk.img)
         run 0 vmm run \"$VMM_BED_KERNEL\" --initrd \"$VMM_BED_INITRD\" --root path=disk.img,ro \
             --cmdline 'quiet panic=-1' \
             --cmdline 'bed.sh=\"cat /sys/block/vda/ro; mount -o remount,rw / || echo refused\"'
         has '^1'
         has 'refused'
         [ \"$(md5sum <disk.img)\" = \"$before\" ] || fail 'the disk has changed'",
    )
}
