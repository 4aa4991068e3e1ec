//! The C functions that Python calls through ctypes (`dns_frontend/native.py`).
//!
//! Rules of all of them: pointers come with their lengths, are valid for the call only, and are null only where that is
//! said; handles come from a function of this file and are freed once, by theirs. Nothing here unwinds into Python.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice;
use std::sync::Arc;

use gslb_dns_core::{answer, Class, Client, Now, Outcome, Table, Transport, Verdict};

use crate::counters::{RCODES, STATS};
use crate::plane::Plane;

/// Grows with every change of these functions: Python refuses a library of another release.
const ABI: u32 = 4;
const SILENT: isize = -1;
const ASK: isize = -2;
/// Numbers that `gslb_dns_answer` gives beside the octets: rcode, truncated, steered, slot, locality, datacenter.
const FACTS: usize = 6;

/// # Safety
/// `octets` points to `length` octets.
unsafe fn input<'a, T>(octets: *const T, length: usize) -> &'a [T] {
    if length == 0 {
        &[]
    } else {
        // SAFETY: the caller says so.
        unsafe { slice::from_raw_parts(octets, length) }
    }
}

/// # Safety
/// `octets` points to `length` octets that nobody else uses now.
unsafe fn output<'a, T>(octets: *mut T, length: usize) -> &'a mut [T] {
    if length == 0 {
        &mut []
    } else {
        // SAFETY: the caller says so.
        unsafe { slice::from_raw_parts_mut(octets, length) }
    }
}

fn complain(error: &mut [u8], text: &str) {
    let room = error.len().saturating_sub(1);
    for (to, from) in error.iter_mut().zip(text.bytes().take(room).chain([0])) {
        *to = from;
    }
}

/// A handle of what `make` gives, or null and the reason in `error`, ended by a zero.
fn handle<T>(error: &mut [u8], make: impl FnOnce() -> Result<T, String>) -> *const T {
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(made)) => Arc::into_raw(Arc::new(made)),
        Ok(Err(text)) => {
            complain(error, &text);
            std::ptr::null()
        }
        Err(_) => {
            complain(error, "a bug in the data plane");
            std::ptr::null()
        }
    }
}

/// The version of these functions, and how many numbers `gslb_dns_stats` and its response codes are.
#[no_mangle]
pub extern "C" fn gslb_dns_abi() -> u64 {
    u64::from(ABI) << 32 | (STATS as u64) << 16 | RCODES as u64
}

/// A table of these octets.
///
/// # Safety
/// See the rules above.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_table(octets: *const u8, length: usize, error: *mut u8, room: usize) -> *const Table {
    // SAFETY: the caller keeps the rules.
    let (octets, error) = unsafe { (input(octets, length), output(error, room)) };
    handle(error, || Table::load(octets).map_err(|error| error.to_string()))
}

/// The table that a patch makes of `table`, which stays.
///
/// # Safety
/// See the rules above.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_patched(
    table: *const Table,
    octets: *const u8,
    length: usize,
    error: *mut u8,
    room: usize,
) -> *const Table {
    // SAFETY: the caller keeps the rules.
    let (table, octets, error) = unsafe { (&*table, input(octets, length), output(error, room)) };
    handle(error, || table.patched(octets).map_err(|error| error.to_string()))
}

/// Frees a table; a data plane that serves it keeps it as long as it needs it.
///
/// # Safety
/// See the rules above.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_free(table: *const Table) {
    // SAFETY: the handle is an Arc that was made into a pointer.
    drop(unsafe { Arc::from_raw(table) });
}

/// One message through `table`, for tests and for who has no sockets: the length of the answer, `SILENT` or `ASK`.
///
/// # Safety
/// See the rules above; `address` has 16 octets, those of IPv4 first, and `facts` room for `FACTS` numbers.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_answer(
    table: *const Table,
    packet: *const u8,
    length: usize,
    address: *const u8,
    kind: u32,
    wall_s: u64,
    monotonic_ns: u64,
    out: *mut u8,
    room: usize,
    facts: *mut u32,
) -> isize {
    // SAFETY: the caller keeps the rules.
    let (table, packet, address) = unsafe { (&*table, input(packet, length), input(address, 16)) };
    // SAFETY: the same.
    let (out, facts) = unsafe { (output(out, room), output(facts, FACTS)) };
    let client = client_of(address, kind & 1 != 0);
    let transport = if kind & 2 == 0 { Transport::Udp } else { Transport::Tcp };
    match answer(table, packet, client, transport, Now { wall_s, monotonic_ns }, out) {
        Outcome::Silent => SILENT,
        Outcome::Limited(limited) => {
            facts.fill(0);
            if limited.length > 0 {
                limited.length as isize
            } else {
                SILENT
            }
        }
        Outcome::Ask => ASK,
        Outcome::Answer(answered) => {
            let (steered, to) = match answered.steered {
                Some(to) => (1, [to.slot, to.locality.into(), to.datacenter.into()]),
                None => (0, [0; 3]),
            };
            let [slot, locality, datacenter] = to;
            let numbers = [answered.rcode.into(), answered.truncated.into(), steered, slot, locality, datacenter];
            facts.copy_from_slice(&numbers);
            answered.length as isize
        }
    }
}

