//! HTTPS records of a service's names, as `table/https.py` makes them: what was compiled, then a client's addresses as hints.

use crate::names::record_head;
use crate::query::TYPE_HTTPS;
use crate::service::Ring;
use crate::writer::{Stop, Writer};

/// Keys of the hints (RFC 9460 section 14.3.2).
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;

/// One record of the question's name.
pub(crate) struct Hinted<'t> {
    pub(crate) ttl: u32,
    /// The data before the hints.
    pub(crate) head: &'t [u8],
    pub(crate) ipv4: Option<Ring<'t>>,
    pub(crate) ipv6: Option<Ring<'t>>,
}

impl Hinted<'_> {
    /// The record, its addresses rotated by `by`.
    pub(crate) fn write(&self, writer: &mut Writer, by: u16) -> Result<(), Stop> {
        let hints = [(IPV4HINT, &self.ipv4), (IPV6HINT, &self.ipv6)];
        let given = || hints.iter().filter_map(|(key, ring)| ring.as_ref().map(|ring| (*key, ring)));
        let octets = self.head.len() + given().map(|(_, ring)| 4 + ring.octets()).sum::<usize>();
        let octets = u16::try_from(octets).map_err(|_| Stop::Full)?;
        writer.put(&record_head(TYPE_HTTPS, self.ttl, octets)).ok_or(Stop::Full)?;
        writer.put(self.head).ok_or(Stop::Full)?;
        let orders = given().map(|(_, ring)| ring.count).max().unwrap_or(1);
        let turn = usize::from(by).checked_rem(orders).unwrap_or(0) as u16;
        for (key, ring) in given() {
            writer.put(&key.to_be_bytes()).ok_or(Stop::Full)?;
            writer.put(&(ring.octets() as u16).to_be_bytes()).ok_or(Stop::Full)?;
            for address in ring.addresses(turn) {
                writer.put(address).ok_or(Stop::Full)?;
            }
        }
        Ok(())
    }
}
