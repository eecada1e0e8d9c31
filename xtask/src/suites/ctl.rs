//! Stock Linux on machines that are controlled over their sockets.

use std::time::Duration;

use super::Case;

/// `start OPTIONS...` starts Linux with a socket and waits until its init is up; `finish STATUS` waits
/// for its end. `await SECONDS COMMAND...` waits until a command succeeds.
const HELPERS: &str = r#"
start() {
    vmm run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --control vm.sock \
        --cmdline 'console=ttyS0 quiet panic=-1' "$@" >output 2>&1 </dev/null &
    vmm=$!
    await 600 grep -q 'guest: init up' output
}
await() {
    turns=$(($1 * 10)); shift
    while ! "$@"; do
        kill -0 $vmm || fail "vmm has ended: $(cat output)"
        turns=$((turns - 1))
        [ $turns -gt 0 ] || fail "waited in vain for $*: $(cat output)"
        sleep 0.1
    done
}
finish() {
    status=0; wait $vmm || status=$?
    cat output
    [ $status = $1 ] || fail "status $status instead of $1"
}
ctl() { vmm ctl vm.sock "$@" || fail "vmm ctl $*"; }
shows() { grep -q -e "$1" output; }
"#;

/// The guest waits for its power button as an input event of the kernel's own driver.
const WAIT_FOR_BUTTON: &str = "\
    for event in /dev/input/event*; do \
        if grep -q Power /sys/class/input/${event##*/}/device/name; then \
            echo guest: waits at $event; head -c 24 $event | wc -c; echo guest: pressed; \
        fi; \
    done; grep acpi /proc/interrupts";
const PRESS: &str = r"
await 60 shows 'guest: waits'
ctl power-button
await 60 shows 'guest: pressed'
finish 0
";

const WAIT_FOR_SIZE: &str = "\
    echo guest: size $(cat /sys/block/vda/size); \
    until [ $(cat /sys/block/vda/size) = 262144 ]; do sleep 0.1; done; \
    dd if=/dev/zero of=/dev/vda bs=1M seek=100 count=1 oflag=direct conv=notrunc && \
    echo guest: grown";
const RESIZE: &str = r"
await 60 shows 'guest: size 131072'
ctl disk-resize data 128M
finish 0
has 'guest: grown'
";

/// Writes a disk and reads it back, again and again.
const WRITE_AND_COMPARE: &str = "\
    for n in 1 2 3 4; do \
        dd if=/dev/urandom of=/tmp/data bs=1M count=16 2>/dev/null; \
        dd if=/tmp/data of=/dev/vda bs=64k oflag=direct conv=notrunc 2>/dev/null; \
        dd if=/dev/vda bs=64k count=256 iflag=direct of=/tmp/back 2>/dev/null; \
        cmp /tmp/back /tmp/data && echo guest: same $n; \
    done; dmesg | grep -i error | head";
/// As long as there is a machine, it is paused again and again.
const PAUSES: &str = r#"
pauses=0
while [ -S vm.sock ]; do
    if vmm ctl vm.sock pause; then
        pauses=$((pauses + 1))
        vmm ctl vm.sock resume || [ ! -S vm.sock ] || fail 'it does not go on'
    fi
    sleep 0.3
done
finish 0
for n in 1 2 3 4; do has "guest: same $n"; done
lacks 'I/O error'
[ $pauses -gt 2 ] || fail "$pauses pauses are few"
"#;

const ENDS: &str = r"
start --cmdline bed.end=hold
ctl status
ctl pause
ctl stop
finish 36
start --cmdline bed.end=hold
ctl reset
finish 32
";

/// A disk of its own, beside the initrd.
const DISK: &str = "--disk path=data.img,id=data";

/// Starts Linux with options, words and a script for it, then does the rest.
fn linux(options: &str, words: &str, guest: &str, then: &str) -> String {
    format!(
        "truncate -s 64M data.img\n\
         start {options} --cmdline '{words} bed.sh=\"{guest}\"'\n{then}"
    )
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, script: &str| {
        let mut case = Case::new(format!("ctl/{name}"), format!("{HELPERS}{script}"));
        // Linux boots on an emulated processor.
        case.timeout = Duration::from_mins(4);
        case
    };
    vec![
        case(
            "linux-hears-its-power-button",
            &linux("", "bed.modules=button,evdev", WAIT_FOR_BUTTON, PRESS),
        ),
        case("linux-sees-its-disk-grow", &linux(DISK, "", WAIT_FOR_SIZE, RESIZE)),
        case("linux-survives-pauses-under-load", &linux(DISK, "", WRITE_AND_COMPARE, PAUSES)),
        case("stop-is-36-and-reset-is-32", ENDS),
    ]
}
