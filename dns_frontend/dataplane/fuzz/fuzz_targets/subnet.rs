//! Any octets as options of a query for a steered name's A or HTTPS, from any client.
#![no_main]

use gslb_dns_core::{answer, Client, Now, Table, Transport};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static TABLE: OnceLock<Table> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let table = TABLE.get_or_init(|| Table::load(include_bytes!("../corpus/table/world")).expect("our own table"));
    if data.len() < 8 || data.len() > 60_000 {
        return;
    }
    let (client, options) = data.split_at(8);
    let word = u64::from_be_bytes(client.try_into().expect("eight octets"));
    let from = if word & 1 == 0 { Client::V4((word >> 8) as u32) } else { Client::V6(u128::from(word) << 56) };
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(b"\x03www\x0bshakespeare\x07example\x00");
    packet.extend_from_slice(&[0, if word & 2 == 0 { 1 } else { 65 }, 0, 1]);
    packet.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00");
    packet.extend_from_slice(&(options.len() as u16).to_be_bytes());
    packet.extend_from_slice(options);
    let mut out = [0u8; 1232];
    let now = Now { wall_s: 1_800_000_000, monotonic_ns: word };
    answer(table, &packet, from, Transport::Udp, now, &mut out);
});
