//! From an address to a locality: disjoint intervals, one bisection (as `gslb/geo/cidr.py`, which explains the scope).

use crate::reader::{LoadError, Reader};

/// An IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// IPv4.
    V4(u32),
    /// IPv6.
    V6(u128),
}

/// A locality by its number in the table's layout, and the length of the prefix in which every address has it.
#[derive(Clone, Copy)]
pub(crate) struct Match {
    pub(crate) locality: u16,
    pub(crate) scope: u8,
}

/// One IP version: interval i covers starts[i] up to starts[i + 1] - 1; the first begins at 0.
#[derive(Clone, Debug)]
struct Intervals<T> {
    starts: Box<[T]>,
    localities: Box<[u16]>,
    /// For each value of the upper 16 bits, how many intervals begin below it. It saves the first steps of the bisection.
    below: Box<[u32]>,
}

/// The map of both IP versions.
#[derive(Clone, Debug)]
pub(crate) struct GeoMap {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

/// Maps with fewer intervals are searched whole: the index would be larger than they are.
const INDEXED_FROM: usize = 64;

trait Address: Copy + Default + Ord + std::ops::BitXor<Output = Self> {
    fn read(reader: &mut Reader) -> Result<Self, LoadError>;
    fn before(self) -> Self;
    fn leading_zeros(self) -> u32;
    fn upper16(self) -> usize;
}

impl Address for u32 {
    fn read(reader: &mut Reader) -> Result<Self, LoadError> {
        reader.u32()
    }
    fn before(self) -> Self {
        self.wrapping_sub(1)
    }
    fn leading_zeros(self) -> u32 {
        self.leading_zeros()
    }
    fn upper16(self) -> usize {
        (self >> 16) as usize
    }
}

impl Address for u128 {
    fn read(reader: &mut Reader) -> Result<Self, LoadError> {
        reader.u128()
    }
    fn before(self) -> Self {
        self.wrapping_sub(1)
    }
    fn leading_zeros(self) -> u32 {
        self.leading_zeros()
    }
    fn upper16(self) -> usize {
        (self >> 112) as usize
    }
}

impl<T: Address> Intervals<T> {
    fn new(starts: Vec<T>, localities: Vec<u16>) -> Self {
        let mut below = Vec::new();
        if starts.len() >= INDEXED_FROM {
            below.reserve_exact(0x1_0001);
            let mut count = 0;
            for upper in 0..=0x1_0000usize {
                while starts.get(count).is_some_and(|start| start.upper16() < upper) {
                    count += 1;
                }
                below.push(count as u32);
            }
        }
        Intervals {
            starts: starts.into_boxed_slice(),
            localities: localities.into_boxed_slice(),
            below: below.into_boxed_slice(),
        }
    }

    fn find(&self, value: T) -> Match {
        let upper = value.upper16();
        let low = self.below.get(upper).map_or(0, |count| *count as usize);
        let high = self.below.get(upper + 1).map_or(self.starts.len(), |count| *count as usize);
        let window = self.starts.get(low..high).unwrap_or(&[]);
        // How many intervals begin at or below the value; at least the first does.
        let count = low + window.partition_point(|start| *start <= value);
        let index = count.saturating_sub(1);
        let mut scope = 0;
        if index > 0 {
            if let Some(start) = self.starts.get(index) {
                // One bit more than what `value` has in common with the address before its interval.
                scope = (start.before() ^ value).leading_zeros() + 1;
            }
        }
        if let Some(next) = self.starts.get(count) {
            scope = scope.max((*next ^ value).leading_zeros() + 1);
        }
        Match { locality: self.localities.get(index).copied().unwrap_or(0), scope: scope as u8 }
    }
}

impl GeoMap {
    /// A map without prefixes: everybody is in locality 0.
    pub(crate) fn empty() -> Self {
        GeoMap { v4: Intervals::new(vec![0], vec![0]), v6: Intervals::new(vec![0], vec![0]) }
    }

    /// Reads the section; every locality is below `localities`.
    pub(crate) fn load(reader: &mut Reader, localities: usize) -> Result<Self, LoadError> {
        let starts = load_starts(reader)?;
        let v4 = Intervals::new(starts, Vec::new());
        let v4 = Intervals { localities: load_localities(reader, v4.starts.len(), localities)?, ..v4 };
        let starts = load_starts(reader)?;
        let v6 = Intervals::new(starts, Vec::new());
        let v6 = Intervals { localities: load_localities(reader, v6.starts.len(), localities)?, ..v6 };
        Ok(GeoMap { v4, v6 })
    }

    pub(crate) fn find(&self, client: Client) -> Match {
        match client {
            Client::V4(value) => self.v4.find(value),
            Client::V6(value) => self.v6.find(value),
        }
    }
}

fn load_starts<T: Address>(reader: &mut Reader) -> Result<Vec<T>, LoadError> {
    let count = reader.count(std::mem::size_of::<T>())?;
    let mut starts: Vec<T> = Vec::with_capacity(count);
    for index in 0..count {
        let start = T::read(reader)?;
        let ordered = match starts.last() {
            Some(last) => *last < start,
            None => index == 0 && start == T::default(),
        };
        if !ordered {
            return Err(LoadError::new("the intervals of the map do not ascend from 0"));
        }
        starts.push(start);
    }
    if starts.is_empty() {
        return Err(LoadError::new("the map has no interval"));
    }
    Ok(starts)
}

fn load_localities(reader: &mut Reader, count: usize, localities: usize) -> Result<Box<[u16]>, LoadError> {
    let mut read = Vec::with_capacity(count.min(reader.left() / 2));
    for _ in 0..count {
        let locality = reader.u16()?;
        if usize::from(locality) >= localities {
            return Err(LoadError::new("the map has a locality that the layout does not have"));
        }
        read.push(locality);
    }
    Ok(read.into_boxed_slice())
}
