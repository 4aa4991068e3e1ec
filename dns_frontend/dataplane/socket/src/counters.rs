//! What the threads count: each in numbers of its own, read by Python now and then.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gslb_dns_core::{Answered, Class, Layout, SteeredTo, Verdict, NO_DATACENTER};

/// Response codes up to BADCOOKIE.
pub(crate) const RCODES: usize = 24;
/// Numbers that `Stats` has.
pub(crate) const STATS: usize = RCODES + 6 + LIMITED;
/// Answers held back: by class, slipped and then dropped.
const LIMITED: usize = 10;

/// Counts of one thread since its start.
pub(crate) struct Stats {
    rcodes: [AtomicU64; RCODES],
    /// Messages that got no answer.
    pub(crate) ignored: AtomicU64,
    truncated: AtomicU64,
    /// Messages left to the reference.
    pub(crate) asked: AtomicU64,
    /// Messages for the reference that found no room.
    pub(crate) dropped: AtomicU64,
    /// Answers that the kernel did not take.
    pub(crate) send_failures: AtomicU64,
    /// Batches that ended in a panic.
    pub(crate) panics: AtomicU64,
    limited: [AtomicU64; LIMITED],
}

/// Only one thread writes each of these, so no atomic addition is needed.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

impl Stats {
    pub(crate) fn new() -> Self {
        Stats {
            rcodes: std::array::from_fn(|_| AtomicU64::new(0)),
            ignored: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            send_failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            limited: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(crate) fn answered(&self, answered: &Answered) {
        if let Some(counter) = self.rcodes.get(usize::from(answered.rcode)) {
            count(counter, 1);
        }
        if answered.truncated {
            count(&self.truncated, 1);
        }
        if answered.limited {
            self.limited(Class::Error, Verdict::Slip);
        }
    }

    /// Something small, or nothing, in place of an answer of this class.
    pub(crate) fn limited(&self, class: Class, verdict: Verdict) {
        let place = 2 * class as usize + usize::from(verdict == Verdict::Drop);
        if let Some(counter) = self.limited.get(place) {
            count(counter, 1);
        }
        if verdict == Verdict::Slip && class != Class::Error {
            if let Some(counter) = self.rcodes.first() {
                count(counter, 1);
            }
        }
    }

    /// All numbers: those by response code, then the others in the order of the fields.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let others = [&self.ignored, &self.truncated, &self.asked, &self.dropped, &self.send_failures, &self.panics];
        self.rcodes.iter().chain(others).chain(&self.limited).map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// Questions for addresses, counted by the numbers of one layout; what was read is forgotten.
pub(crate) struct Tally {
    localities: usize,
    datacenters: usize,
    /// By slot, then locality.
    demand: Cells,
    /// By locality, then datacenter; the last of each is `NO_DATACENTER`.
    destinations: Cells,
}

const LINE_CELLS: usize = 32;

/// As much as a processor moves between its cores at a time: no two threads write into one.
#[repr(align(128))]
struct Line([AtomicU32; LINE_CELLS]);

struct Cells(Box<[Line]>);

impl Cells {
    fn new(count: usize) -> Self {
        let line = |_| Line(std::array::from_fn(|_| AtomicU32::new(0)));
        Cells((0..count.div_ceil(LINE_CELLS)).map(line).collect())
    }

    fn get(&self, index: usize) -> Option<&AtomicU32> {
        self.0.get(index / LINE_CELLS)?.0.get(index % LINE_CELLS)
    }

    /// All of them, and some zeros at the end.
    fn iter(&self) -> impl Iterator<Item = &AtomicU32> {
        self.0.iter().flat_map(|line| &line.0)
    }
}

impl Tally {
    pub(crate) fn new(layout: Layout) -> Self {
        let localities = usize::from(layout.localities);
        let datacenters = usize::from(layout.datacenters) + 1;
        Tally {
            localities,
            datacenters,
            demand: Cells::new(layout.slots as usize * localities),
            destinations: Cells::new(localities * datacenters),
        }
    }

    pub(crate) fn steered(&self, to: &SteeredTo) {
        let locality = usize::from(to.locality);
        if let Some(cell) = self.demand.get(to.slot as usize * self.localities + locality) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        let datacenter = if to.datacenter == NO_DATACENTER { self.datacenters - 1 } else { usize::from(to.datacenter) };
        if let Some(cell) = self.destinations.get(locality * self.datacenters + datacenter) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether nothing was counted since it was read.
    pub(crate) fn is_read(&self) -> bool {
        self.demand.iter().chain(self.destinations.iter()).all(|cell| cell.load(Ordering::Relaxed) == 0)
    }

    /// Gives (slot, locality, count) of what was counted since the last time to `row`, until that has no room.
    pub(crate) fn take_demand(&self, row: &mut dyn FnMut([u32; 3]) -> bool) {
        take(&self.demand, self.localities, row);
    }

    /// Gives (locality, datacenter, count); datacenter `NO_DATACENTER` where there was none.
    pub(crate) fn take_destinations(&self, row: &mut dyn FnMut([u32; 3]) -> bool) {
        let last = self.datacenters as u32 - 1;
        take(&self.destinations, self.datacenters, &mut |[locality, datacenter, count]| {
            row([locality, if datacenter == last { NO_DATACENTER.into() } else { datacenter }, count])
        });
    }
}

fn take(cells: &Cells, columns: usize, row: &mut dyn FnMut([u32; 3]) -> bool) {
    for (index, cell) in cells.iter().enumerate() {
        let seen = cell.load(Ordering::Relaxed);
        if seen > 0 {
            if !row([(index / columns) as u32, (index % columns) as u32, seen]) {
                return;
            }
            cell.fetch_sub(seen, Ordering::Relaxed);
        }
    }
}
