//! Disks whose queues are served by several threads of one process.

use std::time::Duration;

use super::Case;

/// Each of four CPUs of the guest writes files of its own through its own queue, and compares all that it reads back.
/// Meanwhile the disk's processes die in three ways, the machine pauses and the disk grows; then the driver lets go of it
/// and takes it again twenty times.
const SCRIPT: &str = r#"
truncate -s 160M data.img
linux_in_background '
mkfs.ext4 -q /dev/vdc 150M
mount /dev/vdc /mnt
echo load begins
fio --name=v --directory=/mnt --numjobs=4 --cpus_allowed=0-3 --cpus_allowed_policy=split --size=16M --rw=randwrite \
    --bs=4k --ioengine=libaio --direct=1 --iodepth=16 --fsync=64 --verify=crc32c --verify_backlog=512 \
    --time_based --runtime=30
umount /mnt
e2fsck -fn /dev/vdc
[ $(blockdev --getsize64 /dev/vdc) = $((192 << 20)) ]
dmesg | grep -i "i/o error" && exit 1
ls /sys/block/vdc/mq | wc -l | sed "s/^/queues: /"
device=$(basename $(readlink -f /sys/block/vdc/device))
for turn in $(seq 20); do
    dd if=/dev/vdc of=/dev/null bs=64k iflag=direct status=none &
    sleep 0.1
    echo $device >/sys/bus/virtio/drivers/virtio_blk/unbind
    wait
    echo $device >/sys/bus/virtio/drivers/virtio_blk/bind
done
e2fsck -fn /dev/vdc
# Linux ends the reads of a disk that is gone with errors.
dmesg | grep -i -e "i/o error" -e bug: -e hung | grep -v vdc && exit 1
echo all is well
' -c 4 --control vm.sock --disk path=data.img,id=data,queues=4,threads=2$OPTIONS
until_output 'load begins' 1200
for signal in KILL SEGV STOP KILL; do
    sleep 1.5
    pid=$(serves disk2)
    for thread in /proc/$pid/task/*; do
        echo "$(cat $thread/comm) of $pid ran for $(cut -d ' ' -f 1 $thread/schedstat) ns"
    done >>threads
    kill_device disk2 $signal
    vmm ctl vm.sock pause && vmm ctl vm.sock resume || fail 'a pause failed'
done
vmm ctl vm.sock disk-resize data 192M || fail 'it did not grow'
lacks 'all is well'
until_output 'all is well' 1800
finish 0
has 'err= 0'
has 'queues: 4'
[ $(grep -c 'takes over' log) = 4 ] || fail 'not four successors'
cat threads
# Most of the four had time to see much of the load.
for thread in vmm blk-1; do
    [ $(grep -c "^$thread of .* ran for [0-9]\{8\}" threads) -ge 3 ] || fail "$thread had nothing to do"
done
"#;

pub(super) fn cases() -> Vec<Case> {
    let on = |name: &str, options: &str| {
        let mut case = Case::new(format!("threads/{name}"), format!("OPTIONS={options}\n{SCRIPT}"));
        // Linux boots on an emulated processor.
        case.timeout = Duration::from_mins(5);
        case
    };
    vec![on("disk-survives-kills", ""), on("limited-disk-survives-kills", ",limit-ops=2000")]
}
