"""What every test has: fixtures, and property tests without a stop-watch (machines are noisy)."""

import signal

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
