//! Programs of a guest that crash.

use super::super::Case;
use super::super::programs::{Program, STATIC};
use super::case;

/// Crashes in its second thread, and says which that is.
const CRASHER: Program = Program {
    name: "crasher",
    sources: &[("crasher.rs", include_str!("crasher.rs"))],
    arguments: STATIC,
};

/// What judges the minidumps.
const STACKWALK: &str = "minidump-stackwalk@0.27.0";

pub(super) fn cases() -> Vec<Case> {
    CRASHER.build();
    let mut crashes = case(
        "exec/crashes",
        r#"cp "$VMM_BED_SCRATCH/crasher" . || fail 'the program could not be built'
          crashed() {
              status 139 "$@" --crashes kept -- "$PWD/crasher" read </dev/null
              says err "crasher (process [0-9]*) of the guest crashed: SIGSEGV at 0xdead000 in thread [0-9]* (second)"
              thread=$(sed -n 's/^thread //p' out)
              status 0 "$VMM_BED_CRATES/minidump-stackwalk" --human "$(vmm crashes show 2 --store kept --path)"
              says out 'Operating system: Linux'
              says out '^Crash reason: *SIGSEGV / SEGV_MAPERR$'
              says out '^Crash address: *0x000000000dead000$'
              says out "^Thread .* second (crashed) - tid: $thread\$"
              says out 'crasher'
              status 0 vmm crashes show 2 --store kept
              says out "^thread *$thread (second)\$"
              says out '^signal *SIGSEGV (11), code 1, at 0xdead000$'
              status 0 vmm crashes list --store kept --json
              says out '"signal_name":"SIGSEGV"'
              [ "$(stat -c %a kept)" = 700 ] || fail 'others can look at them'
              rm -r kept
          }
          crashed guest
          crashed stock
          # One by another signal, and a hundred at once: some are reported, and nothing breaks.
          status 134 guest --crashes kept -- "$PWD/crasher" abort </dev/null
          says err 'SIGABRT'
          rm -r kept
          status 0 stock --crashes kept -- sh -c \
              'for turn in $(seq 40); do ./crasher read & done; wait; echo all ended' </dev/null
          says out 'all ended'
          says err 'SIGSEGV'
          [ "$(ls kept/*.json | wc -l)" -le 16 ] || fail 'too many are kept'
          # Without a store, and with nobody who listens, the program ends all the same.
          status 139 env -u HOME -u XDG_STATE_HOME vmm exec --kernel "$VMM_BED_KERNEL" \
              --modules "$VMM_BED_MODULES" --minimal -- "$PWD/crasher" read </dev/null
          says err 'there is no folder to keep it in'"#,
    );
    crashes.crates = &[STACKWALK];
    let last_words = case(
        "exec/last-words",
        r#"status 123 guest --pstore path=last,size=1M -- sh -c 'echo c >/proc/sysrq-trigger' </dev/null
          [ "$(stat -c %a,%s last)" = 600,1048576 ] || fail 'another size or mode'
          status 0 vmm pstore dump last
          says out 'sysrq triggered crash'
          says out 'Call Trace:'
          # What was said before is there in the next guest, whose driver has it as files.
          status 0 guest --pstore path=last -- sh -c \
              'mount -t pstore pstore /mnt && cat /mnt/*' </dev/null
          says out 'sysrq triggered crash'
          status 2 vmm pstore dump none
          status 125 guest --pstore path=last,size=3M -- true </dev/null"#,
    );
    vec![crashes, last_words]
}
