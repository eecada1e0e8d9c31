//! The table of mounts that a host packs beside an agent which becomes process 1.
//!
//! A line for each, in order, as in fstab(5): `SOURCE TARGET TYPE ACCESS`. Bytes that could be taken for
//! something else are `\NNN`, in octal. The target `/` is the root that the agent goes over to.

use std::fmt::Write as _;

/// The table's place in the agent's first root.
pub const TABLE: &str = "/.vmm/mounts";

/// What is mounted where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// A device, or the name that a file system goes by.
    pub source: Vec<u8>,
    /// An absolute path.
    pub target: Vec<u8>,
    /// As the kernel calls it.
    pub fstype: String,
    /// What becomes of writes.
    pub access: Access,
}

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They are refused.
    ReadOnly,
    /// They reach the file system.
    ReadWrite,
    /// They stay in the guest's memory.
    Overlay,
}

impl Access {
    const ALL: [Access; 3] = [Access::ReadOnly, Access::ReadWrite, Access::Overlay];

    fn word(self) -> &'static str {
        match self {
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
            Access::Overlay => "overlay",
        }
    }
}

/// A line that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the table of mounts is unreadable: `{0}`")]
pub struct MountError(String);

impl Mount {
    /// Its line, without the end.
    pub fn to_line(&self) -> String {
        let Mount { source, target, fstype, access } = self;
        let (source, target, fstype) =
            (escaped(source), escaped(target), escaped(fstype.as_bytes()));
        format!("{source} {target} {fstype} {}", access.word())
    }

    /// What a line says.
    pub fn parse(line: &str) -> Result<Self, MountError> {
        Self::read(line).ok_or_else(|| MountError(line.to_owned()))
    }

    /// All lines of a table.
    pub fn parse_table(table: &str) -> Result<Vec<Self>, MountError> {
        table.lines().map(Self::parse).collect()
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (source, target) = (unescaped(words.next()?)?, unescaped(words.next()?)?);
        let fstype = String::from_utf8(unescaped(words.next()?)?).ok()?;
        let word = words.next()?;
        let access = Access::ALL.into_iter().find(|access| access.word() == word)?;
        let usable = |bytes: &[u8]| !bytes.is_empty() && !bytes.contains(&0);
        let good = usable(&source)
            && usable(&target)
            && usable(fstype.as_bytes())
            && target.starts_with(b"/")
            && words.next().is_none();
        good.then_some(Mount { source, target, fstype, access })
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' {
            text.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\{byte:03o}");
        }
    }
    text
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\' {
            let (digits, after) = rest.split_first_chunk::<3>()?;
            let digits = str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 8).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_like_those_of_fstab() {
        let mount = Mount {
            source: b"/dev/vda1".to_vec(),
            target: b"/a b\\".to_vec(),
            fstype: "ext4".into(),
            access: Access::Overlay,
        };
        assert_eq!(mount.to_line(), r"/dev/vda1 /a\040b\134 ext4 overlay");
        assert_eq!(Mount::parse(&mount.to_line()), Ok(mount));
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "a / b",
            "a / b rx",
            "a b c ro",
            "a / b ro more",
            r"a\ / b ro",
            r"a\999 / b ro",
            r"a\000 / b ro",
        ] {
            assert_eq!(Mount::parse(line), Err(MountError(line.into())), "{line}");
        }
        assert!(Mount::parse_table("a / b ro\nc\n").is_err());
        assert_eq!(Mount::parse_table("").unwrap(), []);
    }

    proptest! {
        #[test]
        fn every_mount_survives(source in proptest::collection::vec(1u8.., 1..40),
                                target in proptest::collection::vec(1u8.., 0..40)) {
            let target = [b"/", &target[..]].concat();
            let mount = Mount { source, target, fstype: "a b".into(), access: Access::ReadOnly };
            prop_assert_eq!(Mount::parse(&mount.to_line()), Ok(mount));
        }

        #[test]
        fn any_line_is_read(line: String) {
            let _ = Mount::parse(&line);
        }
    }
}
