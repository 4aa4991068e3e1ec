//! Cookies (RFC 7873, 9018) and response rate limiting, as `responder/{guard,cookies,rrl}.py` have them.
//!
//! The buckets are shared by all threads: atomics in a table of fixed size. Where that is full the bucket nearest to being
//! full again makes room, which costs its client nothing but the memory of what it took.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use crate::edns::{COOKIE_OCTETS, GUARD_OPTION_MAX_OCTETS};
use crate::geo::Client;
use crate::reader::{LoadError, Reader};
use crate::siphash::siphash24;

const CLIENT_OCTETS: usize = 8;
const SERVER_OCTETS: usize = 16;
const HASHED_FROM: usize = 8;
const VERSION: [u8; 4] = [1, 0, 0, 0];
const AGE_MAX_S: i64 = 3600;
const AHEAD_MAX_S: i64 = 300;
const RENEW_S: i64 = 1800;
const SECRETS_MAX: u8 = 4;
const EXEMPT_MAX: usize = 10_000;
/// Few while fuzzing, which loads a table with each input.
const BUCKETS: usize = if cfg!(fuzzing) { 1 << 6 } else { 1 << 16 };
const WAYS: usize = 4;
const TOKEN_OCTETS: u64 = 256;
const COOKIES_REQUIRED: u8 = 1;

/// What the guard needs to know of the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Seconds since the epoch.
    pub wall_s: u64,
    /// Nanoseconds of a clock that never goes back.
    pub monotonic_ns: u64,
}

/// What a query's cookie shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Nothing,
    Malformed,
    Client,
    Stale,
    Good,
}

/// What kind of answer, by what a flood of it would look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// With records.
    Answer = 0,
    /// To other servers; the reference gives those.
    Referral = 1,
    /// The name has no such records.
    NoData = 2,
    /// There is no such name.
    NxDomain = 3,
    /// Any other code.
    Error = 4,
}

/// What the rate limit says to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes out.
    Send,
    /// Something small goes out in its place.
    Slip,
    /// Nothing does.
    Drop,
}

/// What the operator chose, and the buckets.
pub(crate) struct Guard {
    secrets: Box<[(u64, u64)]>,
    required: bool,
    pub(crate) nsid: Box<[u8]>,
    pub(crate) stale: Box<[u8]>,
    pub(crate) panic: Box<[u8]>,
    exempt_v4: Box<[(u32, u32)]>,
    exempt_v6: Box<[(u128, u128)]>,
    limiter: Option<Arc<Limiter>>,
}

fn word(octets: &[u8]) -> u64 {
    octets.try_into().map_or(0, u64::from_le_bytes)
}

/// The hash of client cookie, version and time of a server cookie (eight octets each), and an address.
#[inline]
fn sign(secret: (u64, u64), client: &[u8], head: &[u8], address: Client) -> [u8; 8] {
    let (client, head) = (word(client), word(head));
    let hash = match address {
        Client::V4(value) => siphash24(secret, &[client, head], u64::from(value.swap_bytes()), 4),
        Client::V6(value) => {
            let (upper, lower) = ((value >> 64) as u64, value as u64);
            siphash24(secret, &[client, head, upper.swap_bytes(), lower.swap_bytes()], 0, 0)
        }
    };
    hash.to_le_bytes()
}

/// How old a server cookie says it is; None: too old, or from the future. Serial number arithmetic.
fn age_s(server: &[u8], now_s: u64) -> Option<i64> {
    let made = u32::from_be_bytes(server.get(4..HASHED_FROM)?.try_into().ok()?);
    let age = i64::from((now_s as u32).wrapping_sub(made) as i32);
    (-AHEAD_MAX_S..=AGE_MAX_S).contains(&age).then_some(age)
}

