//! recvmmsg(2) and sendmmsg(2) over buffers that are made once.
//!
//! Why unsafe code is right here: every pointer in a message header points into a boxed array of the same `Batch`, which
//! never moves or shrinks while the batch lives; the kernel gets the true lengths, and what it reports is never taken
//! for more than them.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use gslb_dns_core::Client;

/// Datagrams a system call.
pub(crate) const WIDTH: usize = 32;
/// Longer queries do not exist; what is longer is cut off, as in the reference.
const DATAGRAM_MAX_OCTETS: usize = 4096;
/// Beside each packet, so that not all packets begin in the same few places of the processor's cache.
const STAGGER_OCTETS: usize = 192;
/// The longest answer over UDP.
const ANSWER_MAX_OCTETS: usize = 1232;
const CONTROL_WORDS: usize = 12;
/// How long a thread sleeps at most before it looks whether it shall end.
const WAIT_MS: i64 = 100;

/// Who sent a datagram, and to which of our addresses if the socket has several.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: Client,
    pub(crate) port: u16,
    pub(crate) scope_id: u32,
    /// The address it was sent to, and the interface it came by.
    pub(crate) local: Option<(Client, u32)>,
}

/// Room for as many datagrams as one call moves.
pub(crate) struct Batch {
    packets: Box<[[u8; DATAGRAM_MAX_OCTETS + STAGGER_OCTETS]]>,
    answers: Box<[[u8; ANSWER_MAX_OCTETS]]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[[u64; CONTROL_WORDS]]>,
    // Never read: the headers of `incoming` and `outgoing` point into them.
    _incoming_parts: Box<[libc::iovec]>,
    outgoing_parts: Box<[libc::iovec]>,
    incoming: Box<[libc::mmsghdr]>,
    outgoing: Box<[libc::mmsghdr]>,
    queued: usize,
    wildcard: bool,
}

// SAFETY: the raw pointers inside point to boxes that the batch owns.
unsafe impl Send for Batch {}

fn boxed<T: Clone>(value: T) -> Box<[T]> {
    vec![value; WIDTH].into_boxed_slice()
}

impl Batch {
    /// `wildcard`: the socket is bound to every address, and answers must leave from the one that was asked.
    pub(crate) fn new(wildcard: bool) -> Self {
        // SAFETY: all of these are plain C structures for which zeros are valid.
        let (name, header): (libc::sockaddr_storage, libc::mmsghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let part = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let mut packets = boxed([0; DATAGRAM_MAX_OCTETS + STAGGER_OCTETS]);
        let mut answers = boxed([0; ANSWER_MAX_OCTETS]);
        let mut incoming_parts = boxed(part);
        let mut outgoing_parts = boxed(part);
        let mut incoming = boxed(header);
        let mut outgoing = boxed(header);
        for (part, packet) in incoming_parts.iter_mut().zip(&mut packets) {
            *part = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: DATAGRAM_MAX_OCTETS };
        }
        for (part, answer) in outgoing_parts.iter_mut().zip(&mut answers) {
            part.iov_base = answer.as_mut_ptr().cast();
        }
        for (header, part) in incoming.iter_mut().zip(&mut incoming_parts) {
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        for header in &mut outgoing {
            header.msg_hdr.msg_iovlen = 1;
        }
        Batch {
            packets,
            answers,
            names: boxed(name),
            controls: boxed([0; CONTROL_WORDS]),
            _incoming_parts: incoming_parts,
            outgoing_parts,
            incoming,
            outgoing,
            queued: 0,
            wildcard,
        }
    }

    /// Waits a moment for datagrams; how many came.
    pub(crate) fn receive(&mut self, socket: RawFd) -> io::Result<usize> {
        self.queued = 0;
        for ((header, name), control) in self.incoming.iter_mut().zip(&mut self.names).zip(&mut self.controls) {
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            if self.wildcard {
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = mem::size_of_val(control) as _;
            }
        }
        // SAFETY: `incoming` has WIDTH headers whose pointers and lengths are those of boxes that live as long as self.
        let count = unsafe {
            libc::recvmmsg(
                socket,
                self.incoming.as_mut_ptr(),
                WIDTH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Datagram `index` of those received: its octets, who sent it, and room for the answer.
    pub(crate) fn open(&mut self, index: usize) -> Option<(&[u8], Peer, &mut [u8])> {
        let header = self.incoming.get(index)?;
        let local = if self.wildcard { local_of(&header.msg_hdr) } else { None };
        let peer = peer_of(self.names.get(index)?, local)?;
        let packet = self.packets.get(index)?.get(..header.msg_len as usize)?;
        Some((packet, peer, self.answers.get_mut(index)?))
    }

    /// Queues the first `length` octets of the room of datagram `index` as its answer.
    pub(crate) fn queue(&mut self, index: usize, length: usize) -> Option<()> {
        let incoming = self.incoming.get(index)?.msg_hdr;
        let part = self.outgoing_parts.get_mut(index)?;
        part.iov_len = length.min(ANSWER_MAX_OCTETS);
        let header = &mut self.outgoing.get_mut(self.queued)?.msg_hdr;
        header.msg_name = incoming.msg_name;
        header.msg_namelen = incoming.msg_namelen;
        header.msg_iov = part;
        if self.wildcard {
            header.msg_control = incoming.msg_control;
            header.msg_controllen = incoming.msg_controllen;
            answer_from(header);
        }
        self.queued += 1;
        Some(())
    }

    /// Sends what is queued; how many answers the kernel did not take.
    pub(crate) fn send(&mut self, socket: RawFd) -> usize {
        let mut sent = 0;
        let mut failed = 0;
        while sent < self.queued {
            let left = (self.queued - sent) as libc::c_uint;
            // SAFETY: `outgoing` has at least `queued` headers, each filled in by `queue` in this round.
            let count =
                unsafe { libc::sendmmsg(socket, self.outgoing.as_mut_ptr().add(sent), left, libc::MSG_DONTWAIT as _) };
            match usize::try_from(count) {
                Ok(count) if count > 0 => sent += count,
                // The first of them was refused: an error of its own, so the others are tried.
                _ => {
                    sent += 1;
                    failed += 1;
                }
            }
        }
        self.queued = 0;
        failed
    }
}

fn peer_of(name: &libc::sockaddr_storage, local: Option<(Client, u32)>) -> Option<Peer> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: sockaddr_storage is large and aligned enough for every address, and the family says which it is.
            let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let address = Client::V4(u32::from_be(name.sin_addr.s_addr));
            Some(Peer { address, port: u16::from_be(name.sin_port), scope_id: 0, local })
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let address = Client::V6(u128::from_be_bytes(name.sin6_addr.s6_addr));
            Some(Peer { address, port: u16::from_be(name.sin6_port), scope_id: name.sin6_scope_id, local })
        }
        _ => None,
    }
}

/// The first control message, if it is where a datagram was sent to.
fn local_of(header: &libc::msghdr) -> Option<(Client, u32)> {
    // SAFETY: the kernel filled in the control buffer of this header and says its length in it.
    let control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref()? };
    // SAFETY: the data of these two kinds of message is these structures; reads need not be aligned.
    unsafe {
        let data = libc::CMSG_DATA(control);
        match (control.cmsg_level, control.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                Some((Client::V4(u32::from_be(info.ipi_spec_dst.s_addr)), info.ipi_ifindex as u32))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                Some((Client::V6(u128::from_be_bytes(info.ipi6_addr.s6_addr)), info.ipi6_ifindex))
            }
            _ => None,
        }
    }
}

