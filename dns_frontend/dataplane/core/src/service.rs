//! One service: for each locality the datacenters that share it, for each datacenter its addresses.
//!
//! The choices repeat `gslb/steer/choice.py` and `table/steering.py` step by step, floating point included.

use crate::blake2b::{digest64, PLAIN, WINDOW};
use crate::geo::Client;
use crate::https::Hinted;
use crate::names::{push_record, RECORD_OVERHEAD_OCTETS};
use crate::reader::{LoadError, Reader};

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const KEY_MAX_OCTETS: usize = 512;
/// What an HTTPS record may say before its hints.
const HTTPS_HEAD_MAX_OCTETS: usize = 1024;
const SPLIT: u8 = 1;
/// Of a locality's row: there is nothing to choose.
const SOLE: u16 = 0x8000;

/// A service, ready to answer for.
pub(crate) struct Service {
    ttl: u32,
    per_answer: u32,
    /// What an HTTPS record says before its hints; empty: there is none.
    https: Box<[u8]>,
    /// What comes before a client's prefix in the key of its choice: the service's name and a zero.
    key_head: Box<[u8]>,
    a: Option<Family>,
    aaaa: Option<Family>,
}

struct Family {
    /// No endpoint is healthy, so others are given.
    panic: bool,
    datacenters: Box<[Datacenter]>,
    entries: Box<[Entry]>,
    rows: Box<[Row]>,
    /// By locality: its row; or, where all clients go to one datacenter, `SOLE` and the index of that.
    row_of: Box<[u16]>,
    /// The records of all datacenters, one behind the other.
    wire: Box<[u8]>,
}

struct Datacenter {
    /// Its number in the layout.
    number: u16,
    addresses: u32,
    /// Where its records begin in the family's `wire`: one an address, behind a pointer to the question.
    start: u32,
}

struct Entry {
    salt: u64,
    share: f64,
    /// Index into `datacenters`.
    datacenter: u16,
}

#[derive(Clone, Copy)]
struct Row {
    first: u32,
    count: u16,
}

/// Where a client is sent, and what that depends on.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) datacenter: u16,
    pub(crate) by_locality: bool,
    pub(crate) by_key: bool,
    pub(crate) panic: bool,
}

/// `count` neighbours on a ring of records, from `begin` on, of which the first to give is number `turn`.
pub(crate) struct Ring<'t> {
    wire: &'t [u8],
    record_octets: usize,
    size: usize,
    begin: usize,
    pub(crate) count: usize,
}

impl<'t> Ring<'t> {
    /// The records in the order of an answer that is rotated by `by`.
    pub(crate) fn rotated(&self, by: u16) -> impl Iterator<Item = &'t [u8]> + '_ {
        let turn = usize::from(by).checked_rem(self.count).unwrap_or(0);
        (turn..self.count).chain(0..turn).map(move |place| {
            let mut at = self.begin + place;
            if at >= self.size {
                at -= self.size;
            }
            let start = at * self.record_octets;
            self.wire.get(start..start + self.record_octets).unwrap_or(&[])
        })
    }

    /// Their addresses alone.
    pub(crate) fn addresses(&self, by: u16) -> impl Iterator<Item = &'t [u8]> + '_ {
        self.rotated(by).map(|record| record.get(RECORD_OVERHEAD_OCTETS..).unwrap_or(&[]))
    }

    /// Octets of those.
    pub(crate) fn octets(&self) -> usize {
        self.count * self.record_octets.saturating_sub(RECORD_OVERHEAD_OCTETS)
    }
}

impl Service {
    pub(crate) fn load(reader: &mut Reader, layout_localities: usize, datacenters: usize) -> Result<Self, LoadError> {
        let ttl = reader.u32()?;
        let per_answer = reader.u32()?;
        let length = usize::from(reader.u16()?);
        let name = reader.take(length)?;
        if name.len() + 1 + 17 > KEY_MAX_OCTETS {
            return Err(LoadError::new("a service's name is too long"));
        }
        let mut key_head = name.to_vec();
        key_head.push(0);
        let length = usize::from(reader.u16()?);
        if length > HTTPS_HEAD_MAX_OCTETS {
            return Err(LoadError::new("a service's HTTPS record is too long"));
        }
        let https = Box::from(reader.take(length)?);
        let mut family = |rtype, octets| load_family(reader, rtype, octets, ttl, (layout_localities, datacenters));
        Ok(Service {
            ttl,
            per_answer,
            https,
            key_head: key_head.into_boxed_slice(),
            a: family(TYPE_A, 4)?,
            aaaa: family(TYPE_AAAA, 16)?,
        })
    }

