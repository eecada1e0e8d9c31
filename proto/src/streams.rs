//! The frames at the start of a raw stream.
//!
//! ```text
//!   host ──▶ agent   "VMS1" and the ticket's 16 bytes
//!   host ◀── agent   one byte: 0 accepted, 1 refused
//!   from here on: bytes, with the socket's own flow control and half-close
//! ```
//!
//! A ticket is random, good for one connection, and known only to who got it in answer to a call.

use std::fmt;

/// The bytes of a ticket.
pub const TICKET_BYTES: usize = 16;
/// The bytes of the frame with which the host starts.
pub const HELLO_BYTES: usize = MAGIC.len() + TICKET_BYTES;

const MAGIC: [u8; 4] = *b"VMS1";
const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;

/// Names a stream that waits for its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket([u8; TICKET_BYTES]);

/// Why bytes are not the start of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer speaks something else.
    #[error("the connection does not start with the stream protocol's mark")]
    NotAStream,
    /// A ticket of another length.
    #[error("a ticket has {TICKET_BYTES} bytes, not {0}")]
    TicketLength(usize),
    /// The ticket is unknown, used or out of date.
    #[error("the agent refused the stream's ticket")]
    Refused,
    /// An answer that is neither yes nor no.
    #[error("the agent answered {0} instead of accepting or refusing a stream")]
    Answer(u8),
}

/// What the agent says to a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Bytes follow.
    Accepted,
    /// The connection ends.
    Refused,
}

impl Ticket {
    /// A ticket of random bytes.
    pub fn new(random: [u8; TICKET_BYTES]) -> Self {
        Ticket(random)
    }

    /// A ticket out of a message.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, StreamError> {
        bytes.try_into().map(Ticket).map_err(|_| StreamError::TicketLength(bytes.len()))
    }

    /// Its bytes, for a message.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// The frame with which the host starts.
    pub fn hello(self) -> [u8; HELLO_BYTES] {
        let mut frame = [0; HELLO_BYTES];
        frame[..MAGIC.len()].copy_from_slice(&MAGIC);
        frame[MAGIC.len()..].copy_from_slice(&self.0);
        frame
    }

    /// Reads the frame with which the host starts.
    pub fn from_hello(frame: [u8; HELLO_BYTES]) -> Result<Self, StreamError> {
        let (magic, ticket) = frame.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(StreamError::NotAStream);
        }
        Self::from_slice(ticket)
    }
}

impl Answer {
    /// The byte that says it.
    pub fn byte(self) -> u8 {
        match self {
            Answer::Accepted => ACCEPTED,
            Answer::Refused => REFUSED,
        }
    }

    /// What a byte says.
    pub fn check(byte: u8) -> Result<(), StreamError> {
        match byte {
            ACCEPTED => Ok(()),
            REFUSED => Err(StreamError::Refused),
            other => Err(StreamError::Answer(other)),
        }
    }
}

/// Without its bytes: whoever reads a log must not get at the stream.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_sent_is_read(bytes: [u8; TICKET_BYTES]) {
            let ticket = Ticket::new(bytes);
            prop_assert_eq!(Ticket::from_hello(ticket.hello()), Ok(ticket));
            prop_assert_eq!(Ticket::from_slice(&ticket.to_vec()), Ok(ticket));
        }

        #[test]
        fn other_bytes_are_refused(frame: [u8; HELLO_BYTES]) {
            let expected = frame.starts_with(&MAGIC);
            prop_assert_eq!(Ticket::from_hello(frame).is_ok(), expected);
        }

        #[test]
        fn tickets_have_one_length(bytes: Vec<u8>) {
            prop_assert_eq!(Ticket::from_slice(&bytes).is_ok(), bytes.len() == TICKET_BYTES);
        }

        #[test]
        fn only_one_byte_accepts(byte: u8) {
            prop_assert_eq!(Answer::check(byte).is_ok(), byte == Answer::Accepted.byte());
        }
    }

    #[test]
    fn a_ticket_does_not_show_its_bytes() {
        assert_eq!(format!("{:?}", Ticket::new([7; TICKET_BYTES])), "Ticket(..)");
    }
}
