"""What an operator should hear about the etcd in use. PURE."""

from enum import IntEnum

# Versions of etcd that can corrupt data after a crash (etcd's own advisory of March 2022; 3.5.3 has the correction).
_CORRUPTING = ("3.5.0", "3.5.1", "3.5.2")

# etcd's default of --quota-backend-bytes; Maintenance.Status of 3.4 and 3.5 does not tell the real one.
QUOTA_DEFAULT_BYTES = 2 * 1024**3


class Level(IntEnum):
    """How urgent it is."""

    NOTICE = 1
    WARNING = 2
    CRITICAL = 3


_LEVELS = (
    (0.95, Level.CRITICAL),
    (0.85, Level.WARNING),
    (0.70, Level.NOTICE),
)


def version_warning(version: str) -> str | None:
    """What is wrong with this version of etcd for production; None: nothing that we know of."""
    release = version.strip().removeprefix("v").partition("-")[0].partition("+")[0]
    if release not in _CORRUPTING:
        return None
    return (
        f"etcd {release} can corrupt its data when a member crashes: use it for demos and tests only, "
        "and run 3.5.3 or later in production"
    )


def quota_alarm(db_size_bytes: int, quota_bytes: int = QUOTA_DEFAULT_BYTES) -> tuple[Level, str] | None:
    """How full the database is: None below 70 % of the quota, else a level (70, 85, 95 %) and one line for people."""
    if quota_bytes <= 0:
        raise ValueError(f"the quota is {quota_bytes} bytes: it must be above 0")
    used = db_size_bytes / quota_bytes
    for threshold, level in _LEVELS:
        if used >= threshold:
            return level, (
                f"etcd's database has {db_size_bytes / 2**20:.0f} MiB, {used:.0%} of its quota of "
                f"{quota_bytes / 2**20:.0f} MiB: at 100 % every write is refused; compact and defragment, or raise "
                "--quota-backend-bytes"
            )
    return None
