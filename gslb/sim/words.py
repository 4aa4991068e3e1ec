"""The words of a command: positions, key=value options, and values with units. PURE."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from gslb.sim.errors import StoryError

_DURATION: Final = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)$")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(slots=True)
class Words:
    """One command. Every option must be taken: `finish` refuses the others."""

    command: str
    positions: list[str]
    options: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def name(self, index: int, what: str) -> str:
        """The position's word. Raises StoryError when it is missing."""
        if index >= len(self.positions):
            raise StoryError(f"{self.command}: {what} is missing")
        return self.positions[index]

    def known(self, index: int, what: str, among: Mapping[str, object]) -> str:
        """The same, one of `among`."""
        word = self.name(index, what)
        if word not in among:
            near = get_close_matches(word, among, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(among)[:20]) or 'none'}"
            raise StoryError(f"{self.command}: no {what} is called {word}; {hint}")
        return word

    def option(self, name: str, default: str) -> str:
        self.taken.add(name)
        return self.options.get(name, default)

    def number_of(self, name: str, default: float) -> float:
        return number(self.option(name, f"{default!r}"), f"{self.command}: {name}")

    def finish(self, positions: int) -> None:
        """Raises StoryError for what nobody asked for."""
        if len(self.positions) > positions:
            raise StoryError(f"{self.command}: {self.positions[positions]} is one word too many")
        extra = sorted(self.options.keys() - self.taken)
        if extra:
            raise StoryError(
                f"{self.command}: no option is called {extra[0]}=; there are: {', '.join(sorted(self.taken)) or 'none'}"
            )


def words_of(text: str) -> Words:
    """Raises StoryError for quotes that do not end."""
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise StoryError(f"{text[:40]}: {error}") from error
    if not parts:
        raise StoryError("an empty command")
    options = dict(part.split("=", 1) for part in parts[1:] if "=" in part)
    return Words(parts[0], [part for part in parts[1:] if "=" not in part], options)


def number(text: str, what: str) -> float:
    """1430, 30s, 5m, 10%, x2, and nan. Raises StoryError."""
    duration = _DURATION.match(text)
    if duration:
        return float(duration[1]) * _SECONDS[duration[2]]
    plain = text.removeprefix("x")
    scale = 1.0
    if plain.endswith("%"):
        plain, scale = plain[:-1], 0.01
    try:
        return float(plain) * scale
    except ValueError:
        raise StoryError(f"{what}: {text!r} is no number; write such as 1430, 30s, 10% or x2") from None
