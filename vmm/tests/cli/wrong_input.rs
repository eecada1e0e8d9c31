//! Wrong input that is found before there is a machine: status 35, a chain of causes, a hint, and
//! nothing made or changed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::support::{VMM, command, contents, text, vmm};
use tempfile::TempDir;

/// The user that no file belongs to.
const NOBODY: u32 = 65534;

/// A folder with one of each kind of file.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path();
    fs::write(path.join("kernel"), b"not a kernel, but not empty").expect("written");
    fs::write(path.join("empty"), b"").expect("written");
    fs::write(path.join("vm.toml"), b"cpus = 100000\n").expect("written");
    fs::write(path.join("typo.toml"), b"memroy = 512\n").expect("written");
    fs::write(path.join("binary.toml"), [0xff, 0xfe, 0x00]).expect("written");
    for (name, bytes) in [("disk", 1 << 20), ("big", 64 << 20)] {
        File::create(path.join(name)).and_then(|file| file.set_len(bytes)).expect("sized");
    }
    fs::create_dir(path.join("directory")).expect("made");
    folder
}

/// Runs each line of a table: arguments, and what is said about them.
fn assert_refused(table: &[(&[&str], &str)]) {
    let folder = folder();
    let before = contents(folder.path());
    for (arguments, expected) in table {
        let output = run(folder.path(), arguments);
        assert_eq!(text(&output.stderr), *expected, "{arguments:?}");
        assert_eq!(output.status.code(), Some(35), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn wrong_amounts_have_a_chain_and_a_hint() {
    assert_refused(&[
        (
            &["--memory", "0"],
            "error: a guest with 0B of memory cannot run\n  1: the least is 4M\n\
             hint: a plain number counts MiB; K, M, G and T are units, and B is bytes\n",
        ),
        (
            &["--memory", "1B"],
            "error: a guest with 1B of memory cannot run\n  1: the least is 4M\n\
             hint: a plain number counts MiB; K, M, G and T are units, and B is bytes\n",
        ),
        (
            &["--memory", "8388609B"],
            "error: a guest with 8388609B of memory cannot run\n  1: it is not a multiple of 4K\n\
             hint: a plain number counts MiB; K, M, G and T are units, and B is bytes\n",
        ),
        (
            &["--memory", "much"],
            "error: cannot use `much` as --memory\n  \
             1: an amount like 512 (MiB), 512M or 6G is wanted\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
        (
            &["--memory", "-1"],
            "error: cannot use `-1` as --memory\n  \
             1: an amount like 512 (MiB), 512M or 6G is wanted\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
        (
            &["--cpus", "0"],
            "error: cannot use `0` as --cpus\n  1: a machine has 1 to 64 CPUs\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
        (
            &["--cpus", "100000"],
            "error: cannot use `100000` as --cpus\n  1: a machine has 1 to 64 CPUs\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
    ]);
}

#[test]
fn wrong_balloons_have_a_chain_and_a_hint() {
    assert_refused(&[
        (
            &["--memory", "64", "--balloon", "size=65M"],
            "error: a balloon of 65M cannot be had\n  1: the guest has 64M of memory\n\
             hint: leave the guest what it needs: with all of it gone it cannot run\n",
        ),
        (
            &["--balloon", "size=1B"],
            "error: a balloon of 1B cannot be had\n  1: it is not a multiple of 4K\n\
             hint: a plain number counts MiB; K, M, G and T are units, and B is bytes\n",
        ),
        (
            &["--memory", "4", "--lock-memory", "--balloon", "reporting"],
            "error: a balloon of 0B cannot be had\n  \
             1: all memory is to be kept resident, and a balloon gives it back\n\
             hint: leave out --lock-memory or --balloon\n",
        ),
        (
            &["--balloon", "stats-interval=0"],
            "error: cannot use `stats-interval=0` as --balloon\n  \
             1: `0` is no value for `stats-interval`: an interval is 1 to 3600 seconds\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
    ]);
}

#[test]
fn wrong_boot_files_have_a_chain_and_a_hint() {
    assert_refused(&[
        (
            &["missing"],
            "error: cannot use the kernel `missing`\n  1: it cannot be found\n  \
             2: No such file or directory (os error 2)\nhint: check the path\n",
        ),
        (
            &["empty"],
            "error: cannot use the kernel `empty`\n  1: it is empty\nhint: check the path\n",
        ),
        (
            &["directory"],
            "error: cannot use the kernel `directory`\n  \
             1: it is a directory, and a regular file is wanted\nhint: check the path\n",
        ),
        (
            &["kernel", "--initrd", "missing"],
            "error: cannot use the initrd `missing`\n  1: it cannot be found\n  \
             2: No such file or directory (os error 2)\nhint: check the path\n",
        ),
        (
            &["kernel", "--initrd", "big", "--memory", "64"],
            "error: the initrd `big` of 67108864 bytes does not fit into 64M of memory\n\
             hint: give the guest more with --memory\n",
        ),
        (
            &["--initrd", "big"],
            "error: --initrd needs a kernel, and none is given\n\
             hint: name a kernel: vmm run KERNEL\n",
        ),
        (
            &["--root", "path=disk"],
            "error: --root needs a kernel, and none is given\n\
             hint: name a kernel, or give the disk to the built-in guest with --disk\n",
        ),
    ]);
}

#[test]
fn wrong_devices_have_a_chain_and_a_hint() {
    assert_refused(&[
        (
            &["--disk", "path=missing"],
            "error: cannot use the disk `missing`\n  1: it cannot be found\n  \
             2: No such file or directory (os error 2)\n\
             hint: check the path, or make an empty disk with `truncate -s 4G FILE`\n",
        ),
        (
            &["--disk", "path=directory"],
            "error: cannot use the disk `directory`\n  \
             1: it is a directory, and a regular file or a block device is wanted\n\
             hint: make an image of it with `mke2fs -d DIRECTORY FILE SIZE`\n",
        ),
        (
            &["--disk", "path=/dev/null"],
            "error: cannot use the disk `/dev/null`\n  \
             1: it is a character device, and a regular file or a block device is wanted\n\
             hint: check the path\n",
        ),
        (
            &["--disk", "path=disk", "--disk", "path=./disk,ro"],
            "error: `./disk` is the same file as the disk `disk`, and the guest would write it\n\
             hint: copy the file, or add `ro` to both disks\n",
        ),
        (
            &["--disk", "path=disk,ro,ro"],
            "error: cannot use `path=disk,ro,ro` as --disk\n  1: the key `ro` is repeated\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
        (
            &["--disk", "path=disk,dirct"],
            "error: cannot use `path=disk,dirct` as --disk\n  \
             1: unknown key `dirct` (did you mean `direct`?); \
             the keys are path, ro, direct, sqpoll, sqpoll-cpu, iopoll, queues, threads, block-size, id, cpus, limit-bytes and limit-ops\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
        (
            &["--disk", "path=disk,queues=17"],
            "error: cannot use `path=disk,queues=17` as --disk\n  \
             1: `17` is no value for `queues`: a disk has 1 to 16 queues\n\
             hint: `vmm run --help` lists what it can be\n",
        ),
        (
            &["--cpus", "2", "--disk", "path=disk,threads=3"],
            "error: the disk `disk` has 3 threads for its 2 queues\n\
             hint: each thread serves at least one queue: more `queues`, or fewer `threads`\n",
        ),
        (
            &["--disk", "path=disk,queues=2,threads=2", "--trace", "trace"],
            "error: the disk `disk` has several threads, which no trace can follow\n\
             hint: leave `threads` out while you trace the machine\n",
        ),
        (
            &["--serial", "file=missing/console"],
            "error: cannot use the serial port `missing/console`\n  1: it cannot be found\n  \
             2: No such file or directory (os error 2)\nhint: make the folder first\n",
        ),
    ]);
}

#[test]
fn wrong_texts_have_a_chain_and_a_hint() {
    assert_refused(&[
        (
            &["--cmdline", "a\nb"],
            "error: the command line of the guest holds the control character '\\n'\n",
        ),
        (
            &["--config", "missing.toml"],
            "error: cannot read the configuration file `missing.toml`\n  \
             1: No such file or directory (os error 2)\nhint: check the path\n",
        ),
        (
            &["--config", "directory"],
            "error: cannot read the configuration file `directory`\n  \
             1: Is a directory (os error 21)\nhint: it is a directory; name a file in it\n",
        ),
        (
            &["--config", "binary.toml"],
            "error: cannot read the configuration file `binary.toml`\n  \
             1: stream did not contain valid UTF-8\nhint: it is not a text file; check the path\n",
        ),
    ]);
}

#[test]
fn what_the_argument_parser_refuses_ends_with_the_same_status() {
    let folder = folder();
    let table: &[(&[&str], &str)] = &[
        (&["--cpu", "4"], "unexpected argument '--cpu' found"),
        (&["--cpus", "1", "--cpus", "2"], "cannot be used multiple times"),
        (&["--cpus"], "a value is required"),
        (&["--cpu-affinity", "0-1=2,1=3"], "CPUs of this host for all virtual ones"),
        (&["--cpu-affinity", "1=0"], "there is no virtual CPU 1 in a machine with 1"),
        (&["--cpu-affinity", "1023"], "the virtual CPUs cannot run on CPU 1023"),
        (&["--disk", "path=disk,cpus=2-1"], "`2-1` is no value for `cpus`"),
        (&["kernel", "second"], "unexpected argument 'second' found"),
        (&["--single-process=perhaps"], "invalid value 'perhaps'"),
    ];
    for (arguments, expected) in table {
        let output = run(folder.path(), arguments);
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(35), "{arguments:?}");
    }
    for arguments in [&[][..], &["start"]] {
        assert_eq!(vmm(folder.path(), arguments).status.code(), Some(35), "{arguments:?}");
    }
}

#[test]
fn more_memory_than_the_host_has_is_refused() {
    let folder = folder();
    let output = run(folder.path(), &["--memory", "4096T"]);
    let shown = text(&output.stderr);
    assert!(
        shown.starts_with("error: a guest with 4096T of memory cannot run\n  1: the host has ")
    );
    assert!(shown.ends_with(" MiB, swap included\nhint: ask for less with --memory\n"), "{shown}");
    assert_eq!(output.status.code(), Some(35));
}

#[test]
fn a_broken_file_is_shown_with_the_place() {
    let folder = folder();
    let output = run(folder.path(), &["--config", "vm.toml"]);
    let shown = text(&output.stderr);
    assert!(
        shown.starts_with("error: the configuration file `vm.toml` is not valid\n  1: "),
        "{shown}"
    );
    assert!(
        shown.contains("line 1, column 8") && shown.contains("a machine has 1 to 64 CPUs"),
        "{shown}"
    );
    assert_eq!(output.status.code(), Some(35));

    let output = run(folder.path(), &["--config", "typo.toml"]);
    assert!(text(&output.stderr).ends_with("hint: did you mean `memory`?\n"));
    assert_eq!(output.status.code(), Some(35));
}

#[test]
fn an_error_has_a_form_for_machines() {
    let folder = folder();
    let output = run(folder.path(), &["missing", "--json"]);
    assert_eq!(
        text(&output.stdout),
        "{\"exit\":\"error\",\"status\":35,\"error\":\"cannot use the kernel `missing`\",\
         \"causes\":[\"it cannot be found\",\"No such file or directory (os error 2)\"],\
         \"hint\":\"check the path\"}\n"
    );
    let output = run(folder.path(), &["--cpus", "0", "--json"]);
    assert!(text(&output.stdout).starts_with("{\"exit\":\"error\",\"status\":35,"));
    let output = run(folder.path(), &["--nonsense", "--json"]);
    assert_eq!(
        text(&output.stdout),
        "{\"exit\":\"error\",\"status\":35,\"error\":\"unexpected argument '--nonsense' found\",\
         \"causes\":[]}\n"
    );
}

#[test]
fn files_of_others_are_refused() {
    let folder = folder();
    let path = folder.path();
    let binary = path.join("vmm");
    // By another process: a child that another test forks meanwhile would inherit a descriptor for
    // writing to the copy, and what is written to cannot be executed.
    let copied =
        std::process::Command::new("cp").arg(VMM).arg(&binary).status().expect("cp starts");
    assert!(copied.success());
    let mode = |name: &str, mode| {
        fs::set_permissions(path.join(name), Permissions::from_mode(mode)).expect("mode set");
    };
    mode("", 0o755);
    mode("vmm", 0o755);
    mode("disk", 0o444);
    mode("kernel", 0o000);
    let disk = "error: cannot use the disk `disk`\n  \
                1: it cannot be opened for reading and writing\n  \
                2: Permission denied (os error 13)\n\
                hint: change its owner or mode, or add `ro` to the disk if the guest need not write\n";
    let kernel = "error: cannot use the kernel `kernel`\n  1: it cannot be opened for reading\n  \
                  2: Permission denied (os error 13)\n\
                  hint: change its owner or mode, or run as its owner\n";
    for (arguments, expected) in
        [(&["run", "--disk", "path=disk"][..], disk), (&["run", "kernel"], kernel)]
    {
        let mut command = command(&binary, path, arguments);
        // To root nothing is forbidden.
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().expect("the copy starts");
        assert_eq!(text(&output.stderr), expected);
        assert_eq!(output.status.code(), Some(35));
    }
}

fn run(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let arguments: Vec<&str> = ["run"].iter().chain(arguments).copied().collect();
    vmm(folder, &arguments)
}
