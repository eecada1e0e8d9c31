//! Shared directories, mounted by stock Linux' driver.

use std::time::Duration;

use super::Case;

/// A machine that shares the folder `shared` and runs `shared/test.sh` from its own memory.
const MACHINE: &str = r#"
share() {
    vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --share "path=shared,tag=src$1" \
        --cmdline 'console=ttyS0 quiet panic=-1 bed.modules=virtiofs' \
        --cmdline 'bed.sh="mkdir /s; mount -t virtiofs src /s && cp /s/test.sh /tmp && sh /tmp/test.sh"'
}
mkdir shared
"#;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("files-go-both-ways", FILES, "run 0 share ''\n", FILES_CHECK),
        case("read-only-is-read-only", READ_ONLY, "run 0 share ,ro\n", READ_ONLY_CHECK),
        case("a-driver-comes-and-goes", BINDINGS, "run 0 share ''\n", "has '20 times, 0 bad'\n"),
        case("ten-thousand-files", MANY, "run 0 share ,cache=always\n", MANY_CHECK),
        case(
            "directories-come-and-go",
            GRANTS,
            GIVE_AND_TAKE,
            "finish 0\nlacks 'wrong'\nhas 'all right'\n",
        ),
        case("cycles-leave-nothing", CYCLES, COSTS, ""),
        case("a-server-is-killed", LOAD, KILLS, "grep -q 'rounds, 0 bad' output || exit 1\n"),
    ];
    for case in &mut cases {
        // Linux boots on an emulated processor, and so does everything that it does here.
        case.timeout = Duration::from_mins(8);
    }
    cases
}

/// `script` runs in the guest; `start` starts it, and `check` looks at what came of it.
fn case(name: &str, script: &str, start: &str, check: &str) -> Case {
    let script = format!(
        "{MACHINE}cat >shared/test.sh <<'THE_END'\n{script}THE_END\n\
         head -c 9000000 /dev/urandom >shared/data\n\
         tar cf shared/tree.tar -C /etc . 2>/dev/null || true\n\
         {start}{check}"
    );
    Case::new(format!("fs/{name}"), script)
}

/// Guest to host, host to guest, by tar, dd and names.
pub(super) const FILES: &str = r"
cd /s
md5sum data | cut -c1-32 | sed 's/^/read /'
dd if=/dev/urandom of=written bs=100k count=100 2>/dev/null
md5sum written | cut -c1-32 | sed 's/^/wrote /'
mkdir tree && tar xf tree.tar -C tree; echo untar $?
tar cf - -C tree . | tar tf - | wc -l
mkdir a && echo text >a/b && mv a/b a/c && ln a/c hard && ln -s a/c soft
[ $(cat soft) = text ] && [ $(stat -c %h hard) = 2 ] && echo names right
chmod 640 hard && [ $(stat -c %a a/c) = 640 ] && echo modes right
touch -d @1000 hard && [ $(stat -c %Y a/c) = 1000 ] && echo times right
exec 5<>open; rm open; echo unseen >&5; exec 5>&-; [ ! -e open ] && echo open right
mknod /s/device c 1 3 || echo device refused
ls -la ../s/.. >/dev/null; [ -e /s/../etc/shadow ] || echo inside
sync
";
pub(super) const FILES_CHECK: &str = r#"
has "read $(md5sum <shared/data | cut -c1-32)"
has "wrote $(md5sum <shared/written | cut -c1-32)"
has 'untar 0'
for word in names modes times open; do has "$word right"; done
has 'device refused'
diff -r shared/tree /etc >/dev/null 2>&1 || echo 'the trees differ where the guest may not tell'
[ "$(cat shared/a/c)" = text ] && [ "$(readlink shared/soft)" = a/c ] || fail 'names on the host'
"#;

pub(super) const READ_ONLY: &str = r"
cd /s
for command in 'touch new' 'mkdir d' 'rm data' 'mv data other' 'ln data hard' 'ln -s data soft' \
    'chmod 0 data' 'touch data' 'truncate -s 0 data' 'dd if=/dev/zero of=data bs=1 count=1'; do
    $command 2>/dev/null && echo let through: $command
done
md5sum data | cut -c1-32 | sed 's/^/read /'
";
pub(super) const READ_ONLY_CHECK: &str = r#"
has "read $(md5sum <shared/data | cut -c1-32)"
lacks 'let through'
[ "$(ls shared | tr '\n' ' ')" = 'data test.sh tree.tar ' ] || fail "there are $(ls shared)"
"#;

const BINDINGS: &str = r"
driver=/sys/bus/virtio/drivers/virtiofs
device=$(basename $(readlink $driver/virtio*))
times=0; bad=0
while [ $times -lt 20 ]; do
    umount /s || bad=$((bad + 1))
    echo $device >$driver/unbind && echo $device >$driver/bind || bad=$((bad + 1))
    mount -t virtiofs src /s && echo $times >/s/number || bad=$((bad + 1))
    [ $(cat /s/number) = $times ] || bad=$((bad + 1))
    times=$((times + 1))
done
echo $times times, $bad bad
";

const MANY: &str = r"
cd /s
mkdir many
number=0
while [ $number -lt 10000 ]; do : >many/$number; number=$((number + 1)); done
ls many | wc -l | sed 's/^/made /'
rm -r many
[ -e many ] || echo all gone
";
const MANY_CHECK: &str = r"
has 'made 10000'
has 'all gone'
[ ! -e shared/many ] || fail 'some are left'
";

