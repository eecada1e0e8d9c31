//! Consoles under stock Linux.

use std::time::Duration;

use super::Case;

/// `start MODULES SCRIPT OPTIONS...` starts Linux with a script for the initrd's shell, until `finish`;
/// standard input and output are the machine's. `port NAME` opens a port of the guest as descriptor 3.
const HELPERS: &str = r#"
port='port() { exec 3>&-; while ! [ -e /proc/self/fd/3 ]; do for p in /sys/class/virtio-ports/*; do \
      [ $(cat $p/name) = $1 ] && exec 3<>/dev/${p##*/}; done; done 2>/dev/null; };
      lines() { seq -w $1 | sed s/^/$2/; };'
start() {
    modules=$1; script=$(echo "$port $2" | tr -d '\\\n'); shift 2
    vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --serial file=output \
        --cmdline "console=ttyS0 quiet panic=-1 bed.modules=$modules" \
        --cmdline "bed.sh=\"$script\"" "$@" 2>log <&0 &
    vmm=$!
    : >>output
}
await() {
    turns=$(($1 * 10)); shift
    while ! "$@"; do
        kill -0 $vmm || { cat output log; fail "vmm has ended before: $*"; }
        turns=$((turns - 1))
        [ $turns -gt 0 ] || { cat output log; fail "waited in vain for $*"; }
        sleep 0.1
    done
}
# So many lines of 16 bytes: `lines COUNT ZEROS`, in the guest too.
lines() { seq -w $1 | sed s/^/$2/; }
same() { cmp "$1" "$2" || fail "other bytes came: $(wc -c "$1" "$2" | head -n 2)"; }
pty() { sed -n 's/^vmm: the console.* is \(.dev.pts.[0-9]*\).*/\1/p' log; }
has_pty() { [ -n "$(pty)" ]; }
# What a process has used of the processor, in hundredths of seconds.
used() { sed 's/.*) //' /proc/$1/stat | awk '{print $12 + $13}'; }
"#;

/// The console's line discipline passes everything on when it is raw.
const CONSOLE_BOTH_WAYS: &str = r"
head -c 10485760 /dev/urandom >in.bin
start virtio_console 'exec 3<>/dev/hvc0; stty raw -echo <&3; echo guest: raw; \
    head -c 10485760 <&3 >/tmp/in; cat /tmp/in >&3' --console unix=hvc
await 60 grep -q 'guest: raw' output
socat -t 60 - UNIX-CONNECT:hvc,shut-none <in.bin >out.bin
finish 0
same in.bin out.bin
";

const RESIZED: &str = r#"
cat >script <<'END'
# The driver is a module: it was not there yet when this program got its console.
exec </dev/hvc0 >/dev/hvc0 2>&1
size() { stty size </dev/hvc0; }
echo guest: console $(cat /sys/class/tty/console/active)
echo guest: size $(size)
until [ "$(size)" = "41 123" ]; do sleep 0.1; done
echo guest: size $(size)
until [ "$(size)" = "20 60" ]; do sleep 0.1; done
echo guest: size $(size)
END
truncate -s 4K script
touch log; mkfifo keys; sleep 1000 >keys & keeper=$!
cat >run <<END
stty rows 33 cols 99
vmm run $VMM_BED_KERNEL --initrd $VMM_BED_INITRD --console stdio --disk path=script,ro \
    --cmdline 'quiet panic=-1 bed.modules=virtio_console bed.script=/dev/vda'
echo status \$?
END
socat EXEC:"bash run",pty,setsid,ctty,stderr,raw,echo=0 - <keys >output &
vmm=$!
until_output 'guest: size 33 99'
terminal=$(readlink /proc/$(pgrep -o -x vmm)/fd/0)
stty -F $terminal rows 41 cols 123
until_output 'guest: size 41 123'
stty -F $terminal rows 20 cols 60
until_output 'guest: size 20 60'
until_output 'status 0'
kill $keeper
cat output
has 'guest: console hvc0'
"#;

const UNBOUND: &str = r"
lines 131072 000000000 >in.txt
start virtio_console 'cd /sys/bus/virtio/drivers/virtio_console; device=$(ls -d virtio[0-9]*); \
    for turn in $(seq 20); do port data; \
        cat /dev/zero >&3 & cat <&3 >/dev/null & sleep 0.1; \
        echo $device >unbind; exec 3>&-; wait; echo $device >bind; done; \
    port data; echo guest: bound; \
    until read -r line <&3 && [ $line = begin ]; do :; done; \
    echo begin >&3; head -c 2097152 <&3 >/tmp/in; cat /tmp/in >&3; dmesg | grep -i -e error -e bug' \
    --console unix=data,name=data
socat -u UNIX-CONNECT:data,retry=300,interval=0.1 - >/dev/null & reader=$!
await 120 grep -q 'guest: bound' output
kill $reader; wait $reader || true
{ echo begin; cat in.txt; } | socat -t 60 - UNIX-CONNECT:data,shut-none >out.bin
finish 0
tr -d '\000' <out.bin | tail -c 2097152 >out.txt
same in.txt out.txt
";

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, script: &str| {
        let script = format!("{HELPERS}{script}");
        let mut case = Case::new(format!("consoles/{name}"), script);
        // Linux boots on an emulated processor.
        case.timeout = Duration::from_mins(4);
        case
    };
    vec![
        case("hvc0-carries-ten-mebibytes-both-ways", CONSOLE_BOTH_WAYS),
        case("hvc0-follows-the-terminals-size", RESIZED),
        case("unbound-20-times-under-load", UNBOUND),
    ]
}
