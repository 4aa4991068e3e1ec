"""Page tokens of List: where the next page begins, and the revision that all pages show. PURE.

A token is opaque to clients, and checked like everything else they send.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from bns.errors import BadRecordError
from bns.names import InvalidNameError, parse_task

_FORM = re.compile(r"1:([0-9]{1,19}):(/bns/[a-z0-9/-]{1,260})")


@dataclass(frozen=True, slots=True)
class PageToken:
    """The page begins behind the task `after`, as of `revision`."""

    revision: int
    after: str

    def encode(self) -> str:
        """Opaque text."""
        return base64.urlsafe_b64encode(f"1:{self.revision}:{self.after}".encode()).decode()


def parse_page_token(text: str) -> PageToken:
    """Raises BadRecordError."""
    try:
        found = _FORM.fullmatch(base64.urlsafe_b64decode(text.encode("ascii")).decode("ascii"))
        if found is not None:
            return PageToken(int(found[1]), str(parse_task(found[2])))
    except (binascii.Error, UnicodeError, InvalidNameError):
        pass
    raise BadRecordError(f"page_token {text[:80]!r} is not one that this service gave: start without one")
