"""Some queries are written down: which, what, and never too much."""

import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dns.edns
import dns.message
import pytest

from dns_frontend import limits, querylog
from dns_frontend.metrics import Counters, Transport
from dns_frontend.querylog import QueryLog, QueryLogError
from dns_frontend.responder.locate import Source
from dns_frontend.responder.respond import Responder
from tests.support import dns_worlds as worlds

CLIENT = Source(4, 0x0A010203)
NOW_S = 1.8e9


def responder(rng: random.Random) -> Responder:
    made = Responder(Counters())
    made.serving = made.serving.advance(worlds.world(rng), {})
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queries.log"


def written(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Opener:
    """Opens logs on one path, and closes them."""

    def __init__(self) -> None:
        self.made: list[QueryLog] = []

    def __call__(self, path: Path, every: int = 1) -> QueryLog:
        rng = random.Random(1)
        log = QueryLog(path, every, responder(rng), lambda: NOW_S, rng.random)
        self.made.append(log)
        return log


@pytest.fixture
def opened() -> Iterator[Opener]:
    opener = Opener()
    yield opener
    for log in opener.made:
        log.close()


def test_a_line_says_who_asked_for_what_and_what_is_said(path: Path, opened: Opener) -> None:
    log = opened(path)
    query = dns.message.make_query("Nowhere.Example", "AAAA")
    query.use_edns(0, options=[dns.edns.ECSOption("192.0.2.0", 24)])
    log.write(query.to_wire(), CLIENT, Transport.UDP)
    log.close()
    (line,) = written(path)
    assert line == {
        "at": "2027-01-15T08:00:00.000+00:00", "client": "10.1.2.3", "transport": "udp", "name": "Nowhere.Example.",
        "type": "AAAA", "subnet": "192.0.2.0/24", "rcode": "REFUSED", "answers": 0, "service": "", "locality": "",
        "datacenter": "",
    }  # fmt: skip


def test_whatever_comes_is_one_line_of_json(path: Path, opened: Opener) -> None:
    log = opened(path)
    rng = random.Random(7)
    count = 0
    for second in range(40):
        log._wall_s = lambda second=second: NOW_S + second
        for _ in range(50):
            log.write(worlds.message(rng), Source(6, rng.getrandbits(128)), rng.choice(list(Transport)))
            count += 1
    log.write(b"", CLIENT, Transport.TCP)
    log.close()
    assert len(written(path)) == count + 1 == log.written


@pytest.mark.parametrize("every", [1, 10, 1000])
def test_one_in_so_many_is_written_without_a_rhythm(path: Path, every: int, opened: Opener, monkeypatch) -> None:
    monkeypatch.setattr(querylog, "QUERY_LOG_LINES_PER_S", 10**9)
    log = opened(path, every)
    seen: list[int] = []
    for number in range(200 * every):
        before = log.written
        log.saw(b"", lambda: CLIENT, Transport.UDP)
        if log.written > before:
            seen.append(number)
    assert 140 <= len(seen) <= 260
    if every > 1:
        assert len({after - before for before, after in pairwise(seen)}) > 5


def test_a_flood_writes_no_more_than_so_many_lines_a_second(path: Path, opened: Opener) -> None:
    log = opened(path)
    packet = dns.message.make_query("a.example", "A").to_wire()
    for _ in range(limits.QUERY_LOG_LINES_PER_S + 500):
        log.write(packet, CLIENT, Transport.UDP)
    log.close()
    assert len(written(path)) == limits.QUERY_LOG_LINES_PER_S
    assert log.left_out == 500


def test_a_file_that_is_full_is_turned_over_and_few_are_kept(path: Path, opened: Opener, monkeypatch) -> None:
    monkeypatch.setattr(querylog, "QUERY_LOG_OCTETS", 2000)
    log = opened(path)
    packet = dns.message.make_query("a.example", "A").to_wire()
    for _ in range(300):
        log.write(packet, CLIENT, Transport.UDP)
    log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) == 1 + limits.QUERY_LOG_FILES
    assert all(file.stat().st_size <= 2000 for file in files)


def test_a_path_that_cannot_be_written_is_one_clear_line(tmp_path: Path, opened: Opener) -> None:
    with pytest.raises(QueryLogError, match=r"cannot write the query log .*/none/q: .*; choose another file"):
        opened(tmp_path / "none" / "q")


def test_a_disk_that_is_full_stops_nobody(path: Path, opened: Opener, monkeypatch, caplog) -> None:
    log = opened(path)

    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._file.stream, "write", full)
    packet = dns.message.make_query("a.example", "A").to_wire()
    for _ in range(5):
        log.write(packet, CLIENT, Transport.UDP)
    assert caplog.text.count("cannot write to the query log") == 1
