"""No message costs the data plane more than 20 times the instructions of a plain hit. Counted by callgrind."""

import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from dns_frontend.table.compile import compiled
from dns_frontend.table.serving import Serving
from dns_frontend.zone.name import from_text
from tests.support import dns_worlds as worlds
from tests.support.dns import catalog, endpoints, plan, service, view_of
from tests.support.hostile import guarded, hostile

ROOT = Path(__file__).parents[2]
DATAPLANE = ROOT / "dns_frontend" / "dataplane"
TIMES_MAX = 20
BUILD_S = 1500.0
# In the planet's group, so that they take turns: each needs the whole machine.
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3000), pytest.mark.xdist_group("planet")]

OPT = b"\x00" + struct.pack("!HHIH", 41, 1232, 0, 0)
PLAIN_HIT = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 1) + from_text("www.shakespeare.example") + b"\0\1\0\1" + OPT


def hard_world() -> bytes:
    """What makes a query dear: split shares, many addresses, RRsets full of names, and a name of 120 labels."""
    shares = {"na": {"us-east1": 0.3, "asia-east1": 0.3, "europe-west1": 0.4}, "eu": {"europe-west1": 1.0}}
    members = {**endpoints({"us-east1": 250, "europe-west1": 100}), **endpoints({"asia-east1": 50}, ipv6=True)}
    plain = view_of(service("www.shakespeare.example"), plan(), endpoints({"us-east1": 2, "europe-west1": 2}))
    split = service("split.shakespeare.example", name="split", addresses=32, alpn=("h3", "h2"))
    deep = ".".join(["a"] * 100)
    text = worlds.ZONE_TEXT + f"{deep} A 127.0.0.9\n"
    text += "".join(f"mx MX {n} m{n % 7}.n{n}.elsewhere{n % 3}.test.\n" for n in range(30))
    text += "".join(f"ptr PTR {'x.' * (n % 40)}n{n}.shakespeare.example.\n" for n in range(30))
    known = catalog({**worlds.ZONES, "shakespeare.example": text})
    views = {plain.name: plain, "split": view_of(split, plan(shares, name="split"), members)}
    return compiled(Serving().advance(known, views), "", None, guarded()).octets


def built() -> Path:
    if shutil.which("cargo") is None:
        pytest.skip("NOT COUNTED: there is no cargo here")
    target = ROOT / ".cache" / "cost"
    command = ["cargo", "build", "--quiet", "--release", "-p", "gslb-dns-core", "--example", "cost"]
    subprocess.run([*command, "--target-dir", target], cwd=DATAPLANE, timeout=BUILD_S, check=True)
    return target / "release" / "examples" / "cost"


def counted(directory: Path, table: bytes, packets: list[bytes]) -> list[tuple[int, str]]:
    """Instructions of each packet's answer, and what became of it."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("NOT COUNTED: valgrind is not installed (Debian: apt-get install valgrind)")
    (directory / "table").write_bytes(table)
    (directory / "packets").write_bytes(b"".join(struct.pack("!H", len(each)) + each for each in packets))
    options = ["--tool=callgrind", "--toggle-collect=cost::answered", "--dump-after=cost::answered"]
    command = [valgrind, *options, f"--callgrind-out-file={directory}/out", built(), "table", "packets"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=2000, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = done.stdout.splitlines()
    costs = []
    for number in range(1, len(packets) + 1):
        found = re.search(r"^(?:totals|summary): (\d+)", (directory / f"out.{number}").read_text(), re.MULTILINE)
        assert found is not None
        costs.append(int(found[1]))
    return list(zip(costs, outcomes, strict=True))


def test_no_message_costs_more_than_20_plain_hits(tmp_path):
    corpus = [path.read_bytes() for path in sorted((DATAPLANE / "fuzz/corpus/packet").iterdir())]
    rng = random.Random(20261122)
    mutated = [worlds.message(rng) for _ in range(200)]
    # The first answers bring the loader's and the libraries' first calls with them; the third is the plain hit.
    packets = [PLAIN_HIT] * 3 + corpus + mutated + hostile()
    found = counted(tmp_path, hard_world(), packets)
    plain = found[2][0]
    assert "steered: Some" in found[2][1]
    assert 200 < plain < 20_000, "what is counted is an answer, and nothing else"
    dearest = sorted(zip(found[3:], packets[3:], strict=True), key=lambda each: -each[0][0])[:8]
    for (cost, outcome), packet in dearest:
        print(f"{cost / plain:5.1f} x {plain}: {outcome} {packet[:80].hex()} ({len(packet)} octets)")
    cost, outcome = dearest[0][0]
    assert cost <= TIMES_MAX * plain, (cost, plain, outcome, dearest[0][1].hex())
    answered = sum("Answer" in outcome for _, outcome in found)
    assert answered > len(found) // 3
