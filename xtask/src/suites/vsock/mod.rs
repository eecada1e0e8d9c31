//! Sockets between stock Linux and its host.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Case;
use crate::{bed, project};

/// What moves the bytes, on both sides.
const LOAD: &str = include_str!("load.rs");

/// The case's connections; with one that is not read on each side.
const CONNECTIONS: u32 = 1000;
/// Bytes of each connection in each direction: 64 MiB in all, which an emulated processor moves in a
/// minute.
const BYTES: u32 = 67_109;

/// Runs on the bed's host; `load` is beside it. `boot SCRIPT` starts a guest that runs it.
const SCRIPT: &str = r#"
[ -x "$VMM_BED_SCRATCH/vsock-load" ] || fail "the load could not be built"
cp "$VMM_BED_SCRATCH/vsock-load" load
cp load load.img
truncate -s %4096 load.img
ulimit -n 8192
boot() {
    timeout -s KILL 400 vmm run "$VMM_BED_BZIMAGE" --initrd "$VMM_BED_INITRD" -m 1G -v \
        --disk path=load.img,ro --vsock path=v.sock -p "quiet panic=-1 \
        bed.modules=vmw_vsock_virtio_transport bed.sh=\"ulimit -n 8192; cat /dev/vda >/tmp/load; \
        chmod +x /tmp/load; $1\""
}
listen() {
    ./load host v.sock_5000 "$1" "$2" >host 2>&1 &
    host=$!
    while [ ! -S v.sock_5000 ]; do sleep 0.1; done
}
"#;

/// What the guest sent is what the host got, and the other way round.
const EQUAL: &str = r#"
listen COUNT BYTES
run 0 boot "/tmp/load guest COUNT BYTES"
wait $host || fail "the host's side: $(cat host)"
cat host
has "script ended with 0"
here=$(sed -n 's/.*sent=\(.*\) received=\(.*\)/\1 \2/p' host)
there=$(tr -d '\r' <output | sed -n 's/.*sent=\(.*\) received=\(.*\)/\2 \1/p')
[ -n "$here" ] && [ "$here" = "$there" ] || fail "other bytes came than went: $here, $there"
[ ! -e v.sock ] || fail "the socket stays"
"#;

/// The driver goes and comes while connections are busy; then everything works.
const REBIND: &str = r#"
socat UNIX-LISTEN:v.sock_5000,fork,backlog=100 PIPE 2>/dev/null & echo=$!
run 0 boot "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; d=\$(basename virtio*); \
    for i in \$(seq 20); do /tmp/load guest 5 4000000000 >/tmp/l & \
    until grep -q connections /tmp/l; do usleep 10000; done; \
    echo \$d >unbind; wait; echo \$d >bind; done; \
    echo rebound \$i; /tmp/load guest 10 65536"
kill $echo
has "rebound 20"
has "script ended with 0"
lacks "needs a reset"
"#;

/// The device's process dies while connections are busy: they end, and new ones work.
const KILLS: &str = r#"
socat UNIX-LISTEN:v.sock_5000,fork,backlog=100 PIPE 2>/dev/null & echo=$!
boot "for i in 1 2 3; do /tmp/load guest 10 4000000000 || echo guest: ended; done; \
    /tmp/load guest 10 65536" >output 2>&1 </dev/null & vmm=$!
for kill in 1 2 3; do
    until [ "$(grep -c 'load: 10 connections' output)" = $kill ]; do
        kill -0 $vmm || { cat output; fail "the guest is gone"; }
        sleep 0.1
    done
    kill -9 "$(sed -n 's/.*vsock v.sock: served by process \([0-9]*\).*/\1/p' output | tail -n 1)"
done
status=0; wait $vmm || status=$?
kill $echo
cat output
[ $status = 0 ] || fail "status $status"
has "successor 3 takes over"
has "script ended with 0"
[ "$(grep -c 'guest: ended' output)" = 3 ] || fail "a connection outlived its process"
"#;

pub(super) fn cases() -> Vec<Case> {
    if let Err(error) = build() {
        // The cases say that it is not there.
        eprintln!("cannot build the load for sockets: {error:#}");
    }
    let equal =
        EQUAL.replace("COUNT", &CONNECTIONS.to_string()).replace("BYTES", &BYTES.to_string());
    let cases = [("bytes-both-ways", equal.as_str()), ("rebind", REBIND), ("kills", KILLS)];
    let case = |(name, script): (&str, &str)| {
        let mut case = Case::new(format!("vsock/{name}"), format!("{SCRIPT}{script}"));
        case.timeout = Duration::from_mins(7);
        case
    };
    cases.into_iter().map(case).collect()
}

/// Builds the load as a program that needs no libraries: it runs in an initrd.
fn build() -> Result<()> {
    let folder = bed::scratch();
    std::fs::create_dir_all(&folder)?;
    let (source, program) = (folder.join("vsock-load.rs"), folder.join("vsock-load"));
    if program.exists() && std::fs::read_to_string(&source).is_ok_and(|text| text == LOAD) {
        return Ok(());
    }
    std::fs::write(&source, LOAD)?;
    let mut rustc = project::program("rustc");
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"]);
    rustc.arg(program).arg(&source);
    project::output(&mut rustc).context("rustc")?;
    Ok(())
}
