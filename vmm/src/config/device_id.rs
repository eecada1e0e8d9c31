//! What the user calls a device.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A device's id: 1 to 20 bytes of printable ASCII, which is what a disk's serial number may be
/// (virtio 1.3, 5.2.6: `GET_ID`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// It is no id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an id has 1 to {} printable ASCII characters", DeviceId::MAX_LEN)]
pub struct DeviceIdError;

impl DeviceId {
    /// The field of the request is that long.
    pub const MAX_LEN: usize = 20;

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceIdError;

    fn try_from(text: String) -> Result<Self, DeviceIdError> {
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if printable && (1..=Self::MAX_LEN).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(DeviceIdError)
        }
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}
