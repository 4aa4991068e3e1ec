//! Any octets as a message: no panic, and an answer that is one to this message and no longer than it may be.
#![no_main]

use gslb_dns_core::{answer, Client, Now, Outcome, Table, Transport};
use libfuzzer_sys::fuzz_target;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

static TABLE: OnceLock<Table> = OnceLock::new();
/// Each message comes a second after the one before, or all of them, from one address, would be over the rate limit.
static CLOCK_S: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|packet: &[u8]| {
    let table = TABLE.get_or_init(|| Table::load(include_bytes!("../corpus/table/world")).expect("our own table"));
    for (transport, longest) in [(Transport::Udp, 1232), (Transport::Tcp, 4096)] {
        let mut out = [0u8; 4096];
        let second = CLOCK_S.fetch_add(1, Ordering::Relaxed);
        let now = Now { wall_s: 1_800_000_000 + second % 4000, monotonic_ns: second * 1_000_000_000 };
        let outcome = answer(table, packet, Client::V4(0x0A01_0203), transport, now, &mut out);
        let length = match outcome {
            Outcome::Silent => {
                assert!(packet.len() < 12 || packet[2] & 0x80 != 0);
                continue;
            }
            Outcome::Ask => continue,
            Outcome::Answer(told) => told.length,
            Outcome::Limited(told) => told.length,
        };
        assert!(length == 0 || (12..=longest).contains(&length));
        if length > 0 {
            assert_eq!(out[..2], packet[..2], "the ID");
            assert!(out[2] & 0x80 != 0 && packet[2] & 0x80 == 0, "QR");
            assert_eq!(out[2] & 0x79, packet[2] & 0x79, "opcode and RD as they came");
            assert_eq!(out[3] & 0xF0, 0, "RA, Z, AD, CD");
            let questions = u16::from_be_bytes([out[4], out[5]]);
            assert!(questions <= 1 && (questions == 1 || length == 12), "a question, or a bare header");
        }
    }
});
