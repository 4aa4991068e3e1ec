"""How much it hurts when a request is refused (SRE book, chapter 21)."""

from enum import IntEnum


class Criticality(IntEnum):
    """Most critical first; the value is the column index in reports."""

    CRITICAL_PLUS = 0
    CRITICAL = 1
    SHEDDABLE_PLUS = 2
    SHEDDABLE = 3
