"""Old reports: mean sojourn by the age of what a client knows, beside load interpretation and blind choice."""

import statistics
from collections.abc import Callable
from typing import Final

from bench.rows import Row
from bench.rpc.confidence import interval
from bench.stage import progress
from gslb.rpc.policy.choice import Rule
from gslb.rpc.policy.interpret import LoadInterpretation
from gslb.rpc.policy.member import Member
from gslb.sim.replicas.board import Blind, BoardScene, KnownInterpretation, mean_sojourn

AGES: Final = (1.0, 10.0, 50.0)
Make = Callable[[BoardScene], Rule[Member]]


def rows(quick: bool) -> list[Row]:
    """All of them."""
    found = []
    for age in AGES:
        progress(f"reports {age:g} service times old")
        scenes = [BoardScene(age, seed, arrivals=8_000) for seed in range(2)] if quick else [
            BoardScene(age, seed) for seed in range(10)
        ]  # fmt: skip
        ours = [mean_sojourn(scene, LoadInterpretation()) for scene in scenes]
        known = [mean_sojourn(scene, KnownInterpretation(scene)) for scene in scenes]
        blind = [mean_sojourn(scene, Blind()) for scene in scenes]
        name = f"reports {age:g} service times old: mean sojourn"
        found += [
            Row(f"{name}, ours", statistics.fmean(ours), "service times", interval(ours)),
            _over(f"{name}, ours over load interpretation that knows rate and age", ours, known, 1.1),
            _over(f"{name}, ours over blind choice", ours, blind, 1.0),
        ]
    return found


def _over(name: str, ours: list[float], theirs: list[float], at_most: float) -> Row:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Row(name, statistics.fmean(ratios), "times", interval(ratios), at_most=at_most)
