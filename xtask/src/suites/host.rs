//! The host itself: what the other cases take for granted.

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "host/kvm-runs-guests",
            "[ -w /dev/kvm ] || fail 'no access to /dev/kvm'
             run 0 vmm doctor
             run 0 vmm doctor --json",
        ),
        Case::new(
            "host/built-in-guest",
            "run 0 vmm run --cpus 2
             has 'builtin: [0-9]* passed, 0 failed'",
        ),
        Case::new(
            "host/files-and-tools",
            "for file in \"$VMM_BED_KERNEL\" \"$VMM_BED_BZIMAGE\" \"$VMM_BED_INITRD\" \
                 \"$VMM_BED_DISK\" \"$VMM_BED_TOOLS_DISK\"; do
                 [ -s \"$file\" ] || fail \"no file $file\"
             done
             echo kept >\"$VMM_BED_SCRATCH/kept\"
             for tool in vmm e2fsck debugfs strace; do
                 command -v $tool || [ -x /usr/sbin/$tool ] || fail \"no program $tool\"
             done
             disk disk.img
             run 0 e2fsck -fn disk.img",
        ),
    ]
}
