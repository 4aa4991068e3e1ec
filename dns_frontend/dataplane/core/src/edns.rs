//! EDNS(0) as far as answering needs it: the OPT record (RFC 6891) and client subnet (RFC 7871).

use crate::geo::Client;
use crate::query::be16;

const OPTION_NSID: u16 = 3;
const OPTION_CLIENT_SUBNET: u16 = 8;
const OPTION_COOKIE: u16 = 10;
const OPTION_KEEPALIVE: u16 = 11;
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
    /// The data of the first COOKIE option.
    pub(crate) cookie: Option<&'p [u8]>,
    /// Who we are is asked for.
    pub(crate) nsid: bool,
    /// TCP keepalive is asked for.
    pub(crate) keepalive: bool,
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
    let read = if version == 0 { options(data) } else { Some(Options::default()) };
    let malformed = read.is_none();
    let Options { subnet, cookie, nsid, keepalive } = read.unwrap_or_default();
    Edns { payload, version, dnssec_ok: ttl & DO_FLAG != 0, subnet, malformed, cookie, nsid, keepalive }
}

#[derive(Default)]
struct Options<'p> {
    subnet: Option<ClientSubnet<'p>>,
    cookie: Option<&'p [u8]>,
    nsid: bool,
    keepalive: bool,
}

/// The options that we know; None when one of them is malformed. Of several cookies the first counts.
fn options(data: &[u8]) -> Option<Options<'_>> {
    let mut found = Options::default();
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
        match code {
            OPTION_CLIENT_SUBNET if found.subnet.is_some() => return None,
            OPTION_CLIENT_SUBNET => found.subnet = Some(parse_subnet(value)?),
            OPTION_COOKIE => found.cookie = found.cookie.or(Some(value)),
            OPTION_NSID => found.nsid = true,
            OPTION_KEEPALIVE => found.keepalive = true,
            _ => {}
        }
        rest = rest.get(OPTION_HEAD_OCTETS + length..)?;
    }
    Some(found)
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

/// The most octets that an OPT record of ours has: a whole IPv6 address, a cookie, NSID and two extended errors.
const OPT_MAX_OCTETS: usize = 11 + OPTION_HEAD_OCTETS + SUBNET_HEAD_OCTETS + 16 + 28 + 3 * GUARD_OPTION_MAX_OCTETS;
/// NSID of 64 octets and its head are the longest of them.
pub(crate) const GUARD_OPTION_MAX_OCTETS: usize = 80;
const HEAD_OCTETS: usize = 11;
/// A client's cookie and ours.
pub(crate) const COOKIE_OCTETS: usize = 24;

/// The OPT record of an answer in the making.
pub(crate) struct Opt {
    octets: [u8; OPT_MAX_OCTETS],
    length: usize,
}

impl Opt {
    /// No OPT record.
    pub(crate) fn none() -> Self {
        Opt { octets: [0; OPT_MAX_OCTETS], length: 0 }
    }

    /// With a `scope`, the query's client subnet comes back with it. DO is copied, the version is ours.
    #[inline]
    pub(crate) fn begin(&mut self, asked: &Edns, rcode: u16, scope: Option<u8>) {
        let [payload_high, payload_low] = UDP_PAYLOAD_MAX_OCTETS.to_be_bytes();
        let dnssec_ok = if asked.dnssec_ok { 0x80 } else { 0 };
        // The root's name, type OPT, payload, upper bits of the code, version, flags, and a length that is not known yet.
        self.put(&[0, 0, 41, payload_high, payload_low, (rcode >> 4) as u8, 0, dnssec_ok, 0, 0, 0]);
        if let (Some(scope), Some(subnet)) = (scope, asked.subnet) {
            let [family_high, family_low] = subnet.family.to_be_bytes();
            let length = (SUBNET_HEAD_OCTETS + subnet.address.len()) as u8;
            let code = OPTION_CLIENT_SUBNET as u8;
            self.put(&[0, code, 0, length, family_high, family_low, subnet.source, scope]);
            self.put(subnet.address);
        }
    }

    /// Adds octets that are options already.
    #[inline]
    pub(crate) fn put(&mut self, octets: &[u8]) {
        let end = self.length + octets.len();
        if let Some(room) = self.octets.get_mut(self.length..end) {
            room.copy_from_slice(octets);
            self.length = end;
        }
    }

    /// Adds a COOKIE option.
    #[inline]
    pub(crate) fn cookie(&mut self, data: &[u8; COOKIE_OCTETS]) {
        self.put(&[0, OPTION_COOKIE as u8, 0, COOKIE_OCTETS as u8]);
        self.put(data);
    }

    /// The record; empty if there is none.
    pub(crate) fn finish(&mut self) -> &[u8] {
        if let Some(options) = self.length.checked_sub(HEAD_OCTETS) {
            let [high, low] = (options as u16).to_be_bytes();
            self.octets[9] = high;
            self.octets[10] = low;
        }
        self.octets.get(..self.length).unwrap_or(&[])
    }
}
