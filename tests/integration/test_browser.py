"""Headless Chromium opens the example's page by name, and the name comes from our DNS.

Nothing of the browser is bent: its resolver reads /etc/resolv.conf. In a mount namespace of the browser's own that file
names a frontend of ours, on port 53 of a loopback address. That needs root.
"""

import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bns.etcd.embedded import free_port
from bns.spawn import dies_with_us

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(600), pytest.mark.xdist_group("planet")]

WAIT_S = 120.0
NAME = "www.shakespeare.example"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--timeout=60000",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    if os.geteuid() != 0:
        pytest.skip("a resolv.conf of the browser's own, and port 53, need root")
    private = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if private.returncode != 0:
        pytest.skip("no mount namespace can be made here")
    return found


@contextmanager
def frontend(control: str, locality: str, directory: Path) -> Iterator[tuple[str, int]]:
    """A frontend of the running planet on port 53, for which everybody is in `locality`; its address and debug port."""
    address, http = f"127.53.{random.randrange(1, 255)}.{random.randrange(1, 255)}", free_port()
    command = [sys.executable, "-m", "gslb", "dns", "--listen", f"{address}:53", "--control", control]
    command += ["--default-locality", locality, "--http", f"127.0.0.1:{http}"]
    with (directory / "dns.log").open("wb") as log:
        process = subprocess.Popen(dies_with_us(command), stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not ready(http):
            assert process.poll() is None, (directory / "dns.log").read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        yield address, http
    finally:
        process.terminate()
        process.wait(WAIT_S)


def fetched(http: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", timeout=20) as reply:
        return reply.read().decode()


def ready(http: int) -> bool:
    try:
        return bool(fetched(http, "/readyz"))
    except OSError:
        return False


def steered_questions(http: int) -> float:
    """Questions for services' addresses that the frontend has answered."""
    lines = fetched(http, "/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("gslb_dns_steered_total"))


def page(chromium: str, nameserver: str, url: str, directory: Path) -> str:
    """What the browser made of a page, with this name server and no other."""
    resolv = directory / "resolv.conf"
    resolv.write_text(f"nameserver {nameserver}\n")
    script = f'mount --bind "{resolv}" /etc/resolv.conf && exec "$0" "$@"'
    options = [*FLAGS, f"--user-data-dir={directory / 'profile'}", "--dump-dom", url]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, chromium, *options]
    done = subprocess.run(dies_with_us(command), capture_output=True, text=True, timeout=200, check=False)
    shutil.rmtree(directory / "profile", ignore_errors=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(("locality", "datacenter"), [("europe", "europe-west1"), ("asia", "asia-east1")])
def test_the_page_of_the_nearest_datacenter(chromium, demo_planet, tmp_path, locality, datacenter):
    port = demo_planet.gfe(datacenter).rpartition(":")[2]
    with frontend(demo_planet.control, locality, tmp_path) as (nameserver, http):
        asked = steered_questions(http)
        shown = page(chromium, nameserver, f"http://{NAME}:{port}/search?q=tempest", tmp_path)
        assert 'data-total="49"' in shown, shown[-2000:]
        assert f"/bns/{datacenter}/shakespeare/frontend/" in shown
        # What the data plane's threads count is collected now and then.
        deadline_s = time.monotonic() + WAIT_S
        while steered_questions(http) <= asked:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)


def test_without_our_dns_there_is_no_page(chromium, demo_planet, tmp_path):
    port = demo_planet.gfe("europe-west1").rpartition(":")[2]
    shown = page(chromium, "127.53.255.255", f"http://{NAME}:{port}/", tmp_path)
    assert "tempest" not in shown
