//! Disks on a device that is polled: one in memory whose requests nobody completes who does not ask
//! (`null_blk`). Such a device is rare, and the emulated host can have one.

use super::Case;

const SCRIPT: &str = r#"
modules=$VMM_BED_HOST_MODULES
[ -d "$modules/lib/modules/$(uname -r)" ] || skip "there are no modules for Linux $(uname -r)"
modprobe -d "$modules" null_blk nr_devices=0
null=/sys/kernel/config/nullb
[ -d $null ] || mount -t configfs configfs /sys/kernel/config
events=/sys/kernel/tracing
at_end() {
    [ ! -d $events/events/kprobes/polled ] || echo 0 >$events/events/kprobes/polled/enable
    echo '-:polled' >>$events/kprobe_events || true
    rmdir $null/polled $null/silent || true
    modprobe -d "$modules" -r null_blk || true
}
# device NAME POLL-QUEUES: the path of a device of 64 MiB; since Linux 5.19 it is called so as well.
device() {
    mkdir "$null/$1"
    for setting in memory_backed=1 size=64 blocksize=512 submit_queues=1 poll_queues="$2" power=1; do
        echo "${setting#*=}" >"$null/$1/${setting%=*}"
    done
    path=/dev/$1; [ -b "$path" ] || path=/dev/nullb$(cat "$null/$1/index")
    echo "$path"
}
polled=$(device polled 1)
silent=$(device silent 0)
[ "$(cat "/sys/block/${polled#/dev/}/queue/io_poll")" = 1 ] || fail 'the device is not polled'
echo 'p:polled null_poll' >>$events/kprobe_events
echo 1 >$events/events/kprobes/polled/enable
polls() { sed -n 's/^ *polled *\([0-9]*\) .*/\1/p' $events/kprobe_profile; }
# verify OPTIONS ARGUMENT: how often the device was polled meanwhile.
verify() {
    before=$(polls)
    # The rings of the last machine let go of this device some time after its end.
    run 0 vmm run $2 --disk "path=$polled,direct$1" --cmdline 'blk=verify depth=16 bs=4096 seconds=2'
    has 'builtin: [0-9]* passed, 0 failed'
    has 'errors=0, verify_failures=0'
    count=$(($(polls) - before))
    echo "polled $count times with direct$1 $2"
}
verify '' --quiet
[ $count = 0 ] || fail 'it was polled without being asked to'
for options in ,iopoll ,iopoll,sqpoll; do
    verify $options --single-process=false
    [ $count -gt 100 ] || fail "it was not polled with $options"
    verify $options --single-process
    [ $count -gt 100 ] || fail "it was not polled with $options in one process"
done
run 35 vmm run --disk "path=$silent,direct,iopoll"
has 'cannot be polled; leave `iopoll` out'
run 0 vmm run --disk "path=$silent,direct"
"#;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("polled/disk-on-a-polled-device", SCRIPT)]
}
