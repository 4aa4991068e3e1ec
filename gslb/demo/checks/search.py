"""HTTP through DNS, GFE, frontend, backend and tablet for 20 words; hits equal an independent scan of the texts."""

import random
import re
from pathlib import Path
from typing import Any

from gslb.demo.checks.bench import Bench
from gslb.demo.layout import SITES, WEB_NAME
from gslb.demo.resolver import Resolver
from gslb.demo.traffic import WORDS, session_from

WORDS_CHECKED = 20
_TOTAL = re.compile(r'data-total="(\d+)"')
_PLACE = re.compile(r'data-work="([^"]+)" data-line="(\d+)"')


def scan(texts: Path, word: str) -> list[tuple[str, int]]:
    """Every place of a word, read straight from the texts: (work, 1-based line), repetitions included."""
    pattern = re.compile(rf"(?<![a-z])(?<![a-z]'){word}(?!'?[a-z])", re.IGNORECASE)
    places: list[tuple[str, int]] = []
    for path in sorted(texts.glob("*_gut.txt")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            places += [(path.name.removesuffix("_gut.txt"), number)] * len(pattern.findall(line))
    return places


async def check_search(bench: Bench) -> dict[str, Any]:
    """Each word from a client of another area in turn."""
    wrong: list[str] = []
    totals: dict[str, int] = {}
    for i, word in enumerate(WORDS[:WORDS_CHECKED]):
        site = SITES[i % len(SITES)]
        resolver = Resolver(bench.planet.dns_servers, site.client_subnet(i % 4), random.Random(i))
        address = (await resolver.query(WEB_NAME)).addresses[0]
        url = f"http://{address}:{bench.planet.gfe_port}/search?q={word}"
        async with (
            session_from(site.client_address(i % 4)) as client,
            client.get(url, headers={"Host": WEB_NAME}) as reply,
        ):
            reply.raise_for_status()
            page = await reply.text()
        expected = scan(bench.texts, word)
        total = _TOTAL.search(page)
        shown = [(work, int(line)) for work, line in _PLACE.findall(page)]
        totals[word] = len(expected)
        if total is None or int(total.group(1)) != len(expected) or shown != expected[: len(shown)] or not shown:
            wrong.append(f"{word}: page has {total and total.group(1)} and {shown[:2]}, the texts {len(expected)}")
    return {"ok": not wrong, "words": len(totals), "wrong": wrong, "totals": totals}
