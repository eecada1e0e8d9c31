//! Commands in guests of their own: streams, statuses, signals, ends.

mod crashes;
mod harness;
mod logs;
mod ports;
mod running;
mod start;
mod strangers;

use std::time::Duration;

use super::Case;

/// `stock OPTIONS... -- COMMAND...` runs a command under the stock kernel, `guest` with nothing of this host
/// but the command, which is quicker. `status N COMMAND...` runs
/// something that must end with N; its streams are in the files `out` and `err`.
const HELPERS: &str = r#"
stock() { vmm exec --kernel "$VMM_BED_KERNEL" --modules "$VMM_BED_MODULES" "$@"; }
guest() { stock --minimal "$@"; }
# The process itself is $vmm, not a shell's.
guest_in_background() {
    vmm exec --kernel "$VMM_BED_KERNEL" --modules "$VMM_BED_MODULES" --minimal "$@" >out 2>err </dev/null &
    vmm=$!
}
status() {
    expected=$1; shift
    echo "+ $*"
    status=0; "$@" >out 2>err || status=$?
    head -c 4000 out; head -c 4000 err
    [ $status = $expected ] || fail "status $status instead of $expected"
}
# Milliseconds.
now() { echo $(( $(date +%s%N) / 1000000 )); }
# A guest that lives until `end_guest`; its socket is $socket.
start_guest() {
    mkfifo life
    guest "$@" -- sh -c 'echo ready; cat' <life >out.guest 2>err.guest &
    guest_job=$!
    exec 3>life
    turns=0
    until grep -q ready out.guest; do
        turns=$((turns + 1)); [ $turns -lt 600 ] || fail "$(cat err.guest)"; sleep 0.1
    done
    socket=$(echo /tmp/vmm-exec-*/vsock)
}
end_guest() { exec 3>&-; wait $guest_job || fail "$(cat err.guest)"; }
same() { [ "$(cat $1)" = "$2" ] || fail "$1 is not: $2"; }
says() { grep -q -e "$2" $1 || fail "$1 lacks: $2"; }
"#;

/// 100 MiB twice through an emulated guest, and a thousand processes one after another.
const LONG: Duration = Duration::from_mins(8);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = short();
    cases.extend(limits());
    cases.extend(harness::cases());
    cases.extend(running::cases());
    cases.extend(logs::cases());
    cases.extend(crashes::cases());
    cases.extend(ports::cases());
    cases.extend(strangers::cases());
    cases.extend(start::cases());
    cases.extend(long());
    cases
}

fn case(name: &str, script: &str) -> Case {
    Case::new(name, format!("{HELPERS}{script}"))
}

fn limits() -> Vec<Case> {
    vec![
        case(
            "exec/time-is-over",
            // How long an end takes depends on the machine: it has to be less than all of another run.
            r#"began=$(now); status 0 guest -- true </dev/null; whole=$(( $(now) - began ))
              (sleep 2; now >alarm) &
              status 124 guest --timeout 2 -- sleep 100 </dev/null
              took=$(( $(now) - $(cat alarm) ))
              echo "$took ms after two seconds, $whole ms for a whole run"
              [ $took -lt $whole ] || fail "$took ms after two seconds were over"
              status 124 guest --idle-timeout 5 -- sleep 100 </dev/null"#,
        ),
        case(
            "exec/within-three-seconds",
            // The quickest of five: the others met a machine that did something else.
            r#"for turn in 1 2 3 4 5; do
                  began=$(now)
                  status 124 guest --timeout 2 -- sleep 100 </dev/null
                  took=$(( $(now) - began )); echo "$took ms"
                  [ $took -ge 3000 ] || exit 0
              done
              fail 'not within three seconds'"#,
        ),
    ]
}

