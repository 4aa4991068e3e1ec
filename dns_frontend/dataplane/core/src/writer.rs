//! Answers to octets, with name compression in the order and with the case rules of `responder/writer.py`.

use crate::names::NamedSet;
use crate::query::{Query, HEADER_OCTETS};

const POINTER: u16 = 0xC000;
const POINTER_MAX: usize = 0x3FFF;
/// Names that one answer may compress against beside the question's; an RRset with more is left to the reference.
const KNOWN_MAX: usize = 40;

/// The answer cannot be written here.
pub(crate) enum Stop {
    /// It does not fit: the limit is passed.
    Full,
    /// It has more names than are remembered: the reference writes it.
    Ask,
}

/// One message in the making. Nothing is written beyond `limit`.
pub(crate) struct Writer<'o> {
    out: &'o mut [u8],
    length: usize,
}

impl<'o> Writer<'o> {
    /// A message that begins with the header, to be filled in by `finish`, and the question.
    pub(crate) fn new(out: &'o mut [u8], limit: usize, question: &[u8]) -> Option<Self> {
        let limit = limit.min(out.len());
        let mut writer = Writer { out: out.get_mut(..limit)?, length: HEADER_OCTETS };
        writer.put(question)?;
        Some(writer)
    }

    #[inline]
    pub(crate) fn put(&mut self, octets: &[u8]) -> Option<()> {
        let end = self.length + octets.len();
        self.out.get_mut(self.length..end)?.copy_from_slice(octets);
        self.length = end;
        Some(())
    }

    /// Forgets everything behind the question.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Fills in the header; the length of the message.
    pub(crate) fn finish(self, id: u16, flags: u16, counts: [u16; 3]) -> Option<usize> {
        let head = self.out.get_mut(..HEADER_OCTETS)?;
        let [answers, authorities, additionals] = counts;
        let words = [id, flags, 1, answers, authorities, additionals];
        for (to, word) in head.chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        Some(self.length)
    }

    /// All records of a set whose owner ends the question's name, `owner_octets` of it.
    pub(crate) fn named_set(&mut self, query: &Query, owner_octets: usize, set: &NamedSet) -> Result<(), Stop> {
        let mut known = Known { names: [(0, &[]); KNOWN_MAX], count: 0 };
        let owner = POINTER | (HEADER_OCTETS + query.name.len().saturating_sub(owner_octets)) as u16;
        for data in &set.datas {
            self.put(&owner.to_be_bytes()).ok_or(Stop::Full)?;
            self.put(&set.rtype.to_be_bytes()).ok_or(Stop::Full)?;
            self.put(&[0, 1]).ok_or(Stop::Full)?;
            self.put(&set.ttl.to_be_bytes()).ok_or(Stop::Full)?;
            let length_at = self.length;
            self.put(&[0, 0]).ok_or(Stop::Full)?;
            let (before, mut rest) = data.split_at_checked(usize::from(set.skip)).ok_or(Stop::Ask)?;
            self.put(before).ok_or(Stop::Full)?;
            for _ in 0..set.names {
                rest = self.name(query, &mut known, rest)?;
            }
            self.put(rest).ok_or(Stop::Full)?;
            let octets = (self.length - length_at - 2) as u16;
            self.out.get_mut(length_at..length_at + 2).ok_or(Stop::Full)?.copy_from_slice(&octets.to_be_bytes());
        }
        Ok(())
    }

    /// Writes the name that `data` begins with, by a pointer to the longest suffix that was written before; what is behind.
    fn name<'d>(&mut self, query: &Query, known: &mut Known<'d>, data: &'d [u8]) -> Result<&'d [u8], Stop> {
        let whole = name_octets(data).ok_or(Stop::Ask)?;
        let (name, rest) = data.split_at_checked(whole).ok_or(Stop::Ask)?;
        let mut at = 0;
        loop {
            let suffix = name.get(at..).ok_or(Stop::Ask)?;
            let length = usize::from(*suffix.first().ok_or(Stop::Ask)?);
            if length == 0 {
                self.put(&[0]).ok_or(Stop::Full)?;
                return Ok(rest);
            }
            if let Some(offset) = known.find(query, suffix) {
                self.put(&(POINTER | offset).to_be_bytes()).ok_or(Stop::Full)?;
                return Ok(rest);
            }
            if self.length <= POINTER_MAX {
                known.add(self.length as u16, suffix)?;
            }
            self.put(suffix.get(..=length).ok_or(Stop::Ask)?).ok_or(Stop::Full)?;
            at += 1 + length;
        }
    }
}

fn name_octets(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*data.get(at)?);
        at += 1 + length;
        if length == 0 {
            return Some(at);
        }
    }
}

/// Where suffixes of names stand in the message, beside those of the question.
struct Known<'d> {
    names: [(u16, &'d [u8]); KNOWN_MAX],
    count: usize,
}

impl<'d> Known<'d> {
    fn find(&self, query: &Query, suffix: &[u8]) -> Option<u16> {
        // Only one suffix of the question has this length, if any.
        if let Some(start) = query.name.len().checked_sub(suffix.len()) {
            if query.labels.begins_at(start) && query.name.get(start..) == Some(suffix) {
                return Some((HEADER_OCTETS + start) as u16);
            }
        }
        let names = self.names.get(..self.count).unwrap_or(&[]);
        names.iter().find(|(_, name)| *name == suffix).map(|(offset, _)| *offset)
    }

    fn add(&mut self, offset: u16, suffix: &'d [u8]) -> Result<(), Stop> {
        let slot = self.names.get_mut(self.count).ok_or(Stop::Ask)?;
        *slot = (offset, suffix);
        self.count += 1;
        Ok(())
    }
}
