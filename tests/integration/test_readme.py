"""What the README shows works as it is written: each command of its console blocks and its Python, on a running demo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.planet import DemoPlanet

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("planet")]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def environment(demo_planet: DemoPlanet) -> dict[str, str]:
    # The demo takes the next free port when another program has the usual one.
    return {
        **os.environ,
        "GSLB_CONTROL": demo_planet.control,
        "GSLB_DNS": demo_planet.state["dns_explain"][0],
        "BNS_SERVER": demo_planet.control,
        "README_DNS_PORT": demo_planet.state["dns"][0].rpartition(":")[2],
        "README_GFE_PORT": demo_planet.gfe("us-east1").rpartition(":")[2],
    }


def localised(text: str, environment: dict[str, str]) -> str:
    """With the ports that this demo got."""
    control = environment["GSLB_CONTROL"]
    text = text.replace("127.0.0.1:9001,127.0.0.1:9002", control).replace("127.0.0.1:9001", control.partition(",")[0])
    text = text.replace("-p 5300", f"-p {environment['README_DNS_PORT']}")
    return text.replace(":8080", f":{environment['README_GFE_PORT']}")


def test_console_blocks(environment: dict[str, str]) -> None:
    commands = 0
    for block in blocks("console"):
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).+\n)*)", block, flags=re.MULTILINE):
            line = localised(command, environment).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
            done = subprocess.run(
                ["bash", "-c", line], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60, check=False
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            for fragment in expected.splitlines():
                assert fragment in done.stdout, (command, done.stdout, done.stderr)
            commands += 1
    assert commands >= 12


def test_the_python_client(environment: dict[str, str]) -> None:
    (source,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", localised(source, environment)],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"49 places, from {done.stdout.split()[-1]}\n"
    assert done.stdout.split()[-1].startswith("/bns/asia-east1/shakespeare/backend/")


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
