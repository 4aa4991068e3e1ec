"""Every default and bound of BNS in one place. Units are in the names."""

from typing import Final

# What one task record may hold.
RECORD_MAX_BYTES: Final = 64_000
NAMED_PORTS_MAX: Final = 64
METADATA_MAX: Final = 64
METADATA_KEY_MAX_CHARS: Final = 128
METADATA_VALUE_MAX_CHARS: Final = 4_096
CPU_CORES_MAX: Final = 4_096.0
MACHINE_MAX_CHARS: Final = 200
PROBE_PATH_MAX_CHARS: Final = 1_024
PROBE_INTERVAL_MIN_S: Final = 0.05
PROBE_INTERVAL_MAX_S: Final = 300.0
PROBE_COUNT_MAX: Final = 100

# Liveness of agents and the removal of what they left behind.
LIVENESS_TTL_S: Final = 60
REAP_AFTER_S: Final = 600.0
REMOVAL_BUDGET_FRACTION: Final = 0.5
REMOVAL_BUDGET_WINDOW_S: Final = 30.0

# Reading.
PAGE_SIZE_DEFAULT: Final = 500
PAGE_SIZE_MAX: Final = 5_000
WATCH_COALESCE_S: Final = 0.015

# Retrying: full jitter between 0 and the doubled delay, never above the last.
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
CALL_TIMEOUT_S: Final = 5.0
