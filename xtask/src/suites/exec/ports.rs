//! Ports between a guest and its host.

use super::super::Case;
use super::super::programs::{Program, STATIC};
use super::{LONG, case};

/// A server and a client of TCP that count and check their bytes.
const LOAD: Program = Program {
    name: "tcp-load",
    sources: &[("tcp_load.rs", include_str!("tcp_load.rs"))],
    arguments: STATIC,
};

pub(super) fn cases() -> Vec<Case> {
    LOAD.build();
    let both_ways = case(
        "exec/ports",
        r#"cp "$VMM_BED_SCRATCH/tcp-load" load || fail 'the load could not be built'
          start_guest
          status 0 vmm cp load "$socket:/bin/load"
          in_guest() { vmm exec --in "$socket" -- "$@" </dev/null; }
          vmm forward "$socket" -p 8000 --expose 9000 --all 2>forward & forward=$!
          until_told() {
              turns=0
              until grep -q "$1" forward; do
                  kill -0 $forward || fail "$(cat forward)"
                  turns=$((turns + 1)); [ $turns -lt 300 ] || fail "$(cat forward)"; sleep 0.1
              done
          }
          until_told 'ports are forwarded'
          # The process itself is the command's, not a shell's.
          vmm exec --in "$socket" -- load serve 8000 >server 2>&1 </dev/null & server=$!
          vmm exec --in "$socket" -- load serve 8100 >other 2>&1 </dev/null & other=$!
          until_told 'port 8100 of the guest is localhost:8100'
          # Half-closed: the server answers when the client's end has come.
          status 0 ./load ask 8000 1000000
          status 0 ./load ask 8100 1000000
          ./load serve 9000 >here 2>&1 & here=$!
          status 0 in_guest load ask 9000 1000000
          kill $here
          # A server that is killed takes the client's connection with it, and its port.
          ./load hold 8100 >held 2>&1 & held=$!
          turns=0; until grep -q connected held; do turns=$((turns + 1)); [ $turns -lt 100 ] || fail held; sleep 0.1; done
          kill $other; wait $held || fail "$(cat held)"
          says held 'the other side is gone'
          until_told 'port 8100 is closed'
          # A client that is killed takes the server's.
          ./load hold 8000 >held 2>&1 & held=$!
          turns=0; until grep -q connected held; do turns=$((turns + 1)); [ $turns -lt 100 ] || fail held; sleep 0.1; done
          kill -9 $held
          turns=0; until grep -q 'a client is gone' server; do turns=$((turns + 1)); [ $turns -lt 100 ] || fail "$(cat server)"; sleep 0.1; done
          kill -TERM $forward; wait $forward || fail "$(cat forward)"
          status 101 ./load ask 8000 10
          kill $server
          end_guest"#,
    );
    let mut gibibyte = case(
        "exec/gibibyte-through-a-port",
        r#"cp "$VMM_BED_SCRATCH/tcp-load" load || fail 'the load could not be built'
          guest --publish 8000 --mount .:/here:ro -- /here/load serve 8000 >server 2>&1 </dev/null & guest=$!
          turns=0; until grep -q listening server; do turns=$((turns + 1)); [ $turns -lt 600 ] || fail "$(cat server)"; sleep 0.1; done
          status 0 ./load ask 8000 1073741824
          kill $guest; wait $guest || true"#,
    );
    gibibyte.timeout = LONG;
    vec![both_ways, gibibyte]
}
