//! Threads that answer, and the table they answer from.

use std::io;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gslb_dns_core::{answer, Class, Client, Layout, Now, Outcome, Table, Transport, Verdict};

use crate::backlog::{Backlog, Put};
use crate::counters::{count, Stats, Tally};
use crate::sys::{let_others_finish, make_waiting, wake, Batch, Peer};

/// A table, and where each thread counts while it answers from it.
struct Served {
    table: Option<Arc<Table>>,
    tallies: Arc<Tallies>,
}

/// Counters of one layout, one `Tally` a thread. `epoch` tells them from those of other layouts.
pub(crate) struct Tallies {
    epoch: u32,
    layout: Layout,
    by_thread: Vec<Tally>,
}

const NO_LAYOUT: Layout = Layout { slots: 0, localities: 0, datacenters: 0 };

/// What the threads share with Python. The lock is taken once for each change of the table, never for a query.
struct Shared {
    served: Mutex<Option<Arc<Served>>>,
    generation: AtomicU64,
    stop: AtomicBool,
    /// About one message in so many is given to the log; 0: none is.
    sample: AtomicU64,
    threads: Vec<Thread>,
    wake: RawFd,
    begin: Instant,
}

/// What one thread writes: in lines of memory that no other thread writes into.
#[repr(align(128))]
struct Thread {
    stats: Stats,
    backlog: Backlog,
}

/// The data plane. Stop it before its sockets are closed.
pub(crate) struct Plane {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// Tables that some thread may still use. They are freed from here, never by a thread that has queries to answer.
    retired: Mutex<Vec<Arc<Served>>>,
    /// Counters with something to be read from.
    tallies: Mutex<Vec<Arc<Tallies>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plane {
    /// A thread for each socket; those of `wildcards` are bound to every address. `event` is written to when the
    /// reference is asked for something.
    pub(crate) fn start(sockets: &[(RawFd, bool)], event: RawFd) -> io::Result<Plane> {
        for (socket, _) in sockets {
            make_waiting(*socket)?;
        }
        let thread = |_: &(RawFd, bool)| Thread { stats: Stats::new(), backlog: Backlog::new() };
        let shared = Arc::new(Shared {
            served: Mutex::new(None),
            generation: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            sample: AtomicU64::new(0),
            threads: sockets.iter().map(thread).collect(),
            wake: event,
            begin: Instant::now(),
        });
        let mut plane = Plane { shared, handles: Vec::new(), retired: Mutex::default(), tallies: Mutex::default() };
        for (number, (socket, wildcard)) in sockets.iter().enumerate() {
            let worker = Worker {
                shared: plane.shared.clone(),
                number,
                socket: *socket,
                batch: Batch::new(*wildcard),
                served: None,
                generation: 0,
                sampler: Sampler { until: 1, state: 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1) },
            };
            plane.handles.push(Builder::new().name(format!("dns-{number}")).spawn(move || worker.run())?);
        }
        Ok(plane)
    }

    /// Answers from `table` from now on (None: the reference is asked about everything); the epoch of its counters.
    /// `renumbered`: the numbers in it mean other things than those of the table before.
    pub(crate) fn serve(&self, table: Option<Arc<Table>>, renumbered: bool) -> u32 {
        let mut tallies = lock(&self.tallies);
        let mut served = lock(&self.shared.served);
        let layout = table.as_ref().map_or(NO_LAYOUT, |table| table.layout());
        let known = served.as_ref().filter(|old| !renumbered && old.tallies.layout == layout);
        let current = match known {
            Some(old) => old.tallies.clone(),
            None => {
                let epoch = tallies.last().map_or(0, |last| last.epoch) + 1;
                let by_thread = self.shared.threads.iter().map(|_| Tally::new(layout)).collect();
                let made = Arc::new(Tallies { epoch, layout, by_thread });
                tallies.push(made.clone());
                made
            }
        };
        let epoch = current.epoch;
        if let Some(old) = served.replace(Arc::new(Served { table, tallies: current })) {
            lock(&self.retired).push(old);
        }
        drop(served);
        self.shared.generation.fetch_add(1, Ordering::Release);
        drop(tallies);
        self.tidy();
        epoch
    }

    /// Frees tables and counters that nobody uses any more.
    fn tidy(&self) {
        lock(&self.retired).retain(|served| Arc::strong_count(served) > 1);
    }

    /// From now on gives about one message in `every` to the log; 0: none.
    pub(crate) fn sample(&self, every: u64) {
        self.shared.sample.store(every, Ordering::Relaxed);
    }

    /// Moves messages for the reference to `out`; how many octets.
    pub(crate) fn take(&self, out: &mut [u8]) -> usize {
        let mut taken = 0;
        for thread in &self.shared.threads {
            if let Some(room) = out.get_mut(taken..) {
                taken += thread.backlog.take(room);
            }
        }
        taken
    }

    /// What the rate limit says to an answer that the reference gives, from the buckets of the threads; None without table
    /// or limit.
    pub(crate) fn judge(&self, client: Client, class: Class, zone: &[u8], octets: usize) -> Option<Verdict> {
        let served = lock(&self.shared.served).clone()?;
        let monotonic_ns = self.shared.begin.elapsed().as_nanos() as u64;
        served.table.as_ref()?.judge(client, class, zone, octets, monotonic_ns)
    }

