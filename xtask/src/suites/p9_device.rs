//! Directories over 9P from a virtio device, mounted by stock Linux' `v9fs` in a guest: with the kernel of the
//! emulated host, since the cloud kernel has no 9P.

use std::time::Duration;

use super::Case;
use super::fs::{FILES, FILES_CHECK, KILLS, LOAD, READ_ONLY, READ_ONLY_CHECK};

/// A kernel with 9P, an initrd with its drivers, and a machine that shares the folder `shared` and runs
/// `shared/test.sh` from its own memory.
const MACHINE: &str = r#"
assets=$VMM_BED_MODULES/..
version=$(ls "$assets/host/lib/modules")
mkdir -p tree/bin tree/modules tree/dev tree/proc tree/sys tree/tmp tree/s
cp "$assets/tree/usr/bin/busybox" tree/bin
for module in virtio_pci 9p 9pnet_virtio; do
    modprobe -d "$assets/host" -S "$version" --show-depends $module
done | while read -r insmod file; do
    name=$(basename "$file")
    [ -e "tree/modules/$name" ] || { cp "$file" tree/modules; echo "$name" >>tree/modules/order; }
done
cat >tree/init <<'THE_END'
#!/bin/busybox sh
export PATH=/bin HOME=/
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for name in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$name; done
mount_share() { /bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 src /s; }
mount_share && cp /s/test.sh /tmp && . /tmp/test.sh
/bin/busybox sync
/bin/busybox poweroff -f
THE_END
chmod 755 tree/init
(cd tree; find . | cpio -o -H newc 2>/dev/null) >initrd
share() {
    vmm -v run "$assets/host-kernel" --initrd initrd --share "path=shared,tag=src,type=9p$1" -m 512M \
        --cmdline 'console=ttyS0 quiet panic=-1'
}
mkdir shared
"#;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("files-go-both-ways", FILES, "run 0 share ''\n", FILES_CHECK),
        case("read-only-is-read-only", READ_ONLY, "run 0 share ,ro\n", READ_ONLY_CHECK),
        case("a-driver-comes-and-goes", BINDINGS, "run 0 share ''\n", "has '20 times, 0 bad'\n"),
        case("a-server-is-killed", LOAD, KILLS, "grep -q 'rounds, 0 bad' output || exit 1\n"),
    ]
}

/// `script` runs in the guest; `start` starts it, and `check` looks at what came of it.
fn case(name: &str, script: &str, start: &str, check: &str) -> Case {
    let script = format!(
        "{MACHINE}cat >shared/test.sh <<'THE_END'\n{script}THE_END\n\
         head -c 9000000 /dev/urandom >shared/data\n\
         tar cf shared/tree.tar -C /etc . 2>/dev/null || true\n\
         {start}{check}"
    );
    let mut case = Case::new(format!("p9-device/{name}"), script);
    case.timeout = Duration::from_mins(8);
    case
}

const BINDINGS: &str = r"
driver=/sys/bus/virtio/drivers/9pnet_virtio
device=$(basename $(readlink $driver/virtio*))
times=0; bad=0
while [ $times -lt 20 ]; do
    umount /s || bad=$((bad + 1))
    echo $device >$driver/unbind && echo $device >$driver/bind || bad=$((bad + 1))
    mount_share && echo $times >/s/number || bad=$((bad + 1))
    [ $(cat /s/number) = $times ] || bad=$((bad + 1))
    times=$((times + 1))
done
echo $times times, $bad bad
cd /
";
