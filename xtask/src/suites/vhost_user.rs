//! Devices for virtual machines of others: stock Linux in QEMU uses them over vhost-user. And the other way round:
//! devices that another program serves to our machines.
//!
//! QEMU needs no KVM, so its cases run on this machine and not in the emulated host.

mod several;

use std::time::Duration;

use super::{Case, Place};
use crate::bed::later::Later;

/// `device KIND SOCKET WORDS...` serves a device; `qemu SCRIPT ARGUMENTS...` boots Linux with a script, as
/// `linux` does; `chardev ID [OPTIONS]` are the arguments for the socket ID.sock. QEMU connects anew
/// to disks only. `servers LOG` are the processes that served, the last one last; `five_kills LOG` kills it five
/// times in the background, once the guest says that its load begins, and `all_killed` looks whether it came to that.
///
/// A warning of QEMU that it does not ask for the configuration space of a device is of no importance.
pub(super) const PRELUDE: &str = r#"
command -v qemu-system-x86_64 >/dev/null || skip 'there is no qemu-system-x86_64'
devices=
at_end() { kill $devices || true; }
device() {
    vmm device "$1" -v --socket "$2.sock" $3 2>"$2.log" &
    devices="$devices $!"
    turns=0
    until grep -q 'waits for a front end' "$2.log"; do
        turns=$((turns + 1))
        [ $turns -lt 100 ] || { cat "$2.log"; fail "$2 does not listen"; }
        sleep 0.1
    done
}
chardev() { echo "-chardev socket,id=$1,path=$1.sock${2-}"; }
qemu() {
    guest_files "$1"; shift
    qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -machine q35,memory-backend=ram -object memory-backend-memfd,id=ram,size=768M,share=on \
        -accel tcg,thread=multi -cpu max -smp 2 -m 768M -kernel "$VMM_BED_BZIMAGE" -initrd "$VMM_BED_INITRD" \
        -append "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off root=/dev/vda rw \
            bed.script=/dev/vdb bed.modules=virtiofs,virtio-rng,vmw_vsock_virtio_transport,virtio_net" \
        -drive file=tools.img,format=raw,if=none,id=root -device virtio-blk-pci,drive=root \
        -drive file=guest.img,format=raw,if=none,id=guest,readonly=on -device virtio-blk-pci,drive=guest \
        "$@" >output 2>&1 </dev/null || echo "QEMU ended with status $?" >>output
    cat output ./*.log
    lacks 'QEMU ended with status'
    has 'script ended with 0'
}
servers() { sed -n 's/.*served by process \([0-9]*\)$/\1/p' "$1"; }
five_kills() {
    : >output
    {
        until grep -q 'load begins' output; do sleep 0.1; done
        for turn in 1 2 3 4 5; do
            sleep 1.5
            pid=$(servers "$1" | tail -n 1)
            kill -9 "$pid"
            while [ "$(servers "$1" | tail -n 1)" = "$pid" ]; do sleep 0.1; done
        done
        echo 'five kills' >killed
    } &
    devices="$devices $!"
}
all_killed() { [ -e killed ] || fail 'the load was over before the kills'; }
"#;

pub(super) fn cases() -> Vec<Case> {
    let mut kills = here(
        "vhost-user/linux-disk-survives-kills",
        r#"
truncate -s 256M data.img; chmod 600 data.img
device blk disk path=data.img
five_kills disk.log
qemu "$verified_load" $(chardev disk ,reconnect=1) -device vhost-user-blk-pci,chardev=disk,num-queues=2
has 'err= 0'
has 'all is well'
all_killed
"#,
    );
    kills.timeout = Duration::from_mins(4);
    let devices = here(
        "vhost-user/linux-uses-each-kind",
        r#"
mkdir dir; echo from the host >dir/a; seq 500 | while read -r n; do : >"dir/n$n"; done
device fs dir path=dir,tag=dir
device rng rng true
device vsock vsock path=host.sock,cid=7
qemu '
mount -t virtiofs dir /mnt
cat /mnt/a
[ $(ls /mnt | wc -l) = 501 ]
echo from the guest >/mnt/b
dd if=/dev/zero of=/mnt/z bs=1M count=8 conv=fsync
umount /mnt
[ $(cat /sys/class/misc/hw_random/rng_current) = virtio_rng.0 ]
[ $(dd if=/dev/hwrng bs=1k count=4 iflag=fullblock | wc -c) = 4096 ]
[ -c /dev/vsock ]
ls /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio*
echo all is well
' $(chardev dir) -device vhost-user-fs-pci,chardev=dir,tag=dir \
    $(chardev rng) -device vhost-user-rng-pci,chardev=rng \
    $(chardev vsock) -device vhost-user-vsock-pci,chardev=vsock
has 'from the host'
has 'all is well'
grep -q 'from the guest' dir/b || fail 'the file of the guest is not there'
[ "$(stat -c %s dir/z)" = 8388608 ] || fail 'the long file has another length'
"#,
    );
    let network = here(
        "vhost-user/linux-uses-a-network",
        r#"
[ -w /dev/net/tun ] && ip link show >/dev/null 2>&1 || skip 'needs /dev/net/tun and ip'
unshare -n true 2>/dev/null || skip 'needs a network namespace of its own'
# The script is its own argument.
[ -n "${INSIDE-}" ] || { cd /; rmdir "$folder"; INSIDE=1 exec unshare -n sh -c 'eval "$1"' sh "$1"; }
device net net tap=vutap0
ip addr add 10.9.9.1/24 dev vutap0; ip link set vutap0 up
# QEMU 7.2 ends by a signal when a vhost-user network has MSI-X without KVM.
qemu '
ip addr add 10.9.9.2/24 dev eth0; ip link set eth0 up
ping -c 5 -i 0.2 10.9.9.1
echo all is well
' $(chardev net) -netdev vhost-user,id=net,chardev=net \
    -device virtio-net-pci,netdev=net,vectors=0
has ' 0% packet loss'
has 'all is well'
"#,
    );
    let mut cases = vec![
        kills,
        devices,
        network,
        remote(),
        virtiofsd(),
        passt(),
        built_in_console(),
        console(),
        ports(),
    ];
    cases.extend(several::cases());
    cases
}

/// Consoles of `vmm device` for our machines. `consoles SOCKET PORTS...` serves them, as [`STRANGERS`] has it; the log
/// of all of them is in the file `served.log`. `start SCRIPT OPTIONS...` starts Linux with a script for the initrd's
/// shell, until `finish`. `talk NAME` connects a pair of files to what the socket NAME ends at: what goes to descriptor
/// 4 is sent there, and what comes is added to NAME.out. It ends with the program that serves.
const CONSOLES: &str = r#"
consoles() { socket=$1; shift; serve "$socket" vmm device console -v --socket "$socket" "$@"; }
start() {
    script=$(echo "$1" | tr -d '\\\n'); shift
    vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --serial file=output \
        --cmdline 'console=ttyS0 quiet panic=-1 bed.modules=virtio_console' \
        --cmdline "bed.sh=\"$script\"" "$@" 2>log </dev/null &
    vmm=$!
    : >>output
}
await() {
    turns=$(($1 * 10)); shift
    while ! "$@"; do
        kill -0 $vmm || { cat output log served.log; fail "vmm has ended before: $*"; }
        turns=$((turns - 1))
        [ $turns -gt 0 ] || { cat output log served.log ./*.out; fail "waited in vain for $*"; }
        sleep 0.1
    done
}
talks=0
talk() {
    talks=$((talks + 1))
    mkfifo keys$talks
    socat UNIX-CONNECT:"$1",retry=300,interval=0.1 - <keys$talks >>"$1.out" &
    exec 4>keys$talks
}
"#;

/// What the built-in guest finds.
fn built_in_console() -> Case {
    Case::new(
        "vhost-user/consoles-of-another-program",
        format!(
            "{STRANGERS}{CONSOLES}{}",
            r"
consoles hvc.sock null
run 0 vmm run --vhost-user type=console,socket=hvc.sock
has 'console, 2 queues'
touch over; kill -9 $(cat pid); wait $successors; rm over
consoles ports.sock $(for port in $(seq 16); do echo unix=port$port,name=p$port; done)
run 0 vmm run --vhost-user type=console,socket=ports.sock
has 'console, 34 queues'
cat served.log
"
        ),
    )
}

/// One console, whose program is killed between two lines and while much is written; what comes while nobody looks is
/// thrown away.
fn console() -> Case {
    long(
        "vhost-user/linux-on-a-console-that-dies",
        r#"
consoles hvc.sock unix=hvc
start 'seq 100000 >/tmp/lines; cat /sys/class/tty/console/active; exec 3<>/dev/hvc0; stty raw -echo <&3; echo guest: ready; \
    while read -r line <&3; do case $line in \
        flood) while :; do cat /tmp/lines; done >&3 & flood=$!;; calm) kill $flood; wait; echo calm >&3;; \
        *) echo guest: heard $line >&3; [ $line = end ] && break;; esac; done; \
    echo guest: over' --vhost-user type=console,socket=hvc.sock --cmdline console=hvc0
await 30 grep -q 'guest: ready' output
has hvc0
heard() { grep -q "guest: heard $1\$" hvc.out; }
talk hvc
echo first >&4; await 10 heard first
for turn in 1 2 3; do
    kill -9 $(cat pid)
    successor $turn
    talk hvc
    echo "turn$turn" >&4; await 10 heard "turn$turn"
done
echo flood >&4
grown() { [ $(stat -c %s hvc.out) -gt $((size + 100000)) ]; }
for turn in 4 5 6; do
    size=$(stat -c %s hvc.out); await 20 grown
    kill -9 $(cat pid)
    successor $turn
    talk hvc
done
size=$(stat -c %s hvc.out); await 20 grown
echo calm >&4; await 10 grep -q 'calm$' hvc.out
echo end >&4; await 10 heard end
finish 0
has 'guest: over'
cat served.log
"#,
    )
}

/// Two ports with messages of which are open, which a successor cannot know.
fn ports() -> Case {
    long(
        "vhost-user/linux-on-ports-that-die",
        r#"
consoles ports.sock unix=a,name=a unix=b,name=b
start 'port() { while :; do for p in /sys/class/virtio-ports/*; do \
        [ $(cat $p/name) = $1 ] && echo /dev/${p##*/} && return; done; done 2>/dev/null; }; \
    exec 3<>$(port a); exec 5<>$(port b); echo guest: ready; \
    while read -r line <&3; do echo guest: heard $line >&5; [ $line = end ] && break; done; \
    echo guest: over' --vhost-user type=console,socket=ports.sock
