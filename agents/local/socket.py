"""The unix socket on which tasks of this machine find their agent.

Only the agent's own user may connect (mode 0600). gRPC replaces whatever is at the path, a living server's socket
included; so it is looked at before.
"""

import os
import socket
import stat
from pathlib import Path
from typing import Final

import grpc.aio

from agents.errors import AgentError
from bns.errors import AddressError, ListenError
from bns.transport import add_port

_MODE: Final = 0o600


class SocketError(AgentError):
    """The local socket cannot be served; the message names it and says what to do."""


def listen(server: grpc.aio.Server, path: Path) -> None:
    """Makes `server` listen on `path`. Raises SocketError."""
    _clear(path)
    # The mask keeps others out from the first moment; chmod makes it so whatever the directory's defaults are.
    before = os.umask(0o777 & ~_MODE)
    try:
        add_port(server, f"unix:{path}")
    except (ListenError, AddressError) as error:
        raise SocketError(f"--socket {str(path)!r}: {error}") from error
    finally:
        os.umask(before)
    path.chmod(_MODE)


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"--socket {str(path)!r}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"--socket {str(path)!r} is there and is not a socket: remove it, or give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)  # a killed agent left it
            return
        except OSError as error:
            raise SocketError(f"--socket {str(path)!r}: {error.strerror or error}") from error
    raise SocketError(
        f"--socket {str(path)!r} is in use by another process: an agent runs already; end it, or give another path"
    )
