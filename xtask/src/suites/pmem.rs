//! Persistent memory under stock Linux: a root there, flushes that last, and processes that die.

use std::time::Duration;

use super::Case;

/// The driver of the device, and that of the block device on top of it.
const MODULES: &str = "--cmdline bed.modules=virtio_pmem,nd_pmem";

pub(super) fn cases() -> Vec<Case> {
    vec![
        root("root-writable", ""),
        root("root-read-only", ",ro"),
        direct_access(),
        direct_access_as_a_buffer(),
        writes_to_read_only_memory(),
        flushed_data_outlasts_the_machine(),
        unbound_again_and_again(),
        killed_under_load(),
        wrong_input(),
    ]
}

fn root(name: &str, ro: &str) -> Case {
    let (mode, checks) = if ro.is_empty() {
        (
            "rw",
            "run 0 e2fsck -fn disk.img
             run 0 debugfs -R 'cat /written' disk.img
             has '^by the guest'",
        )
    } else {
        ("ro", "[ \"$(md5sum <disk.img)\" = \"$before\" ] || fail 'the file has changed'")
    };
    Case::new(
        format!("pmem/{name}"),
        format!(
            "disk disk.img
             before=$(md5sum <disk.img)
             run 0 vmm run \"$VMM_BED_KERNEL\" --initrd \"$VMM_BED_INITRD\" \
                 --pmem path=disk.img{ro},root {MODULES} --cmdline 'quiet panic=-1' \
                 --cmdline 'bed.sh=\"grep pmem /proc/mounts; echo by the guest >/written; sync\"'
             has 'root is ext4 on /dev/pmem0'
             has '^/dev/pmem0 / ext4 {mode},'
             has 'guest: poweroff'
             {checks}"
        ),
    )
}

/// A file system without a page cache, made longer by `size=`, beside another disk.
fn direct_access() -> Case {
    Case::new(
        "pmem/dax-beside-a-disk",
        format!(
            "truncate -s 1M other.img
             truncate -s 0 pmem.img
             linux 0 '
                 echo size $(cat /sys/block/pmem0/size) dax $(cat /sys/block/pmem0/queue/dax)
                 mkfs.ext4 -q -b 4096 /dev/pmem0
                 mount -o dax=always /dev/pmem0 /mnt
                 grep pmem0 /proc/mounts
                 head -c 8M /dev/urandom >/mnt/file
                 sync /mnt/file
                 dd if=/dev/vdc of=/mnt/copy bs=64k iflag=direct 2>&1 | tail -n 1
                 cmp /dev/vdc /mnt/copy
                 umount /mnt
             ' --pmem path=pmem.img,size=64M --disk path=other.img {MODULES}
             has 'size 131072 dax 1'
             has 'dax=always'
             run 0 e2fsck -fn pmem.img"
        ),
    )
}

