//! Names and their static records: a hash index over lower-case wire names, laid out for one lookup a label.

use crate::query::{Query, LABELS_MAX, NAME_MAX_OCTETS};
use crate::reader::{LoadError, Reader};

/// No node, no zone, no service.
pub(crate) const NONE: u32 = u32::MAX;

/// Everything asked at this name is the reference's business (a delegation, the root).
pub(crate) const ASK: u8 = 1;
/// So is everything asked at missing names whose closest ancestor is this one (a delegation, a DNAME).
pub(crate) const ASK_BELOW: u8 = 2;
/// DS here belongs to the parent zone: the reference knows.
pub(crate) const ASK_DS: u8 = 4;
/// A CNAME: types that are not here are found elsewhere, by the reference.
pub(crate) const ALIAS: u8 = 8;
/// The name has data: ANY has an answer, by the reference.
pub(crate) const DATA: u8 = 16;
/// The service's plan gives HTTPS here, beside A and AAAA.
pub(crate) const HTTPS: u8 = 32;

const FLAGS_MAX: u8 = 63;
const KIND_ASK: u8 = 0;
const KIND_RECORDS: u8 = 1;
pub(crate) const RECORD_OVERHEAD_OCTETS: usize = 12;

/// One name.
pub(crate) struct Node {
    pub(crate) zone: u32,
    /// The service whose plan gives addresses here; `NONE`.
    pub(crate) slot: u32,
    /// The node of `*` below this name; `NONE`.
    pub(crate) wildcard: u32,
    pub(crate) flags: u8,
    name: Span,
    sets: Span,
}

/// A part of an array.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn of<T>(self, whole: &[T]) -> &[T] {
        let start = self.start as usize;
        whole.get(start..start + self.length as usize).unwrap_or(&[])
    }
}

/// The records of one name and type.
pub(crate) struct RecordSet {
    rtype: u16,
    pub(crate) content: Content,
}

/// What is known of an RRset.
pub(crate) enum Content {
    /// The reference knows.
    Ask,
    /// `count` records, ready for the wire behind an owner that is a pointer to the question.
    Ready { wire: Box<[u8]>, count: u16 },
    /// Records whose names may be compressed against what stands before them.
    Named(NamedSet),
}

/// Records with `names` names in their data, after `skip` octets.
pub(crate) struct NamedSet {
    pub(crate) rtype: u16,
    pub(crate) ttl: u32,
    pub(crate) skip: u8,
    pub(crate) names: u8,
    pub(crate) datas: Box<[Box<[u8]>]>,
}

/// What negative answers of a zone need.
pub(crate) struct Zone {
    pub(crate) origin_octets: usize,
    /// Stands for the zone in the rate limit.
    pub(crate) hash: u64,
    pub(crate) negative: NamedSet,
}

