"""A task that takes requests and answers nobody: stopped, hung, or behind a line that swallows all. PURE.

No connection breaks, so nothing says that it is gone, and each request that goes there waits for its deadline. Those under
way keep most others off, as the less busy is preferred, but never all. So while calls are under way somebody listens: a
task that has said nothing for as long as it is patiently waited for, or let a call wait in vain, is asked whether it is
there; while it does not answer that, it is left out and asked again.

Slowness alone is no reason. Whoever answers the question, or anybody else meanwhile, stays, and is waited for twice as
long the next time, so that a stream which is silent for hours costs a question now and then; whoever takes long for an
answer is waited for as long the next time. And as everybody is slow to answer when all have too much to do, never more
than EJECT_TASKS_MAX_FRACTION of the tasks are left out for it.
"""

from collections.abc import Iterable

from gslb.model import limits
from gslb.rpc.policy.member import Member


def overdue(member: Member, now_s: float) -> bool:
    """Whether to ask a task if it is there."""
    if not member.in_flight or member.doubted or member.down:
        return False
    return now_s - member.silent_since_s >= member.patience_s


def leaves_out(member: Member, all_members: Iterable[Member]) -> bool:
    """Whether a task that did not answer the question is left out."""
    members = list(all_members)
    room = max(int(limits.EJECT_TASKS_MAX_FRACTION * len(members)), int(len(members) > 1))
    return member.stalled or sum(other.stalled for other in members) < room
