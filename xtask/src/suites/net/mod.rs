//! Networks under stock Linux: a tap with everything that its driver takes, and user mode.

use std::time::Duration;

use super::Case;
use super::programs::{LOAD, Program, STATIC};

/// What sends hostile frames to a tap.
const HOSTILE: Program = Program {
    name: "net-hostile",
    sources: &[("main.rs", include_str!("hostile.rs"))],
    arguments: STATIC,
};

/// The host's end is 10.77.0.1 and the guest's 10.77.0.2.
const TAP: &str = "--net tap=tap0,address=10.77.0.1/24 --cmdline bed.modules=virtio_net";
const UP: &str = "ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up";

pub(super) fn cases() -> Vec<Case> {
    LOAD.build();
    HOSTILE.build();
    let mut cases = vec![
        slow(tcp("both-ways", "split", 2)),
        addresses(),
        filters(),
        slow(user_mode()),
        wrong_input(),
    ];
    for rings in ["split", "packed"] {
        cases.push(slow(tcp("ten-seconds", rings, 10)));
        cases.push(slow(gibibyte(rings)));
        cases.push(slow(queues_and_large_frames(rings)));
        cases.push(slow(hostile_frames(rings)));
        cases.push(slow(killed_under_load(rings)));
        cases.push(slow(unbound_again_and_again(rings)));
        cases.push(slow(paused_under_load(rings)));
    }
    cases
}

/// These move data for a fixed time, after Linux booted on an emulated processor.
fn slow(mut case: Case) -> Case {
    case.timeout = Duration::from_mins(5);
    case
}

