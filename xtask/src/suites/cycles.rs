//! What stays behind of drivers that come and go, and of processes that die: no descriptor, and no memory
//! to speak of.

use std::time::Duration;

use super::Case;
use super::programs::LOAD;

/// Each device of the guest is bound and used so many times, then each process dies so many times.
const SCRIPT: &str = r#"
cat >script <<'END'
cat /dev/vdb >/tmp/load
chmod +x /tmp/load
cd /sys/bus/virtio/drivers
drivers='virtio_blk virtio_console virtio_rng virtio_balloon virtio_pmem virtio_net'
drivers="$drivers vmw_vsock_virtio_transport"
use() {
    case $1 in
    virtio_blk) dd if=/dev/vdc of=/dev/null bs=64k count=4 iflag=direct ;;
    virtio_console) echo hello >/dev/hvc0 ;;
    virtio_rng) dd if=/dev/hwrng of=/dev/null bs=1k count=1 ;;
    virtio_pmem) until [ -b /dev/pmem0 ]; do sleep 0.01; done
        dd if=/dev/zero of=/dev/pmem0 bs=4k count=1 conv=fsync,notrunc ;;
    # Either loses what was on its way when a process died.
    virtio_net) ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up
        until ping -c 1 -W 1 10.77.0.1; do :; done >/dev/null ;;
    vmw_vsock_virtio_transport)
        until /tmp/load connect vsock:5000 4 65536; do :; done >/dev/null ;;
    esac 2>/dev/null || { echo guest: $1 failed; exit 1; }
}
cycles() {
    for driver in $drivers; do
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
until [ -e /tmp/enough ]; do for driver in $drivers; do use $driver; done; done &
read -r word
touch /tmp/enough; wait
dmesg | grep -i -e bug: -e i/o.error -e hung
echo guest: survived; read -r word
END
truncate -s 64K script
load_files
socat UNIX-LISTEN:v.sock_5000,fork,backlog=100 PIPE 2>/dev/null & echoes=$!
ip link set lo up
truncate -s 64M data.img pmem.img
mkfifo keys
modules=virtio_console,virtio_rng,virtio_balloon,virtio_pmem,nd_pmem,virtio_net,vmw_vsock_virtio_transport
small_pages
vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --control vm.sock \
    --disk path=script,ro --disk path=load.img,ro --disk path=data.img \
    --console unix=hvc --rng --balloon size=64M,reporting \
    --pmem path=pmem.img --net tap=tap0,address=10.77.0.1/24 --vsock path=v.sock \
    --cmdline 'console=ttyS0 quiet panic=-1 bed.script=/dev/vda' \
    --cmdline "bed.modules=$modules" \
    <keys >output 2>log &
vmm=$!
exec 4>keys
names='disk data.img
console
rng
balloon
pmem pmem.img
network tap0
vsock v.sock'
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
kill $echoes
[ $(grep -c 'takes over' log) = 140 ] || fail 'not twenty successors of each'
"#;

pub(super) fn cases() -> Vec<Case> {
    LOAD.build();
    let mut case = Case::new("cycles/of-drivers-and-processes-leave-nothing", SCRIPT);
    case.timeout = Duration::from_mins(14);
    vec![case]
}
