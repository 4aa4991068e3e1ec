"""Every bound of the DNS frontend in one place. Units are in the names."""

from typing import Final

# Messages
HEADER_OCTETS: Final = 12
UDP_PAYLOAD_MIN_OCTETS: Final = 512  # RFC 1035 section 4.2.1
UDP_PAYLOAD_MAX_OCTETS: Final = 1232  # no fragments anywhere (DNS flag day 2020)
TCP_MESSAGE_MAX_OCTETS: Final = 65_535
# What a query may carry beside its question: an OPT, perhaps a signature or the SOA of an IXFR. Each may have a name of
# 127 labels to walk over, so one more would cost half a plain answer.
QUERY_RECORDS_MAX: Final = 4
OPTIONS_MAX: Final = 32
# CNAMEs and DNAMEs that one answer follows.
CHAIN_MAX: Final = 8
# An RRset that does not fit a TCP message cannot be served at all: zones with one are refused.
RRSET_MAX_OCTETS: Final = 60_000
# Addresses of other names that an answer brings along.
EXTRAS_MAX: Final = 32

# Cookies (RFC 9018 section 4.3)
COOKIE_AGE_MAX_S: Final = 3600
COOKIE_RENEW_S: Final = 1800
COOKIE_AHEAD_MAX_S: Final = 300
COOKIE_SECRETS_MAX: Final = 4
COOKIE_HASHES_KEPT: Final = 16_384
COOKIE_FILE_MAX_OCTETS: Final = 4096
# Response rate limiting
RRL_RATE_DEFAULT: Final = 200  # tokens a second, of one /24 or /56 and class of answer
RRL_RATE_MAX: Final = 1_000_000
RRL_SLIP_DEFAULT: Final = 2
RRL_SLIP_MAX: Final = 10
RRL_WINDOW_S: Final = 1.0
RRL_TOKEN_OCTETS: Final = 256
RRL_BUCKETS_MAX: Final = 65_536
# NSID (RFC 5001) and extended errors (RFC 8914)
NSID_MAX_OCTETS: Final = 64
STALE_AFTER_S: Final = 60.0  # without a control plane, answers say so
STALE_CHECK_S: Final = 1.0

# Zones
ZONE_TEXT_MAX_CHARS: Final = 64_000_000  # with all files that it includes
INCLUDE_DEPTH_MAX: Final = 8
INCLUDES_MAX: Final = 1000
ZONES_MEASURED_MAX: Final = 1_000  # whose serial is a metric
ZONES_SHOWN_MAX: Final = 10_000  # in one answer of the control port
# Transfers (RFC 5936)
TRANSFERS_MAX: Final = 8  # at a time
TRANSFER_MESSAGE_OCTETS: Final = 16_000  # compression pointers reach so far

# UDP
DATAGRAM_MAX_OCTETS: Final = 4096  # longer queries do not exist
DATAGRAMS_PER_WAKE: Final = 64  # then other tasks get their turn
UDP_BUFFER_OCTETS: Final = 4 << 20
# Answers that the Python responder keeps, and for how long
CACHED_ANSWERS_MAX: Final = 16_384
CACHED_S: Final = 1.0
# The log of some queries: one in so many, how large a file gets, how many old ones are kept, and how many lines a second
QUERY_LOG_EVERY: Final = 1000
QUERY_LOG_EVERY_MAX: Final = 1_000_000_000
QUERY_LOG_OCTETS: Final = 64 << 20
QUERY_LOG_FILES: Final = 4
QUERY_LOG_LINES_PER_S: Final = 1000
# The data plane
THREADS_MAX: Final = 64
COLLECT_PERIOD_S: Final = 1.0

# Processes without the data plane
PROCESSES_MAX: Final = 64
SIBLING_REPORT_S: Final = 1.0
SIBLING_READY_S: Final = 0.05
SIBLING_AGAIN_S: Final = 1.0
SIBLING_STOP_S: Final = 5.0
SIBLING_LINE_MAX_OCTETS: Final = 64 << 20  # demand of 10,000 services and 200 localities

# TCP (RFC 7766 section 6)
TCP_CONNECTIONS_MAX: Final = 16_384  # or what the process may have open
TCP_CONNECTIONS_PER_PREFIX: Final = 100  # of one /24 or /56
TCP_IDLE_S: Final = 10.0
TCP_FIRST_S: Final = 2.0  # a client connects because it has something to ask
TCP_MESSAGE_S: Final = 2.0  # from its first octet to its last, and for writing an answer
TCP_BACKLOG: Final = 4096  # the kernel takes as many as net.core.somaxconn lets it
TCP_WRITE_BUFFER_OCTETS: Final = 128 << 10
TCP_BUFFERED_MAX_OCTETS: Final = 64 << 20  # of all connections; then those that hold more than a query are closed
TCP_CONNECTION_FREE_OCTETS: Final = 2048
TCP_READ_OCTETS: Final = 16 << 10
TCP_ACCEPTS_PER_WAKE: Final = 64
TCP_EVENTS_PER_WAKE: Final = 256
TCP_SWEEP_S: Final = 0.1  # how late a deadline may be
TCP_NO_FILES_S: Final = 1.0  # when the process may open no more files, until it tries again

# Talking to the control plane
RECONNECT_MIN_S: Final = 0.1
RECONNECT_MAX_S: Final = 5.0
# A control plane that sends nothing for this long after a connection is tried elsewhere.
FIRST_UPDATE_S: Final = 15.0
SNAPSHOT_COALESCE_S: Final = 1.0
SNAPSHOT_RETRY_S: Final = 10.0
SNAPSHOT_MAX_OCTETS: Final = 512 << 20
REBUILD_COALESCE_S: Final = 0.02
SNAPSHOT_DUTY: Final = 0.05  # of the time may be spent writing
# Probes of endpoints: while no control plane is heard, and otherwise
# Two rounds and a bit are how long answers lead to a datacenter that died with every control plane.
PROBE_PERIOD_S: Final = 0.2
PROBE_AGAIN_S: Final = 0.05  # after a round in which a datacenter fell silent
PROBE_BASELINE_S: Final = 30.0
PROBE_NEW_S: Final = 5.0  # while there is a datacenter that was never reached
PROBE_TIMEOUT_S: Final = 1.0
PROBES_PER_DATACENTER: Final = 4
PROBES_AT_ONCE: Final = 64
# Lines logged about what the control plane sent and we refused; the counters go on.
PROBLEMS_LOGGED_MAX: Final = 200
DEMAND_ACK_S: Final = 10.0
EXPLAIN_ANSWERS_MAX: Final = 64
FILES_WANTED: Final = TCP_CONNECTIONS_MAX + 1024
FILES_RESERVED: Final = 256  # for all but TCP connections
BIND_ATTEMPTS: Final = 20