/// The closest ancestor of a missing name, or the name itself.
pub(crate) enum Found<'t> {
    /// The name is there.
    Here(&'t Node),
    /// It is not; this is the nearest name above it.
    Below(&'t Node),
    /// It is in no zone of ours.
    Nowhere,
}

/// The names of all zones.
pub(crate) struct Names {
    nodes: Box<[Node]>,
    zones: Box<[Zone]>,
    sets: Box<[RecordSet]>,
    octets: Box<[u8]>,
    /// Open addressing, at most half full: the hash's upper half, and 1 + the node's index; 0: free.
    index: Box<[(u32, u32)]>,
    labels_max: usize,
}

impl Names {
    pub(crate) fn empty() -> Self {
        Names {
            nodes: Box::default(),
            zones: Box::default(),
            sets: Box::default(),
            octets: Box::default(),
            index: vec![(0, 0); 2].into_boxed_slice(),
            labels_max: 0,
        }
    }

    pub(crate) fn load(reader: &mut Reader, slots: u32) -> Result<Self, LoadError> {
        let zones = load_all(reader, 13, load_zone)?;
        let mut building = Building { octets: Vec::new(), sets: Vec::new(), labels_max: 0 };
        let count = reader.count(12)?;
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            nodes.push(building.node(reader, zones.len(), slots)?);
        }
        let mut names = Names {
            nodes: nodes.into_boxed_slice(),
            zones: zones.into_boxed_slice(),
            sets: building.sets.into_boxed_slice(),
            octets: building.octets.into_boxed_slice(),
            index: vec![(0, 0); (2 * count).next_power_of_two().max(2)].into_boxed_slice(),
            labels_max: building.labels_max,
        };
        names.fill_index()?;
        names.link_wildcards();
        Ok(names)
    }

    fn fill_index(&mut self) -> Result<(), LoadError> {
        for (number, node) in self.nodes.iter().enumerate() {
            let name = node.name.of(&self.octets);
            let hash = hash_of(name);
            if self.lookup(hash, name).is_some() {
                return Err(LoadError::new("a name is there twice"));
            }
            let mask = self.index.len() - 1;
            let mut at = hash as usize & mask;
            while let Some(entry) = self.index.get_mut(at) {
                if entry.1 == 0 {
                    *entry = ((hash >> 32) as u32, number as u32 + 1);
                    break;
                }
                at = (at + 1) & mask;
            }
        }
        Ok(())
    }

    fn link_wildcards(&mut self) {
        let mut links = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let name = node.name.of(&self.octets);
            if let (Some(b"\x01*"), Some(above)) = (name.get(..2), name.get(2..)) {
                if let Some(parent) = self.lookup(hash_of(above), above) {
                    links.push((parent, number as u32));
                }
            }
        }
        for (parent, wildcard) in links {
            if let Some(node) = self.nodes.get_mut(parent as usize) {
                node.wildcard = wildcard;
            }
        }
    }

    fn lookup(&self, hash: u64, name: &[u8]) -> Option<u32> {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let (upper, number) = *self.index.get(at)?;
            let number = number.checked_sub(1)?;
            if upper == (hash >> 32) as u32 {
                let node = self.nodes.get(number as usize)?;
                if node.name.of(&self.octets) == name {
                    return Some(number);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// The name of a query, or what is nearest above it; at most one lookup a label, and none for more labels than any
    /// name here has.
    pub(crate) fn find(&self, query: &Query) -> Found<'_> {
        // Nearly all names have few labels: room for the hashes of all that a name can have is made for those that need it.
        if query.labels.starts().len() < FEW_LABELS {
            self.find_with(query, &mut [SEED; FEW_LABELS])
        } else {
            self.find_with(query, &mut [SEED; LABELS_MAX + 1])
        }
    }

    #[inline(always)]
    fn find_with(&self, query: &Query, hashes: &mut [u64]) -> Found<'_> {
        let lower = Padded::lower(query.name);
        let name = lower.octets.get(..query.name.len()).unwrap_or(&[]);
        let starts = query.labels.starts();
        let deepest = starts.len().saturating_sub(self.labels_max);
        let mut hash = SEED;
        let mut end = name.len().saturating_sub(1);
        for (index, start) in starts.iter().enumerate().rev() {
            let start = usize::from(*start);
            hash = lower.label_hash(hash, start, end);
            if let Some(slot) = hashes.get_mut(index) {
                *slot = hash;
            }
            end = start;
        }
        for index in deepest..=starts.len() {
            let start = starts.get(index).map_or(name.len().saturating_sub(1), |start| usize::from(*start));
            let hash = hashes.get(index).copied().unwrap_or(SEED);
            let found = self.lookup(finish(hash), name.get(start..).unwrap_or(&[]));
            if let Some(node) = found.and_then(|number| self.nodes.get(number as usize)) {
                return if index == 0 { Found::Here(node) } else { Found::Below(node) };
            }
        }
        Found::Nowhere
    }

    pub(crate) fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)
    }

    pub(crate) fn zone(&self, node: &Node) -> Option<&Zone> {
        self.zones.get(node.zone as usize)
    }

    pub(crate) fn set(&self, node: &Node, rtype: u16) -> Option<&Content> {
        node.sets.of(&self.sets).iter().find(|set| set.rtype == rtype).map(|set| &set.content)
    }
}

