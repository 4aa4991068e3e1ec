"""The RPC client beside the browsers: it asks backends at a steady rate, from where a check wants it to be."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from gslb.demo.checks.bench import Bench
from gslb.demo.supervisor import ProcessSpec

LABEL = "client"
WARM_ANSWERS = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """One request of the RPC client: monotonic end, datacenter ("-" when it failed), error."""

    ended_s: float
    datacenter: str
    error: str


def answers_of(text: str) -> list[Answer]:
    """What the RPC client wrote; its last line may be half written."""
    found: list[Answer] = []
    for line in text.splitlines(keepends=True):
        ended, _, rest = line.rstrip("\n").partition(" ")
        datacenter, space, error = rest.partition(" ")
        if line.endswith("\n") and space:
            found.append(Answer(float(ended), datacenter, error))
    return found


async def start(bench: Bench, locality: str, rps: float) -> Path:
    """Starts the RPC client and waits until it is served; returns its output. Raises RuntimeError."""
    out = bench.planet.directory / "client.out"
    out.unlink(missing_ok=True)
    options = ("--control", bench.planet.control, "--locality", locality, "--rps", f"{rps:g}", "--out", str(out))
    bench.planet.supervisor.start(ProcessSpec(LABEL, "examples.shakespeare.client", options))
    for _ in range(300):
        if out.exists() and sum(1 for answer in answers_of(out.read_text()) if not answer.error) >= WARM_ANSWERS:
            return out
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the RPC client was not served; its log is {bench.planet.supervisor.log(LABEL)}")