/// Turns where a datagram was sent to into where its answer leaves from. IPv4 routes by itself, by any interface.
fn answer_from(header: &mut libc::msghdr) {
    // SAFETY: as in `local_of`; the message is changed in place, in a buffer of ours.
    unsafe {
        let Some(control) = libc::CMSG_FIRSTHDR(header).as_mut() else {
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            return;
        };
        if (control.cmsg_level, control.cmsg_type) == (libc::IPPROTO_IP, libc::IP_PKTINFO) {
            let data = libc::CMSG_DATA(control).cast::<libc::in_pktinfo>();
            let mut info = data.read_unaligned();
            info.ipi_ifindex = 0;
            info.ipi_addr.s_addr = 0;
            data.write_unaligned(info);
        }
    }
}

/// Makes a socket wait for datagrams, but never for long.
pub(crate) fn make_waiting(socket: RawFd) -> io::Result<()> {
    let wait = libc::timeval { tv_sec: 0, tv_usec: WAIT_MS as libc::suseconds_t * 1000 };
    // SAFETY: plain calls on a descriptor; the option's value is a timeval of the length that is given.
    unsafe {
        let flags = libc::fcntl(socket, libc::F_GETFL);
        if flags < 0 || libc::fcntl(socket, libc::F_SETFL, flags & !libc::O_NONBLOCK) < 0 {
            return Err(io::Error::last_os_error());
        }
        let length = mem::size_of_val(&wait) as libc::socklen_t;
        let value = ptr::from_ref(&wait).cast();
        if libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, length) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// From now on a datagram that wakes this thread does not interrupt what runs on its core: SCHED_BATCH of sched(7).
///
/// On a core that is shared with others, each datagram came as a batch of its own otherwise: two threads beside a load that
/// fills a core answered 0.887 as many queries a CPU-second as one thread, so 0.915. Single queries on a busy machine wait
/// no longer (p50 0.03 ms both ways, p99 2 and 4 ms with a busy process on either core). Where it is not allowed it is not
/// needed.
pub(crate) fn let_others_finish() {
    let plain = libc::sched_param { sched_priority: 0 };
    // SAFETY: a plain call about this thread; the structure is read and not kept.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const plain);
    }
}

/// Wakes who waits for an eventfd(2).
pub(crate) fn wake(event: RawFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: writes eight octets that are there; when the counter is full, the other side is awake already.
    unsafe {
        libc::write(event, one.as_ptr().cast(), one.len());
    }
}
