"""A server of the example that calls others: it takes connections once it knows where they are, and keeps that on disk."""

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bns.etcd.embedded import free_port
from bns.spawn import dies_with_us
from tests.support.echo import Planet, wait_until


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def readiness(port: int) -> tuple[int, str]:
    """(0, ""): there is no page yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Frontend:
    """The example's frontend, as a process."""

    def __init__(self, control: str, directory: Path) -> None:
        self.port, self.http = free_port(), free_port()
        self.snapshot = directory / "view"
        self._command = [
            sys.executable, "-m", "examples.shakespeare.frontend", "--name", "/bns/us-east1/u/frontend/0",
            "--listen", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.http}", "--control", control,
            "--agent", f"unix:{directory}/no-agent", "--snapshot", str(self.snapshot),
        ]  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[None]:
        process = subprocess.Popen(dies_with_us(self._command), stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()


@pytest.mark.timeout(90)
def test_it_takes_connections_once_it_knows_and_after_a_restart_at_once(tmp_path: Path) -> None:
    planet = Planet(["us-east1/u/backend/0"], replicas=1)
    try:
        frontend = Frontend(planet.control, tmp_path)
        with frontend.running():
            wait_until(lambda: readiness(frontend.http)[0] == 503, 30)
            assert "where the services are that it calls" in readiness(frontend.http)[1]
            assert not listens(frontend.port)
            planet.serve({"us-east1": 1.0}, service="shakespeare-backend")
            wait_until(lambda: readiness(frontend.http)[0] == 200)
            assert listens(frontend.port)
            wait_until(frontend.snapshot.exists)
        planet.replicas[0].close()
        with frontend.running():
            wait_until(lambda: readiness(frontend.http)[0] == 200, 30)
            assert listens(frontend.port)
    finally:
        planet.close()
