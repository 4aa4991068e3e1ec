//! What is served: sections of octets that Python compiled (`dns_frontend/table/octets.py`), checked whole when loaded.
//!
//! A full table has every section; a patch has those that changed, and gives a new table that shares the rest with the
//! one before. Neither is ever changed afterwards.

use std::sync::Arc;

use crate::geo::{Client, GeoMap};
use crate::guard::{Class, Guard, Now, Shown, Verdict};
use crate::names::{hash_of, Names};
pub use crate::reader::LoadError;
use crate::reader::Reader;
use crate::service::Service;

const MAGIC: &[u8] = b"GSLBDNST";
const VERSION: u16 = 3;
const FULL: u8 = 0;
const PATCH: u8 = 1;
const SECTION_LAYOUT: u8 = 1;
const SECTION_MAP: u8 = 2;
const SECTION_NAMES: u8 = 3;
const SECTION_SERVICE: u8 = 4;
const SECTION_GUARD: u8 = 5;
const SLOTS_MAX: u32 = 1 << 20;
/// Cells of (service, locality) that a thread counts in.
const CELLS_MAX: u64 = 1 << 26;

/// What the numbers in a table range over; counters are laid out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Services; each has a slot as long as it is served.
    pub slots: u32,
    /// Localities.
    pub localities: u16,
    /// Datacenters.
    pub datacenters: u16,
}

/// An immutable table.
pub struct Table {
    layout: Layout,
    pub(crate) map: Arc<GeoMap>,
    pub(crate) names: Arc<Names>,
    services: Vec<Option<Arc<Service>>>,
    /// None: every query gets its plain answer.
    pub(crate) guard: Option<Arc<Guard>>,
}

impl Table {
    /// The table in `octets`.
    pub fn load(octets: &[u8]) -> Result<Self, LoadError> {
        let mut reader = Reader::new(octets);
        begin(&mut reader, FULL)?;
        let layout = load_layout(&mut section(&mut reader, SECTION_LAYOUT)?)?;
        let mut table = Table {
            layout,
            map: Arc::new(GeoMap::empty()),
            names: Arc::new(Names::empty()),
            services: vec![None; layout.slots as usize],
            guard: None,
        };
        table.read(&mut reader)?;
        Ok(table)
    }

    /// This table with the sections of a patch in place of its own.
    pub fn patched(&self, octets: &[u8]) -> Result<Self, LoadError> {
        let mut reader = Reader::new(octets);
        begin(&mut reader, PATCH)?;
        let layout = load_layout(&mut section(&mut reader, SECTION_LAYOUT)?)?;
        let same = layout.localities == self.layout.localities && layout.datacenters >= self.layout.datacenters;
        if !same || layout.slots < self.layout.slots {
            return Err(LoadError::new("the patch has another layout than the table"));
        }
        let mut services = self.services.clone();
        services.resize(layout.slots as usize, None);
        let guard = self.guard.clone();
        let mut table = Table { layout, map: self.map.clone(), names: self.names.clone(), services, guard };
        table.read(&mut reader)?;
        Ok(table)
    }

    fn read(&mut self, reader: &mut Reader) -> Result<(), LoadError> {
        while reader.left() > 0 {
            let kind = reader.u8()?;
            let mut body = body(reader)?;
            match kind {
                SECTION_MAP => self.map = Arc::new(GeoMap::load(&mut body, self.layout.localities.into())?),
                SECTION_NAMES => self.names = Arc::new(Names::load(&mut body, self.layout.slots)?),
                SECTION_GUARD => self.guard = Some(Arc::new(Guard::load(&mut body, self.guard.as_deref())?)),
                SECTION_SERVICE => self.read_service(&mut body)?,
                _ => return Err(LoadError::new("there is a section of an unknown kind")),
            }
            body.end()?;
        }
        Ok(())
    }

    fn read_service(&mut self, body: &mut Reader) -> Result<(), LoadError> {
        let slot = body.u32()?;
        let present = body.u8()? != 0;
        let localities = usize::from(self.layout.localities);
        let datacenters = usize::from(self.layout.datacenters);
        let service = if present { Some(Arc::new(Service::load(body, localities, datacenters)?)) } else { None };
        let place = self.services.get_mut(slot as usize);
        *place.ok_or(LoadError::new("a service has a slot that the layout does not have"))? = service;
        Ok(())
    }

    /// What the numbers in it range over.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What the rate limit says to an answer that somebody else gives; None when there is no limit. `zone`: whose it is,
    /// in lower case, for the classes that are counted by zone; empty for none.
    pub fn judge(
        &self,
        client: Client,
        class: Class,
        zone: &[u8],
        octets: usize,
        monotonic_ns: u64,
    ) -> Option<Verdict> {
        let zone = if zone.is_empty() { 0 } else { hash_of(zone) };
        let now = Now { wall_s: 0, monotonic_ns };
        self.guard.as_ref().map(|guard| guard.judge(class, zone, octets, (client, Shown::Nothing), now))
    }

    pub(crate) fn service(&self, slot: u32) -> Option<&Service> {
        self.services.get(slot as usize)?.as_deref()
    }
}

fn begin(reader: &mut Reader, kind: u8) -> Result<(), LoadError> {
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(LoadError::new("these octets are not a table"));
    }
    if reader.u16()? != VERSION {
        return Err(LoadError::new(
            "the table has another version of the format: build the extension and Python of one release",
        ));
    }
    if reader.u8()? != kind {
        return Err(LoadError::new("a patch was given for a table, or a table for a patch"));
    }
    if reader.u32()? as usize != reader.left() {
        return Err(LoadError::new("the table is cut short, or has something behind it"));
    }
    Ok(())
}

fn body<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>, LoadError> {
    let length = reader.u32()? as usize;
    Ok(Reader::new(reader.take(length)?))
}

fn section<'a>(reader: &mut Reader<'a>, kind: u8) -> Result<Reader<'a>, LoadError> {
    if reader.u8()? != kind {
        return Err(LoadError::new("the table does not begin with its layout"));
    }
    body(reader)
}

fn load_layout(reader: &mut Reader) -> Result<Layout, LoadError> {
    let layout = Layout { slots: reader.u32()?, localities: reader.u16()?, datacenters: reader.u16()? };
    reader.end()?;
    let cells = u64::from(layout.slots) * u64::from(layout.localities);
    if layout.localities == 0 || layout.slots > SLOTS_MAX || cells > CELLS_MAX {
        return Err(LoadError::new("the layout is empty or too large"));
    }
    Ok(layout)
}