await 30 grep -q 'guest: ready' output
heard() { grep -q "^guest: heard $1\$" b.out; }
say() { echo "$1" | socat -u - UNIX-CONNECT:a,retry=300,interval=0.1; }
listen() { socat -u UNIX-CONNECT:b,retry=300,interval=0.1 - >>b.out & }
listen
say first; await 10 heard first
for turn in 1 2 3; do
    kill -9 $(cat pid)
    successor $turn
    listen
    say "turn$turn"; await 10 heard "turn$turn"
done
say end; await 10 heard end
finish 0
has 'guest: over'
cat served.log
"#,
    )
}

fn long(name: &str, script: &str) -> Case {
    let mut case = Case::new(name, format!("{STRANGERS}{CONSOLES}{script}"));
    // Linux boots on an emulated processor.
    case.timeout = Duration::from_mins(4);
    case
}

/// A device that another program serves to our machine.
fn remote() -> Case {
    let mut remote = Case::new(
        "vhost-user/linux-on-a-program-that-dies",
        format!(
            "{STRANGERS}{}",
            r#"
truncate -s 128M data.img; chmod 600 data.img
serve disk.sock vmm device blk -v --socket disk.sock path=data.img
linux_in_background "$verified_load" -v --vhost-user type=blk,socket=disk.sock
until_output 'load begins'
for turn in 1 2 3 4 5; do
    sleep 2
    kill -9 $(cat pid)
    successor $turn
done
lacks 'all is well'
until_output 'all is well' 1200
finish 0
has 'err= 0'
"#
        ),
    );
    remote.timeout = Duration::from_mins(5);
    remote
}

