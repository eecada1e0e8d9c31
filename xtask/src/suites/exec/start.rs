//! How long it takes until a command has written its first byte.

use super::super::Case;
use super::super::programs::{Program, STATIC};
use super::{LONG, case};

/// Writes a line, as process 1 or as any other.
const FIRST_BYTE: Program = Program {
    name: "first-byte",
    sources: &[("first_byte.rs", include_str!("first_byte.rs"))],
    arguments: STATIC,
};

pub(super) fn cases() -> Vec<Case> {
    FIRST_BYTE.build();
    let mut start = case(
        "exec/start",
        r#"cp "$VMM_BED_SCRATCH/first-byte" . || fail 'the program could not be built'
          ./first-byte pack initrd
          # A line of NAME and milliseconds to the first byte.
          first() {
              name=$1; shift
              bash -c '
                  name=$1; shift
                  start=${EPOCHREALTIME/./}
                  "$@" </dev/null 2>err | { read -r -n 1; end=${EPOCHREALTIME/./}; cat >/dev/null
                      [ "$REPLY" = f ] && echo "$name $(( (end - start) / 1000 ))"; }' - "$name" "$@" ||
                  fail "$name: $(cat err)"
          }
          # In turns, so that what slows the host down slows all of them down.
          for round in $(seq "${ROUNDS:-7}"); do
              first process-1 vmm run "$VMM_BED_KERNEL" --initrd initrd -p 'quiet panic=-1' --serial stdio
              first minimal vmm exec --kernel "$VMM_BED_KERNEL" --modules "$VMM_BED_MODULES" --minimal -- "$PWD/first-byte"
              first this-host vmm exec --kernel "$VMM_BED_KERNEL" --modules "$VMM_BED_MODULES" -- "$PWD/first-byte"
          done >times
          cat times
          median() { sed -n "s/^$1 //p" times | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
          base=$(median process-1)
          for name in process-1 minimal this-host; do
              awk -v name=$name -v time=$(median $name) -v base=$base \
                  'BEGIN { printf "%s: median %d ms, %.2f times process 1\n", name, time, time / base }'
          done"#,
    );
    start.timeout = LONG;
    vec![start]
}
