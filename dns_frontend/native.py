"""The data plane's library, through ctypes: tables made of octets, and threads that answer from them.

The library is optional: it is built from `dataplane/` where there is a Rust compiler. `load_library` says why there is none. A
call releases the interpreter's lock, so that a large table is checked while queries are answered.
"""

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from dns_frontend.errors import FrontendError
from dns_frontend.metrics import Transport
from dns_frontend.responder.locate import Source
from dns_frontend.responder.rrl import AnswerClass, Verdict

_ABI: Final = 4
_FILES: Final = "_dataplane*.so"
_ERROR_OCTETS: Final = 200
_ANSWER_MAX_OCTETS: Final = 65_535
_FACTS: Final = 6
_ASK: Final = -2
_ROWS: Final = 20_000
_BACKLOG_OCTETS: Final = 1 << 20
_NO_DATACENTER: Final = 0xFFFF

_VERDICTS: Final = {0: Verdict.SEND, 1: Verdict.SLIP, 2: Verdict.DROP}

_Octets = ctypes.c_char_p
_Handle = ctypes.c_void_p
_Size = ctypes.c_size_t
_U32 = ctypes.c_uint32
_U64 = ctypes.c_uint64
_SIGNATURES: Final[dict[str, tuple[object, list[object]]]] = {
    "gslb_dns_abi": (ctypes.c_uint64, []),
    "gslb_dns_table": (_Handle, [_Octets, _Size, _Octets, _Size]),
    "gslb_dns_patched": (_Handle, [_Handle, _Octets, _Size, _Octets, _Size]),
    "gslb_dns_free": (None, [_Handle]),
    "gslb_dns_answer": (
        ctypes.c_ssize_t,
        [_Handle, _Octets, _Size, _Octets, _U32, _U64, _U64, _Octets, _Size, ctypes.POINTER(_U32)],
    ),
    "gslb_dns_start": (
        _Handle,
        [ctypes.POINTER(ctypes.c_int32), _Octets, _Size, ctypes.c_int32, _Octets, _Size],
    ),
    "gslb_dns_serve": (_U32, [_Handle, _Handle, _U32]),
    "gslb_dns_judge": (ctypes.c_int32, [_Handle, _Octets, _U32, _U32, _Octets, _Size, _Size]),
    "gslb_dns_sample": (None, [_Handle, _U64]),
    "gslb_dns_take": (_Size, [_Handle, _Octets, _Size]),
    "gslb_dns_stats": (None, [_Handle, ctypes.POINTER(ctypes.c_uint64)]),
    "gslb_dns_counts": (_Size, [_Handle, _U32, ctypes.POINTER(_U32), _Size]),
    "gslb_dns_stop": (None, [_Handle]),
}


class NoDataPlaneError(FrontendError):
    """There is no library, or it cannot be used; the message says why and what to do."""


class BadTableError(FrontendError):
    """The library refuses octets as a table."""


class Facts(NamedTuple):
    """What the library says of an answer, in the numbers of the table's layout. `steered`: a plan gave the answer."""

    rcode: int
    truncated: bool
    steered: bool
    slot: int
    locality: int
    datacenter: int | None


class Statistics(NamedTuple):
    """Counts of all threads since the start."""

    rcodes: tuple[int, ...]
    ignored: int = 0
    truncated: int = 0
    asked: int = 0
    dropped: int = 0
    send_failures: int = 0
    panics: int = 0
    limited: tuple[int, ...] = (0,) * 10  # by class of answer: slipped, then dropped


class Row(NamedTuple):
    """Questions counted since the last time: by slot and locality, or by locality and datacenter (None: there was none)."""

    epoch: int
    first: int
    second: int | None
    questions: int


class Library:
    """The loaded library, its functions declared."""

    def __init__(self, path: Path) -> None:
        """Raises NoDataPlaneError."""
        self.path = path
        try:
            self.calls = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self.calls, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise NoDataPlaneError(f"{path.name} cannot be used: {error}; build it anew with 'make setup'") from error
        abi = int(self.calls.gslb_dns_abi())
        if abi >> 32 != _ABI:
            raise NoDataPlaneError(f"{path.name} is of another release: build it anew with 'make setup'")
        self.stats_count, self.rcode_count = abi >> 16 & 0xFFFF, abi & 0xFFFF


@lru_cache(maxsize=1)
def load_library() -> Library:
    """The library beside this file. Raises NoDataPlaneError."""
    found = sorted(Path(__file__).parent.glob(_FILES))
    if not found:
        raise NoDataPlaneError("the data plane was not built: install Rust (cargo) and run 'make setup'")
    return Library(found[-1])


