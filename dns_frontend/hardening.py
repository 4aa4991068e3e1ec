"""The guard of one frontend: secrets of cookies from a file, and what answers say of the age of what they come from."""

import logging
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from dns_frontend.errors import FrontendError
from dns_frontend.limits import COOKIE_FILE_MAX_OCTETS
from dns_frontend.metrics import Counters
from dns_frontend.responder.cookies import BadSecretError, Cookies, parse_secrets
from dns_frontend.responder.edns import extended_error
from dns_frontend.responder.guard import EDE_STALE, Clock, Guard, Hardening
from dns_frontend.responder.siphash import KEY_OCTETS

log = logging.getLogger(__name__)


class Hardened:
    """A guard and the files behind it."""

    def __init__(self, chosen: Hardening, secret_file: Path | None, counters: Counters) -> None:
        self.guard = Guard(counters, chosen, Clock(time.time, time.monotonic_ns))
        self._chosen = chosen
        self._file = secret_file
        self.stale_text = ""  # what answers by the plan say of their age; "": nothing

    def load(self, shared: tuple[bytes, ...] = ()) -> None:
        """The secrets, at the start. Without a file they are `shared`, or of this process alone. Raises FrontendError."""
        if not self._chosen.cookies:
            return
        own = shared or (os.urandom(KEY_OCTETS),)
        self.guard.cookies = Cookies(own if self._file is None else read_secrets(self._file))

    def reload(self) -> tuple[str, ...]:
        """Reads the secrets anew; what is wrong with them. Those before are used on then."""
        if self._file is None or not self._chosen.cookies:
            return ()
        try:
            self.guard.cookies = Cookies(read_secrets(self._file))
        except FrontendError as error:
            return (str(error),)
        return ()

    def mark(self, age_s: float, now_s: float) -> None:
        """Tells the guard how old what is served is; `now_s` since the epoch."""
        if age_s <= self._chosen.stale_after_s:
            self.guard.stale, self.stale_text = b"", ""
        elif not self.guard.stale:
            # The moment and not the age: what is said stays the same for as long as it lasts.
            heard = datetime.fromtimestamp(now_s - age_s, UTC)
            self.stale_text = f"no control plane since {heard:%Y-%m-%dT%H:%M:%SZ}"
            self.guard.stale = extended_error(EDE_STALE, self.stale_text)
            log.warning("%s: answers by the plan say so from now on", self.stale_text)


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets in a file. Raises FrontendError, in one line and without anything that is in the file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(COOKIE_FILE_MAX_OCTETS + 1)
        if len(data) > COOKIE_FILE_MAX_OCTETS:
            raise BadSecretError(f"longer than {COOKIE_FILE_MAX_OCTETS} octets")
        secrets = parse_secrets(data.decode("ascii"))
    except OSError as error:
        raise FrontendError(f"cookie secrets {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise FrontendError(f"cookie secrets {path}: not text") from None
    except BadSecretError as error:
        raise FrontendError(f"cookie secrets {path}: {error}") from None
    if mode & (stat.S_IRWXO):
        log.warning("cookie secrets %s may be read by everybody: chmod o= it", path)
    return secrets
