//! Messages that the reference shall answer: as many octets as there is room for, and not one more.

use std::sync::Mutex;

use gslb_dns_core::Client;

use crate::sys::Peer;

/// Octets that may wait, of each thread: some hundred queries, which Python answers in some ten milliseconds.
const WAITING_MAX_OCTETS: usize = 32 << 10;
/// Samples for the log leave the rest of it to those who wait for an answer.
const SAMPLES_MAX_OCTETS: usize = WAITING_MAX_OCTETS / 4;
/// In the number of the socket: the message has been answered, and is for the log.
const SAMPLED: u16 = 0x8000;

/// What one thread has left to the reference.
pub(crate) struct Backlog {
    waiting: Mutex<Vec<u8>>,
}

/// What became of a message.
pub(crate) enum Put {
    /// It waits alone: whoever answers is to be woken.
    First,
    /// It waits behind others.
    Waits,
    /// There was no room.
    Dropped,
}

impl Backlog {
    pub(crate) fn new() -> Self {
        Backlog { waiting: Mutex::new(Vec::with_capacity(WAITING_MAX_OCTETS)) }
    }

    /// Adds a message of `socket`. In the octets: length (u16), socket (u16), port (u16), IP version (u8), version of the
    /// local address or 0 (u8), scope (u32), interface (u32), address (16), local address (16), packet; little-endian,
    /// addresses big-endian.
    pub(crate) fn put(&self, socket: u16, peer: &Peer, packet: &[u8]) -> Put {
        self.put_within(WAITING_MAX_OCTETS, socket, peer, packet)
    }

    /// Adds a message for the log: one that is answered all the same.
    pub(crate) fn put_sample(&self, socket: u16, peer: &Peer, packet: &[u8]) -> Put {
        self.put_within(SAMPLES_MAX_OCTETS, socket | SAMPLED, peer, packet)
    }

    fn put_within(&self, most: usize, socket: u16, peer: &Peer, packet: &[u8]) -> Put {
        // Only a panic while the lock is held poisons it, and there is nothing in here that panics.
        let Ok(mut waiting) = self.waiting.lock() else { return Put::Dropped };
        let first = waiting.is_empty();
        if waiting.len() + 48 + packet.len() > most {
            return Put::Dropped;
        }
        let (version, address) = octets_of(peer.address);
        let (local_version, local, interface) = match peer.local {
            Some((local, interface)) => {
                let (version, octets) = octets_of(local);
                (version, octets, interface)
            }
            None => (0, [0; 16], 0),
        };
        waiting.extend_from_slice(&(packet.len() as u16).to_le_bytes());
        waiting.extend_from_slice(&socket.to_le_bytes());
        waiting.extend_from_slice(&peer.port.to_le_bytes());
        waiting.extend_from_slice(&[version, local_version]);
        waiting.extend_from_slice(&peer.scope_id.to_le_bytes());
        waiting.extend_from_slice(&interface.to_le_bytes());
        waiting.extend_from_slice(&address);
        waiting.extend_from_slice(&local);
        waiting.extend_from_slice(packet);
        if first {
            Put::First
        } else {
            Put::Waits
        }
    }

    /// Moves all that waits to `out`; how many octets. What does not fit is left for the next time: all or nothing.
    pub(crate) fn take(&self, out: &mut [u8]) -> usize {
        let Ok(mut waiting) = self.waiting.lock() else { return 0 };
        let Some(room) = out.get_mut(..waiting.len()) else { return 0 };
        room.copy_from_slice(&waiting);
        let taken = waiting.len();
        waiting.clear();
        taken
    }
}

/// IP version and 16 octets; those of IPv4 are the first four.
fn octets_of(address: Client) -> (u8, [u8; 16]) {
    match address {
        Client::V4(value) => (4, (u128::from(value) << 96).to_be_bytes()),
        Client::V6(value) => (6, value.to_be_bytes()),
    }
}
