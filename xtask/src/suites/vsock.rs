//! Sockets between stock Linux and its host.

use std::time::Duration;

use super::Case;
use super::programs::LOAD;

/// Runs on the bed's host; `load` is beside it. `boot SCRIPT` starts a guest that runs it, and `start
/// SCRIPT` does so in the background. `connected COUNT` waits until the guest has been connected as
/// often.
const SCRIPT: &str = r#"
load_files
ulimit -n 8192
boot() {
    vmm run "$VMM_BED_BZIMAGE" --initrd "$VMM_BED_INITRD" -m 1G -v --control vm.sock \
        --rings $rings \
        --disk path=load.img,ro --vsock path=v.sock -p "quiet panic=-1 \
        bed.modules=vmw_vsock_virtio_transport bed.sh=\"ulimit -n 8192; cat /dev/vda >/tmp/load; \
        chmod +x /tmp/load; $1\""
}
start() { boot "$1" >output 2>log <"${keys:-/dev/null}" & vmm=$!; }
connected() {
    until [ "$(grep -c 'load: [0-9]* connections' output)" -ge "$1" ]; do
        kill -0 $vmm || { cat output log; fail "the guest is gone"; }
        sleep 0.1
    done
}
listen() {
    ./load listen unix:v.sock_5000 "$@" >host 2>&1 &
    host=$!
    while [ ! -S v.sock_5000 ]; do sleep 0.1; done
}
echoes() { socat UNIX-LISTEN:v.sock_5000,fork,backlog=100 PIPE 2>/dev/null & echoes=$!; }
equal() {
    wait $host || fail "the host's side: $(cat host)"
    has "script ended with 0"
    equal_sums
    [ ! -e v.sock ] || fail "the socket stays"
}
"#;

/// COUNT connections with BYTES each way.
const BOTH_WAYS: &str = r#"
listen COUNT BYTES KIND
run 0 boot "/tmp/load connect vsock:5000 COUNT BYTES KIND"
equal
"#;

/// The machine stands still again and again, and no byte is lost.
const PAUSES: &str = r#"
listen 50 2000000
with_keys
start "/tmp/load connect vsock:5000 50 2000000; read line </dev/console"
connected 1
pause_until 'load: 50 of'
echo >&9
finish 0
equal
"#;

/// The driver goes and comes while connections are busy; then everything works.
const REBIND: &str = r#"
echoes
run 0 boot "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; d=\$(basename virtio*); \
    for i in \$(seq 20); do /tmp/load connect vsock:5000 5 4000000000 >/tmp/l & \
    until grep -q connections /tmp/l; do usleep 10000; done; \
    echo \$d >unbind; wait; echo \$d >bind; done; \
    echo rebound \$i; /tmp/load connect vsock:5000 10 65536"
kill $echoes
has "rebound 20"
has "script ended with 0"
lacks "needs a reset"
"#;

/// The device's process dies while connections are busy: they end, and new ones work.
const KILLS: &str = r#"
echoes
start "for i in 1 2 3; do /tmp/load connect vsock:5000 10 4000000000 || echo guest: ended; done; \
    /tmp/load connect vsock:5000 10 65536"
for kill in 1 2 3; do
    connected $kill
    kill_device vsock0
done
finish 0
kill $echoes
grep -q "successor 3 takes over" log || fail "not three successors"
has "script ended with 0"
[ "$(grep -c 'guest: ended' output)" = 3 ] || fail "a connection outlived its process"
"#;

pub(super) fn cases() -> Vec<Case> {
    LOAD.build();
    ["split", "packed"].into_iter().flat_map(of_rings).collect()
}

fn of_rings(rings: &str) -> Vec<Case> {
    let both_ways = |count: u32, bytes: u32, kind: &str| {
        let [count, bytes] = [count, bytes].map(|number| number.to_string());
        BOTH_WAYS.replace("COUNT", &count).replace("BYTES", &bytes).replace("KIND", kind)
    };
    let cases = [
        // 64 MiB each way, which an emulated processor moves in a minute.
        ("bytes-both-ways", both_ways(1000, 67_109, "")),
        ("gibibyte-both-ways", both_ways(8, 134_217_728, "")),
        ("messages-both-ways", both_ways(8, 8_388_608, "messages")),
        ("pauses", PAUSES.to_owned()),
        ("rebind", REBIND.to_owned()),
        ("kills", KILLS.to_owned()),
    ];
    let case = |(name, script): (&str, String)| {
        let script = format!("rings={rings}{SCRIPT}{script}");
        let mut case = Case::new(format!("vsock/{name}-{rings}"), script);
        case.timeout = Duration::from_mins(8);
        case
    };
    cases.into_iter().map(case).collect()
}
