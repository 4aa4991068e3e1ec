"""What the README shows works as it is written: each command of its console blocks and its Python, on a running demo."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_demo_planet import _pids, _started, _wait_gone

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("planet")]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    demo, state = _started(tmp_path_factory.mktemp("readme"))
    control = ",".join(replica["addr"] for replica in state["control"])
    # The demo takes the next free port when another program has the usual one.
    yield {
        **os.environ,
        "GSLB_CONTROL": control,
        "GSLB_DNS": state["dns_explain"][0],
        "BNS_SERVER": control,
        "README_DNS_PORT": state["dns"][0].rpartition(":")[2],
        "README_GFE_PORT": state["datacenters"]["us-east1"]["gfe"].rpartition(":")[2],
    }
    demo.terminate()
    demo.communicate(timeout=60)
    assert _wait_gone(_pids(state)) == []


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
