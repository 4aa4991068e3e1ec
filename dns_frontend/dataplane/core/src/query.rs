//! A query's octets to a [`Query`]: strict, bounded, and nothing copied.
//!
//! Refuses exactly what `responder/message.py` refuses, with the same code.

use crate::edns::{self, Edns};

/// Octets of a message's header.
pub const HEADER_OCTETS: usize = 12;
pub(crate) const NAME_MAX_OCTETS: usize = 255;
pub(crate) const LABELS_MAX: usize = 127;
const LABEL_MAX_OCTETS: u8 = 63;
const POINTER: u8 = 0xC0;
const QUERY_RECORDS_MAX: usize = 4;
const RECORD_TAIL_OCTETS: usize = 10;
const QUESTION_TAIL_OCTETS: usize = 4;
const OPCODE_MASK: u16 = 0x7800;
pub(crate) const RD: u16 = 0x0100;
pub(crate) const TYPE_OPT: u16 = 41;
pub(crate) const TYPE_HTTPS: u16 = 65;

/// Response codes that the data plane gives by itself.
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const BADVERS: u16 = 16;
    pub(crate) const BADCOOKIE: u16 = 23;
}

/// Where the labels of a name begin, leftmost first, as offsets into it; without the root's.
pub(crate) struct Labels {
    starts: [u8; LABELS_MAX + 1],
    count: usize,
    set: [u64; 4],
}

impl Labels {
    fn new() -> Self {
        Labels { starts: [0; LABELS_MAX + 1], count: 0, set: [0; 4] }
    }

    fn push(&mut self, start: u8) {
        if let Some(slot) = self.starts.get_mut(self.count) {
            *slot = start;
            self.count += 1;
            if let Some(word) = self.set.get_mut(usize::from(start >> 6)) {
                *word |= 1 << (start & 63);
            }
        }
    }

    pub(crate) fn starts(&self) -> &[u8] {
        self.starts.get(..self.count).unwrap_or(&[])
    }

    /// Whether a label begins at this offset.
    pub(crate) fn begins_at(&self, offset: usize) -> bool {
        let word = self.set.get(offset >> 6).copied().unwrap_or(0);
        word >> (offset & 63) & 1 == 1
    }
}

/// One question. `question` is the section's octets, for the echo; `name` the first of them.
pub(crate) struct Query<'p> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) question: &'p [u8],
    pub(crate) name: &'p [u8],
    pub(crate) labels: Labels,
    pub(crate) rtype: u16,
    pub(crate) rclass: u16,
    pub(crate) edns: Option<Edns<'p>>,
}

/// The query is answered with this code and nothing but a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadQuery(pub(crate) u16);

const FORMERR: BadQuery = BadQuery(rcode::FORMERR);

/// Whether anything at all is to be said to it: it has a header, and is not an answer itself.
pub fn is_query(packet: &[u8]) -> bool {
    packet.len() >= HEADER_OCTETS && packet.get(2).is_some_and(|octet| octet & 0x80 == 0)
}

/// The 16 bits at `at`, big-endian.
pub(crate) fn be16(octets: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    octets.get(at..end)?.try_into().ok().map(u16::from_be_bytes)
}

fn be32(octets: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    octets.get(at..end)?.try_into().ok().map(u32::from_be_bytes)
}

/// The query in `packet`, for which `is_query` holds.
pub(crate) fn parse(packet: &[u8]) -> Result<Query<'_>, BadQuery> {
    let field = |index: usize| be16(packet, 2 * index).ok_or(FORMERR);
    let (id, flags) = (field(0)?, field(1)?);
    if flags & OPCODE_MASK != 0 {
        return Err(BadQuery(rcode::NOTIMP));
    }
    if field(2)? != 1 {
        return Err(FORMERR);
    }
    let mut labels = Labels::new();
    let end = name_end(packet, &mut labels)?;
    let at = end + QUESTION_TAIL_OCTETS;
    let question = packet.get(HEADER_OCTETS..at).ok_or(FORMERR)?;
    let name = packet.get(HEADER_OCTETS..end).ok_or(FORMERR)?;
    let rtype = be16(packet, end).ok_or(FORMERR)?;
    let rclass = be16(packet, end + 2).ok_or(FORMERR)?;
    let before = usize::from(field(3)?) + usize::from(field(4)?);
    let additionals = usize::from(field(5)?);
    let edns = find_edns(packet, at, before, before + additionals)?;
    Ok(Query { id, flags, question, name, labels, rtype, rclass, edns })
}

/// Where the name of the question ends. A pointer has nothing to point at there, and is refused.
fn name_end(packet: &[u8], labels: &mut Labels) -> Result<usize, BadQuery> {
    let mut at = HEADER_OCTETS;
    loop {
        let length = *packet.get(at).ok_or(FORMERR)?;
        if length > LABEL_MAX_OCTETS {
            return Err(FORMERR);
        }
        let next = at + 1 + usize::from(length);
        if next - HEADER_OCTETS > NAME_MAX_OCTETS {
            return Err(FORMERR);
        }
        if length == 0 {
            return Ok(next);
        }
        labels.push((at - HEADER_OCTETS) as u8);
        at = next;
    }
}

/// Past a record's owner name, which may end in a pointer; where that points does not matter to us.
fn skip_name(packet: &[u8], begin: usize) -> Result<usize, BadQuery> {
    let mut at = begin;
    loop {
        let length = *packet.get(at).ok_or(FORMERR)?;
        if length >= POINTER {
            return Ok(at + 2);
        }
        if length > LABEL_MAX_OCTETS || at - begin > NAME_MAX_OCTETS {
            return Err(FORMERR);
        }
        at += 1 + usize::from(length);
        if length == 0 {
            return Ok(at);
        }
    }
}

/// The OPT record among the `total` records after the question; one, named by the root, after the first `before`.
fn find_edns(packet: &[u8], begin: usize, before: usize, total: usize) -> Result<Option<Edns<'_>>, BadQuery> {
    if total > QUERY_RECORDS_MAX {
        return Err(FORMERR);
    }
    let mut found = None;
    let mut at = begin;
    for index in 0..total {
        let is_root = packet.get(at) == Some(&0);
        at = skip_name(packet, at)?;
        let rtype = be16(packet, at).ok_or(FORMERR)?;
        let rclass = be16(packet, at + 2).ok_or(FORMERR)?;
        let ttl = be32(packet, at + 4).ok_or(FORMERR)?;
        let length = usize::from(be16(packet, at + 8).ok_or(FORMERR)?);
        at += RECORD_TAIL_OCTETS;
        let data = packet.get(at..at + length).ok_or(FORMERR)?;
        if rtype == TYPE_OPT {
            if found.is_some() || !is_root || index < before {
                return Err(FORMERR);
            }
            found = Some(edns::parse_opt(rclass, ttl, data));
        }
        at += length;
    }
    Ok(found)
}
