#!/bin/busybox sh
# PID 1 of the emulated host. It goes as far as it can without anything from outside, says READY
# on the serial line, and is saved there. Every restore wakes up at the `read` below.

export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/opt/busybox
busybox=/bin/busybox

if [ "$1" != moved ]; then
    # The root of an initramfs cannot be left with pivot_root, as sandboxes want to; a bind mount
    # of it moved over it can.
    $busybox mount -o bind / /mnt
    cd /mnt || exit 1
    $busybox mount -o move . /
    exec $busybox chroot . /init moved
fi

$busybox chmod 755 /
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
$busybox mkdir -p /dev/pts /dev/shm /dev/hugepages
$busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$busybox mount -t tmpfs -o mode=1777 shm /dev/shm
$busybox mount -t hugetlbfs huge /dev/hugepages
$busybox mount -t tmpfs -o mode=755 run /run
$busybox mount -t tmpfs -o mode=1777,size=90% tmp /tmp
$busybox mount -t cgroup2 cgroup /sys/fs/cgroup
$busybox mount -t debugfs debug /sys/kernel/debug
$busybox mount -t tracefs trace /sys/kernel/tracing
$busybox ln -s /proc/self/fd /dev/fd
$busybox ln -s /proc/self/fd/0 /dev/stdin
$busybox ln -s /proc/self/fd/1 /dev/stdout
$busybox ln -s /proc/self/fd/2 /dev/stderr
$busybox --install -s /opt/busybox
$busybox hostname bed
$busybox ip link set lo up

while read -r module; do
    /usr/sbin/modprobe "$module" || echo "bed: cannot load $module"
done </etc/bed-modules
# Only the first is there by udev's rules on a real host.
$busybox chmod 666 /dev/kvm /dev/net/tun /dev/vhost-net /dev/vhost-vsock

# The blocks of the disk images that are all zero take no memory after this.
for image in /bed/*.img; do
    /usr/bin/fallocate --dig-holes "$image"
done
$busybox sync
$busybox stty -F /dev/ttyS0 -echo -icrnl -onlcr

echo "bed: READY"
# Seconds since 1970, the agent's path under the run share.
read -r seconds agent </dev/ttyS0
$busybox date -s "@$seconds" >/dev/null
$busybox mkdir -p /run/bed
$busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro run /run/bed
$busybox setsid "/run/bed/$agent" bed-agent
echo "bed: the agent ended with status $?"
$busybox poweroff -f
