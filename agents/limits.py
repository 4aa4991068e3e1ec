"""The agent's own bounds and defaults. Units are in the names."""

from typing import Final

# What one machine may hold, whoever asks for it.
TASKS_MAX: Final = 5_000
CONFIG_MAX_BYTES: Final = 4 << 20
CONFIG_DEPTH_MAX: Final = 16
CONFIG_PROBLEMS_SHOWN: Final = 20

# The local socket: its clients are processes of this machine, and still may be broken.
LOCAL_MESSAGE_MAX_BYTES: Final = 128 << 10
LOCAL_STREAMS_MAX: Final = 2 * TASKS_MAX
LOCAL_FIRST_MESSAGE_S: Final = 10.0
# A client that sends more is read no faster than this.
LOCAL_MESSAGES_PER_S: Final = 50.0
DETACH_WAIT_S: Final = 3.0

# Probing
PROBES_IN_FLIGHT_MAX: Final = 256
PROBE_START_SPREAD_S: Final = 0.2
PROBE_JITTER_FRACTION: Final = 0.1
# A task without a verdict yet is probed more often, so that a starting server is used as soon as it listens.
PROBE_UNJUDGED_INTERVAL_S: Final = 0.2
PROBE_UNJUDGED_FOR_S: Final = 30.0
HTTP_HEAD_MAX_BYTES: Final = 8 << 10
DETAIL_MAX_CHARS: Final = 200

# Processes
PROCESS_POLL_S: Final = 0.5
# How far a recorded start time may be from the kernel's, whose clock ticks in 10 ms and whose boot time is rounded.
START_TIME_TOLERANCE_S: Final = 2.0
PID_DISCOVERY_S: Final = 10.0
# Looking for listeners takes long on a busy machine; it takes no more than this part of the time.
PID_DISCOVERY_REST_FACTOR: Final = 50.0
# A task that registered itself, died and never came back is taken out of BNS after this time.
FORGET_DEAD_AFTER_S: Final = 600.0

# Counters older than this say nothing about the load of now.
COUNTERS_STALE_S: Final = 3.0

# The control plane
WELCOME_TIMEOUT_S: Final = 5.0
ACK_TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 3.0
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 3.0
REGISTER_WINDOW: Final = 64
REFUSED_RETRY_S: Final = 15.0
TRANSIENT_RETRY_S: Final = 1.0
GOODBYE_TIMEOUT_S: Final = 4.0
GOODBYE_DETACHED_S: Final = 1.0
PARTIAL_GAP_S: Final = 0.05
# The first report waits this long for the tasks that BNS still holds for this agent, and for a first verdict on each.
FIRST_REPORT_WAIT_S: Final = 3.0

# Remote probes
REMOTE_PROBES_DEFAULT: Final = 16
REMOTE_PROBES_MAX: Final = 1_000
# How many datacenters watch each task.
REMOTE_WITNESSES: Final = 2
REMOTE_INTERVAL_S: Final = 5.0
REMOTE_RETRY_S: Final = 1.0
REMOTE_TIMEOUT_S: Final = 2.0
REMOTE_TASKS_MAX: Final = 500_000