impl Guard {
    /// `before`: whose buckets are kept if the rule is the same.
    pub(crate) fn load(reader: &mut Reader, before: Option<&Guard>) -> Result<Self, LoadError> {
        let required = reader.u8()? & COOKIES_REQUIRED != 0;
        let count = reader.u8()?;
        if count > SECRETS_MAX {
            return Err(LoadError::new("the guard has too many secrets"));
        }
        let secrets = (0..count).map(|_| Ok((reader.u64()?, reader.u64()?))).collect::<Result<Vec<_>, LoadError>>()?;
        let mut option = || {
            let length = usize::from(reader.u16()?);
            if length > GUARD_OPTION_MAX_OCTETS {
                return Err(LoadError::new("an option of the guard is too long"));
            }
            Ok(Box::from(reader.take(length)?))
        };
        let (nsid, stale, panic) = (option()?, option()?, option()?);
        let rule = Rule {
            seed: (reader.u64()?, reader.u64()?),
            slip: reader.u32()?,
            token_ns: reader.u64()?,
            window_ns: reader.u64()?,
        };
        let (mut exempt_v4, mut exempt_v6) = (Vec::new(), Vec::new());
        let count = reader.count(33)?;
        if count > EXEMPT_MAX {
            return Err(LoadError::new("the guard has too many exempt networks"));
        }
        for _ in 0..count {
            match (reader.u8()?, reader.u128()?, reader.u128()?) {
                (4, first, last) => exempt_v4.push((first as u32, last as u32)),
                (_, first, last) => exempt_v6.push((first, last)),
            }
        }
        let kept = before.and_then(|guard| guard.limiter.clone()).filter(|limiter| limiter.rule == rule);
        let limiter = (rule.token_ns > 0).then(|| kept.unwrap_or_else(|| Arc::new(Limiter::new(rule))));
        Ok(Guard {
            secrets: secrets.into_boxed_slice(),
            required,
            nsid,
            stale,
            panic,
            exempt_v4: exempt_v4.into_boxed_slice(),
            exempt_v6: exempt_v6.into_boxed_slice(),
            limiter,
        })
    }

    /// What the data of a COOKIE option shows.
    pub(crate) fn look(&self, option: Option<&[u8]>, address: Client, now: Now) -> Shown {
        let Some(option) = option.filter(|_| !self.secrets.is_empty()) else { return Shown::Nothing };
        let Some((client, server)) = option.split_at_checked(CLIENT_OCTETS) else { return Shown::Malformed };
        match server.len() {
            0 => return Shown::Client,
            8..=32 => {}
            _ => return Shown::Malformed,
        }
        let Some((head, hash)) = server.split_at_checked(HASHED_FROM) else { return Shown::Stale };
        if server.len() != SERVER_OCTETS || server.first() != VERSION.first() || age_s(server, now.wall_s).is_none() {
            return Shown::Stale;
        }
        let proven = self.secrets.iter().any(|secret| sign(*secret, client, head, address) == hash);
        if proven {
            Shown::Good
        } else {
            Shown::Stale
        }
    }

    /// Whether a client with this cookie gets BADCOOKIE over UDP.
    pub(crate) fn refuses(&self, shown: Shown) -> bool {
        self.required && matches!(shown, Shown::Client | Shown::Stale)
    }

    /// The data of the COOKIE option of the answer: the one that was shown while it is fresh, else a new one.
    pub(crate) fn cookie(
        &self,
        option: Option<&[u8]>,
        shown: Shown,
        address: Client,
        now: Now,
    ) -> Option<[u8; COOKIE_OCTETS]> {
        let (client, server) = option?.split_at_checked(CLIENT_OCTETS)?;
        let secret = *self.secrets.first()?;
        if matches!(shown, Shown::Nothing | Shown::Malformed) {
            return None;
        }
        if shown == Shown::Good {
            let (head, hash) = server.split_at_checked(HASHED_FROM)?;
            let fresh = age_s(server, now.wall_s).is_some_and(|age| age <= RENEW_S);
            if fresh && sign(secret, client, head, address) == hash {
                return option?.try_into().ok();
            }
        }
        let [v, r1, r2, r3] = VERSION;
        let [t0, t1, t2, t3] = (now.wall_s as u32).to_be_bytes();
        let head = [v, r1, r2, r3, t0, t1, t2, t3];
        let mut data = [0u8; COOKIE_OCTETS];
        let (own, server) = data.split_at_mut(CLIENT_OCTETS);
        own.copy_from_slice(client);
        let (first, last) = server.split_at_mut(HASHED_FROM);
        first.copy_from_slice(&head);
        last.copy_from_slice(&sign(secret, client, &head, address));
        Some(data)
    }

