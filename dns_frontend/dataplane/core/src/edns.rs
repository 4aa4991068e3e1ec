//! EDNS(0) as far as answering needs it: the OPT record (RFC 6891) and client subnet (RFC 7871).

use crate::geo::Client;
use crate::query::be16;

const OPTION_CLIENT_SUBNET: u16 = 8;
const OPTIONS_MAX: usize = 32;
const OPTION_HEAD_OCTETS: usize = 4;
const SUBNET_HEAD_OCTETS: usize = 4;
const DO_FLAG: u32 = 0x8000;
const UDP_PAYLOAD_MAX_OCTETS: u16 = 1232;

/// What the OPT record of a query says.
pub(crate) struct Edns<'p> {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    pub(crate) subnet: Option<ClientSubnet<'p>>,
    /// An option breaks its RFC: the answer is FORMERR, with OPT.
    pub(crate) malformed: bool,
}

/// The client's network as its resolver tells it. `address` is its first octets, as they came, for the echo.
#[derive(Clone, Copy)]
pub(crate) struct ClientSubnet<'p> {
    family: u16,
    source: u8,
    address: &'p [u8],
}

impl ClientSubnet<'_> {
    /// The first address of the network; None when there is none (source 0: the client wants to be unknown).
    pub(crate) fn client(&self) -> Option<Client> {
        if self.source == 0 {
            return None;
        }
        let octets = |size: usize| {
            let mut value: u128 = 0;
            for index in 0..size {
                value = value << 8 | u128::from(self.address.get(index).copied().unwrap_or(0));
            }
            value
        };
        match self.family {
            1 => Some(Client::V4(octets(4) as u32)),
            2 => Some(Client::V6(octets(16))),
            _ => None,
        }
    }
}

/// The OPT record with this class, TTL and data. Options of a version that we do not speak are not read.
pub(crate) fn parse_opt(payload: u16, ttl: u32, data: &[u8]) -> Edns<'_> {
    let version = (ttl >> 16) as u8;
    let read = if version == 0 { options(data) } else { Some(None) };
    Edns {
        payload,
        version,
        dnssec_ok: ttl & DO_FLAG != 0,
        subnet: read.flatten(),
        malformed: read.is_none(),
    }
}

/// The client subnet among the options; None when one of them is malformed.
fn options(data: &[u8]) -> Option<Option<ClientSubnet<'_>>> {
    let mut subnet = None;
    let mut rest = data;
    let mut seen = 0;
    while !rest.is_empty() {
        seen += 1;
        if seen > OPTIONS_MAX {
            return None;
        }
        let code = be16(rest, 0)?;
        let length = usize::from(be16(rest, 2)?);
        let value = rest.get(OPTION_HEAD_OCTETS..OPTION_HEAD_OCTETS + length)?;
        if code == OPTION_CLIENT_SUBNET {
            if subnet.is_some() {
                return None;
            }
            subnet = Some(parse_subnet(value)?);
        }
        rest = rest.get(OPTION_HEAD_OCTETS + length..)?;
    }
    Some(subnet)
}

/// The client subnet of a query (RFC 7871 section 6); None when it is malformed.
fn parse_subnet(data: &[u8]) -> Option<ClientSubnet<'_>> {
    let family = be16(data, 0)?;
    let source = *data.get(2)?;
    let scope = *data.get(3)?;
    let address = data.get(SUBNET_HEAD_OCTETS..)?;
    if scope != 0 {
        return None;
    }
    let bits = match family {
        0 if source == 0 && address.is_empty() => 0,
        1 => 32,
        2 => 128,
        _ => return None,
    };
    if source > bits || address.len() != usize::from(source).div_ceil(8) {
        return None;
    }
    if source % 8 != 0 && address.last().is_some_and(|last| last & (0xFF >> (source % 8)) != 0) {
        return None;
    }
    Some(ClientSubnet { family, source, address })
}

/// The most octets that an OPT record of ours has: a whole IPv6 address comes back.
pub(crate) const OPT_MAX_OCTETS: usize = 11 + OPTION_HEAD_OCTETS + SUBNET_HEAD_OCTETS + 16;

/// Writes the OPT record of an answer to `out`; its length. With a `scope`, the query's client subnet comes back with it.
pub(crate) fn write_opt(out: &mut [u8; OPT_MAX_OCTETS], asked: &Edns, extended_rcode: u8, scope: Option<u8>) -> usize {
    let mut octets = [0u8; OPT_MAX_OCTETS];
    let mut length = 11;
    let [payload_high, payload_low] = UDP_PAYLOAD_MAX_OCTETS.to_be_bytes();
    octets[2] = 41; // OPT, after the root's name and the high octet of the type
    octets[3] = payload_high;
    octets[4] = payload_low;
    octets[5] = extended_rcode;
    octets[7] = if asked.dnssec_ok { 0x80 } else { 0 };
    if let (Some(scope), Some(subnet)) = (scope, asked.subnet) {
        let size = SUBNET_HEAD_OCTETS + subnet.address.len();
        octets[10] = (OPTION_HEAD_OCTETS + size) as u8;
        octets[12] = OPTION_CLIENT_SUBNET as u8;
        octets[14] = size as u8;
        let [family_high, family_low] = subnet.family.to_be_bytes();
        octets[15] = family_high;
        octets[16] = family_low;
        octets[17] = subnet.source;
        octets[18] = scope;
        for (to, from) in octets.iter_mut().skip(19).zip(subnet.address) {
            *to = *from;
        }
        length += OPTION_HEAD_OCTETS + size;
    }
    *out = octets;
    length
}
