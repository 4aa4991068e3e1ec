"""What a demonstration may turn on a running server: CPU per request, and a share of errors answered at once.

The knobs stand in a JSON file that is read again each second: {"cpu_ms": 8, "error_rate": 0.5}. A missing file leaves
them as the command line has them; one that makes no sense leaves them as they were, and says so once.
"""

import asyncio
import json
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

log = logging.getLogger("shakespeare")

READ_PERIOD_S: Final = 1.0
FILE_MAX_BYTES: Final = 4096
CPU_MS_MAX: Final = 1000.0
CODES: Final = {code.name: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


class KnobsError(ValueError):
    """The file is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """`cpu_ms`: CPU to burn for each request; `error_rate`: the part that is answered `error_code` instead, for free."""

    cpu_ms: float = 0.0
    error_rate: float = 0.0
    error_code: grpc.StatusCode = grpc.StatusCode.INTERNAL

    def errs(self) -> bool:
        """Whether this request is one of the errors."""
        return self.error_rate > 0 and random.random() < self.error_rate  # a demonstration's dice

    def burn(self) -> None:
        """Uses up a request's CPU; holds the event loop meanwhile, as real work in it would."""
        until_s = time.thread_time() + self.cpu_ms / 1000
        while time.thread_time() < until_s:
            pass


def parse(text: str, defaults: Knobs) -> Knobs:
    """The knobs of a file; those that it leaves out are the defaults. Raises KnobsError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KnobsError(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise KnobsError(f'{text[:60]!r} is no object: give {{"cpu_ms": 8, "error_rate": 0.5}}')
    unknown = found.keys() - {"cpu_ms", "error_rate", "error_code"}
    if unknown:
        raise KnobsError(f"{min(unknown)[:60]!r} is no knob: known are cpu_ms, error_rate and error_code")
    code = found.get("error_code", defaults.error_code.name)
    if not isinstance(code, str) or code not in CODES:
        raise KnobsError(f"error_code {str(code)[:60]!r} is none of {', '.join(sorted(CODES))}")
    return Knobs(
        _number(found, "cpu_ms", defaults.cpu_ms, CPU_MS_MAX),
        _number(found, "error_rate", defaults.error_rate, 1.0),
        CODES[code],
    )


def _number(found: dict[str, object], key: str, default: float, most: float) -> float:
    value = found.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise KnobsError(f"{key} {str(value)[:60]} is not between 0 and {most:g}")
    return float(value)


class KnobsFile:
    """The knobs as the file last had them."""

    def __init__(self, path: Path | None, defaults: Knobs) -> None:
        self._path = path
        self._defaults = defaults
        self._complained = ""
        self.now = defaults
        self.read()

    def read(self) -> None:
        """Looks at the file once."""
        if self._path is None:
            return
        try:
            with self._path.open(encoding="utf-8") as file:
                now = parse(file.read(FILE_MAX_BYTES), self._defaults)
        except FileNotFoundError:
            now = self._defaults
        except (OSError, ValueError) as error:
            if str(error) != self._complained:
                self._complained = str(error)
                log.warning("knobs %s stay as they were: %s", self._path, error)
            return
        self._complained = ""
        if now != self.now:
            log.info("knobs: %s", now)
        self.now = now

    async def follow(self) -> None:
        """Until cancelled."""
        while self._path is not None:
            await asyncio.sleep(READ_PERIOD_S)
            self.read()
