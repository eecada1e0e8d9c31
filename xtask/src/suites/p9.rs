//! 9P, mounted by stock Linux' `v9fs` on the host itself: guests' cloud kernels have none.

use super::Case;

/// The folder `shared` is an ext4 file system. `serve NAME ARGUMENTS...` serves it on the socket `NAME.sock`, `mount_9p NAME OPTIONS`
/// mounts it on the folder `NAME`.
pub(super) const SERVER: &str = r#"
truncate -s 600M disk; mkfs.ext4 -q disk; mkdir shared; mount -o loop disk shared; rmdir shared/lost+found
serve() {
    name=$1; shift
    vmm -v serve-9p --root shared --socket $name.sock "$@" 2>$name.log &
    turns=0
    until [ -S $name.sock ]; do
        turns=$((turns + 1))
        [ $turns -lt 100 ] || { cat $name.log; fail "nobody serves $name"; }
        sleep 0.1
    done
}
mount_9p() {
    mkdir -p $1
    mount -t 9p -o "trans=unix,version=9p2000.L,msize=262144,$2" $1.sock $1 || fail "$1 cannot be mounted"
}
end() {
    status=$?; set +e
    cd "$folder"
    umount ./* 2>/dev/null
    kill $(jobs -p) 2>/dev/null
    [ $status = 0 ] || { cat ./*.log; dmesg | tail -n 5; }
    cd /
    rm -rf "$folder"
    exit $status
}
trap end EXIT
"#;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("trees-of-files", &TREES.replace("CACHE", "none")),
        case("trees-of-files-cached", &TREES.replace("CACHE", "loose")),
        case("names-and-attributes", NAMES),
        case("locks-between-clients", LOCKS),
        case("read-only-is-read-only", READ_ONLY),
        case("owners-are-translated", OWNERS),
    ]
}

fn case(name: &str, script: &str) -> Case {
    Case::new(format!("p9/{name}"), format!("{SERVER}{script}"))
}

/// Archives, git, large files and large directories, each way.
const TREES: &str = r#"
serve a --uid-map same --gid-map same
mount_9p a cache=CACHE
mkdir a/tree
mkdir tree; cp -a /usr/sbin/[a-g]* tree; ln -s ../bin/grep tree
tar cf tree.tar -C tree .
tar xf tree.tar -C a/tree; sync
diff -r --no-dereference tree shared/tree || fail "tar unpacks something else"
tar cf - -C a/tree . | tar df - -C shared/tree || fail "tar packs something else"
head -c 10000000 /dev/urandom >big
cp big a/big; sync; cmp big shared/big; cmp a/big big
dd if=big of=a/big bs=4096 seek=3 count=9 conv=notrunc 2>/dev/null
dd if=big of=big.new bs=4096 count=9 2>/dev/null
dd if=big.new of=big bs=4096 seek=3 conv=notrunc 2>/dev/null
sync; cmp big shared/big || fail "a write in the middle"
mkdir a/many
(cd a/many; seq 1500 | xargs touch)
[ "$(ls a/many | sort -n | md5sum)" = "$(seq 1500 | md5sum)" ] || fail "a large directory"
git init -q --template= a/repository
(
    cd a/repository
    git config user.email a@b; git config user.name a
    cp -a ../tree/* .
    git add . && git commit -qm first
    [ -z "$(git status --porcelain)" ] || fail "git sees changes: $(git status --porcelain | head)"
    echo more >>e2fsck; mv blkid dog
    git add -A && git commit -qm second && git fsck && git diff --stat HEAD~ | tail -n 1
)
sync; git -c safe.directory='*' -C shared/repository fsck || fail "the repository on the host"
rm -r a/many a/tree a/repository a/big
[ -z "$(ls -A shared)" ] || fail "left over: $(ls -A shared)"
umount a
"#;

const NAMES: &str = r#"
serve a
mount_9p a cache=none
cd a
mkdir d; echo text >d/f; mv d/f d/g; mv d e; [ "$(cat e/g)" = text ] || fail rename
ln e/g hard; [ $(stat -c %h hard) = 2 ] || fail link
ln -s e/g soft; [ "$(cat soft)" = text ] && [ "$(readlink soft)" = e/g ] || fail symlink
mkfifo fifo; [ -p fifo ] || fail fifo
mknod device c 1 3 2>/dev/null && fail "a device file"
chmod 4751 hard; [ $(stat -c %a e/g) = 4751 ] || fail chmod
touch -d @1000 hard; [ "$(stat -c %Y e/g)" = 1000 ] || fail times
truncate -s 5000 hard; [ $(stat -c %s e/g) = 5000 ] || fail truncate
setfattr -n user.key -v value hard
[ "$(getfattr --only-values -n user.key e/g)" = value ] || fail "attributes"
getfattr -d e/g | grep -q 'user.key="value"' || fail "list of attributes"
setfattr -x user.key hard; getfattr -n user.key hard 2>/dev/null && fail "an attribute that is gone"
long=$(printf '%0255d' 0); touch $long; rm $long
touch ${long}0 2>/dev/null && fail "a name of 256 bytes"
exec 5<>open; rm open; echo unseen >&5; [ ! -e open ] || fail "a file without a name"; exec 5>&-
rmdir e 2>/dev/null && fail "a directory that is not empty"
sync .; [ "$(stat -f -c %T .)" = v9fs ] || fail "it is $(stat -f -c %T .)"
mkdir outside
mount -o bind /etc ../shared/outside; ls outside/passwd 2>/dev/null && fail "what is mounted below it"
umount ../shared/outside
cd ..
umount a
"#;

/// Linux gives back what it locked by `flock` when any process closes the file, so the locks here are those
/// of processes that became another program.
const LOCKS: &str = r#"
serve a; serve b
mount_9p a locktimeout=1; mount_9p b locktimeout=1
touch a/file
hold() { flock --no-fork -x $1/file sleep 1000 & holder=$!; }
until_held() { while flock -n $1/file true; do sleep 0.1; done; }
hold a; until_held b
kill $holder; wait $holder || true
flock -w 20 b/file true || fail "a lock that was given back"
hold b; until_held a
(sleep 1; kill $holder) &
flock -w 20 a/file true || fail "a lock that was waited for"
echo one >a/file; [ "$(cat b/file)" = one ] || fail "what another client wrote"
umount a b
"#;

const OWNERS: &str = r#"
serve a --uid-map 0:0+1000:7 --gid-map same
serve b
mount_9p a cache=none; mount_9p b cache=none
echo text >a/file; mkdir a/d
chown 7:5 a/file a/d
[ "$(stat -c %u:%g shared/file a/file b/file | tr '\n' ' ')" = '1000:5 7:5 0:0 ' ] || fail "owners of a file"
chown 8 a/file 2>/dev/null && fail "a user without a number on the host"
chown 7 b/file 2>/dev/null && fail "a server without maps gives files away"
chown 3 shared/file; [ $(stat -c %u a/file) = 65534 ] || fail "a user without a number at the client"
chmod 700 a/d; touch a/d/new; rm a/d/new
umount a b
"#;

const READ_ONLY: &str = r#"
echo text >shared/file; mkdir shared/d; setfattr -n user.key -v value shared/file
serve a --read-only
mount_9p a cache=none
cd a
for command in 'touch new' 'mkdir e' 'rm file' 'rmdir d' 'mv file g' 'ln file hard' 'ln -s file soft' \
    'chmod 0 file' 'touch file' 'truncate -s 0 file' 'dd if=/dev/zero of=file bs=1 count=1' 'mkfifo p' \
    'setfattr -n user.key -v other file' 'setfattr -x user.key file'; do
    $command 2>../error && fail "let through: $command"
    grep -q 'Read-only file system' ../error || fail "$command: $(cat ../error)"
done
[ "$(cat file)" = text ] && [ "$(getfattr --only-values -n user.key file)" = value ] || fail "reading"
cd ..
umount a
"#;