const FEW_LABELS: usize = 12;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER: u64 = 0xff51_afd7_ed55_8ccd;

/// A name in lower case with zeros behind it, so that it can be read eight octets at a time.
struct Padded {
    octets: [u8; NAME_MAX_OCTETS + 9],
}

impl Padded {
    #[inline]
    fn lower(name: &[u8]) -> Self {
        let mut octets = [0; NAME_MAX_OCTETS + 9];
        for (to, from) in octets.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        Padded { octets }
    }

    /// Mixes one label, its length octet included, into the hash of what is right of it. Names are the operator's: nobody
    /// outside can make them collide.
    #[inline]
    fn label_hash(&self, right: u64, start: usize, end: usize) -> u64 {
        let mut hash = right;
        let mut at = start;
        while at < end {
            let eight: Option<[u8; 8]> = self.octets.get(at..at + 8).and_then(|octets| octets.try_into().ok());
            let beyond = 8usize.saturating_sub(end - at) as u32 * 8;
            let word = u64::from_le_bytes(eight.unwrap_or_default()) & u64::MAX >> beyond;
            hash = (hash.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
            at += 8;
        }
        hash
    }
}

/// A product carries no bit downwards: without this, labels that differ in their last octets share a place in the index.
#[inline]
fn finish(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 32).wrapping_mul(MULTIPLIER);
    hash ^ hash >> 32
}

/// The hash of a whole wire name; of what is none, some number.
pub(crate) fn hash_of(name: &[u8]) -> u64 {
    let mut starts = [0u8; LABELS_MAX + 1];
    let mut count = 0;
    let mut at = 0;
    while let Some(length) = name.get(at).filter(|length| **length > 0) {
        if let Some(slot) = starts.get_mut(count) {
            *slot = at as u8;
            count += 1;
        }
        at += 1 + usize::from(*length);
    }
    let padded = Padded::lower(name);
    let mut hash = SEED;
    let mut end = name.len().saturating_sub(1);
    for start in starts.get(..count).unwrap_or(&[]).iter().rev() {
        let start = usize::from(*start);
        hash = padded.label_hash(hash, start, end);
        end = start;
    }
    finish(hash)
}

/// The labels of a wire name; None unless it is one, in lower case.
fn checked_labels(name: &[u8]) -> Option<usize> {
    if name.len() > NAME_MAX_OCTETS || name.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut at = 0;
    let mut labels = 0;
    loop {
        let length = usize::from(*name.get(at)?);
        at += 1 + length;
        if length == 0 {
            return (at == name.len()).then_some(labels);
        }
        if length > 63 {
            return None;
        }
        labels += 1;
    }
}

fn load_all<T>(
    reader: &mut Reader,
    octets_each: usize,
    load: impl Fn(&mut Reader) -> Result<T, LoadError>,
) -> Result<Vec<T>, LoadError> {
    let count = reader.count(octets_each)?;
    (0..count).map(|_| load(reader)).collect()
}

fn load_name<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], usize), LoadError> {
    let length = usize::from(reader.u8()?);
    let name = reader.take(length)?;
    let labels = checked_labels(name).ok_or(LoadError::new("a name is malformed or not in lower case"))?;
    Ok((name, labels))
}

fn load_zone(reader: &mut Reader) -> Result<Zone, LoadError> {
    let (origin, _) = load_name(reader)?;
    Ok(Zone { origin_octets: origin.len(), hash: hash_of(origin), negative: load_named(reader, 6)? })
}

