"""The family of BNS errors: each message says what was wrong, with which value, and what to do."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class BnsError(Exception):
    """Base of every error that BNS raises on purpose."""


class AddressError(BnsError, ValueError):
    """An address from a flag, the environment or a record is not usable."""


class ListenError(BnsError):
    """A server cannot listen where it was told to."""


class TlsError(BnsError):
    """Certificates or keys are missing, unreadable or do not fit together."""


class BadRecordError(BnsError, ValueError):
    """A task or agent record from outside is malformed or over a limit."""


class RefusedError(BnsError):
    """BNS answered, and the answer is no. `code` is the gRPC status code's number."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnavailableError(BnsError):
    """No server answered in time; trying again later is right."""


class NotFoundError(BnsError):
    """BNS answered, and does not hold the name."""


def code_number(code: "grpc.StatusCode") -> int:
    """The number that a status code has on the wire."""
    number: int = code.value[0]
    return number
