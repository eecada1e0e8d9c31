//! Consoles, the entropy source and the debug console under stock Linux.

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
    # What runs in the background has another standard input.
    exec 6<&0
    vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --serial file=output \
        --cmdline "console=ttyS0 quiet panic=-1 bed.modules=$modules" \
        --cmdline "bed.sh=\"$script\"" "$@" 2>log <&6 6<&- &
    vmm=$!
    exec 6<&-
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

/// What a port gets goes back through it.
const MIRROR: &str = "port data; head -c 10485760 <&3 >/tmp/in; cat /tmp/in >&3";

const BOTH_WAYS: &str = r#"
head -c 10485760 /dev/urandom >in.bin
start virtio_console "$MIRROR" --console stdio,name=data <in.bin >out.bin
finish 0
same in.bin out.bin
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

/// A size that somebody says, since nobody knows it.
const RESIZED_BY_CONTROL: &str = r"
start virtio_console 'size() { stty size </dev/hvc0 2>/dev/null; }; \
    echo guest: size $(size); \
    until size | grep -q ^43.132; do sleep 0.1; done; echo guest: resized' \
    --console unix=hvc --console null,name=data --control vm.sock </dev/null
await 60 grep -q 'guest: size' output
! vmm ctl vm.sock console-resize console1 80 25 || fail 'named ports have no window'
vmm ctl vm.sock console-resize console0 132 43
finish 0
has 'guest: resized'
";

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

const PAUSED: &str = r#"
head -c 10485760 /dev/urandom >in.bin
start virtio_console "$MIRROR" --console stdio,name=data --control vm.sock <in.bin >out.bin
pauses=0
while kill -0 $vmm 2>/dev/null; do
    if vmm ctl vm.sock pause 2>/dev/null; then
        pauses=$((pauses + 1))
        vmm ctl vm.sock resume || [ ! -S vm.sock ] || fail 'it does not go on'
    fi
    sleep 0.2
done
finish 0
same in.bin out.bin
echo "$pauses pauses"
[ $pauses -gt 3 ] || fail 'few pauses'
"#;

/// One port is flooded, the other answers; the process that serves both dies, again and again.
const KILLED: &str = r#"
mkfifo keys
start virtio_console 'lines 131072 000000000 >/tmp/lines; \
    port flood; while cat /tmp/lines; do :; done >&3 2>/dev/null & \
    port echo; while read -r line <&3; do echo $line >&3; [ $line = end ] && break; done' \
    --console unix=flood,name=flood --console unix=echo,name=echo
socat -u UNIX-CONNECT:flood,retry=300,interval=0.1 - >flood.out &
socat UNIX-CONNECT:echo,retry=300,interval=0.1 - <keys >echo.out &
exec 4>keys
echo 0 >&4; await 60 grep -q '^0$' echo.out
moved() { [ $(stat -c %s flood.out) -gt $((size + 1000000)) ]; }
for turn in 1 2 3 4 5 6; do
    size=$(stat -c %s flood.out)
    await 20 moved
    pid=$(served_by 'console ports')
    kill -KILL $pid
    until_other "$pid" 'console ports'
    echo $turn >&4; await 20 grep -q "^$turn\$" echo.out
done
size=$(stat -c %s flood.out)
await 20 moved
echo end >&4
finish 0
printf '0\n1\n2\n3\n4\n5\n6\nend\n' >echo.in
same echo.in echo.out
awk '$1 + 0 != before % 131072 + 1 { breaks++ } { before = $1 }
     END { print NR " lines, broken " breaks " times"; exit breaks > 12 }' flood.out || fail 'too many'
"#;

const SLOW_PTY: &str = r#"
lines 262144 000000000 >in.txt
start virtio_console 'port data; lines 262144 000000000 >/tmp/lines; echo guest: writes; cat /tmp/lines >&3; echo guest: wrote; \
    read -r line <&3; echo guest: heard $line' --console pty,name=data