    fn exempts(&self, client: Client) -> bool {
        match client {
            Client::V4(value) => self.exempt_v4.iter().any(|(first, last)| (*first..=*last).contains(&value)),
            Client::V6(value) => self.exempt_v6.iter().any(|(first, last)| (*first..=*last).contains(&value)),
        }
    }

    /// Whether an answer over UDP may go out. `zone`: a number that stands for whose failure it is; 0 for others.
    pub(crate) fn judge(
        &self,
        class: Class,
        zone: u64,
        octets: usize,
        (client, shown): (Client, Shown),
        now: Now,
    ) -> Verdict {
        match &self.limiter {
            Some(limiter) if shown != Shown::Good && !self.exempts(client) => {
                let zone = if matches!(class, Class::NxDomain | Class::Error) { zone } else { 0 };
                limiter.judge(client, class, zone, octets as u64, now.monotonic_ns)
            }
            _ => Verdict::Send,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Rule {
    seed: (u64, u64),
    slip: u32,
    token_ns: u64,
    window_ns: u64,
}

/// `full_ns`: when it will be full again if nothing more is taken.
#[derive(Default)]
struct Bucket {
    tag: AtomicU64,
    full_ns: AtomicU64,
    limited: AtomicU32,
}

struct Limiter {
    rule: Rule,
    buckets: Box<[Bucket]>,
}

impl Limiter {
    fn new(rule: Rule) -> Self {
        Limiter { rule, buckets: (0..BUCKETS).map(|_| Bucket::default()).collect() }
    }

    fn judge(&self, client: Client, class: Class, zone: u64, octets: u64, now_ns: u64) -> Verdict {
        let (version, prefix) = match client {
            Client::V4(value) => (4u64, u64::from(value >> 8)),
            Client::V6(value) => (6u64, (value >> 72) as u64),
        };
        let key = [prefix | version << 56, zone];
        let tag = siphash24(self.rule.seed, &key, class as u64, 1) | 1;
        let Some(bucket) = self.bucket(tag, now_ns) else { return Verdict::Send };
        let cost = self.rule.token_ns.saturating_mul(1 + octets / TOKEN_OCTETS).min(self.rule.window_ns);
        let taken = bucket.full_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let full = full.max(now_ns).saturating_add(cost);
            (full - now_ns <= self.rule.window_ns).then_some(full)
        });
        if taken.is_ok() {
            return Verdict::Send;
        }
        let limited = bucket.limited.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if limited.checked_rem(self.rule.slip) == Some(0) {
            Verdict::Slip
        } else {
            Verdict::Drop
        }
    }

    /// The bucket with this tag, or one that is made into it.
    fn bucket(&self, tag: u64, now_ns: u64) -> Option<&Bucket> {
        let first = (tag >> 32) as usize % (BUCKETS / WAYS) * WAYS;
        let ways = self.buckets.get(first..first + WAYS)?;
        if let Some(known) = ways.iter().find(|bucket| bucket.tag.load(Ordering::Relaxed) == tag) {
            return Some(known);
        }
        let freed = ways.iter().min_by_key(|bucket| bucket.full_ns.load(Ordering::Relaxed))?;
        freed.tag.store(tag, Ordering::Relaxed);
        freed.full_ns.store(now_ns, Ordering::Relaxed);
        freed.limited.store(0, Ordering::Relaxed);
        Some(freed)
    }
}
