"""Domain names in wire form: what the table is keyed by. PURE.

A name is its uncompressed wire encoding (RFC 1035 section 3.1), root octet included. Keys are in lower case;
`bytes.lower` may be used on the whole encoding, for a length octet (at most 63) is never an upper-case letter. A suffix
of a name is then a slice of it, so that finding the closest encloser allocates little and costs at most 127 lookups.
"""

from typing import Final

ROOT: Final = b"\x00"
WILDCARD: Final = b"\x01*"
NAME_MAX_OCTETS: Final = 255
LABEL_MAX_OCTETS: Final = 63
_DOT, _ZERO, _NINE, _ESCAPE = 0x2E, 0x30, 0x39, 0x5C
# Printed as they are; everything else, and what has a meaning in a zone file, is escaped (RFC 1035 section 5.1).
_PLAIN: Final = frozenset(range(0x21, 0x7F)) - frozenset(b'.\\";()@$')


class BadNameError(ValueError):
    """Not a domain name; the message names the text and what is wrong with it."""


def labels_of(name: bytes) -> tuple[bytes, ...]:
    """The labels of a wire name, leftmost first, without the root's."""
    labels: list[bytes] = []
    at = 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(labels)


def parent_of(name: bytes) -> bytes | None:
    """The name without its leftmost label; None for the root."""
    return name[1 + name[0] :] if name[0] else None


def is_under(name: bytes, origin: bytes) -> bool:
    """Whether `name` is `origin` or below it; both in lower case."""
    at = 0
    while len(name) - at > len(origin):
        at += 1 + name[at]
    return name[at:] == origin


def from_text(text: str) -> bytes:
    r"""Master-file text, absolute whether or not it ends with a dot, to a wire name; case is kept. Raises BadNameError.

    `\.` and `\DDD` are understood. Non-ASCII text is refused: write the A-label (xn--...).
    """
    shown = text if len(text) <= 80 else text[:77] + "..."
    if text in {"", "."}:
        return ROOT
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise BadNameError(f"{shown!r} is not ASCII: write an international name in its xn-- form") from error
    wire = bytearray()
    for label in _split(raw, shown):
        if not 1 <= len(label) <= LABEL_MAX_OCTETS:
            raise BadNameError(f"{shown!r} has a label of {len(label)} octets: 1 to {LABEL_MAX_OCTETS} are allowed")
        wire.append(len(label))
        wire += label
    wire.append(0)
    if len(wire) > NAME_MAX_OCTETS:
        raise BadNameError(f"{shown!r} has {len(wire)} octets: {NAME_MAX_OCTETS} are allowed")
    return bytes(wire)


def _split(raw: bytes, shown: str) -> list[bytes]:
    """The labels of escaped text; one final dot is dropped."""
    labels = [bytearray()]
    at = 0
    while at < len(raw):
        octet, step = _octet(raw, at, shown)
        if step == 1 and octet == _DOT:
            labels.append(bytearray())
        else:
            labels[-1].append(octet)
        at += step
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    return [bytes(label) for label in labels]


def _octet(raw: bytes, at: int, shown: str) -> tuple[int, int]:
    """The octet that the text at `at` stands for, and how many characters it takes."""
    if raw[at] != _ESCAPE:
        return raw[at], 1
    if at + 1 >= len(raw):
        raise BadNameError(f"{shown!r} ends in the middle of an escape")
    if not _ZERO <= raw[at + 1] <= _NINE:
        return raw[at + 1], 2
    digits = raw[at + 1 : at + 4]
    if len(digits) != 3 or not digits.isdigit() or int(digits) > 255:
        raise BadNameError(f"{shown!r} has a bad escape: write \\DDD with DDD from 000 to 255")
    return int(digits), 4


def to_text(name: bytes) -> str:
    """Master-file text of a wire name, with its final dot."""
    return "".join(f"{_label_text(label)}." for label in labels_of(name)) or "."


def _label_text(label: bytes) -> str:
    return "".join(chr(octet) if octet in _PLAIN else _escaped(octet) for octet in label)


def _escaped(octet: int) -> str:
    return f"\\{chr(octet)}" if 0x21 <= octet < 0x7F else f"\\{octet:03d}"
