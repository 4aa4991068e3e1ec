"""The family of errors that the etcd client raises.

They say what a caller can do about a failure, not which gRPC code carried it:

- `Unavailable`: nobody answered in time; nothing was changed; try again later.
- `OutcomeUnknown`: the connection broke after a write was sent; it may or may not have been applied. Read, then decide.
- `Compacted`: the asked history is gone; list anew.
- `LeaseLost`: what hung on the lease is gone or will be; whoever held it holds it no more.
- `PermissionDenied`: the user, the password or the certificate does not suffice.
- `NoSpace`: etcd is over its quota and refuses writes until somebody makes room.
"""

import grpc


class EtcdError(Exception):
    """Base of all errors of the etcd client."""


class Unavailable(EtcdError):  # noqa: N818 - a state of etcd, named as gRPC names it
    """No member answered in time."""


class OutcomeUnknown(Unavailable):
    """A write was sent and the answer never came: it may have been applied."""


class Compacted(EtcdError):  # noqa: N818
    """The revision asked for is older than what etcd keeps. `revision`: the oldest one left, 0 when unknown."""

    def __init__(self, revision: int = 0) -> None:
        super().__init__(f"etcd has compacted the history asked for (oldest revision left: {revision or 'unknown'})")
        self.revision = revision


class LeaseLost(EtcdError):  # noqa: N818
    """The lease has expired or was revoked."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"etcd lease {lease:x} has expired or was revoked: whatever hung on it is gone")
        self.lease = lease


class PermissionDenied(EtcdError):  # noqa: N818
    """etcd refused the user, the password or the access."""


class NoSpace(EtcdError):  # noqa: N818
    """etcd's backend quota is exhausted: it refuses every write."""


class StartError(EtcdError):
    """An etcd server of our own could not be found or started."""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def error_of(what: str, code: grpc.StatusCode, details: str) -> EtcdError:
    """What to raise for an answer that no retry will change. `what` names the call."""
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
        return Compacted()
    shown = _one_line(details)
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED) or "user name is empty" in details:
        return PermissionDenied(f"etcd refused {what}: {shown}: check the etcd user, its password and its roles")
    if "authentication failed" in details or "authentication is not enabled" in details:
        return PermissionDenied(f"etcd refused the login: {shown}: check the etcd user and password")
    if "database space exceeded" in details:
        return NoSpace(
            f"etcd refused {what}: its backend quota is exhausted; compact, defragment and disarm the alarm: {shown}"
        )
    return EtcdError(f"etcd refused {what}: {code.name}: {shown}")
