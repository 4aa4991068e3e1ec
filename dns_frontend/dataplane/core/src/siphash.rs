//! SipHash-2-4 (Aumasson and Bernstein, 2012), the hash of DNS cookies (RFC 9018 section 4.4).

/// The hash under a key of two words of `words` (eight octets each, little-endian) and `rest` octets more, those of
/// `tail` from its lowest on; its little-endian octets are what travels.
#[inline]
pub(crate) fn siphash24(key: (u64, u64), words: &[u64], tail: u64, rest: u8) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    for word in words {
        absorb(&mut v, *word);
    }
    let octets = words.len() as u64 * 8 + u64::from(rest);
    absorb(&mut v, tail | octets << 56);
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::siphash24;

    /// The vector of appendix A of the paper.
    #[test]
    fn agrees_with_the_paper() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let hash = siphash24(key, &[0x0706_0504_0302_0100], 0x000e_0d0c_0b0a_0908, 7);
        assert_eq!(hash, 0xa129_ca61_49be_45e5);
    }
}
