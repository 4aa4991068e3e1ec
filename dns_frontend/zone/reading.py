"""dnspython's master-file reader, made strict: where each record began, what may stand beside what, which files. PURE.

The grammar and the rdata of every type are dnspython's (unknown types as RFC 3597 writes them). Habits of its that would
lose what the operator wrote without a word are turned off: it skips records outside the zone, and a second CNAME
replaces the first. Its transactions are left out, for a zone is only ever read whole; that halves the time.

$INCLUDE asks the caller for the text of a file: what may be read, and from where, is not decided here. $GENERATE is not
in RFC 1035 and multiplies lines: it is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.transaction
import dns.ttl
import dns.zonefile
from typing_extensions import override

from dns_frontend.limits import INCLUDE_DEPTH_MAX, INCLUDES_MAX, RRSET_MAX_OCTETS, ZONE_TEXT_MAX_CHARS
from dns_frontend.zone.rtype import META_TYPES, RType

TTL_MAX_S: Final = 2**31 - 1  # RFC 2181 section 8
RECORD_OVERHEAD_OCTETS: Final = 12  # a compressed owner, type, class, TTL and length
# What may stand beside a CNAME (RFC 2181 section 10.1, RFC 4034 section 2.5): DNSSEC's own records.
_BESIDE_CNAME: Final = frozenset({int(RType.CNAME), int(RType.KEY), int(RType.RRSIG), int(RType.NSEC)})


class BadZoneError(ValueError):
    """The text is not a zone that can be served; the message has NAME:LINE where there is one, and the reason."""


class Source(NamedTuple):
    """A text and the name that messages give it: a file's path, or the zone's own."""

    name: str
    text: str


# (name of the including text, what stands after $INCLUDE) -> the text. Raises BadZoneError without a line.
Include = Callable[[str, str], Source]


@dataclass(slots=True)
class Draft:
    """An RRset in the making."""

    ttl_s: int
    line: str  # NAME:LINE of its first record
    octets: int = 0
    rdatas: dict[bytes, None] = field(default_factory=dict)  # in the order of the text, none twice


class Records:
    """What the reader adds to, instead of a transaction of dnspython's."""

    def __init__(self, origin: dns.name.Name) -> None:
        self.origin = origin
        self.nodes: dict[bytes, dict[int, Draft]] = {}  # by owner in lower case
        self.spelled: dict[bytes, bytes] = {}  # owners as they are written, where that is not in lower case
        self.warnings: list[str] = []
        self.line = ""  # NAME:LINE of the record that is being read
        self._name: dns.name.Name | None = None
        self._key = b""
        self._top = _wire(origin).lower()

    @property
    def manager(self) -> "Records":
        return self

    def origin_information(self) -> tuple[dns.name.Name, bool, dns.name.Name]:
        return self.origin, False, self.origin

    def check_put_rdataset(self, check: object) -> None:
        """dnspython's own check of CNAMEs; `_check` is ours."""

    def add(self, name: dns.name.Name, ttl: int, rdata: dns.rdata.Rdata) -> None:
        """One record. Raises BadZoneError without a line, or whatever dnspython makes of data that it cannot encode."""
        if name is not self._name:
            owner = _wire(name)
            self._name, self._key = name, owner.lower()
            if owner != self._key:
                self.spelled.setdefault(self._key, owner)
        rtype = int(rdata.rdtype)
        node = self.nodes.setdefault(self._key, {})
        wire = rdata.to_wire() or b""
        draft = node.get(rtype)
        if draft is None:
            self._check_new(name, rtype, ttl, node)
            draft = node[rtype] = Draft(ttl, self.line)
        elif wire in draft.rdatas:
            return
        elif dns.rdatatype.is_singleton(rdata.rdtype):
            raise BadZoneError(f"{name} has two different {_kind(rtype)} records: one is allowed")
        if ttl != draft.ttl_s:
            self.warnings.append(
                f"{self.line}: {name} {_kind(rtype)} has two TTLs, {draft.ttl_s} and {ttl}: the lesser is served (RFC 2181)"
            )
            draft.ttl_s = min(draft.ttl_s, ttl)
        draft.rdatas[wire] = None
        draft.octets += len(wire) + RECORD_OVERHEAD_OCTETS
        if draft.octets > RRSET_MAX_OCTETS:
            raise BadZoneError(f"{name} {_kind(rtype)}: more than {RRSET_MAX_OCTETS} octets do not fit into one answer")

    def _check_new(self, name: dns.name.Name, rtype: int, ttl: int, node: dict[int, Draft]) -> None:
        """What may be the first record of its type at a name."""
        if rtype in META_TYPES or not rtype:
            raise BadZoneError(f"{name} {_kind(rtype)}: this type cannot be the type of a record in a zone")
        if rtype == RType.SOA and self._key != self._top:
            raise BadZoneError(f"{name} has an SOA, which belongs to the top of the zone, {self.origin}")
        if rtype == RType.CNAME and not _BESIDE_CNAME.issuperset(node):
            other = next(kind for kind in node if kind not in _BESIDE_CNAME)
            raise BadZoneError(f"{name} has a CNAME and {_kind(other)}: a CNAME stands alone (RFC 2181 section 10.1)")
        if RType.CNAME in node and rtype not in _BESIDE_CNAME:
            raise BadZoneError(f"{name} has a CNAME and {_kind(rtype)}: a CNAME stands alone (RFC 2181 section 10.1)")
        if ttl > TTL_MAX_S:
            raise BadZoneError(f"{name} {_kind(rtype)}: TTL {ttl} is above {TTL_MAX_S}")


