# Kills the process of a disk $1 times while stock Linux runs fio with verification on it.
kills=$1
cd "$(mktemp -d)"
cp --sparse=always "$VMM_BED_TOOLS_DISK" root.img
truncate -s 64M data.img
job='fio --name=chaos --filename=/dev/vdb --rw=randwrite --bs=4k --size=48m --iodepth=16'
job="$job --ioengine=libaio --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1"
job="$job --time_based --runtime=$((kills * 2 + 10)) --output-format=terse >/tmp/fio 2>&1"
vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --root path=root.img --disk path=data.img \
    --cmdline "quiet panic=-1 bed.sh=\"$job; echo fio ended with \$?; dmesg -l err | head\"" \
    >output 2>log </dev/null &
vmm=$!
pid_of_data() { sed -n 's/.*data.img: served by process \([0-9]*\)$/\1/p' log | tail -n 1; }
# A forbidden system call in the process itself takes root; else it looks like one that is not told of.
violate() { if [ "$(id -u)" = 0 ]; then "$VMM_BED_XTASK" violate "$1"; else kill -SYS "$1"; fi; }
# Until Linux is up, the disk is not in use.
turns=0
until grep -q 'guest: init up' output; do
    if ! kill -0 $vmm || [ $turns -ge 600 ]; then cat output log; exit 1; fi
    turns=$((turns + 1)); sleep 0.2
done
sleep 3
n=0
while [ $n -lt "$kills" ]; do
    pid=$(pid_of_data)
    case $((n % 4)) in
        0) kill -KILL "$pid" ;;
        1) kill -SEGV "$pid" ;;
        2) violate "$pid" ;;
        3) kill -STOP "$pid" ;;
    esac || { echo "kill $n: no process $pid"; cat output log; exit 1; }
    turns=0
    until [ "$(pid_of_data)" != "$pid" ]; do
        [ $turns -lt 100 ] || { echo "kill $n: no successor"; cat output log; exit 1; }
        turns=$((turns + 1)); sleep 0.1
    done
    n=$((n + 1)); sleep 1
done
status=0; wait $vmm || status=$?
cat output
grep 'takes over' log
# One kill in four was a forbidden system call.
violations=$(grep -c 'its policy forbids `openat`; successor' log) || true
[ "$(id -u)" != 0 ] || [ "$violations" = $(((kills + 1) / 4)) ] || { cat log; exit 1; }
[ $status = 0 ] || { cat log; exit 1; }
grep -q 'fio ended with 0' output || exit 1
! grep -q 'I/O error' output
