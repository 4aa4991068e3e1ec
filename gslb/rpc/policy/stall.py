"""A task that takes requests and answers nobody: stopped, hung, or behind a line that swallows all. PURE.

No connection breaks, so nothing says that it is gone, and each request that goes there waits for its deadline. Those under
way keep most others off, as the less busy is preferred, but never all. So a task that keeps several callers waiting, or
let one wait in vain, is asked whether it is there; while it does not answer that, it is left out and asked again. Slowness
alone is no reason: whoever answers the question stays. And as everybody is slow to answer when all have too much to do,
never more than EJECT_TASKS_MAX_FRACTION of the tasks are left out for it.
"""

from collections.abc import Iterable

from gslb.model import limits
from gslb.rpc.policy.member import Member


def keeps_waiting(member: Member, now_s: float) -> bool:
    """Whether to ask a task that has just been given a request."""
    return member.in_flight > 1 and not member.doubted and now_s - member.heard_s >= limits.STALL_S


def leaves_out(member: Member, all_members: Iterable[Member]) -> bool:
    """Whether a task that did not answer the question is left out."""
    members = list(all_members)
    room = max(int(limits.EJECT_TASKS_MAX_FRACTION * len(members)), int(len(members) > 1))
    return member.stalled or sum(other.stalled for other in members) < room
