//! One message: the walk of `responder/respond.py` and `responder/resolve.py`, for all that needs no chain of names.

use crate::edns::{Opt, COOKIE_OCTETS};
use crate::geo::Client;
use crate::guard::{Class, Guard, Now, Shown, Verdict};
use crate::https::Hinted;
use crate::names::{Content, Found, NamedSet, Node, ALIAS, ASK, ASK_BELOW, ASK_DS, DATA, HTTPS, NONE};
use crate::query::{self, rcode, Query, RD, TYPE_HTTPS, TYPE_OPT};
use crate::service::Ring;
use crate::table::Table;
use crate::writer::{Stop, Writer};
use crate::Transport;

const QR: u16 = 0x8000;
const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const ECHOED: u16 = 0x7800 | RD;
const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_DS: u16 = 43;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
const TYPE_ANY: u16 = 255;
const UDP_MIN_OCTETS: usize = 512;
const UDP_MAX_OCTETS: usize = 1232;
const TCP_MAX_OCTETS: usize = 65_535;
/// /24 and /56: as `KEY_BITS` in `table/steering.py`.
const KEY_BITS_V4: u8 = 24;
const KEY_BITS_V6: u8 = 56;

/// The service answered, but has no address of the type that was asked for.
pub const NO_DATACENTER: u16 = u16::MAX;

/// A question for a service's address, for the counters: numbers of the table's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeredTo {
    /// The service.
    pub slot: u32,
    /// Where the client is.
    pub locality: u16,
    /// Where it was sent, or `NO_DATACENTER`.
    pub datacenter: u16,
}

/// An answer that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Octets of it.
    pub length: usize,
    /// Its response code, the extended one.
    pub rcode: u16,
    /// Whether it did not fit, and has TC set instead.
    pub truncated: bool,
    /// Whether the rate limit would hold it back, were it not an error that is as small as anything.
    pub limited: bool,
    /// Set when a plan gave the answer to a question for addresses.
    pub steered: Option<SteeredTo>,
}

/// An answer that the rate limit holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// What it was.
    pub class: Class,
    /// `Slip`: `length` octets are sent in its place; `Drop`: nothing.
    pub verdict: Verdict,
    /// Octets of what is sent.
    pub length: usize,
}

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is said.
    Silent,
    /// The reference answers.
    Ask,
    /// This is sent.
    Answer(Answered),
    /// This is not, or something small is.
    Limited(Limited),
}

/// What to say, without octets.
struct Reply<'t> {
    rcode: u16,
    authoritative: bool,
    body: Body<'t>,
    scope: u8,
    steered: Option<SteeredTo>,
    panic: bool,
    /// Stands for the zone whose negative answer or failure it is; 0.
    zone: u64,
}

