//! Several devices of one process.

use std::time::Duration;

use super::{Case, here};

pub(super) fn cases() -> Vec<Case> {
    let mut kills = here(
        "vhost-user/linux-disks-of-one-process-survive-kills",
        r#"
for disk in a b; do truncate -s 128M $disk.img; chmod 600 $disk.img; done
vmm device serve -v --device type=blk,socket=a.sock,path=a.img --device type=blk,socket=b.sock,path=b.img \
    --device type=rng,socket=rng.sock 2>several.log &
devices=$!
turns=0
until [ -S a.sock ] && [ -S b.sock ] && [ -S rng.sock ]; do
    turns=$((turns + 1))
    [ $turns -lt 100 ] || { cat several.log; fail 'nobody listens'; }
    sleep 0.1
done
five_kills several.log
qemu '
[ $(cat /sys/class/misc/hw_random/rng_current) = virtio_rng.0 ]
[ $(dd if=/dev/hwrng bs=1k count=4 iflag=fullblock | wc -c) = 4096 ]
mkdir -p /mnt/c /mnt/d 2>/dev/null || { mount -t tmpfs none /mnt; mkdir /mnt/c /mnt/d; }
for disk in c d; do mkfs.ext4 -q /dev/vd$disk; mount /dev/vd$disk /mnt/$disk; done
echo load begins
fio --size=32M --rw=randwrite --bs=4k --ioengine=libaio --direct=1 --iodepth=16 \
    --verify=crc32c --verify_backlog=512 --time_based --runtime=16 \
    --name=c --directory=/mnt/c --name=d --directory=/mnt/d
for disk in c d; do umount /mnt/$disk; e2fsck -fn /dev/vd$disk; done
dmesg | grep -i "i/o error" && exit 1
echo all is well
' $(chardev a ,reconnect=1) -device vhost-user-blk-pci,chardev=a,num-queues=2 \
    $(chardev b ,reconnect=1) -device vhost-user-blk-pci,chardev=b,num-queues=2 \
    $(chardev rng) -device vhost-user-rng-pci,chardev=rng
has 'err= 0'
has 'all is well'
all_killed
processes=$(servers several.log | sort -u | wc -l)
[ "$processes" = 6 ] || fail "$processes processes served, not one and five successors"
"#,
    );
    kills.timeout = Duration::from_mins(4);
    kills.long = true;
    vec![kills]
}
