//! Reading the table's octets: little-endian, every step checked.

use std::fmt;

/// The octets are not a table that can be served; the text says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError(&'static str);

impl LoadError {
    pub(crate) fn new(what: &'static str) -> Self {
        LoadError(what)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.0)
    }
}

impl std::error::Error for LoadError {}

const SHORT: LoadError = LoadError("the table is cut short");

/// What is left to read.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Reader { rest: octets }
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], LoadError> {
        let taken = self.rest.get(..count).ok_or(SHORT)?;
        self.rest = self.rest.get(count..).ok_or(SHORT)?;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, LoadError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, LoadError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, LoadError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, LoadError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A count of things of at least `octets` each: never more than what is left can hold, so that memory is bounded.
    pub(crate) fn count(&mut self, octets: usize) -> Result<usize, LoadError> {
        let count = self.u32()? as usize;
        if count > self.left() / octets.max(1) {
            return Err(SHORT);
        }
        Ok(count)
    }

    /// All of it was read, and no more was there.
    pub(crate) fn end(&self) -> Result<(), LoadError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(LoadError("a section is longer than what is in it"))
        }
    }
}
