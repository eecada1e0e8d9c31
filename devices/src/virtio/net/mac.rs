//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The address of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// A text is not the address of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MacError {
    /// Not six bytes in hexadecimal.
    #[error("`{0}` is not a MAC address; write it as 52:54:00:12:34:56")]
    Format(String),
    /// A group address, or all zeroes.
    #[error(
        "{0} is not the address of one interface; its first byte must be even, and one byte not zero"
    )]
    NotUnicast(MacAddress),
}

impl MacAddress {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// An address that nobody else has, most probably: 46 random bits, locally administered.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 6];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
        }
        bytes[0] = bytes[0] & !1 | 2;
        Ok(Self(bytes))
    }

    /// Whether it names a group, as broadcast does.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether an interface can have it.
    pub fn is_unicast(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError::Format(text.into());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            let digits = matches!(part.len(), 1 | 2) && part.bytes().all(|c| c.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        let address = Self(bytes);
        if address.is_unicast() { Ok(address) } else { Err(MacError::NotUnicast(address)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_back() {
        let address: MacAddress = "52:54:0:12:34:aB".parse().unwrap();
        assert_eq!(address.to_string(), "52:54:00:12:34:ab");
        for text in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:00:12:34:+5", "é:1:1:1:1:1"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(MacError::Format(text.into())));
        }
        for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            assert!(matches!(text.parse::<MacAddress>(), Err(MacError::NotUnicast(_))));
        }
    }

    #[test]
    fn random_addresses_are_usable_and_differ() {
        let (one, other) = (MacAddress::random().unwrap(), MacAddress::random().unwrap());
        assert!(one.is_unicast() && one.0[0] & 2 != 0);
        assert_ne!(one, other);
    }
}