    /// Whether any endpoint has an address.
    pub(crate) fn has_addresses(&self) -> bool {
        self.a.is_some() || self.aaaa.is_some()
    }

    /// The HTTPS record for a client; None when there is none.
    pub(crate) fn hinted(&self, locality: u16, client: Client) -> Option<(Choice, Hinted<'_>)> {
        if self.https.is_empty() {
            return None;
        }
        let ipv4 = self.steer(TYPE_A, locality, client);
        let ipv6 = self.steer(TYPE_AAAA, locality, client);
        let choice = match (&ipv4, &ipv6) {
            (Some((one, _)), Some((other, _))) => Choice {
                datacenter: one.datacenter,
                by_locality: one.by_locality || other.by_locality,
                by_key: one.by_key || other.by_key,
                panic: one.panic || other.panic,
            },
            (Some((only, _)), None) | (None, Some((only, _))) => *only,
            (None, None) => return None,
        };
        let ring = |found: Option<(Choice, _)>| found.map(|(_, ring)| ring);
        Some((choice, Hinted { ttl: self.ttl, head: &self.https, ipv4: ring(ipv4), ipv6: ring(ipv6) }))
    }

    /// The addresses of a type for a client; None when no endpoint of the service has one.
    pub(crate) fn steer(&self, rtype: u16, locality: u16, client: Client) -> Option<(Choice, Ring<'_>)> {
        let family = if rtype == TYPE_A { &self.a } else { &self.aaaa }.as_ref()?;
        let row = *family.row_of.get(usize::from(locality))?;
        let split = row & SOLE == 0;
        let chosen = if split {
            let row = family.rows.get(usize::from(row))?;
            let first = row.first as usize;
            let entries = family.entries.get(first..first + usize::from(row.count))?;
            stable_choice(entries, digest64(Key::new().of(&self.key_head, client), PLAIN)).unwrap_or(0)
        } else {
            row & !SOLE
        };
        let datacenter = family.datacenters.get(usize::from(chosen))?;
        let size = datacenter.addresses as usize;
        let wanted = self.per_answer as usize;
        let excess = size > wanted;
        let begin = if excess {
            let hashed = digest64(Key::new().of(&self.key_head, client), WINDOW);
            ((u128::from(hashed) * size as u128) >> 64) as usize
        } else {
            0
        };
        let choice = Choice {
            datacenter: datacenter.number,
            by_locality: family.datacenters.len() > 1,
            by_key: split || excess,
            panic: family.panic,
        };
        let ring = Ring {
            wire: family.wire.get(datacenter.start as usize..)?,
            record_octets: RECORD_OVERHEAD_OCTETS + if rtype == TYPE_A { 4 } else { 16 },
            size,
            begin,
            count: size.min(wanted),
        };
        Some((choice, ring))
    }
}

/// The key that clients steered alike have in common: the service, the IP version and the /24 or /56.
struct Key {
    octets: [u8; KEY_MAX_OCTETS],
}

impl Key {
    fn new() -> Self {
        Key { octets: [0; KEY_MAX_OCTETS] }
    }

    fn of(&mut self, head: &[u8], client: Client) -> &[u8] {
        let mut length = 0;
        let mut put = |octets: &[u8]| {
            for (to, from) in self.octets.iter_mut().skip(length).zip(octets) {
                *to = *from;
            }
            length += octets.len();
        };
        put(head);
        match client {
            Client::V4(value) => {
                put(&[4]);
                put(&(value >> 8 << 8).to_be_bytes());
            }
            Client::V6(value) => {
                put(&[6]);
                put(&(value >> 72 << 72).to_be_bytes());
            }
        }
        self.octets.get(..length).unwrap_or(&[])
    }
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let x = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The exponential race of `gslb.steer.choice.stable_choice`; entries are in the order of datacenters' names, and of equal
/// scores the first wins.
fn stable_choice(entries: &[Entry], hashed: u64) -> Option<u16> {
    const ULP: f64 = 1.0 / (1u64 << 53) as f64;
    let mut best: Option<(f64, u16)> = None;
    for entry in entries {
        let u = ((mix(hashed ^ entry.salt) >> 11) as f64 + 0.5) * ULP;
        let score = -u.ln() / entry.share;
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, entry.datacenter));
        }
    }
    best.map(|(_, datacenter)| datacenter)
}