enum Body<'t> {
    Nothing,
    Ready { wire: &'t [u8], count: u16 },
    Steered(Ring<'t>),
    Hinted(Hinted<'t>),
    Records(&'t NamedSet),
    Negative { origin_octets: usize, soa: &'t NamedSet },
}

impl<'t> Reply<'t> {
    fn bare(rcode: u16) -> Self {
        Reply { rcode, authoritative: false, body: Body::Nothing, scope: 0, steered: None, panic: false, zone: 0 }
    }

    fn of(body: Body<'t>) -> Self {
        Reply { rcode: rcode::NOERROR, authoritative: true, body, scope: 0, steered: None, panic: false, zone: 0 }
    }

    fn class(&self) -> Class {
        match (self.rcode, &self.body) {
            (rcode::NXDOMAIN, _) => Class::NxDomain,
            (rcode::NOERROR, Body::Nothing) => Class::Referral,
            (rcode::NOERROR, Body::Negative { .. }) => Class::NoData,
            (rcode::NOERROR, _) => Class::Answer,
            _ => Class::Error,
        }
    }
}

/// Answers the message `packet` from `source` into `out`, which should have room for the longest answer.
pub fn answer(table: &Table, packet: &[u8], source: Client, transport: Transport, now: Now, out: &mut [u8]) -> Outcome {
    if !query::is_query(packet) {
        return Outcome::Silent;
    }
    let guard = table.guard.as_deref();
    let query = match query::parse(packet) {
        Ok(query) => query,
        Err(bad) => return malformed(guard, packet, bad.0, (source, transport, now), out),
    };
    let edns = query.edns.as_ref();
    if guard.is_some() && transport == Transport::Tcp && edns.is_some_and(|edns| edns.keepalive) {
        return Outcome::Ask;
    }
    let offered = edns.and_then(|edns| edns.cookie);
    let shown = guard.map_or(Shown::Nothing, |guard| guard.look(offered, source, now));
    let reply = match guard {
        _ if shown == Shown::Malformed => Reply::bare(rcode::FORMERR),
        Some(guard) if transport == Transport::Udp && guard.refuses(shown) => Reply::bare(rcode::BADCOOKIE),
        _ => match resolve(table, &query, source) {
            Some(reply) => reply,
            None => return Outcome::Ask,
        },
    };
    let cookie = guard.and_then(|guard| guard.cookie(offered, shown, source, now));
    let mut opt = Opt::none();
    fill_opt(&mut opt, &query, &reply, guard, cookie.as_ref());
    let outcome = encode(&query, &reply, limit(&query, transport), opt.finish(), out);
    let (Outcome::Answer(answered), Some(guard), Transport::Udp) = (outcome, guard, transport) else {
        return outcome;
    };
    let class = reply.class();
    match guard.judge(class, reply.zone, answered.length, (source, shown), now) {
        Verdict::Send => outcome,
        Verdict::Drop => Outcome::Limited(Limited { class, verdict: Verdict::Drop, length: 0 }),
        Verdict::Slip if class == Class::Error => Outcome::Answer(Answered { limited: true, ..answered }),
        Verdict::Slip => come_again(&query, cookie.as_ref(), class, out),
    }
}

/// The answer to what is no question.
fn malformed(
    guard: Option<&Guard>,
    packet: &[u8],
    code: u16,
    (source, transport, now): (Client, Transport, Now),
    out: &mut [u8],
) -> Outcome {
    let Some(guard) = guard else { return header_only(packet, code, out) };
    let empty = query::be16(packet, 4) == Some(0) && packet.get(6..12).is_some_and(|counts| counts != [0; 6]);
    if empty && code == rcode::FORMERR {
        // It may ask for a cookie and nothing else (RFC 7873 section 5.4).
        return Outcome::Ask;
    }
    let outcome = header_only(packet, code, out);
    let (Outcome::Answer(answered), Transport::Udp) = (outcome, transport) else { return outcome };
    match guard.judge(Class::Error, 0, answered.length, (source, Shown::Nothing), now) {
        Verdict::Send => outcome,
        Verdict::Slip => Outcome::Answer(Answered { limited: true, ..answered }),
        Verdict::Drop => Outcome::Limited(Limited { class: Class::Error, verdict: Verdict::Drop, length: 0 }),
    }
}

/// What a client gets in place of an answer that the rate limit holds back: TC, so that it asks over TCP.
fn come_again(query: &Query, cookie: Option<&[u8; COOKIE_OCTETS]>, class: Class, out: &mut [u8]) -> Outcome {
    let mut opt = Opt::none();
    if let Some(edns) = &query.edns {
        opt.begin(edns, rcode::NOERROR, Some(0));
    }
    if let Some(data) = cookie {
        opt.cookie(data);
    }
    let opt = opt.finish();
    let Some(mut writer) = Writer::new(out, UDP_MAX_OCTETS, query.question) else { return Outcome::Ask };
    let flags = QR | TC | query.flags & RD;
    let written = writer.put(opt).and_then(|()| writer.finish(query.id, flags, [0, 0, u16::from(!opt.is_empty())]));
    written.map_or(Outcome::Ask, |length| Outcome::Limited(Limited { class, verdict: Verdict::Slip, length }))
}

/// The OPT record of the answer, if the query has one: client subnet, cookie, NSID, extended errors.
#[inline]
fn fill_opt(opt: &mut Opt, query: &Query, reply: &Reply, guard: Option<&Guard>, cookie: Option<&[u8; COOKIE_OCTETS]>) {
    let Some(edns) = &query.edns else { return };
    opt.begin(edns, reply.rcode, (reply.rcode != rcode::BADVERS).then_some(reply.scope));
    if let Some(data) = cookie {
        opt.cookie(data);
    }
    if let Some(guard) = guard {
        if edns.nsid {
            opt.put(&guard.nsid);
        }
        if reply.steered.is_some() {
            opt.put(&guard.stale);
            if reply.panic {
                opt.put(&guard.panic);
            }
        }
    }
}

fn header_only(packet: &[u8], code: u16, out: &mut [u8]) -> Outcome {
    let id = query::be16(packet, 0).unwrap_or(0);
    let flags = query::be16(packet, 2).unwrap_or(0);
    let words = [id, QR | flags & ECHOED | code, 0, 0, 0, 0];
    let Some(head) = out.get_mut(..query::HEADER_OCTETS) else { return Outcome::Ask };
    for (to, word) in head.chunks_exact_mut(2).zip(words) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    Outcome::Answer(Answered {
        length: query::HEADER_OCTETS,
        rcode: code,
        truncated: false,
        limited: false,
        steered: None,
    })
}

/// Octets that the answer may have.
fn limit(query: &Query, transport: Transport) -> usize {
    match (transport, &query.edns) {
        (Transport::Tcp, _) => TCP_MAX_OCTETS,
        (Transport::Udp, None) => UDP_MIN_OCTETS,
        (Transport::Udp, Some(edns)) => usize::from(edns.payload).clamp(UDP_MIN_OCTETS, UDP_MAX_OCTETS),
    }
}

/// The reply; None: the reference knows.
fn resolve<'t>(table: &'t Table, query: &Query, source: Client) -> Option<Reply<'t>> {
    if let Some(code) = refusal(query) {
        return Some(Reply::bare(code));
    }
    match table.names.find(query) {
        Found::Nowhere => Some(Reply::bare(rcode::REFUSED)),
        Found::Here(node) => data(table, node, query, source),
        Found::Below(node) => {
            if node.flags & ASK_BELOW != 0 {
                None
            } else if node.wildcard != NONE {
                data(table, table.names.node(node.wildcard)?, query, source)
            } else {
                negative(table, node).map(|reply| Reply { rcode: rcode::NXDOMAIN, ..reply })
            }
        }
    }
}

/// The code for questions that the table has nothing to do with.
fn refusal(query: &Query) -> Option<u16> {
    if let Some(edns) = &query.edns {
        if edns.version != 0 {
            return Some(rcode::BADVERS);
        }
        if edns.malformed {
            return Some(rcode::FORMERR);
        }
    }
    match query.rtype {
        _ if query.rclass != CLASS_IN => Some(rcode::REFUSED),
        TYPE_IXFR | TYPE_AXFR => Some(rcode::REFUSED),
        TYPE_ANY => None,
        TYPE_OPT => Some(rcode::FORMERR),
        128..=254 => Some(rcode::NOTIMP),
        _ => None,
    }
}

fn data<'t>(table: &'t Table, node: &'t Node, query: &Query, source: Client) -> Option<Reply<'t>> {
    let rtype = query.rtype;
    if node.flags & ASK != 0 || (rtype == TYPE_DS && node.flags & ASK_DS != 0) {
        return None;
    }
    let planned = rtype == TYPE_A || rtype == TYPE_AAAA || (rtype == TYPE_HTTPS && node.flags & HTTPS != 0);
    if node.slot != NONE && planned {
        return steered(table, node, query, source);
    }
    match table.names.set(node, rtype) {
        Some(Content::Ready { wire, count }) => Some(Reply::of(Body::Ready { wire, count: *count })),
        Some(Content::Named(set)) => Some(Reply::of(Body::Records(set))),
        Some(Content::Ask) => None,
        None if node.flags & ALIAS != 0 => None,
        None if rtype == TYPE_ANY && node.flags & DATA != 0 => None,
        None => negative(table, node),
    }
}

/// Records by the plan. Without any endpoint known there is no answer to give, and none to cache: SERVFAIL.
fn steered<'t>(table: &'t Table, node: &'t Node, query: &Query, source: Client) -> Option<Reply<'t>> {
    let Some(service) = table.service(node.slot).filter(|service| service.has_addresses()) else {
        let zone = table.names.zone(node)?.hash;
        return Some(Reply { authoritative: true, zone, ..Reply::bare(rcode::SERVFAIL) });
    };
    let told = query.edns.as_ref().and_then(|edns| edns.subnet).and_then(|subnet| subnet.client());
    let client = told.unwrap_or(source);
    let found = table.map.find(client);
    let to = SteeredTo { slot: node.slot, locality: found.locality, datacenter: NO_DATACENTER };
    let chosen = if query.rtype == TYPE_HTTPS {
        service.hinted(found.locality, client).map(|(choice, hinted)| (choice, Body::Hinted(hinted)))
    } else {
        service.steer(query.rtype, found.locality, client).map(|(choice, ring)| (choice, Body::Steered(ring)))
    };
    let Some((chosen, body)) = chosen else {
        return negative(table, node).map(|reply| Reply { steered: Some(to), ..reply });
    };
    let block = if chosen.by_locality { found.scope } else { 0 };
    let prefix = match client {
        Client::V4(_) => KEY_BITS_V4,
        Client::V6(_) => KEY_BITS_V6,
    };
    let scope = match (told, chosen.by_key) {
        (None, _) => 0,
        (Some(_), true) => block.max(prefix),
        (Some(_), false) => block,
    };
    let steered = Some(SteeredTo { datacenter: chosen.datacenter, ..to });
    Some(Reply { scope, steered, panic: chosen.panic, ..Reply::of(body) })
}

/// The SOA that says how long the negative answer holds.
fn negative<'t>(table: &'t Table, node: &Node) -> Option<Reply<'t>> {
    let zone = table.names.zone(node)?;
    let body = Body::Negative { origin_octets: zone.origin_octets, soa: &zone.negative };
    Some(Reply { zone: zone.hash, ..Reply::of(body) })
}

