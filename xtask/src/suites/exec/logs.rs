//! What guests log.

use super::super::Case;
use super::case;

pub(super) fn cases() -> Vec<Case> {
    vec![case(
        "exec/logs",
        r#"status 0 guest --log log -- sh -c 'logger -t tester hello
                  logger -p user.err "$(printf "a\033[2Jb\377c")"
                  echo "<12>told the kernel" >/dev/kmsg' </dev/null
              cat log
              says log 'guest kernel.notice: Linux version'
              says log 'guest user.notice: tester: hello'
              says log 'guest user.err: .*a#033\[2Jb.*c$'
              says log 'guest user.warning: told the kernel'
              ! grep -q "$(printf '\033')" log || fail 'a control character came through'
              start_guest
              agent_cost() { vmm exec --in "$socket" -- \
                  sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/agent 0 \1/p' /proc/1/status </dev/null; }
              flood() { vmm exec --in "$socket" -- sh -c 'yes flood | head -n 20000 | logger' </dev/null; }
              # Nobody listens: the guest keeps a part and counts the rest.
              flood; agent_cost >before; flood; agent_cost >after
              no_leaks before after 300
              vmm logs "$socket" --tag vm1 --file kept --file-size 64K 2>messages & logs=$!
              until_kept() {
                  turns=0
                  until grep -q "$1" kept*; do
                      turns=$((turns + 1)); [ $turns -lt 600 ] || fail "the log lacks: $1"; sleep 0.1
                  done
              }
              until_kept 'vm1: [0-9]* messages were lost'
              cost $logs | sed 's/^/logs /' >before
              flood; flood
              vmm exec --in "$socket" -- logger the last line </dev/null
              until_kept 'vm1 user.notice: .*the last line'
              cost $logs | sed 's/^/logs /' >after
              cat before after
              no_leaks before after 300
              [ "$(cat kept* | wc -c)" -le $((6 * 65536)) ] && [ -e kept.5 ] && [ ! -e kept.6 ] ||
                  fail "$(ls -l kept*)"
              kill -TERM $logs
              wait $logs || fail "$(cat messages)"
              [ ! -e "$socket"_9999 ] || fail 'a socket was left'
              end_guest"#,
    )]
}
