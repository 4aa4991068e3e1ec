"""Zones made at random, of few labels so that everything meets everything, answered by Knot and by us alike.

Left out is what the RFCs leave open: NS and DNAME at a wildcard, a DNAME beside NS or above other records.
"""

import random
import shutil
import socket

import dns.message
import pytest

from dns_frontend.metrics import Counters, Transport
from dns_frontend.responder.respond import Responder
from dns_frontend.table.build import build_table
from dns_frontend.table.serving import Serving
from dns_frontend.zone.master import Source, read_zone
from tests.support.corpus import Answer, Question, ask_wire, comparable
from tests.support.dns import ANYBODY
from tests.support.knot import knot

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(shutil.which("knotd", path="/usr/sbin:/usr/bin") is None, reason="knotd is not installed"),
    pytest.mark.timeout(600),
]

ZONES = 24
NAMES = 28
LABELS = ("a", "b", "c", "*")
TYPES = ("A", "AAAA", "TXT", "MX", "SRV", "NS", "DS", "CNAME", "DNAME", "SOA", "HINFO")


def owner(rng: random.Random) -> str:
    return ".".join(rng.choice(LABELS) for _ in range(rng.randint(1, 4)))


def zone_text(rng: random.Random) -> str:
    """A zone that dnspython and Knot both take: no name has a CNAME and something else."""
    names: dict[str, list[str]] = {}
    for _ in range(NAMES):
        name = owner(rng)
        there = names.setdefault(name, [])
        if any(line.startswith(("CNAME", "DNAME")) for line in there):
            continue
        target = owner(rng).replace("*", "w") if rng.random() < 0.9 else "elsewhere.test."
        kind = rng.choices(("A", "AAAA", "TXT", "MX", "SRV", "CNAME", "DNAME", "NS"), (4, 2, 2, 2, 2, 4, 1, 2))[0]
        wild = name.startswith("*")
        if kind in {"CNAME", "DNAME"} and (there or (kind == "DNAME" and wild)):
            continue
        if kind == "NS" and wild:
            continue
        there.append(
            {
                "A": f"A 192.0.2.{rng.randint(1, 250)}",
                "AAAA": f"AAAA 2001:db8::{rng.randint(1, 9999):x}",
                "TXT": f'TXT "{rng.randint(0, 99)}"',
                "MX": f"MX {rng.randint(0, 9)} {target}",
                "SRV": f"SRV 0 1 80 {target}",
            }.get(kind, f"{kind} {target}")
        )
    redirected = [name for name, lines in names.items() if any(line.startswith("DNAME") for line in lines)]
    kept = {name: lines for name, lines in names.items() if not any(name.endswith(f".{above}") for above in redirected)}
    head = "$TTL 300\n@ SOA a b 1 3600 600 604800 60\n@ NS a\n"
    return head + "".join(f"{name} {line}\n" for name, lines in kept.items() for line in dict.fromkeys(lines))


def asked(rng: random.Random, text: str, origin: str) -> list[Question]:
    names = {line.split()[0] for line in text.splitlines()[3:]}
    around = {f"{rng.choice('abcdx')}.{name}" for name in sorted(names)} | {name.partition(".")[2] for name in names}
    some = {owner(rng).replace("*", rng.choice("*xy")) for _ in range(40)}
    every = sorted({*names, *around, *some, ""})
    return [Question(f"{name}.{origin}".lstrip("."), rtype) for name in every for rtype in rng.sample(TYPES, 4)]


def longer(ours: Answer, theirs: Answer) -> bool:
    """Knot follows five CNAMEs, we eight: the same chain, further."""
    return sum(" CNAME " in record for record in theirs.answer) >= 5 and theirs.answer < ours.answer


@pytest.mark.parametrize("seed", [20261122, 1035])
def test_random_zones(tmp_path, seed):
    rng = random.Random(seed)
    texts = {f"z{number}.test": zone_text(rng) for number in range(ZONES)}
    files = {}
    for origin, text in texts.items():
        files[origin] = tmp_path / f"{origin}.zone"
        files[origin].write_text(text)
    data = [read_zone(origin, Source(origin, text)).data for origin, text in texts.items()]
    responder = Responder(Counters())
    responder.serving = Serving(ready=True, table=build_table(data, {}))
    count, differences = 0, []
    with knot(tmp_path, files) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(30.0)
        made.connect(("127.0.0.1", port))
        for origin, text in texts.items():
            for question in asked(rng, text, origin):
                wire = ask_wire(question)
                made.send(wire)
                its = comparable(dns.message.from_wire(made.recv(65_535)))
                ours = responder.respond(wire, ANYBODY, Transport.UDP)
                assert ours is not None
                mine = comparable(dns.message.from_wire(ours))
                count += 1
                if mine != its and not longer(mine, its):
                    differences.append(f"{question}\n  we   {mine}\n  knot {its}\n{text}")
    assert count > 5000
    assert not differences, f"{len(differences)} of {count} answers differ, such as\n" + "\n".join(
        differences[:: max(1, len(differences) // 3)]
    )
