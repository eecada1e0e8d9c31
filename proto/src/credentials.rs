//! The secret that host and agent share, one for each boot.
//!
//! The host writes it into the guest's SMBIOS tables as an OEM string (DMTF DSP0134, type 11),
//! which only root can read in the guest. Each call carries it in the `authorization` metadata.

use std::fmt;

/// The bytes of a secret.
pub const SECRET_BYTES: usize = 32;

const OEM_KEY: &str = "vmm.agent.secret=";
const SCHEME: &str = "Bearer ";

/// A secret. Comparing two takes the same time wherever they differ.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

/// Not a secret in its written form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret is written as {} hexadecimal digits", SECRET_BYTES * 2)]
pub struct MalformedSecret;

impl Secret {
    /// A secret of random bytes.
    pub fn new(random: [u8; SECRET_BYTES]) -> Self {
        Secret(random)
    }

    /// Reads the written form.
    pub fn parse(text: &str) -> Result<Self, MalformedSecret> {
        let digits = text.as_bytes();
        if digits.len() != SECRET_BYTES * 2 {
            return Err(MalformedSecret);
        }
        let mut bytes = [0; SECRET_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Secret(bytes))
    }

    /// The written form.
    pub fn to_hex(&self) -> String {
        let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The OEM string that carries it into the guest.
    pub fn to_oem_string(&self) -> String {
        format!("{OEM_KEY}{}", self.to_hex())
    }

    /// The secret of an OEM string; None if the string is about something else.
    pub fn from_oem_string(text: &str) -> Option<Result<Self, MalformedSecret>> {
        text.strip_prefix(OEM_KEY).map(Self::parse)
    }

    /// The value of the `authorization` metadata.
    pub fn to_authorization(&self) -> String {
        format!("{SCHEME}{}", self.to_hex())
    }

    /// Whether a value of the `authorization` metadata carries this secret.
    pub fn authorizes(&self, value: &str) -> bool {
        value.strip_prefix(SCHEME).and_then(|text| Self::parse(text).ok()).is_some_and(|other| {
            self.0.iter().zip(other.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
        })
    }
}

fn digit(letter: u8) -> Result<u8, MalformedSecret> {
    (letter as char).to_digit(16).map(|value| value as u8).ok_or(MalformedSecret)
}

/// Without its bytes.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_secret_authorizes_itself_alone(bytes: [u8; SECRET_BYTES], bit in 0..SECRET_BYTES * 8) {
            let secret = Secret::new(bytes);
            prop_assert!(secret.authorizes(&secret.to_authorization()));
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!secret.authorizes(&Secret::new(other).to_authorization()));
        }

        #[test]
        fn it_travels_in_an_oem_string(bytes: [u8; SECRET_BYTES]) {
            let secret = Secret::new(bytes);
            let read = Secret::from_oem_string(&secret.to_oem_string()).unwrap().unwrap();
            prop_assert_eq!(read.0, bytes);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            let secret = Secret::new([1; SECRET_BYTES]);
            prop_assert!(!secret.authorizes(&text));
            let _ = Secret::parse(&text);
            let _ = Secret::from_oem_string(&text);
        }
    }

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new([1; SECRET_BYTES])), "Secret(..)");
    }
}