/// `serve SOCKET COMMAND...` runs a program of others, and a successor when it dies, until there is the file `over`;
/// `successor N` waits until a machine has found the Nth. The programs are those of `$VMM_BED_CRATES`, with
/// their libraries, or of Debian.
const STRANGERS: &str = r#"
PATH=$VMM_BED_CRATES:$PATH
export LD_LIBRARY_PATH="$VMM_BED_CRATES"
serve() {
    socket=$1; shift
    (
        while [ ! -e over ]; do
            rm -f "$socket"
            "$@" >>served.log 2>&1 &
            echo $! >pid
            wait $! || true
            sleep 0.1
        done
    ) &
    successors=$!
    at_end() { touch over; kill -9 $(cat pid) || true; wait $successors || true; }
    turns=0
    until [ -S "$socket" ]; do
        turns=$((turns + 1))
        [ $turns -lt 100 ] || { cat served.log; fail 'nobody listens'; }
        sleep 0.1
    done
}
successor() {
    turns=0
    until [ "$(grep -c 'there is a back end again' log)" = "$1" ]; do
        turns=$((turns + 1))
        [ $turns -lt 300 ] || { cat output log served.log; fail "no successor after death $1"; }
        sleep 0.1
    done
}
"#;

/// A directory of virtiofsd, which knows nothing of a predecessor's clients: they mount it anew.
fn virtiofsd() -> Case {
    let mut case = Case::new(
        "vhost-user/virtiofsd-shares-and-dies",
        format!(
            "{STRANGERS}{}",
            r#"
virtiofsd --version >/dev/null 2>&1 || skip 'there is no virtiofsd in $VMM_BED_CRATES or PATH'
mkdir dir
echo from the host >dir/a
serve fs.sock virtiofsd --socket-path=fs.sock --shared-dir=dir --sandbox=none
with_keys
linux_in_background '
mount -t virtiofs dir /mnt
cat /mnt/a
fio --name=v --directory=/mnt --size=8M --rw=randwrite --bs=4k --ioengine=psync --verify=crc32c
head -c 8M /dev/urandom >/tmp/bytes
cp /tmp/bytes /mnt/bytes
sync
for n in $(seq 100); do echo $n >/mnt/n$n; done
umount /mnt
echo first part over
read -r line </dev/console
mount -t virtiofs dir /mnt
cmp /tmp/bytes /mnt/bytes
[ $(ls /mnt | grep -c ^n) = 100 ]
echo all is well
' -v --vhost-user type=fs,socket=fs.sock,tag=dir --cmdline bed.modules=virtiofs
until_output 'first part over' 1200
kill -9 "$(cat pid)"
successor 1
echo go on >&9
until_output 'all is well' 600
finish 0
has 'from the host'
has 'err= 0'
"#
        ),
    );
    case.timeout = Duration::from_mins(5);
    case
}

