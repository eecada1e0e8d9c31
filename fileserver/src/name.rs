//! Names of files, as clients send them.

use std::ffi::CStr;

use rustix::io::Errno;
use thiserror::Error;

/// The longest name that file systems take.
const MAX_LENGTH: usize = 255;

/// One component of a path: not empty, no slash, neither `.` nor `..`, at most 255 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Ends with at least one zero, so that the kernel can read it where it is.
    bytes: [u8; MAX_LENGTH + 1],
    length: u8,
}

/// Why bytes are no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing.
    #[error("a name is empty")]
    Empty,
    /// More than 255 bytes.
    #[error("a name is too long")]
    TooLong,
    /// `.` or `..`, which are places and no names.
    #[error("a name is `.` or `..`")]
    Dots,
    /// A slash or a zero.
    #[error("a name has a slash or a zero in it")]
    Separator,
}

impl From<NameError> for Errno {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Empty => Errno::NOENT,
            NameError::TooLong => Errno::NAMETOOLONG,
            NameError::Dots | NameError::Separator => Errno::INVAL,
        }
    }
}

impl Name {
    /// Checks bytes, without a zero at the end.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            b"" => return Err(NameError::Empty),
            b"." | b".." => return Err(NameError::Dots),
            _ if bytes.len() > MAX_LENGTH => return Err(NameError::TooLong),
            _ if bytes.iter().any(|byte| matches!(byte, b'/' | 0)) => {
                return Err(NameError::Separator);
            }
            _ => {}
        }
        let mut name = Self { bytes: [0; MAX_LENGTH + 1], length: bytes.len() as u8 };
        name.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(name)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// For system calls.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_lead_elsewhere_is_no_name() {
        let table: [(&[u8], NameError); 8] = [
            (b"", NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"/", NameError::Separator),
            (b"a/b", NameError::Separator),
            (b"../x", NameError::Separator),
            (b"a\0b", NameError::Separator),
            (&[b'a'; 256], NameError::TooLong),
        ];
        for (bytes, error) in table {
            assert_eq!(Name::new(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = Name::new(&bytes) {
                prop_assert_eq!(name.as_bytes(), &bytes[..]);
                prop_assert_eq!(name.as_c_str().to_bytes(), &bytes[..]);
            }
        }
    }
}
