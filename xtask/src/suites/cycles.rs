//! What stays behind of drivers that come and go, and of processes that die: no descriptor, and no memory
//! to speak of.

use std::time::Duration;

use super::Case;

/// Each device of the guest is bound and used so many times, then each process dies so many times.
const SCRIPT: &str = r#"
cat >script <<'END'
cd /sys/bus/virtio/drivers
use() {
    case $1 in
    virtio_blk) dd if=/dev/vdb of=/dev/null bs=64k count=4 iflag=direct ;;
    virtio_console) echo hello >/dev/hvc0 ;;
    virtio_rng) dd if=/dev/hwrng of=/dev/null bs=1k count=1 ;;
    virtio_pmem) until [ -b /dev/pmem0 ]; do sleep 0.01; done
        dd if=/dev/zero of=/dev/pmem0 bs=4k count=1 conv=fsync,notrunc ;;
    esac 2>/dev/null || { echo guest: $1 failed; exit 1; }
}
cycles() {
    for driver in virtio_blk virtio_console virtio_rng virtio_balloon virtio_pmem; do
        for turn in $(seq $1); do
            device=$(basename $(ls -d $driver/virtio* | tail -n 1))
            echo $device >$driver/unbind
            echo $device >$driver/bind
            use $driver
        done
        echo guest: $driver
    done
}
cycles 10
echo guest: warm; read -r word
cycles 100
echo guest: cycled; read -r word
until [ -e /tmp/enough ]; do for driver in virtio_*; do use $driver; done; done &
read -r word
touch /tmp/enough; wait
dmesg | grep -i -e bug: -e i/o.error -e hung
echo guest: survived; read -r word
END
truncate -s 64K script
truncate -s 64M data.img pmem.img
mkfifo keys
vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --control vm.sock \
    --disk path=script,ro --disk path=data.img --console unix=hvc --rng --balloon size=64M,reporting \
    --pmem path=pmem.img \
    --cmdline 'console=ttyS0 quiet panic=-1 bed.script=/dev/vda' \
    --cmdline 'bed.modules=virtio_console,virtio_rng,virtio_balloon,virtio_pmem,nd_pmem' \
    <keys >output 2>log &
vmm=$!
exec 4>keys
names='disk data.img
console
rng
balloon
pmem pmem.img'
# All processes by name, as they are now.
costs() {
    echo "vmm $(cost $vmm)"
    echo "$names" | while read -r name; do echo "$name $(cost $(served_by "$name"))"; done
}
says() { until_output "guest: $1" 3600; }

says warm
costs >before
echo go >&4
says cycled
costs >cycled
no_leaks before cycled 512
echo go >&4
echo "$names" | while read -r name; do
    for turn in $(seq 20); do
        pid=$(served_by "$name")
        kill -KILL $pid
        until_other "$pid" "$name"
    done
done
echo go >&4
says survived
costs >killed
no_leaks before killed 512
lacks 'guest: .* failed'
echo go >&4
finish 0
[ $(grep -c 'takes over' log) = 100 ] || fail 'not a hundred successors'
"#;

pub(super) fn cases() -> Vec<Case> {
    let mut case = Case::new("cycles/of-drivers-and-processes-leave-nothing", SCRIPT);
    case.timeout = Duration::from_mins(9);
    vec![case]
}