fn short() -> Vec<Case> {
    vec![
        case(
            "exec/streams-and-status",
            r"status 7 guest -- sh -c 'echo out; echo err >&2; exit 7' </dev/null
              same out out; same err err
              status 0 guest -- cat <<.
a line
.
              same out 'a line'
              status 0 guest -- cat <&-
              same out ''
              echo piped | status 0 guest --env A=b --cwd /tmp -- sh -c 'cat; echo $A; pwd'
              same out 'piped
b
/tmp'
              [ -z $(ls -d /tmp/vmm-exec-* 2>/dev/null) ] || fail 'a folder was left'",
        ),
        case(
            "exec/refusals",
            r"status 127 guest -- no-such-program </dev/null
              says err no-such-program
              status 126 guest -- /etc/passwd </dev/null
              status 125 guest --cwd /nowhere -- true </dev/null
              status 125 vmm exec --kernel missing -- true </dev/null
              status 129 guest -- sh -c 'kill -HUP $$' </dev/null",
        ),
        case(
            "exec/guest-panics",
            r"status 123 guest -- sh -c 'echo c > /proc/sysrq-trigger' </dev/null
              says err 'sysrq triggered crash'
              status 122 guest -- sh -c 'echo o > /proc/sysrq-trigger; sleep 100' </dev/null
              status 122 guest -- sh -c 'echo b > /proc/sysrq-trigger; sleep 100' </dev/null",
        ),
        case(
            "exec/signals",
            r#"guest_in_background -- sh -c 'trap "echo caught; exit 3" INT; echo ready; while :; do sleep 1; done'
              turns=0
              until grep -q ready out; do
                  turns=$((turns + 1)); [ $turns -lt 600 ] || fail "$(cat err)"; sleep 0.1
              done
              kill -INT $vmm
              status=0; wait $vmm || status=$?
              [ $status = 3 ] || fail "status $status"
              says out caught"#,
        ),
        case(
            "exec/files-of-the-host",
            r#"echo here >file
              cat >script <<'THE_END'
cat file; pwd; echo $PATH
echo changed >file && cat file
touch /usr/bin/new /tmp/new /run/new /new && echo new
ls -l / >/dev/null && [ -c /dev/null ] && [ -e /proc/1/exe ] && echo mounted
[ ! -e /tmp/other ] && echo apart
THE_END
              chmod +x script
              touch /tmp/other
              status 0 stock -- sh ./script </dev/null
              rm /tmp/other
              same out "here
$(pwd)
$PATH
changed
new
mounted
apart"
              same file here
              [ ! -e /usr/bin/new ] && [ ! -e /new ] && [ ! -e /tmp/new ] || fail 'it was written'"#,
        ),
        case(
            "exec/killed-parent",
            r"guest_in_background -- sh -c 'echo ready; sleep 1000'
              turns=0
              until grep -q ready out; do
                  turns=$((turns + 1)); [ $turns -lt 600 ] || fail; sleep 0.1
              done
              kill -KILL $vmm
              wait $vmm || true
              turns=0
              while pgrep -x vmm >/dev/null; do
                  turns=$((turns + 1)); [ $turns -lt 100 ] || fail 'something is left'; sleep 0.1
              done",
        ),
    ]
}

/// What takes its time where the processor is emulated.
fn long() -> Vec<Case> {
    let mut large = case(
        "exec/large-input",
        r"dd if=/dev/urandom of=random bs=1M count=100 2>/dev/null
          guest -m 1G -- cat <random >out 2>err || fail 'it failed'
          cmp random out",
    );
    large.timeout = LONG;
    let roots = case(
        "exec/images-and-folders",
        r#"disk image
          on_image() { debugfs -R "stat $1" image 2>/dev/null | grep -q Type; }
          status 0 stock --image image -- sh -c ': >/new; [ -e /new ] && [ -d /lost+found ]' </dev/null
          ! on_image /new || fail 'the image was written'
          status 0 stock --image image --write -- sh -c ': >/new' </dev/null
          on_image /new || fail 'the image was not written'
          mkdir -p tree/bin shared; cp "$(command -v busybox)" tree/bin/sh
          ln -s sh tree/bin/touch; echo text >shared/file
          status 0 stock --rootfs tree -- sh -c ': >/new; [ -e /new ]' </dev/null
          [ ! -e tree/new ] || fail 'the folder was written'
          status 3 stock --rootfs tree --write --mount shared:/a/b:ro --mount .:/c -- sh -c \
              ': >/new; read word </a/b/file; echo $word >/c/copy; touch /a/b/new || exit 3' </dev/null
          [ -e tree/new ] && [ "$(cat copy)" = text ] && [ ! -e shared/new ] || fail 'wrong files'
          truncate -s 1M empty
          status 125 stock --image empty -- true </dev/null
          says err 'no file system'
          status 125 stock --rootfs / --write -- true </dev/null
          says err 'the guest says'"#,
    );
    let services = case(
        "exec/services",
        r#"mkdir -p tree/bin tree/etc/vmm/services; cp "$(command -v busybox)" tree/bin/sh
          for name in cat mkfifo rm; do ln -s sh tree/bin/$name; done
          echo 'command = ["/bin/sh", "-c", "echo started; echo >/ready; cat /life"]' >tree/etc/vmm/services/living.toml
          echo 'command = ["/bin/sh", "-c", "exit 7"]' >tree/etc/vmm/services/dying.toml
          echo 'commands = []' >tree/etc/vmm/services/wrong.toml
          mkfifo tree/ready tree/life
          # It is let go, and has to come again.
          status 0 stock --name keeper --rootfs tree --log log -- sh -c 'cat /ready; : >/life; cat /ready' </dev/null
          [ -z "$(vmm list)" ] || fail 'a name was left'
          cat log
          [ $(grep -c 'user.info: living.[0-9]*.: started' log) -ge 2 ] || fail 'it was not started again'
          says log 'user.notice: vmm-agent: living has ended$'
          says log 'user.notice: vmm-agent: dying has ended with status 7'
          says log 'wrong.toml: line 1: unknown field'"#,
    );
    vec![large, roots, services]
}
