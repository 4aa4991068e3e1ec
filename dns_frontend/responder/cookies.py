"""DNS cookies (RFC 7873) in the form that all servers of an anycast set compute alike (RFC 9018). PURE.

A client that shows the server cookie which was sent to its address is where it says it is: no rate limit holds it, for
nobody else can be flooded in its name. Nothing is remembered per client; what is known is in the cookie.
"""

from enum import Enum
from functools import lru_cache
from typing import Final

from dns_frontend.limits import (
    COOKIE_AGE_MAX_S,
    COOKIE_AHEAD_MAX_S,
    COOKIE_HASHES_KEPT,
    COOKIE_RENEW_S,
    COOKIE_SECRETS_MAX,
)
from dns_frontend.responder.siphash import KEY_OCTETS, siphash24

CLIENT_OCTETS: Final = 8
_SERVER_MIN_OCTETS, _SERVER_MAX_OCTETS = 8, 32
_SERVER_OCTETS: Final = 16
_VERSION: Final = b"\x01\x00\x00\x00"  # and three reserved octets
_HASHED_FROM: Final = len(_VERSION) + 4  # then a timestamp
_HALF: Final = 1 << 31

# The same few clients ask again and again with the same cookie.
_hash = lru_cache(COOKIE_HASHES_KEPT)(siphash24)


class Shown(Enum):
    """What a query shows."""

    NOTHING = "nothing"  # no cookie, or cookies are off
    MALFORMED = "malformed"
    CLIENT = "client"  # it takes part, and has no server cookie yet
    STALE = "stale"  # a server cookie that is none of ours for this address, or an old one
    GOOD = "good"


class BadSecretError(ValueError):
    """The text of a file of secrets is refused; the message gives the line, never what is in it."""


class Cookies:
    """The secrets of one moment: the first makes cookies, each of them proves one."""

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        """`secrets`: 1 to COOKIE_SECRETS_MAX keys of 16 octets."""
        assert 1 <= len(secrets) <= COOKIE_SECRETS_MAX
        assert all(len(secret) == KEY_OCTETS for secret in secrets)
        self.secrets = secrets

    def look(self, option: bytes, address: bytes, now_s: int) -> Shown:
        """What a COOKIE option from an address (4 or 16 octets) shows at `now_s`, seconds since the epoch."""
        size = len(option) - CLIENT_OCTETS
        if size == 0:
            return Shown.CLIENT
        if not _SERVER_MIN_OCTETS <= size <= _SERVER_MAX_OCTETS:
            return Shown.MALFORMED
        client, server = option[:CLIENT_OCTETS], option[CLIENT_OCTETS:]
        if size != _SERVER_OCTETS or server[0] != _VERSION[0] or _age_s(server, now_s) is None:
            return Shown.STALE
        data = client + server[:_HASHED_FROM] + address
        proven = any(_hash(secret, data) == server[_HASHED_FROM:] for secret in self.secrets)
        return Shown.GOOD if proven else Shown.STALE

    def answer(self, option: bytes, shown: Shown, address: bytes, now_s: int) -> bytes:
        """The data of the COOKIE option to send back: the cookie that was shown while it is fresh, else a new one."""
        if shown is Shown.GOOD:
            server = option[CLIENT_OCTETS:]
            age_s = _age_s(server, now_s)
            signed = _hash(self.secrets[0], option[:CLIENT_OCTETS] + server[:_HASHED_FROM] + address)
            if age_s is not None and age_s <= COOKIE_RENEW_S and signed == server[_HASHED_FROM:]:
                return option
        client = option[:CLIENT_OCTETS]
        made = client + _VERSION + (now_s & 0xFFFF_FFFF).to_bytes(4, "big")
        return made + _hash(self.secrets[0], made + address)  # which proves it from memory when it comes back


def _age_s(server: bytes, now_s: int) -> int | None:
    """How old a server cookie says it is; None: too old, or from the future (RFC 9018 section 4.3)."""
    made_s = int.from_bytes(server[len(_VERSION) : _HASHED_FROM], "big")
    age_s = (now_s - made_s) & 0xFFFF_FFFF
    age_s = age_s - (1 << 32) if age_s >= _HALF else age_s  # serial number arithmetic
    return age_s if -COOKIE_AHEAD_MAX_S <= age_s <= COOKIE_AGE_MAX_S else None


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """Secrets, one a line as 32 hexadecimal digits; blank lines and those with # are left out. Raises BadSecretError."""
    found: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        try:
            secret = bytes.fromhex(word)
        except ValueError:
            secret = b""
        if len(secret) != KEY_OCTETS:
            raise BadSecretError(
                f"line {number} is not {2 * KEY_OCTETS} hexadecimal digits (make one: openssl rand -hex 16)"
            )
        found.append(secret)
    if not 1 <= len(found) <= COOKIE_SECRETS_MAX:
        raise BadSecretError(f"{len(found)} secrets: give 1 to {COOKIE_SECRETS_MAX}, the one that makes cookies first")
    return tuple(found)
