//! Commands, shells and files in a guest that runs.

use super::super::Case;
use super::{LONG, case};

pub(super) fn cases() -> Vec<Case> {
    let shell = case(
        "exec/shell-and-copies",
        r#"start_guest
              echo 'echo hello from $0; cd /tmp && pwd; exit 5' >commands
              status 5 vmm shell "$socket" <commands
              says out /tmp
              mkfifo keys
              socat - "SYSTEM:stty rows 31 cols 77; vmm shell $socket; echo ended with \$?,pty,setsid,ctty" \
                  <keys >terminal 2>&1 &
              terminal=$!
              exec 4>keys
              turns=0
              until grep -q '#' terminal; do
                  turns=$((turns + 1)); [ $turns -lt 600 ] || fail "$(cat terminal)"; sleep 0.1
              done
              echo 'stty size; exit 6' >&4
              wait $terminal || true
              exec 4>&-
              cat terminal
              says terminal '^31 77'
              says terminal '^ended with 6'
              dd if=/dev/urandom of=random bs=1M count=8 2>/dev/null
              chmod 640 random
              status 0 vmm cp --progress random "$socket:/tmp"
              says err 'random: 8.0 of 8.0 MiB, 100 %'
              status 0 vmm exec --in "$socket" -- stat -c %a /tmp/random </dev/null
              same out 640
              mkdir back
              status 0 vmm cp "$socket:/tmp/random" back
              cmp random back/random
              [ "$(stat -c %a back/random)" = 640 ] || fail 'other permissions'
              status 0 vmm cp - "$socket:/tmp/typed" <commands
              status 0 vmm cp "$socket:/tmp/typed" -
              cmp commands out
              status 1 vmm cp "$socket:/no/such" .
              status 1 vmm cp random "$socket:/no/such/folder"
              status 1 vmm cp "$socket:/proc" .
              end_guest"#,
    );
    let mut parallel = case(
        "exec/fifty-in-one-guest",
        r#"start_guest
          jobs=
          for number in $(seq 50); do
              vmm exec --in "$socket" -- \
                  sh -c "echo $number; exit $number" >out.$number 2>err.$number </dev/null &
              jobs="$jobs $!"
          done
          number=0
          for job in $jobs; do
              number=$((number + 1))
              status=0; wait $job || status=$?
              [ $status = $number ] || fail "status $status of $number: $(cat err.$number)"
              [ "$(cat out.$number)" = $number ] || fail "output of $number"
          done
          end_guest"#,
    );
    parallel.timeout = LONG;
    let mut thousand = case(
        "exec/thousand-in-a-row",
        r#"start_guest
          in_guest() { vmm exec --in "$socket" -- "$@" </dev/null; }
          # What has to be there once is there after some of them.
          agent_cost() { in_guest sh -c \
              'echo agent $(ls /proc/1/fd | wc -l) $(sed -n "s/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p" /proc/1/status)'; }
          for turn in $(seq 100); do in_guest true; done
          agent_cost >before
          for turn in $(seq 1000); do in_guest true || fail "turn $turn"; done
          agent_cost >after
          cat before after
          no_leaks before after 64
          end_guest"#,
    );
    thousand.timeout = LONG;
    vec![shell, parallel, thousand]
}