/// A disk does not reach this memory: such a transfer fails in either direction, and later ones do not.
fn direct_access_as_a_buffer() -> Case {
    Case::new(
        "pmem/dax-as-a-buffer-of-a-disk",
        format!(
            "truncate -s 64M pmem.img
             head -c 1M /dev/urandom >other.img
             before=$(md5sum <other.img)
             linux 0 '
                 mkfs.ext4 -q -b 4096 /dev/pmem0
                 mount -o dax=always /dev/pmem0 /mnt
                 # Linux itself refuses pages that the file does not have yet.
                 head -c 1M /dev/zero >/mnt/buffer
                 sync /mnt/buffer
                 for way in read write; do
                     fio --name=$way --rw=$way --filename=/dev/vdc --direct=1 --bs=64k --size=1M \
                         --iomem=mmapshared:/mnt/buffer --allow_file_create=0 2>&1 | grep -i err
                     md5sum </dev/vdc
                 done
                 dd if=/dev/vdc of=/mnt/copy bs=64k iflag=direct 2>/dev/null
                 md5sum </mnt/copy
                 umount /mnt
             ' --pmem path=pmem.img --disk path=other.img {MODULES}
             [ $(grep -c 'io_u error on file /dev/vdc: Input/output error' output) = 2 ] || fail 'there should be errors'
             [ $(grep -c \"^${{before% *}}\" output) = 3 ] || fail 'other data in the guest'
             run 0 e2fsck -fn pmem.img"
        ),
    )
}

fn writes_to_read_only_memory() -> Case {
    Case::new(
        "pmem/writes-to-read-only-memory",
        format!(
            "head -c 3000000 /dev/urandom >pmem.img
             before=$(md5sum <pmem.img)
             linux 0 '
                 head -c 3000000 /dev/pmem0 | md5sum
                 blockdev --getsize64 /dev/pmem0
                 dd if=/dev/zero of=/dev/pmem0 bs=4k count=4 oflag=direct conv=fsync 2>&1
                 echo 3 >/proc/sys/vm/drop_caches
                 head -c 3000000 /dev/pmem0 | md5sum
                 tail -c 1194304 /dev/pmem0 | tr -d \"\\\\0\" | wc -c
             ' --pmem path=pmem.img,ro {MODULES}
             [ $(grep -c \"${{before% *}}\" output) = 2 ] || fail 'other data in the guest'
             has '^4194304'
             has '^0.\\?$'
             [ \"$(md5sum <pmem.img)\" = \"$before\" ] || fail 'the file has changed'"
        ),
    )
}

/// The whole machine dies right after an fsync.
fn flushed_data_outlasts_the_machine() -> Case {
    Case::new(
        "pmem/fsync-outlasts-sigkill",
        format!(
            "truncate -s 64M pmem.img
             linux_in_background '
                 mkfs.ext4 -q -b 4096 /dev/pmem0
                 mount /dev/pmem0 /mnt
                 head -c 4M /dev/urandom >/mnt/file
                 sync /mnt/file /mnt
                 echo sum $(md5sum </mnt/file)
                 echo synced
                 while true; do echo more >>/mnt/other; done
             ' --pmem path=pmem.img {MODULES}
             until_output '^synced'
             kill -KILL $vmm
             wait $vmm || true
             cat output log
             sum=$(sed -n 's/^sum \\([0-9a-f]*\\).*/\\1/p' output)
             linux 0 '
                 mount /dev/pmem0 /mnt
                 echo sum $(md5sum </mnt/file)
                 umount /mnt
             ' --pmem path=pmem.img {MODULES}
             has \"^sum $sum\"
             run 0 e2fsck -fn pmem.img"
        ),
    )
}

fn unbound_again_and_again() -> Case {
    Case::new(
        "pmem/unbound-20-times",
        format!(
            "truncate -s 64M pmem.img
             linux 0 '
                 driver=/sys/bus/virtio/drivers/virtio_pmem
                 device=$(basename $driver/virtio*)
                 unbind() {{ echo $device >$driver/unbind; [ ! -e /sys/block/pmem0 ]; }}
                 bind() {{ echo $device >$driver/bind; until [ -b /dev/pmem0 ]; do sleep 0.1; done; }}
                 mkfs.ext4 -q -b 4096 /dev/pmem0
                 for turn in $(seq 20); do
                     mount /dev/pmem0 /mnt
                     echo $turn >>/mnt/turns
                     sync /mnt/turns
                     umount /mnt
                     unbind
                     bind
                 done
                 mount /dev/pmem0 /mnt
                 echo turns $(wc -l </mnt/turns)
                 umount /mnt
             ' --pmem path=pmem.img {MODULES}
             has '^turns 20'
             run 0 e2fsck -fn pmem.img"
        ),
    )
}

/// The process dies while eight writers wait for flushes.
fn killed_under_load() -> Case {
    let mut case = Case::new(
        "pmem/survives-kills-under-load",
        format!(
            "truncate -s 64M pmem.img
             linux_in_background '
                 mkfs.ext4 -q -b 4096 /dev/pmem0
                 mount /dev/pmem0 /mnt
                 echo loads begin
                 for writer in 1 2 3 4 5 6 7 8; do
                     ( for turn in $(seq 100000); do
                         [ ! -e /tmp/enough ] || break
                         dd if=/dev/zero of=/mnt/$writer bs=4k count=4 conv=fsync 2>/tmp/$writer \
                             || {{ cat /tmp/$writer; exit 1; }}
                     done; echo writer ended ) &
                 done
                 sleep 12
                 touch /tmp/enough
                 wait
                 umount /mnt
                 dmesg | grep -i error || echo no errors
             ' -v --pmem path=pmem.img --control vm.sock {MODULES}
             until_output 'loads begin'
             for signal in KILL SEGV SYS STOP; do
                 for turn in 1 2 3; do
                     sleep 0.3
                     vmm ctl vm.sock pause
                     vmm ctl vm.sock resume
                 done
                 pid=$(served_by 'pmem pmem.img')
                 kill -$signal $pid
                 until_other \"$pid\" 'pmem pmem.img'
             done
             finish 0
             [ $(grep -c '^writer ended' output) = 8 ] || fail 'a writer failed'
             has 'no errors'
             [ $(grep -c 'takes over' log) = 4 ] || fail 'not four successors'
             run 0 e2fsck -fn pmem.img"
        ),
    );
    case.timeout = Duration::from_mins(5);
    case
}

fn wrong_input() -> Case {
    Case::new(
        "pmem/wrong-input",
        "truncate -s 3M odd.img
         truncate -s 4M whole.img
         for pmem in path=odd.img path=missing.img path=/ path=/dev/zero path=odd.img,size=2M \
             path=whole.img,size=5M path=whole.img,ro,size=8M path=whole.img,root ro; do
             run 35 vmm run --pmem $pmem
             has 'error'
         done
         run 35 vmm run --pmem path=whole.img --pmem path=whole.img
         has 'is locked by'
         [ \"$(stat -c %s odd.img whole.img | tr '\\n' ' ')\" = '3145728 4194304 ' ] || \
             fail 'a file was changed'",
    )
}
