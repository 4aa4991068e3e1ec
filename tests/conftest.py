"""What every test has: fixtures, and property tests without a stop-watch (machines are noisy)."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.etcd"]

# A shell starts what runs in its background with SIGINT ignored, and every process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a running planet come last: it would idle, and cost CPU, beside all that follow it."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """What failed is remembered without the group's name behind it, or `--last-failed` would not find it again."""
    yield
    # Absent with `-p no:cacheprovider`, as tests/mutation runs its tests.
    cache = getattr(session.config, "cache", None)
    if hasattr(session.config, "workerinput") or cache is None:
        return
    failed: dict[str, bool] = cache.get("cache/lastfailed", {})
    cache.set("cache/lastfailed", {_without_group(name): known for name, known in failed.items()})


def _without_group(name: str) -> str:
    """A parameter may have an @ of its own: it is followed by a bracket."""
    head, _, group = name.rpartition("@")
    return head if head and "]" not in group else name