fn client_of(address: &[u8], is_v6: bool) -> Client {
    let value = u128::from_be_bytes(address.try_into().unwrap_or_default());
    if is_v6 {
        Client::V6(value)
    } else {
        Client::V4((value >> 96) as u32)
    }
}

/// What the rate limit says to an answer of the reference: 0 send, 1 slip, 2 drop, -1 ask the reference's own.
///
/// # Safety
/// See the rules above; `address` has 16 octets, those of IPv4 first.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_judge(
    plane: *const Plane,
    address: *const u8,
    is_v6: u32,
    class: u32,
    zone: *const u8,
    zone_octets: usize,
    octets: usize,
) -> i32 {
    // SAFETY: the caller keeps the rules.
    let (plane, address, zone) = unsafe { (&*plane, input(address, 16), input(zone, zone_octets)) };
    let class = match class {
        0 => Class::Answer,
        1 => Class::Referral,
        2 => Class::NoData,
        3 => Class::NxDomain,
        _ => Class::Error,
    };
    match plane.judge(client_of(address, is_v6 != 0), class, zone, octets) {
        None => -1,
        Some(Verdict::Send) => 0,
        Some(Verdict::Slip) => 1,
        Some(Verdict::Drop) => 2,
    }
}

/// Starts a thread for each of the sockets; `wildcards` says of each whether it is bound to every address.
///
/// # Safety
/// See the rules above; both arrays have `count` elements.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_start(
    sockets: *const i32,
    wildcards: *const u8,
    count: usize,
    event: i32,
    error: *mut u8,
    room: usize,
) -> *const Plane {
    // SAFETY: the caller keeps the rules.
    let (sockets, wildcards) = unsafe { (input(sockets, count), input(wildcards, count)) };
    // SAFETY: the same.
    let error = unsafe { output(error, room) };
    let pairs: Vec<(RawFd, bool)> = sockets.iter().zip(wildcards).map(|(fd, wild)| (*fd, *wild != 0)).collect();
    handle(error, || Plane::start(&pairs, event).map_err(|error| error.to_string()))
}

/// Answers from `table` from now on (null: from none); the epoch of the counters.
///
/// # Safety
/// See the rules above.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_serve(plane: *const Plane, table: *const Table, renumbered: u32) -> u32 {
    // SAFETY: the caller keeps the rules; the count of the table's Arc grows by the one that the plane keeps.
    let (plane, table) = unsafe {
        let table = (!table.is_null()).then(|| {
            Arc::increment_strong_count(table);
            Arc::from_raw(table)
        });
        (&*plane, table)
    };
    plane.serve(table, renumbered != 0)
}

/// Gives about one message in `every` to the log from now on; 0: none.
///
/// # Safety
/// See the rules above.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_sample(plane: *const Plane, every: u64) {
    // SAFETY: the caller keeps the rules.
    unsafe { &*plane }.sample(every);
}

/// Moves messages for the reference to `out`; how many octets.
///
/// # Safety
/// See the rules above.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_take(plane: *const Plane, out: *mut u8, room: usize) -> usize {
    // SAFETY: the caller keeps the rules.
    let (plane, out) = unsafe { (&*plane, output(out, room)) };
    plane.take(out)
}

/// Fills `out` with `STATS` numbers.
///
/// # Safety
/// See the rules above; `out` has room for `STATS` numbers.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_stats(plane: *const Plane, out: *mut u64) {
    // SAFETY: the caller keeps the rules.
    let (plane, out) = unsafe { (&*plane, output(out, STATS)) };
    plane.stats(out);
}

/// Fills `out` with rows of four numbers and forgets them; how many rows. `what` 0: epoch, slot, locality, questions;
/// 1: epoch, locality, datacenter, questions.
///
/// # Safety
/// See the rules above; `out` has room for `rows` times four numbers.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_counts(plane: *const Plane, what: u32, out: *mut u32, rows: usize) -> usize {
    // SAFETY: the caller keeps the rules.
    let (plane, out) = unsafe { (&*plane, output(out, rows * 4)) };
    let mut rooms = out.chunks_exact_mut(4);
    let mut written = 0;
    if what == 0 {
        plane.forget_read();
    }
    plane.read(|epoch, tally| {
        let mut put = |[a, b, questions]: [u32; 3]| match rooms.next() {
            Some(room) => {
                room.copy_from_slice(&[epoch, a, b, questions]);
                written += 1;
                true
            }
            None => false,
        };
        if what == 0 {
            tally.take_demand(&mut put);
        } else {
            tally.take_destinations(&mut put);
        }
    });
    written
}

/// Ends all threads and frees the data plane.
///
/// # Safety
/// See the rules above.
#[no_mangle]
pub unsafe extern "C" fn gslb_dns_stop(plane: *const Plane) {
    // SAFETY: the handle is an Arc that was made into a pointer, and nobody else has it.
    if let Some(plane) = Arc::into_inner(unsafe { Arc::from_raw(plane) }) {
        plane.stop();
    }
}
