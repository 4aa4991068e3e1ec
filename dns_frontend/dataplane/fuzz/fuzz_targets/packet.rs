//! Any octets as a message: no panic, and an answer that is one to this message and no longer than it may be.
#![no_main]

use gslb_dns_core::{answer, Client, Now, Outcome, Table, Transport};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static TABLE: OnceLock<Table> = OnceLock::new();

fuzz_target!(|packet: &[u8]| {
    let table = TABLE.get_or_init(|| Table::load(include_bytes!("../corpus/table/world")).expect("our own table"));
    let mut out = [0u8; 1232];
    let now = Now { wall_s: 1_800_000_000, monotonic_ns: 0 };
    if let Outcome::Answer(told) = answer(table, packet, Client::V4(0x0A01_0203), Transport::Udp, now, &mut out) {
        assert!(told.length >= 12 && told.length <= 1232);
        assert_eq!(out[..2], packet[..2]);
        assert!(out[2] & 0x80 != 0 && packet[2] & 0x80 == 0);
    }
});
