//! Which mounts of this host belong to its root as a guest sees it. A shared directory ends where
//! something else is mounted, so each of these is shared by itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where programs and what they need are, if they have file systems of their own.
const SYSTEM: [&str; 10] =
    ["/etc", "/home", "/nix", "/opt", "/root", "/srv", "/usr", "/usr/local", "/var", "/var/lib"];
/// What the guest has of its own.
const OWN: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];
/// Those of them that are empty in the guest, and can hold what is here.
const IN_MEMORY: [&str; 2] = ["/run", "/tmp"];

/// The mounts of this host, as far as they are a guest's affair.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// To be shared: parts of the system, what is on the way to the folders that are needed, and those
    /// themselves where the guest has a file system of its own.
    pub(super) shared: BTreeSet<PathBuf>,
    /// Not to be shared. They are empty in the guest.
    pub(super) others: BTreeSet<PathBuf>,
}

/// Finds them in `table`, which is `/proc/self/mountinfo`. The folders that are needed are the working folder
/// and that of the command.
pub(super) fn find(table: &str, needed: &[&Path]) -> Found {
    let mut found = Found::default();
    for path in mount_points(table) {
        let own = OWN.iter().any(|own| path.starts_with(own));
        if own || path == Path::new("/") || !path.is_absolute() {
            continue;
        }
        let system = SYSTEM.iter().any(|system| path == Path::new(system));
        if system || needed.iter().any(|folder| folder.starts_with(&path)) {
            found.shared.insert(path);
        } else {
            found.others.insert(path);
        }
    }
    let in_memory = |folder: &&Path| {
        IN_MEMORY.iter().any(|above| folder.starts_with(above) && *folder != Path::new(above))
    };
    for folder in needed.iter().filter(|folder| in_memory(folder)) {
        let is_above =
            |other: &&Path| in_memory(other) && folder.starts_with(other) && *folder != *other;
        if !needed.iter().any(is_above) {
            found.shared.insert(folder.to_path_buf());
        }
    }
    // Those within what is empty are out of sight.
    let hidden =
        |path: &PathBuf| path.ancestors().skip(1).any(|above| found.others.contains(above));
    let others = found.others.iter().filter(|path| !hidden(path)).cloned().collect();
    Found { others, ..found }
}

/// The fifth word of each line (proc(5), `mountinfo`).
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4).map(unescape))
}

/// Blanks, line ends and backslashes are `\NNN`, in octal.
fn unescape(word: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut parts = word.split('\\');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let digits = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:5 / /proc rw - proc proc rw
3 1 8:2 / /work/a\\040b rw - ext4 /dev/sda2 rw
4 1 8:3 / /usr rw - ext4 /dev/sda3 rw
5 1 8:4 / /mnt rw - ext4 /dev/sda4 rw
6 3 8:5 / /work rw - ext4 /dev/sda5 rw
7 1 0:6 / /tmp rw - tmpfs tmp rw
8 4 8:3 / /usr rw - ext4 /dev/sda3 rw
";

    fn found(here: &str) -> (Vec<String>, Vec<String>) {
        let names = |paths: BTreeSet<PathBuf>| {
            paths.iter().map(|path| path.display().to_string()).collect()
        };
        let Found { shared, others } = find(TABLE, &[Path::new(here)]);
        (names(shared), names(others))
    }

    #[test]
    fn the_system_and_the_way_to_the_working_folder_are_shared() {
        let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("/"), (strings(&["/usr"]), strings(&["/mnt", "/work"])));
        let shared = strings(&["/usr", "/work", "/work/a b"]);
        assert_eq!(found("/work/a b/c"), (shared, strings(&["/mnt"])));
        assert_eq!(found("/worker").0, ["/usr"]);
    }

    #[test]
    fn a_folder_in_memory_comes_by_itself() {
        assert_eq!(found("/tmp/x").0, ["/tmp/x", "/usr"]);
        assert_eq!(found("/tmp").0, ["/usr"]);
        assert_eq!(found("/proc/1").0, ["/usr"]);
        let both = find(TABLE, &[Path::new("/tmp/x"), Path::new("/tmp/y")]);
        assert_eq!(both.shared.len(), 3);
        let one = find(TABLE, &[Path::new("/tmp/x"), Path::new("/tmp/x/y")]);
        assert_eq!(one.shared.len(), 2);
    }

    #[test]
    fn odd_tables_are_read() {
        assert_eq!(unescape("/a\\134b\\9"), Path::new("/a\\b\\9"));
        assert_eq!(unescape("\\777é"), Path::new("\\777é"));
        assert_eq!(find("\n1 2\nx y z a \\\n", &[Path::new("/")]), Found::default());
    }
}
