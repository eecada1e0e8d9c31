//! The watchdog under stock Linux: a guest that shows that it lives, and one that no longer does.

use std::time::Duration;

use super::Case;

/// `start ACTION` starts Linux with a program that opens the watchdog, sets five seconds, and shows life
/// ten times, which takes longer than that.
const HELPERS: &str = r#"
start() {
    vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --watchdog$1 --control vm.sock --json \
        --cmdline 'console=ttyS0 quiet panic=-1 bed.modules=wdat_wdt bed.end=hold' \
        --cmdline "bed.sh=\"cat /sys/class/watchdog/watchdog0/identity; \
            watchdog -F -t 1 -T 5 /dev/watchdog0 & pid=\$!; sleep 10; \
            echo guest: lives with \$(cat /sys/class/watchdog/watchdog0/timeout); \
            $2\"" >output 2>log </dev/null &
    vmm=$!
    until_output 'guest: lives with 5'
    has wdat_wdt
}
listen() { vmm ctl vm.sock --json events >events & }
"#;

const STOPS: &str = r#"
start '' 'kill -KILL $pid; echo guest: stops'
listen
finish 32
grep -q '"kind":"watchdog"' events || fail 'no event'
has '"exit":"watchdog","status":32'
grep -q 'the watchdog fired' log || fail 'nothing in the log'
"#;

/// A paused machine cannot show that it lives.
const PAUSED: &str = r"
start =panic ':'
vmm ctl vm.sock pause
sleep 7
vmm ctl vm.sock resume
sleep 3
vmm ctl vm.sock status
vmm ctl vm.sock stop
finish 36
start =panic 'kill -KILL $pid'
finish 34
start =shutdown 'kill -KILL $pid'
finish 0
";

/// The driver stops the watchdog when the program asks for it.
const CLOSED: &str = r"
start '' 'kill $pid; wait; sleep 8; echo guest: goes on'
until_output 'guest: goes on'
vmm ctl vm.sock stop
finish 36
";

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, script: &str| {
        let mut case = Case::new(format!("watchdog/{name}"), format!("{HELPERS}{script}"));
        // Linux boots on an emulated processor.
        case.timeout = Duration::from_mins(4);
        case
    };
    vec![
        case("fires-when-nobody-shows-life", STOPS),
        case("stands-still-in-a-pause", PAUSED),
        case("stops-when-it-is-closed", CLOSED),
    ]
}
