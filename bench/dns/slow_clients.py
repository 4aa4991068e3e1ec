"""Opens TCP connections that send a part of a message and then nothing, and anew what the server closes; prints how many.

python -m bench.dns.slow_clients PORT COUNT SECONDS
"""

import contextlib
import resource
import selectors
import socket
import sys
import time

_OPENED_AT_ONCE = 200


def _connect(port: int, number: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # As many networks as an attacker has; the caps are by network and in all.
    made.bind((f"127.{30 + number % 200}.{number // 200 % 250}.1", 0))
    with contextlib.suppress(BlockingIOError):
        made.connect(("127.0.0.1", port))
    return made


def main(port: int, count: int, seconds: float) -> int:
    """How many connections were opened, those after a close too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = selectors.DefaultSelector()
    opened = held = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(min(_OPENED_AT_ONCE, count - held)):
            try:
                chosen.register(_connect(port, opened), selectors.EVENT_WRITE)
            except OSError:
                break
            opened += 1
            held += 1
        for key, events in chosen.select(0.01):
            made = key.fileobj
            assert isinstance(made, socket.socket)
            try:
                if events & selectors.EVENT_WRITE:
                    made.send(b"\x00\x40abc")
                    chosen.modify(made, selectors.EVENT_READ)
                    continue
                if made.recv(512):
                    continue
            except OSError:
                pass
            chosen.unregister(made)
            made.close()
            held -= 1
    return opened


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
