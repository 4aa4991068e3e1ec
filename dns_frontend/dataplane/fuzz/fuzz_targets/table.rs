//! Any octets as a table, or as a patch of one: refused, or a table that answers without a panic.
#![no_main]

use gslb_dns_core::{answer, Client, Now, Table, Transport};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static WHOLE: OnceLock<Table> = OnceLock::new();

const QUERIES: [&[u8]; 4] = [
    b"\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x0bshakespeare\x07example\x00\x00\x01\x00\x01",
    b"\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x0bshakespeare\x07example\x00\x00\x41\x00\x01",
    b"\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0bshakespeare\x07example\x00\x00\x02\x00\x01",
    b"\x00\x09\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x03www\x0bshakespeare\x07example\x00\x00\x1c\x00\x01",
];

fuzz_target!(|octets: &[u8]| {
    let whole = WHOLE.get_or_init(|| Table::load(include_bytes!("../corpus/table/world")).expect("our own table"));
    let Ok(table) = Table::load(octets).or_else(|_| whole.patched(octets)) else {
        return;
    };
    let mut out = [0u8; 1232];
    for query in QUERIES {
        for client in [Client::V4(0x0A01_0203), Client::V6(0x2001_0db8 << 96)] {
            answer(&table, query, client, Transport::Udp, Now::default(), &mut out);
        }
    }
});
