//! BLAKE2b with a digest of 64 bits (RFC 7693), as `hashlib.blake2b(key, digest_size=8)` has it.
//!
//! Our own and not a crate: it keeps the build free of downloads, and its tests hold it to what Python computes.
#![allow(clippy::indexing_slicing)] // every index is masked to the length of its array: no check, no panic

const IV: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

const SIGMA: [[usize; 16]; 12] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
];

/// The personalisation of the hash that picks a window of addresses.
pub(crate) const WINDOW: u64 = u64::from_le_bytes(*b"window\0\0");
/// No personalisation.
pub(crate) const PLAIN: u64 = 0;

const BLOCK: usize = 128;
const DIGEST_OCTETS: u64 = 8;

/// The digest of `key` as a big-endian number, as Python's `int.from_bytes(digest, "big")`.
///
/// `person`: the first eight octets of the personalisation, the other eight are zero.
pub(crate) fn digest64(key: &[u8], person: u64) -> u64 {
    let mut state = IV;
    state[0] ^= 0x0101_0000 ^ DIGEST_OCTETS;
    state[6] ^= person;
    let mut done: u64 = 0;
    let mut rest = key;
    while rest.len() > BLOCK {
        let (block, after) = rest.split_at(BLOCK);
        done += BLOCK as u64;
        compress(&mut state, block, done, false);
        rest = after;
    }
    compress(&mut state, rest, done + rest.len() as u64, true);
    state[0].swap_bytes()
}

/// One block, padded with zeros.
fn compress(state: &mut [u64; 8], block: &[u8], done: u64, last: bool) {
    let mut m = [0u64; 16];
    for (word, octets) in m.iter_mut().zip(block.chunks(8)) {
        let mut padded = [0u8; 8];
        for (to, from) in padded.iter_mut().zip(octets) {
            *to = *from;
        }
        *word = u64::from_le_bytes(padded);
    }
    let mut v = [0u64; 16];
    for (to, from) in v.iter_mut().zip(state.iter().chain(&IV)) {
        *to = *from;
    }
    v[12] ^= done;
    if last {
        v[14] = !v[14];
    }
    for s in &SIGMA {
        mix(&mut v, [0, 4, 8, 12], m[s[0] & 15], m[s[1] & 15]);
        mix(&mut v, [1, 5, 9, 13], m[s[2] & 15], m[s[3] & 15]);
        mix(&mut v, [2, 6, 10, 14], m[s[4] & 15], m[s[5] & 15]);
        mix(&mut v, [3, 7, 11, 15], m[s[6] & 15], m[s[7] & 15]);
        mix(&mut v, [0, 5, 10, 15], m[s[8] & 15], m[s[9] & 15]);
        mix(&mut v, [1, 6, 11, 12], m[s[10] & 15], m[s[11] & 15]);
        mix(&mut v, [2, 7, 8, 13], m[s[12] & 15], m[s[13] & 15]);
        mix(&mut v, [3, 4, 9, 14], m[s[14] & 15], m[s[15] & 15]);
    }
    for (index, word) in state.iter_mut().enumerate() {
        *word ^= v[index & 15] ^ v[(index + 8) & 15];
    }
}

#[inline(always)]
fn mix(v: &mut [u64; 16], at: [usize; 4], x: u64, y: u64) {
    let [a, b, c, d] = at.map(|index| index & 15);
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(x);
    v[d] = (v[d] ^ v[a]).rotate_right(32);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(24);
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(y);
    v[d] = (v[d] ^ v[a]).rotate_right(16);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(63);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `hashlib.blake2b(key, digest_size=8, person=...)` of CPython.
    #[test]
    fn agrees_with_hashlib() {
        let long: Vec<u8> = (0..300u16).map(|n| n as u8).collect();
        assert_eq!(digest64(b"", PLAIN), VECTORS[0]);
        assert_eq!(digest64(b"abc", PLAIN), VECTORS[1]);
        assert_eq!(digest64(&long[..128], PLAIN), VECTORS[2]);
        assert_eq!(digest64(&long, PLAIN), VECTORS[3]);
        assert_eq!(digest64(b"abc", WINDOW), VECTORS[4]);
    }

    const VECTORS: [u64; 5] = [
        0xe4a6_a057_7479_b2b4,
        0xd8bb_14d8_33d5_9559,
        0xc2d1_3df1_b661_7e82,
        0xd325_a9e1_86fa_61cc,
        0x55b8_311a_c901_c2fa,
    ];
}
