//! What actors do under stock Linux, written down, and done again by their code alone.

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    vec![a_disk_under_load()]
}

/// A boot, then reads, writes, flushes and discards by two queues: the disk's code does the same again.
fn a_disk_under_load() -> Case {
    Case::new(
        "traces/a-disk-under-load",
        "truncate -s 64M other.img
         linux 0 '
             mkfs.ext4 -q /dev/vdc
             mount -o discard /dev/vdc /mnt
             for i in 1 2 3; do
                 head -c 4M /dev/urandom >/mnt/file$i
                 sync /mnt/file$i
                 rm /mnt/file$i
             done
             umount /mnt
             dd if=/dev/vdc of=/dev/null bs=64k iflag=direct
         ' --disk path=other.img,queues=2 --cpus 2 --trace run.trace
         ls -l run.trace
         run 0 vmm trace replay run.trace --actor blk0 --json
         has '\"departure\":null'
         run 0 vmm trace replay run.trace --actor blk2 --json
         has '\"departure\":null'
         [ \"$(tail -n 1 output | sed 's/.*\"requests\":\\([0-9]*\\),.*/\\1/')\" -gt 500 ] ||
             fail 'few requests were replayed'
         vmm trace show run.trace --actor blk2 >shown
         for word in 'write at sector' 'read at sector' discard flush; do
             grep -q \"$word\" shown || fail \"nothing is told of a $word\"
         done
         run 0 vmm trace report run.trace --html run.html
         grep -q '</svg>' run.html || fail 'a page without plots'",
    )
}
