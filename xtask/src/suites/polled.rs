//! Disks on a device that is polled: one in memory whose requests nobody completes who does not ask
//! (`null_blk`). Such a device is rare, and the emulated host can have one.

use std::time::Duration;

use super::Case;

/// `device NAME POLL-QUEUES` makes a device of 64 MiB and says its path; since Linux 5.19 it is called so as well.
/// `polled` is one that is polled, as often as `polls` says.
const PRELUDE: &str = r#"
modules=$VMM_BED_HOST_MODULES
[ -d "$modules/lib/modules/$(uname -r)" ] || skip "there are no modules for Linux $(uname -r)"
modprobe -d "$modules" null_blk nr_devices=0
null=/sys/kernel/config/nullb
[ -d $null ] || mount -t configfs configfs /sys/kernel/config
events=/sys/kernel/tracing
at_end() {
    [ -z "${vmm-}" ] || kill -9 $vmm 2>/dev/null || true
    [ ! -d $events/events/kprobes/polled ] || echo 0 >$events/events/kprobes/polled/enable
    echo '-:polled' >>$events/kprobe_events || true
    for device in $null/*/; do rmdir "$device" || true; done
    modprobe -d "$modules" -r null_blk || true
}
device() {
    mkdir "$null/$1"
    for setting in memory_backed=1 size=64 blocksize=512 submit_queues=1 poll_queues="$2" power=1; do
        echo "${setting#*=}" >"$null/$1/${setting%=*}"
    done
    path=/dev/$1; [ -b "$path" ] || path=/dev/nullb$(cat "$null/$1/index")
    echo "$path"
}
polled=$(device polled 1)
[ "$(cat "/sys/block/${polled#/dev/}/queue/io_poll")" = 1 ] || fail 'the device is not polled'
echo 'p:polled null_poll' >>$events/kprobe_events
echo 1 >$events/events/kprobes/polled/enable
polls() { sed -n 's/^ *polled *\([0-9]*\) .*/\1/p' $events/kprobe_profile; }
"#;

const SCRIPT: &str = r#"
silent=$(device silent 0)
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
echo 32 >/sys/block/${polled#/dev/}/queue/max_sectors_kb
run 35 vmm run --disk "path=$polled,direct,iopoll"
has 'max_sectors_kb is 32, and not 64 or more'
"#;

/// Five back ends die while Linux uses a disk with these options.
fn kills(options: &str) -> Case {
    let name = format!("polled/disk-survives-kills-{}", options.replace(',', "-"));
    let script = format!(
        r#"{PRELUDE}
linux_in_background "$verified_load" -v --disk "path=$polled,direct,{options}"
until_output 'load begins'
disk="disk .*${{polled##*/}}"
for turn in 1 2 3 4 5; do
    sleep 1.5
    pid=$(served_by "$disk")
    cat /proc/$pid/task/*/comm >threads
    kill -9 "$pid"
    until_other "$pid" "$disk"
done
lacks 'all is well'
until_output 'all is well' 1200
finish 0
has 'err= 0'
[ $(grep -c 'takes over' log) = 5 ] || fail 'not five successors'
case {options} in *sqpoll*) grep -q iou-sqp- threads || fail 'no thread of the kernel';; esac
case {options} in *iopoll*) [ $(polls) -gt 100 ] || fail 'it was not polled';; esac
"#
    );
    let mut case = Case::new(name, script);
    // Linux boots on an emulated processor.
    case.timeout = Duration::from_mins(5);
    case
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("polled/disk-on-a-polled-device", format!("{PRELUDE}{SCRIPT}"))];
    cases.extend(["sqpoll", "iopoll", "iopoll,sqpoll"].map(kills));
    cases
}
