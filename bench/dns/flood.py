"""A flood in another's name, at 20 times the rate limit: what its victim gets, and what is left for everybody else.

All of it comes from one /24 of 127/8, for which an answer that leaves counts as one that reaches the victim. Others ask
from networks of their own, each well below the limit.
"""

import contextlib
import socket
import time
from collections.abc import Sequence
from typing import Final

import dns.message

from bench.dns import world
from bench.dns.peers import Server
from bench.rows import Row

RATE: Final = 200
FLAGS: Final = ("--rrl-rate", str(RATE), "--rrl-exempt", "none")
TIMES: Final = 20
_HOSTS: Final = 8
_OTHERS: Final = 50
_OTHERS_RATE: Final = 10.0
_DRAIN_S: Final = 2.0
_TICK_S: Final = 0.002
_TC: Final = 0x02


class _Client:
    """Asks from one address; `answered` are whole answers with a record in them."""

    def __init__(self, host: str, server: Server, wire: bytes) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        self._socket.bind((host, 0))
        self._socket.connect(("127.0.0.1", server.port))
        self._wire = wire
        self.sent = self.answered = self.octets_in = self.octets_out = 0

    def ask(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(self.sent.to_bytes(4, "big")[2:] + self._wire[2:])
            self.sent += 1
            self.octets_in += len(self._wire)

    def hear(self) -> None:
        with contextlib.suppress(OSError):
            while answer := self._socket.recv(4096):
                self.octets_out += len(answer)
                self.answered += not answer[2] & _TC and int.from_bytes(answer[6:8], "big") > 0

    def close(self) -> None:
        self._socket.close()


def rows(server: Server, seconds: float) -> list[Row]:
    """The rows for one server, started with FLAGS."""
    wire = dns.message.make_query(world.names()[7], "A", use_edns=0).to_wire()
    flooding = [_Client(f"127.77.0.{host}", server, wire) for host in range(1, _HOSTS + 1)]
    others = [_Client(f"127.{100 + number}.0.1", server, wire) for number in range(_OTHERS)]
    spent_s = _run(flooding, others, seconds)
    octets_in, octets_out = sum(each.octets_in for each in flooding), sum(each.octets_out for each in flooding)
    asked, answered = sum(each.sent for each in others), sum(each.answered for each in others)
    sent = sum(each.sent for each in flooding)
    for each in (*flooding, *others):
        each.close()
    what = f"{server.label}: a flood at {TIMES} times the rate limit from one /24"
    note = f"{octets_out} octets for {octets_in}; {sent / spent_s:.0f} queries a second for {seconds:g} s"
    return [
        Row(f"{what}: octets out over octets in", octets_out / max(1, octets_in), "x", note, at_most=1.0),
        Row(
            f"{what}: others' queries answered",
            answered / max(1, asked),
            "x",
            f"{answered} of {asked}, each asked once",
            at_least=0.999,
        ),
    ]


def _run(flooding: Sequence[_Client], others: Sequence[_Client], seconds: float) -> float:
    """Sends for so long, and listens a moment longer; for how long it sent."""
    begin = time.monotonic()
    sent = asked = 0
    spent_s = 0.0
    while (now := time.monotonic() - begin) < seconds + _DRAIN_S:
        if now < seconds:
            spent_s = now
            for number in range(sent, int(now * TIMES * RATE)):
                flooding[number % len(flooding)].ask()
            sent = max(sent, int(now * TIMES * RATE))
            for number in range(asked, int(now * _OTHERS * _OTHERS_RATE)):
                others[number % len(others)].ask()
            asked = max(asked, int(now * _OTHERS * _OTHERS_RATE))
        for each in (*flooding, *others):
            each.hear()
        time.sleep(_TICK_S)
    return max(spent_s, _TICK_S)