await 60 grep -q 'guest: writes' output
sleep 2
exec 5<>"$(pty)"
dd bs=4000 count=20 <&5 >out.txt 2>/dev/null
sleep 2
pid=$(served_by 'console ports')
before=$(used $pid); sleep 1; after=$(used $pid)
[ $((after - before)) -lt 30 ] || fail "it runs while it waits: $before, $after"
has_all() { [ $(stat -c %s out.txt) -ge 4194304 ]; }
cat <&5 >>out.txt & reader=$!
await 60 has_all
echo all >&5
await 20 grep -q 'guest: heard all' output
finish 0
same in.txt out.txt
"#;

/// Nobody looks at first, which holds nobody up; then somebody looks slowly.
const SLOW_CONSOLE: &str = r#"
lines 65536 0000000000 >in.txt
start virtio_console 'exec 3<>/dev/hvc0; stty raw -echo <&3; lines 65536 0000000000 >/tmp/lines; \
    cat /tmp/lines >&3; echo guest: wrote; \
    until read -r line <&3 && [ $line = begin ]; do :; done; \
    echo begin >&3; cat /tmp/lines >&3; \
    read -r line <&3; echo guest: heard $line' --console pty
await 60 grep -q 'guest: wrote' output
exec 5<>"$(pty)"
echo begin >&5
while read -r line <&5 && [ "$line" != begin ]; do :; done
sleep 2
dd bs=4000 count=20 <&5 >out.txt 2>/dev/null
sleep 2
cat <&5 >>out.txt &
has_all() { [ $(stat -c %s out.txt) -ge 1048576 ]; }
await 60 has_all
echo all >&5
await 20 grep -q 'guest: heard all' output
finish 0
same in.txt out.txt
"#;

const ENTROPY: &str = r#"
start virtio_rng 'cat /sys/class/misc/hw_random/rng_current; \
    cd /sys/bus/virtio/drivers/virtio_rng; device=$(ls -d virtio[0-9]*); \
    for turn in $(seq 20); do cat /dev/hwrng >/dev/null 2>&1 & \
        sleep 0.05; echo $device >unbind; wait; echo $device >bind; done; \
    echo guest: bound; \
    dd if=/dev/hwrng bs=64k count=64 iflag=fullblock 2>/dev/null | wc -c; \
    dd if=/dev/hwrng bs=1k count=16 2>/dev/null | gzip | wc -c' --rng --control vm.sock </dev/null
await 120 grep -q 'guest: bound' output
for turn in 1 2 3 4; do
    pid=$(served_by rng)
    kill -KILL $pid
    until_other "$pid" rng
    vmm ctl vm.sock pause
    vmm ctl vm.sock resume
done
finish 0
has '^virtio_rng'
has '^4194304'
has '^16[4-9][0-9][0-9]'
"#;

/// Linux writes its first lines to a serial port, which is the debug console.
const DEBUG_CONSOLE: &str = r#"
start '' 'echo guest: ran' --debugcon file=debug --cmdline 'earlyprintk=serial,0xe9 loglevel=7' </dev/null
finish 0
has 'guest: ran'
grep -a -q 'console .ttyS0. enabled' debug || fail "the debug console has $(cat debug)"
"#;

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, script: &str| {
        let script = format!("{HELPERS}MIRROR='{MIRROR}'\n{script}");
        let mut case = Case::new(format!("consoles/{name}"), script);
        // Linux boots on an emulated processor.
        case.timeout = Duration::from_mins(4);
        case
    };
    vec![
        case("ten-mebibytes-both-ways", BOTH_WAYS),
        case("hvc0-carries-ten-mebibytes-both-ways", CONSOLE_BOTH_WAYS),
        case("hvc0-follows-the-terminals-size", RESIZED),
        case("hvc0-is-resized-by-control", RESIZED_BY_CONTROL),
        case("unbound-20-times-under-load", UNBOUND),
        case("paused-under-load", PAUSED),
        case("killed-under-load", KILLED),
        case("a-slow-pty-loses-nothing", SLOW_PTY),
        case("a-console-without-a-user-holds-nobody-up", SLOW_CONSOLE),
        case("entropy-survives-kills-and-unbinding", ENTROPY),
        case("debug-console-hears-linux-first", DEBUG_CONSOLE),
    ]
}
