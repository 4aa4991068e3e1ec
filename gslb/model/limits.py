"""Every default and bound of the system in one place. Units are in the names."""

from typing import Final

# Names
NAME_MAX_CHARS: Final = 63
REASON_MAX_CHARS: Final = 500

# Periods
LOAD_REPORT_PERIOD_S: Final = 5.0
LOAD_REPORT_PERIOD_MIN_S: Final = 1.0
LOAD_REPORT_PERIOD_MAX_S: Final = 10.0
DEMAND_REPORT_PERIOD_S: Final = 2.0
PLAN_PERIOD_S: Final = 5.0
# Changes that arrive together (a drain, a burst of health reports) are planned once.
PLAN_COALESCE_S: Final = 0.05

# Leadership and liveness
LEADER_TTL_S: Final = 3
LIVENESS_TTL_S: Final = 60
# A report older than this says nothing about a task's health any more.
REPORT_STALE_PERIODS: Final = 3
# A report that is this late was missed: enough where others see nearly all of the agent's tasks fail.
REPORT_LATE_PERIODS: Final = 1.1
REAP_AFTER_S: Final = 600.0
REMOVAL_BUDGET_FRACTION: Final = 0.5
REMOVAL_BUDGET_WINDOW_S: Final = 30.0

# Drains
DRAIN_DEFAULT_S: Final = 8 * 3600.0
DRAIN_MAX_S: Final = 72 * 3600.0
# What must remain above demand before a drain is admitted.
DRAIN_HEADROOM_FRACTION: Final = 0.05

# A datacenter with fewer healthy tasks than this gets nothing, as long as that takes at most half of all capacity away.
AUTO_DRAIN_HEALTHY_MIN: Final = 0.25
AUTO_DRAIN_HEALTHY_BACK: Final = 0.35
AUTO_DRAIN_CAPACITY_MAX: Final = 0.5

# Capacity and demand
MAX_UTILIZATION_DEFAULT: Final = 0.8
DEMAND_SMOOTHING: Final = 0.2
DEMAND_HALF_LIFE_S: Final = 30.0
# Every locality gets shares, even before its first request.
DEMAND_FLOOR_RPS: Final = 1e-3
RATE_MAX_RPS: Final = 1e9
TASK_CAPACITY_MAX_RPS: Final = 1e6
REQUEST_CPU_MAX_S: Final = 1e6
REQUEST_MAX_MBIT: Final = 1e9

# The plan
KM_PER_MS: Final = 100.0
RTT_MAX_MS: Final = 10_000.0
TIE_BREAK_MS: Final = 0.01
STICKINESS_MS: Final = 22.0
STICKINESS_HALF_LIFE_S: Final = 60.0
PUBLISH_SHARE_CHANGE: Final = 1e-4
SHARE_SUM_TOLERANCE: Final = 1e-6
# Rows (lost datacenter, locality) of one plan: at about 40 bytes each they leave room for the shares in one record.
CONTINGENCY_ROWS_MAX: Final = 8_000

# What one message or record may hold
SERVICES_MAX: Final = 20_000
DATACENTERS_MAX: Final = 500
LOCALITIES_MAX: Final = 20_000
ENDPOINTS_PER_SERVICE_MAX: Final = 50_000
TASKS_PER_REPORT_MAX: Final = 20_000
DEMAND_ROWS_MAX: Final = 50_000
RECORD_MAX_BYTES: Final = 1_000_000
CIDRS_PER_AREA_MAX: Final = 20_000
LINKS_PER_DATACENTER_MAX: Final = 1_000
DNS_NAMES_PER_SERVICE_MAX: Final = 100
ZONE_MAX_BYTES: Final = 900_000
NOTES_PER_PLAN_MAX: Final = 50
NOTE_MAX_CHARS: Final = 500
WEIGHT_MAX: Final = 1e6
QUOTAS_PER_SERVICE_MAX: Final = 1_000
CPU_CORES_MAX: Final = 1e6
# What a reader keeps on disk.
SNAPSHOT_MAX_BYTES: Final = 512 * 1024 * 1024

# Configuration files
CONFIG_MAX_BYTES: Final = 16 * 1024 * 1024
CONFIG_DOCUMENTS_MAX: Final = 50_000
CONFIG_DEPTH_MAX: Final = 16
CONFIG_ERRORS_MAX: Final = 50

# DNS
TTL_DEFAULT_S: Final = 30
TTL_MAX_S: Final = 86_400
ADDRESSES_PER_ANSWER_DEFAULT: Final = 2
ADDRESSES_PER_ANSWER_MAX: Final = 16
ALPN_PER_SERVICE_MAX: Final = 8
ALPN_MAX_CHARS: Final = 32

# The control plane
AGENTS_MAX: Final = 20_000
REPORTERS_MAX: Final = 100_000
REMOTE_PROBES_MAX: Final = 10_000
# A window in which what clients and remote probes saw of a task counts (`gslb.balancer.witness` looks at eight).
WITNESS_WINDOW_S: Final = 1.0
# etcd's own default of --max-txn-ops is 128 and of --max-request-bytes 1.5 MiB.
TXN_OPS_MAX: Final = 100
TXN_BYTES_MAX: Final = 1_000_000
HISTORY_KEEP_S: Final = 300.0
TOMBSTONES_TOLD_MAX: Final = 1_000  # to readers, of places and zones
TOMBSTONE_KEEP_S: Final = 7 * 86_400.0
CLOCK_SKEW_MAX_S: Final = 2.0

