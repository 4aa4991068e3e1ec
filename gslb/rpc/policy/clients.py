"""How many channels keep a connection to a server, by what they say themselves: what subsets are evened out by. PURE.

A server cannot tell from its connections: a process shares one between its channels, and who only looks around has one, too.
So a channel says with its question for the load (`gslb.rpc.policy.subset` asks them) what it wants:

    look ID     only to know
    hold ID     it is one of the server's clients: counted until it says otherwise, or for HELD_S
    leave ID    it is none any more

in which ID is the channel's own, at random. Whatever else is said counts nobody.
"""

import re
from dataclasses import dataclass, field
from typing import Final

LOOK: Final = "look"
HOLD: Final = "hold"
LEAVE: Final = "leave"
# Longer than the longest pause between two comparisons of a client.
HELD_S: Final = 60.0
# The oldest is forgotten beyond.
CLIENTS_MAX: Final = 100_000
_QUESTION: Final = re.compile(rb"(look|hold|leave) ([0-9a-f]{16})")


def question(word: str, client: str) -> bytes:
    """
    >>> question(HOLD, "00c0ffee00c0ffee")
    b'hold 00c0ffee00c0ffee'
    """
    return f"{word} {client}".encode()


@dataclass(slots=True)
class Clients:
    """Those of one server; times are monotonic seconds. Not for several threads at once."""

    _until_s: dict[bytes, float] = field(default_factory=dict)  # the latest last

    def asked(self, said: bytes, now_s: float) -> int:
        """How many there are, with the one that asks; 0: it did not say who it is."""
        match = _QUESTION.fullmatch(said)
        if match is None:
            return 0
        word, client = match[1].decode(), match[2]
        self._until_s.pop(client, None)
        self._expire(now_s)
        others = len(self._until_s)
        if word == HOLD:
            self._until_s[client] = now_s + HELD_S
        return others + 1

    def _expire(self, now_s: float) -> None:
        """Those whose time is up are the first ones, for all have the same time."""
        while self._until_s:
            first, until_s = next(iter(self._until_s.items()))
            if until_s > now_s and len(self._until_s) < CLIENTS_MAX:
                return
            del self._until_s[first]
