//! What a driver says of ports and hears of them, where a test has no guest (virtio 1.3 section 5.3.6.2).

use crate::virtio::queue::driver::BlockingDriver;

/// Where the device writes messages, of a console with several ports.
pub const MESSAGES: usize = 2;
/// Where the driver writes its own.
pub const ANSWERS: usize = 3;

/// The driver is there.
pub const DEVICE_READY: u16 = 0;
/// There is a port.
pub const PORT_ADD: u16 = 1;
/// The driver has it.
pub const PORT_READY: u16 = 3;
/// Somebody has it open.
pub const PORT_OPEN: u16 = 6;
/// Its name follows.
pub const PORT_NAME: u16 = 7;

/// A message of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Which port.
    pub port: u32,
    /// What there is to say of it.
    pub event: u16,
    /// What follows.
    pub rest: Vec<u8>,
}

/// Says something of a port, and waits until it was heard.
pub fn tell(driver: &mut BlockingDriver, port: u32, event: u16) {
    let message = [&port.to_le_bytes()[..], &event.to_le_bytes(), &1_u16.to_le_bytes()];
    driver.say(ANSWERS, &message.concat());
    driver.taken(ANSWERS);
}

/// Waits for the next message.
///
/// # Panics
///
/// If it is none.
pub fn told(driver: &mut BlockingDriver) -> Told {
    driver.listen(MESSAGES);
    let message = driver.heard(MESSAGES);
    let (port, rest) = message.split_first_chunk().expect("a port");
    let (event, rest) = rest.split_first_chunk().expect("an event");
    let rest = rest.get(2..).expect("a value").to_vec();
    Told { port: u32::from_le_bytes(*port), event: u16::from_le_bytes(*event), rest }
}