    /// The numbers of `Stats`, summed over the threads.
    pub(crate) fn stats(&self, out: &mut [u64]) {
        out.fill(0);
        for thread in &self.shared.threads {
            for (sum, number) in out.iter_mut().zip(thread.stats.numbers()) {
                *sum += number;
            }
        }
    }

    /// Gives every tally with its epoch to `read`.
    pub(crate) fn read(&self, mut read: impl FnMut(u32, &Tally)) {
        for known in lock(&self.tallies).iter() {
            for tally in &known.by_thread {
                read(known.epoch, tally);
            }
        }
    }

    /// Forgets counters that nobody counts in any more and that were read to the end. To be called before reading: what
    /// it keeps may still have to be read.
    pub(crate) fn forget_read(&self) {
        self.tidy();
        let mut tallies = lock(&self.tallies);
        let last = tallies.last().map_or(0, |last| last.epoch);
        tallies.retain(|known| {
            let unread = known.by_thread.iter().any(|tally| !tally.is_read());
            known.epoch == last || Arc::strong_count(known) > 1 || unread
        });
    }

    /// Ends all threads.
    pub(crate) fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for handle in self.handles.drain(..) {
            // A thread that panicked outside of a batch has ended all the same.
            let _ = handle.join();
        }
    }
}

/// One thread.
struct Worker {
    shared: Arc<Shared>,
    number: usize,
    socket: RawFd,
    batch: Batch,
    served: Option<Arc<Served>>,
    generation: u64,
    sampler: Sampler,
}

/// Which messages are for the log: one in so many on average, without a rhythm.
struct Sampler {
    until: u64,
    state: u64,
}

impl Sampler {
    fn due(&mut self, every: u64) -> bool {
        self.until = self.until.saturating_sub(1);
        if self.until > 0 {
            return false;
        }
        // Marsaglia's xorshift: chance enough to hit nobody's period.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.until = 1 + self.state % (2 * every - 1).max(1);
        true
    }
}

impl Worker {
    fn run(mut self) {
        let shared = self.shared.clone();
        let Some(thread) = shared.threads.get(self.number) else { return };
        let_others_finish();
        while !shared.stop.load(Ordering::Acquire) {
            // An error is that of an earlier answer, or that nothing came: neither says anything of the next query.
            let received = self.batch.receive(self.socket).unwrap_or(0);
            self.refresh();
            let caught = catch_unwind(AssertUnwindSafe(|| self.answer_all(thread, received)));
            if caught.is_err() {
                count(&thread.stats.panics, 1);
            }
            let failed = self.batch.send(self.socket);
            if failed > 0 {
                count(&thread.stats.send_failures, failed as u64);
            }
        }
    }

    /// Takes the newest table.
    fn refresh(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.served = lock(&self.shared.served).clone();
        }
    }

    /// Read once for all datagrams of a batch.
    fn now(&self) -> Now {
        Now {
            wall_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            monotonic_ns: self.shared.begin.elapsed().as_nanos() as u64,
        }
    }

    fn answer_all(&mut self, thread: &Thread, received: usize) {
        let now = self.now();
        let every = self.shared.sample.load(Ordering::Relaxed);
        for index in 0..received {
            let Some((packet, peer, out)) = self.batch.open(index) else { continue };
            if peer.port == 0 {
                // It cannot be answered.
                count(&thread.stats.ignored, 1);
                continue;
            }
            if every > 0 && self.sampler.due(every) {
                if let Put::First = thread.backlog.put_sample(self.number as u16, &peer, packet) {
                    wake(self.shared.wake);
                }
            }
            let table = self.served.as_ref().and_then(|served| served.table.as_ref());
            let outcome = match table {
                Some(table) => answer(table, packet, peer.address, Transport::Udp, now, out),
                None => Outcome::Ask,
            };
            match outcome {
                Outcome::Silent => count(&thread.stats.ignored, 1),
                Outcome::Ask => ask(&self.shared, thread, self.number as u16, &peer, packet),
                Outcome::Limited(limited) => {
                    thread.stats.limited(limited.class, limited.verdict);
                    if limited.length > 0 {
                        let _ = self.batch.queue(index, limited.length);
                    }
                }
                Outcome::Answer(answered) => {
                    thread.stats.answered(&answered);
                    if let (Some(to), Some(served)) = (&answered.steered, &self.served) {
                        if let Some(tally) = served.tallies.by_thread.get(self.number) {
                            tally.steered(to);
                        }
                    }
                    let _ = self.batch.queue(index, answered.length);
                }
            }
        }
    }
}

fn ask(shared: &Shared, thread: &Thread, socket: u16, peer: &Peer, packet: &[u8]) {
    match thread.backlog.put(socket, peer, packet) {
        Put::First => {
            count(&thread.stats.asked, 1);
            wake(shared.wake);
        }
        Put::Waits => count(&thread.stats.asked, 1),
        Put::Dropped => count(&thread.stats.dropped, 1),
    }
}
