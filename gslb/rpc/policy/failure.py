"""What a failed attempt says about the request and about the task. PURE.

gRPC reports a connection that was refused, a connection that broke under a request, and a server that answered "not
now" with one code, UNAVAILABLE. They differ in what may be done next: the first was never sent and can go elsewhere
whatever it does; after the second nobody knows; the third is an answer. Only the text tells them apart; where it does
not, the cautious reading is taken.
"""

from enum import Enum

from gslb.model import limits


class Failure(Enum):
    """How an attempt ended that has no response."""

    NEVER_SENT = "never sent"  # no connection: another task may have the request, whatever it does
    BROKEN = "broken"  # the connection went while the request was out
    REFUSED = "refused"  # the server answered UNAVAILABLE
    TIMED_OUT = "timed out"  # after a wait that should have been enough
    ERRED = "erred"  # the server failed at it: another task may not
    SHED = "shed"  # the server refused for overload or quota: "don't retry"
    DENIED = "denied"  # the server does not know the method: another task hardly will
    ANSWERED = "answered"  # any other status, or an end that is the caller's own doing


class Refusal(Enum):
    """Whether a server would not do a request, well as it is."""

    NO = "no"
    FULL = "for want of room"
    QUOTA = "for what its client asked before"


# Statuses that a server sends when it is at fault itself. "Do not retry" is what RESOURCE_EXHAUSTED asks for.
_FAULTS = {
    "UNKNOWN": Failure.ERRED,
    "INTERNAL": Failure.ERRED,
    "DATA_LOSS": Failure.ERRED,
    "RESOURCE_EXHAUSTED": Failure.SHED,
    "UNIMPLEMENTED": Failure.DENIED,
}
# How an attempt ends that a server had and answered; None: with a response.
ANSWERS = frozenset({None, Failure.ANSWERED, Failure.REFUSED, Failure.ERRED, Failure.SHED, Failure.DENIED})
# What a server says that has no room while others may: "try another task". Every other refusal is RESOURCE_EXHAUSTED.
OVERLOADED_HERE = "overloaded: try another task"
# What a server says to a client that asks for more than its quota.
OVER_QUOTA = "over quota"


# What gRPC itself says, on either side, of a message beyond its limit: that is no want of room.
_TOO_LARGE = "message larger than max"
# What gRPC's pick_first policy says when it has no connection, and what its transport says when it loses one.
_NEVER_SENT = ("failed to connect to all addresses", "connections to all backends failing")
_BROKEN = (
    "socket closed",
    "stream removed",
    "connection reset",
    "connection aborted",
    "connection timed out",
    "broken pipe",
    "goaway",
    "transport closed",
    "keepalive",
    "ping timeout",
    "endpoint closing",
    "endpoint read failed",
    "end of tcp stream",
    "recvmsg",
    "sendmsg",
    "no route to host",
    "network is unreachable",
    "host is unreachable",
)


def _names_target(details: str, target: str) -> bool:
    """Whether the text is about our own connection: a server may relay the same text about one of its own."""
    if target.startswith("["):
        address, _, port = target[1:].rpartition("]:")
        return f"ipv6:%5B{address}%5D:{port}:" in details or f"ipv6:[{address}]:{port}:" in details
    return f"ipv4:{target}:" in details


def classify(code: str, details: str, target: str, waited_s: float = 0.0) -> Failure:
    """What a status says: `code` is its name, `target` the task's host:port, `waited_s` how long the attempt took."""
    if code == "DEADLINE_EXCEEDED":
        return Failure.TIMED_OUT if waited_s >= limits.WITNESS_TIMEOUT_MIN_S else Failure.ANSWERED
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in details:
        return Failure.ANSWERED
    if code != "UNAVAILABLE":
        return _FAULTS.get(code, Failure.ANSWERED)
    if details.startswith(_NEVER_SENT) and _names_target(details, target):
        return Failure.NEVER_SENT
    lowered = details.lower()
    if not details or any(text in lowered for text in _BROKEN):
        return Failure.BROKEN
    return Failure.REFUSED


def refusal_of(failure: Failure | None, details: str) -> Refusal:
    """Whether a server refused the attempt and why: what throttles count."""
    if failure is Failure.SHED:
        return Refusal.QUOTA if details.startswith(OVER_QUOTA) else Refusal.FULL
    full = failure is Failure.REFUSED and details.startswith(OVERLOADED_HERE)
    return Refusal.FULL if full else Refusal.NO


def may_repeat(failure: Failure, *, idempotent: bool) -> bool:
    """Whether the request may be sent again to another task, budget and deadline permitting."""
    if failure is Failure.NEVER_SENT:
        return True
    return idempotent and failure in {Failure.BROKEN, Failure.REFUSED, Failure.ERRED}