fn encode(query: &Query, reply: &Reply, limit: usize, opt: &[u8], out: &mut [u8]) -> Outcome {
    let Some(mut writer) = Writer::new(out, limit, query.question) else { return Outcome::Ask };
    let mut flags = QR | query.flags & RD | reply.rcode & 0xF;
    if reply.authoritative {
        flags |= AA;
    }
    let written =
        body(&mut writer, query, &reply.body).and_then(|counts| writer.put(opt).map(|()| counts).ok_or(Stop::Full));
    let (truncated, [answers, authorities]) = match written {
        Ok(counts) => (false, counts),
        Err(Stop::Ask) => return Outcome::Ask,
        Err(Stop::Full) => {
            flags |= TC;
            writer.truncate(query::HEADER_OCTETS + query.question.len());
            if writer.put(opt).is_none() {
                return Outcome::Ask;
            }
            (true, [0, 0])
        }
    };
    match writer.finish(query.id, flags, [answers, authorities, u16::from(!opt.is_empty())]) {
        Some(length) => {
            // Questions for HTTPS come along with those for addresses, and are no demand of their own.
            let steered = reply.steered.filter(|_| query.rtype != TYPE_HTTPS);
            Outcome::Answer(Answered { length, rcode: reply.rcode, truncated, limited: false, steered })
        }
        None => Outcome::Ask,
    }
}

/// The records; how many are in the answer and in the authority section.
fn body(writer: &mut Writer, query: &Query, body: &Body) -> Result<[u16; 2], Stop> {
    match body {
        Body::Nothing => Ok([0, 0]),
        Body::Ready { wire, count } => {
            writer.put(wire).ok_or(Stop::Full)?;
            Ok([*count, 0])
        }
        Body::Steered(ring) => {
            for record in ring.rotated(query.id) {
                writer.put(record).ok_or(Stop::Full)?;
            }
            Ok([ring.count as u16, 0])
        }
        Body::Hinted(hinted) => {
            hinted.write(writer, query.id)?;
            Ok([1, 0])
        }
        Body::Records(set) => {
            writer.named_set(query, query.name.len(), set)?;
            Ok([set.datas.len() as u16, 0])
        }
        Body::Negative { origin_octets, soa } => {
            writer.named_set(query, *origin_octets, soa)?;
            Ok([0, soa.datas.len() as u16])
        }
    }
}