class NativeTable:
    """A table that the library has checked and holds. Immutable."""

    def __init__(self, library: Library, octets: bytes, before: "NativeTable | None" = None) -> None:
        """The table in `octets`, or what they make of `before`. Raises BadTableError."""
        error = ctypes.create_string_buffer(_ERROR_OCTETS)
        tail = (octets, len(octets), error, _ERROR_OCTETS)
        calls = library.calls
        self.handle: int | None = (
            calls.gslb_dns_patched(before.handle, *tail) if before else calls.gslb_dns_table(*tail)
        )
        self._library = library
        if not self.handle:
            raise BadTableError(f"the data plane refuses a table of {len(octets)} octets: {error.value.decode()}")
        self._out = ctypes.create_string_buffer(_ANSWER_MAX_OCTETS)
        self._facts = (_U32 * _FACTS)()
        weakref.finalize(self, calls.gslb_dns_free, self.handle)

    def answer(
        self, packet: bytes, source: Source, transport: Transport, now: tuple[int, int] = (0, 0)
    ) -> tuple[bytes | None, Facts] | None:
        """The answer to a message (None: silence) and its facts; None when the reference is to be asked.

        `now`: seconds since the epoch, and nanoseconds of a monotonic clock.
        """
        out, facts = self._out, self._facts
        address = source.value.to_bytes(4 if source.version == 4 else 16, "big").ljust(16, b"\x00")
        kind = (source.version == 6) | (transport is Transport.TCP) << 1
        length = self._library.calls.gslb_dns_answer(
            self.handle, packet, len(packet), address, kind, *now, out, _ANSWER_MAX_OCTETS, facts
        )
        if length == _ASK:
            return None
        rcode, truncated, steered, slot, locality, datacenter = facts
        to = None if datacenter == _NO_DATACENTER else datacenter
        told = Facts(rcode, bool(truncated), bool(steered), slot, locality, to)
        return (ctypes.string_at(out, length) if length >= 0 else None), told


class NativePlane:
    """Threads of the library, one for each socket. Close it before the sockets."""

    def __init__(self, library: Library, sockets: Sequence[tuple[int, bool]], event: int) -> None:
        """`sockets`: descriptors, and whether each is bound to every address; `event`: an eventfd. Raises NoDataPlaneError."""
        error = ctypes.create_string_buffer(_ERROR_OCTETS)
        descriptors = (ctypes.c_int32 * len(sockets))(*(descriptor for descriptor, _ in sockets))
        wildcards = bytes(wildcard for _, wildcard in sockets)
        self._library = library
        self._calls = library.calls
        self._handle = self._calls.gslb_dns_start(descriptors, wildcards, len(sockets), event, error, _ERROR_OCTETS)
        if not self._handle:
            raise NoDataPlaneError(f"the data plane cannot start: {error.value.decode()}")
        self._backlog = ctypes.create_string_buffer(_BACKLOG_OCTETS)
        self._rows = (_U32 * (4 * _ROWS))()

    def serve(self, table: NativeTable | None, *, renumbered: bool) -> int:
        """Answers from `table` from now on (None: asks the reference about everything); the epoch of its counts."""
        return int(self._calls.gslb_dns_serve(self._handle, table.handle if table else None, renumbered))

    def judge(self, client: tuple[int, int], kind: AnswerClass, zone: bytes, octets: int) -> Verdict | None:
        """What the threads' rate limit says to an answer of the reference; None: they have none now."""
        version, value = client
        address = value.to_bytes(4 if version == 4 else 16, "big").ljust(16, b"\x00")
        said = self._calls.gslb_dns_judge(self._handle, address, version == 6, kind, zone, len(zone), octets)
        return _VERDICTS.get(said)

    def sample(self, every: int) -> None:
        """From now on about one of `every` messages is given to `take`, too, marked, though it is answered."""
        self._calls.gslb_dns_sample(self._handle, every)

    def take(self) -> bytes:
        """The messages that the reference shall answer now, one behind the other."""
        length = self._calls.gslb_dns_take(self._handle, self._backlog, _BACKLOG_OCTETS)
        return ctypes.string_at(self._backlog, length)

    def statistics(self) -> Statistics:
        """What was counted since the start."""
        numbers = (ctypes.c_uint64 * self._library.stats_count)()
        self._calls.gslb_dns_stats(self._handle, numbers)
        codes = self._library.rcode_count
        ignored, truncated, asked, dropped, send_failures, panics, *limited = numbers[codes:]
        plain = (ignored, truncated, asked, dropped, send_failures, panics)
        return Statistics(tuple(numbers[:codes]), *plain, tuple(limited))

    def take_demand(self) -> Iterator[Row]:
        """Rows of (slot, locality) since the last time."""
        return self._take(0)

    def take_destinations(self) -> Iterator[Row]:
        """Rows of (locality, datacenter) since the last time."""
        return self._take(1)

    def _take(self, what: int) -> Iterator[Row]:
        while True:
            count = self._calls.gslb_dns_counts(self._handle, what, self._rows, _ROWS)
            numbers = self._rows[: 4 * count]
            for at in range(0, len(numbers), 4):
                epoch, first, second, questions = numbers[at : at + 4]
                yield Row(epoch, first, None if what and second == _NO_DATACENTER else second, questions)
            if count < _ROWS:
                return

    def close(self) -> None:
        """Ends the threads."""
        if self._handle:
            self._calls.gslb_dns_stop(self._handle)
            self._handle = None