/// The host's own sockets behind a network, whose connections end with passt. Debian 12's knows nothing of vhost-user.
fn passt() -> Case {
    let mut case = Case::new(
        "vhost-user/passt-carries-streams-and-dies",
        format!(
            "{STRANGERS}{}",
            r#"
PATH=$VMM_BED_LATER:$PATH
passt --help 2>&1 | grep -q -e --vhost-user || skip 'there is no passt with --vhost-user in $VMM_BED_LATER or PATH'
# The host has no network here, so that passt has to be shown one.
ip link set lo up
ip tuntap add dev uplink mode tap
ip addr add 192.0.2.2/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.1
# passt becomes nobody before it listens.
chmod 777 .
serve net.sock passt --foreground --vhost-user --socket net.sock --interface uplink --ipv4-only     --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 --tcp-ports none --udp-ports none
head -c 64M /dev/urandom >bytes
echo bytes to the guest $(sha256sum <bytes) >sums
echo bytes to the host $(socat -u TCP-LISTEN:7001,bind=127.0.0.1,reuseaddr - | sha256sum) >>sums &
streams=$!
socat -u FILE:bytes TCP-LISTEN:7002,bind=127.0.0.1,reuseaddr &
streams="$streams $!"
with_keys
linux_in_background '
ip link set eth0 up
lease() { busybox udhcpc -i eth0 -q -n -s /bin/true 2>&1; }
lease
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
head -c 64M /dev/urandom >/tmp/bytes
socat -u FILE:/tmp/bytes TCP:10.0.2.2:7001
echo bytes to the host $(sha256sum </tmp/bytes)
echo bytes to the guest $(socat -u TCP:10.0.2.2:7002 - | sha256sum)
echo first part over
read -r line </dev/console
echo second lease
lease
socat -u TCP:10.0.2.2:7003,retry=100,interval=0.1 -
dmesg -l emerg,alert,crit,err
echo all is well
' -v --vhost-user type=net,socket=net.sock --cmdline bed.modules=virtio_net
until_output 'first part over' 3000
wait $streams
has 'lease of 10.0.2.15 obtained'
cat sums
[ $(wc -l <sums) = 2 ] || fail 'a stream is missing'
while read -r line; do has "^$line"; done <sums
kill -9 "$(cat pid)"
successor 1
echo through another | socat -u - TCP-LISTEN:7003,bind=127.0.0.1,reuseaddr &
echo go on >&9
until_output 'all is well' 1200
finish 0
has 'through another'
sed '1,/second lease/d' output >tail
grep -q 'lease of 10.0.2.15 obtained' tail || fail 'there is no second lease'
"#
        ),
    );
    case.later = &[Later { program: "passt", packages: &["passt", "libc6"] }];
    case.timeout = Duration::from_mins(8);
    case
}

fn here(name: &str, script: &str) -> Case {
    let mut case = Case::new(name, format!("{PRELUDE}{script}"));
    case.place = Place::Here;
    case
}