def _wire(name: dns.name.Name) -> bytes:
    wire = name.to_wire()
    assert wire is not None  # it is when no file is given to write to
    return wire


def _kind(rtype: int) -> str:
    return dns.rdatatype.to_text(dns.rdatatype.RdataType(rtype))


class _State(NamedTuple):
    """What $INCLUDE puts back when its file is over (RFC 1035 section 5.1: the origin is the including file's again)."""

    tok: dns.tokenizer.Tokenizer
    origin: dns.name.Name | None
    last_name: dns.name.Name | None
    last_ttl: tuple[int, bool]
    default_ttl: tuple[int, bool, bool]


class Reader(dns.zonefile.Reader):
    """Reads one zone's text into `records`. Raises BadZoneError."""

    def __init__(self, source: Source, records: Records, include: Include | None) -> None:
        self._records = records
        self._include = include
        self._states: list[_State] = []
        self._names = [source.name]  # of the texts being read, innermost last
        self._chars = 0
        self._included = 0
        super().__init__(
            self._open(source), dns.rdataclass.IN, cast("dns.transaction.Transaction", records), allow_directives=True
        )

    @property
    def included(self) -> int:
        """How many files were included."""
        return self._included

    def _open(self, source: Source) -> dns.tokenizer.Tokenizer:
        self._chars += len(source.text)
        if self._chars > ZONE_TEXT_MAX_CHARS:
            raise BadZoneError(f"{source.name}: a zone of more than {ZONE_TEXT_MAX_CHARS} characters: split the zone")
        return dns.tokenizer.Tokenizer(source.text, source.name)

    @property
    def _here(self) -> str:
        name, line = self.tok.where()
        return f"{name}:{line}"

    @override
    def read(self) -> None:
        while True:
            here = self._here
            try:
                if not self._line():
                    return
            except BadZoneError as error:
                raise BadZoneError(f"{here}: {error}") from error
            except Exception as error:  # whatever hostile text makes the parser raise: it is refused
                raise BadZoneError(f"{here}: {_reason(error)}") from error

    def _line(self) -> bool:
        """Reads on; False at the very end."""
        token = self.tok.get(want_leading=True, want_comment=True)
        if token.is_eof():
            return self._leave()
        if token.is_comment():
            self.tok.get_eol()
        elif token.is_identifier() and token.value.startswith("$"):
            self._directive(token.value.upper())
        elif not token.is_eol():
            self.tok.unget(token)
            self._rr_line()
        return True

    def _directive(self, directive: str) -> None:
        match directive:
            case "$TTL":
                self.default_ttl = dns.ttl.from_text(self.tok.get_identifier())
                self.default_ttl_known, self.default_ttl_from_soa = True, False
                self.tok.get_eol()
            case "$ORIGIN":
                self.current_origin = self.tok.get_name(self.current_origin)
                self.tok.get_eol()
            case "$INCLUDE":
                self._enter()
            case _:
                raise BadZoneError(f"the directive {directive[:40]} is not allowed: write $ORIGIN, $TTL or $INCLUDE")

    def _enter(self) -> None:
        wanted = self.tok.get_string()
        token = self.tok.get()
        origin = self.current_origin
        if not token.is_eol_or_eof():
            origin = self.tok.as_name(token, origin)
            self.tok.get_eol()
        if self._include is None:
            raise BadZoneError("$INCLUDE is not allowed in a text that comes over the network: send the whole zone")
        if len(self._states) >= INCLUDE_DEPTH_MAX:
            raise BadZoneError(f"files are included more than {INCLUDE_DEPTH_MAX} deep: does one include itself?")
        if (included := self._included + 1) > INCLUDES_MAX:
            raise BadZoneError(f"more than {INCLUDES_MAX} files are included")
        source = self._include(self._names[-1], wanted)
        self._states.append(
            _State(
                self.tok,
                self.current_origin,
                self.last_name,
                (self.last_ttl, self.last_ttl_known),
                (self.default_ttl, self.default_ttl_known, self.default_ttl_from_soa),
            )
        )
        self._names.append(source.name)
        self.tok, self.current_origin, self._included = self._open(source), origin, included

    def _leave(self) -> bool:
        if not self._states:
            return False
        state = self._states.pop()
        self._names.pop()
        self.tok, self.current_origin, self.last_name = state.tok, state.origin, state.last_name
        self.last_ttl, self.last_ttl_known = state.last_ttl
        self.default_ttl, self.default_ttl_known, self.default_ttl_from_soa = state.default_ttl
        return True

    @override
    def _eat_line(self) -> None:  # called for a record outside the zone, and for nothing else
        raise BadZoneError(f"{self.last_name} is outside the zone {self.zone_origin}")

    @override
    def _rr_line(self) -> None:
        self._records.line = self._here
        super()._rr_line()


def _reason(error: Exception) -> str:
    text = str(error) or "this is not a record"
    return text if isinstance(error, dns.exception.SyntaxError) else f"{type(error).__name__}: {text}"
