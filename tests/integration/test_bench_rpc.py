"""`python -m bench rpc --quick`, the parts on real processes; and the server that misbehaves as it is told."""

import json
import re
import time
from pathlib import Path

import grpc
import pytest

from bench.rpc import target
from bench.rpc.channels import start, task_name
from bench.stage import Stage
from tests.integration.test_bench_quick import bench

ADDED = [
    rf"added: an? {how} call, {what}: {figure}"
    for how in ("blocking", "asyncio")
    for what in ("wall time", "CPU of the process")
    for figure in ("over stock round_robin", "added")
]
WAYS = ("", ", hedging")
LASTING = (r"flapping \(.*\)", r"slow \(.*\)", r"error-fast \(.*\)")
LEFT = (
    "kill -9",
    "SIGSTOP",
    r"mute \(.*\)",
    r"blackhole \(.*\)",
    r"connection refused \(.*\)",
    "all of a datacenter (killed|stopped)",
)


def measured(tmp_path: Path, part: str) -> dict[str, dict[str, object]]:
    done, left = bench(tmp_path, "rpc", "--only", part)
    assert done.returncode == 0, done.stderr[-3000:]
    assert left == []
    _, *rows = json.loads((tmp_path / "quick" / "rpc.json").read_text())
    return {row["name"]: row for row in rows}


def matching(rows: dict[str, dict[str, object]], pattern: str) -> list[dict[str, object]]:
    return [row for name, row in rows.items() if re.fullmatch(pattern, name)]


@pytest.mark.timeout(120)
def test_what_is_added_per_call(tmp_path: Path) -> None:
    rows = measured(tmp_path, "added")
    assert len(rows) == len(ADDED)
    for pattern in ADDED:
        (row,) = matching(rows, pattern)
        assert isinstance(row["value"], float)
        assert row["spread"]
        if "over stock" in pattern:
            assert row["value"] > 0.3


@pytest.mark.timeout(300)
def test_every_scene_is_played_and_told(tmp_path: Path) -> None:
    rows = measured(tmp_path, "failures")
    for way in WAYS:
        for scene in (*LASTING, *LEFT):
            failed = matching(rows, rf"failures: {scene}{way}: failed, begun after 1 s")
            assert len(failed) == (2 if "|" in scene else 1), scene
            for row in failed:
                assert isinstance(row["value"], int)
                assert row["goal"] == "<= 0"
                assert re.match(r"of [1-9]\d*[,;]", str(row["spread"])), row
        assert len(matching(rows, rf"failures: .*{way}: its part of the picks after 1 s")) >= len(LASTING)
        assert len(matching(rows, rf"failures: .*{way}: until the last pick")) >= len(LEFT) + 1
    # Where a connection breaks, requests that may be sent twice are: nobody sees it.
    (killed,) = matching(rows, "failures: kill -9: failed, begun after 1 s")
    assert killed["value"] == 0


async def ask(call: grpc.aio.UnaryUnaryMultiCallable, timeout_s: float = 5.0) -> grpc.StatusCode:
    try:
        await call(b"x", timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.timeout(60)
async def test_a_target_misbehaves_as_told_and_recovers() -> None:
    async with Stage("test-target") as stage:
        worker, endpoint = await start(stage, task_name("near", 0))

        async def behave(how: str, answer_s: float = 0.0) -> None:
            await worker.ask("behave", how=how, answer_s=answer_s)

        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
        async with grpc.aio.insecure_channel(endpoint.target, options=options) as channel:
            call = channel.unary_unary(target.METHOD)
            health = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert await ask(call) is grpc.StatusCode.OK
            await behave(target.ERRORS)
            assert await ask(call) is await ask(health) is grpc.StatusCode.INTERNAL
            await behave(target.MUTE)
            assert await ask(call, 0.5) is await ask(health, 0.5) is grpc.StatusCode.DEADLINE_EXCEEDED
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            await behave(target.WELL, 0.2)
            began_s = time.monotonic()
            assert await ask(call) is grpc.StatusCode.OK
            assert time.monotonic() - began_s >= 0.2
            await behave(target.BLACKHOLE)
            assert await ask(call, 0.5) is not grpc.StatusCode.OK
            assert channel.get_state() is not grpc.ChannelConnectivity.READY
            await behave(target.FLAPPING)
            assert await ask(call, 0.3) is not grpc.StatusCode.OK
            up = channel.unary_unary(target.METHOD)(b"x", timeout=10, wait_for_ready=True)
            assert await up == b"x"
            await behave(target.WELL)
            assert await channel.unary_unary(target.METHOD)(b"x", timeout=10, wait_for_ready=True) == b"x"
