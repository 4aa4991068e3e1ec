"""libFuzzer on the core of the data plane: each target for GSLB_FUZZ_S seconds (60), from our corpus (`make fuzz`)."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "fuzz.sh"
SECONDS = int(os.environ.get("GSLB_FUZZ_S", "60"))
BUILD_S = 1500.0
CANNOT_BUILD = 3
# One group: the targets are built once, by one worker.
# In the planet's group, so that they take turns: each needs the whole machine.
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(2 * BUILD_S + 20 * SECONDS), pytest.mark.xdist_group("planet")]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if shutil.which("cargo") is None:
        pytest.skip("NOT FUZZED: there is no cargo here")
    done = subprocess.run([SCRIPT, "build"], capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode == CANNOT_BUILD:
        pytest.skip(f"NOT FUZZED: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["packet", "subnet", "table"])
def test_nothing_makes_it_fail(target):
    # By the seconds, plus the start, plus waiting for a processor.
    limit_s = 10 * SECONDS + 600
    done = subprocess.run(
        [SCRIPT, "run", target, str(SECONDS)], capture_output=True, text=True, timeout=limit_s, check=False
    )
    assert done.returncode == 0, f"a failing input is in .cache/fuzz/{target}/failed:\n{done.stderr[-3000:]}"
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    ours = len(list((ROOT / "dns_frontend/dataplane/fuzz/corpus" / target).iterdir()))
    assert executed is not None, done.stderr[-3000:]
    assert int(executed[1]) > ours, "more than the corpus itself was tried"
