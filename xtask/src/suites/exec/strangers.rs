//! Who is not let in.

use super::super::Case;
use super::super::programs::{Program, STATIC};
use super::case;

/// Knocks on vsock ports.
const KNOCK: Program = Program {
    name: "knock",
    sources: &[("knock.rs", include_str!("knock.rs"))],
    arguments: STATIC,
};

pub(super) fn cases() -> Vec<Case> {
    KNOCK.build();
    vec![case(
        "exec/strangers",
        r#"cp "$VMM_BED_SCRATCH/knock" . || fail 'the program could not be built'
          cp "$(find "$VMM_BED_MODULES" -name vsock_loopback.ko)" . || fail 'no such module'
          start_guest
          in_guest() { vmm exec --in "$socket" -- "$@" </dev/null; }
          status 0 vmm cp knock vsock_loopback.ko "$socket:/tmp"
          status 0 in_guest insmod /tmp/vsock_loopback.ko
          # 1 is the loopback; a port on which nobody listens shows that it works.
          status 0 in_guest /tmp/knock 1 9
          says out unreachable
          for port in 8888 8889; do
              status 0 in_guest /tmp/knock 1 $port
              says out refused
          done
          # The secret of another boot.
          printf '%064d\n' 7 >wrong
          status 125 vmm exec --in "$socket" --agent-secret wrong -- true
          says err "does not carry this boot's secret"
          status 1 vmm cp --agent-secret wrong "$socket:/etc/passwd" stolen
          [ ! -e stolen ] || fail 'a file came out'
          # Ours is for root alone, and not on the command line.
          status 0 in_guest grep -c "$(cat "$socket.secret")" /sys/firmware/dmi/tables/DMI
          status 0 in_guest stat -c %a /sys/firmware/dmi/tables/DMI
          same out 400
          status 1 in_guest grep "$(cat "$socket.secret")" /proc/cmdline
          end_guest"#,
    )]
}
