//! Well-known suites about what POSIX says of files, on shared directories and on the host's ext4.

use std::time::Duration;

use super::Case;
use super::p9::SERVER;

/// The suite of calls and their errors, and the exerciser of one file's data.
const PJDFSTEST: &str = "pjdfstest@0.2.2";
const FSX: &str = "fsx@0.3.2";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("virtio-fs", format!("{CONFIG}{MACHINE}{VIRTIO_FS}")),
        case("9p", format!("{SERVER}{CONFIG}{P9}")),
        case("fsx-virtio-fs", format!("{MACHINE}{FSX_VIRTIO_FS}")),
        case("fsx-9p", format!("{SERVER}{FSX_P9}")),
    ]
}

fn case(name: &str, script: String) -> Case {
    let mut case = Case::new(format!("posix/{name}"), script);
    case.timeout = Duration::from_mins(20);
    case.crates = &[PJDFSTEST, FSX];
    case
}

/// What the suite may use. A nap has to be longer than the steps of a file's times.
const CONFIG: &str = r#"
config() {
    cat <<THE_END
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
[settings]
naptime = $1
[dummy_auth]
entries = [["nobody", "nogroup"], ["user", "user"]]
THE_END
}
# differ ONE OTHER EXPECTED: tests may have other results if their names match.
differ() {
    for file in $1 $2; do
        grep '^Summary' $file || { tail $file; fail "the suite does not end"; }
        grep -E ' (ok|FAILED|skipped)$' $file | sort >$file.sorted
    done
    diff $1.sorted $2.sorted | grep '^[<>]' >differences || true
    grep -vE "$3" differences >unexpected && { cat unexpected; fail "other results than with ext4"; }
    echo "$(grep -c '^>' differences) tests with other results, for reasons that are known"
}
"#;

/// `share NAME SCRIPT ARGUMENTS...` runs a script in a machine that has the folder `shared`, an ext4 file
/// system, with all its users.
const MACHINE: &str = r#"
truncate -s 600M disk; mkfs.ext4 -q disk; mkdir shared; mount -o loop disk shared
end() { status=$?; set +e; cd /; umount "$folder/shared"; rm -rf "$folder"; exit $status; }
trap end EXIT
cp "$VMM_BED_CRATES"/* shared
share() {
    linux 0 "mkdir -p /tmp/s; mount -t virtiofs src /tmp/s; cd /tmp/s; $1" -m 1G --share \
        path=shared,tag=src,uid-map=same,gid-map=same --disk path=ext4.img --cmdline bed.modules=virtiofs
}
truncate -s 300M ext4.img; mkfs.ext4 -q ext4.img
"#;

/// In one guest, on a disk with ext4 and on the shared directory. Device files are refused, and what the C
/// library says of the most links it knows of some file systems only.
const VIRTIO_FS: &str = r"
config 0.05 >shared/config
share '
mkdir /tmp/e /tmp/other work
mount /dev/vdc /tmp/e
mount -t tmpfs tmpfs /tmp/other
for place in /tmp/e /tmp/s/work; do
    ./pjdfstest -c config -p $place -s /tmp/other >/tmp/results 2>&1 || true
    cp /tmp/results results.$(basename $place)
done
sync
'
differ shared/results.e shared/results.work '::(char|block) |link::link_count_max '
";

/// Beside these Linux' v9fs sets times in whole seconds only: its super block says no finer step.
const P9: &str = r#"
chmod 755 "$folder"; mkdir other shared/work; chmod 755 shared/work; mount -t tmpfs tmpfs other
cp "$VMM_BED_CRATES"/pjdfstest .
config 0.05 >config.short
config 1.1 >config.long
./pjdfstest -c config.short -p "$folder/shared/work" -s "$folder/other" >results.ext4 2>&1 || true
rm -rf shared/work/*
serve a --uid-map same --gid-map same
mount_9p a cache=none,access=client
./pjdfstest -c config.long -p "$folder/a/work" -s "$folder/other" >results.9p 2>&1 || true
differ results.ext4 results.9p '::(char|block) |link::link_count_max |utimensat::subsecond '
"#;

/// Ten minutes of operations on one file, each way to read it compared with what was written.
const FSX_VIRTIO_FS: &str = r"
share 'status=0; timeout 600 ./fsx -q -S 7 file || status=$?; echo fsx ended with $status'
has 'fsx ended with 124'
";
/// Without a cache there are no shared mappings.
const FSX_P9: &str = r#"
serve a
mount_9p a cache=mmap
status=0; timeout 600 "$VMM_BED_CRATES"/fsx -q -S 7 a/file || status=$?
[ $status = 124 ] || fail "fsx ended with $status"
"#;