/// TTL, octets before the names, how many names, then the data of each record.
fn load_named(reader: &mut Reader, rtype: u16) -> Result<NamedSet, LoadError> {
    let ttl = reader.u32()?;
    let skip = reader.u8()?;
    let names = reader.u8()?;
    let datas = load_all(reader, 2, |reader| {
        let length = usize::from(reader.u16()?);
        let data = reader.take(length)?;
        check_names(data, skip, names)?;
        Ok(Box::from(data))
    })?;
    if datas.len() > usize::from(u16::MAX) {
        return Err(LoadError::new("an RRset has more records than a message can count"));
    }
    Ok(NamedSet { rtype, ttl, skip, names, datas: datas.into_boxed_slice() })
}

fn check_names(data: &[u8], skip: u8, names: u8) -> Result<(), LoadError> {
    let bad = LoadError::new("a record's names are malformed");
    let mut rest = data.get(usize::from(skip)..).ok_or(bad.clone())?;
    for _ in 0..names {
        let mut at = 0;
        loop {
            let length = usize::from(*rest.get(at).ok_or(bad.clone())?);
            at += 1 + length;
            if length == 0 {
                break;
            }
            if length > 63 || at > NAME_MAX_OCTETS {
                return Err(bad);
            }
        }
        rest = rest.get(at..).ok_or(bad.clone())?;
    }
    Ok(())
}

struct Building {
    octets: Vec<u8>,
    sets: Vec<RecordSet>,
    labels_max: usize,
}

impl Building {
    fn node(&mut self, reader: &mut Reader, zones: usize, slots: u32) -> Result<Node, LoadError> {
        let (name, labels) = load_name(reader)?;
        let start = self.octets.len() as u32;
        self.octets.extend_from_slice(name);
        self.labels_max = self.labels_max.max(labels);
        let zone = reader.u32()?;
        let flags = reader.u8()?;
        let slot = reader.u32()?;
        if zone as usize >= zones || flags > FLAGS_MAX || (slot != NONE && slot >= slots) {
            return Err(LoadError::new("a name has a zone, flags or a service that do not exist"));
        }
        let first = self.sets.len() as u32;
        let sets = load_all(reader, 3, load_set)?;
        let length = sets.len() as u32;
        self.sets.extend(sets);
        Ok(Node {
            zone,
            slot,
            wildcard: NONE,
            flags,
            name: Span { start, length: name.len() as u32 },
            sets: Span { start: first, length },
        })
    }
}

fn load_set(reader: &mut Reader) -> Result<RecordSet, LoadError> {
    let rtype = reader.u16()?;
    let content = match reader.u8()? {
        KIND_ASK => Content::Ask,
        KIND_RECORDS => ready(load_named(reader, rtype)?),
        _ => return Err(LoadError::new("an RRset is of an unknown kind")),
    };
    Ok(RecordSet { rtype, content })
}

/// Records without names are laid out for the wire at once.
fn ready(set: NamedSet) -> Content {
    if set.names > 0 {
        return Content::Named(set);
    }
    let octets: usize = set.datas.iter().map(|data| data.len() + RECORD_OVERHEAD_OCTETS).sum();
    let mut wire = Vec::with_capacity(octets);
    for data in &set.datas {
        push_record(&mut wire, set.rtype, set.ttl, data);
    }
    Content::Ready { wire: wire.into_boxed_slice(), count: set.datas.len() as u16 }
}

/// One record of the question's name.
pub(crate) fn push_record(wire: &mut Vec<u8>, rtype: u16, ttl: u32, data: &[u8]) {
    wire.extend_from_slice(&record_head(rtype, ttl, data.len() as u16));
    wire.extend_from_slice(data);
}

/// What stands before the data of a record of the question's name.
pub(crate) fn record_head(rtype: u16, ttl: u32, octets: u16) -> [u8; RECORD_OVERHEAD_OCTETS] {
    let ([a, b], [c, d, e, f], [g, h]) = (rtype.to_be_bytes(), ttl.to_be_bytes(), octets.to_be_bytes());
    [0xC0, 12, a, b, 0, 1, c, d, e, f, g, h]
}
