//! The memory balloon under stock Linux: what the guest gives up leaves the host.

use std::time::Duration;

use super::Case;

/// `start SCRIPT OPTIONS...` starts Linux with a script for the initrd's shell. Its functions are those of
/// the script: `fill MIB` uses and frees memory, `total` is what the kernel says it has.
const HELPERS: &str = r#"
guest='fill() { dd if=/dev/zero of=/mnt/f bs=1M count=$1 2>/dev/null && rm /mnt/f && echo guest: filled; };
    total() { sed -n s/MemTotal:[^0-9]*//p /proc/meminfo | tr -d kB; };
    less() { [ $(total) -lt $1 ]; };
    mkdir /mnt; mount -t tmpfs -o size=90% t /mnt; all=$(total);'
start() {
    script=$(echo "$guest $1" | tr -d '\\\n'); shift
    vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" -m 1G --control vm.sock \
        --cmdline 'console=ttyS0 quiet panic=-1 bed.end=hold' \
        --cmdline "bed.sh=\"$script\"" "$@" >output 2>log </dev/null &
    vmm=$!
}
await() {
    turns=$(($1 * 10)); shift
    while ! "$@"; do
        kill -0 $vmm || { cat output log; fail "vmm has ended before: $*"; }
        turns=$((turns - 1))
        [ $turns -gt 0 ] || { cat output log; fail "waited in vain for $*, MiB $(rss)"; }
        sleep 0.1
    done
}
says() { await 90 grep -q -e "$1" output; }
rss() { echo $(($(sed -n 's/^Rss: *\([0-9]*\) kB/\1/p' /proc/$vmm/smaps_rollup) / 1024)); }
fell() { [ $((before - $(rss))) -ge $1 ]; }
ctl() { vmm ctl vm.sock "$@" || fail "vmm ctl $*"; }
the_end() { echo "MiB: $before before, $(rss) at the end"; ctl stop; finish 36; }
"#;

const AT_START: &str = r"
start 'fill 600; sleep 3; modprobe virtio_balloon' --balloon size=256M
says 'guest: filled'; before=$(rss)
await 60 fell 240
the_end
";

const ON_REQUEST: &str = r#"
start 'modprobe virtio_balloon; fill 600; \
    until less $((all - 250000)); do sleep 0.1; done; echo guest: gave; \
    while less $all; do sleep 0.1; done; echo guest: has it back; fill 700' --balloon size=0
says 'guest: filled'; before=$(rss)
ctl balloon 256M
await 60 fell 240
echo "MiB: $before before, $(rss) inflated"
says 'guest: gave'
ctl balloon 0
says 'guest: has it back'
filled_twice() { [ $(grep -c 'guest: filled' output) = 2 ]; }
await 60 filled_twice
[ $(rss) -ge 600 ] || fail "only $(rss) MiB are back"
the_end
"#;

const REPORTING: &str = r#"
start 'modprobe virtio_balloon; dd if=/dev/zero of=/mnt/f bs=1M count=400 2>/dev/null; echo guest: full; \
    sleep 1; fill 400' --balloon reporting
says 'guest: full'; before=$(rss)
now() { date +%s%N; }
until_output 'guest: filled'; start=$(now)
until fell 360 || [ $(($(now) - start)) -gt 10000000000 ]; do sleep 0.05; done
took=$((($(now) - start) / 1000000))
echo "fell by $((before - $(rss))) MiB within $took ms"
[ $took -le 10000 ] || fail 'it takes too long'
the_end
"#;

/// More than is left is written; the balloon gives way, and nobody dies of it.
const OUT_OF_MEMORY: &str = r"
start 'modprobe virtio_balloon; until [ $(sed -n s/MemFree:[^0-9]*//p /proc/meminfo | tr -d kB) -lt 400000 ]; do sleep 0.1; done; \
    echo guest: squeezed; fill 700; dmesg | grep -i -e killed -e out.of.memory; echo guest: done' \
    --balloon size=700M,deflate-on-oom
says 'guest: done'; before=$(rss)
has 'guest: squeezed'
has 'guest: filled'
lacks 'illed process'
the_end
";

const UNBOUND: &str = r"
start 'modprobe virtio_balloon; fill 600; cd /sys/bus/virtio/drivers/virtio_balloon; device=$(ls -d virtio[0-9]*); \
    for turn in $(seq 20); do echo $device >unbind; echo $(($(total) - all)) left out; echo $device >bind; sleep 0.1; done; \
    until less $((all - 250000)); do sleep 0.1; done; \
    echo $device >unbind; less $all || echo guest: has all; echo $device >bind; echo guest: bound; dmesg | grep -i bug' \
    --balloon size=256M,reporting,stats-interval=1
says 'guest: bound'; has 'guest: has all'
[ $(grep -c '^0 left out' output) = 20 ] || fail 'memory is missing'
before=1024
await 60 fell 240
the_end
";

const KILLED: &str = r#"
start 'modprobe virtio_balloon; fill 300; until less $((all - 690000)); do sleep 0.1; done; echo guest: gave; \
    while less $all; do sleep 0.1; done; echo guest: has it back; fill 300; dmesg | grep -i bug' --balloon size=0
says 'guest: filled'; before=$(rss)
ctl balloon 700M
for turn in 1 2 3 4 5; do
    pid=$(served_by balloon)
    kill -KILL $pid
    until_other "$pid" balloon
    ctl pause
    ctl resume
    echo "killed at $(rss) MiB"
done
says 'guest: gave'
# A gigabyte less 700 MiB, and what is the machine's own.
left() { [ $(rss) -le 350 ]; }
await 60 left
ctl balloon 0
says 'guest: has it back'
filled_twice() { [ $(grep -c 'guest: filled' output) = 2 ]; }
await 60 filled_twice
the_end
"#;

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, script: &str| {
        let mut case = Case::new(format!("balloon/{name}"), format!("{HELPERS}{script}"));
        // Linux boots on an emulated processor.
        case.timeout = Duration::from_mins(4);
        case
    };
    vec![
        case("inflated-at-the-start", AT_START),
        case("inflated-and-deflated-on-request", ON_REQUEST),
        case("reporting", REPORTING),
        case("deflated-when-memory-runs-out", OUT_OF_MEMORY),
        case("unbound-20-times", UNBOUND),
        case("killed-while-it-inflates", KILLED),
    ]
}
