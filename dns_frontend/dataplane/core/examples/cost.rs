//! Answers each message of a file once, for callgrind to count: `cost TABLE MESSAGES`.
//!
//! MESSAGES: one behind the other, each after its length (16 bits, big-endian). One line of output for each: what became of
//! it. `tests/fuzz/test_dns_cost.py` runs it, and reads one dump of callgrind for each call of `answered`.

use gslb_dns_core::{answer, Client, Now, Outcome, Table, Transport};
use std::io::Write;

/// What callgrind counts, and nothing else.
#[inline(never)]
fn answered(table: &Table, packet: &[u8], now: Now, out: &mut [u8]) -> Outcome {
    answer(table, packet, Client::V4(0x0A01_0203), Transport::Udp, now, out)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut paths = std::env::args().skip(1);
    let (Some(table), Some(messages)) = (paths.next(), paths.next()) else {
        return Err("cost TABLE MESSAGES".into());
    };
    let table = Table::load(&std::fs::read(table)?)?;
    let messages = std::fs::read(messages)?;
    let mut rest = messages.as_slice();
    let mut out = [0u8; 1232];
    let mut now = Now { wall_s: 1_800_000_000, monotonic_ns: 0 };
    let mut stdout = std::io::stdout().lock();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (packet, behind) = behind.split_at_checked(length).ok_or("a message is cut short")?;
        rest = behind;
        // Long enough after the one before for the rate limit to have forgotten it.
        now.monotonic_ns += 10_000_000_000;
        let outcome = answered(&table, packet, now, &mut out);
        writeln!(stdout, "{outcome:?}")?;
    }
    Ok(())
}
