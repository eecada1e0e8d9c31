//! What the guest knows of the ports, and what it has to say of them (virtio 1.3 section 5.3.6.2).

use std::collections::{BTreeSet, VecDeque};

use devices::virtio::console::{PortRole, WindowSize};

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// A message about a port: what happens, and how.
pub(super) type Message = (u32, u16, u16);

/// Bytes of a message of the guest.
pub(super) const MESSAGE_BYTES: usize = 8;

pub(super) fn bytes((port, event, value): Message) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

#[derive(Debug, Clone, Default)]
struct Known {
    /// Events that the guest heard of it.
    heard: BTreeSet<u16>,
    /// The guest's program has it open.
    used: bool,
}

/// All ports of a device.
pub(super) struct Ports {
    roles: Vec<PortRole>,
    known: Vec<Known>,
    /// What the guest has to say.
    pub(super) outbox: VecDeque<Message>,
    /// The last size of the window that the guest heard.
    pub(super) window: Option<WindowSize>,
}

impl Ports {
    pub(super) fn new(roles: Vec<PortRole>) -> Self {
        let known = vec![Known::default(); roles.len()];
        Self { roles, known, outbox: VecDeque::new(), window: None }
    }

    /// The guest's driver starts.
    pub(super) fn start(&mut self) {
        self.known.fill(Known::default());
        self.window = None;
        self.outbox = VecDeque::from([(u32::MAX, DEVICE_READY, 1)]);
    }

    /// The device says something.
    ///
    /// # Panics
    ///
    /// If it makes no sense.
    pub(super) fn heard(&mut self, message: &[u8]) {
        let (fixed, more) = message.split_at_checked(MESSAGE_BYTES).expect("a whole message");
        let port = u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
        let event = u16::from_le_bytes([fixed[4], fixed[5]]);
        let value = u16::from_le_bytes([fixed[6], fixed[7]]);
        let known = self.known.get_mut(port as usize).expect("a port that there is");
        let role = &self.roles[port as usize];
        let is_new = known.heard.insert(event);
        assert!(known.heard.contains(&PORT_ADD), "event {event} of a port that is not there");
        match (event, value, role) {
            (PORT_ADD, 0, _) => {
                // A driver has it once, however often it hears of it.
                if is_new {
                    known.used = true;
                    self.outbox.push_back((port, PORT_READY, 1));
                    self.outbox.push_back((port, PORT_OPEN, 1));
                }
            }
            (CONSOLE_PORT, 1, PortRole::Console) | (PORT_OPEN, 1, _) => {}
            (PORT_NAME, 1, PortRole::Named(name)) => {
                assert_eq!(more, name.as_bytes(), "the name of port {port}");
            }
            (RESIZE, _, PortRole::Console) => {
                let number = |at: usize| u16::from_le_bytes([more[at], more[at + 1]]);
                assert_eq!(more.len(), 4, "a size");
                self.window = Some(WindowSize { columns: number(0), rows: number(2) });
            }
            _ => panic!("event {event} with {value} of port {port}"),
        }
    }

    /// A program of the guest opens or closes a port that is there.
    pub(super) fn turn(&mut self, port: usize) {
        let known = &mut self.known[port];
        if known.heard.contains(&PORT_ADD) {
            known.used = !known.used;
            self.outbox.push_back((port as u32, PORT_OPEN, u16::from(known.used)));
        }
    }

    /// Programs of the guest open all ports that are there.
    pub(super) fn open_all(&mut self) {
        for port in 0..self.known.len() {
            if !self.known[port].used {
                self.turn(port);
            }
        }
    }

    /// A port of which the guest should know more.
    pub(super) fn unknown(&self) -> Option<usize> {
        let is_known = |(role, known): (&PortRole, &Known)| {
            let kind = if *role == PortRole::Console { CONSOLE_PORT } else { PORT_NAME };
            [PORT_OPEN, kind].iter().all(|event| known.heard.contains(event))
        };
        let mut all = self.roles.iter().zip(&self.known);
        all.position(|both| !is_known(both))
    }
}