# The RPC library
FIRST_PLAN_WAIT_S: Final = 10.0  # for a call without a deadline
ATTEMPTS_MAX: Final = 3
RETRY_BUDGET_FRACTION: Final = 0.1
RETRY_BUDGET_WINDOW_S: Final = 10.0  # how long a request's part of the budget lasts
# The floor: retries that need no requests before them, and how fast they come back.
RETRY_RESERVE: Final = 20.0
RETRY_RESERVE_PER_S: Final = 1.0
# How long a task that did not answer stays out before it is tried again in the background.
TASK_BACKOFF_MIN_S: Final = 0.1
TASK_BACKOFF_MAX_S: Final = 5.0
CONNECT_PROBE_TIMEOUT_S: Final = 2.0
# When a whole datacenter is suspected to be gone, this long is waited for an answer.
SUSPECT_PROBE_TIMEOUT_S: Final = 0.5
# How fast a datacenter that a client saw gone gets its share back, and how often that is done.
RETURN_FRACTION_PER_S: Final = 0.1
# The most that it gets back before it has answered a request: what starts takes connections long before it serves.
RETURN_UNPROVED: Final = 0.05
RETURN_UNPROVED_S: Final = 10.0
RETURN_TICK_S: Final = 0.5
# How long a task that may join a channel's subset has to say how many clients it has: it is dialled first.
SUBSET_ASK_TIMEOUT_S: Final = 2.0
# Questions for their load that policies have tasks asked (`gslb.rpc.policy.probing`), of one channel.
LOAD_PROBES_MAX: Final = 16  # under way at a time; one a task
LOAD_PROBES_PER_S: Final = 500.0
LOAD_PROBE_TIMEOUT_S: Final = 0.5
# How long a task is left alone that did not answer one, and one that knows no such question.
LOAD_PROBE_BACKOFF_MIN_S: Final = 0.2
LOAD_PROBE_BACKOFF_MAX_S: Final = 5.0
LOAD_PROBE_UNKNOWN_MIN_S: Final = 1.0
LOAD_PROBE_UNKNOWN_MAX_S: Final = 300.0
# A call that waited this long for an answer in vain is a witness against its task; a shorter deadline says nothing.
WITNESS_TIMEOUT_MIN_S: Final = 1.0
CONTROL_BACKOFF_MIN_S: Final = 0.1
CONTROL_BACKOFF_MAX_S: Final = 5.0
# A replica that acknowledges no report for this long, while another does, is left for the other.
CONTROL_SILENCE_S: Final = 3.0
CONTROL_PATIENCE_MAX_S: Final = 60.0
LAST_REPORT_GRACE_S: Final = 1.0  # a process that ends waits so long for a replica to take its last demand report
REPORT_BACKLOG_MAX: Final = 5
# Requests of a client stream that are kept so that they can be sent again to another task.
REPLAY_MESSAGES_MAX: Final = 64
TRACE_ID_MAX_CHARS: Final = 64
LAME_DUCK_LIMIT_S: Final = 10.0

# Overload (docs/explanation/overload.md)
THROTTLE_WINDOW_S: Final = 1.0
# A client offers an overloaded service this many times what it accepts, so that it sees when there is more room.
THROTTLE_EXCESS: Final = 1.1
# Over quota it offers more: refusals by quota come and go with the shares of single servers, and what is held back is lost.
QUOTA_EXCESS: Final = 2.0
# How fast a client comes back at most, a window, when hardly anything has been refused for some windows.
THROTTLE_RETURN: Final = 3.0
# A client never sends less than this part of its calls.
THROTTLE_FLOOR: Final = 0.01
HEDGE_BUDGET_FRACTION: Final = 0.05
# An answer that is later than this part of all answers is asked for a second time.
HEDGE_QUANTILE: Final = 0.95
HEDGE_DELAY_MIN_S: Final = 0.002
# A late call for which no second copy could be paid gets one out of the budget for retries after so long.
OVERDUE_S: Final = 0.5
EJECT_TASKS_MAX_FRACTION: Final = 0.3
EJECT_BASE_S: Final = 10.0
EJECT_MAX_S: Final = 300.0
EJECT_WINDOW_S: Final = 5.0
# A task that answered nobody for so long, with requests under way, is asked whether it is there; while not, so often.
# One that is there and only slow is asked again after twice as long each time, up to a limit; looked at so often.
STALL_S: Final = 0.3
STALL_LOOK_S: Final = 0.1
STALL_PATIENCE_MAX_S: Final = 30.0
STALL_AGAIN_S: Final = 1.0
SLOW_START_S: Final = 30.0

# Quotas (docs/how-to/set-quotas.md)
QUOTA_PERIOD_S: Final = 2.0  # from the second one on a client is held to its quota; four reports
QUOTA_REPORT_PERIOD_S: Final = 0.5
# A service without quotas, or so many servers that a replica would hear more than this a second: less often.
QUOTA_REPORTS_MAX_PER_S: Final = 2_000.0
QUOTA_REPORT_IDLE_S: Final = 5.0
QUOTA_REPORT_MAX_S: Final = 10.0
# A replica that has just started shares out only when every server had the time to find it.
QUOTA_SETTLE_S: Final = CONTROL_BACKOFF_MAX_S + 2 * QUOTA_REPORT_PERIOD_S
# Servers that a replica remembers, and how many of their periods without a report make one forgotten.
QUOTA_SERVERS_MAX: Final = 100_000
QUOTA_SILENT_PERIODS: Final = 4.0
SLOW_START_LEAST: Final = 0.1
# Clients raise the weight of a new task in steps, this long each; a ring is built anew with every one.
SLOW_START_STEP_S: Final = 3.0
