"""A Knot DNS on loopback with the zones of the corpus: another implementation to be compared with."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bns.etcd.embedded import free_port
from bns.spawn import dies_with_us

START_S = 20.0


@contextmanager
def knot(directory: Path, zones: Mapping[str, Path | None], primary: int = 0) -> Iterator[int]:
    """Serves `zones` (origin -> file) on a port of 127.0.0.1; fetched from 127.0.0.1:`primary` if one is given."""
    program = shutil.which("knotd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program is not None
    port = free_port()
    fetched = "    master: primary\n" if primary else ""
    remote = f"remote:\n  - id: primary\n    address: 127.0.0.1@{primary}\n" if primary else ""
    listed = "".join(
        f"  - domain: {origin}.\n" + (f"    file: {path.resolve()}\n" if path else fetched)
        for origin, path in zones.items()
    )
    config = directory / "knot.conf"
    config.write_text(
        f"server:\n    rundir: {directory}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n"
        "    background-workers: 1\n"
        f"database:\n    storage: {directory}\n"
        f"log:\n  - target: {directory}/knot.log\n    any: info\n"
        f"{remote}"
        "acl:\n  - id: anybody\n    address: 127.0.0.0/8\n    action: transfer\n"
        "template:\n  - id: default\n    zonefile-sync: -1\n    journal-content: none\n"
        "    semantic-checks: off\n    acl: anybody\n"
        f"zone:\n{listed}"
    )
    process = subprocess.Popen(
        dies_with_us([program, "-c", str(config)]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(directory / "knot.log", process, 0 if primary else len(zones))
        yield port
    finally:
        process.terminate()
        process.wait(START_S)


def _wait(log: Path, process: subprocess.Popen[bytes], zones: int) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        text = log.read_text() if log.exists() else ""
        if text.count("loaded, serial") >= zones and "server started" in text:
            return
        assert process.poll() is None, text
        assert "error" not in text, text
        assert time.monotonic() < deadline_s, text
        time.sleep(0.05)


def exchange(port: int, wire: bytes, transport: socket.SocketKind = socket.SOCK_DGRAM) -> bytes:
    """One query and its answer."""
    with socket.socket(socket.AF_INET, transport) as made:
        made.settimeout(5.0)
        made.connect(("127.0.0.1", port))
        if transport is socket.SOCK_DGRAM:
            made.send(wire)
            return made.recv(65_535)
        made.sendall(len(wire).to_bytes(2, "big") + wire)
        stream = made.makefile("rb")
        return stream.read(int.from_bytes(stream.read(2), "big"))
