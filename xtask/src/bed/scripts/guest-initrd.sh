#!/bin/busybox sh
# /init of the small initrd: loads the drivers that the stock kernel has as modules, then either
# hands over to the root file system that the kernel's command line names, or stays here.
echo "guest: initrd up"

busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev

root='' mode=ro modules=''
# Words only: what a quoted script contains does not look like these.
for word in $($busybox cat /proc/cmdline); do
    case $word in
    root=*) root=${word#root=} ;;
    rw) mode=rw ;;
    bed.modules=*) modules=$(echo "${word#bed.modules=}" | $busybox tr , ' ') ;;
    esac
done

for module in virtio_pci virtio_blk pvpanic-mmio $modules; do
    $busybox modprobe "$module" || echo "guest: cannot load $module"
done

if [ -z "$root" ]; then
    exec /bed/act
fi

# Devices are probed before modprobe returns, except on a busy host.
tries=0
while [ ! -b "$root" ] && [ $tries -lt 50 ]; do
    tries=$((tries + 1))
    $busybox usleep 100000
done
if ! $busybox mount -t ext4 -o "$mode" "$root" /root; then
    echo "guest: cannot mount $root"
    exec /bed/act
fi
$busybox mount -o move /dev /root/dev
$busybox mount -o move /proc /root/proc
$busybox mount -o move /sys /root/sys
exec $busybox switch_root /root /sbin/init
