//! What programs of a guest take on a shared directory, beside the guest's own ext4 on a virtio disk: a table, in
//! one run.
//!
//! QEMU emulates the guest's processors, and the back ends run on this machine: an emulated host would take several
//! times as long.

use std::time::Duration;

use super::{Case, Place, vhost_user};

pub(super) fn cases() -> Vec<Case> {
    let script = format!("{}{TREES}{MEASURE}{RUN}", vhost_user::PRELUDE);
    let mut case = Case::new("fs/programs-beside-a-disk", script);
    case.place = Place::Here;
    case.timeout = Duration::from_mins(12);
    vec![case]
}

/// A repository of 20,000 files of which one in fifty has changed since git looked, in the folder `shared` and in
/// the disk image `image.ext4`.
const TREES: &str = r#"
for program in git awk mke2fs; do command -v $program >/dev/null || skip "there is no $program"; done
mkdir shared; git init -q --template= -b main shared/repository
(
    cd shared/repository
    awk 'BEGIN {
        print "commit refs/heads/main\ncommitter a <a@b> 0 +0000\ndata 0"
        for (file = 0; file < 20000; file++) {
            text = ""
            for (line = 0; line < 10 + file % 90; line++) text = text "line " line " of file " file "\n"
            printf "M 100644 inline d%d/f%d\ndata %d\n%s\n", file / 100, file, length(text), text
        }
    }' | git fast-import --quiet
    git reset -q --hard
    # An image has the times of files and no more of what git keeps; none is as young as the index.
    git config core.checkStat minimal; git config core.trustctime false
    find . -exec touch -d @1000000000 {} +
    git update-index -q --refresh
    touch -d @1000000001 .git/index
    for folder in d*; do for file in $folder/f*[05]0; do echo changed >>$file; done; done
)
truncate -s 2G image.ext4
mke2fs -q -t ext4 -N 60000 -E root_owner=0:0 -d shared image.ext4
chmod 600 image.ext4
"#;

/// Runs each program on the disk and then on the directory, each time with nothing in the guest's caches, and writes
/// lines `took PLACE PROGRAM MILLISECONDS` and `said PROGRAM PLACE SUM`.
const MEASURE: &str = r#"
cat >shared/measure <<'THE_END'
export HOME=/tmp; git config --global safe.directory '*'
head -c 64M /dev/urandom >/tmp/block
places='ext4 virtio-fs'
forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }
# timed PROGRAM COMMAND...: in each place. What it says goes to /tmp/said.
timed() {
    name=$1; shift
    for place in $places; do
        cd /tmp/$place; forget
        begin=$EPOCHREALTIME
        "$@" >/tmp/said || echo "$name failed on $place"
        end=$EPOCHREALTIME
        echo "took $place $name $(((${end/./} - ${begin/./}) / 1000))"
        echo "said $name $place $(md5sum </tmp/said | cut -c -32)"
    done
}
write() {
    for part in $(seq 0 15); do
        dd status=none if=/tmp/block of=large bs=1M seek=$((part * 64)) conv=notrunc,fsync
    done
}
# random PROGRAM KIND: 4 KiB, the same ones of the file of 1 GiB. The time is that of the requests alone.
random() {
    for place in $places; do
        cd /tmp/$place; forget
        fio --name=random --filename=large --rw=$2 --bs=4k --direct=1 --size=1G --io_size=16M --randseed=7 \
            --zero_buffers --ioengine=psync --output-format=terse --terse-version=3 >/tmp/said || echo "$1 failed on $place"
        echo "took $place $1 $(awk -F ';' '{ print $9 + $50 }' </tmp/said)"
    done
}
make() { mkdir new; (cd new; seq 10000 | xargs touch); }
timed git-status git --no-optional-locks -C repository status --porcelain
timed git-diff git --no-optional-locks -C repository diff
timed tar tar cf - --sort=name repository
timed write-1-gibibyte write
timed read-1-gibibyte dd status=none if=large bs=1M of=/dev/null
random random-reads randread
random random-writes randwrite
timed make-10000 make
timed remove-10000 rm -r new
THE_END
"#;

const RUN: &str = r#"
device blk disk path=image.ext4
device fs dir path=shared,tag=dir
qemu '
mkdir -p /tmp/virtio-fs /tmp/ext4
mount -t virtiofs dir /tmp/virtio-fs; mount /dev/vdc /tmp/ext4
bash /tmp/virtio-fs/measure
cmp /tmp/ext4/large /tmp/virtio-fs/large || echo the large files failed
umount /tmp/ext4
' $(chardev disk ,reconnect=1) -device vhost-user-blk-pci,chardev=disk,num-queues=1 \
    $(chardev dir) -device vhost-user-fs-pci,chardev=dir,tag=dir
lacks failed
tr -d '\r' <output | awk '
    $1 == "took" { took[$2, $3] = $4 / 1000; if ($2 == "ext4") order[++programs] = $3 }
    $1 == "said" { if ($2 in said && said[$2] != $4) { print $2 " says something else"; bad++ } said[$2] = $4 }
    END {
        printf "%-20s %10s %12s %8s\n", "program", "ext4 s", "virtio-fs s", "ratio"
        for (number = 1; number <= programs; number++) {
            name = order[number]; disk = took["ext4", name]; share = took["virtio-fs", name]
            if (disk == 0 || share == 0) { print name " took no time"; bad++; continue }
            printf "%-20s %10.2f %12.2f %8.2f\n", name, disk, share, share / disk
        }
        exit programs != 9 || bad > 0
    }' || fail 'answers differ or are missing'
"#;
