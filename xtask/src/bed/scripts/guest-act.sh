#!/bin/busybox sh
# The last program of a test guest, in the initrd or as /sbin/init of a disk. It obeys words of the
# kernel's command line:
#   bed.sh="SCRIPT"   runs the script with sh (no double quotes inside)
#   bed.script=DEVICE runs the text that a block device holds
#   bed.end=WAY       how it ends: poweroff (without the word), reboot, panic, halt, shell, hold

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TERM=linux
busybox=/bin/busybox
[ -e /proc/cmdline ] || $busybox mount -t proc proc /proc
[ -e /sys/kernel ] || $busybox mount -t sysfs sys /sys
[ -e /dev/null ] || $busybox mount -t devtmpfs dev /dev
$busybox mkdir -p /tmp /run
$busybox mount -t tmpfs tmp /tmp
$busybox mount -t tmpfs run /run

root=initrd
while read -r device place type rest; do
    [ "$place" = / ] && root="$type on $device"
done </proc/mounts
echo "guest: init up, root is $root"

line=$($busybox cat /proc/cmdline)
end=poweroff
for word in $line; do
    case $word in
    bed.end=*) end=${word#bed.end=} ;;
    bed.script=*) $busybox tr -d '\000' <"${word#bed.script=}" >/tmp/script ;;
    esac
done
case $line in
*'bed.sh="'*)
    script=${line#*bed.sh=\"}
    echo "${script%%\"*}" >/tmp/script
    ;;
esac
if [ -e /tmp/script ]; then
    $busybox sh /tmp/script
    echo "guest: script ended with $?"
fi

$busybox sync
case $end in
hold) exec $busybox sleep 1000000 ;;
shell) $busybox setsid $busybox cttyhack $busybox sh ;;
esac
# A clean file system needs its journal emptied.
$busybox mount -o remount,ro / 2>/dev/null
echo "guest: $end"
case $end in
reboot) $busybox reboot -f ;;
panic) echo c >/proc/sysrq-trigger ;;
halt) $busybox halt -f ;;
*) $busybox poweroff -f ;;
esac
