//! All connections of a device: a bounded number of slots.

use std::collections::HashMap;

use super::connection::{Connection, Key, Phase, Socket};

/// Names a connection for as long as it is there, also where it can end meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) index: u32,
    generation: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<Key, u32>,
    capacity: usize,
}

impl Table {
    /// Room for so many. Memory grows with what is used.
    pub(super) fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_key: HashMap::new(), capacity }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() == self.capacity
    }

    /// Add a connection. None if there is no room.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<Id> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.capacity => {
                self.slots.push(Slot::default());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        slot.connection = Some(connection);
        Some(Id { index, generation: slot.generation })
    }

    /// Let packets find a connection. Whoever calls has seen that the key is free.
    pub(super) fn name(&mut self, index: u32, key: Key) {
        self.by_key.insert(key, index);
        if let Some(connection) = self.get(index) {
            connection.key = key;
        }
    }

    pub(super) fn find(&self, key: Key) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn get(&mut self, index: u32) -> Option<&mut Connection> {
        self.slots.get_mut(index as usize)?.connection.as_mut()
    }

    /// The connection of that name, if it is still there.
    pub(super) fn get_by_id(&mut self, id: Id) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let connection = slot.connection.as_mut()?;
        let there = slot.generation == id.generation && !matches!(connection.phase, Phase::Gone);
        there.then_some(connection)
    }

    /// The connection ends. Its slot is free when no operation waits on its socket any more.
    pub(super) fn end(&mut self, index: u32) {
        let Some(connection) = self.get(index) else { return };
        let key = connection.key;
        *connection = Connection {
            state: connection.state & (Socket::WAITS_IN | Socket::WAITS_OUT),
            ..Connection::new(key, Phase::Gone, None, 0)
        };
        if self.by_key.get(&key) == Some(&index) {
            self.by_key.remove(&key);
        }
        self.release(index);
    }

    /// Free the slot of a connection that is gone, if nothing waits for it.
    pub(super) fn release(&mut self, index: u32) {
        let Some(connection) = self.get(index) else { return };
        let waits = connection.state.intersects(Socket::WAITS_IN | Socket::WAITS_OUT);
        if waits || !matches!(connection.phase, Phase::Gone) {
            return;
        }
        let slot = &mut self.slots[index as usize];
        slot.connection = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }
}
