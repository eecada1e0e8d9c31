# What every case starts with. The working folder is the case's own and goes away with it.
set -eu
fail() { echo "FAILED: $*"; exit 1; }
skip() { echo "$*"; exit 77; }

# run STATUS COMMAND...: runs a command that must end with this status; its output is shown and kept in
# the file `output`, where `has TEXT` and `lacks TEXT` look.
run() {
    expected=$1; shift
    echo "+ $*"
    status=0; "$@" >output 2>&1 </dev/null || status=$?
    cat output
    [ $status = $expected ] || fail "status $status instead of $expected"
}
has() { grep -q -e "$1" output || fail "the output lacks: $1"; }
lacks() { ! grep -q -e "$1" output || fail "the output has: $1"; }
need_memory() {
    free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
    [ $((free / 1024)) -ge $1 ] || skip "needs $1 MiB of memory, $((free / 1024)) are free"
}

# disk FILE: a fresh copy of the small ext4 root.
disk() { cp --sparse=always "$VMM_BED_DISK" "$1"; chmod 600 "$1"; }

# linux STATUS SCRIPT ARGUMENTS...: Linux with all tools runs a script with bash, as the last thing
# before it powers off. The root is /dev/vda and the script on /dev/vdb.
linux() {
    expected=$1; guest_files "$2"; shift 2
    run $expected vmm run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --root path=tools.img \
        --disk path=guest.img,ro --cmdline 'quiet panic=-1 bed.script=/dev/vdb' "$@"
}
# The same in the background, until `finish STATUS`. The log is in the file `log`; keys come from the
# pipe that `keys` names, if there is one.
linux_in_background() {
    guest_files "$1"; shift
    vmm run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --root path=tools.img \
        --disk path=guest.img,ro --cmdline 'quiet panic=-1 bed.script=/dev/vdb' "$@" \
        >output 2>log <"${keys:-/dev/null}" &
    vmm=$!
}
finish() {
    status=0; wait $vmm || status=$?
    cat output log
    [ $status = "$1" ] || fail "status $status instead of $1"
}
guest_files() {
    [ -e tools.img ] || cp --sparse=always "$VMM_BED_TOOLS_DISK" tools.img
    chmod 600 tools.img
    printf "bash -eu <<'THE_END'\n%s\nTHE_END\n" "$1" >guest.img
    truncate -s 64K guest.img
}

# until_output TEXT [TENTHS]: waits until a machine in the background has said so, a minute or so long.
until_output() {
    turns=0
    until grep -q -e "$1" output; do
        kill -0 $vmm 2>/dev/null || { cat output log; fail "the machine ended before: $1"; }
        turns=$((turns + 1))
        [ $turns -lt "${2:-600}" ] || { cat output log; fail "the machine did not say: $1"; }
        sleep 0.1
    done
}
# A guest's script with a load on /dev/vdc that begins when it says so, and compares all that it reads back.
verified_load='
mkfs.ext4 -q /dev/vdc
mount /dev/vdc /mnt
echo load begins
fio --name=v --directory=/mnt --size=32M --rw=randwrite --bs=4k --ioengine=libaio --direct=1 --iodepth=16 \
    --verify=crc32c --verify_backlog=512 --time_based --runtime=20
umount /mnt
e2fsck -fn /dev/vdc
dmesg | grep -i "i/o error" && exit 1
echo all is well
'
# served_by DEVICE: the process that serves a device now. The log needs -v.
served_by() { sed -n "s/.*$1: served by process \([0-9]*\)\$/\1/p" log | tail -n 1; }
# until_other PID DEVICE: waits for the successor of a process.
until_other() {
    turns=0
    while [ "$(served_by "$2")" = "$1" ]; do
        turns=$((turns + 1))
        [ $turns -lt 100 ] || { cat output log; fail "no successor of process $1"; }
        sleep 0.1
    done
}
# In a bed, before a cost: memory is what was touched, not the 2 MiB around it that the kernel likes to give.
small_pages() { echo madvise >/sys/kernel/mm/transparent_hugepage/enabled; }
# cost PID: the descriptors that a process has open, and the KiB of memory that are its own.
cost() {
    echo "$(ls /proc/$1/fd | wc -l) $(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$1/status)"
}
# no_leaks BEFORE AFTER KIB: two files with lines of names and costs. There may be no more descriptors, and
# so much more memory.
no_leaks() {
    paste -d ' ' "$1" "$2"
    paste -d ' ' "$1" "$2" | awk -v most="$3" '
        { fields = NF / 2
          if ($NF - $fields > most || $(NF - 1) > $(fields - 1)) { print "leaks: " $0; leaks++ } }
        END { exit leaks > 0 }' || fail "$2 is more than $1"
}

# with_keys: what goes to descriptor 9 is typed on the next machine's serial port.
with_keys() { mkfifo keys; exec 9<>keys; keys=keys; }
# Of a machine with `--control vm.sock`. serves DEVICE: the process of net0, for example. kill_device DEVICE
# [SIGNAL]: kills that and waits for its successor. pause_until TEXT: pauses the machine again and again until it has
# said so.
serves() { vmm ctl vm.sock status | sed -n "s/^$1 .* \([0-9]*\), [0-9]* restarts\$/\1/p"; }
kill_device() {
    old=$(serves "$1"); turns=0
    kill -${2:-KILL} "$old"
    until new=$(serves "$1"); [ -n "$new" ] && [ "$new" != "$old" ]; do
        turns=$((turns + 1))
        [ $turns -lt 600 ] || { cat output log; fail "no successor of process $old"; }
        sleep 0.1
    done
}
pause_until() {
    pauses=0
    until grep -q -e "$1" output; do
        kill -0 $vmm 2>/dev/null || { cat output log; fail "the machine ended before: $1"; }
        vmm ctl vm.sock pause && vmm ctl vm.sock resume || fail 'a pause failed'
        pauses=$((pauses + 1))
        sleep 0.3
    done
    [ $pauses -gt 2 ] || fail "$pauses pauses are few"
}

# The load as a program here, and as the disk load.img for a guest. equal_sums: what a guest said in
# `output` that it sent is what came according to the file `host`, and the other way round.
load_files() {
    [ -x "$VMM_BED_SCRATCH/load" ] || fail "the load could not be built"
    cp "$VMM_BED_SCRATCH/load" load
    cp load load.img
    truncate -s %4096 load.img
}
equal_sums() {
    cat host
    here=$(sed -n 's/.*sent=\(.*\) received=\(.*\)/\1 \2/p' host)
    there=$(tr -d '\r' <output | sed -n 's/.*sent=\(.*\) received=\(.*\)/\2 \1/p')
    [ -n "$here" ] && [ "$here" = "$there" ] || fail "other bytes came than went: $here, $there"
}

# at_end is for what a case has to end.
at_end() { :; }
folder=$(mktemp -d)
cd "$folder"
trap 'at_end; cd /; rm -rf "$folder"' EXIT