fn load_family(
    reader: &mut Reader,
    rtype: u16,
    octets: usize,
    ttl: u32,
    (localities, layout_datacenters): (usize, usize),
) -> Result<Option<Family>, LoadError> {
    let count = usize::from(reader.u16()?);
    if count == 0 {
        return Ok(None);
    }
    let panic = reader.u8()? != 0;
    let mut wire = Vec::new();
    let mut datacenters = Vec::with_capacity(count.min(reader.left() / 6));
    for _ in 0..count {
        let start = wire.len() as u32;
        let (number, addresses) = load_datacenter(reader, rtype, octets, ttl, &mut wire)?;
        if usize::from(number) >= layout_datacenters {
            return Err(LoadError::new("a service has a datacenter that the layout does not have"));
        }
        datacenters.push(Datacenter { number, addresses, start });
    }
    let rows_count = usize::from(reader.u16()?);
    if rows_count >= usize::from(SOLE) || count >= usize::from(SOLE) {
        return Err(LoadError::new("a service has too many rows or datacenters"));
    }
    let mut rows = Vec::with_capacity(rows_count.min(reader.left() / 3));
    let mut soles = Vec::with_capacity(rows.capacity());
    let mut entries = Vec::new();
    for _ in 0..rows_count {
        let (row, sole) = load_row(reader, &mut entries, count)?;
        rows.push(row);
        soles.push(sole);
    }
    let mut row_of = Vec::with_capacity(localities.min(reader.left() / 2));
    for _ in 0..localities {
        let row = reader.u16()?;
        let sole = soles.get(usize::from(row));
        row_of.push(sole.ok_or(LoadError::new("a locality has a row that does not exist"))?.unwrap_or(row));
    }
    Ok(Some(Family {
        panic,
        datacenters: datacenters.into_boxed_slice(),
        entries: entries.into_boxed_slice(),
        rows: rows.into_boxed_slice(),
        row_of: row_of.into_boxed_slice(),
        wire: wire.into_boxed_slice(),
    }))
}

/// Its number in the layout, and how many addresses it has; their records are added to `wire`.
fn load_datacenter(
    reader: &mut Reader,
    rtype: u16,
    octets: usize,
    ttl: u32,
    wire: &mut Vec<u8>,
) -> Result<(u16, u32), LoadError> {
    let number = reader.u16()?;
    let count = reader.count(octets)?;
    if count == 0 {
        return Err(LoadError::new("a datacenter of a service has no addresses"));
    }
    wire.reserve(count * (RECORD_OVERHEAD_OCTETS + octets));
    for _ in 0..count {
        push_record(wire, rtype, ttl, reader.take(octets)?);
    }
    Ok((number, count as u32))
}

/// The row; and, where there is nothing to choose in it, what stands for it in `row_of`.
fn load_row(
    reader: &mut Reader,
    entries: &mut Vec<Entry>,
    datacenters: usize,
) -> Result<(Row, Option<u16>), LoadError> {
    let flags = reader.u8()?;
    let count = reader.u16()?;
    let first = entries.len() as u32;
    for _ in 0..count {
        let salt = reader.u64()?;
        let share = reader.f64()?;
        let datacenter = reader.u16()?;
        let right = share > 0.0 && share.is_finite() && usize::from(datacenter) < datacenters;
        if !right {
            return Err(LoadError::new("a share is not a positive number, or of a datacenter that does not exist"));
        }
        entries.push(Entry { salt, share, datacenter });
    }
    let row = Row { first, count };
    if flags == SPLIT {
        return Ok((row, None));
    }
    match (flags, entries.pop()) {
        (0, Some(only)) if count == 1 => Ok((row, Some(SOLE | only.datacenter))),
        _ => Err(LoadError::new("a row that is not split has one datacenter")),
    }
}