/// Through one connection and through eight, from the guest and to it.
fn tcp(name: &str, rings: &str, seconds: u32) -> Case {
    Case::new(
        format!("net/tcp-{name}-{rings}"),
        format!(
            "ip link set lo up
             for turn in 1 2 3 4; do iperf3 -s -1 >server.$turn; done &
             linux 0 '
                 {UP}
                 ping -c 3 -i 0.2 10.77.0.1
                 for load in \"-P 1\" \"-P 8\" \"-P 1 -R\" \"-P 8 -R\"; do
                     for turn in $(seq 50); do
                         iperf3 -c 10.77.0.1 -t {seconds} $load >/tmp/out 2>&1 && break
                         grep -q refused /tmp/out || break
                         sleep 0.1
                     done
                     grep receiver /tmp/out | tail -1 | sed \"s/^/iperf3 $load: /\"
                 done
                 grep . /sys/class/net/eth0/statistics/*_errors
             ' --rings {rings} {TAP}
             has '3 received, 0% packet loss'
             [ $(grep -c '^iperf3 .* receiver' output) = 4 ] || fail 'a load did not finish'
             lacks '_errors:[1-9]'"
        ),
    )
}

/// 128 MiB each way, through one connection each.
/// A gibibyte each way at the same time, through several connections.
fn gibibyte(rings: &str) -> Case {
    Case::new(
        format!("net/gibibyte-both-ways-{rings}"),
        format!(
            "load_files
             ./load listen tcp:0.0.0.0:7001 4 268435456 >host 2>&1 & host=$!
             linux 0 '
                 {UP}
                 cat /dev/vdc >/tmp/load
                 chmod +x /tmp/load
                 /tmp/load connect tcp:10.77.0.1:7001 4 268435456
                 head /sys/class/net/eth0/statistics/[rt]x_packets
             ' --rings {rings} --disk path=load.img,ro {TAP}
             wait $host || fail \"the host's side: $(cat host)\"
             equal_sums"
        ),
    )
}

fn queues_and_large_frames(rings: &str) -> Case {
    Case::new(
        format!("net/four-queue-pairs-and-mtu-9000-{rings}"),
        format!(
            "ip link set lo up
             iperf3 -s -1 >server &
             linux 0 '
                 {UP}
                 ethtool -L eth0 combined 4
                 ethtool -l eth0 | tail -n 1
                 cat /sys/class/net/eth0/mtu
                 ping -c 2 -i 0.2 -M do -s 8900 10.77.0.1
                 iperf3 -c 10.77.0.1 -t 5 -P 8 | tail -n 4
                 echo queues $(grep -c \"virtio.*-input\" /proc/interrupts)
                 ethtool -L eth0 combined 1
                 ping -c 2 -i 0.2 10.77.0.1
             ' --cpus 4 --rings {rings} --net tap=tap0,address=10.77.0.1/24,queues=4,mtu=9000 \
               --cmdline bed.modules=virtio_net
             has 'Combined:.4'
             has '^9000'
             [ $(grep -c '2 received, 0% packet loss' output) = 2 ] || fail 'lost packets'
             has 'SUM.*receiver'
             has '^queues 4'"
        ),
    )
}

fn addresses() -> Case {
    Case::new(
        "net/addresses-and-links",
        format!(
            "ip link set lo up
             linux 0 '
                 {UP}
                 cat /sys/class/net/eth0/address
                 ping -c 1 10.77.0.1
                 ip link set eth0 address 52:54:00:00:00:99
                 ping -c 1 10.77.0.1
             ' --net tap=tap0,address=10.77.0.1/24,mac=52:54:00:00:00:11 \
               --cmdline bed.modules=virtio_net
             has '^52:54:00:00:00:11'
             [ $(grep -c '1 received, 0% packet loss' output) = 2 ] || fail 'lost packets'
             linux 0 '
                 ip link set eth0 up
                 sleep 0.2
                 echo carrier $(cat /sys/class/net/eth0/carrier)
             ' --net tap=tap0,link=down --cmdline bed.modules=virtio_net
             has '^carrier 0'"
        ),
    )
}

/// The host sends frames to an address, and the guest says how many it has seen.
fn filters() -> Case {
    Case::new(
        "net/filters",
        r#"ip link set lo up
             with_keys
             linux_in_background '
                 ip addr add 10.77.0.2/24 dev eth0
                 ip link set eth0 up
                 steps=0
                 host() {
                     before=$(cat /sys/class/net/eth0/statistics/rx_packets)
                     steps=$((steps + 1)); echo guest: step $steps
                     read line </dev/console
                     echo "guest: $*: $(($(cat /sys/class/net/eth0/statistics/rx_packets) - before)) frames"
                 }
                 host own address
                 ip link set eth0 address 52:54:00:00:00:99
                 host former address
                 host new address
                 ip link set eth0 promisc on
                 host any address
                 ip link set eth0 promisc off
                 host no longer any
                 ip maddr add 33:33:00:00:00:77 dev eth0
                 host own group
                 host other group
                 ip link set eth0 allmulticast on
                 host any group
             ' --net tap=tap0,address=10.77.0.1/24,mac=52:54:00:00:00:11 \
                 --cmdline bed.modules=virtio_net
             # There is a tap by then. Nobody else sends to many.
             until_output 'guest: step 1'
             echo 1 >/proc/sys/net/ipv6/conf/tap0/disable_ipv6
             frames() {
                 for frame in $(seq 20); do
                     printf "$1\122\124\0\0\0\1\210\265%050d" 0
                 done | socat -u -b 64 - INTERFACE:tap0
             }
             old='\122\124\0\0\0\021'; new='\122\124\0\0\0\231'
             group='\063\063\0\0\0\167'; other='\063\063\0\0\0\170'
             step=0; mac=52:54:00:00:00:11
             for address in $old $old $new $old $old $group $other $other; do
                 step=$((step + 1))
                 until_output "guest: step $step"
                 frames $address
                 # When this is answered the guest has seen what was sent before.
                 ip neigh replace 10.77.0.2 lladdr $mac nud permanent dev tap0
                 ping -c 1 -W 30 10.77.0.2 || { cat output log; fail "no answer in step $step"; }
                 mac=52:54:00:00:00:99
                 echo >&9
             done
             finish 0
             for seen in own.address new.address any.address own.group any.group; do
                 has "guest: $seen: 2[0-9] frames"
             done
             for unseen in former.address no.longer.any other.group; do
                 has "guest: $unseen: [0-9] frames"
             done"#,
    )
}

/// The driver goes and comes while both sides send.
fn unbound_again_and_again(rings: &str) -> Case {
    Case::new(
        format!("net/unbound-20-times-{rings}"),
        format!(
            "ip link set lo up
             with_keys
             {{ until ping -c 1 10.77.0.2; do sleep 0.1; done
                exec ping -f 10.77.0.2; }} >/dev/null 2>&1 & flood=$!
             linux_in_background '
                 {UP}
                 device=$(basename $(readlink /sys/class/net/eth0/device))
                 cd /sys/bus/virtio/drivers/virtio_net
                 for turn in $(seq 20); do
                     ping -f -c 1000000 10.77.0.1 >/dev/null 2>&1 &
                     ping -c 1 10.77.0.1 >/dev/null
                     echo $device >unbind
                     kill $! || true; wait $! || true
                     echo $device >bind
                     {UP}
                 done
                 ping -c 3 -i 0.2 10.77.0.1
                 echo guest: turned $turn times
                 read line </dev/console
             ' --rings {rings} {TAP}
             until_output 'guest: turned 20 times' 2400
             # Linux does not end with interrupts of a queue that it has given up.
             kill $flood
             echo >&9
             finish 0
             has '3 received, 0% packet loss'"
        ),
    )
}

/// The process dies while both sides send. TCP makes good what was lost.
fn killed_under_load(rings: &str) -> Case {
    Case::new(
        format!("net/survives-kills-under-load-{rings}"),
        format!(
            "ip link set lo up
             iperf3 -s -1 >server &
             linux_in_background '
                 {UP}
                 iperf3 -c 10.77.0.1 -t 14 --bidir -P 2 | tail -n 6
                 echo loads ended with ${{PIPESTATUS[0]}}
                 ping -c 3 -i 0.2 10.77.0.1
             ' -v --rings {rings} {TAP}
             until_output 'guest: init up'
             sleep 3
             for signal in KILL SEGV SYS STOP; do
                 pid=$(served_by 'network tap0')
                 kill -$signal $pid
                 until_other \"$pid\" 'network tap0'
                 sleep 1
             done
             finish 0
             has 'loads ended with 0'
             has '3 received, 0% packet loss'
             [ $(grep -c 'takes over' log) = 4 ] || fail 'not four successors'"
        ),
    )
}

/// The machine stands still while both sides send, and then its cable is pulled.
fn paused_under_load(rings: &str) -> Case {
    Case::new(
        format!("net/pauses-and-cables-{rings}"),
        format!(
            "ip link set lo up
             iperf3 -s -1 >server &
             with_keys
             linux_in_background '
                 {UP}
                 iperf3 -c 10.77.0.1 -t 12 --bidir -P 2 | tail -n 6
                 echo loads ended with ${{PIPESTATUS[0]}}
                 carrier() {{
                     until [ $(cat /sys/class/net/eth0/carrier) = $1 ]; do sleep 0.1; done
                     echo guest: carrier $1
                 }}
                 carrier 0
                 carrier 1
                 ping -c 3 -i 0.2 10.77.0.1
             ' --control vm.sock --rings {rings} {TAP}
             until_output 'guest: init up'
             pause_until 'loads ended'
             vmm ctl vm.sock net-link net0 down
             until_output 'guest: carrier 0'
             vmm ctl vm.sock net-link net0 up
             finish 0
             has 'loads ended with 0'
             has 'guest: carrier 1'
             has '3 received, 0% packet loss'"
        ),
    )
}

fn hostile_frames(rings: &str) -> Case {
    Case::new(
        format!("net/hostile-frames-{rings}"),
        format!(
            "hostile=$VMM_BED_SCRATCH/net-hostile
             [ -x $hostile ] || fail 'the sender could not be built'
             ip link set lo up
             with_keys
             linux_in_background '
                 {UP}
                 ping -c 1 10.77.0.1
                 dmesg -C
                 echo guest: is there
                 read line </dev/console
                 ping -c 3 -i 0.2 10.77.0.1
                 echo received $(cat /sys/class/net/eth0/statistics/rx_packets)
                 dmesg -l emerg,alert,crit,err,warn
             ' -v --control vm.sock --rings {rings} --net tap=tap0,address=10.77.0.1/24,mtu=9000,mac=52:54:00:00:00:11 \
                 --cmdline bed.modules=virtio_net
             until_output 'guest: is there'
             $hostile tap0 52:54:00:00:00:11 20000
             vmm ctl vm.sock status
             echo >&9
             finish 0
             has '3 received, 0% packet loss'
             for word in BUG Oops WARNING; do lacks $word; done
             has 'received [0-9][0-9][0-9][0-9]'
             ! grep -e 'takes over' -e 'reset' log || fail 'the device did not stand it'"
        ),
    )
}

/// The host has no network here, so that passt has to be shown one.
fn user_mode() -> Case {
    Case::new(
        "net/user-mode",
        "ip link set lo up
         ip tuntap add dev uplink mode tap
         ip addr add 192.0.2.2/24 dev uplink
         ip link set uplink up
         ip route add default via 192.0.2.1
         # The guest listens before it asks, and serves until the host has fetched.
         {
             socat -u SYSTEM:'echo from the host' TCP-LISTEN:7001,bind=127.0.0.1,reuseaddr
             echo question | timeout 60 socat -t 30 - TCP:127.0.0.1:7080 >fetched
             echo over | socat -u - TCP-LISTEN:7002,bind=127.0.0.1,reuseaddr
         } &
         fetch=$!
         linux 0 '
             ip link set eth0 up
             busybox udhcpc -i eth0 -q -n -s /bin/true 2>&1
             ip addr add 10.0.2.15/24 dev eth0
             ip route add default via 10.0.2.2
             serve=\"read line; echo the guest was asked a \\$line\"
             socat TCP-LISTEN:80,reuseaddr,fork SYSTEM:\"$serve\" &
             until ss -ltn | grep -q :80; do sleep 0.1; done
             socat -u TCP:10.0.2.2:7001,retry=100,interval=0.1 -
             socat -u TCP:10.0.2.2:7002,retry=600,interval=0.1 -
         ' --net user,hostfwd=tcp:127.0.0.1:7080-:80 --cmdline bed.modules=virtio_net
         has 'lease of 10.0.2.15 obtained'
         has 'from the host'
         wait $fetch
         grep -q 'the guest was asked a question' fetched || fail \"the host fetched $(cat fetched)\"
         ! pgrep passt || fail 'passt is left over'",
    )
}

fn wrong_input() -> Case {
    Case::new(
        "net/wrong-input",
        "for net in tap=tap0,mtu=12 tap=a/b fd=77 tap,user user,hostfwd=tcp:1 queues=2 ; do
             run 35 vmm run --net $net
             has 'error'
         done
         run 35 vmm run --net fd=3 3</dev/null
         has 'descriptor 3 is not of a tap'
         run 35 env PATH=/nowhere \"$(command -v vmm)\" run --net user
         has 'apt-get install passt'",
    )
}