/// A guest that looks at what is shared while it runs.
const GRANTS: &str = r#"
cd /s
[ -z "$(ls)" ] || echo wrong: there is something
mkdir new 2>/dev/null && echo wrong: a directory in the root
echo ready for one
until [ -e one/data ]; do usleep 100000; done
exec 5<one/data 6>one/written
head -c 5000 <&5 >/dev/null; echo before >&6
ln -s ../../etc one/out; ls one/out/shadow 2>/dev/null && [ ! -e /etc/shadow ] && echo wrong: outside
echo ready for two
until [ -e two ]; do usleep 100000; done
touch two/new 2>/dev/null && echo wrong: read-only
mv one/written two/ 2>/dev/null && echo wrong: moved
[ "$(ls)" = "$(printf 'one\ntwo')" ] || echo wrong: the names are $(ls)
echo ready for a kill
until [ -e three ]; do usleep 100000; done
[ "$(cat one/written)" = before ] || echo wrong: after a kill
echo ready to lose one
until [ -e four ]; do usleep 100000; done
usleep 1500000
cat <&5 >/dev/null 2>/tmp/error && echo wrong: an open file
grep -q Stale /tmp/error || echo wrong: $(cat /tmp/error)
echo after >&6 2>/dev/null && echo wrong: a file that is written
ls one 2>/dev/null && echo wrong: the name
[ "$(ls)" = "$(printf 'four\nthree\ntwo')" ] || echo wrong: the names are $(ls)
echo all right
"#;
const GIVE_AND_TAKE: &str = r#"
vmm -v run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --share tag=host --share path=shared,tag=src \
    --control vm.sock --cmdline 'console=ttyS0 quiet panic=-1 bed.modules=virtiofs' --cmdline \
    'bed.sh="mkdir /s /t; mount -t virtiofs src /t && cp /t/test.sh /tmp && mount -t virtiofs host /s && sh /tmp/test.sh"' \
    >output 2>log </dev/null &
vmm=$!
mkdir two three four
until_output 'ready for one'
vmm share vm.sock shared --as one || fail 'share'
vmm share vm.sock two --as one && fail 'one name twice'
vmm share vm.sock shared --as ../x && fail 'a name that is none'
vmm share vm.sock shared/data && fail 'a file'
until_output 'ready for two'
vmm share vm.sock two --ro || fail 'share --ro'
until_output 'ready for a kill'
pid=$(served_by 'share host')
kill -KILL "$pid"; until_other "$pid" 'share host'
vmm share vm.sock three || fail 'share after a kill'
until_output 'ready to lose one'
vmm unshare vm.sock one || fail 'unshare'
vmm unshare vm.sock one && fail 'unshare twice'
vmm share vm.sock four --tag host || fail 'share --tag'
"#;

/// Each round says so where the host sees it.
const CYCLES: &str = r"
driver=/sys/bus/virtio/drivers/virtiofs
device=$(basename $(readlink $driver/virtio*))
cycles() {
    for turn in $(seq $1); do
        umount /s && echo $device >$driver/unbind && echo $device >$driver/bind &&
            mount -t virtiofs src /s && cat /s/data >/dev/null || echo bad turn
    done
}
cycles 10; touch /s/warm; until [ -e /s/go ]; do sleep 0.1; done
cycles 100; touch /s/cycled; until [ -e /s/end ]; do cat /s/data >/dev/null || echo bad turn; done
";
const COSTS: &str = r#"
small_pages
share '' >output 2>log </dev/null &
vmm=$!
until_file() { until [ -e shared/$1 ]; do kill -0 $vmm || fail "vmm ended before: $1"; sleep 0.1; done; }
# It is the child of a shell.
costs() { echo "vmm $(cost $(pgrep -P $vmm -x vmm | head -n 1))"; echo "share $(cost $(served_by 'share shared'))"; }
# What is just being served takes descriptors, too, but not for long.
leaves_nothing() {
    for turn in $(seq 50); do
        costs >$1
        if (no_leaks before $1 512) >/dev/null; then break; fi
        sleep 0.1
    done
    no_leaks before $1 512
}
until_file warm
costs >before
touch shared/go
until_file cycled
leaves_nothing cycled
for turn in $(seq 100); do
    pid=$(served_by 'share shared')
    kill -KILL "$pid"
    until_other "$pid" 'share shared'
done
leaves_nothing killed
touch shared/end
finish 0
lacks 'bad turn'
"#;

/// Changes names and verifies data until it has been killed often enough.
pub(super) const LOAD: &str = r"
cp /s/data /tmp/data; sum=$(md5sum </tmp/data | cut -c-32); rounds=0; bad=0
echo load starts
until [ -e /s/stop ]; do
    d=/s/d$rounds; e=/s/e$rounds
    mkdir $d && cp /tmp/data $d/data && mv $d $e || bad=$((bad + 1))
    x=$(md5sum <$e/data | cut -c-32); [ x$x = x$sum ] || { echo wrong data; bad=$((bad + 1)); }
    ln -s data $e/link && ln $e/data $e/hard || bad=$((bad + 1))
    rm -r $e || bad=$((bad + 1))
    rounds=$((rounds + 1))
done
echo $rounds rounds, $bad bad
";
pub(super) const KILLS: &str = r#"
share '' >output 2>log </dev/null &
vmm=$!
until_output 'load starts'
kills=0
while [ $kills -lt 8 ]; do
    sleep 1
    pid=$(served_by 'share shared')
    kill -KILL "$pid" || fail "kill $kills: no process $pid"
    until_other "$pid" 'share shared'
    kills=$((kills + 1))
done
sleep 1
touch shared/stop
finish 0
"#;
