//! Devices that are taken from their drivers, machines that pause and processes that die, all under load.

use std::time::Duration;

use super::Case;

/// Each device of the guest is taken from its driver 20 times while it is busy. Then all are busy while the
/// machine is paused and their processes die.
const SCRIPT: &str = r#"
mkdir shared
head -c 128K /dev/urandom >shared/data; cp shared/data data.img; truncate -s 64M pmem.img
cat >script <<END
mkdir /s; mount -t virtiofs src /s
sum='$(md5sum <shared/data)'
END
cat >>script <<'END'
drivers='virtio_blk virtio_console virtio_rng virtio_balloon virtiofs virtio_pmem'
cd /sys/bus/virtio/drivers
# Linux lets a disk that is gone end early.
right() {
    [ $(stat -c %s $1) = 131072 ] || return 1
    [ "$(md5sum <$1)" = "$sum" ] || { echo guest: $1 is wrong; return 1; }
}
# Fails when the device is gone. What says that it was read has to be right even then.
busy() {
    case $1 in
    virtio_blk) dd if=/dev/vdb of=/tmp/blk bs=64k iflag=direct && right /tmp/blk &&
        dd if=/tmp/blk of=/dev/vdb bs=64k oflag=direct conv=notrunc ;;
    virtio_console) [ -c /dev/hvc0 ] && dd if=/dev/zero of=/dev/hvc0 bs=4k count=4 ;;
    virtio_rng) dd if=/dev/hwrng of=/dev/null bs=4k count=4 ;;
    virtio_balloon) dd if=/dev/zero of=/tmp/full bs=1M count=4; rm /tmp/full; ! [ -e /tmp/gone ] ;;
    virtiofs) cp /s/data /tmp/fs && right /tmp/fs && cp /tmp/fs /s/copy ;;
    virtio_pmem) [ -b /dev/pmem0 ] && dd if=/dev/zero of=/dev/pmem0 bs=4k count=4 conv=fsync,notrunc ;;
    esac 2>/dev/null
}
for driver in $drivers; do
    for turn in $(seq 20); do
        rm -f /tmp/gone
        { while busy $driver; do :; done; } &
        sleep 0.1
        device=$(basename $(ls -d $driver/virtio[0-9]* | tail -n 1))
        echo $device >$driver/unbind
        touch /tmp/gone; wait
        # What was written to a device that was gone is a file.
        for file in /dev/vdb /dev/hvc0 /dev/pmem0; do [ ! -f $file ] || rm $file; done
        [ $driver != virtiofs ] || umount /s
        echo $device >$driver/bind
        [ $driver != virtiofs ] || mount -t virtiofs src /s
        # There is its name a moment before it can be opened.
        [ $driver != virtio_pmem ] ||
            until dd if=/dev/pmem0 of=/dev/null bs=4k count=1 2>/dev/null; do sleep 0.01; done
        rm /tmp/gone; busy $driver || echo guest: $driver failed
    done
    echo guest: $driver was unbound $turn times
done
dmesg -c | grep -i bug:
for driver in $drivers; do
    { until [ -e /tmp/enough ]; do busy $driver || { echo guest: $driver failed; break; }; done; } &
done
echo guest: all are busy; read -r word
touch /tmp/enough; wait
dmesg | grep -i -e bug: -e i/o.error -e hung
echo guest: the end
END
truncate -s 64K script
mkfifo keys
vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --control vm.sock --rings $RINGS \
    --disk path=script,ro --disk path=data.img --console null --rng --balloon size=16M,reporting \
    --pmem path=pmem.img --share path=shared,tag=src \
    --cmdline 'console=ttyS0 quiet panic=-1 bed.script=/dev/vda' \
    --cmdline 'bed.modules=virtio_console,virtio_rng,virtio_balloon,virtio_pmem,nd_pmem,virtiofs' \
    <keys >output 2>log &
vmm=$!
exec 4>keys
until_output 'guest: all are busy' 3600
for name in 'disk data.img' console rng balloon 'share shared' 'pmem pmem.img'; do
    for turn in 1 2 3 4; do
        pid=$(served_by "$name")
        kill -KILL $pid
        until_other "$pid" "$name"
        vmm ctl vm.sock pause
        vmm ctl vm.sock resume
    done
done
echo go >&4
finish 0
[ $(grep -c 'was unbound 20 times' output) = 6 ] || fail 'not all were unbound'
has 'guest: the end'
for bad in 'guest: .* is wrong' 'guest: .* failed' 'BUG:' 'I/O error' 'hung'; do lacks "$bad"; done
[ $(grep -c 'takes over' log) = 24 ] || fail 'not four successors of each'
cmp data.img shared/data
"#;

pub(super) fn cases() -> Vec<Case> {
    let on = |rings| {
        let name = format!("busy/unbound-paused-and-killed-{rings}");
        let mut case = Case::new(name, format!("RINGS={rings}\n{SCRIPT}"));
        case.timeout = Duration::from_mins(9);
        case
    };
    vec![on("packed"), on("split")]
}
