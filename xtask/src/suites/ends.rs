//! How machines end, and the exit statuses that say so.

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let guest = "vmm run \"$VMM_BED_KERNEL\" --initrd \"$VMM_BED_INITRD\" \
                 --cmdline 'console=ttyS0 quiet panic=-1'";
    vec![
        Case::new(
            "ends/poweroff-is-0",
            format!("run 0 {guest} --cmdline bed.end=poweroff\nhas 'guest: poweroff'"),
        ),
        Case::new(
            "ends/reboot-is-32",
            format!("run 32 {guest} --cmdline bed.end=reboot\nhas 'guest: reboot'"),
        ),
        Case::new(
            "ends/panic-is-34",
            format!("run 34 {guest} --cmdline bed.end=panic\nhas 'sysrq triggered crash'"),
        ),
        Case::new(
            "ends/sigterm-is-143",
            format!(
                "{guest} --cmdline bed.end=hold >output 2>&1 </dev/null &
                 vmm=$!
                 turns=0
                 while ! grep -q 'guest: init up' output; do
                     kill -0 $vmm || fail \"vmm has ended: $(cat output)\"
                     turns=$((turns + 1))
                     [ $turns -lt 200 ] || fail \"the guest says nothing: $(cat output)\"
                     sleep 0.1
                 done
                 kill -TERM $vmm
                 status=0; wait $vmm || status=$?
                 cat output
                 [ $status = 143 ] || fail \"status $status instead of 143\""
            ),
        ),
        Case::new(
            "ends/wrong-arguments-are-35",
            "echo text >text
             : >empty
             head -c 100000 \"$VMM_BED_KERNEL\" >cut
             for kernel in missing text empty cut . ; do
                 run 35 vmm run \"$kernel\"
             done
             run 35 vmm run \"$VMM_BED_KERNEL\" --initrd missing
             run 35 vmm run \"$VMM_BED_KERNEL\" --disk path=missing
             run 35 vmm run \"$VMM_BED_KERNEL\" --cpus 0
             run 35 vmm run \"$VMM_BED_KERNEL\" --cpus 100000
             run 35 vmm run \"$VMM_BED_KERNEL\" --memory 0
             run 35 vmm run \"$VMM_BED_KERNEL\" --memory 100000G
             run 35 vmm run --unknown-flag",
        ),
    ]
}
