//! What the data plane of the DNS frontend decides: the octets of a query in, the octets of its answer out.
//!
//! The Python responder is the reference, and this crate agrees with it to the octet in whatever it answers by itself; the
//! rest it leaves to the reference (`Outcome::Ask`). It answers from a [`Table`] that Python compiled and that is checked
//! whole when it is loaded. Per query there is no allocation, no lock, no I/O and no clock, and the work is bounded:
//! by 127 labels, by the datacenters of a service and by 1,232 octets of answer.
#![forbid(unsafe_code)]

mod answer;
mod blake2b;
mod edns;
mod geo;
mod guard;
mod https;
mod names;
mod query;
mod reader;
mod service;
mod siphash;
mod table;
mod writer;

pub use answer::{answer, Answered, Limited, Outcome, SteeredTo, NO_DATACENTER};
pub use geo::Client;
pub use guard::{Class, Now, Verdict};
pub use query::{is_query, HEADER_OCTETS};
pub use table::{Layout, LoadError, Table};

/// How many octets an answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// What the client says it takes, 512 to 1,232.
    Udp,
    /// As much as a length of 16 bits can say.
    Tcp,
}
