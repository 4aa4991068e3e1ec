"""What an operator hears about the etcd in use."""

import pytest

from bns.etcd.advice import Level, quota_alarm, version_warning

GIB = 2**30


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2", "v3.5.1", "3.5.0-rc.1", "3.5.2+git", " 3.5.1 "])
def test_corrupting_versions_are_warned_about(version: str) -> None:
    warning = version_warning(version)
    assert warning is not None
    assert "corrupt" in warning
    assert "3.5.3" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("version", ["3.4.23", "3.5.3", "3.5.10", "3.5.16", "3.5.20", "3.6.0", "13.5.1", "", "unknown"])
def test_other_versions_are_not(version: str) -> None:
    assert version_warning(version) is None


@pytest.mark.parametrize(
    ("used_percent", "level"),
    [
        (0, None),
        (69.9, None),
        (70, Level.NOTICE),
        (84.9, Level.NOTICE),
        (85, Level.WARNING),
        (94.9, Level.WARNING),
        (95, Level.CRITICAL),
        (100, Level.CRITICAL),
        (120, Level.CRITICAL),
    ],
)
def test_quota_alarm_levels(used_percent: float, level: Level | None) -> None:
    alarm = quota_alarm(round(used_percent / 100 * 10 * GIB), 10 * GIB)
    assert (alarm[0] if alarm else None) == level


def test_quota_alarm_has_the_numbers_and_what_to_do() -> None:
    alarm = quota_alarm(9 * GIB // 5)  # of etcd's default, 2 GiB
    assert alarm is not None
    level, line = alarm
    assert level is Level.WARNING
    assert "1843 MiB" in line
    assert "90%" in line
    assert "2048 MiB" in line
    assert "compact" in line


def test_a_quota_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the quota is 0 bytes"):
        quota_alarm(1, 0)
