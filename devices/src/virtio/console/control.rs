//! The control queues (virtio 1.3 section 5.3.6.2): which ports there are, and who has them open.
//!
//! ```text
//!   driver: DEVICE_READY ─► ADD of each port is owed ─► driver: PORT_READY ─► the rest is owed
//! ```
//!
//! What the driver has to be told is kept as flags of each port, not as messages: a driver that asks
//! again and again and takes no answers costs nothing.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use zerocopy::IntoBytes;

use super::Console;
use super::failure::Failure;
use super::port::{Owed, PortRole};
use super::protocol::{MESSAGE_BYTES, Message, event};
use crate::virtio::queue::Chain;
use crate::virtio::worker::ActiveQueue;

/// Descriptors of a control queue.
pub(super) const QUEUE_SIZE: u16 = 64;

/// Serve messages from the driver until it is time to stop.
pub(super) async fn transmit(console: Rc<Console>, mut active: ActiveQueue) -> Vec<ActiveQueue> {
    if let Err(failure) = obey(&console, &mut active).await {
        active.fail(failure.to_string()).await;
    }
    vec![active]
}

async fn obey(console: &Console, active: &mut ActiveQueue) -> Result<(), Failure> {
    let mut chain = Chain::new(active.memory().clone(), active.queue.size().into());
    while active.available().await?.is_none() {
        // As many as the queue has: then others run.
        for _ in 0..active.queue.size() {
            if !active.queue.pop(&mut chain)? {
                break;
            }
            console.heard.set(true);
            if let Some(bytes) = chain.read_array::<MESSAGE_BYTES>() {
                take(console, zerocopy::transmute!(bytes));
            }
            active.queue.push_used(chain.head(), 0);
        }
        // A successor must know what the driver said before the driver knows that it was heard.
        console.store();
        console.changes.notify();
        active.publish();
        executor::yield_now().await;
    }
    Ok(())
}

/// Does what a message says. What makes no sense is passed over, as the driver does with ours.
pub(super) fn take(console: &Console, message: Message) {
    let Message { port, event, value } = message;
    if event == event::DEVICE_READY {
        if value == 1 {
            console.ports.iter().for_each(|port| port.owe(Owed::ADD));
        } else {
            console.complaints.warn(format_args!("console: the driver could not start it"));
        }
        return;
    }
    let Some(found) = console.ports.get(port as usize) else {
        console.complaints.warn(format_args!("console: the driver speaks of port {port}"));
        return;
    };
    match (event, value) {
        (event::PORT_READY, 1) => {
            found.ready.set(true);
            found.owe(match found.role {
                PortRole::Console => Owed::CONSOLE | Owed::OPEN,
                PortRole::Named(_) => Owed::NAME | Owed::OPEN,
            });
            console.owe_size(found);
        }
        (event::PORT_READY, _) => {
            console.complaints.warn(format_args!("console: the driver could not add port {port}"));
        }
        (event::PORT_OPEN, value) => found.open.set(value != 0),
        _ => {}
    }
}

/// Serve messages to the driver until it is time to stop.
pub(super) async fn receive(console: Rc<Console>, mut active: ActiveQueue) -> Vec<ActiveQueue> {
    if let Err(failure) = tell(&console, &mut active).await {
        active.fail(failure.to_string()).await;
    }
    vec![active]
}

async fn tell(console: &Console, active: &mut ActiveQueue) -> Result<(), Failure> {
    let mut chain = Chain::new(active.memory().clone(), active.queue.size().into());
    while is_owed_something(console, active).await {
        if active.available().await?.is_some() {
            return Ok(());
        }
        while let Some((index, owed)) = console.next_owed() {
            if !active.queue.pop(&mut chain)? {
                break;
            }
            let (head, message) = (chain.head(), console.message(index, owed));
            if (chain.writable_bytes() as usize) < message.len() {
                let (bytes, wanted) = (chain.writable_bytes(), message.len());
                return Err(Failure::ShortBuffer { head, bytes, wanted });
            }
            chain.write(&message);
            active.queue.push_used(head, message.len() as u32);
            let port = &console.ports[index];
            port.owed.set(port.owed.get() - owed);
        }
        // Only now: a message that comes twice does no harm, one that never comes does.
        active.publish();
        console.store();
        executor::yield_now().await;
    }
    Ok(())
}

/// Ready with true when there is something to say, with false when it is time to stop.
async fn is_owed_something(console: &Console, active: &ActiveQueue) -> bool {
    poll_fn(|context| {
        if active.poll_stop(context).is_some() {
            return Poll::Ready(false);
        }
        if console.next_owed().is_some() {
            return Poll::Ready(true);
        }
        console.changes.register(context);
        Poll::Pending
    })
    .await
}

impl Console {
    /// The message that the driver gets next.
    fn next_owed(&self) -> Option<(usize, Owed)> {
        let owed = |(index, port): (usize, &super::port::Port)| {
            Some((index, port.owed.get().iter().next()?))
        };
        self.ports.iter().enumerate().find_map(owed)
    }

    fn message(&self, index: usize, owed: Owed) -> Vec<u8> {
        let port = &self.ports[index];
        let window = self.window.get();
        let (event, value, more) = match owed {
            Owed::ADD => (event::PORT_ADD, 0, &[][..]),
            Owed::CONSOLE => (event::CONSOLE_PORT, 1, &[][..]),
            Owed::OPEN => (event::PORT_OPEN, 1, &[][..]),
            Owed::RESIZE => (event::RESIZE, 0, window.as_bytes()),
            _ => match &port.role {
                PortRole::Named(name) => (event::PORT_NAME, 1, name.as_bytes()),
                // A state file that nobody of ours has written.
                PortRole::Console => (event::PORT_NAME, 1, &b"console"[..]),
            },
        };
        let message = Message { port: index as u32, event, value };
        [message.as_bytes(), more].concat()
    }
}
