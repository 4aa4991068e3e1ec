"""What every test has: fixtures, and property tests without a stop-watch (machines are noisy)."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.etcd"]

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")
